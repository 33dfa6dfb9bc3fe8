"""What the client is told in place of what the provider said: generic tool names, bare JSON.

``Teller`` works on the canonical form of an answer that is translated, ``Renamer`` on the bytes of one
that stays in its dialect.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from re import Match, escape
from re import compile as compile_pattern
from types import MappingProxyType
from typing import Any, Final

import orjson

from aiproxy.middleware.auto.answer_check import MOST_TEXT, Check, Misfit, answered, unfenced
from aiproxy.middleware.auto.unfencing import Unfencer
from aiproxy.middleware.dialects import canonical
from aiproxy.middleware.dialects.canonical import CanonicalEvent, CanonicalReply, Choice, Part

Renames = tuple[tuple[str, str], ...]


class Renamer:
    """Gives functions their generic names back: ``"name":"browser"`` to ``"name":"web_scraper"``.

    In the OpenAI dialects arguments are text, and an unescaped ``"name":"x"`` cannot occur inside a
    JSON string: only members match, and every other byte stays. In the others arguments are objects
    that may have such a member themselves, so the frame is read and only a call's own name changes.
    """

    def __init__(self, renames: Renames, dialect: str = "chat") -> None:
        self._names = dict(renames)
        self._calls = _CALLS.get(dialect)
        each = b"|".join(escape(orjson.dumps(old)) for old in self._names)
        self._pattern = compile_pattern(rb'"name"\s*:\s*(' + each + rb")")
        self._new = {orjson.dumps(old): b'"name":' + orjson.dumps(new) for old, new in renames}

    def __call__(self, data: bytes) -> bytes:
        if self._pattern.search(data) is None:
            return data
        if self._calls is None:
            return self._pattern.sub(self._replaced, data)
        try:
            frame = orjson.loads(data)
        except orjson.JSONDecodeError:
            return data
        changed = False
        for call in self._calls(frame):
            name = call.get("name")
            if isinstance(name, str) and name in self._names:
                call["name"] = self._names[name]
                changed = True
        return orjson.dumps(frame) if changed else data

    def _replaced(self, found: Match[bytes]) -> bytes:
        return self._new[found.group(1)]


def _messages_calls(frame: Any) -> Iterator[dict[str, Any]]:
    """The tool uses of a Messages reply or of one of its stream events."""
    if isinstance(frame, dict):
        message = frame.get("message")
        for block in (
            frame.get("content_block"),
            *_list(frame.get("content")),
            *_list(message.get("content") if isinstance(message, dict) else None),
        ):
            if isinstance(block, dict) and block.get("type") == "tool_use":
                yield block


def _gemini_calls(frame: Any) -> Iterator[dict[str, Any]]:
    """The function calls of a generateContent reply or of one of its stream frames."""
    for candidate in _list(frame.get("candidates") if isinstance(frame, dict) else None):
        content = candidate.get("content") if isinstance(candidate, dict) else None
        for part in _list(content.get("parts") if isinstance(content, dict) else None):
            call = part.get("functionCall") if isinstance(part, dict) else None
            if isinstance(call, dict):
                yield call


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_CALLS: Final[Mapping[str, Callable[[Any], Iterator[dict[str, Any]]]]] = {
    "anthropic": _messages_calls,
    "gemini": _gemini_calls,
}


_ENDS_TEXT: Final = (canonical.Finish, canonical.PartEnd, canonical.ToolCallStart)


class Teller:
    """The client's view of one translated answer, whole or event by event.

    With ``check`` a code fence around the answer goes, and ``hold`` looks at the text once a stream
    is complete. ``kinds``: see ``Outgoing``; calls of tools that the client offered the old way are
    told the old way.
    """

    def __init__(
        self,
        renames: Renames = (),
        check: Check | None = None,
        kinds: Mapping[str, canonical.ToolKind] = MappingProxyType({}),
    ) -> None:
        self._names = dict(renames)
        self._legacy = {name for name, kind in kinds.items() if kind == "legacy_function"}
        self._old_calls: set[int] = set()
        self._check = check
        self._fences: dict[int, Unfencer] = {}
        self._texts: dict[int, list[str]] = {}
        self._size = 0
        self._calls: set[int] = set()  # choices that are no answer to check: declined ones too
        self._stopped: set[int] = set()

    def reply(self, reply: CanonicalReply) -> CanonicalReply:
        """Return a whole reply as the client is to see it."""
        return replace(reply, choices=tuple(self._choice(choice) for choice in reply.choices))

    def _choice(self, choice: Choice) -> Choice:
        parts = tuple(self._part(part) for part in choice.parts)
        text = answered(choice) if self._check is not None else None
        if text is not None and unfenced(text) != text:
            others = tuple(part for part in parts if not isinstance(part, canonical.Text))
            parts = (*others, canonical.Text(unfenced(text)))
        calls = [part for part in parts if isinstance(part, canonical.ToolCall)]
        reason = choice.finish_reason
        if reason == "tool_calls" and calls and calls[0].kind == "legacy_function":
            reason = "function_call"
        return replace(choice, parts=parts, finish_reason=reason)

    def _part(self, part: Part) -> Part:
        if not isinstance(part, canonical.ToolCall):
            return part
        if part.name in self._legacy:
            part = replace(part, kind="legacy_function")
        if part.name in self._names:
            return replace(part, name=self._names[part.name])
        return part

    def event(self, event: CanonicalEvent) -> tuple[CanonicalEvent, ...]:
        """Return what the client is to see of an event."""
        if isinstance(event, canonical.ToolCallStart):
            self._calls.add(event.choice)
            if event.name in self._legacy:
                self._old_calls.add(event.choice)
                event = replace(event, kind="legacy_function")
            name = self._names.get(event.name)
            event = event if name is None else replace(event, name=name)
        if isinstance(event, canonical.Finish) and event.choice in self._old_calls:
            event = replace(event, reason="function_call")
        if self._check is None:
            return (event,)
        if isinstance(event, canonical.RefusalDelta):
            self._calls.add(event.choice)
        if isinstance(event, canonical.TextDelta):
            return self._text(event)
        if isinstance(event, canonical.Finish) and event.reason == "stop":
            self._stopped.add(event.choice)
        if isinstance(event, _ENDS_TEXT) and event.choice in self._fences:
            held = self._fences.pop(event.choice).finish()
            if held:
                return (canonical.TextDelta(held, event.choice), event)
        return (event,)

    def _text(self, event: canonical.TextDelta) -> tuple[CanonicalEvent, ...]:
        self._size += len(event.text)
        if self._size <= MOST_TEXT:
            self._texts.setdefault(event.choice, []).append(event.text)
        shown = self._fences.setdefault(event.choice, Unfencer()).feed(event.text)
        if shown or event.signature is not None:
            return (replace(event, text=shown),)
        return ()

    def hold(self) -> None:
        """Look at the answers of a stream that is complete.

        Raises:
            Misfit: one does not fit.
        """
        if self._check is None:
            return
        if self._size > MOST_TEXT:
            raise Misfit("", "it is too long to be checked")
        for choice in self._stopped - self._calls:
            text = "".join(self._texts.get(choice, ()))
            why = self._check.text_fault(text)
            if why is not None:
                raise Misfit(text, why)
