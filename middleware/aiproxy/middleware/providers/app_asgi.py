"""The wrapped ASGI application as a provider.

One object for each client request: a call runs the application with that client's scope, under
the method, path, headers and body of the call. The application's answer never reaches the client
by itself.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from ..effects import Answer, Call, Failure, Headers
from .bodies import BodyTooLarge, field, opens_stream
from .progress import UNFINISHED, Progress

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

_log = logging.getLogger(__name__)

#: Bytes of a stream that may wait for the reader before the application has to.
_AHEAD_BYTES: Final = 64 * 1024
#: Extensions that a synthetic connection could not honour.
_NOT_OFFERED: Final = ("http.response.", "websocket.")

#: Applications that still do something (background work) after their answer was complete.
_running: set[asyncio.Task[None]] = set()


class AppTransport:
    """Performs calls of transport ``app`` for one client request; ``scope`` is the client's."""

    def __init__(self, app: App, scope: Scope) -> None:
        self._app = app
        self._scope = scope

    async def call(self, call: Call) -> Answer | Failure:
        """Ask the application once; ``Call.target`` is a path, percent-encoded as on the wire."""
        progress = Progress(call, asyncio.get_running_loop().time())
        progress.phase = "waiting"
        run = _Run(self._app, _scope(self._scope, call), call, progress)
        outcome: Answer | Failure = UNFINISHED
        try:
            outcome = await _answer(run, call, progress)
        finally:
            if not isinstance(outcome, Answer):
                run.stop()
        return outcome


async def _answer(run: "_Run", call: Call, progress: Progress) -> Answer | Failure:
    try:
        async with asyncio.timeout_at(progress.due()[0]) as limit:
            head = await run.head()
            progress.phase = "reading"
            limit.reschedule(progress.due()[0])
            if isinstance(head, Failure):
                return head
            status, headers = head
            if opens_stream(call, status, headers):
                return Answer(status, headers, stream=_AppStream(run, progress))
            body = await _whole(run, call.max_body_bytes)
    except TimeoutError:
        return progress.timed_out()
    except BodyTooLarge:
        return Failure("too_large", f"the body is above {call.max_body_bytes} bytes")
    return body if isinstance(body, Failure) else Answer(status, headers, body)


async def _whole(run: "_Run", limit: int) -> bytes | Failure:
    blocks: list[bytes] = []
    size = 0
    while True:
        data = await run.take()
        if isinstance(data, Failure):
            return data
        if not data:
            return b"".join(blocks)
        blocks.append(data)
        size += len(data)
        if size > limit:
            raise BodyTooLarge


class _AppStream:
    """An event stream of the application; implements ``aio.AsyncStream``."""

    __slots__ = ("_progress", "_run")

    def __init__(self, run: "_Run", progress: Progress) -> None:
        self._run = run
        self._progress = progress

    async def read_any(self) -> bytes | Failure:
        """Return bytes as the application sends them, ``b""`` at the end."""
        outcome = await self.read(None, False)
        assert outcome is not None
        return outcome

    async def read(self, timeout_s: float | None, soft: bool) -> bytes | Failure | None:
        total = self._progress.total_at
        idle = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        by_idle = idle is not None and (total is None or idle <= total)
        try:
            async with asyncio.timeout_at(idle if by_idle else total):
                return await self._run.take()
        except TimeoutError:
            if by_idle and soft:
                return None
            silent = Failure("idle_timeout", "silence inside the stream")
            return self._run.stop(silent if by_idle else self._progress.timed_out())
        except asyncio.CancelledError:
            self._run.stop()
            raise

    async def close(self) -> None:
        self._run.stop()


class _Run:
    """One run of the application: its task, what it sent, and what it may still receive."""

    def __init__(self, app: App, scope: Scope, call: Call, progress: Progress) -> None:
        self._body: bytes | None = call.body
        self._sent: deque[bytes] = deque()
        self._size = 0
        self._head: tuple[int, Headers] | None = None
        self._complete = False
        self._failure: Failure | None = None
        self._news = asyncio.Event()  # something for the reader
        self._room = asyncio.Event()  # something for the sender
        self._over = asyncio.Event()  # the exchange with the application has ended
        self._task = asyncio.create_task(self._perform(app, scope))
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def head(self) -> tuple[int, Headers] | Failure:
        """Return status and headers once the application sent them."""
        while True:
            self._news.clear()
            if self._head is not None:
                return self._head
            if self._failure is not None:
                return self._failure
            await self._news.wait()

    async def take(self) -> bytes | Failure:
        """Return what has been sent, waiting for some; ``b""`` at the end."""
        while True:
            self._news.clear()
            if self._sent:
                data = self._sent.popleft() if len(self._sent) == 1 else b"".join(self._sent)
                self._sent.clear()
                self._size = 0
                self._room.set()
                return data
            if self._failure is not None:
                return self._failure
            if self._complete:
                return b""
            await self._news.wait()

    def stop(self, failure: Failure | None = None) -> Failure:
        """Cancel the application unless its answer is complete; later reads fail."""
        found = self._failure or failure or Failure("reset", "the stream was closed here")
        if not self._complete:
            self._failure = found
            self._sent.clear()
            self._over.set()
            self._task.cancel()
        return found

    async def _perform(self, app: App, scope: Scope) -> None:
        failure = Failure("app_error", "the application ended without a complete answer")
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the wrapped application's own
            _log.exception("the wrapped application raised")
            failure = Failure("app_error", type(error).__name__)
        finally:
            if not self._complete and self._failure is None:
                self._failure = failure
            self._over.set()
            self._news.set()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._complete or self._failure is not None:
            return  # a server, too, ignores what comes after the end
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("http.response.start was sent twice")
            self._head = (message["status"], _text(message.get("headers", ())))
            self._news.set()
        elif message["type"] == "http.response.body":
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} was sent, expected http.response.body")

    async def _send_body(self, data: bytes, more: bool) -> None:
        if self._head is None:
            raise RuntimeError("http.response.body was sent before http.response.start")
        if data:
            self._sent.append(bytes(data))
            self._size += len(data)
        if not more:
            self._complete = True
            self._over.set()
        self._news.set()
        while more and self._size > _AHEAD_BYTES and self._failure is None:
            self._room.clear()
            await self._room.wait()


def path_below_root(scope: Scope) -> str:
    """The path as an application sees it that is mounted below ``root_path`` (XAI-ARCH-014).

    Servers and frameworks of today leave the root in ``path``, older ones take it out.
    """
    root: str = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def _scope(client: Scope, call: Call) -> Scope:
    """Return the client's scope under the call's method, path and headers."""
    scope = dict(client)
    # the call's target stands below the same root as the client's path
    root = client["path"].removesuffix(path_below_root(client)) if client.get("root_path") else ""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in call.headers
    ]
    if not field(call.headers, "content-length"):
        headers.append((b"content-length", b"%d" % len(call.body)))
    offered = client.get("extensions") or {}
    return scope | {
        "type": "http",
        "http_version": "1.1",
        "method": call.method,
        "path": root + unquote(call.target),
        "raw_path": quote(root).encode("ascii") + call.target.encode("ascii", "replace"),
        "query_string": b"",
        "headers": headers,
        "extensions": {
            name: value for name, value in offered.items() if not name.startswith(_NOT_OFFERED)
        },
    }


def _text(headers: Any) -> Headers:
    return tuple(
        (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
        for name, value in headers
    )
