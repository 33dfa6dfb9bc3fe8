"""A stream of server-sent events told as one JSON array, which is how the Gemini API streams to
clients that do not ask for ``alt=sse``."""

from typing import Final

from aiproxy.middleware.dialects.sse import SSEEvent, SSEParser
from aiproxy.middleware.effects import Flow, Headers, Outcome, Reply, Send, Start

#: Octets. What comes here was bounded where it was read.
_ANY: Final = 1 << 62
_KIND: Final = ("content-type", "application/json; charset=utf-8")


def as_json_array(flow: Flow) -> Flow:
    """Return ``flow`` with its events as elements of an array; a refusal is its only element.

    Element by element as they arrive: nothing but an unfinished frame is held.
    """
    framer = _Framer()
    outcome: Outcome = None
    try:
        effect = next(flow)
        while True:
            if type(effect) is Start:
                effect = Start(effect.status, _headers(effect.headers))
            elif type(effect) is Send:
                effect = Send(framer.feed(effect.data))
            outcome = yield effect
            effect = flow.send(outcome)
    except StopIteration as stop:
        reply: Reply | None = stop.value
    finally:
        flow.close()
    if reply is None:
        yield Send(framer.end())
    elif reply.status >= 400:
        reply.body = b"[" + reply.body + b"]"
    return reply


def _headers(headers: Headers) -> Headers:
    return (_KIND, *(row for row in headers if row[0] != "content-type"))


class _Framer:
    """Every event is one document, in however many lines its provider wrote it. Anything else
    (comments, blank lines) is a sign of life and becomes white space."""

    __slots__ = ("_opened", "_parser")

    def __init__(self) -> None:
        self._parser = SSEParser(_ANY, _ANY)
        self._opened = False

    def feed(self, data: bytes) -> bytes:
        return self._elements(self._parser.feed(data)) or (b"\n" if data else b"")

    def end(self) -> bytes:
        rest = self._elements(self._parser.finish())
        return rest + (b"]" if self._opened else b"[]")

    def _elements(self, events: list[SSEEvent]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if event.data is None or event.is_done:
                continue
            out.append(b",\r\n" if self._opened else b"[")
            self._opened = True
            out.append(event.data.strip())
        return b"".join(out)
