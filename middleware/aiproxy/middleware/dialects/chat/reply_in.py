"""Whole answers in: ``chat.completion`` objects to the canonical form."""

from collections.abc import Mapping
from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    MalformedReply,
    MalformedRequest,
    Part,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.chat.annotations import flat_annotation
from aiproxy.middleware.dialects.chat.messages_in import decode_part, decode_said
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.usage import read_usage


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a ``chat.completion`` object.

    A finish reason that is missing or empty reads as ``stop`` (or ``tool_calls``): the body
    arrived whole, so the answer did too.

    Raises:
        MalformedReply: an error object, no choices, or a choice that broke off.
    """
    if body.get("error"):
        raise MalformedReply("a 200 body holds an error object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedReply("no choices")
    created = body.get("created")
    return CanonicalReply(
        choices=tuple(_decode_reply_choice(choice, i) for i, choice in enumerate(choices)),
        source=DIALECT,
        usage=read_usage(body.get("usage")),
        id=reading.optional(body.get("id")),
        model=reading.optional(body.get("model")),
        created=int(created) if isinstance(created, int | float) else None,
        service_tier=reading.optional(body.get("service_tier")),
        system_fingerprint=reading.optional(body.get("system_fingerprint")),
        extra=reading.rest(
            body,
            words("id object created model choices usage service_tier system_fingerprint"),
        ),
    )


def _decode_reply_choice(choice: object, index: int) -> Choice:
    if not isinstance(choice, Mapping):
        raise MalformedReply(f"choices[{index}] is not an object")
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise MalformedReply(f"choices[{index}] has no message")
    native = choice.get("finish_reason")
    if is_failure(native):
        raise MalformedReply(f"choices[{index}] ended in an error")
    content = message.get("content")
    probabilities = choice.get("logprobs")
    probabilities = probabilities if isinstance(probabilities, Mapping) else {}
    said: list[Part] = []
    if isinstance(content, str):
        if content:
            said.append(
                Text(
                    content,
                    tuple(flat_annotation(a) for a in reading.objects(message.get("annotations"))),
                    reading.logprobs(probabilities.get("content")),
                )
            )
    elif isinstance(content, list):
        for i, part in enumerate(content):
            if not isinstance(part, Mapping):
                raise MalformedReply(f"choices[{index}].message.content[{i}] is not an object")
            said.append(decode_part(part, "content"))
    elif content is not None:
        raise MalformedReply(f"choices[{index}].message.content is {reading.kind_of(content)}")
    try:
        parts = decode_said(message, said, "message")
    except MalformedRequest as fault:
        raise MalformedReply(f"choices[{index}]: {fault}") from None
    calls = [part for part in parts if isinstance(part, ToolCall)]
    legacy = bool(calls) and all(call.kind == "legacy_function" for call in calls)
    reason = finish_reason(native, bool(calls), legacy)
    if reason is None:
        reason = ("function_call" if legacy else "tool_calls") if calls else "stop"
    number = choice.get("index")
    return Choice(
        tuple(parts),
        reason,
        number if isinstance(number, int) and number >= 0 else index,
        native if isinstance(native, str) and native and native != reason else None,
        reading.rest(choice, ("index", "message", "finish_reason", "logprobs")),
    )
