"""Both mounts on real sockets, with a client that shows exactly what came over the wire.

One server a mount kind runs for the whole session; ``Server.show`` puts the application of a test
behind it, so that a test costs a configuration and no server start.
"""

import asyncio
import json
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import pytest
from upstreams import Script, Upstream, free_port, serve_asgi
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware
from aiproxy.middleware.gateway import Gateway
from aiproxy.spec import checker, validate

Pairs = Sequence[tuple[str, str]] | Mapping[str, str]

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
HELLO = [{"role": "user", "content": "Hello"}]
#: US dollars per 1000 tokens.
CHEAP, DEAR = 0.001, 0.010
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


@dataclass(frozen=True)
class Got:
    """One response. ``headers`` keep order and repetition, names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, f"{name} came {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def provider(self) -> str | None:
        return self.header("x-ai-provider-used")

    @property
    def selection(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.header("x-ai-auto-selection") or "null")
        return found

    @property
    def decisions(self) -> dict[str, Any] | None:
        raw = self.header("x-ai-auto-decisions")
        return None if raw is None else json.loads(raw)

    @property
    def rejected(self) -> dict[str, str]:
        """Provider -> reason, of Auto-Selection."""
        rows = self.selection.get("alternatives_rejected", [])
        return {row["provider"]: row["reason"] for row in rows}

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events; ``[DONE]`` stays text."""
        found = []
        for line in self.body.decode().splitlines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


@dataclass
class Client:
    """Talks to one server on 127.0.0.1."""

    port: int

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Pairs = (),
        *,
        chunked: bool = False,
    ) -> Got:
        """A request; a body that is not bytes is sent as JSON, ``chunked`` in two chunks."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            if not any(name.lower() == "content-type" for name, _ in pairs):
                pairs.append(("content-type", "application/json"))
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in pairs:
                connection.putheader(name, value)
            if body is not None and chunked:
                connection.putheader("transfer-encoding", "chunked")
            elif body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders()
            if body is not None:
                connection.send(_chunks(body) if chunked else body)
            reply = connection.getresponse()
            return Got(
                reply.status,
                [(name.lower(), value) for name, value in reply.getheaders()],
                reply.read(),
            )
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: Pairs = (), **options: Any) -> Got:
        return self.request("POST", path, body, headers, **options)

    def get(self, path: str, headers: Pairs = ()) -> Got:
        return self.request("GET", path, None, headers)

    def chat(self, headers: Pairs = (), *, path: str = CHAT, **members: Any) -> Got:
        """An ``auto`` chat request, changed by ``members``; ``None`` leaves one out."""
        body = {"model": "auto", "messages": HELLO, **members}
        return self.post(path, {k: v for k, v in body.items() if v is not None}, headers)

    def raw(self, request: bytes) -> bytes:
        """Send octets as they are and return all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as plug:
            plug.sendall(request)
            received = []
            try:
                while data := plug.recv(65536):
                    received.append(data)
            except ConnectionResetError:
                pass
            return b"".join(received)

    def lines(
        self, lines: Iterable[bytes], body: Any = None, *, path: str = CHAT
    ) -> tuple[int, bytes]:
        """POST with header lines as given; returns the status (0 without one) and the octets."""
        if body is None:
            body = {"model": "auto", "messages": HELLO}
        payload = json.dumps(body).encode()
        head = [
            f"POST {path} HTTP/1.1".encode(),
            b"Host: 127.0.0.1",
            b"Connection: close",
            b"Content-Type: application/json",
            b"Content-Length: %d" % len(payload),
            *lines,
        ]
        answer = self.raw(b"\r\n".join(head) + b"\r\n\r\n" + payload)
        status = answer.split(b" ", 2)[1:2]
        return (int(status[0]) if status and status[0].isdigit() else 0), answer


def _chunks(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [part for part in (body[:half], body[half:]) if part]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@dataclass
class Mount(Client):
    """A mounted middleware. ``host`` is the wrapped application's log: (method, path, body).

    Every answer is held to what is promised of all answers (``check_answer``).
    """

    kind: str
    middleware: Any
    host: list[tuple[str, str, bytes]] = field(default_factory=list)

    def request(self, *args: Any, **options: Any) -> Got:
        got = super().request(*args, **options)
        check_answer(got)
        return got

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.middleware.gateway
        return gateway

    def record(self, got: Got) -> dict[str, Any]:
        """The decision record of an answer."""
        found = self.gateway.decisions.get(got.header("x-request-id") or "", None)
        assert found is not None, "no decision was recorded for this answer"
        return found.record()


class AsgiServer:
    """uvicorn in a thread, serving whatever application is shown."""

    kind = "asgi"

    def __init__(self) -> None:
        self.app: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.port = free_port()
        self._server, self._thread = serve_asgi(self._serve, self.port)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        await self.app(scope, receive, send)

    def wrap(self, config: Any, log: list[tuple[str, str, bytes]]) -> Any:
        return AIProxyMiddleware(asgi_host(log), config)

    def leave(self, app: Any) -> None:
        if isinstance(app, AIProxyMiddleware) and self.loop is not None:
            asyncio.run_coroutine_threadsafe(app.aclose(), self.loop).result(10)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing: a test's failure says what matters."""


class WsgiServer:
    """werkzeug's threaded server, serving whatever application is shown."""

    kind = "wsgi"

    def __init__(self) -> None:
        self.app: Any = None
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _serve(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)

    def wrap(self, config: Any, log: list[tuple[str, str, bytes]]) -> Any:
        return AIProxyWSGIMiddleware(wsgi_host(log), config)

    def leave(self, app: Any) -> None:
        if isinstance(app, AIProxyWSGIMiddleware):
            app.close()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@contextmanager
def mounted(server: Any, config: Any, *, app: Any = None) -> Iterator[Mount]:
    """Show a middleware of ``config`` around the host application, or ``app`` as it is."""
    log: list[tuple[str, str, bytes]] = []
    shown = app if app is not None else server.wrap(config, log)
    server.app = shown
    try:
        yield Mount(server.port, server.kind, shown, log)
        gateway = getattr(shown, "gateway", None)
        for decision in list(gateway.decisions._rows.values()) if gateway else ():
            hold(decision.record(), "decision")
    finally:
        server.leave(shown)


_SHAPES = {
    "x-ai-auto-selection": "auto-selection-emitted",
    "x-ai-auto-decisions": "auto-decisions-emitted",
    "x-ai-tool-mapping": "tool-mapping",
    "x-ai-alternatives-considered": "alternatives",
}
EACH, TOGETHER = 2048, 3072


def hold(document: Any, name: str) -> None:
    """The document is valid against a schema; the slow validator only says why not."""
    if not checker(name).ok(document):
        validate(document, name)
        raise AssertionError(f"the two validators disagree on {name}")


def check_answer(got: Got) -> None:
    """What holds for every answer: one-line ASCII headers, bounded, in their schemas' shapes; the
    ``x-aiproxy`` member and our error object likewise (XAI-RESP-001 to 003, 008 to 012, 036)."""
    ours = [(name, value) for name, value in got.headers if name.startswith("x-ai-")]
    assert len({name for name, _ in ours}) == len(ours), f"an X-AI header came twice: {ours}"
    for name, value in ours:
        assert value.isascii(), (name, value)
        assert value.isprintable(), (name, value)
        assert len(value) <= EACH, (name, len(value))
        if name in _SHAPES:
            document = json.loads(value)
            assert len(json.dumps(document, separators=(",", ":"))) >= len(value), name
            hold(document, _SHAPES[name])
    assert sum(len(name) + len(value) + 4 for name, value in ours) <= TOGETHER
    confidence = got.header("x-ai-selection-confidence")
    if confidence is not None:
        assert 0.0 <= float(confidence) <= 1.0
        assert got.selection["confidence"] == pytest.approx(float(confidence))
    if got.header("content-type") != "application/json" or not got.body:
        return
    body = got.json
    if isinstance(body, dict) and "x-aiproxy" in body:
        hold(body["x-aiproxy"], "x-aiproxy")
    if got.status >= 400 and got.header("x-request-id") and not _foreign(body):
        hold(body, "error-emitted")


def _foreign(body: Any) -> bool:
    """An error in the shape of another API than OpenAI's: the one of its own client."""
    inner = body["error"] if isinstance(body, dict) else body[0]["error"]
    return (isinstance(body, dict) and body.get("type") == "error") or "status" in inner


# --- the wrapped application ---------------------------------------------------------------------


def _host_answer(path: str, body: bytes) -> tuple[int, bytes, bytes]:
    """Status, content type and body: an OpenAI answer on the inference paths, else a page."""
    if path.endswith((CHAT, RESPONSES)) and body:
        asked = json.loads(body)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "served by app"},
            "finish_reason": "stop",
        }
        answer = {
            "id": "chatcmpl-app",
            "object": "chat.completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": [choice],
            "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
        }
        return 200, b"application/json", json.dumps(answer).encode()
    if path == "/missing":
        return 404, b"text/plain", b"the application knows no such page"
    return 200, b"text/plain", b"page " + path.encode()


def asgi_host(log: list[tuple[str, str, bytes]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        log.append((scope["method"], scope["path"], body))
        status, kind, answer = _host_answer(scope["path"], body)
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        payload = b"" if scope["method"] == "HEAD" else answer
        await send({"type": "http.response.body", "body": payload})

    return app


def wsgi_host(log: list[tuple[str, str, bytes]]) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        length = environ.get("CONTENT_LENGTH")
        if length or environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read(*([int(length)] if length else []))
        else:
            body = b""
        path = environ["PATH_INFO"]
        log.append((environ["REQUEST_METHOD"], path, body))
        status, kind, answer = _host_answer(path, body)
        start_response(
            "200 OK" if status == 200 else "404 Not Found",
            [("content-type", kind.decode()), ("content-length", str(len(answer)))],
        )
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer]

    return app


# --- upstreams and configurations ----------------------------------------------------------------


def model(name: str, **facts: Any) -> dict[str, Any]:
    """A cheap model of fair quality, changed by ``facts``."""
    return {"name": name, "cost_per_1k_tokens": CHEAP, "quality": 0.8, **facts}


class Fakes:
    """Scripted upstreams by name, started when first asked for and kept for the session."""

    def __init__(self) -> None:
        self._running: dict[str, Upstream] = {}

    def __getitem__(self, name: str) -> Upstream:
        if name not in self._running:
            self._running[name] = Upstream(name)
            self._running[name].start()
        return self._running[name]

    def __getattr__(self, name: str) -> Upstream:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def reset(self) -> None:
        for upstream in self._running.values():
            upstream.script = Script()
            upstream.queue.clear()
            upstream.seen.clear()

    def check(self) -> None:
        """No upstream may ever see the word auto or one of our headers (XAI-AUTO-002, HDR-007)."""
        for name, upstream in self._running.items():
            for seen in upstream.seen:
                for member in ("model", "tools", "reasoning", "reasoning_effort", *LIMITS):
                    assert seen.body.get(member) != "auto", f"{name} was sent {member}: auto"
                leaked = [h for h in seen.headers if h.startswith("x-ai-")]
                assert not leaked, f"{name} was sent {leaked}"

    def called(self) -> dict[str, int]:
        """How often each upstream was asked, those that were."""
        return {name: len(u.seen) for name, u in self._running.items() if u.seen}

    def stop(self) -> None:
        for upstream in self._running.values():
            upstream.stop()

    def config(self, providers: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
        """A configuration of OpenAI-compatible providers, each at the upstream of its name.

        A provider is a list of models, or a mapping with ``models`` and more keys; a model is a
        name or a mapping. The first provider is the default one unless ``routing`` says otherwise.
        """
        rows: dict[str, Any] = {}
        for name, given in providers.items():
            entry = dict(given) if isinstance(given, Mapping) else {"models": given}
            models = [{"name": m} if isinstance(m, str) else dict(m) for m in entry["models"]]
            # several providers of a test may share one upstream: ids of figures are many
            upstream = entry.pop("upstream", name)
            rows[name] = {
                "type": "openai_compatible",
                "endpoint": self[upstream].url,
                **entry,
                "models": models,
            }
        routing = {"default_provider": next(iter(providers)), **sections.pop("routing", {})}
        return {"providers": rows, "routing": routing, **sections}
