"""Turns written as items of ``input``."""

from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalRequest,
    File,
    Image,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.losses import UNSEEN, beside_signature, note, strangers
from aiproxy.middleware.dialects.responses.vocabulary import DIALECT
from aiproxy.middleware.dialects.seals import loss


def custom_ids(request: CanonicalRequest) -> frozenset[str]:
    """Return the ids of custom tool calls: other dialects answer them like any other call."""
    parts = (part for turn in request.turns for part in turn.parts)
    return frozenset(p.id for p in parts if isinstance(p, ToolCall) and p.kind == "custom")


def joined_text(parts: tuple[Part, ...]) -> str:
    """Return the text of ``parts`` as one string."""
    return "".join(part.text for part in parts if isinstance(part, Text))


def encode_turn(
    turn: Turn,
    source: str,
    customs: frozenset[str],
    items: list[dict[str, Any]],
    losses: list[Loss],
) -> None:
    """Add the items of a turn of a request from ``source``, noting what they cannot say.

    ``customs`` are the ids of custom tool calls.
    """
    message: dict[str, Any] | None = None
    if turn.name is not None:
        note(losses, [Loss("message.name", "the Responses API has no participant names")])
    if turn.form == "string" and len(turn.parts) == 1 and not turn.extra:
        only = turn.parts[0]
        if type(only) is Text and only.signature is None and not only.extra:
            items.append({"type": "message", "role": turn.role, "content": only.text})
            return
    if source != DIALECT:
        strangers(losses, turn.extra, "message_members", DIALECT)
    for part in turn.parts:
        if isinstance(part, Text | Image | File | Audio | Refusal) or (
            isinstance(part, Opaque) and turn.role != "assistant"
        ):
            if isinstance(part, Text) and part.signature is not None:
                note(losses, [loss(part.origin or source, DIALECT)])
                if not part.text:
                    continue
            encoded = _encode_part(part, turn.role, source, losses)
            if message is None:
                extra = dict(turn.extra) if source == DIALECT else {}
                message = {"type": "message", "role": turn.role, "content": [], **extra}
                items.append(message)
            if encoded is not None:
                message["content"].append(encoded)
            continue
        _close(message, turn, source)
        message = None
        if isinstance(part, Reasoning):
            origin = part.origin or source
            if origin == DIALECT:
                items.append(_encode_thought(part))
            else:
                opaque = part.signature is not None or part.encrypted is not None
                plain = Loss("reasoning", "earlier reasoning does not travel to responses")
                note(losses, [loss(origin, DIALECT) if opaque else plain])
        elif isinstance(part, ToolCall):
            if part.signature is not None:
                note(losses, [loss(part.origin or source, DIALECT)])
            if source != DIALECT:
                strangers(losses, beside_signature(part), "tool_call", DIALECT)
            items.append(_encode_call(part, source))
        elif isinstance(part, ToolResult):
            custom = part.kind == "custom" or part.call_id in customs
            items.append(_encode_result(part, custom, source, losses))
        elif part.dialect == DIALECT:
            items.append(dict(part.value))
        else:
            note(losses, [Loss("item", f"the Responses API has no {part.kind} items")])
    _close(message, turn, source)


def _close(message: dict[str, Any] | None, turn: Turn, source: str) -> None:
    """Write a message's content as a string again when it came as one.

    So is what an assistant of another dialect said: parts of an answer belong to messages that have
    an id and a state of this API.
    """
    if message is None:
        return
    content = message["content"]
    if source != DIALECT and turn.role == "assistant":
        if content and all(p["type"] == "output_text" and not p["annotations"] for p in content):
            message["content"] = "".join(part["text"] for part in content)
        return
    if turn.form not in ("string", "bare"):
        return
    if len(content) == 1 and set(content[0]) <= {"type", "text", "annotations"}:
        message["content"] = content[0].get("text", content)


def _encode_part(
    part: Text | Image | File | Audio | Refusal | Opaque,
    role: Role,
    source: str,
    losses: list[Loss],
) -> dict[str, Any] | None:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in UNSEEN:
            raise Untranslatable(part.kind, "the Responses API has no such form of it")
        note(losses, [Loss("content_part", f"the Responses API has no {part.kind} parts")])
        return None
    extra = dict(part.extra) if source == DIALECT else {}
    if source != DIALECT:
        strangers(losses, part.extra, "part_members", DIALECT)
    if isinstance(part, Text):
        if role == "assistant":
            annotations = list(part.annotations)
            return {"type": "output_text", "text": part.text, "annotations": annotations, **extra}
        return {"type": "input_text", "text": part.text, **extra}
    if isinstance(part, Image):
        pairs = {
            "image_url": reading.image_url(part),
            "file_id": part.file_id,
            "detail": part.detail or "auto",
        }
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "input_image", **held, **extra}
    if isinstance(part, File):
        pairs = {
            "file_url": part.url,
            "file_data": reading.file_data(part),
            "file_id": part.file_id,
            "filename": reading.file_name(part),
        }
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "input_file", **held, **extra}
    if role == "assistant":
        losses.append(Loss("audio", "earlier spoken answers do not travel"))
        if part.transcript:
            return {"type": "output_text", "text": part.transcript, "annotations": []}
        return None
    if source == DIALECT:
        inner = {"data": part.data or "", "format": part.format or "wav"}
        return {"type": "input_audio", "input_audio": inner}
    raise Untranslatable("audio", "the Responses API does not hear audio input")


def _encode_thought(part: Reasoning) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning"}
    if part.id is not None:
        item["id"] = part.id
    item["summary"] = [{"type": "summary_text", "text": text} for text in part.summary]
    if part.text:
        item["content"] = [{"type": "reasoning_text", "text": part.text}]
    if part.encrypted is not None:
        item["encrypted_content"] = part.encrypted
    item.update(part.extra)
    return item


def _encode_call(call: ToolCall, source: str) -> dict[str, Any]:
    custom = call.kind == "custom"
    extra = dict(call.extra) if source == DIALECT else {}
    return {
        "type": "custom_tool_call" if custom else "function_call",
        "call_id": call.id or _legacy_id(call.name),
        "name": call.name,
        "input" if custom else "arguments": call.arguments,
        **extra,
    }


def _legacy_id(name: str) -> str:
    """Return the id that ties an old-style call to its result: both only have the name."""
    return f"call_{name}"


def _encode_result(
    result: ToolResult, custom: bool, source: str, losses: list[Loss]
) -> dict[str, Any]:
    output: Any
    if result.plain:
        output = joined_text(result.parts)
    else:
        parts = (
            _encode_part(part, "user", source, losses)
            for part in result.parts
            if isinstance(part, Text | Image | File | Audio | Refusal | Opaque)
        )
        output = [part for part in parts if part is not None]
    if result.is_error:
        note(losses, [Loss("tool_result", "the Responses API cannot say that a tool failed")])
    if source != DIALECT:
        strangers(losses, result.extra, "tool_result", DIALECT)
    extra = dict(result.extra) if source == DIALECT else {}
    return {
        "type": "custom_tool_call_output" if custom else "function_call_output",
        "call_id": result.call_id or _legacy_id(result.name or ""),
        "output": output,
        **extra,
    }
