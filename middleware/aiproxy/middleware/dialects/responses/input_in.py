"""Items of ``input`` read as turns; answers reuse the reading of parts, calls and thoughts."""

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
    ToolKind,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.responses.vocabulary import CALLS, DIALECT

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}

_OUTPUTS: Final[dict[str, ToolKind]] = {
    "function_call_output": "function",
    "custom_tool_call_output": "custom",
}


def decode_input(value: object) -> tuple[Turn, ...]:
    """Return the turns of an ``input`` member, which may be one string."""
    if isinstance(value, str):
        return (Turn("user", (Text(value),), form="bare"),)
    if value is None:
        return ()
    turns: list[Turn] = []
    for i, item in enumerate(reading.array(value, "input")):
        _decode_item(reading.mapping(item, f"input[{i}]"), f"input[{i}]", turns)
    return tuple(turns)


def _decode_item(item: Json, path: str, turns: list[Turn]) -> None:
    kind = reading.word(item.get("type"))
    if kind in ("", "message") and "role" in item:
        _decode_message(item, path, turns)
    elif kind in CALLS:
        _said(decode_call(item, path), turns)
    elif kind in _OUTPUTS:
        turns.append(Turn("tool", (_decode_output(item, path),)))
    elif kind == "reasoning":
        current = turns[-1] if turns else None
        # What a model thinks comes before what it says: new thoughts begin a new turn unless
        # calls are still waiting for their results.
        if current is not None and current.role == "assistant" and not _pending(current):
            turns.append(Turn("assistant", (decode_reasoning(item),), form="absent"))
        else:
            _said(decode_reasoning(item), turns)
    else:
        word = str(kind)
        _said(Opaque(DIALECT, word, item), turns)


def _decode_message(item: Json, path: str, turns: list[Turn]) -> None:
    role = _ROLES.get(reading.text(item.get("role"), f"{path}.role"))
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    content = item.get("content")
    form: Literal["string", "parts"] = "string" if isinstance(content, str) else "parts"
    parts: tuple[Part, ...]
    if isinstance(content, str):
        parts = (Text(content),)
    else:
        parts = tuple(
            decode_part(reading.mapping(part, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, part in enumerate(reading.array(content or [], f"{path}.content"))
        )
    extra = reading.rest(item, ("type", "role", "content"))
    current = turns[-1] if turns else None
    if role == "assistant" and current is not None and current.role == "assistant":
        silent = not any(isinstance(p, Text | Refusal) for p in current.parts)
        if _pending(current) or silent:
            joined_form = form if silent else "parts"
            turns[-1] = Turn("assistant", (*current.parts, *parts), form=joined_form, extra=extra)
            return
    turns.append(Turn(role, parts, form=form, extra=extra))


def _pending(turn: Turn) -> bool:
    return any(isinstance(part, ToolCall) for part in turn.parts)


def _said(part: Part, turns: list[Turn]) -> None:
    """Add ``part`` to the assistant turn in progress, or begin one."""
    current = turns[-1] if turns else None
    if current is not None and current.role == "assistant":
        turns[-1] = Turn(
            "assistant", (*current.parts, part), form=current.form, extra=current.extra
        )
    else:
        turns.append(Turn("assistant", (part,), form="absent"))


def decode_call(item: Json, path: str) -> ToolCall:
    """Return the call of a function call or custom tool call item."""
    kind, member = CALLS[item["type"]]
    return ToolCall(
        id=reading.text(item.get("call_id"), f"{path}.call_id"),
        name=reading.text(item.get("name"), f"{path}.name"),
        arguments=reading.arguments_text(item.get(member)),
        kind=kind,
        extra=reading.rest(item, ("type", "call_id", "name", member)),
    )


def _decode_output(item: Json, path: str) -> ToolResult:
    output = item.get("output")
    plain = isinstance(output, str)
    parts: tuple[Part, ...]
    if isinstance(output, str):
        parts = (Text(output),)
    elif output is None:
        parts, plain = (), True
    else:
        parts = tuple(
            decode_part(reading.mapping(part, f"{path}.output[{i}]"), f"{path}.output[{i}]")
            for i, part in enumerate(reading.array(output, f"{path}.output"))
        )
    return ToolResult(
        call_id=reading.text(item.get("call_id"), f"{path}.call_id"),
        parts=parts,
        plain=plain,
        kind=_OUTPUTS[item["type"]],
        extra=reading.rest(item, ("type", "call_id", "output")),
    )


def decode_reasoning(item: Json) -> Reasoning:
    """Return the reasoning of an item; absent members read as empty."""
    return Reasoning(
        text="".join(part_texts(item.get("content"))),
        summary=tuple(part_texts(item.get("summary"))),
        encrypted=item.get("encrypted_content"),
        id=item.get("id"),
        extra=reading.rest(item, ("type", "id", "summary", "content", "encrypted_content")),
    )


def part_texts(parts: object) -> list[str]:
    """Return the texts of a list of parts; anything else has none."""
    if not isinstance(parts, list | tuple):
        return []
    found = (p.get("text") for p in parts if isinstance(p, Mapping))
    return [text for text in found if isinstance(text, str)]


def decode_part(part: Json, path: str) -> Part:
    """Return a content part; one of an unknown type is carried untouched."""
    kind = reading.word(part.get("type"))
    if kind in ("input_text", "output_text", "text"):
        return Text(
            reading.text(part.get("text"), f"{path}.text"),
            tuple(a for a in reading.objects(part.get("annotations")) if isinstance(a, Mapping)),
            reading.logprobs(part.get("logprobs") or None),
            reading.rest(part, ("type", "text", "annotations", "logprobs")),
        )
    if kind == "input_image":
        url = part.get("image_url")
        url = None if url is None else reading.text(url, f"{path}.image_url")
        extra = reading.rest(part, ("type", "image_url", "detail", "file_id"))
        return reading.image(url, part.get("detail"), part.get("file_id"), extra)
    if kind == "input_file":
        return File(
            url=part.get("file_url"),
            data=part.get("file_data"),
            file_id=part.get("file_id"),
            name=part.get("filename"),
            extra=reading.rest(part, words("type file_url file_data file_id filename")),
        )
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), f"{path}.input_audio")
        return Audio(data=inner.get("data"), format=inner.get("format"))
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), f"{path}.refusal"))
    return Opaque(DIALECT, str(kind), part)
