"""One HTTP/1.1 connection to a provider: connect, send, read the head, read the body as it comes.

Written over sockets because a stream has to watch two at once: the provider that may say more and
the client that may leave. Every read has a deadline and a bound.
"""

import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from urllib.parse import urlsplit

MOST_BODY = 32 * 1024 * 1024
MOST_HEAD = 65536


class Failure(Exception):
    """An attempt that gave no answer.

    ``reason`` is a registered failure code; ``retry`` is same (here again or elsewhere), other
    (elsewhere only), larger (only a larger context) or never (the request's own fault).
    """

    def __init__(
        self,
        reason: str,
        retry: str = "other",
        *,
        status: int | None = None,
        wait_s: float | None = None,
        code: str | None = None,
        param: str | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.retry, self.status, self.wait_s = reason, retry, status, wait_s
        self.code, self.param, self.usage = code, param, usage


class ClientLeft(Exception):
    """The client closed its connection while a provider was answering."""


class Connection:
    """One connection. ``client`` is watched during every wait, when given."""

    # Set by a router with the defect of not looking at certificates.
    trusting = False

    def __init__(self, url: str, connect_s: float, stop: float) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        self.client: socket.socket | None = None
        self.stop = stop
        self.buffer = b""
        self.reusable = False
        self.origin = f"{parts.scheme}://{parts.netloc}"
        limit = max(0.001, min(connect_s, stop - time.monotonic()))
        try:
            sock = socket.create_connection((host, port), limit)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                context = ssl.create_default_context()
                if Connection.trusting:
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                sock = context.wrap_socket(sock, server_hostname=host)
        except ssl.SSLError:
            raise Failure("tls_error") from None
        except socket.gaierror:
            raise Failure("dns_error") from None
        except TimeoutError:
            raise Failure("timeout") from None
        except OSError:
            raise Failure("connect_error", "same") from None
        self.sock = sock

    def alive(self) -> bool:
        """Return whether the other side has neither closed nor said anything unasked."""
        return not readable([self.sock], 0.0)

    def close(self) -> None:
        """Give the connection up."""
        self.sock.close()

    def send(self, head: bytes, body: bytes) -> None:
        """Send one request."""
        try:
            self.sock.settimeout(max(0.001, self.stop - time.monotonic()))
            self.sock.sendall(head + body)
        except OSError:
            raise Failure("connect_error", "same") from None

    def receive(self, limit: float) -> bytes:
        """Return what comes next, empty at the end of the connection.

        Raises:
            Failure: nothing came until ``limit`` (monotonic). ClientLeft: the client went.
        """
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        watched = [self.sock] if self.client is None else [self.sock, self.client]
        if not pending:
            left = min(limit, self.stop) - time.monotonic()
            ready = readable(watched, max(0.0, left))
            if not ready:
                raise Failure("timeout")
            if self.client in ready and gone(self.client):
                raise ClientLeft
            if self.sock not in ready:
                self.client = None  # a pipelining client is no news
                return self.receive(limit)
        try:
            return self.sock.recv(65536)
        except OSError:
            raise Failure("connect_error", "same") from None

    def line(self, limit: float) -> bytes:
        """Return the next line without its end."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > MOST_HEAD:
                raise Failure("invalid_response")
            more = self.receive(limit)
            if not more:
                raise Failure("connect_error", "same", code="closed")
            self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def head(self, limit: float) -> tuple[int, dict[str, str]]:
        """Return status and headers (lower-case names) of the answer."""
        words = self.line(limit).split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise Failure("invalid_response")
        headers: dict[str, str] = {}
        while line := self.line(limit):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if words[1] == b"100":
            return self.head(limit)
        return int(words[1]), headers

    def body(self, headers: Mapping[str, str], idle_s: float) -> Iterator[bytes]:
        """Yield the body as it comes; it is whole when the iterator ends by itself."""
        if "chunked" in headers.get("transfer-encoding", ""):
            yield from self.chunks(idle_s)
        elif "content-length" in headers:
            left = int(headers["content-length"])
            while left > 0:
                piece = self.some(left, idle_s)
                left -= len(piece)
                yield piece
        else:
            while piece := self.buffer or self.receive(time.monotonic() + idle_s):
                self.buffer = b""
                yield piece
            return
        self.reusable = headers.get("connection", "").lower() != "close"

    def chunks(self, idle_s: float) -> Iterator[bytes]:
        while True:
            size = int(self.line(time.monotonic() + idle_s).partition(b";")[0] or b"0", 16)
            if size == 0:
                while self.line(time.monotonic() + idle_s):
                    pass
                return
            while size > 0:
                piece = self.some(size, idle_s)
                size -= len(piece)
                yield piece
            self.line(time.monotonic() + idle_s)

    def some(self, most: int, idle_s: float) -> bytes:
        """Return at most ``most`` octets, at least one."""
        if not self.buffer:
            self.buffer = self.receive(time.monotonic() + idle_s)
            if not self.buffer:
                raise Failure("connect_error", "same")
        piece, self.buffer = self.buffer[:most], self.buffer[most:]
        return piece


def readable(watched: list[Any], timeout_s: float) -> list[Any]:
    """Return which of the sockets have something to read, or an end, within the time."""
    poll = select.poll()
    for sock in watched:
        poll.register(sock, select.POLLIN)
    ready = {number for number, _ in poll.poll(timeout_s * 1000)}
    return [sock for sock in watched if sock.fileno() in ready]


def gone(client: Any) -> bool:
    """Return whether a readable client has closed rather than sent."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Connections:
    """Idle connections by origin."""

    def __init__(self, *, reuse: bool = True) -> None:
        self.idle: dict[str, list[Connection]] = {}
        self.lock = threading.Lock()
        self.reuse = reuse
        self.places: dict[str, threading.Semaphore] = {}

    def place(self, provider: str, most: int | None) -> AbstractContextManager[Any]:
        """Return one of a provider's places, to be held during a call; a call may wait for it."""
        if most is None:
            return nullcontext()
        with self.lock:
            return self.places.setdefault(provider, threading.Semaphore(most))

    def get(self, url: str, connect_s: float, stop: float) -> Connection:
        """Return a connection to ``url``'s origin, an idle one where there is one."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        while True:
            with self.lock:
                waiting = self.idle.get(origin) or []
                found = waiting.pop() if waiting else None
            if found is None:
                return Connection(url, connect_s, stop)
            if found.alive():
                found.stop = stop
                return found
            found.close()

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer was read to its end, close any other."""
        connection.client = None
        if connection.reusable and self.reuse and not connection.buffer:
            connection.reusable = False
            with self.lock:
                self.idle.setdefault(connection.origin, []).append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close every idle connection."""
        with self.lock:
            for waiting in self.idle.values():
                for connection in waiting:
                    connection.close()
            self.idle.clear()


def whole(connection: Connection, headers: Mapping[str, str], idle_s: float) -> bytes:
    """Return the whole body, unpacked and bounded.

    Raises:
        Failure: it is too long, broken or packed in an unknown way.
    """
    received = bytearray()
    coding = headers.get("content-encoding", "").lower()
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if coding in ("gzip", "deflate") else None
    try:
        for piece in connection.body(headers, idle_s):
            received += unpack.decompress(piece, MOST_BODY) if unpack else piece
            if len(received) > MOST_BODY or (unpack and unpack.unconsumed_tail):
                raise Failure("invalid_response")
    except (ValueError, zlib.error):
        raise Failure("invalid_response") from None
    return bytes(received)
