"""Whole answers out: the canonical form to ``chat.completion`` objects."""

from collections.abc import Iterable
from typing import Any

from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalReply,
    Choice,
    Envelope,
    Json,
    Loss,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.chat.annotations import is_told, nested_annotation
from aiproxy.middleware.dialects.chat.losses import reply_losses
from aiproxy.middleware.dialects.chat.messages_out import encode_call
from aiproxy.middleware.dialects.chat.thoughts import encode_thought, own_details
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, is_native
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.seals import seal_call, seal_text, with_google
from aiproxy.middleware.dialects.usage import chat_usage


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return a ``chat.completion`` object; choices are renumbered from 0 (XAI-COMPAT-019).

    ``losses``, when given, receives what the object cannot show. A reply whose usage is not
    known has no ``usage`` member.
    """
    if losses is not None:
        note(losses, reply_losses(reply))
    body: dict[str, Any] = {
        "id": envelope.id,
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": encode_choices(reply, envelope),
    }
    if reply.usage is not None:
        body["usage"] = chat_usage(reply.usage)
    if reply.service_tier is not None:
        body["service_tier"] = reply.service_tier
    if reply.system_fingerprint is not None:
        body["system_fingerprint"] = reply.system_fingerprint
    if reply.source == DIALECT:
        for name, value in reply.extra.items():
            body.setdefault(name, value)
    return body


def encode_error(status: int, error: Json) -> dict[str, Any]:
    """Return the body of a refusal; ``error`` has message, type, param and code."""
    return {"error": dict(error)}


def encode_choices(reply: CanonicalReply, envelope: Envelope) -> list[dict[str, Any]]:
    """Return the ``choices`` of a reply in the chat shape."""
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    return [_encode_choice_reply(c, i, envelope, reply.source) for i, c in enumerate(ordered)]


def _encode_choice_reply(
    choice: Choice, index: int, envelope: Envelope, source: str
) -> dict[str, Any]:
    whole = source == DIALECT
    texts = [part for part in choice.parts if isinstance(part, Text)]
    refusals = [part for part in choice.parts if isinstance(part, Refusal)]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part.text for part in texts) if texts else None,
        "refusal": "".join(part.text for part in refusals) if refusals else None,
    }
    thought = join_reasoning(part for part in choice.parts if isinstance(part, Reasoning))
    if thought:
        message["reasoning_content"] = thought
    details = _details(choice, source)
    if details:
        message["reasoning_details"] = details
    for text in texts:
        if text.signature is not None:
            message |= with_google(seal_text(text.origin or source, text.signature))
    cited = [a for part in texts for a in part.annotations if is_told(a, source)]
    annotations = [nested_annotation(a) for a in cited]
    if annotations:
        message["annotations"] = annotations
    for part in choice.parts:
        if isinstance(part, Audio):
            pairs = {"id": part.id, "data": part.data, "transcript": part.transcript, **part.extra}
            message["audio"] = {k: v for k, v in pairs.items() if v is not None}
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    if len(calls) == 1 and calls[0].kind == "legacy_function":
        message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    elif calls:
        message["tool_calls"] = [
            {
                **encode_call(call, call.id or envelope.call_id(i, index), whole),
                **_signature(call, source),
            }
            for i, call in enumerate(calls)
        ]
    content = [p for part in texts for p in part.logprobs or ()]
    refused = [p for part in refusals for p in part.logprobs or ()]
    carried = any(p.logprobs is not None for p in texts) or bool(refused)
    probabilities = {"content": content or None, "refusal": refused or None} if carried else None
    told = {
        "index": index,
        "message": message,
        "logprobs": probabilities,
        "finish_reason": choice.finish_reason,
    }
    if not whole:
        return told
    told |= endings(choice.native_finish_reason, choice.stop_sequence)
    extra = dict(choice.extra)
    for name, value in extra.pop("message", {}).items():
        message.setdefault(name, value)
    return {**told, **extra}


def endings(native: str | None, stop: str | None) -> dict[str, Any]:
    """Return what else a chat server told of how a choice ended: its own word, and the stop sequence
    that was hit. No other dialect's words are put there: OpenAI has no such members."""
    told = {"native_finish_reason": native, "stop_sequence": stop}
    return {name: value for name, value in told.items() if value is not None}


def _details(choice: Choice, source: str) -> list[dict[str, Any]]:
    """Return the thoughts a client has to bring back as they are."""
    details: list[dict[str, Any]] = []
    for part in choice.parts:
        if not isinstance(part, Reasoning) or (part.signature is None and part.encrypted is None):
            continue
        origin = part.origin or source
        if is_native(origin):
            details += (dict(detail) for detail in own_details(part))
        else:
            details.append(encode_thought(part, origin, len(details)))
    return details


def _signature(call: ToolCall, source: str) -> dict[str, Any]:
    """Return the member with a call's signature: as it is for this dialect's own, else sealed."""
    if call.signature is None:
        return {}
    origin = call.origin or source
    if is_native(origin):
        return with_google(call.signature)
    return with_google(seal_call(origin, "", call.signature))


def join_reasoning(parts: Iterable[Reasoning]) -> str:
    """Return reasoning as one text, blocks and summary paragraphs set apart by an empty line."""
    pieces = [piece for part in parts for piece in (*part.summary, part.text) if piece]
    return "\n\n".join(pieces)
