"""Whole answers in: Cohere v2 chat replies to the canonical form."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Json,
    MalformedReply,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    Usage,
)
from aiproxy.middleware.dialects.cohere.citations import annotations, of_answer
from aiproxy.middleware.dialects.cohere.vocabulary import DIALECT
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.reading import words

_READ: Final = words("id message finish_reason usage logprobs")


def failed(native: object) -> bool:
    """Tell whether a finish reason says that the answer broke off."""
    return is_failure(native) or native == "TIMEOUT"


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    if body.get("error"):
        return "the body holds an error"
    message = body.get("message")
    if isinstance(message, str):
        return "the body holds an error message"
    if not isinstance(message, Mapping):
        return "message is missing"
    if failed(body.get("finish_reason")):
        return "the answer ended in an error"
    for name in ("content", "tool_calls"):
        if message.get(name) is not None and not isinstance(message[name], list | str):
            return f"message.{name} is {reading.kind_of(message[name])}"
    return None


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply: what is billed, where Cohere says so.

    Billed units leave out what Cohere adds to a prompt itself.
    """
    return usage_of(body.get("usage"))


def usage_of(value: object) -> Usage | None:
    """Return the usage of a ``usage`` member."""
    if not isinstance(value, Mapping):
        return None
    for name in ("billed_units", "tokens"):
        held = value.get(name)
        if isinstance(held, Mapping):
            given, made = _count(held.get("input_tokens")), _count(held.get("output_tokens"))
            if given is not None or made is not None:
                cached = _count(value.get("cached_tokens")) or 0
                return Usage(given or 0, made or 0, min(cached, given or 0))
    return None


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a v2 chat answer.

    Raises:
        MalformedReply: an error, no message, or an answer that broke off.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    message = body["message"]
    parts = _content(message)
    plan = message.get("tool_plan")
    if isinstance(plan, str) and plan:
        parts.append(Reasoning(plan, extra={"key": "tool_plan"}))
    _cite(reading.objects(message.get("citations")), parts)
    probabilities = logprobs(body.get("logprobs"))
    if probabilities:
        _attach(probabilities, parts)
    calls = [_call(call) for call in reading.objects(message.get("tool_calls"))]
    native = body.get("finish_reason")
    reason = finish_reason(native, bool(calls)) or ("tool_calls" if calls else "stop")
    return CanonicalReply(
        choices=(Choice((*parts, *calls), reason, 0, native_word(native, reason)),),
        source=DIALECT,
        usage=usage_of(body.get("usage")),
        id=reading.optional(body.get("id")),
        extra=reading.rest(body, _READ),
    )


def native_word(native: object, reason: str) -> str | None:
    """Return Cohere's word where it says more than ours."""
    return native if isinstance(native, str) and native and native != reason else None


def logprobs(value: object) -> tuple[Json, ...]:
    """Return one object a chunk of text; its logprob is that of all its tokens together."""
    items = [value] if isinstance(value, Mapping) else reading.objects(value)
    found = []
    for item in items:
        text = reading.word(item.get("text"))
        numbers = item.get("logprobs")
        if isinstance(numbers, list) and numbers and all(type(n) in (int, float) for n in numbers):
            found.append(
                {
                    "token": text,
                    "logprob": sum(numbers),
                    "bytes": list(text.encode("utf-8", "surrogatepass")),
                    "top_logprobs": [],
                }
            )
    return tuple(found)


def _content(message: Json) -> list[Part]:
    content = message.get("content")
    if isinstance(content, str):
        return [Text(content)] if content else []
    parts: list[Part] = []
    for item in reading.objects(content):
        kind = item.get("type")
        if kind == "thinking":
            thinking = reading.word(item.get("thinking"))
            if thinking:
                parts.append(Reasoning(thinking))
        elif kind == "text":
            parts.append(Text(reading.word(item.get("text"))))
        else:
            parts.append(Opaque(DIALECT, reading.word(kind) or "content", item))
    return parts


def _cite(citations: list[Json], parts: list[Part]) -> None:
    for citation in citations:
        if not of_answer(citation):
            parts.append(Opaque(DIALECT, "citation", citation))
            continue
        place = citation.get("content_index")
        at = place if isinstance(place, int) and 0 <= place < len(parts) else -1
        if at < 0 or not isinstance(parts[at], Text):
            at = next((i for i, part in enumerate(parts) if isinstance(part, Text)), -1)
        cited = parts[at] if at >= 0 else None
        if isinstance(cited, Text):
            found = (*cited.annotations, *annotations(citation))
            parts[at] = Text(cited.text, found, cited.logprobs)


def _attach(probabilities: tuple[Json, ...], parts: list[Part]) -> None:
    for i, part in enumerate(parts):
        if isinstance(part, Text):
            parts[i] = Text(part.text, part.annotations, probabilities)
            return


def _call(call: Json) -> ToolCall:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    return ToolCall(
        reading.word(call.get("id")),
        reading.word(function.get("name")),
        reading.arguments_text(function.get("arguments")),
    )


def _count(value: object) -> int | None:
    """Return a count; Cohere writes them as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 1 << 53 else None
