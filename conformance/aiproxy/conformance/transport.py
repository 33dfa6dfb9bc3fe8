"""The one place that knows the HTTP library, and the bounds that keep a hostile target harmless.

Each request has its own connection: reusing one would blame the target for a race that only
keep-alive clients see. Everything runs on one background event loop, because only there does a
deadline hold for the whole exchange and not just for the silence between two reads.
"""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx

T = TypeVar("T")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_S: Final = 5.0


class Unanswered(Exception):
    """No HTTP answer came. ``kind`` is ``refused``, ``tls``, ``timeout`` or ``dropped``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True, slots=True)
class Answer:
    """A received answer: names in lower case, body decoded from any content coding.

    ``incomplete`` says why the body ends early (deadline, size, broken transfer), else it is empty.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    incomplete: str = ""
    seconds: float = 0.0
    http_version: str = "HTTP/1.1"
    reason: str = field(default="", compare=False)

    def header(self, name: str) -> str | None:
        """Return the first field ``name`` (lower case), or nothing."""
        return next((value for key, value in self.headers if key == name), None)


class Transport:
    """Sends requests, one at a time, each within ``timeout_s`` and ``most_bytes``."""

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
    ) -> Answer:
        """Return the answer to one request.

        Raises:
            Unanswered: no response head arrived.
        """
        return self._wait(self._exchange(method, url, headers, content, chunked))

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

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: tuple[tuple[str, str], ...],
        content: bytes | None,
        chunked: bool,
    ) -> Answer:
        body: Any = _pieces(content or b"") if chunked else content
        started = self._loop.time()
        received, incomplete = bytearray(), ""
        response: httpx.Response | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                request = self._client.build_request(
                    method, url, headers=list(headers), content=body
                )
                response = await self._client.send(request, stream=True)
                async for piece in response.aiter_raw():
                    received += piece
                    if len(received) > self._most_bytes:
                        incomplete = f"more than {self._most_bytes} bytes"
                        break
        except (TimeoutError, httpx.TimeoutException) as cut:
            if response is None:
                raise Unanswered(*_no_answer(cut, self._timeout_s)) from None
            incomplete = f"not finished after {self._timeout_s:g} s"
        except httpx.TransportError as broken:
            if response is None:
                raise Unanswered(*_no_answer(broken, self._timeout_s)) from None
            incomplete = f"connection broke: {type(broken).__name__}"
        finally:
            if response is not None:
                await response.aclose()
        assert response is not None
        plain, fault = _decoded(
            bytes(received), response.headers.get("content-encoding", ""), self._most_bytes
        )
        return Answer(
            response.status_code,
            tuple((key.lower(), value) for key, value in response.headers.multi_items()),
            plain,
            incomplete or fault,
            self._loop.time() - started,
            response.http_version,
        )


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
