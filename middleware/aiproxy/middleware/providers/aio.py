"""Providers over HTTP from an event loop, by aiohttp.

Lives on one loop. Nothing but ``CancelledError`` leaves ``call`` and ``read``; a cancelled call
or read closes its connection at once.
"""

import asyncio
import functools
import logging
import select
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
from aiohttp import http_exceptions, payload
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from ..effects import Answer, Call, Failure, Read
from .bodies import (
    BodyTooLarge,
    BodyUnreadable,
    Inflater,
    inflater,
    opens_stream,
    without_coding,
)
from .failures import CUT, SHORT, UNSENDABLE, Chain, broken, connect_failure, holds, unexpected
from .link import Link, tls_context
from .progress import UNFINISHED, Phase, Progress, causes
from .unread import surely_unread

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_log = logging.getLogger(__name__)

#: Longer than most pauses between requests, shorter than the 60 s at which load balancers hang up.
_KEEPALIVE_S: Final = 55.0
#: As http.client allows, so that both transports refuse the same heads.
_LINE_BYTES: Final = 65536
#: aiohttp warns above this, because writing so much at once holds the loop for its memcpy.
_PLAIN_BODY_BYTES: Final = 1 << 20
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None, connect=None, sock_connect=None, sock_read=None
)
#: Idle for less than this, a connection is reused without asking the kernel about it.
_POLLED_S: Final = 0.02
#: Timers of uvloop are that exact.
_TICK_S: Final = 0.001
#: aiohttp would add these; a call's headers are complete.
_NOT_ADDED: Final = ("User-Agent", "Accept", "Content-Type")


class AsyncStream(Protocol):
    """An open stream of either transport."""

    async def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        """Return the next bytes, ``b""`` at the end, ``None`` for an elapsed soft timeout."""
        ...

    async def close(self) -> None:
        """Give the stream up; its connection is closed. A second call does nothing."""
        ...


class AsyncAppCaller(Protocol):
    """What performs calls of transport ``app`` for one request."""

    async def call(self, call: Call) -> Answer | Failure:
        """Ask the wrapped application once."""
        ...


class AsyncTransports:
    """Performs the effects of exchanges on one event loop; make one for each mounted app and loop.

    Providers without a ``Link`` share one unbounded pool; each one with a link has its own.
    """

    def __init__(
        self, links: Mapping[str, Link] | None = None, *, keepalive_s: float = _KEEPALIVE_S
    ) -> None:
        self._links = dict(links or {})
        self._keepalive_s = keepalive_s
        self._sessions: dict[Link, aiohttp.ClientSession] = {}

    async def call(self, call: Call, app: AsyncAppCaller | None = None) -> Answer | Failure:
        """Ask a provider once; ``app`` performs calls to the wrapped application."""
        if call.transport == "app":
            if app is None:
                return Failure("app_error", "no application is wrapped")
            return await app.call(call)
        progress = _Progress(call, asyncio.get_running_loop().time())
        outcome = await self._attempt(call, progress)
        if isinstance(outcome, Failure) and progress.stale(outcome):
            # The peer closed a connection that had been idle in the pool before it had read the
            # request: for the caller that is one call, so it is sent over a new connection.
            progress.renew()
            outcome = await self._attempt(call, progress)
        return outcome

    async def read(self, read: Read) -> bytes | Failure | None:
        """Return more bytes of an open stream of this or the app transport."""
        stream: Any = read.stream
        outcome: bytes | Failure | None = await stream.read(read.timeout_s, read.soft)
        return outcome

    async def close_stream(self, stream: object) -> None:
        """Give a stream up: its connection is closed now, not reused."""
        opened: Any = stream
        await opened.close()

    async def aclose(self) -> None:
        """Close every connection. Calls afterwards would open new ones."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def _attempt(self, call: Call, progress: "_Progress") -> Answer | Failure:
        limit: asyncio.Timeout | None = None
        outcome: Answer | Failure = UNFINISHED
        token = _PROGRESS.set(progress)
        try:
            # Armed when there is something to wait for: a call over a pooled connection whose
            # answer comes in one piece sets one timer, not three.
            async with asyncio.timeout_at(None) as limit:
                progress.limit = limit
                outcome = await self._exchange(call, progress)
        except TimeoutError as error:
            elapsed = limit is not None and limit.expired()
            outcome = progress.timed_out() if elapsed else _failure(error, progress)
        except BodyTooLarge:
            outcome = Failure("too_large", f"the body is above {call.max_body_bytes} bytes")
        except BodyUnreadable as error:
            outcome = Failure("protocol_error", str(error))
        except Exception as error:  # noqa: BLE001 - an outcome, and logged when unexpected
            outcome = _failure(error, progress)
        finally:
            _PROGRESS.reset(token)
            if not isinstance(outcome, Answer):
                progress.abort()
        return outcome

    async def _exchange(self, call: Call, progress: "_Progress") -> Answer:
        link = self._links.get(call.provider, _SHARED)
        response = await self._session(link).request(
            call.method,
            URL(call.target, encoded=True),
            data=_body(call.body),
            headers=call.headers,
            allow_redirects=False,
        )
        progress.response = response
        progress.enter("reading", wait=not response.content.is_eof())
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in response.raw_headers
        )
        coding = inflater(headers)
        if coding is not None:
            headers = without_coding(headers)
        if opens_stream(call, response.status, headers):
            stream = _HttpStream(response, progress, coding)
            return Answer(response.status, headers, stream=stream)
        body = await _whole(response, call.max_body_bytes)
        progress.answered()
        if coding is not None and body:
            body = coding.whole(body, call.max_body_bytes)
        return Answer(response.status, headers, body)

    def _session(self, link: Link) -> aiohttp.ClientSession:
        session = self._sessions.get(link)
        if session is None:
            session = self._sessions[link] = _open(link, self._keepalive_s)
        return session


_SHARED: Final = Link()


def _open(link: Link, keepalive_s: float) -> aiohttp.ClientSession:
    connector = _Connector(
        limit=0,
        limit_per_host=link.max_connections or 0,
        keepalive_timeout=keepalive_s,
        ssl=tls_context(link.tls),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=_NO_TIMEOUT,
        headers={"Accept-Encoding": "identity"},
        skip_auto_headers=_NOT_ADDED,
        max_line_size=_LINE_BYTES,
        max_field_size=_LINE_BYTES,
    )
    # aiohttp repeats an idempotent request on any broken connection, new ones included; an
    # attempt is ours to count.
    session._retry_connection = False
    return session


def _body(body: bytes) -> "bytes | _Body | None":
    if len(body) > _PLAIN_BODY_BYTES:
        return _Body(body)
    return body or None


class _Body(payload.BytesPayload):
    """A large body in one piece, which aiohttp would warn about."""

    def __init__(self, value: bytes) -> None:
        payload.Payload.__init__(self, value, content_type="application/octet-stream")
        self._size = len(value)


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    declared = response.content_length
    if declared is not None and declared > limit and response.method != "HEAD":
        raise BodyTooLarge
    content = response.content
    body = await content.readany()
    if content.at_eof() and len(body) <= limit:
        return body
    blocks, size = [body], len(body)
    while body and size <= limit:
        body = await content.readany()
        blocks.append(body)
        size += len(body)
    if size > limit:
        raise BodyTooLarge
    return b"".join(blocks)


class _HttpStream:
    """An open event stream; implements ``AsyncStream``."""

    __slots__ = ("_coding", "_content", "_outcome", "_patience", "_progress", "_response")

    def __init__(
        self, response: aiohttp.ClientResponse, progress: "_Progress", coding: Inflater | None
    ) -> None:
        self._response = response
        self._content = response.content
        self._progress = progress
        self._coding = coding
        self._patience = _Patience()
        self._outcome: bytes | Failure | None = None  # once there is nothing more to read

    async def read_any(self) -> bytes | Failure:
        """Return bytes as they arrive, ``b""`` at the end; waits as long as the call allows."""
        outcome = await self.read(None, False)
        assert outcome is not None
        return outcome

    async def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        if self._outcome is not None:
            return self._outcome
        if self._coding is None:
            return await self._raw(timeout_s, soft)
        return await self._decoded(self._coding, timeout_s, soft)

    async def close(self) -> None:
        if self._outcome is None:
            self._end(Failure("reset", "the stream was closed here"))

    async def _raw(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        until, idle = self._until(timeout_s)
        patience = self._patience
        patience.begin(until)
        try:
            # Cancelling readany loses nothing: it takes bytes only when it no longer waits.
            data = await self._content.readany()
        except asyncio.CancelledError:
            if not patience.ran_out():
                self._end(Failure("reset", "the read was cancelled"))
                raise
            if soft and idle:
                return None
            silent = Failure("idle_timeout", "silence inside the stream")
            return self._end(silent if idle else self._progress.timed_out())
        except Exception as error:  # noqa: BLE001 - an outcome, and logged when unexpected
            return self._broken(error)
        finally:
            patience.pause()
        if not data:
            self._outcome = b""
            self._patience.stop()
            self._response.release()
            self._progress.answered()
        return data

    async def _decoded(
        self, coding: Inflater, timeout_s: float | None, soft: bool
    ) -> bytes | Failure | None:
        try:
            while True:
                data = b"" if coding.pending else await self._raw(timeout_s, soft)
                if data is None or isinstance(data, Failure):
                    return data
                if not data and not coding.pending:
                    coding.finish()
                    return data
                if plain := coding.feed(data):
                    return plain
        except BodyUnreadable as error:
            return self._end(Failure("protocol_error", str(error)))

    def _until(self, timeout_s: float | None) -> tuple[float | None, bool]:
        """Return when to stop waiting, and whether that is the idle limit (else the total)."""
        total = self._progress.total_at
        if timeout_s is None:
            return total, False
        idle = asyncio.get_running_loop().time() + timeout_s
        return (idle, True) if total is None or idle <= total else (total, False)

    def _broken(self, error: Exception) -> bytes | Failure:
        """Return what had arrived before the connection broke, and the failure after that."""
        left = b"".join(self._content._buffer)
        failure = self._end(_failure(error, self._progress))
        return left or failure

    def _end(self, failure: Failure) -> Failure:
        self._outcome = failure
        self._patience.stop()
        self._progress.abort()
        return failure


class _Patience:
    """Cancels a wait that lasts too long, as ``asyncio.timeout`` does, for many waits in a row.

    A stream reads every few milliseconds and allows a minute each time: its timer is left as it is
    and looks at the time that counts when it rings, instead of being set anew for every read.
    """

    __slots__ = ("_cancels", "_expired", "_loop", "_rings_at", "_task", "_timer", "_until")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = inf
        self._task: asyncio.Task[Any] | None = None
        self._until = inf
        self._cancels = 0
        self._expired = False

    def begin(self, until: float | None) -> None:
        """The running task waits from now on, at most until the loop's time ``until``."""
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancels = task.cancelling()
        self._expired = False
        self._until = inf if until is None else until
        if self._until < self._rings_at:
            self.stop()
            self._set()

    def pause(self) -> None:
        """The wait is over; the timer stays for the next one."""
        self._task = None

    def stop(self) -> None:
        """There are no more waits."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._rings_at = inf

    def ran_out(self) -> bool:
        """Whether the wait was cancelled by this, and by nobody else."""
        task = self._task
        return self._expired and task is not None and task.uncancel() <= self._cancels

    def _set(self) -> None:
        self._rings_at = self._until
        self._timer = self._loop.call_at(self._until, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._rings_at = inf
        task, until = self._task, self._until
        if task is None or until == inf:
            return
        if self._loop.time() < until - _TICK_S:
            self._set()
            return
        self._expired = True
        task.cancel()


class _Handler(ResponseHandler):
    """aiohttp's protocol, which also knows whether it served before and whether the peer spoke."""

    served = False
    heard = False
    garbled = False
    unread = False
    lost: BaseException | None = None
    answered_at = 0.0

    def data_received(self, data: bytes) -> None:
        if data:
            self.heard = True
        super().data_received(data)

    def set_exception(self, exc: BaseException, exc_cause: Any = None) -> None:
        if isinstance(exc, aiohttp.http.HttpProcessingError):
            self.garbled = True
            body = self._payload
            if body is not None and not body.is_eof():
                # aiohttp forgets to tell whoever reads the body, who would wait for ever.
                body.set_exception(aiohttp.ClientPayloadError("bad framing"), exc)
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)

    def eof_received(self) -> None:
        transport = self.transport
        if self.served and not self.heard and transport is not None:
            self.unread = surely_unread(transport.get_extra_info("socket"))
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)

    def spoke(self) -> bool:
        """Tell whether the peer said something, or hung up, since the last answer was complete."""
        transport = self.transport
        if transport is None or self.should_close:
            return True
        loop = asyncio.get_running_loop()
        if loop.time() - self.answered_at < _POLLED_S:
            return False
        # A loop that was held up has not read yet what came meanwhile.
        idle = select.poll()
        idle.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(idle.poll(0))


class _Progress(Progress):
    """Progress of an aiohttp call, with the connection it runs over."""

    __slots__ = ("fresh", "handler", "limit", "response", "reused", "transport")

    def __init__(self, call: Call, now: float) -> None:
        super().__init__(call, now)
        self.limit: asyncio.Timeout | None = None
        self.handler: _Handler | None = None
        self.transport: asyncio.Transport | None = None
        self.response: aiohttp.ClientResponse | None = None
        self.reused = False
        self.fresh = False

    def enter(self, phase: Phase, *, wait: bool = True) -> None:
        """Go on to a phase; with ``wait``, hold it to its limits."""
        self.phase = phase
        if wait and self.limit is not None:
            self.limit.reschedule(self.due()[0])

    def connected(self, handler: _Handler, *, reused: bool) -> None:
        self.handler = handler
        self.transport = handler.transport
        self.reused = reused
        self.enter("waiting")

    @property
    def heard(self) -> bool:
        return self.handler is not None and self.handler.heard

    def answered(self) -> None:
        """Note that the answer is complete and the connection idle."""
        if self.handler is not None:
            self.handler.answered_at = asyncio.get_running_loop().time()

    def stale(self, failure: Failure) -> bool:
        """Tell whether a pooled connection turned out to be closed before the peer had read all
        of the request."""
        return (
            self.reused
            and self.phase == "waiting"
            and not self.heard
            and self.handler is not None
            and self.handler.unread
            and failure.kind in ("connect_refused", "tls_failure")
        )

    def renew(self) -> None:
        """Start over on a connection of its own; the limits keep running."""
        self.phase = "connecting"
        self.handler = self.transport = None
        self.reused = False
        self.fresh = True

    def abort(self) -> None:
        """Close the connection now; neither unsent bytes nor a TLS farewell are waited for."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        if self.response is not None:
            self.response.close()


_PROGRESS: ContextVar[_Progress] = ContextVar("_PROGRESS")


class _Connector(aiohttp.TCPConnector):
    """Tells the running call when it is connected, and never reuses a tainted connection."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = functools.partial(_Handler, loop=self._loop)
        self._factory = factory

    async def connect(
        self, req: "ClientRequest", traces: "list[Trace]", timeout: "ClientTimeout"
    ) -> "Connection":
        progress = _PROGRESS.get()
        if progress.fresh:
            self._drop_idle(req.connection_key)
        while True:
            if req.connection_key not in self._conns:
                progress.enter("connecting")
            connection = await super().connect(req, traces, timeout)
            handler = connection.protocol
            assert isinstance(handler, _Handler)
            # Bytes that came while the connection was idle answer no request of ours: aiohttp
            # would take a whole response among them for the answer to this call.
            if not (handler.served and handler.spoke()):
                break
            connection.close()
        handler.heard = False
        progress.connected(handler, reused=handler.served)
        handler.served = True
        return connection

    def _drop_idle(self, key: "ConnectionKey") -> None:
        """Close the idle connections to a peer that was just seen to drop one."""
        for handler, _ in self._conns.pop(key, ()):
            handler.close()


_CUT: Final = (http_exceptions.ContentLengthError, http_exceptions.TransferEncodingError)


def _failure(error: BaseException, progress: _Progress) -> Failure:
    """Name a failure."""
    chain = tuple(causes(error))
    if holds(chain, (socket.gaierror, aiohttp.ClientConnectorDNSError)):
        return Failure("dns_failure", "the host name does not resolve")
    if holds(chain, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return Failure("protocol_error", "the target is not an http or https URL")
    if progress.phase == "connecting":
        late = (TimeoutError, ConnectionAbortedError)
        return connect_failure(chain, unverified=aiohttp.ServerFingerprintMismatch, late=late)
    if holds(chain, http_exceptions.LineTooLong):
        return Failure("too_large", "one line of the response is above its bound")
    if progress.handler is not None and progress.handler.garbled:
        return Failure("protocol_error", "the response is not HTTP/1.1")
    if holds(chain, _CUT):
        return _cut(chain, progress)
    if holds(chain, (aiohttp.http.HttpProcessingError, aiohttp.ClientResponseError)):
        return Failure("protocol_error", "the response is not HTTP/1.1")
    if holds(chain, (OSError, aiohttp.ClientConnectionError)):
        return broken(chain, progress.phase, heard=progress.heard)
    if holds(chain, ValueError) and progress.phase == "waiting":
        return UNSENDABLE
    return unexpected(error, "a provider was called")


def _cut(chain: Chain, progress: _Progress) -> Failure:
    lost = progress.handler.lost if progress.handler is not None else None
    return SHORT if lost is None and holds(chain, http_exceptions.ContentLengthError) else CUT
