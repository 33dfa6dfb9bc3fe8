"""The WSGI mount: performs the effects of an exchange, decides nothing.

A streamed reply is a generator that the server iterates; when the client leaves, the server closes
it and the provider's connection with it. Servers notice that at their next write.
"""

import atexit
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, TypeAlias

from aiproxy.middleware.driving.forks_wsgi import perform
from aiproxy.middleware.driving.mirrors_wsgi import MirrorThreads
from aiproxy.middleware.effects import Effect, Flow, Outcome, Reply, Send, Start
from aiproxy.middleware.effects import Headers as HeaderPairs
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.front import Front, links
from aiproxy.middleware.intake.ingress import Route
from aiproxy.middleware.preferences import REQUEST_FIELDS
from aiproxy.middleware.providers.app_wsgi import WsgiAppTransport
from aiproxy.middleware.providers.sync import SyncTransports

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Any]
App: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_NAMES = frozenset("HTTP_" + name.upper().replace("-", "_") for name in REQUEST_FIELDS)


class AIProxyWSGIMiddleware:
    """Mounts multi-provider inference around a WSGI application; see ``AIProxyMiddleware``.

    Safe under threads and under servers that fork after loading the application.
    """

    def __init__(self, app: App, config: Any = None) -> None:
        self.app = app
        self.gateway = config if isinstance(config, Gateway) else Gateway(config)
        self._front = Front(self.gateway)
        self._everything = self._front.everything
        self._paths = self._front.paths
        self._folders = self._front.folders
        self._transports = SyncTransports(links(self.gateway))
        self._mirrors = MirrorThreads()
        atexit.register(self.close)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        method = environ["REQUEST_METHOD"]
        if self._everything:
            return self._route(environ, start_response, method, path)
        if (
            method == "POST"
            and (path in self._paths or path.startswith(self._folders))
            and not _NAMES.isdisjoint(environ)
        ):
            route = self._front.route(_text(path))
            if route is not None:
                return self._serve(environ, start_response, route)
        return self.app(environ, start_response)

    def close(self) -> None:
        """Close the idle connections to providers. Also done when the process exits."""
        self._mirrors.close()
        self._transports.close()
        self.gateway.background.close()
        if self.gateway.budget is not None:
            self.gateway.budget.close()
        self.gateway.conversations.close()

    def _route(
        self, environ: Environ, start_response: StartResponse, method: str, path: str
    ) -> Iterable[bytes]:
        path = _text(path)
        if method == "POST":
            route = self._front.route(path)
            if route is not None:
                return self._serve(environ, start_response, route)
        reply = self._front.answer(method, path, _headers(environ), _query(environ))
        if reply is None:
            return self.app(environ, start_response)
        return _reply(reply, start_response, head_only=method == "HEAD")

    def _serve(
        self, environ: Environ, start_response: StartResponse, route: Route
    ) -> Iterable[bytes]:
        headers = _headers(environ)
        front = self._front
        try:
            front.check_head(headers)
            body = _read_body(environ, front)
        except ProxyError as error:
            return _reply(front.refusal(error, headers, route.endpoint), start_response)
        inbound = front.inbound(route, headers, _query(environ), body)
        if not self.gateway.background.begun:
            self.gateway.background.begin()
        exchange = Exchange(self.gateway, inbound)
        app = WsgiAppTransport(self.app, environ)
        drive = _Drive(exchange.run(), self._transports, app)
        if self.gateway.mirrors is not None:
            drive.after = lambda: self._mirrors.start(exchange.mirrored, self._transports, app)
        first = drive.until_output()
        if isinstance(first, Reply):
            return _reply(first, start_response)
        start_response(_status(first.status), list(first.headers))
        return drive


class _Drive:
    """One exchange under WSGI: an iterable of the streamed bytes once ``Start`` was reached."""

    def __init__(self, flow: Flow, transports: SyncTransports, app: WsgiAppTransport) -> None:
        self._flow = flow
        self._transports = transports
        self._app = app
        self._opened: list[object] = []
        self._over = False
        #: called once the client has all it gets
        self.after: Callable[[], None] | None = None

    def until_output(self) -> Reply | Start:
        """Run to the first thing the client gets: a whole reply, or the head of a stream."""
        try:
            effect = self._step(next(self._flow))
            while not isinstance(effect, Start):
                effect = self._step(effect)
        except StopIteration as stop:
            self.close()
            reply: Reply = stop.value
            return reply
        except BaseException:
            self.close()
            raise
        return effect

    def _step(self, effect: Effect) -> Effect:
        """Perform one effect and return the next; ``Start`` and ``Send`` are the caller's."""
        if isinstance(effect, Start | Send):
            return effect
        return self._flow.send(self._perform(effect))

    def _perform(self, effect: Effect) -> Outcome:
        return perform(effect, self._transports, self._app, self._opened)

    def __iter__(self) -> Iterator[bytes]:
        try:
            effect = self._flow.send(None)  # past Start
            while True:
                if isinstance(effect, Send):
                    if effect.data:
                        yield effect.data
                    effect = self._flow.send(None)
                else:
                    effect = self._flow.send(self._perform(effect))
        except StopIteration:
            return
        finally:
            self.close()

    def close(self) -> None:
        """Called by the server when the response is over or the client is gone."""
        if self._over:
            return
        self._over = True
        self._flow.close()
        for stream in self._opened:
            self._transports.close_stream(stream)
        if self.after is not None:
            self.after()


def _text(path: str) -> str:
    """A path as the ASGI mount has it: WSGI gives its UTF-8 bytes as Latin-1 characters."""
    if path.isascii():
        return path
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _query(environ: Environ) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return query


def _headers(environ: Environ) -> HeaderPairs:
    found = [
        (name[5:].replace("_", "-").lower(), value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            found.append((name.replace("_", "-").lower(), environ[name]))
    return tuple(found)


def _read_body(environ: Environ, front: Front) -> bytes:
    stream = environ["wsgi.input"]
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared.isdecimal():
        return bytes(stream.read(int(declared)))
    if not environ.get("wsgi.input_terminated"):
        return b""
    parts: list[bytes] = []
    left = front.limit + 1
    while left > 0 and (part := stream.read(left)):  # servers may give less than was asked for
        parts.append(part)
        left -= len(part)
    if left == 0:
        raise front.too_large()
    return b"".join(parts)


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return f"{code} Status"


def _reply(
    reply: Reply, start_response: StartResponse, *, head_only: bool = False
) -> Iterable[bytes]:
    headers = [*reply.headers, ("content-length", str(len(reply.body)))]
    start_response(_status(reply.status), headers)
    return [b""] if head_only else [reply.body]
