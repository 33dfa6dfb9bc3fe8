"""Connections of urllib3 whose responses are waited for here.

urllib3's timeouts start over with every received byte, and one that elapses inside a chunked body
breaks the response. So the responses of our connections read from a ``Wire``, a buffer which does all
the waiting: the limits of the call hold over everything, and a read that gave up can be made again.
"""

import http.client
import logging
import socket
import ssl
import time
from contextvars import ContextVar
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..effects import Call, Failure
from .interrupts import Interrupt
from .progress import Progress
from .unread import surely_unread

_log = logging.getLogger(__name__)

PIECE_BYTES: Final = 65536


class WireProgress(Progress):
    """Progress of a urllib3 call, with the connection it runs over."""

    __slots__ = ("fresh", "heard", "interrupt", "response", "reused", "wire")

    def __init__(self, call: Call, now: float, interrupt: Interrupt | None = None) -> None:
        super().__init__(call, now)
        self.interrupt = interrupt
        self.response: urllib3.BaseHTTPResponse | None = None
        self.wire: Wire | None = None
        self.heard = False
        self.reused = False
        self.fresh = False

    def wire_ready(self, until: float | None) -> None:
        """Wait until the next read of the response cannot block.

        Raises:
            TimeoutError: not by ``until`` (monotonic seconds); nothing is lost.
        """
        if self.wire is not None:
            self.wire.wait_for_body(until)

    def stale(self, failure: Failure) -> bool:
        """Tell whether a pooled connection turned out to be closed before the peer had read all
        of the request."""
        return (
            self.reused
            and self.phase == "waiting"
            and not self.heard
            and self.wire is not None
            and self.wire.unread
            and failure.kind in ("connect_refused", "tls_failure")
            and not (self.interrupt is not None and self.interrupt.fired)
        )

    def renew(self) -> None:
        """Start over on a connection of its own; the limits keep running."""
        self.phase = "connecting"
        self.wire = None
        self.reused = False
        self.fresh = True

    def abort(self) -> None:
        """Close the connection now; it goes back to the pool closed."""
        if self.response is not None:
            self.response.close()
            self.response.release_conn()


PROGRESS: ContextVar[WireProgress] = ContextVar("PROGRESS")


def seconds_left(when: float | None) -> float | None:
    """Return the seconds left as a socket timeout.

    Raises:
        TimeoutError: none are left.
    """
    if when is None:
        return None
    left = when - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Wire:
    """What a response is read from: the socket's bytes, buffered, with the waiting done here.

    Stands where http.client has ``socket.makefile("rb")``. Nothing is lost when a wait ends in
    ``TimeoutError``: bytes leave the buffer only in one piece with the answer of a read.
    """

    def __init__(self, sock: Any, response: "_Response", progress: WireProgress) -> None:
        # The open file keeps the descriptor while http.client closes the socket after the head
        # of an answer that says "Connection: close".
        self._file = sock.makefile("rb", buffering=0)
        self.socket = sock
        self._response = response
        self._progress = progress
        self._buffer = bytearray()
        self.ended = False
        self.unread = False

    def fill(self, until: float | None) -> bool:
        """Receive once; ``False`` at the end of the connection.

        Raises:
            TimeoutError: nothing came by ``until``.
            OSError: the connection broke.
        """
        if self.ended:
            return False
        self.socket.settimeout(seconds_left(until))
        try:
            data = self.socket.recv(PIECE_BYTES)
        except ssl.SSLEOFError:
            data = b""  # without a TLS farewell: the framing tells whether that is an error
        self.ended = not data
        if self.ended and self._progress.reused and not self._progress.heard:
            self.unread = surely_unread(self.socket)
        self._progress.heard = self._progress.heard or bool(data)
        self._buffer += data
        return not self.ended

    def wait_for_body(self, until: float | None) -> None:
        """Fill until ``read1`` of the response can go on without waiting."""
        while not self._ready() and self.fill(until):
            pass

    def readline(self, limit: int = -1) -> bytes:
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                return self._take(end + 1 if limit < 0 else min(end + 1, limit))
            searched = len(self._buffer)
            if 0 <= limit <= searched:
                return self._take(limit)
            if not self.fill(self._progress.due()[0]):
                if self._response.headers is None:
                    # http.client takes the end of the connection for the end of the head.
                    self._refuse_cut_head()
                return self._take(searched)

    def read(self, amount: int = -1) -> bytes:
        while (amount < 0 or len(self._buffer) < amount) and self.fill(self._progress.due()[0]):
            pass
        return self._take(len(self._buffer) if amount < 0 else amount)

    def read1(self, amount: int = -1) -> bytes:
        if not self._buffer and amount:
            self.fill(self._progress.due()[0])
        return self._take(len(self._buffer) if amount < 0 else amount)

    def flush(self) -> None:
        """Nothing is written here; http.client asks."""

    def close(self) -> None:
        if self._buffer and not self._file.closed:
            # More than the answer came: whatever it is, no later request may take it for its own.
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                _log.debug("the connection was already closed")
        self._buffer.clear()
        if self._progress.interrupt is not None:
            self._progress.interrupt.watch(None)  # somebody else's from here on
        self._file.close()

    def _take(self, amount: int) -> bytes:
        data = bytes(self._buffer[:amount])
        del self._buffer[:amount]
        return data

    def _refuse_cut_head(self) -> None:
        if self._progress.heard:
            raise ConnectionResetError("inside the response head")

    def _ready(self) -> bool:
        buffer, response = self._buffer, self._response
        if self.ended or response.isclosed():
            return True
        left = response.chunk_left if response.chunked else 1
        if isinstance(left, int) and left > 0:
            return bool(buffer)
        # Between chunks: the line break after the last one (unless this is the first), then a
        # size and one byte of data, or size zero and the empty line after the trailers.
        start = 0 if left is None or not isinstance(left, int) else 2
        end = buffer.find(b"\n", start)
        if end < 0:
            return len(buffer) > PIECE_BYTES  # a line above its bound: let http.client refuse it
        if buffer[start:end].partition(b";")[0].strip().strip(b"0"):
            return len(buffer) > end + 1
        return buffer.startswith((b"\n", b"\r\n"), end + 1) or b"\n\r\n" in buffer[end:]


class _Response(http.client.HTTPResponse):
    """http.client's response over a ``Wire``; interim 1xx heads are passed over."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        progress = PROGRESS.get()
        progress.wire = Wire(sock, self, progress)
        if progress.interrupt is not None:
            progress.interrupt.watch(sock)
        replaced: Any = self.fp
        replaced.close()
        self.fp: Any = progress.wire

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status in (100, 101) or status >= 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # int() reads a sign
            self.close()
            raise ValueError
        return size


class _Connection(HTTPConnection):
    """Tells the running call when it is connected; its responses wait by the call's limits."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        PROGRESS.get().reused = False
        return super()._new_conn()

    def request(self, *args: Any, **options: Any) -> None:
        _ready_to_send(self)
        super().request(*args, **options)


class _TlsConnection(HTTPSConnection):
    """As ``_Connection``, over TLS."""

    response_class = _Response

    def _new_conn(self) -> socket.socket:
        PROGRESS.get().reused = False
        sock = super()._new_conn()
        sock.settimeout(seconds_left(PROGRESS.get().due()[0]))  # what the handshake may still take
        return sock

    def request(self, *args: Any, **options: Any) -> None:
        _ready_to_send(self)
        super().request(*args, **options)


def _ready_to_send(connection: HTTPConnection) -> None:
    progress = PROGRESS.get()
    if connection.sock is None:
        connection.connect()
    progress.phase = "waiting"
    # urllib3 would hold the sending of the body to the connect limit.
    connection.timeout = seconds_left(progress.due()[0])


class Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        return _unused(super()._get_conn(timeout))


class TlsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _TlsConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        return _unused(super()._get_conn(timeout))


def _unused(connection: Any) -> Any:
    """Mark the call as one over a pooled connection, or close that when a new one is wanted."""
    progress = PROGRESS.get()
    if progress.fresh:
        connection.close()
    progress.reused = connection.sock is not None
    return connection
