"""A client that watches a stream byte by byte: when each piece came, and what came last.

It can leave at any moment, as real ones do.
"""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Self


class Tap:
    """One POST over a socket of its own; use as a context manager."""

    def __init__(
        self, port: int, body: Any, headers: Mapping[str, str] | None = None, path: str = ""
    ) -> None:
        payload = json.dumps(body).encode()
        lines = [
            f"POST {path or '/v1/chat/completions'} HTTP/1.1",
            "Host: 127.0.0.1",
            "Content-Type: application/json",
            "Connection: close",
            f"Content-Length: {len(payload)}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        self.received = b""
        self.started = time.monotonic()
        self._plug = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._plug.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._plug.close()

    def wait_for(self, marker: bytes, seconds: float = 5.0) -> float:
        """Read until ``marker`` was received; the seconds since the request was sent."""
        self._plug.settimeout(seconds)
        while marker not in self.received:
            data = self._plug.recv(65536)
            assert data, f"the stream ended before {marker!r}: {self.received!r}"
            self.received += data
        return time.monotonic() - self.started

    def rest(self, seconds: float = 10.0) -> bytes:
        """Read to the end; everything that was received."""
        self._plug.settimeout(seconds)
        while data := self._plug.recv(65536):
            self.received += data
        return self.received
