"""The ASGI mount: performs the effects of an exchange, decides nothing.

Untouched requests cost a look at the path and the header names. Websocket scopes pass through; the
lifespan scope passes through too and tells us when to close the connections.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from aiproxy.middleware.driving.forks_asgi import Opened, perform_rare
from aiproxy.middleware.driving.mirrors_asgi import MirrorTasks
from aiproxy.middleware.effects import Call, Close, Flow, Outcome, Read, Reply, Send, Start
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.front import Front, links, lower
from aiproxy.middleware.intake.ingress import Route
from aiproxy.middleware.preferences import REQUEST_NAMES
from aiproxy.middleware.providers.aio import AsyncTransports
from aiproxy.middleware.providers.app_asgi import AppTransport, path_below_root

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Sender: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Sender], Awaitable[None]]

#: A request younger than this is not watched for a client that leaves: most are over by then.
_WATCH_AFTER_S = 0.04


class AIProxyMiddleware:
    """Mounts multi-provider inference around an ASGI application.

    ``config`` is the path of an ``aiproxy.yaml``, a mapping, or a ``Gateway`` made before. The
    wrapped application is the default provider. Raises ``ConfigInvalid`` for a bad configuration.
    """

    def __init__(self, app: App, config: Any = None) -> None:
        self.app = app
        self.gateway = config if isinstance(config, Gateway) else Gateway(config)
        self._front = Front(self.gateway)
        self._everything = self._front.everything
        self._paths = self._front.paths
        self._folders = self._front.folders
        self._transports: AsyncTransports | None = None
        self._mirrors = MirrorTasks()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._lifespan(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        path = scope["path"]
        if scope.get("root_path"):
            path = path_below_root(scope)
        if self._everything:
            await self._route(scope, receive, send, path)
            return
        if scope["method"] == "POST" and (path in self._paths or path.startswith(self._folders)):
            for name, _ in scope["headers"]:
                if name in REQUEST_NAMES:
                    route = self._front.route(path)
                    if route is None:
                        break
                    await self._serve(scope, receive, send, route)
                    return
        await self.app(scope, receive, send)

    async def aclose(self) -> None:
        """Close the connections to providers. Called at lifespan shutdown."""
        transports, self._transports, self._loop = self._transports, None, None
        await self._mirrors.aclose()
        if transports is not None:
            await transports.aclose()
        self.gateway.background.close()
        if self.gateway.budget is not None:
            self.gateway.budget.close()
        self.gateway.conversations.close()

    async def _route(self, scope: Scope, receive: Receive, send: Sender, path: str) -> None:
        front = self._front
        if scope["method"] == "POST":
            route = front.route(path)
            if route is not None:
                await self._serve(scope, receive, send, route)
                return
        reply = front.answer(scope["method"], path, lower(scope["headers"]), _query(scope))
        if reply is None:
            await self.app(scope, receive, send)
        else:
            await _send_reply(reply, send, head_only=scope["method"] == "HEAD")

    async def _serve(self, scope: Scope, receive: Receive, send: Sender, route: Route) -> None:
        headers = lower(scope["headers"])
        front = self._front
        try:
            front.check_head(headers)
            body = await _read_body(receive, front)
        except ProxyError as error:
            await _send_reply(front.refusal(error, headers, route.endpoint), send)
            return
        if body is None:
            return
        exchange = Exchange(self.gateway, front.inbound(route, headers, _query(scope), body))
        await _until_disconnect(self._drive(exchange.run(), scope, send), receive)
        if exchange.mirrored and self._transports is not None:
            self._mirrors.start(exchange.mirrored, self._transports, AppTransport(self.app, scope))

    async def _drive(self, flow: Flow, scope: Scope, send: Sender) -> None:
        transports = self._transports
        if transports is None or self._loop is not asyncio.get_running_loop():
            transports = self._transports = AsyncTransports(links(self.gateway))
            self._loop = asyncio.get_running_loop()
        if not self.gateway.background.begun:
            self.gateway.background.begin()
        app = AppTransport(self.app, scope)
        opened = Opened()
        outcome: Outcome = None
        try:
            effect = next(flow)
            while True:
                kind = type(effect)
                outcome = None
                if kind is Read:
                    outcome = await transports.read(effect)  # type: ignore[arg-type]
                elif kind is Send:
                    await send(
                        {"type": "http.response.body", "body": effect.data, "more_body": True}  # type: ignore[union-attr]
                    )
                elif kind is Call:
                    outcome = answer = await transports.call(effect, app)  # type: ignore[arg-type]
                    if getattr(answer, "stream", None) is not None:
                        opened.add(answer.stream)  # type: ignore[union-attr]
                elif kind is Start:
                    await _send_head(effect.status, effect.headers, send)  # type: ignore[union-attr]
                elif kind is Close:
                    await transports.close_stream(effect.stream)  # type: ignore[union-attr]
                    opened.remove(effect.stream)  # type: ignore[union-attr]
                else:
                    outcome = await perform_rare(effect, transports, app, opened)
                effect = flow.send(outcome)
        except StopIteration as stop:
            reply: Reply | None = stop.value
            if reply is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await _send_reply(reply, send)
        finally:
            flow.close()
            for stream in opened:
                await transports.close_stream(stream)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Sender) -> None:
        answered = False
        self.gateway.background.begin()

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"].startswith("lifespan.shutdown."):
                await self.aclose()
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            if answered:
                raise
            # The application has no lifespan: the server would stop asking, and nobody would
            # tell us when to close. We answer in its place.
            await self._own_lifespan(receive, send)

    async def _own_lifespan(self, receive: Receive, send: Sender) -> None:
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _query(scope: Scope) -> str:
    return str(scope.get("query_string", b""), "latin-1")


async def _read_body(receive: Receive, front: Front) -> bytes | None:
    """The whole request body, or ``None`` when the client left while sending it."""
    try:
        async with asyncio.timeout(front.read_timeout_s):
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body: bytes = message.get("body", b"")
            if not message.get("more_body", False):
                if len(body) > front.limit:
                    raise front.too_large()
                return body
            parts, size = [body], len(body)
            while message.get("more_body", False):
                if size > front.limit:
                    raise front.too_large()
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
    except TimeoutError:
        raise front.too_slow() from None
    if size > front.limit:
        raise front.too_large()
    return b"".join(parts)


async def _until_disconnect(work: Awaitable[None], receive: Receive) -> None:
    """Run ``work``; when the client leaves first, cancel it and return.

    The watcher starts only once the request has taken a while, so short requests pay for a timer
    and nothing else.
    """
    task = asyncio.current_task()
    assert task is not None
    watcher: asyncio.Task[None] | None = None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(watch())

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, begin)
    try:
        await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _send_head(status: int, headers: tuple[tuple[str, str], ...], send: Sender) -> None:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _send_reply(reply: Reply, send: Sender, *, head_only: bool = False) -> None:
    length = ("content-length", str(len(reply.body)))
    await _send_head(reply.status, (*reply.headers, length), send)
    body = b"" if head_only else reply.body
    await send({"type": "http.response.body", "body": body})
