"""What is not ours passes byte for byte, on both mounts (XAI-COMPAT-002, the opt-in scope)."""

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from random import Random

import pytest
from mounts import Client, asgi_host
from upstreams import free_port, serve_asgi

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware
from aiproxy.middleware.gateway import Gateway

req = pytest.mark.requirement
CONFIG = {
    "providers": {
        "a": {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "models": [{"name": "m"}],
        }
    }
}


# --- an application that answers in many ways, told how by the path ---------------------------------


def behaviour(path, body):
    """Status, header pairs and body chunks for a path; ``None`` among the chunks is a failure."""
    dice = Random(path)
    status = dice.choice([200, 200, 200, 201, 204, 301, 404, 418, 500, 503])
    pairs = [("content-type", dice.choice(["text/plain", "application/json", "text/html"]))]
    for _ in range(dice.randrange(3)):
        pairs.append(
            (dice.choice(["x-one", "set-cookie", "X-AI-Provider-Used"]), f"v{dice.random()}")
        )
    chunks = [dice.randbytes(dice.randrange(1, 2000)) for _ in range(dice.randrange(4))]
    if body:
        chunks.append(b"seen " + body)
    if status in (204, 304):
        chunks = []
    elif dice.random() < 0.6:
        pairs.append(("content-length", str(sum(map(len, chunks)))))
    if dice.random() < 0.05:
        chunks.append(None)
    return status, pairs, chunks


async def asgi_app(scope, receive, send):
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    status, pairs, chunks = behaviour(scope["path"], body)
    headers = [(k.encode(), v.encode()) for k, v in pairs]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for chunk in chunks:
        if chunk is None:
            raise ConnectionResetError("on purpose")
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def wsgi_app(environ, start_response):
    length = environ.get("CONTENT_LENGTH")
    if length:
        body = environ["wsgi.input"].read(int(length))
    else:
        body = environ["wsgi.input"].read() if environ.get("wsgi.input_terminated") else b""
    status, pairs, chunks = behaviour(environ["PATH_INFO"], body)

    def stream():
        for chunk in chunks:
            if chunk is None:
                raise ConnectionResetError("on purpose")
            yield chunk

    start_response(f"{status} Status", pairs)
    return stream()


def requests(count):
    """Random requests as octets; none of them is ours."""
    dice = Random(200)
    paths = ["/", "/v1/models", "/v1/chat/completions", "/v1/responses", "/v1/files", "/aiproxy/x"]
    for number in range(count):
        method = dice.choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
        path = dice.choice(paths) + dice.choice(["", f"/{number}", f"?q={number}", "/%C3%A9%2F"])
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
        for _ in range(dice.randrange(4)):
            name = dice.choice(["Authorization", "X-AIx", "X-Forwarded-For", "Accept", "Cookie"])
            lines.append(f"{name}: {dice.random()}")
        inference = path.partition("?")[0] in ("/v1/chat/completions", "/v1/responses")
        if dice.random() < 0.1 and not (inference and method == "POST"):
            lines.append("X-AI-Task-Hint: coding")  # ours by name, but no inference request
        body = b""
        if method in ("POST", "PUT", "PATCH"):
            kind = dice.choice(["json", "bytes", "none"])
            if kind == "json":
                body = json.dumps({"model": "m", "n": number, "stream": True}).encode()
            elif kind == "bytes":
                body = dice.randbytes(dice.randrange(3000))
            lines.append("Content-Type: application/json")
            if dice.random() < 0.4:
                lines.append("Transfer-Encoding: chunked")
                half = len(body) // 2
                parts = [part for part in (body[:half], body[half:]) if part]
                body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
            else:
                lines.append(f"Content-Length: {len(body)}")
        yield ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def dated(answer):
    return re.sub(rb"(?mi)^date: [^\r]*\r\n", b"", answer, count=1)


@req("XAI-COMPAT-002", "XAI-ARCH-002", "XAI-ARCH-009", "XAI-ARCH-011")
def test_two_hundred_random_requests_are_untouched(server, mount, caplog):
    bare = {"asgi": asgi_app, "wsgi": wsgi_app}[server.kind]
    wrap = {"asgi": AIProxyMiddleware, "wsgi": AIProxyWSGIMiddleware}[server.kind]
    wrapped = wrap(bare, CONFIG)
    client = mount(None, app=bare)
    asked = list(requests(200))
    without = [dated(client.raw(request)) for request in asked]
    server.app = wrapped
    within = [dated(client.raw(request)) for request in asked]
    for request, before, after in zip(asked, without, within, strict=True):
        assert before == after, request
    assert sum(answer.startswith(b"HTTP/1.1 2") for answer in without) > 50
    assert len({answer.split(b" ")[1] for answer in without if b" " in answer}) > 4
    assert wrapped.gateway.decisions._rows == {}
    server.leave(wrapped)


@req("XAI-COMPAT-002")
def test_in_scope_all_what_is_no_inference_path_is_untouched_too(server, mount):
    bare = {"asgi": asgi_app, "wsgi": wsgi_app}[server.kind]
    wrap = {"asgi": AIProxyMiddleware, "wsgi": AIProxyWSGIMiddleware}[server.kind]
    wrapped = wrap(bare, {**CONFIG, "routing": {"scope": "all"}})
    client = mount(None, app=bare)
    ours = (b"/v1/models", b"/v1/chat/completions", b"/v1/responses")
    asked = [r for r in requests(120) if not r.split(b" ")[1].startswith(ours)]
    without = [dated(client.raw(request)) for request in asked]
    server.app = wrapped
    assert [dated(client.raw(request)) for request in asked] == without
    assert len(asked) > 30
    server.leave(wrapped)


def test_the_body_of_an_untouched_request_is_not_read_before_the_app_asks():
    asked = []

    async def app(scope, receive, send):
        asked.append(await receive())

    async def receive():
        return {"type": "http.request", "body": b"x", "more_body": False}

    async def send(message):
        raise AssertionError("nobody answers here")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-type", b"application/json")],
    }
    middleware = AIProxyMiddleware(app, CONFIG)
    asyncio.run(middleware(scope, receive, send))
    assert asked == [{"type": "http.request", "body": b"x", "more_body": False}]


@req("XAI-ARCH-009")
@pytest.mark.parametrize("scope_name", ["opt_in", "all"])
def test_other_scopes_pass_as_the_same_objects(scope_name):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        raise AssertionError

    middleware = AIProxyMiddleware(app, {**CONFIG, "routing": {"scope": scope_name}})
    for kind in ("websocket", "something.new"):
        scope = {"type": kind, "path": "/v1/responses", "headers": [(b"x-ai-task-hint", b"coding")]}
        asyncio.run(middleware(scope, receive, send))
        assert seen[-1][0] is scope
        assert seen[-1][1] is receive
        assert seen[-1][2] is send


class Lifespan:
    """Plays a server's part of the lifespan protocol."""

    def __init__(self):
        self.sent = []
        self._asks = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive(self):
        return {"type": next(self._asks)}

    async def send(self, message):
        self.sent.append(message["type"])


class Closing(AIProxyMiddleware):
    closed = 0

    async def aclose(self):
        self.closed += 1
        await super().aclose()


@req("XAI-ARCH-009")
def test_a_lifespan_passes_through_and_closes_our_clients():
    order = []

    async def app(scope, receive, send):
        assert scope["type"] == "lifespan"
        for _ in range(2):
            message = await receive()
            order.append(message["type"])
            await send({"type": message["type"] + ".complete"})

    lifespan, middleware = Lifespan(), None
    middleware = Closing(app, CONFIG)
    asyncio.run(middleware({"type": "lifespan"}, lifespan.receive, lifespan.send))
    assert order == ["lifespan.startup", "lifespan.shutdown"]
    assert lifespan.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert middleware.closed == 1


def test_an_application_without_lifespan_still_gets_our_clients_closed():
    async def app(scope, receive, send):
        raise RuntimeError("http only")

    lifespan = Lifespan()
    middleware = Closing(app, CONFIG)
    asyncio.run(middleware({"type": "lifespan"}, lifespan.receive, lifespan.send))
    assert lifespan.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert middleware.closed == 1


def test_a_failing_startup_is_the_applications_to_tell():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    lifespan = Lifespan()
    middleware = Closing(app, CONFIG)
    with pytest.raises(RuntimeError, match="no database"):
        asyncio.run(middleware({"type": "lifespan"}, lifespan.receive, lifespan.send))
    assert lifespan.sent == ["lifespan.startup.failed"]


def test_a_server_that_stops_closes_the_connections_to_providers(fakes):
    """uvicorn itself, around an application that knows no lifespan."""
    middleware = AIProxyMiddleware(asgi_host([]), fakes.config({"a": ["m"]}))
    port = free_port()
    running, thread = serve_asgi(middleware, port)

    assert Client(port).chat({"X-AI-Provider-Pool": "a"}).status == 200
    assert middleware._transports is not None
    running.should_exit = True
    thread.join(10)
    assert middleware._transports is None


def test_looking_at_an_untouched_request_takes_microseconds():
    async def app(scope, receive, send):
        return None

    middleware = AIProxyMiddleware(app, Gateway(CONFIG))
    headers = [(f"x-header-{n}".encode(), b"v") for n in range(20)]
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "headers": headers}

    async def many(app_):
        started = time.perf_counter()
        for _ in range(2000):
            await app_(scope, None, None)
        return time.perf_counter() - started

    async def both():
        return min([await many(middleware) for _ in range(5)]), min(
            [await many(app) for _ in range(5)]
        )

    wrapped, bare = asyncio.run(both())
    assert (wrapped - bare) / 2000 < 50e-6


def test_the_wrapped_application_answers_what_it_alone_serves(mount, fakes):
    """A header on a request for a model nobody lists: the application is the provider."""
    served = mount(fakes.config({"a": ["m-a"]}, routing={"default_provider": None}))
    got = served.chat({"X-AI-Multi-Provider": "enabled"}, model="of-the-app")
    assert got.provider == "app"
    assert got.json["choices"][0]["message"]["content"] == "served by app"
    assert fakes.called() == {}


@req("XAI-ARCH-014")
def test_a_mount_below_a_prefix(fakes):
    """Starlette leaves the prefix in the path and names it as root; WSGI takes it out."""
    from starlette.applications import Starlette
    from starlette.routing import Mount as Below

    log = []
    config = fakes.config({"a": ["m-a"]}, routing={"scope": "all"})
    port = free_port()
    middleware = AIProxyMiddleware(asgi_host(log), config)

    @asynccontextmanager
    async def lifespan(_):
        yield
        await middleware.aclose()  # a mounted application hears of no lifespan

    app = Starlette(routes=[Below("/ai", app=middleware)], lifespan=lifespan)
    running, thread = serve_asgi(app, port)
    client = Client(port)
    try:
        assert [row["id"] for row in client.get("/ai/v1/models").json["data"]] == ["m-a"]
        assert client.get("/v1/models").status == 404
        assert client.chat(path="/ai/v1/chat/completions", model="m-a").status == 200
        assert fakes.called() == {"a": 1}
        answered = client.chat(path="/ai/v1/chat/completions", model="of-the-app")
        assert answered.json["x-aiproxy"]["provider"] == "app"
        assert client.get("/ai/page").body == b"page /ai/page"
    finally:
        running.should_exit = True
        thread.join(10)
    assert [path for _, path, _ in log] == ["/ai/v1/chat/completions", "/ai/page"]


@req("XAI-ARCH-014")
def test_a_wsgi_mount_below_a_prefix(wsgi_server, fakes):
    from mounts import mounted, wsgi_host
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    log = []
    config = fakes.config({"a": ["m-a"]}, routing={"scope": "all"})
    inner = AIProxyWSGIMiddleware(wsgi_host(log), config)
    app = DispatcherMiddleware(wsgi_host([]), {"/ai": inner})
    with mounted(wsgi_server, None, app=app) as client:
        assert [row["id"] for row in client.get("/ai/v1/models").json["data"]] == ["m-a"]
        assert client.get("/v1/models").body == b"page /v1/models"
        assert client.chat(path="/ai/v1/chat/completions", model="m-a").status == 200
        assert fakes.called() == {"a": 1}
    inner.close()
