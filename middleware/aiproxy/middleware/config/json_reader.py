"""Reads JSON into located nodes, strictly as RFC 8259 has it.

The standard library's parser keeps no positions, so this one walks the text itself; strings are
still decoded by the library. Comments, trailing commas, duplicate keys, NaN and lone surrogates
are refused (AIP-CFG-002).
"""

import json
import re
from collections.abc import Callable
from json import decoder
from typing import Final, NoReturn

from aiproxy.middleware.config.nodes import (
    DEEPEST,
    MOST_NODES,
    NO_KEYS,
    Node,
    Scalar,
    Unreadable,
    number_fault,
)

# The library's own decoder of string bodies; the stubs leave it out.
_scan: Callable[[str, int, bool], tuple[str, int]] = getattr(decoder, "scanstring")  # noqa: B009
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER: Final = 60
_WORDS: Final[dict[str, Scalar]] = {"true": True, "false": False, "null": None}
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_json(text: str) -> Node:
    """Return the document of ``text``.

    Raises:
        Unreadable: not strict JSON; blank text included.
    """
    return _Reader(text).document()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self._line = 0
        self._count = 0

    def document(self) -> Node:
        node, end = self._value(self._skip(0), 0)
        if self._skip(end) < len(self._text):
            self._fail(self._skip(end), "more text", "the end of the file")
        return node

    def _skip(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        return found.end() if found else position

    def _place(self, position: int) -> tuple[int, int]:
        while self._line + 1 < len(self._lines) and self._lines[self._line + 1] <= position:
            self._line += 1
        while self._lines[self._line] > position:
            self._line -= 1
        return self._line + 1, position - self._lines[self._line] + 1

    def _fail(self, position: int, found: str, expected: str) -> NoReturn:
        raise Unreadable(f"found {found}, expected {expected}", *self._place(position))

    def _shown(self, position: int) -> str:
        """Return what stands at ``position``, in words that cannot quote a secret."""
        char = self._text[position : position + 1]
        if not char:
            return "the end of the file"
        if char in "#/":
            return "a comment"
        return json.dumps(char) if char in "{}[],:'" else "other text"

    def _value(self, position: int, depth: int) -> tuple[Node, int]:
        self._count += 1
        place = self._place(position)
        if depth > DEEPEST or self._count > MOST_NODES:
            raise Unreadable("found too many values or levels, expected fewer", *place)
        char = self._text[position : position + 1]
        if char == "{":
            return self._object(position, depth)
        if char == "[":
            return self._array(position, depth)
        if char == '"':
            text, end = self._string(position)
            return Node(text, *place, NO_KEYS), end
        for word, value in _WORDS.items():
            if self._text.startswith(word, position):
                return Node(value, *place, NO_KEYS), position + len(word)
        number = _NUMBER.match(self._text, position)
        if number is None:
            self._fail(position, self._shown(position), "a JSON value")
        return Node(self._number(number, place), *place, NO_KEYS), number.end()

    def _number(self, found: re.Match[str], place: tuple[int, int]) -> Scalar:
        written = found.group()
        if len(written) > _LONGEST_NUMBER:
            raise Unreadable("found a very long number, expected an ordinary number", *place)
        value: Scalar = float(written) if found[2] or found[3] else int(written)
        fault = number_fault(value)
        if fault:
            raise Unreadable(fault, *place)
        return value

    def _string(self, position: int) -> tuple[str, int]:
        try:
            text, end = _scan(self._text, position + 1, True)
        except json.JSONDecodeError as fault:
            reason = "a broken string"
            raise Unreadable(
                f"found {reason}, expected JSON text", *self._place(min(fault.pos, position))
            ) from None
        if _SURROGATE.search(text):
            self._fail(position, "half of a surrogate pair", "Unicode text")
        return text, end

    def _object(self, position: int, depth: int) -> tuple[Node, int]:
        inner: dict[str, Node] = {}
        node = Node(inner, *self._place(position))
        position = self._skip(position + 1)
        if self._text.startswith("}", position):
            return node, position + 1
        while True:
            if not self._text.startswith('"', position):
                self._fail(position, self._shown(position), "a key in double quotes")
            place = self._place(position)
            key, position = self._string(position)
            if key in inner:
                raise Unreadable("found the key a second time", *place, key=key)
            node.keys[key] = place
            position = self._skip(position)
            if not self._text.startswith(":", position):
                self._fail(position, self._shown(position), '":"')
            inner[key], position = self._value(self._skip(position + 1), depth + 1)
            position = self._skip(position)
            if self._text.startswith("}", position):
                return node, position + 1
            if not self._text.startswith(",", position):
                self._fail(position, self._shown(position), '"," or "}"')
            position = self._skip(position + 1)

    def _array(self, position: int, depth: int) -> tuple[Node, int]:
        inner: list[Node] = []
        node = Node(inner, *self._place(position))
        position = self._skip(position + 1)
        if self._text.startswith("]", position):
            return node, position + 1
        while True:
            item, position = self._value(position, depth + 1)
            inner.append(item)
            position = self._skip(position)
            if self._text.startswith("]", position):
                return node, position + 1
            if not self._text.startswith(",", position):
                self._fail(position, self._shown(position), '"," or "]"')
            position = self._skip(position + 1)
