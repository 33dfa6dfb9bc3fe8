"""Messages of a request read as turns; answers reuse the reading of parts and calls."""

from collections.abc import Mapping
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
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.chat.thoughts import decode_thoughts, packed
from aiproxy.middleware.dialects.chat.vocabulary import DIALECT
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.seals import google_signature, unseal, without_google

#: The members of a message that are read.
MESSAGE: Final = words(
    "role content name refusal audio tool_calls tool_call_id function_call "
    "reasoning_content reasoning reasoning_details"
)

#: The roles whose message may be a text and nothing else.
_SPEAKERS: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
_ROLES: Final[dict[str, Role]] = {**_SPEAKERS, "tool": "tool", "function": "tool"}


def decode_messages(messages: object) -> tuple[Turn, ...]:
    """Return the turns of a ``messages`` member.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean.
    """
    turns: list[Turn] = []
    for i, message in enumerate(reading.array(messages, "messages")):
        if type(message) is dict and len(message) == 2:  # a role and a text, as most messages are
            content, written = message.get("content"), message.get("role")
            role = _SPEAKERS.get(written) if type(written) is str else None
            if role is not None and type(content) is str:
                turns.append(Turn(role, (Text(content),), None, "string"))
                continue
        path = f"messages[{i}]"
        turns.append(decode_message(reading.mapping(message, path), path))
    return tuple(turns)


def decode_message(message: Json, path: str) -> Turn:
    """Return the turn of a message; ``path`` names it in ``MalformedRequest``."""
    written = reading.text(message.get("role"), path, ".role")
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
        parts = []
        for i, part in enumerate(reading.array(content, path, ".content")):
            where = f"{path}.content[{i}]"
            parts.append(decode_part(reading.mapping(part, where), where))
    name = message.get("name")
    name = None if name is None else reading.text(name, path, ".name")
    if role == "tool":
        legacy = written == "function"
        result = ToolResult(
            call_id=""
            if legacy
            else reading.text(message.get("tool_call_id"), path, ".tool_call_id"),
            parts=tuple(parts),
            plain=form != "parts",
            kind="legacy_function" if legacy else "function",
            name=name if legacy else None,
        )
        extra = reading.rest(message, MESSAGE)
        return Turn("tool", (result,), None if legacy else name, form, extra)
    extra = reading.rest(message, MESSAGE)
    if role == "assistant":
        parts = [_known(part) for part in decode_said(message, parts, path)]
        if "extra_content" in extra and unseal(google_signature(extra)) is not None:
            extra = without_google(extra)
    return Turn(role, tuple(parts), name, form, extra)


def _known(part: Part) -> Part:
    """A signature in Google's chat API is of use to its own API as well."""
    if isinstance(part, ToolCall) and part.signature is not None and part.origin is None:
        return replace(part, origin="gemini")
    return part


def decode_said(message: Json, content: list[Part], path: str) -> list[Part]:
    """Return the parts of an assistant turn: what was thought, said, and called."""
    parts: list[Part] = []
    thought = message.get("reasoning_content")
    key = "reasoning_content"
    if not isinstance(thought, str):
        thought, key = message.get("reasoning"), "reasoning"
    if not isinstance(thought, str):
        thought = ""
    own: list[Json] = []
    if message.get("reasoning_details"):
        translated, own = decode_thoughts(message)
        if translated:
            thought = ""  # the same thoughts as plain text
            parts += translated
    if thought or own:
        extra = {} if key == "reasoning_content" or not thought else {"key": key}
        parts.append(Reasoning(thought, encrypted=packed(own), extra=extra))
    parts += _signed(content, message) if "extra_content" in message else content
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
    return parts if thought == "" else [_of_its_maker(part, parts) for part in parts]


def _of_its_maker(part: Part, parts: list[Part]) -> Part:
    """Plain thoughts are of the dialect whose seals are on the rest of the message."""
    if isinstance(part, Reasoning) and part.origin is None:
        said = (p.origin for p in parts if isinstance(p, ToolCall | Text) and p.origin)
        return replace(part, origin=next(said, None))
    return part


def _signed(content: list[Part], message: Json) -> list[Part]:
    """Return the content with the sealed signature of its last text, if the message has one."""
    seal = unseal(google_signature(message))
    if seal is None or seal.signature is None:
        return content
    found = list(content)
    for place in range(len(found) - 1, -1, -1):
        part = found[place]
        if isinstance(part, Text):
            found[place] = replace(part, signature=seal.signature, origin=seal.origin)
            return found
    return [*found, Text("", signature=seal.signature, origin=seal.origin)]


def _decode_call(call: Json) -> ToolCall:
    identity = call.get("id")
    identity = identity if isinstance(identity, str) else ""
    signature = origin = None
    if "extra_content" in call:
        given = google_signature(call)
        seal = unseal(given)
        if seal is not None:
            signature, origin = seal.signature, seal.origin
            call = without_google(call)
        else:
            signature = reading.optional(given)
    extra = reading.rest(call, ("id", "type", "function", "custom", "index"))
    custom = call.get("custom")
    if call.get("type") == "custom" and isinstance(custom, Mapping):
        name, given = str(custom.get("name") or ""), str(custom.get("input") or "")
        return ToolCall(identity, name, given, "custom", extra, signature, origin)
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    arguments = reading.arguments_text(function.get("arguments"))
    name = str(function.get("name") or "")
    return ToolCall(identity, name, arguments, "function", extra, signature, origin)


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
        return Text(reading.text(part.get("text"), path, ".text"), extra=extra)
    if kind == "image_url":
        inner = part.get("image_url")
        if isinstance(inner, str):  # a common short form
            return reading.image(inner, None, None, {**extra, "plain": True})
        inner = reading.mapping(inner, path, ".image_url")
        url = reading.text(inner.get("url"), path, ".image_url.url")
        return reading.image(url, inner.get("detail"), None, extra)
    if kind == "input_audio":
        inner = reading.mapping(part.get("input_audio"), path, ".input_audio")
        at = f"{path}.input_audio"
        data, form = reading.given(inner, "data", at), reading.given(inner, "format", at)
        return Audio(data=data, format=form, extra=extra)
    if kind == "file":
        inner = reading.mapping(part.get("file"), path, ".file")
        at = f"{path}.file"
        return File(
            data=reading.given(inner, "file_data", at),
            file_id=reading.given(inner, "file_id", at),
            name=reading.given(inner, "filename", at),
            extra=extra,
        )
    if kind == "refusal":
        return Refusal(reading.text(part.get("refusal"), path, ".refusal"))
    return Opaque(DIALECT, str(kind), part)
