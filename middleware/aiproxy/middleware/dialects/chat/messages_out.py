"""Turns written as messages."""

from typing import Any

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
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
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, is_native


def encode_turn(
    turn: Turn, source: str, messages: list[dict[str, Any]], losses: list[Loss]
) -> None:
    """Add the messages of a turn of a request from ``source``, noting what they cannot say."""
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    for result in results:
        messages.append(_encode_result(turn, result, losses))
    if results:
        return
    message: dict[str, Any] = {"role": turn.role}
    content: list[Part] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, Reasoning):
            if is_native(source):
                message[part.extra.get("key", "reasoning_content")] = part.text
            else:
                losses.append(Loss("reasoning", "earlier reasoning does not travel to chat"))
        elif isinstance(part, ToolCall):
            if part.kind == "legacy_function":
                message["function_call"] = {"name": part.name, "arguments": part.arguments}
            else:
                calls.append(encode_call(part, part.id, is_native(source)))
        elif isinstance(part, Refusal) and turn.form in ("string", "null", "absent"):
            message["refusal"] = part.text
        elif isinstance(part, Audio) and turn.role == "assistant":
            message["audio"] = {"id": part.id}
        else:
            content.append(part)
    if turn.form in ("string", "bare") and len(content) == 1 and isinstance(content[0], Text):
        message["content"] = content[0].text
    elif content or turn.form == "parts":
        encoded = [p for p in (_encode_part(p, turn.role, source, losses) for p in content) if p]
        if not encoded and (calls or turn.role == "assistant"):
            # Nothing was said; an empty list is refused by several servers.
            if not calls and "refusal" not in message:
                if not turn.parts or all(isinstance(p, Opaque | Reasoning) for p in turn.parts):
                    return
                message["content"] = ""
            else:
                message["content"] = None
        else:
            message["content"] = _plain_if_foreign(encoded, turn.role, source)
    elif turn.form == "null":
        message["content"] = None
    elif turn.form == "string":
        message["content"] = ""
    if calls:
        message["tool_calls"] = calls
    if turn.name is not None:
        message["name"] = turn.name
    if is_native(source):
        message.update(turn.extra)
    messages.append(message)


def _plain_if_foreign(parts: list[dict[str, Any]], role: Role, source: str) -> Any:
    """Join text-only lists from other dialects: many chat servers take only strings there."""
    if is_native(source) or not parts:
        return parts
    if any(set(part) != {"type", "text"} for part in parts):
        return parts
    if role == "user" and len(parts) > 1:
        return parts
    return "".join(part["text"] for part in parts)


def _encode_result(turn: Turn, result: ToolResult, losses: list[Loss]) -> dict[str, Any]:
    content: Any
    kept = [p for p in result.parts if isinstance(p, Text)]
    for part in result.parts:
        if not isinstance(part, Text):
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            losses.append(Loss("tool_result", f"chat tool results hold text only, not {kind}"))
    if result.plain:
        content = "".join(p.text for p in kept)
    else:
        content = [{"type": "text", "text": p.text, **p.extra} for p in kept]
    message: dict[str, Any]
    if result.kind == "legacy_function":
        message = {"role": "function", "name": result.name or "", "content": content}
    else:
        message = {"role": "tool", "tool_call_id": result.call_id, "content": content}
        if turn.name is not None:
            message["name"] = turn.name
    message.update(turn.extra)
    return message


def encode_call(call: ToolCall, identity: str, whole: bool) -> dict[str, Any]:
    """Return an entry of ``tool_calls``; ``whole`` keeps members only this dialect knows."""
    extra = call.extra if whole else {}
    if call.kind == "custom":
        inner: dict[str, Any] = {"name": call.name, "input": call.arguments}
        return {"id": identity, "type": "custom", "custom": inner, **extra}
    inner = {"name": call.name, "arguments": call.arguments}
    return {"id": identity, "type": "function", "function": inner, **extra}


def _encode_part(part: Part, role: Role, source: str, losses: list[Loss]) -> dict[str, Any] | None:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    extra = {} if isinstance(part, Opaque) or not is_native(source) else dict(part.extra)
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, **extra}
    if isinstance(part, Image):
        url = reading.image_url(part)
        if url is None:
            raise Untranslatable("image", "chat cannot refer to an image by file id")
        if extra.pop("plain", False):
            return {"type": "image_url", "image_url": url, **extra}
        inner = {"url": url} if part.detail is None else {"url": url, "detail": part.detail}
        return {"type": "image_url", "image_url": inner, **extra}
    if isinstance(part, Audio):
        inner = {"data": part.data or "", "format": part.format or "wav"}
        return {"type": "input_audio", "input_audio": inner, **extra}
    if isinstance(part, File):
        if part.url is not None:
            raise Untranslatable("file", "chat cannot refer to a file by URL")
        pairs = {"file_id": part.file_id, "file_data": part.data, "filename": part.name}
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "file", "file": held, **extra}
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in ("item_reference", "compaction", "compaction_summary"):
            raise Untranslatable(part.kind, "the referenced content is kept by another API")
        losses.append(Loss("item", f"chat has no {part.kind} items"))
    return None
