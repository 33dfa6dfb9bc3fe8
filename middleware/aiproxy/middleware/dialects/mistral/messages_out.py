"""Turns written as Mistral messages, in the order Mistral insists on."""

from typing import Any, Final

from aiproxy.middleware.dialects import reading, unsaid
from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalRequest,
    Image,
    Loss,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.functions import CallIds, nested_call
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.mistral.chunks_out import encode_chunk
from aiproxy.middleware.dialects.mistral.ids import fitting
from aiproxy.middleware.dialects.mistral.vocabulary import API, DIALECT, OF_MESSAGES

#: What the assistant is made to say between a tool result and a user turn.
_BRIDGE: Final = "OK."


def encode_messages(request: CanonicalRequest, losses: list[Loss]) -> list[dict[str, Any]]:
    """Return the messages of a request.

    Raises:
        Untranslatable: a turn holds something Mistral cannot take and the request needs.
    """
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    ids = CallIds()
    native = request.source in ("chat", "draft", DIALECT)
    for turn in request.turns:
        unsaid.seals(turn, DIALECT, losses)
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        if results:
            for result in results:
                messages.append(_encode_result(turn, result, ids, losses))
            continue
        if turn.name is not None:
            note(losses, [Loss("name", f"{API} has no names of participants")])
        message: dict[str, Any] | None
        if turn.role == "assistant":
            message = _encode_said(turn, request.source, ids, losses)
        else:
            role = "user" if turn.role == "user" else "system"
            message = {"role": role, "content": _encode_content(turn.parts, role, losses)}
        if message is None:
            continue
        for name, value in turn.extra.items():
            if native and name in OF_MESSAGES:
                message[name] = value
            elif value not in (None, "", [], {}):
                note(losses, [Loss(name, f"{API} has no such member of messages")])
        messages.append(message)
    return _ordered(messages, losses)


def _encode_content(parts: tuple[Part, ...], role: str, losses: list[Loss]) -> Any:
    chunks: list[dict[str, Any]] = []
    for part in parts:
        unsaid.part_members(part, API, losses)
        chunk = encode_chunk(part) if role != "system" or isinstance(part, Text) else None
        if chunk is not None:
            chunks.append(chunk)
        else:
            unsaid.part(part, API, losses)
    return _plain(chunks)


def _plain(chunks: list[dict[str, Any]]) -> Any:
    """Return one text as a string, which every Mistral model takes; otherwise the chunks."""
    if not chunks:
        return ""
    return chunks[0]["text"] if len(chunks) == 1 and "text" in chunks[0] else chunks


def _encode_said(
    turn: Turn, source: str, ids: CallIds, losses: list[Loss]
) -> dict[str, Any] | None:
    """Return an assistant message, or ``None`` when nothing of the turn can be said."""
    chunks: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text | Refusal):
            if part.text:
                chunks.append({"type": "text", "text": part.text})
        elif isinstance(part, ToolCall):
            if part.kind == "custom":
                note(losses, [Loss("custom_tool", f"{API} has no tools with free text input")])
                arguments = reading.arguments_text({"input": part.arguments})
                part = ToolCall(part.id, part.name, arguments)
            calls.append(nested_call(part, fitting(ids.of_call(part))))
        elif isinstance(part, Reasoning):
            if unsaid.thought(part, DIALECT, source, losses, signed=True):
                chunks.append(_encode_thought(part))
        elif isinstance(part, Opaque):
            unsaid.part(part, API, losses)
        elif isinstance(part, Audio):
            note(losses, [Loss("audio", f"{API} does not know what was said aloud")])
        else:
            kind = type(part).__name__.lower()
            note(losses, [Loss("content_part", f"{API} takes no {kind} in earlier answers")])
    if not chunks and not calls:
        return None
    content: Any = chunks
    if all(chunk["type"] == "text" for chunk in chunks):
        content = "".join(chunk["text"] for chunk in chunks)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = calls
    return message


def _encode_thought(part: Reasoning) -> dict[str, Any]:
    text = part.text or "\n\n".join(part.summary)
    chunk: dict[str, Any] = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
    if part.signature is not None:
        chunk["signature"] = part.signature
    return chunk


def _encode_result(
    turn: Turn, result: ToolResult, ids: CallIds, losses: list[Loss]
) -> dict[str, Any]:
    if result.is_error:
        note(losses, [Loss("tool_result", f"{API} has no mark for calls that failed")])
    chunks: list[dict[str, Any]] = []
    for part in result.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text | Image):
            chunk = encode_chunk(part)
            assert chunk is not None
            chunks.append(chunk)
        else:
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            note(losses, [Loss("tool_result", f"{API} tool results hold no {kind}")])
    message = {
        "role": "tool",
        "tool_call_id": fitting(ids.of_result(result)),
        "content": _plain(chunks),
    }
    name = result.name or turn.name
    if name:
        message["name"] = name
    return message


def _ordered(messages: list[dict[str, Any]], losses: list[Loss]) -> list[dict[str, Any]]:
    """Return the messages in an order Mistral takes; what had to change is declared.

    A system message may follow system and user messages only, and not be the last; a user message
    may not follow a tool result; an answer that stands last is to be continued.
    """
    ordered: list[dict[str, Any]] = []
    head = 0
    last = max((i for i, m in enumerate(messages) if m["role"] != "system"), default=len(messages))
    for place, message in enumerate(messages):
        role = message["role"]
        before = ordered[-1]["role"] if ordered else "system"
        if role == "system" and (before in ("assistant", "tool") or place > last):
            if head < len(ordered):
                detail = f"{API} takes no system message here; it was moved to the front"
                note(losses, [Loss("message_order", detail)])
            ordered.insert(head, message)
            head += 1
            continue
        if role == "user" and before == "tool":
            detail = f"{API} wants an answer between a tool result and a user message"
            note(losses, [Loss("message_order", detail)])
            ordered.append({"role": "assistant", "content": _BRIDGE})
        if role == "system" and head == len(ordered):
            head += 1
        ordered.append(message)
    if ordered and ordered[-1]["role"] == "assistant" and "tool_calls" not in ordered[-1]:
        ordered[-1].setdefault("prefix", True)
    return ordered
