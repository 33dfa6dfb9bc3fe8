"""What this dialect calls itself, and its constants."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

DIALECT: Final = "anthropic"

#: Output tokens asked for when the client named no limit: the API wants one in every request.
DEFAULT_MAX_TOKENS: Final = 4096
#: Thinking tokens of each effort, where thinking is asked for by a budget; where it is not, the
#: room added to ``DEFAULT_MAX_TOKENS``, because thinking counts towards that limit.
BUDGETS: Final[Mapping[str, int]] = MappingProxyType(
    {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
)
#: The smallest budget the API takes.
LEAST_BUDGET: Final = 1024

#: The tool whose call stands for a JSON answer where a model takes no schema. Its calls are turned
#: back into text, so it is recognised by its name alone.
ANSWER_TOOL: Final = "aiproxy_json_answer"

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

#: Error type <-> HTTP status.
STATUS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "invalid_request_error": 400,
        "authentication_error": 401,
        "billing_error": 402,
        "permission_error": 403,
        "not_found_error": 404,
        "request_too_large": 413,
        "rate_limit_error": 429,
        "api_error": 500,
        "timeout_error": 504,
        "overloaded_error": 529,
    }
)


def json_text(value: Any) -> str:
    """Return ``value``, which a JSON reader made, as JSON text."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits: some other reader made it
        import json

        return json.dumps(value, default=str)
