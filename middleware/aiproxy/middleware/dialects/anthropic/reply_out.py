"""Whole answers out: the canonical form to ``message`` objects."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects.anthropic.citations import citation
from aiproxy.middleware.dialects.anthropic.finish import write_reason
from aiproxy.middleware.dialects.anthropic.losses import reply_losses
from aiproxy.middleware.dialects.anthropic.usage import write_usage
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT
from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Envelope,
    Loss,
    MalformedReply,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.seals import seal_call, seal_text, seal_thought

#: Of the usage details: they are members of ``usage``, not of the message.
_IN_USAGE: Final = ("server_tool_use", "cache_creation", "inference_geo", "speed")
_TIERS: Final = {"default": "standard", "priority": "priority"}


def encode_reply(
    reply: CanonicalReply, envelope: Envelope, losses: list[Loss] | None = None
) -> dict[str, Any]:
    """Return a ``message`` object; of several choices the first.

    Opaque reasoning of another dialect is sealed (``dialects.seals``), so that a client that sends
    the turn back as it is gives it to us again. ``losses``, when given, receives what the
    object cannot show.

    Raises:
        MalformedReply: the answer is a call whose arguments are no JSON object.
    """
    if losses is not None:
        note(losses, reply_losses(reply))
    choice = min(reply.choices, key=lambda c: c.index)
    content: list[dict[str, Any]] = []
    broken = calls = 0
    for part in choice.parts:
        if isinstance(part, ToolCall):
            found = list(_call_blocks(part, envelope, calls, reply.source))
            calls += 1
            broken += not found
            content += found
        elif not _is_told(part, choice, reply.source):
            content += _blocks(part, reply.source)
    if broken:
        if choice.finish_reason != "length":
            raise MalformedReply("the arguments of a call are no JSON object")
        if losses is not None:
            note(losses, (Loss("tool_call", "a call that was cut short is left out"),))
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    body: dict[str, Any] = {
        "id": message_id(envelope),
        "type": "message",
        "role": "assistant",
        "model": envelope.model,
        "content": content,
        "stop_reason": stop_reason(choice, refused),
        "stop_sequence": choice.stop_sequence,
        "usage": write_usage(reply.usage, reply.extra if reply.source == DIALECT else {}),
    }
    tier = _TIERS.get(reply.service_tier or "")
    if tier is not None:
        body["usage"]["service_tier"] = tier
    if reply.source == DIALECT:
        body.update(choice.extra)
        for name, value in reply.extra.items():
            if name not in _IN_USAGE:
                body.setdefault(name, value)
    return body


def message_id(envelope: Envelope) -> str:
    """Return the id of the message."""
    return f"msg_{envelope.base()}"


def stop_reason(choice: Choice, refused: bool) -> str:
    """Return the ``stop_reason`` of a choice."""
    return write_reason(
        choice.finish_reason, choice.native_finish_reason, choice.stop_sequence, refused
    )


def _is_told(part: Part, choice: Choice, source: str) -> bool:
    """Tell whether a refusal is the explanation that stands in ``stop_details``."""
    details = choice.extra.get("stop_details") if source == DIALECT else None
    return (
        isinstance(part, Refusal)
        and isinstance(details, Mapping)
        and details.get("explanation") == part.text
    )


def _blocks(part: Part, source: str) -> Iterator[dict[str, Any]]:
    if isinstance(part, Text):
        block: dict[str, Any] = {"type": "text", "text": part.text}
        cited = [c for c in map(citation, part.annotations) if c is not None]
        if cited:
            block["citations"] = cited
        yield block
        if part.signature is not None:
            yield hidden_block(seal_text(part.origin or source, part.signature))
    elif isinstance(part, Refusal):
        yield {"type": "text", "text": part.text}
    elif isinstance(part, Reasoning):
        yield from _thought_blocks(part, source)
    elif isinstance(part, Opaque) and part.dialect == DIALECT:
        yield dict(part.value)


def _thought_blocks(part: Reasoning, source: str) -> Iterator[dict[str, Any]]:
    """Yield the blocks of reasoning; that of another dialect has a seal in place of a signature."""
    origin = part.origin or source
    text = "\n\n".join(piece for piece in (*part.summary, part.text) if piece)
    if origin == DIALECT:
        if text or part.signature is not None:
            yield {"type": "thinking", "thinking": text, "signature": part.signature or ""}
        if part.encrypted is not None:
            yield hidden_block(part.encrypted)
        return
    seal = seal_thought(origin, text, part.signature, part.encrypted)
    if text:
        yield {"type": "thinking", "thinking": text, "signature": seal}
    elif part.signature is not None or part.encrypted is not None:
        yield hidden_block(seal)


def hidden_block(data: str) -> dict[str, Any]:
    """Return a block of data that the client only carries."""
    return {"type": "redacted_thinking", "data": data}


def _call_blocks(
    call: ToolCall, envelope: Envelope, index: int, source: str
) -> Iterator[dict[str, Any]]:
    if call.kind == "custom":
        given: object = {"input": call.arguments}
    else:
        try:
            given = orjson.loads(call.arguments or "{}")
        except orjson.JSONDecodeError:
            given = None
    if not isinstance(given, dict):
        return
    identity = call.id or envelope.call_id(index)
    if call.signature is not None:
        yield hidden_block(seal_call(call.origin or source, identity, call.signature))
    yield {
        "type": "tool_use",
        "id": identity,
        "name": call.name,
        "input": given,
        **(call.extra if source == DIALECT else {}),
    }
