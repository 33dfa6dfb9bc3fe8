"""Messages of a request read as turns; answers reuse the reading of parts and calls."""

from collections.abc import Mapping
from typing import Final, Literal

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Json,
    MalformedRequest,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.reading import words

_MESSAGE: Final = words(
    "role content name refusal audio tool_calls tool_call_id function_call "
    "reasoning_content reasoning"
)

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def decode_message(message: Json, path: str) -> Turn:
    """Return the turn of a message; ``path`` names it in ``MalformedRequest``."""
    written = reading.text(message.get("role"), f"{path}.role")
    role = _ROLES.get(written)
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    content = message.get("content")
    form: Literal["string", "parts", "null", "absent"]
    parts: list[Part]
    if isinstance(content, str):
        form, parts = "string", [Text(content)]
    elif content is None:
        form, parts = ("null" if "content" in message else "absent"), []
    else:
        form = "parts"
        parts = [
            decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(reading.array(content, f"{path}.content"))
        ]
    name = message.get("name")
    name = None if name is None else reading.text(name, f"{path}.name")
    if role == "tool":
        legacy = written == "function"
        result = ToolResult(
            call_id=""
            if legacy
            else reading.text(message.get("tool_call_id"), f"{path}.tool_call_id"),
            parts=tuple(parts),
            plain=form != "parts",
            kind="legacy_function" if legacy else "function",
            name=name if legacy else None,
        )
        extra = reading.rest(message, _MESSAGE)
        return Turn("tool", (result,), None if legacy else name, form, extra)
    if role == "assistant":
        parts = decode_said(message, parts, path)
    return Turn(role, tuple(parts), name, form, reading.rest(message, _MESSAGE))


def decode_said(message: Json, content: list[Part], path: str) -> list[Part]:
    """Return the parts of an assistant turn: what was thought, said, and called."""
    parts: list[Part] = []
    thought = message.get("reasoning_content")
    key = "reasoning_content"
    if not isinstance(thought, str):
        thought, key = message.get("reasoning"), "reasoning"
    if isinstance(thought, str) and thought:
        parts.append(Reasoning(thought, extra={} if key == "reasoning_content" else {"key": key}))
    parts += content
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.append(Refusal(refusal))
    audio = message.get("audio")
    if isinstance(audio, Mapping):
        parts.append(_decode_audio(audio))
    calls = message.get("tool_calls")
    if calls is not None:
        for i, call in enumerate(reading.array(calls, f"{path}.tool_calls")):
            parts.append(_decode_call(reading.mapping(call, f"{path}.tool_calls[{i}]")))
    legacy = message.get("function_call")
    if isinstance(legacy, Mapping):
        parts.append(_decode_legacy_call(legacy))
    return parts


def _decode_call(call: Json) -> ToolCall:
    identity = call.get("id")
    identity = identity if isinstance(identity, str) else ""
    extra = reading.rest(call, ("id", "type", "function", "custom", "index"))
    custom = call.get("custom")
    if call.get("type") == "custom" and isinstance(custom, Mapping):
        return ToolCall(
            identity, str(custom.get("name") or ""), str(custom.get("input") or ""), "custom", extra
        )
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = reading.arguments_text(function.get("arguments"))
    return ToolCall(identity, str(function.get("name") or ""), arguments, "function", extra)


def _decode_legacy_call(call: Json) -> ToolCall:
    arguments = reading.arguments_text(call.get("arguments"))
    return ToolCall("", str(call.get("name") or ""), arguments, "legacy_function")


def _decode_audio(audio: Json) -> Audio:
    return Audio(
        data=audio.get("data"),
        id=audio.get("id"),
        transcript=audio.get("transcript"),
        extra=reading.rest(audio, ("data", "id", "transcript")),
    )


def decode_part(part: Json, path: str) -> Part:
    """Return a content part; one of an unknown type is carried untouched."""
    kind = reading.word(part.get("type"))
    extra = reading.rest(part, ("type", str(kind)))
    if kind == "text":
        return Text(reading.text(part.get("text"), f"{path}.text"), extra=extra)
    if kind == "image_url":
        inner = part.get("image_url")
        if isinstance(inner, str):  # a common short form
            return reading.image(inner, None, None, {**extra, "plain": True})
        inner = reading.mapping(inner, f"{path}.image_url")
        url = reading.text(inner.get("url"), f"{path}.image_url.url")
        return reading.image(url, inner.get("detail"), None, extra)
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), f"{path}.input_audio")
        return Audio(data=inner.get("data"), format=inner.get("format"), extra=extra)
    if kind == "file":
        inner = reading.mapping(part.get("file"), f"{path}.file")
        return File(
            data=inner.get("file_data"),
            file_id=inner.get("file_id"),
            name=inner.get("filename"),
            extra=extra,
        )
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), f"{path}.refusal"))
    return Opaque(DIALECT, str(kind), part)
