"""The fake providers' dialects, one module each; all have the functions of ``speech.Dialect``."""

from collections.abc import Mapping
from typing import Final

from aiproxy.conformance.rig.shapes import (
    anthropic,
    cloudflare,
    cohere,
    google,
    mistral,
    openai,
    peer,
)
from aiproxy.conformance.rig.shapes.speech import Dialect

DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": openai,
    "anthropic": anthropic,
    "google": google,
    "cohere": cohere,
    "mistral": mistral,
    "cloudflare": cloudflare,
    "peer": peer,
}
