"""Whole answers in: ``chat.completion`` objects to the canonical form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.dialects import reading, usage
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Json,
    MalformedReply,
    MalformedRequest,
    Part,
    Refusal,
    Text,
    ToolCall,
    Usage,
)
from aiproxy.middleware.dialects.chat.annotations import flat_annotation
from aiproxy.middleware.dialects.chat.messages_in import MESSAGE, decode_part, decode_said
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.finish import finish_reason, is_failure
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.seals import google_signature, unseal, without_google

_CHOICE: Final = words("index message finish_reason logprobs")
_SAID: Final = MESSAGE | {"annotations"}


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, in our words; ``None`` when it is one."""
    if body.get("error"):
        return "the body holds an error object"
    choices = body.get("choices")
    if not isinstance(choices, list):
        return "choices is missing"
    if not choices:
        return "choices is empty"
    for i, choice in enumerate(choices):
        if not isinstance(choice, (dict, Mapping)):
            return f"choices[{i}] is not an object"
        message = choice.get("message")
        if message is None:
            return f"choices[{i}].message is missing"
        if not isinstance(message, (dict, Mapping)):
            return f"choices[{i}].message is not an object"
        if is_failure(choice.get("finish_reason")):
            return f"choices[{i}] ended in an error"
    return None


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply."""
    return usage.read_usage(body.get("usage"))


def decode_reply(body: Mapping[str, Any]) -> CanonicalReply:
    """Return the canonical reply of a ``chat.completion`` object.

    A finish reason that is missing or empty reads as ``stop`` (or ``tool_calls``): the body
    arrived whole, so the answer did too.

    Raises:
        MalformedReply: an error object, no choices, or a choice that broke off.
    """
    fault = check_reply(body)
    if fault is not None:
        raise MalformedReply(fault)
    choices = body["choices"]
    created = body.get("created")
    return CanonicalReply(
        choices=tuple(_decode_reply_choice(choice, i) for i, choice in enumerate(choices)),
        source=DIALECT,
        usage=read_usage(body),
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


def stop_sequence(choice: Json) -> str | None:
    """Return the stop sequence a choice names; vLLM calls it, or a token's number, stop_reason."""
    for name in ("stop_sequence", "stop_reason"):
        value = choice.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _decode_reply_choice(choice: Json, index: int) -> Choice:
    message, native = choice["message"], choice.get("finish_reason")
    content = message.get("content")
    probabilities = choice.get("logprobs")
    probabilities = probabilities if isinstance(probabilities, (dict, Mapping)) else {}
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
            if not isinstance(part, (dict, Mapping)):
                raise MalformedReply(f"choices[{index}].message.content[{i}] is not an object")
            said.append(decode_part(part, "content"))
    elif content is not None:
        raise MalformedReply(f"choices[{index}].message.content is {reading.kind_of(content)}")
    try:
        parts = decode_said(message, said, "message")
    except MalformedRequest as fault:
        raise MalformedReply(f"choices[{index}]: {fault}") from None
    refused = reading.logprobs(probabilities.get("refusal"))
    if refused:
        parts = [replace(p, logprobs=refused) if isinstance(p, Refusal) else p for p in parts]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    legacy = bool(calls) and all(call.kind == "legacy_function" for call in calls)
    reason = finish_reason(native, bool(calls), legacy)
    if reason is None:
        reason = ("function_call" if legacy else "tool_calls") if calls else "stop"
    number = choice.get("index")
    if isinstance(native, str) and native == reason:
        native = choice.get("native_finish_reason")
    extra = reading.rest(choice, _CHOICE)
    more = reading.rest(message, _SAID)
    if unseal(google_signature(more)) is not None:
        more = without_google(more)
    if more:
        extra["message"] = more
    return Choice(
        tuple(parts),
        reason,
        number if isinstance(number, int) and number >= 0 else index,
        native if isinstance(native, str) and native and native != reason else None,
        extra,
        stop_sequence(choice),
    )
