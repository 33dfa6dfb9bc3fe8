"""Content blocks read as parts: of requests and of answers."""

from base64 import b64encode
from typing import Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.vocabulary import DIALECT, json_text
from aiproxy.middleware.dialects.canonical import (
    File,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from aiproxy.middleware.dialects.seals import Seal, unseal

_RESULT: Final = reading.words("type tool_use_id content is_error")
_PLAIN: Final = "data:text/plain;base64,"


def decode_block(block: Json, path: str) -> Part:
    """Return the part of a content block; one of an unknown type is carried untouched.

    Raises:
        MalformedRequest: a member has a type this dialect cannot mean; ``path`` names the block.
    """
    kind = reading.text(block.get("type"), f"{path}.type")
    if kind == "text":
        value = reading.text(block.get("text"), f"{path}.text")
        return Text(value, extra=reading.rest(block, ("type", "text")) if len(block) > 2 else {})
    if kind == "tool_use":
        return decode_call(block)
    if kind == "tool_result":
        return _decode_result(block, path)
    if kind == "thinking":
        return _decode_thinking(block)
    if kind == "redacted_thinking":
        data = reading.text(block.get("data"), f"{path}.data")
        return _thought("", data, reading.rest(block, ("type", "data")), hidden=True)
    if kind == "image":
        return _decode_image(block, path)
    if kind == "document":
        return _decode_document(block, path)
    return Opaque(DIALECT, kind, block)


def decode_call(block: Json) -> ToolCall:
    """Return the call of a ``tool_use`` block."""
    given = block.get("input")
    return ToolCall(
        reading.word(block.get("id")),
        reading.word(block.get("name")),
        given if isinstance(given, str) else json_text({} if given is None else given),
        extra=reading.rest(block, ("type", "id", "name", "input")) if len(block) > 4 else {},
    )


def _decode_thinking(block: Json) -> Reasoning:
    extra = reading.rest(block, ("type", "thinking", "signature"))
    signature = reading.word(block.get("signature"))
    return _thought(reading.word(block.get("thinking")), signature, extra)


def _thought(text: str, opaque: str, extra: Json, hidden: bool = False) -> Reasoning:
    """Return reasoning whose opaque data may be a seal (``dialects.seals``) of another dialect."""
    held = unseal(opaque)
    if held is None:
        if hidden:
            return Reasoning(encrypted=opaque, extra=extra)
        return Reasoning(text, signature=opaque or None, extra=extra)
    signature = held.signature if held.fits(text) else None
    return Reasoning(
        text, signature=signature, encrypted=held.encrypted, origin=held.origin, extra=extra
    )


def _decode_result(block: Json, path: str) -> ToolResult:
    content = block.get("content")
    plain = not isinstance(content, (list, tuple))
    parts: tuple[Part, ...]
    if isinstance(content, list | tuple):
        parts = tuple(
            decode_block(reading.mapping(item, f"{path}.content[{i}]"), f"{path}.content[{i}]")
            for i, item in enumerate(content)
        )
    elif content is None:
        parts = ()
    else:
        parts = (Text(reading.text(content, f"{path}.content")),)
    return ToolResult(
        reading.text(block.get("tool_use_id"), f"{path}.tool_use_id"),
        parts,
        plain,
        block.get("is_error") is True,
        extra=reading.rest(block, _RESULT) if len(block) > 2 + (content is not None) else {},
    )


def _decode_image(block: Json, path: str) -> Part:
    source = reading.mapping(block.get("source"), f"{path}.source")
    extra = reading.rest(block, ("type", "source"))
    kind = source.get("type")
    if kind == "base64":
        return Image(
            data=reading.text(source.get("data"), f"{path}.source.data"),
            media_type=reading.text(source.get("media_type"), f"{path}.source.media_type"),
            extra=extra,
        )
    if kind == "url":
        return Image(url=reading.text(source.get("url"), f"{path}.source.url"), extra=extra)
    if kind == "file":
        identity = reading.text(source.get("file_id"), f"{path}.source.file_id")
        return Image(file_id=identity, extra=extra)
    return Opaque(DIALECT, "image", block)


def _decode_document(block: Json, path: str) -> Part:
    source = reading.mapping(block.get("source"), f"{path}.source")
    extra = reading.rest(block, ("type", "source", "title"))
    name = reading.optional(block.get("title"))
    kind = source.get("type")
    if kind == "base64":
        media = reading.text(source.get("media_type"), f"{path}.source.media_type")
        data = reading.text(source.get("data"), f"{path}.source.data")
        held = f"data:{media};base64,{data}"
        return File(data=held, name=name, extra=extra, media_type=media)
    if kind == "text":
        words = reading.text(source.get("data"), f"{path}.source.data")
        data = b64encode(words.encode("utf-8", "replace")).decode()
        return File(data=_PLAIN + data, name=name, extra=extra, media_type="text/plain")
    if kind == "url":
        url = reading.text(source.get("url"), f"{path}.source.url")
        return File(url=url, name=name, extra=extra)
    if kind == "file":
        identity = reading.text(source.get("file_id"), f"{path}.source.file_id")
        return File(file_id=identity, name=name, extra=extra)
    return Opaque(DIALECT, "document", block)


def part_seal(block: Json) -> Seal | None:
    """Return the seal of a block that only carries the signature of another part of its turn."""
    held = unseal(block.get("data"))
    return held if held is not None and (held.said or held.call is not None) else None
