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
from aiproxy.middleware.dialects.chat.thoughts import own_details
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT, is_native
from aiproxy.middleware.dialects.losses import UNSEEN, note, strangers
from aiproxy.middleware.dialects.seals import loss, with_google


def encode_turn(
    turn: Turn, source: str, messages: list[dict[str, Any]], losses: list[Loss]
) -> None:
    """Add the messages of a turn of a request from ``source``, noting what they cannot say."""
    if len(turn.parts) == 1 and not turn.extra:
        only = turn.parts[0]
        if type(only) is Text and only.signature is None and _is_bare(turn, only, source):
            said: dict[str, Any] = {"role": turn.role, "content": only.text}
            if turn.name is not None:
                said["name"] = turn.name
            messages.append(said)
            return
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    for result in results:
        messages.append(_encode_result(turn, result, source, losses))
    if results:
        others = tuple(part for part in turn.parts if not isinstance(part, ToolResult))
        if others:
            encode_turn(Turn("user", others), source, messages, losses)
        return
    if not is_native(source):
        strangers(losses, turn.extra, "message_members", DIALECT)
    message: dict[str, Any] = {"role": turn.role}
    content: list[Part] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        if isinstance(part, Reasoning):
            _think(part, source, message, losses)
        elif isinstance(part, ToolCall):
            if part.kind == "legacy_function":
                message["function_call"] = {"name": part.name, "arguments": part.arguments}
            else:
                calls.append(_encode_call(part, source, losses))
        elif isinstance(part, Refusal) and turn.form in ("string", "null", "absent"):
            message["refusal"] = part.text
        elif isinstance(part, Audio) and turn.role == "assistant":
            message["audio"] = {"id": part.id}
        else:
            if isinstance(part, Text) and part.signature is not None:
                note(losses, [loss(part.origin or source, DIALECT)])
                if not part.text:
                    continue
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
    elif message.keys() <= {"role", "name"}:
        return  # nothing of it travels
    messages.append(message)


def _is_bare(turn: Turn, only: Text, source: str) -> bool:
    """Tell whether a turn of one text is written as a string, as most are."""
    if turn.form in ("string", "bare"):
        return True
    return not (only.extra or only.annotations or is_native(source))


def _think(part: Reasoning, source: str, message: dict[str, Any], losses: list[Loss]) -> None:
    """Give an upstream of this dialect its thoughts back; others' stay behind (declared)."""
    origin = part.origin or source
    if not is_native(origin):
        opaque = part.signature is not None or part.encrypted is not None
        plain = Loss("reasoning", "earlier reasoning does not travel to chat")
        note(losses, [loss(origin, DIALECT) if opaque else plain])
        return
    text = "\n\n".join(piece for piece in (*part.summary, part.text) if piece)
    if text or (part.signature is None and part.encrypted is None):
        key = part.extra.get("key", "reasoning_content")
        before = message.get(key)
        message[key] = f"{before}\n\n{text}" if before else text
    details = list(own_details(part))
    if details:
        message["reasoning_details"] = [*message.get("reasoning_details", ()), *details]


def _plain_if_foreign(parts: list[dict[str, Any]], role: Role, source: str) -> Any:
    """Join text-only lists from other dialects: many chat servers take only strings there."""
    if is_native(source) or not parts:
        return parts
    if any(set(part) != {"type", "text"} for part in parts):
        return parts
    if role == "user" and len(parts) > 1:
        return parts
    return "".join(part["text"] for part in parts)


def _encode_result(
    turn: Turn, result: ToolResult, source: str, losses: list[Loss]
) -> dict[str, Any]:
    content: Any
    kept = [p for p in result.parts if isinstance(p, Text)]
    for part in result.parts:
        if isinstance(part, Image | File | Audio) and source != DIALECT:
            note(losses, [Loss("tool_result", "what tools show follows as a user message")])
        elif not isinstance(part, Text):
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            note(losses, [Loss("tool_result", f"chat tool results hold text only, not {kind}")])
    if result.is_error:
        note(losses, [Loss("tool_result", "chat cannot say that a tool failed")])
    native = is_native(source)
    if not native:
        strangers(losses, {**turn.extra, **result.extra}, "tool_result", DIALECT)
    if result.plain or (len(kept) < 2 and not is_native(source)):
        content = "".join(p.text for p in kept)  # an empty list is refused
    else:
        content = [{"type": "text", "text": p.text, **(p.extra if native else {})} for p in kept]
    message: dict[str, Any]
    if result.kind == "legacy_function":
        message = {"role": "function", "name": result.name or "", "content": content}
    else:
        message = {"role": "tool", "tool_call_id": result.call_id, "content": content}
        if turn.name is not None:
            message["name"] = turn.name
    if native:
        message.update(turn.extra)
    return message


def shown_by_tools(turn: Turn, source: str) -> list[Part]:
    """Return the media among the results of a turn of a request from ``source``: a message of the
    user's has to show them, as results hold text only."""
    if source == DIALECT:
        return []
    return [
        part
        for result in turn.parts
        if isinstance(result, ToolResult)
        for part in result.parts
        if isinstance(part, Image | File | Audio)
    ]


def _encode_call(call: ToolCall, source: str, losses: list[Loss]) -> dict[str, Any]:
    native = is_native(source)
    if not native:
        strangers(losses, call.extra, "tool_call", DIALECT)
    entry = encode_call(call, call.id, native)
    if call.signature is not None and "extra_content" not in entry:
        origin = call.origin or source
        if is_native(origin):
            entry |= with_google(call.signature)
        else:
            note(losses, [loss(origin, DIALECT)])
    return entry


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
    if isinstance(part, Text | Image | File | Audio) and part.extra and not extra:
        strangers(losses, part.extra, "part_members", DIALECT)
    if isinstance(part, Text):
        if part.annotations and not is_native(source):
            note(
                losses, [Loss("annotations", "citations of earlier answers do not travel to chat")]
            )
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
        pairs = {
            "file_id": part.file_id,
            "file_data": reading.file_data(part),
            "filename": reading.file_name(part),
        }
        held = {k: v for k, v in pairs.items() if v is not None}
        return {"type": "file", "file": held, **extra}
    if isinstance(part, Opaque):
        if part.dialect == DIALECT:
            return dict(part.value)
        if part.kind in ("item_reference", "compaction", "compaction_summary"):
            raise Untranslatable(part.kind, "the referenced content is kept by another API")
        if part.kind in UNSEEN:
            raise Untranslatable(part.kind, "chat has no such form of it")
        if part.dialect == "responses":
            note(losses, [Loss("item", f"chat has no {part.kind} items")])
        else:
            note(losses, [Loss("content_part", f"chat has no {part.kind} parts")])
    return None
