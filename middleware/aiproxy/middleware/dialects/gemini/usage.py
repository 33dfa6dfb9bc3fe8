"""``usageMetadata`` both ways."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.dialects.reading import words

#: More tokens than this is no count.
_MOST: Final = 1 << 53
COUNTS: Final = words(
    "promptTokenCount candidatesTokenCount thoughtsTokenCount totalTokenCount "
    "toolUsePromptTokenCount cachedContentTokenCount"
)


def usage_of(value: object) -> Usage | None:
    """Return the usage of a ``usageMetadata`` member; ``None`` when it counts nothing.

    Google counts thoughts beside the answer and tool results beside the prompt; both are
    brought to the inclusive form. Servers that already include thoughts in the answer show it
    in the total.
    """
    if not isinstance(value, Mapping):
        return None
    prompt, made = _count(value, "promptTokenCount"), _count(value, "candidatesTokenCount")
    thoughts, total = _count(value, "thoughtsTokenCount"), _count(value, "totalTokenCount")
    if prompt is None and made is None and thoughts is None and total is None:
        return None
    given = (prompt or 0) + (_count(value, "toolUsePromptTokenCount") or 0)
    thoughts = thoughts or 0
    if made is None:
        made = max((total or 0) - given - thoughts, 0)
    inclusive = bool(thoughts) and thoughts <= made and total == given + made
    output = made if inclusive else made + thoughts
    return Usage(given, output, _count(value, "cachedContentTokenCount") or 0, 0, thoughts)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage_of(body.get("usageMetadata"))


def usage_metadata(usage: Usage) -> dict[str, Any]:
    """Return the ``usageMetadata`` member."""
    made: dict[str, Any] = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(usage.output - usage.reasoning, 0),
        "totalTokenCount": usage.total,
    }
    if usage.cached:
        made["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        made["thoughtsTokenCount"] = usage.reasoning
    return made


def _count(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    if type(found) is int and 0 <= found <= _MOST:
        return found
    if type(found) is float and 0 <= found <= _MOST and found.is_integer():
        return int(found)
    return None
