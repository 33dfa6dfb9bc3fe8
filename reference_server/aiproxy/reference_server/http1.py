"""HTTP/1.1 as this server speaks it: uvicorn's protocol with bounds it does not have.

A request head has ``server.read_timeout`` to arrive and at most ``MOST_HEAD_BYTES``; a client that
stops reading its answer has ``server.write_timeout`` before the connection is cut; and a request
that is no HTTP (folded header lines among it) is refused with the error object of every other
refusal, request id included. Bodies are bounded by the middleware, which reads them.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from logging import getLogger
from secrets import token_hex
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from aiproxy.middleware.errors import ProxyError

log = getLogger("aiproxy")

MOST_HEAD_BYTES: Final = 64 * 1024
_PHRASES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
}


class Http1(HttpToolsProtocol):
    """One connection. Times in seconds."""

    def __init__(
        self, *args: Any, read_timeout_s: float, write_timeout_s: float, **kw: Any
    ) -> None:
        super().__init__(*args, **kw)
        self._read_timeout_s = read_timeout_s
        self._write_timeout_s = write_timeout_s
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self._read_timeout_s, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_head_timer()
        self._drop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(
                    ProxyError(
                        "header_too_large",
                        f"The request head is larger than the {MOST_HEAD_BYTES} bytes accepted here.",
                    )
                )
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(self._read_timeout_s, self._head_late)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._drop_head_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed; called by uvicorn."""
        self._refuse(
            ProxyError(
                "invalid_value",
                "The request is not well-formed HTTP/1.1; folded header lines are not accepted.",
                status=400,
            )
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drop_write_timer()

    def _head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._head_bytes:
            self.transport.close()  # connected and never asked for anything
            return
        self._refuse(
            ProxyError(
                "request_timeout",
                f"The request head did not arrive within {self._read_timeout_s:g} s.",
            )
        )

    def _refuse(self, error: ProxyError) -> None:
        self._drop_head_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer is on its way on this connection; nothing may be written into it.
            self.transport.abort()
            return
        identity = f"req_{token_hex(12)}"
        body = error.encode()
        head = (
            f"HTTP/1.1 {error.status} {_PHRASES[error.status]}\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {identity}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
        log.info("request %s refused before it was read: %s", identity, error.code)

    def _drop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _drop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def protocol(read_timeout_s: float, write_timeout_s: float) -> Callable[..., Http1]:
    """The protocol with its bounds, as uvicorn wants it."""
    return partial(Http1, read_timeout_s=read_timeout_s, write_timeout_s=write_timeout_s)
