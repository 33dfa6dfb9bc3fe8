"""Whole answers in: Response objects to the canonical form."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import reading, usage
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    FinishReason,
    Json,
    MalformedReply,
    MalformedRequest,
    Opaque,
    Part,
    ToolCall,
    Usage,
)
from aiproxy.middleware.dialects.responses.input_in import decode_call, decode_part
from aiproxy.middleware.dialects.responses.sealing import (
    decode_reasoning,
    marker,
    sign_call,
    sign_text,
)
from aiproxy.middleware.dialects.responses.vocabulary import CALLS, DIALECT
from aiproxy.middleware.dialects.seals import Seal


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, in our words; ``None`` when it is one, or when the
    answer of a background response comes later."""
    if body.get("error"):
        return "the body holds an error object"
    status = body.get("status")
    if status in ("failed", "cancelled"):
        return f"the response is {status}"
    if status in ("queued", "in_progress"):
        return None
    output = body.get("output")
    if not isinstance(output, list):
        return "output is missing"
    if not output and status != "incomplete":
        return "output is empty"
    for i, item in enumerate(output):
        if not isinstance(item, Mapping):
            return f"output[{i}] is not an object"
    return None


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(body.get("usage"))


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a Response object.

    Raises:
        MalformedReply: no output, or a response that failed or is not finished.
    """
    status = body.get("status")
    if body.get("error") or status == "failed":
        raise MalformedReply("the response failed")
    if status in ("in_progress", "queued", "cancelled"):
        raise MalformedReply(f"the response is {status}")
    output = body.get("output")
    if not isinstance(output, list):
        raise MalformedReply("no output")
    parts: list[Part] = []
    seals: dict[str, Seal] = {}
    for i, item in enumerate(output):
        if not isinstance(item, Mapping):
            raise MalformedReply(f"output[{i}] is not an object")
        try:
            seal = marker(item) if item.get("type") == "reasoning" else None
            if seal is None:
                parts += _decode_output_item(item, f"output[{i}]", seals)
            elif seal.call is not None:
                seals[seal.call] = seal
            else:
                parts[-1:] = sign_text(tuple(parts[-1:]), seal)
        except MalformedRequest as fault:
            raise MalformedReply(str(fault)) from None
    created = body.get("created_at")
    return CanonicalReply(
        choices=(Choice(tuple(parts), ending_reason(body, _called(parts))),),
        source=DIALECT,
        usage=read_usage(body),
        id=reading.optional(body.get("id")),
        model=reading.optional(body.get("model")),
        created=int(created) if isinstance(created, int | float) else None,
        service_tier=reading.optional(body.get("service_tier")),
        extra={},
    )


def _decode_output_item(item: Json, path: str, seals: dict[str, Seal]) -> list[Part]:
    kind = reading.word(item.get("type"))
    if kind == "message":
        content = item.get("content")
        return [
            decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(content if isinstance(content, list) else [])
        ]
    if kind in CALLS:
        return [sign_call(decode_call(item, path), seals)]
    if kind == "reasoning":
        return [decode_reasoning(item)]
    return [Opaque(DIALECT, str(kind), item)]


def _called(parts: list[Part]) -> bool:
    return any(isinstance(part, ToolCall) for part in parts)


def ending_reason(body: Json, called: bool) -> FinishReason:
    """Return why a response ended; ``called`` tells whether it holds calls."""
    if body.get("status") == "incomplete":
        details = body.get("incomplete_details")
        why = details.get("reason") if isinstance(details, Mapping) else None
        return "content_filter" if why == "content_filter" else "length"
    return "tool_calls" if called else "stop"
