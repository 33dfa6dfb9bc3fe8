"""Server-sent events: bytes in, events out, wherever the network cut them.

Deliberately small: no reconnection, ``id`` and ``retry`` fields are skipped. What is kept exactly
is the raw text of each event, because a stream that stays in its dialect is forwarded as received.
"""

import re
from typing import Any, Final

import orjson

DONE: Final = b"[DONE]"
DONE_FRAME: Final = b"data: [DONE]\n\n"

#: Bound of an event that may hold a picture.
_MOST_PICTURE_BYTES: Final = 32 << 20
_BOM: Final = b"\xef\xbb\xbf"
# Atomic groups: without them CR LF would also match as an empty line between its two halves.
_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class SSETooLarge(ValueError):
    """One line or one event is above its bound."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(f"an SSE {what} is longer than {limit_bytes} bytes")
        self.what, self.limit_bytes = what, limit_bytes


class SSEEvent:
    """One event: its name, its data and its exact bytes, blank line included.

    ``data`` is ``None`` for a block without a data field: comments, keep-alives, stray blank lines.
    The ``raw`` of all events in order, plus ``SSEParser.leftover``, is the stream.
    """

    __slots__ = ("data", "event", "raw")

    def __init__(self, event: str | None, data: bytes | None, raw: bytes) -> None:
        self.event = event
        self.data = data
        self.raw = raw

    @property
    def is_comment(self) -> bool:
        """True when there is nothing to read, only something to forward."""
        return self.data is None

    @property
    def is_done(self) -> bool:
        """True for the ``[DONE]`` marker."""
        return self.data is not None and self.data.strip() == DONE

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SSEEvent):
            return NotImplemented
        return (self.event, self.data, self.raw) == (other.event, other.data, other.raw)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        size = "no data" if self.data is None else f"{len(self.data)} bytes"
        return f"SSEEvent({self.event!r}, {size})"


def read_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object of an event; ``None`` when it holds none."""
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return payload if isinstance(payload, dict) else None


def parser_for(dialect: str) -> "SSEParser":
    """Return a parser for the streams of a dialect: Gemini puts a whole picture into one event."""
    if dialect == "gemini":
        return SSEParser(_MOST_PICTURE_BYTES, _MOST_PICTURE_BYTES)
    return SSEParser()


class SSEParser:
    """Turns any slicing of a byte stream into the same events.

    ``feed`` and ``finish`` raise ``SSETooLarge``; events that came before the long one are
    returned first and the error is raised by the next call.
    """

    __slots__ = (
        "_cr",
        "_error",
        "_first",
        "_scan",
        "_tail",
        "leftover",
        "max_event_bytes",
        "max_line_bytes",
    )

    def __init__(self, max_line_bytes: int = 1 << 20, max_event_bytes: int = 4 << 20) -> None:
        self.max_line_bytes = max_line_bytes
        self.max_event_bytes = max_event_bytes
        #: What was left at the end and is no whole event; set by ``finish``.
        self.leftover = b""
        self._tail = bytearray()
        self._scan = 0  # no event ends in _tail before this offset
        self._cr = False  # a carriage return is somewhere in _tail
        self._first = True
        self._error: SSETooLarge | None = None

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Return the events that are complete with ``chunk``, in order."""
        if self._error is not None:
            raise self._error
        tail = self._tail
        if not tail:
            # Most reads of a live stream hold exactly one whole event.
            if (
                chunk[:6] == b"data: "
                and chunk.find(b"\n") == len(chunk) - 2
                and chunk.endswith(b"\n\n")
                and b"\r" not in chunk
                and len(chunk) <= self.max_line_bytes
            ):
                self._first = False
                return [SSEEvent(None, chunk[6:-2], chunk)]
            return self._take(chunk)
        tail += chunk
        if not self._cr:
            self._cr = b"\r" in chunk
        if self._cr:
            found = _BLANK_LINE.search(tail, self._scan) is not None
        else:
            found = tail.find(b"\n\n", self._scan) >= 0
        if not found:
            # An end may straddle the cut by up to three bytes (CR LF CR | LF).
            self._scan = max(0, len(tail) - 3)
            error = self._oversize(tail)
            if error is not None:
                raise error
            return []
        data = bytes(tail)
        tail.clear()
        return self._take(data)

    def finish(self) -> list[SSEEvent]:
        """Return a last event whose blank line never came, if it is whole.

        Whole means JSON that parses as an object or array, ``[DONE]``, or comments. Its ``raw``
        gets the missing blank line. Anything else stays in ``leftover``.
        """
        if self._error is not None:
            raise self._error
        tail = bytes(self._tail)
        self._tail.clear()
        if not tail:
            return []
        if tail.endswith(b"\r"):
            found = _BLANK_LINE.search(tail)
            if found is not None and found.end() == len(tail):
                return [self._event(tail[: found.start()], tail)]
        ending = b"\n" if tail.endswith((b"\n", b"\r")) else b"\n\n"
        event = self._event(tail, tail + ending)
        if event.data is None:
            lines = _LINE_END.split(tail)
            if all(not line or line.startswith(b":") for line in lines):
                return [event]
        elif event.is_done or _is_whole(event.data):
            return [event]
        self.leftover = tail
        return []

    def _take(self, data: bytes) -> list[SSEEvent]:
        """Split ``data``, which starts at an event boundary; keep what is unfinished."""
        events: list[SSEEvent] = []
        blank = b"\n\n"
        if b"\r" in data:
            pairs = data.count(b"\r\n")
            blank = b"\r\n\r\n" if pairs == data.count(b"\r") == data.count(b"\n") else b""
        if blank:
            blocks = data.split(blank)
            rest = blocks.pop()
            for block in blocks:
                if len(block) > self.max_line_bytes:
                    error = self._oversize(block)
                    if error is not None:
                        return self._stop(error, events)
                if block[:6] == b"data: " and b"\n" not in block:
                    events.append(SSEEvent(None, block[6:], block + blank))
                else:
                    events.append(self._event(block, block + blank))
            if blocks:
                self._first = False
        else:
            rest = self._take_mixed(data, events)
        if rest:
            self._tail += rest
            self._scan = max(0, len(rest) - 3)
            self._cr = b"\r" in rest
            error = self._oversize(rest)
            if error is not None:
                return self._stop(error, events)
        return events if self._error is None or events else self._stop(self._error, events)

    def _take_mixed(self, data: bytes, events: list[SSEEvent]) -> bytes:
        """Split data whose lines end in more than one way; return the unfinished rest."""
        start = 0
        size = len(data)
        for match in _BLANK_LINE.finditer(data):
            end = match.end()
            if end == size and data.endswith(b"\r"):
                break  # it may be half of a CR LF
            block = data[start : match.start()]
            error = self._oversize(block)
            if error is not None:
                self._error = error
                return b""
            raw = data[start:end]
            if block[:6] == b"data: " and b"\r" not in block and b"\n" not in block:
                events.append(SSEEvent(None, block[6:], raw))
            else:
                events.append(self._event(block, raw))
            self._first = False
            start = end
        return data[start:]

    def _event(self, block: bytes, raw: bytes) -> SSEEvent:
        """Parse one block field by field."""
        if self._first and block.startswith(_BOM):
            block = block[3:]
        self._first = False
        name: str | None = None
        data: list[bytes] = []
        for line in _LINE_END.split(block):
            label, colon, value = line.partition(b":")
            if colon and value[:1] == b" ":
                value = value[1:]
            if label == b"data":
                data.append(value)
            elif label == b"event":
                name = value.decode("utf-8", "replace")
        return SSEEvent(name or None, b"\n".join(data) if data else None, raw)

    def _oversize(self, block: bytes | bytearray) -> SSETooLarge | None:
        if len(block) > self.max_event_bytes:
            return SSETooLarge("event", self.max_event_bytes)
        if len(block) > self.max_line_bytes:
            longest = max(len(line) for line in _LINE_END.split(bytes(block)))
            if longest > self.max_line_bytes:
                return SSETooLarge("line", self.max_line_bytes)
        return None

    def _stop(self, error: SSETooLarge, events: list[SSEEvent]) -> list[SSEEvent]:
        self._error = error
        self._tail.clear()
        if not events:
            raise error
        return events


def encode(data: bytes, event: str | None = None) -> bytes:
    """Return one event; ``data`` may hold line feeds, each line becomes a data field."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_END.split(data))
    return head + b"data: " + data + b"\n\n"


def _is_whole(data: bytes) -> bool:
    try:
        return isinstance(orjson.loads(data), dict | list)
    except orjson.JSONDecodeError:
        return False
