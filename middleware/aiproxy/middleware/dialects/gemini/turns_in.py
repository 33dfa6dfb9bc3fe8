"""The conversation in: contents to turns, and ids for calls that came without one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from aiproxy.middleware.dialects import reading
from aiproxy.middleware.dialects.canonical import (
    Json,
    MalformedRequest,
    Part,
    Role,
    ToolCall,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.gemini.matching import OpenCalls
from aiproxy.middleware.dialects.gemini.parts_in import parts_of, within
from aiproxy.middleware.dialects.gemini.sealing import opened
from aiproxy.middleware.dialects.gemini.vocabulary import MADE_ID, camel

_ROLES: Final[dict[str, Role]] = {"user": "user", "model": "assistant", "function": "tool"}


def decode_system(value: object) -> list[Turn]:
    """Return the turn of ``systemInstruction``: a content, or its text alone."""
    if value is None:
        return []
    if isinstance(value, str):
        value = {"parts": [{"text": value}]}
    content = reading.mapping(value, "systemInstruction")
    try:
        parts = parts_of(content)
    except MalformedRequest as fault:
        raise within("systemInstruction", fault) from None
    return [Turn("system", tuple(parts))] if parts else []


def decode_contents(value: object) -> list[Turn]:
    """Return the turns of ``contents``.

    Every function response is a turn of its own, before what else its content says: that is
    where other dialects want it. Calls without an id get one, and each response the id of the
    call it answers: the first open one of its name.

    Raises:
        MalformedRequest: see ``decode_part``; or a role is unknown.
    """
    given = [value] if isinstance(value, str | Mapping) else reading.array(value, "contents")
    reader = _Reader()
    for i, item in enumerate(given):
        try:
            reader.add(item)
        except MalformedRequest as fault:
            raise within(f"contents[{i}]", fault) from None
    return reader.turns


class _Reader:
    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self._open: OpenCalls[str] = OpenCalls()
        self._made = 0

    def add(self, item: object) -> None:
        if isinstance(item, str):
            item = {"parts": [{"text": item}]}
        content = camel(reading.mapping(item, ""))
        parts = parts_of(content)
        if _role(content) == "assistant":
            self._answer(opened(parts))
            return
        said: list[Part] = []
        for part in parts:
            if isinstance(part, ToolResult):
                result = self._matched(part)
                form: Literal["string", "parts"] = "string" if part.plain else "parts"
                self.turns.append(Turn("tool", (result,), form=form))
            else:
                said.append(part)
        if said or not parts:
            self.turns.append(Turn("user", tuple(said)))

    def _answer(self, parts: list[Part]) -> None:
        for k, part in enumerate(parts):
            if isinstance(part, ToolCall):
                if not part.id:
                    part = parts[k] = replace(part, id=self._new_id())
                self._open.add(part.id, part.name)
        self.turns.append(Turn("assistant", tuple(parts)))

    def _matched(self, result: ToolResult) -> ToolResult:
        if result.call_id:
            self._open.answer(result.call_id)
            return result
        return replace(result, call_id=self._open.first(result.name or "") or self._new_id())

    def _new_id(self) -> str:
        self._made += 1
        return f"{MADE_ID}{self._made - 1}"


def _role(content: Json) -> Role:
    written = content.get("role")
    if written is None:
        return "user"
    role = _ROLES.get(reading.text(written, "role"))
    if role is None:
        raise MalformedRequest("role", "another word", "user or model")
    return role
