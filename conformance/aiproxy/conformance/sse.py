"""Reading server-sent events (WHATWG HTML, 9.2) from bytes, whatever way they were cut.

Strict where a client must be able to rely on the sender: the text is UTF-8, and an event ends with
an empty line. Lines end with LF, CRLF or CR. Comments and fields nobody knows are skipped.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event: its name (``message`` when none was sent), its text, when its last byte came.

    ``at`` counts seconds since the request was sent.
    """

    event: str
    data: str
    at: float = 0.0

    @cached_property
    def json(self) -> Any:
        """The text as JSON, or ``None`` when it is not."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            return None

    @property
    def done(self) -> bool:
        """Whether this is the end mark ``[DONE]``."""
        return self.data.strip() == "[DONE]"


class EventReader:
    """Takes bytes as they arrive and gives the events that they complete.

    ``fault`` says what is wrong with the text so far; ``comments`` counts comment lines;
    ``inside`` whether an event was begun that its empty line has not ended.
    """

    def __init__(self) -> None:
        self.fault, self.comments = "", 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._line = ""
        self._after_cr = False
        self._begun = False
        self._taken = 0
        self._name, self._data = "", list[str]()

    @property
    def inside(self) -> bool:
        """Whether the text ends within an event."""
        return bool(self._data or self._line)

    def feed(self, piece: bytes, at: float = 0.0) -> Iterator[Event]:
        """Yield the events that ``piece`` completes; nothing more after a fault."""
        if self.fault:
            return
        try:
            text = self._decoder.decode(piece)
        except UnicodeDecodeError as wrong:
            self.fault = f"not UTF-8 at byte {self._taken + wrong.start}"
            return
        self._taken += len(piece)
        for line in self._lines(text):
            event = self._take(line, at)
            if event is not None:
                yield event

    def _lines(self, text: str) -> Iterator[str]:
        if not self._begun and text:
            self._begun, text = True, text.removeprefix("\ufeff")
        if self._after_cr and text:
            self._after_cr, text = False, text.removeprefix("\n")
        if text.endswith("\r"):
            self._after_cr = True
        *whole, self._line = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split(
            "\n"
        )
        yield from whole

    def _take(self, line: str, at: float) -> Event | None:
        if not line:
            name, data = self._name or "message", "\n".join(self._data)
            held = bool(self._data)
            self._name, self._data = "", []
            return Event(name, data, at) if held else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not field:
            self.comments += 1
        elif field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None


def read_events(pieces: Iterator[tuple[float, bytes]]) -> tuple[tuple[Event, ...], str]:
    """Return the events of ``pieces`` (arrival time, bytes) and what is wrong with their text."""
    reader = EventReader()
    events = tuple(event for at, piece in pieces for event in reader.feed(piece, at))
    if not reader.fault and reader.inside:
        return events, "an event without its empty line"
    return events, reader.fault
