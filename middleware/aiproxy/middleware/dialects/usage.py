"""Token usage in its two OpenAI spellings, and what other servers make of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Usage

#: More tokens than this is no count.
_MOST: Final = 1 << 53
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


def read_usage(value: object) -> Usage | None:
    """Return the usage of a ``usage`` member in either spelling; ``None`` when it has no counts.

    Servers that leave reasoning out of the completion count but in the total (total = prompt +
    completion + reasoning) are brought to the inclusive form, so that money adds up.
    """
    if not isinstance(value, (dict, Mapping)):
        return None
    prompt = _count(value, "prompt_tokens", "input_tokens")
    completion = _count(value, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return None
    given, made = prompt or 0, completion or 0
    inner = _mapping(value, "prompt_tokens_details", "input_tokens_details")
    outer = _mapping(value, "completion_tokens_details", "output_tokens_details")
    cached = _count(inner, "cached_tokens") if inner else None
    written = _count(inner, "cache_write_tokens", "cache_creation_tokens") if inner else None
    reasoning = _count(outer, "reasoning_tokens") if outer else None
    if prompt is not None and cached is None and "prompt_tokens" in value:
        # Beside the details: DeepSeek's word, Moonshot's, and that of gateways before Claude.
        names = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
        cached = _count(value, *names)
        written = written or _count(value, "cache_creation_input_tokens")
    cached = cached or 0
    reasoning = reasoning or _count(value, "reasoning_tokens") or 0
    if reasoning and _count(value, "total_tokens") == given + made + reasoning:
        made += reasoning
    return Usage(given, made, cached, written or 0, reasoning)


def chat_usage(usage: Usage) -> dict[str, Any]:
    """Return the prompt/completion spelling."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Return the input/output spelling."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def union_usage(usage: Usage) -> dict[str, Any]:
    """Return both spellings in one object, as the draft's union shape carries them."""
    return {**responses_usage(usage), **chat_usage(usage)}


def _count(value: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        found = value.get(name)
        if type(found) is int and 0 <= found <= _MOST:
            return found
        if type(found) is float and 0 <= found <= _MOST and found.is_integer():
            return int(found)
    return None


def _mapping(value: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in names:
        found = value.get(name)
        if found is not None and isinstance(found, (dict, Mapping)):
            return found
    return _NONE


def added(one: Usage, two: Usage) -> Usage:
    """The usage of both."""
    return Usage(
        input=one.input + two.input,
        output=one.output + two.output,
        cached=one.cached + two.cached,
        cache_write=one.cache_write + two.cache_write,
        reasoning=one.reasoning + two.reasoning,
    )
