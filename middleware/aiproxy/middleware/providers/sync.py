"""Providers over HTTP from threads, by urllib3.

urllib3 pools, connects, verifies and frames; the waiting is done in ``wire``.
A name lookup cannot be interrupted: the connect limit does not bound it.
"""

import http.client
import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import urllib3
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import SKIP_HEADER

from ..effects import Answer, Call, Failure, Read
from .bodies import (
    BodyTooLarge,
    BodyUnreadable,
    Inflater,
    field,
    inflater,
    opens_stream,
    without_coding,
)
from .failures import CUT, SHORT, UNSENDABLE, broken, connect_failure, holds, unexpected
from .interrupts import Interrupt
from .link import Link, tls_context
from .progress import UNFINISHED, causes
from .wire import PIECE_BYTES, PROGRESS, Pool, TlsPool, Wire, WireProgress, seconds_left

_log = logging.getLogger(__name__)

_SHARED: Final = Link()
#: Connections kept to one endpoint where its provider names no bound; more are opened, not kept.
_KEPT: Final = 256


class SyncStream(Protocol):
    """An open stream of either transport."""

    def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        """Return the next bytes, ``b""`` at the end, ``None`` for an elapsed soft timeout."""
        ...

    def close(self) -> None:
        """Give the stream up; its connection is closed. A second call does nothing."""
        ...


class SyncAppCaller(Protocol):
    """What performs calls of transport ``app`` for one request."""

    def call(self, call: Call) -> Answer | Failure:
        """Ask the wrapped application once."""
        ...


class SyncTransports:
    """Performs the effects of exchanges; one for each mounted app, shared by its threads.

    Pools are made when they are first used and belong to one process, so a server may fork after
    the application was made.
    """

    def __init__(self, links: Mapping[str, Link] | None = None) -> None:
        self._links = dict(links or {})
        self._pools = _Pools()

    def call(
        self, call: Call, app: SyncAppCaller | None = None, interrupt: Interrupt | None = None
    ) -> Answer | Failure:
        """Ask a provider once; ``app`` performs calls to the wrapped application, ``interrupt`` may
        end the waiting for a provider over HTTP."""
        if call.transport == "app":
            if app is None:
                return Failure("app_error", "no application is wrapped")
            return app.call(call)
        progress = WireProgress(call, time.monotonic(), interrupt)
        outcome = self._attempt(call, progress)
        if isinstance(outcome, Failure) and progress.stale(outcome):
            # The peer closed a connection that had been idle in the pool before it had read the
            # request: for the caller that is one call, so it is sent over a new connection.
            progress.renew()
            outcome = self._attempt(call, progress)
        if interrupt is not None:
            interrupt.watch(None)
        return outcome

    def read(self, read: Read, interrupt: Interrupt | None = None) -> bytes | Failure | None:
        """Return more bytes of an open stream of this or the app transport."""
        stream: Any = read.stream
        outcome: bytes | Failure | None
        if interrupt is None:
            outcome = stream.read(read.timeout_s, read.soft)
            return outcome
        if isinstance(stream, _HttpStream):
            stream.watch(interrupt)
        outcome = stream.read(read.timeout_s, read.soft)
        interrupt.watch(None)
        return outcome

    def close_stream(self, stream: object) -> None:
        """Give a stream up: its connection is closed now, not reused."""
        opened: Any = stream
        opened.close()

    def close(self) -> None:
        """Close every idle connection of this process. Calls afterwards would open new ones."""
        self._pools.close()

    def _attempt(self, call: Call, progress: "WireProgress") -> Answer | Failure:
        token = PROGRESS.set(progress)
        outcome: Answer | Failure = UNFINISHED
        try:
            outcome = self._exchange(call, progress)
        except BodyTooLarge:
            outcome = Failure("too_large", f"the body is above {call.max_body_bytes} bytes")
        except BodyUnreadable as error:
            outcome = Failure("protocol_error", str(error))
        except Exception as error:  # noqa: BLE001 - an outcome, and logged when unexpected
            outcome = _failure(error, progress)
        finally:
            PROGRESS.reset(token)
            if not isinstance(outcome, Answer):
                progress.abort()
        return outcome

    def _exchange(self, call: Call, progress: "WireProgress") -> Answer:
        target = urlsplit(call.target)
        pool = self._pools.pool(self._links.get(call.provider, _SHARED), target.scheme, target)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        response = pool.urlopen(
            call.method,
            path,
            body=call.body or None,
            headers=_headers(call),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
            timeout=seconds_left(progress.due()[0]),
        )
        progress.response = response
        progress.phase = "reading"
        headers = tuple((name.lower(), value) for name, value in response.headers.iteritems())
        declared = field(headers, "content-length")
        if declared and not declared.isdecimal():
            # http.client would read until the connection closes.
            raise BodyUnreadable("the content-length is not a number")
        coding = inflater(headers)
        if coding is not None:
            headers = without_coding(headers)
        if opens_stream(call, response.status, headers):
            stream = _HttpStream(response, progress, coding)
            return Answer(response.status, headers, stream=stream)
        body = _whole(response, headers, call)
        if coding is not None and body:
            body = coding.whole(body, call.max_body_bytes)
        return Answer(response.status, headers, body)


def _headers(call: Call) -> urllib3.HTTPHeaderDict:
    headers = urllib3.HTTPHeaderDict(call.headers)
    headers.setdefault("Accept-Encoding", "identity")
    headers.setdefault("User-Agent", SKIP_HEADER)
    return headers


def _whole(response: urllib3.BaseHTTPResponse, headers: Any, call: Call) -> bytes:
    declared = field(headers, "content-length")
    if declared.isdecimal() and int(declared) > call.max_body_bytes and call.method != "HEAD":
        raise BodyTooLarge
    blocks: list[bytes] = []
    size = 0
    while block := response.read1(PIECE_BYTES):
        blocks.append(block)
        size += len(block)
        if size > call.max_body_bytes:
            raise BodyTooLarge
    return b"".join(blocks)


class _Pools:
    """The connection pools of one process, by TLS identity and bound."""

    def __init__(self) -> None:
        self._process = 0
        self._managers: dict[Link, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def pool(self, link: Link, scheme: str, target: Any) -> HTTPConnectionPool:
        if scheme not in ("http", "https") or not target.hostname:
            raise urllib3.exceptions.LocationValueError("not an http or https URL")
        if self._process != os.getpid():
            self._begin()
        manager = self._managers.get(link)
        if manager is None:
            with self._lock:
                manager = self._managers.get(link)
                if manager is None:
                    manager = self._managers[link] = _manager(link)
        return manager.connection_from_host(target.hostname, target.port, scheme)

    def close(self) -> None:
        managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()

    def _begin(self) -> None:
        # A lock of the parent may have been held by a thread that the fork did not copy.
        self._lock = threading.Lock()
        self._managers = {}
        self._process = os.getpid()


def _manager(link: Link) -> urllib3.PoolManager:
    kept = _KEPT if link.max_connections is None else link.max_connections
    manager = urllib3.PoolManager(
        num_pools=1024, maxsize=kept, block=False, retries=False, ssl_context=tls_context(link.tls)
    )
    manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}
    return manager


class _HttpStream:
    """An open event stream; implements ``SyncStream``."""

    __slots__ = ("_coding", "_outcome", "_progress", "_response")

    def __init__(
        self, response: urllib3.BaseHTTPResponse, progress: "WireProgress", coding: Inflater | None
    ) -> None:
        self._response = response
        self._progress = progress
        self._coding = coding
        self._outcome: bytes | Failure | None = None  # once there is nothing more to read

    def watch(self, interrupt: Interrupt) -> None:
        """Let ``interrupt`` end the next read."""
        wire = self._progress.wire
        if wire is not None and self._outcome is None:
            self._progress.interrupt = interrupt
            interrupt.watch(wire.socket)

    def read_any(self) -> bytes | Failure:
        """Return bytes as they arrive, ``b""`` at the end; waits as long as the call allows."""
        outcome = self.read(None, False)
        assert outcome is not None
        return outcome

    def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        if self._outcome is not None:
            return self._outcome
        if self._coding is None:
            return self._raw(timeout_s, soft)
        return self._decoded(self._coding, timeout_s, soft)

    def close(self) -> None:
        if self._outcome is None:
            self._end(Failure("reset", "the stream was closed here"))

    def _raw(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        total = self._progress.total_at
        idle = None if timeout_s is None else time.monotonic() + timeout_s
        by_idle = idle is not None and (total is None or idle <= total)
        try:
            self._progress.wire_ready(idle if by_idle else total)
            data = self._response.read1(PIECE_BYTES)
        except TimeoutError:
            if by_idle and soft:
                return None
            silent = Failure("idle_timeout", "silence inside the stream")
            return self._end(silent if by_idle else self._progress.timed_out())
        except Exception as error:  # noqa: BLE001 - an outcome, and logged when unexpected
            return self._end(_failure(error, self._progress))
        if not data:
            self._outcome = b""
            self._response.release_conn()
        return data

    def _decoded(
        self, coding: Inflater, timeout_s: float | None, soft: bool
    ) -> bytes | Failure | None:
        try:
            while True:
                data = b"" if coding.pending else self._raw(timeout_s, soft)
                if data is None or isinstance(data, Failure):
                    return data
                if not data and not coding.pending:
                    coding.finish()
                    return data
                if plain := coding.feed(data):
                    return plain
        except BodyUnreadable as error:
            return self._end(Failure("protocol_error", str(error)))

    def _end(self, failure: Failure) -> Failure:
        self._outcome = failure
        self._progress.abort()
        return failure


def _failure(error: BaseException, progress: WireProgress) -> Failure:
    """Name a failure."""
    chain = tuple(causes(error))
    if holds(chain, (TimeoutError, urllib3.exceptions.ReadTimeoutError)):
        return progress.timed_out()
    if holds(chain, (socket.gaierror, urllib3.exceptions.NameResolutionError)):
        return Failure("dns_failure", "the host name does not resolve")
    if holds(chain, urllib3.exceptions.LocationValueError):
        return Failure("protocol_error", "the target is not an http or https URL")
    if progress.phase == "connecting":
        return connect_failure(
            chain,
            tls=urllib3.exceptions.SSLError,
            refused=urllib3.exceptions.NewConnectionError,
        )
    if holds(chain, http.client.LineTooLong):
        return Failure("too_large", "one line of the response is above its bound")
    if holds(chain, (OSError, http.client.RemoteDisconnected)):
        return broken(chain, progress.phase, heard=progress.heard)
    if holds(chain, http.client.IncompleteRead) and progress.wire is not None:
        return _cut(progress.wire, progress)
    if holds(chain, (http.client.HTTPException, urllib3.exceptions.HTTPError)):
        return Failure("protocol_error", "the response is not HTTP/1.1")
    if holds(chain, ValueError) and progress.phase == "waiting":
        return UNSENDABLE
    return unexpected(error, "a provider was called")


def _cut(wire: Wire, progress: WireProgress) -> Failure:
    if not wire.ended:
        return Failure("protocol_error", "the body is not framed as HTTP/1.1")
    declared = progress.response is not None and "content-length" in progress.response.headers
    return SHORT if declared else CUT
