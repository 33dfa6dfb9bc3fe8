"""JSON Schema between dialects: pure conversions, each with what the result no longer says.

``inline_refs`` replaces references, ``for_gemini`` and ``for_gemini_json`` bring a schema to
Gemini's two subsets, ``closed`` to the closed objects of strict mode.
"""

from aiproxy.middleware.dialects.schema_gemini import (
    JSON_KEYWORDS,
    OPENAPI_KEYWORDS,
    for_gemini,
    for_gemini_json,
)
from aiproxy.middleware.dialects.schema_refs import SchemaRefused, inline_refs
from aiproxy.middleware.dialects.schema_strict import STRICT_KEYWORDS, closed

__all__ = [
    "JSON_KEYWORDS",
    "OPENAPI_KEYWORDS",
    "STRICT_KEYWORDS",
    "SchemaRefused",
    "closed",
    "for_gemini",
    "for_gemini_json",
    "inline_refs",
]
