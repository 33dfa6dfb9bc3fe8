"""Items of ``input`` read as turns; answers reuse the reading of parts, calls and thoughts."""

from dataclasses import replace
from typing import Final, Literal

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Audio,
    File,
    Json,
    MalformedRequest,
    Opaque,
    Part,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolKind,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.responses.sealing import (
    decode_reasoning,
    marker,
    sign_call,
    sign_text,
)
from aiproxy.middleware.dialects.responses.vocabulary import CALLS, DIALECT
from aiproxy.middleware.dialects.seals import Seal

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}

#: The members of a message, a text and a file that are read.
_MESSAGE: Final = words("type role content")
_TEXT: Final = words("type text annotations logprobs")
_FILE: Final = words("type file_url file_data file_id filename")
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
    seals: dict[str, Seal] = {}
    for i, item in enumerate(reading.array(value, "input")):
        if type(item) is dict and _plain(item, turns):
            continue
        path = f"input[{i}]"
        _decode_item(reading.mapping(item, path), path, turns, seals)
    return tuple(turns)


def _plain(item: Json, turns: list[Turn]) -> bool:
    """Add the turn of a message that is a role and a text, as most are; ``False`` for any other."""
    content, written = item.get("content"), item.get("role")
    if type(content) is not str or type(written) is not str:
        return False
    if len(item) != 2 and (len(item) != 3 or item.get("type") != "message"):
        return False
    role = _ROLES.get(written)
    if role is None or (role == "assistant" and turns and turns[-1].role == "assistant"):
        return False
    turns.append(Turn(role, (Text(content),), None, "string"))
    return True


def _decode_item(item: Json, path: str, turns: list[Turn], seals: dict[str, Seal]) -> None:
    kind = reading.word(item.get("type"))
    if kind in ("", "message") and "role" in item:
        _decode_message(item, path, turns)
    elif kind in CALLS:
        _said(sign_call(decode_call(item, path), seals), turns)
    elif kind in _OUTPUTS:
        turns.append(Turn("tool", (_decode_output(item, path),)))
    elif kind == "reasoning":
        current = turns[-1] if turns else None
        seal = marker(item)
        if seal is not None and seal.call is not None:
            seals[seal.call] = seal
            return
        if seal is not None:
            if current is not None and current.role == "assistant":
                turns[-1] = replace(current, parts=sign_text(current.parts, seal))
            return
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
    role = _ROLES.get(reading.text(item.get("role"), path, ".role"))
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    content = item.get("content")
    form: Literal["string", "parts"] = "string" if isinstance(content, str) else "parts"
    parts: tuple[Part, ...]
    if isinstance(content, str):
        parts = (Text(content),)
    else:
        parts = _decode_parts(content or [], path, "content")
    extra = reading.rest(item, _MESSAGE)
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
        id=reading.text(item.get("call_id"), path, ".call_id"),
        name=reading.text(item.get("name"), path, ".name"),
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
        parts = _decode_parts(output, path, "output")
    return ToolResult(
        call_id=reading.text(item.get("call_id"), path, ".call_id"),
        parts=parts,
        plain=plain,
        kind=_OUTPUTS[item["type"]],
        extra=reading.rest(item, ("type", "call_id", "output")),
    )


def _decode_parts(parts: object, path: str, member: str) -> tuple[Part, ...]:
    found = []
    for i, part in enumerate(reading.array(parts, path, f".{member}")):
        where = f"{path}.{member}[{i}]"
        found.append(decode_part(reading.mapping(part, where), where))
    return tuple(found)


def decode_part(part: Json, path: str) -> Part:
    """Return a content part; one of an unknown type is carried untouched."""
    kind = reading.word(part.get("type"))
    if kind in ("input_text", "output_text", "text"):
        return Text(
            reading.text(part.get("text"), path, ".text"),
            tuple(reading.objects(part.get("annotations"))),
            reading.logprobs(part.get("logprobs") or None),
            reading.rest(part, _TEXT),
        )
    if kind == "input_image":
        url = part.get("image_url")
        url = None if url is None else reading.text(url, f"{path}.image_url")
        extra = reading.rest(part, ("type", "image_url", "detail", "file_id"))
        return reading.image(url, part.get("detail"), part.get("file_id"), extra)
    if kind == "input_file":
        return File(
            url=reading.given(part, "file_url", path),
            data=reading.given(part, "file_data", path),
            file_id=reading.given(part, "file_id", path),
            name=reading.given(part, "filename", path),
            extra=reading.rest(part, _FILE),
        )
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), f"{path}.input_audio")
        at = f"{path}.input_audio"
        data, form = reading.given(inner, "data", at), reading.given(inner, "format", at)
        return Audio(data=data, format=form)
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), f"{path}.refusal"))
    return Opaque(DIALECT, str(kind), part)
