"""Would the provider take the request? The conformance suite's fakes read as strictly as theirs."""

from typing import Any, Final

import orjson

from aiproxy.conformance.rig.fleet import Actor, Fake
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import DIALECTS
from aiproxy.conformance.rig.shapes.speech import Refusal
from aiproxy.middleware.dialects.codecs import codec

#: Dialect -> the fake that speaks it and the path of its base URL.
_FAKES: Final = {
    "chat": ("openai", "/v1"),
    "responses": ("openai", "/v1"),
    "completions": ("openai", "/v1"),
    "anthropic": ("anthropic", "/v1"),
    "gemini": ("google", "/v1beta"),
    "mistral": ("mistral", "/v1"),
    "cohere": ("cohere", "/v2"),
    "workers_ai": ("cloudflare", "/client/v4/accounts/acc/ai"),
}
_PATHS: Final = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "completions": "/completions",
}
_KEY: Final = "sk-fake"


def refusal(dialect: str, body: dict[str, Any], stream: bool, model: str = "m") -> str | None:
    """Why the provider of ``model`` would refuse ``body``; ``None`` when it takes it."""
    fake, base = _FAKES[dialect]
    module = codec(dialect)
    path = module.target(model, stream) if hasattr(module, "target") else _PATHS[dialect]
    headers = (
        ("content-type", "application/json"),
        ("authorization", f"Bearer {_KEY}"),
        ("x-api-key", _KEY),
        ("x-goog-api-key", _KEY),
        ("anthropic-version", "2023-06-01"),
    )
    request = Request("POST", base + path, headers, orjson.dumps(body))
    actor = Actor("a", Fake(), "a", "m", model, _KEY)
    try:
        DIALECTS[fake].read(request, actor)
    except Refusal as no:
        return f"{no.status} {no.message}"
    return None
