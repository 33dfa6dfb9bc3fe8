"""The one place that knows the HTTP library, and the bounds that keep a hostile target harmless.

Each request has its own connection: reusing one would blame the target for a race that only
keep-alive clients see. Everything runs on one background event loop, because only there does a
deadline hold for the whole exchange and not just for the silence between two reads.
"""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

from aiproxy.conformance.sse import EventReader

T = TypeVar("T")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_S: Final = 5.0
_TICK_S: Final = 0.001  # what arrives closer together counts as one arrival


class Unanswered(Exception):
    """No HTTP answer came. ``kind`` is ``refused``, ``tls``, ``timeout`` or ``dropped``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True, slots=True)
class Answer:
    """A received answer: names in lower case, body decoded from any content coding.

    ``incomplete`` says why the body ends early (deadline, size, broken transfer), else it is empty.
    Times are seconds since the request was sent: ``head_at`` of the answer's head, ``arrivals`` of
    the body, as pairs of a time and how many bytes were there by then. ``left`` means that we
    closed the connection before the end, as asked; a status of 0 then means before any answer.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    incomplete: str = ""
    seconds: float = 0.0
    http_version: str = "HTTP/1.1"
    reason: str = field(default="", compare=False)
    head_at: float = 0.0
    arrivals: tuple[tuple[float, int], ...] = field(default=(), repr=False)
    left: bool = False

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """Yield the body in the pieces it came in, each with its time of arrival."""
        begin = 0
        for at, end in self.arrivals:
            yield at, self.body[begin:end]
            begin = end
        if begin < len(self.body):
            yield self.seconds, self.body[begin:]

    def header(self, name: str) -> str | None:
        """Return the first field ``name`` (lower case), or nothing."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Leaving:
    """When to close the connection early: after so many events with data, or so many seconds."""

    after_events: int | None = None
    after_s: float | None = None


STAYING: Final = Leaving()


class Transport:
    """Sends requests from any thread, each within ``timeout_s`` and ``most_bytes``."""

    def __init__(self, url: str, *, timeout_s: float, most_bytes: int) -> None:
        self._timeout_s, self._most_bytes = timeout_s, most_bytes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="aiproxy-conformance-io", daemon=True
        )
        self._thread.start()
        loopback = (urlsplit(url).hostname or "") in _LOOPBACK
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            verify=url.startswith("https:"),  # always verified; http has nothing to verify
            trust_env=not loopback,  # a proxy of the environment must not answer for localhost
            timeout=httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s)),
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def send(
        self,
        method: str,
        url: str,
        headers: tuple[tuple[str, str], ...],
        content: bytes | None,
        *,
        chunked: bool = False,
        leaving: Leaving = STAYING,
    ) -> Answer:
        """Return the answer to one request, as much of it as came before ``leaving``.

        Raises:
            Unanswered: no response head arrived.
        """
        body: Any = _pieces(content or b"") if chunked else content
        request = self._client.build_request(method, url, headers=list(headers), content=body)
        return self._wait(self._exchange(request, leaving))

    def close(self) -> None:
        """Close the client and its thread; further calls are harmless."""
        if self._loop.is_closed():
            return
        self._wait(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _exchange(self, request: httpx.Request, leaving: Leaving) -> Answer:
        limit_s = min(self._timeout_s, leaving.after_s or self._timeout_s)
        taken = _Taken(self._most_bytes, leaving.after_events, self._loop.time())
        response: httpx.Response | None = None
        incomplete, left, head_at = "", False, 0.0
        try:
            async with asyncio.timeout(limit_s):
                response = await self._client.send(request, stream=True)
                head_at = self._loop.time() - taken.started
                async for piece in response.aiter_raw():
                    if taken.enough(piece, self._loop.time()):
                        left = not taken.fault
                        break
                incomplete = taken.fault
        except (TimeoutError, httpx.TimeoutException) as cut:
            left = limit_s < self._timeout_s
            if response is None and not left:
                raise Unanswered(*_no_answer(cut, self._timeout_s)) from None
            incomplete = "" if left else f"not finished after {self._timeout_s:g} s"
        except httpx.TransportError as broken:
            if response is None:
                raise Unanswered(*_no_answer(broken, self._timeout_s)) from None
            incomplete = f"connection broke: {type(broken).__name__}"
        finally:
            if response is not None:
                await response.aclose()
        seconds = self._loop.time() - taken.started
        if response is None:
            return Answer(0, (), b"", seconds=seconds, left=True)
        coding = response.headers.get("content-encoding", "")
        plain, fault = _decoded(bytes(taken.body), coding, self._most_bytes)
        return Answer(
            response.status_code,
            tuple((key.lower(), value) for key, value in response.headers.multi_items()),
            plain,
            incomplete or fault,
            seconds,
            response.http_version,
            head_at=head_at,
            arrivals=tuple(taken.arrivals) if len(plain) == len(taken.body) else (),
            left=left,
        )


class _Taken:
    """The body received so far."""

    def __init__(self, most_bytes: int, events: int | None, started: float) -> None:
        self.body, self.arrivals, self.fault = bytearray(), list[tuple[float, int]](), ""
        self.started = started
        self._most_bytes, self._events, self._reader = most_bytes, events, EventReader()

    def enough(self, piece: bytes, now: float) -> bool:
        """Take ``piece``; say whether to close the connection now."""
        self.body += piece
        at = now - self.started
        if self.arrivals and at - self.arrivals[-1][0] < _TICK_S:
            self.arrivals[-1] = (self.arrivals[-1][0], len(self.body))
        else:
            self.arrivals.append((at, len(self.body)))
        if len(self.body) > self._most_bytes:
            self.fault = f"more than {self._most_bytes} bytes"
            return True
        if self._events is None:
            return False
        self._events -= sum(1 for _ in self._reader.feed(piece))
        return self._events <= 0


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    half = max(1, len(content) // 2)
    for start in range(0, len(content), half):
        yield content[start : start + half]


def _no_answer(fault: Exception, limit_s: float) -> tuple[str, str]:
    text = str(fault) or type(fault).__name__
    if isinstance(fault, httpx.ConnectTimeout):
        return "refused", "no connection within the connect timeout"
    if isinstance(fault, TimeoutError | httpx.TimeoutException):
        return "timeout", f"no answer within {limit_s:g} s"
    if isinstance(fault, httpx.ConnectError):
        tls = "SSL" in text.upper() or "CERTIFICATE" in text.upper()
        return ("tls", f"TLS failed: {text}") if tls else ("refused", f"connection failed: {text}")
    return "dropped", f"connection dropped without an answer ({text})"


def _decoded(body: bytes, coding: str, most: int) -> tuple[bytes, str]:
    """Return ``body`` without its content coding, never more than ``most`` bytes of it."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body[:most], ""
    if coding not in ("gzip", "x-gzip", "deflate"):
        return b"", f"content-encoding {coding!r} although identity was asked for"
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = unpack.decompress(body, most)
    except zlib.error:
        return b"", f"broken {coding} body"
    return plain, f"more than {most} bytes once unpacked" if unpack.unconsumed_tail else ""
