"""Turns written as Workers AI messages, whose content is always a string.

Null and lists are refused by the schemas of most models; the exception are models that see. Text
in several parts becomes lines of one.
"""

from typing import Any

from aiproxy.middleware.dialects import reading, unsaid
from aiproxy.middleware.dialects.canonical import (
    Audio,
    CanonicalRequest,
    Image,
    Loss,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.functions import CallIds, nested_call
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.workers_ai.vocabulary import API, DIALECT, sees


def encode_messages(
    request: CanonicalRequest, model: str, losses: list[Loss]
) -> list[dict[str, Any]]:
    """Return the messages of a request to ``model``.

    Raises:
        Untranslatable: a turn holds something the model cannot take and the request needs.
    """
    messages: list[dict[str, Any]] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    ids = CallIds()
    names: dict[str, str] = {}  # id of a call -> its function
    for turn in request.turns:
        if turn.name is not None and turn.role != "tool":
            note(losses, [Loss("name", f"{API} has no names of participants")])
        for name, value in turn.extra.items():
            if value not in (None, "", [], {}):
                note(losses, [Loss(name, f"{API} has no such member of messages")])
        unsaid.seals(turn, DIALECT, losses)
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        if results:
            messages += [_encode_result(result, ids, names, losses) for result in results]
        elif turn.role == "assistant":
            said = _encode_said(turn, request.source, ids, names, losses)
            if said is not None:
                messages.append(said)
        else:
            role = "user" if turn.role == "user" else "system"
            messages.append({"role": role, "content": _encode_content(turn, role, model, losses)})
    return messages


def _encode_content(turn: Turn, role: str, model: str, losses: list[Loss]) -> Any:
    texts: list[str] = []
    content: list[dict[str, Any]] = []
    images = False
    for part in turn.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text):
            texts.append(part.text)
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image) and role == "user":
            images = True
            content.append(_encode_image(part, model))
        else:
            unsaid.part(part, API, losses)
    return content if images else "\n".join(texts)


def _encode_image(part: Image, model: str) -> dict[str, Any]:
    if not sees(model):
        raise Untranslatable("image", f"{API} takes no images in messages to this model")
    if part.data is None:
        raise Untranslatable("image", f"{API} takes images as data only, not by reference")
    return {"type": "image_url", "image_url": {"url": reading.image_url(part)}}


def _encode_said(
    turn: Turn, source: str, ids: CallIds, names: dict[str, str], losses: list[Loss]
) -> dict[str, Any] | None:
    """Return an assistant message, or ``None`` when nothing of the turn can be said."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in turn.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text | Refusal):
            texts.append(part.text)
        elif isinstance(part, ToolCall):
            if part.kind == "custom":
                note(losses, [Loss("custom_tool", f"{API} has no tools with free text input")])
                arguments = reading.arguments_text({"input": part.arguments})
                part = ToolCall(part.id, part.name, arguments)
            identity = ids.of_call(part)
            names[identity] = part.name
            calls.append(nested_call(part, identity))
        elif isinstance(part, Reasoning):
            if unsaid.thought(part, DIALECT, source, losses):
                note(losses, [Loss("reasoning", f"{API} takes no earlier reasoning")])
        elif isinstance(part, Opaque):
            unsaid.part(part, API, losses)
        elif isinstance(part, Audio):
            note(losses, [Loss("audio", f"{API} does not know what was said aloud")])
        else:
            kind = type(part).__name__.lower()
            note(losses, [Loss("content_part", f"{API} takes no {kind} in earlier answers")])
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if calls:
        message["tool_calls"] = calls
    return message if calls or message["content"] else None


def _encode_result(
    result: ToolResult, ids: CallIds, names: dict[str, str], losses: list[Loss]
) -> dict[str, Any]:
    if result.is_error:
        note(losses, [Loss("tool_result", f"{API} has no mark for calls that failed")])
    texts: list[str] = []
    for part in result.parts:
        unsaid.part_members(part, API, losses)
        if isinstance(part, Text):
            texts.append(part.text)
        else:
            kind = part.kind if isinstance(part, Opaque) else type(part).__name__.lower()
            note(losses, [Loss("tool_result", f"{API} tool results hold text only, not {kind}")])
    identity = ids.of_result(result)
    message = {"role": "tool", "tool_call_id": identity, "content": "\n".join(texts)}
    name = result.name or names.get(identity)
    if name:
        message["name"] = name
    return message
