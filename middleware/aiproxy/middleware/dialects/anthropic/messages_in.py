"""System prompt and messages of a request read as turns.

A user message of this dialect may hold the results of several calls and words of the user; each
result becomes a turn of its own, as in the other dialects.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.anthropic.blocks_in import decode_block, part_seal
from aiproxy.middleware.dialects.canonical import (
    Json,
    MalformedRequest,
    Part,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.seals import Seal

_MESSAGE: Final = words("role content")
_ROLES: Final[dict[str, Role]] = {"user": "user", "assistant": "assistant", "system": "system"}


def decode_system(value: object) -> Iterator[Turn]:
    """Yield the turn of a system prompt: a string or text blocks."""
    if value is None:
        return
    if isinstance(value, str):
        yield Turn("system", (Text(value),), form="string")
        return
    parts = []
    for i, item in enumerate(reading.array(value, "system")):
        path = f"system[{i}]"
        parts.append(decode_block(reading.mapping(item, path), path))
    yield Turn("system", tuple(parts))


def decode_message(message: Json, path: str) -> Iterator[Turn]:
    """Yield the turns of a message.

    Raises:
        MalformedRequest: a member cannot be read; ``path`` names the message.
    """
    written = reading.text(message.get("role"), f"{path}.role")
    role = _ROLES.get(written)
    if role is None:
        raise MalformedRequest(f"{path}.role", "another word", "one of " + ", ".join(_ROLES))
    extra = reading.rest(message, _MESSAGE) if len(message) > 2 else {}
    content = message.get("content")
    if isinstance(content, str):
        yield Turn(role, (Text(content),), form="string", extra=extra)
        return
    if content is None:
        yield Turn(role, (), form="null", extra=extra)
        return
    blocks = reading.array(content, f"{path}.content")
    if role == "assistant":
        yield Turn(role, tuple(_decode_said(blocks, path)), extra=extra)
        return
    yield from _decode_asked(blocks, role, path, extra)


def _decode_said(blocks: list[Any], path: str) -> list[Part]:
    """Return the parts of an assistant message. Blocks that carry the signature of a call (behind
    them) or of a text (before them) are taken up by it."""
    parts: list[Part] = []
    seals: dict[str, Seal] = {}
    for i, item in enumerate(blocks):
        where = f"{path}.content[{i}]"
        block = item if item.__class__ is dict else reading.mapping(item, where)
        if block.get("type") == "redacted_thinking":
            held = part_seal(block)
            if held is not None:
                if held.call is not None:
                    seals[held.call] = held
                elif parts and isinstance(parts[-1], Text):
                    parts[-1] = replace(parts[-1], signature=held.signature, origin=held.origin)
                continue
        part = decode_block(block, where)
        if seals and isinstance(part, ToolCall) and part.id in seals:
            held = seals[part.id]
            part = replace(part, signature=held.signature, origin=held.origin)
        parts.append(part)
    return parts


def _decode_asked(blocks: list[Any], role: Role, path: str, extra: Json) -> Iterator[Turn]:
    said: list[Part] = []
    resulted = False
    for i, item in enumerate(blocks):
        where = f"{path}.content[{i}]"
        block = item if item.__class__ is dict else reading.mapping(item, where)
        part = decode_block(block, where)
        if not isinstance(part, ToolResult):
            said.append(part)
            continue
        if said:
            yield Turn(role, tuple(said), extra=extra)
            said = []
        resulted = True
        yield Turn("tool", (part,), form="string" if part.plain else "parts")
    if said or not resulted:
        yield Turn(role, tuple(said), extra=extra)
