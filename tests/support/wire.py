"""An upstream made of bare sockets: the test says which bytes leave when.

``script`` is called for each request with the ``Wire`` of its connection; when it returns, the
connection is closed.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass
class Request:
    head: bytes
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One accepted connection, while its request is being answered."""

    def __init__(self, owner: "WireUpstream", plug: socket.socket, request: Request) -> None:
        self._owner = owner
        self._plug = plug
        self.request = request

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._plug.sendall(part)

    def chunk(self, *parts: bytes) -> None:
        """Each part as a chunk of its own, so that each is a read of its own."""
        for part in parts:
            self._plug.sendall(b"%x\r\n%b\r\n" % (len(part), part))

    def end(self) -> None:
        self._plug.sendall(b"0\r\n\r\n")

    def document(self, body: bytes, status: bytes = b"200 OK", *lines: bytes) -> None:
        head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines]
        self.send(b"\r\n".join(head) + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """Break the connection instead of closing it."""
        self._plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hold(self, seconds: float = 10.0) -> None:
        """Say nothing until the peer hangs up; when it does, the time is noted."""
        self._plug.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            try:
                while self._plug.recv(65536):
                    pass
            except ConnectionError:
                pass
            self._owner.hangups.append(time.monotonic())


@dataclass
class WireUpstream:
    """Use as a context manager."""

    script: Callable[[Wire], None] = lambda wire: None
    seen: list[Request] = field(default_factory=list)
    hangups: list[float] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_for_hangups(self, count: int, seconds: float = 3.0) -> bool:
        """Whether the peer gave up that many connections in time."""
        deadline = time.monotonic() + seconds
        while len(self.hangups) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return len(self.hangups) >= count

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plug, _ = self._listener.accept()
                plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(plug,), daemon=True).start()

    def _serve(self, plug: socket.socket) -> None:
        with plug, contextlib.suppress(ConnectionError):
            request = _read(plug)
            if request is None:
                return
            self.seen.append(request)
            self.script(Wire(self, plug, request))


def _read(plug: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = plug.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += plug.recv(65536)
    return Request(head, body, time.monotonic())


# --- chat frames ---------------------------------------------------------------------------------


def frame(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    """One ``chat.completion.chunk`` event."""
    payload = {
        "id": "chatcmpl-wire",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "upstream-name",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        **more,
    }
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def chat_stream(texts: Iterable[str]) -> bytes:
    """A whole chat stream."""
    said = b"".join(frame({"content": text}) for text in texts)
    return frame({"role": "assistant", "content": ""}) + said + frame({}, "stop") + DONE


DONE = b"data: [DONE]\n\n"
