"""Whole answers out: the canonical form to ``chat.completion`` objects."""

from collections.abc import Iterable
from typing import Any

from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalReply,
    Choice,
    Envelope,
    Loss,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.chat.annotations import nested_annotation
from aiproxy.middleware.dialects.chat.losses import reply_losses
from aiproxy.middleware.dialects.chat.messages_out import encode_call
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.losses import note
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


def encode_choices(reply: CanonicalReply, envelope: Envelope) -> list[dict[str, Any]]:
    """Return the ``choices`` of a reply in the chat shape."""
    ordered = sorted(reply.choices, key=lambda choice: choice.index)
    whole = reply.source == DIALECT
    return [_encode_choice_reply(c, i, envelope, whole) for i, c in enumerate(ordered)]


def _encode_choice_reply(
    choice: Choice, index: int, envelope: Envelope, whole: bool
) -> dict[str, Any]:
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
    annotations = [nested_annotation(a) for part in texts for a in part.annotations]
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
            encode_call(call, call.id or envelope.call_id(i, index), whole)
            for i, call in enumerate(calls)
        ]
    content = [p for part in texts for p in part.logprobs or ()]
    refused = [p for part in refusals for p in part.logprobs or ()]
    carried = any(p.logprobs is not None for p in texts) or bool(refused)
    probabilities = {"content": content or None, "refusal": refused or None} if carried else None
    return {
        "index": index,
        "message": message,
        "logprobs": probabilities,
        "finish_reason": choice.finish_reason,
        **choice.extra,
    }


def join_reasoning(parts: Iterable[Reasoning]) -> str:
    """Return reasoning as one text, blocks and summary paragraphs set apart by an empty line."""
    pieces = [piece for part in parts for piece in (*part.summary, part.text) if piece]
    return "\n\n".join(pieces)
