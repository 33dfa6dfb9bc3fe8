"""Token usage: this API counts cached input beside ``input_tokens``, the canonical form inside."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Json, Usage

_TOLD: Final = ("server_tool_use", "cache_creation", "inference_geo", "speed")
#: What is counted at most; more is no count (and beyond 64 bits no JSON number of ours).
_MOST: Final = 1 << 53


def usage_of(value: object) -> Usage | None:
    """Return the usage of a ``usage`` member, inclusive; ``None`` when it has no counts."""
    if not isinstance(value, Mapping):
        return None
    given, made = _count(value, "input_tokens"), _count(value, "output_tokens")
    if given is None and made is None:
        return None
    written = _count(value, "cache_creation_input_tokens")
    if written is None:
        kinds = value.get("cache_creation")
        written = sum(_count(kinds, k) or 0 for k in kinds) if isinstance(kinds, Mapping) else 0
    cached = _count(value, "cache_read_input_tokens") or 0
    details = value.get("output_tokens_details")
    thought = (_count(details, "thinking_tokens") or 0) if isinstance(details, Mapping) else 0
    return Usage((given or 0) + cached + written, made or 0, cached, written, thought)


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply, ``None`` when it has none."""
    return usage_of(body.get("usage"))


def usage_details(value: object) -> dict[str, Any]:
    """Return what a ``usage`` member says beyond tokens: server tool uses, cache writes by
    lifetime. Zeros say nothing and are left out."""
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name in _TOLD:
        told = value.get(name)
        if isinstance(told, Mapping):
            told = {k: v for k, v in told.items() if v}
        if told and told not in ("standard", "not_available"):
            found[name] = told
    return found


def merge(seen: dict[str, Any], new: object) -> None:
    """Take a later report of a stream into ``seen``: counts are cumulative, absent ones stay."""
    if isinstance(new, Mapping):
        seen.update((k, v) for k, v in new.items() if v is not None)


def write_usage(usage: Usage | None, details: Json = {}) -> dict[str, Any]:  # noqa: B006
    """Return the ``usage`` member. Its counts are mandatory, so an unknown usage reads as zeros."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    body: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    }
    if usage.reasoning:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    tools = details.get("server_tool_use")
    if isinstance(tools, Mapping):
        body["server_tool_use"] = {"web_fetch_requests": 0, "web_search_requests": 0, **tools}
    kinds = details.get("cache_creation")
    if isinstance(kinds, Mapping):
        zeros = {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0}
        body["cache_creation"] = {**zeros, **kinds}
    return body


def _count(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    if type(found) is int and 0 <= found <= _MOST:
        return found
    if type(found) is float and 0 <= found <= _MOST and found.is_integer():
        return int(found)
    return None
