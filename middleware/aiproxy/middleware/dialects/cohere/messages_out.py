"""Turns written as Cohere messages."""

from typing import Any

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
    Untranslatable,
)
from aiproxy.middleware.dialects.cohere.vocabulary import API, DIALECT
from aiproxy.middleware.dialects.functions import CallIds, nested_call
from aiproxy.middleware.dialects.losses import note


def encode_messages(request: CanonicalRequest, losses: list[Loss]) -> list[dict[str, Any]]:
    """Return the messages of a request.

    Raises:
        Untranslatable: a turn holds something Cohere cannot take and the request needs.
    """
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    ids = CallIds()
    shown: list[Image] = []
    for turn in request.turns:
        if turn.name is not None:
            note(losses, [Loss("name", f"{API} has no names of participants")])
        for name, value in turn.extra.items():
            if value not in (None, "", [], {}):
                note(losses, [Loss(name, f"{API} has no such member of messages")])
        unsaid.seals(turn, DIALECT, losses)
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        if shown and not results:
            messages.append(_shown(shown, losses))
            shown = []
        if results:
            shown += [p for result in results for p in result.parts if isinstance(p, Image)]
            messages += [_encode_result(result, ids, losses) for result in results]
        elif turn.role == "assistant":
            said = _encode_said(turn, request.source, ids, losses)
            if said is not None:
                messages.append(said)
        else:
            role = "user" if turn.role == "user" else "system"
            messages.append({"role": role, "content": _encode_content(turn, role, losses)})
    if shown:
        messages.append(_shown(shown, losses))
    return messages


def _shown(images: list[Image], losses: list[Loss]) -> dict[str, Any]:
    """What tools showed: their results hold text only."""
    return {"role": "user", "content": _encode_content(Turn("user", tuple(images)), "user", losses)}


def _encode_content(turn: Turn, role: str, losses: list[Loss]) -> Any:
    content: list[dict[str, Any]] = []
    for part in turn.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image) and role == "user":
            content.append(_encode_image(part))
        else:
            unsaid.part(part, API, losses)
    if not content:
        return ""
    return content[0]["text"] if len(content) == 1 and "text" in content[0] else content


def _encode_image(part: Image) -> dict[str, Any]:
    url = reading.image_url(part)
    if url is None:
        raise Untranslatable("image", f"{API} cannot refer to an image by file id")
    inner = {"url": url}
    if part.detail is not None:
        inner["detail"] = part.detail
    return {"type": "image_url", "image_url": inner}


def _encode_said(
    turn: Turn, source: str, ids: CallIds, losses: list[Loss]
) -> dict[str, Any] | None:
    """Return an assistant message, or ``None`` when nothing of the turn can be said."""
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    plans: list[str] = []
    thoughts: list[dict[str, Any]] = []
    for part in turn.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text | Refusal):
            if part.text:
                content.append({"type": "text", "text": part.text})
        elif isinstance(part, ToolCall):
            calls.append(nested_call(_told(part, losses), ids.of_call(part)))
        elif isinstance(part, Reasoning):
            if unsaid.thought(part, DIALECT, source, losses):
                text = part.text or "\n\n".join(part.summary)
                if part.extra.get("key") == "tool_plan":
                    plans.append(text)
                else:
                    thoughts.append({"type": "thinking", "thinking": text})
        elif isinstance(part, Audio):
            note(losses, [Loss("audio", f"{API} does not know what was said aloud")])
        else:
            _lose_said(part, losses)
    message: dict[str, Any] = {"role": "assistant"}
    if calls:
        message["tool_calls"] = calls
        plans += [part["text"] for part in content]
        content = []
        if plans:
            message["tool_plan"] = "\n\n".join(plans)
    if thoughts:
        message["content"] = thoughts + content
    elif content:
        message["content"] = content[0]["text"] if len(content) == 1 else content
    return message if len(message) > 1 else None


def _lose_said(part: Part, losses: list[Loss]) -> None:
    if isinstance(part, Opaque):
        unsaid.part(part, API, losses)
    else:
        kind = type(part).__name__.lower()
        note(losses, [Loss("content_part", f"{API} takes no {kind} in earlier answers")])


def _told(call: ToolCall, losses: list[Loss]) -> ToolCall:
    if call.kind == "custom":
        note(losses, [Loss("custom_tool", f"{API} has no tools with free text input")])
        return ToolCall(call.id, call.name, reading.arguments_text({"input": call.arguments}))
    return call


def _encode_result(result: ToolResult, ids: CallIds, losses: list[Loss]) -> dict[str, Any]:
    if result.is_error:
        note(losses, [Loss("tool_result", f"{API} has no mark for calls that failed")])
    texts: list[str] = []
    for part in result.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text):
            texts.append(part.text)
        elif isinstance(part, Image):
            note(losses, [Loss("tool_result", "images follow the results as a user message")])
        else:
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            note(losses, [Loss("tool_result", f"{API} tool results hold text only, not {kind}")])
    content: Any = "".join(texts)
    if len(texts) > 1:
        content = [{"type": "text", "text": text} for text in texts]
    return {"role": "tool", "tool_call_id": ids.of_result(result), "content": content}
