"""The wrapped application as a provider: ASGI and WSGI."""

import asyncio
import sys

import pytest

from aiproxy.middleware.effects import Answer, Call, Failure, Read
from aiproxy.middleware.providers.aio import AsyncTransports
from aiproxy.middleware.providers.app_asgi import AppTransport
from aiproxy.middleware.providers.app_wsgi import WsgiAppTransport
from aiproxy.middleware.providers.sync import SyncTransports

CLIENT_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "2",
    "method": "GET",
    "scheme": "https",
    "path": "/somewhere",
    "raw_path": b"/somewhere",
    "query_string": b"q=1",
    "root_path": "",
    "headers": [(b"authorization", b"Bearer clients-own")],
    "client": ("10.0.0.9", 4711),
    "server": ("127.0.0.1", 80),
    "state": {"db": 1},
    "extensions": {"tls": {}, "websocket.http.response": {}, "http.response.pathsend": {}},
}


def app_call(**changes):
    defaults = {
        "transport": "app",
        "provider": "local",
        "target": "/v1/chat/comp%C3%A9",
        "headers": (("content-type", "application/json"), ("x-a", "1"), ("x-a", "2")),
        "body": b'{"a":1}',
    }
    return Call(**defaults | changes)


def run_asgi(app, script, call=None):
    """Run a script of ``(transports, outcome)`` after one call to an ASGI app."""

    async def scenario():
        transports = AsyncTransports()
        outcome = await transports.call(call or app_call(), AppTransport(app, CLIENT_SCOPE))
        return await script(transports, outcome)

    return asyncio.run(scenario())


async def only(transports, outcome):
    return outcome


def start(status=200, kind=b"application/json"):
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"Content-Type", kind)],
    }


def part(body, more=False):
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_the_asgi_scope_is_the_clients_under_the_calls_request():
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope, received=await receive())
        await send(start())
        await send(part(b"{", True))
        await send(part(b"}"))

    assert run_asgi(app, only) == Answer(200, (("content-type", "application/json"),), b"{}")
    assert seen.pop("received") == {
        "type": "http.request",
        "body": b'{"a":1}',
        "more_body": False,
    }
    assert seen == CLIENT_SCOPE | {
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/compé",
        "raw_path": b"/v1/chat/comp%C3%A9",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"x-a", b"1"),
            (b"x-a", b"2"),
            (b"content-length", b"7"),
        ],
        "extensions": {"tls": {}},
    }
    assert CLIENT_SCOPE["method"] == "GET"


async def raises_first(scope, receive, send):
    raise ValueError("private text")


async def raises_inside(scope, receive, send):
    await send(start())
    await send(part(b"half", True))
    raise ValueError("private text")


async def says_nothing(scope, receive, send):
    return


async def stops_short(scope, receive, send):
    await send(start())
    await send(part(b"half", True))


async def breaks_the_protocol(scope, receive, send):
    await send(part(b"no head"))


@pytest.mark.parametrize(
    "app", [raises_first, raises_inside, says_nothing, stops_short, breaks_the_protocol]
)
def test_an_asgi_app_that_fails(app):
    outcome = run_asgi(app, only)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "app_error"
    assert "private" not in outcome.detail


@pytest.mark.parametrize(
    ("begin", "limits", "kind"),
    [
        (False, {"total_s": 0.1}, "total_timeout"),
        (False, {"first_byte_s": 0.1, "total_s": 5.0}, "first_byte_timeout"),
        (True, {"first_byte_s": 5.0, "total_s": 0.1}, "total_timeout"),
    ],
)
def test_an_asgi_app_that_never_finishes_is_cancelled(begin, limits, kind):
    cancelled = []

    async def app(scope, receive, send):
        if begin:
            await send(start())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def script(transports, outcome):
        await asyncio.sleep(0)
        return outcome

    outcome = run_asgi(app, script, app_call(**limits))
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind
    assert cancelled == [True]


def test_an_asgi_body_is_bounded():
    async def app(scope, receive, send):
        await send(start())
        while True:
            await send(part(b"x" * 1000, True))

    outcome = run_asgi(app, only, app_call(max_body_bytes=10_000))
    assert isinstance(outcome, Failure)
    assert outcome.kind == "too_large"


def test_an_asgi_stream_comes_as_it_is_sent_and_the_sender_is_held_back():
    sent, disconnects = [], []

    async def app(scope, receive, send):
        await receive()
        await send(start(kind=b"text/event-stream; charset=utf-8"))
        for number in range(10):
            await send(part(b"%d" % number * 40_000, True))
            sent.append(number)
        await send(part(b""))
        disconnects.append((await receive())["type"])

    async def script(transports, outcome):
        assert outcome.body == b""
        await asyncio.sleep(0.01)
        assert len(sent) <= 2
        got = b""
        while data := await transports.read(Read(outcome.stream, 5.0)):
            got += data
        await asyncio.sleep(0)
        return got

    got = run_asgi(app, script, app_call(stream=True))
    assert got == b"".join(b"%d" % number * 40_000 for number in range(10))
    assert disconnects == ["http.disconnect"]


def test_reads_of_an_asgi_stream():
    go, ended = asyncio.Event(), []

    async def app(scope, receive, send):
        await send(start(kind=b"text/event-stream"))
        try:
            await go.wait()
            await send(part(b"one", True))
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def script(transports, outcome):
        read = transports.read
        assert await read(Read(outcome.stream, 0.01, soft=True)) is None
        go.set()
        assert await read(Read(outcome.stream, 5.0)) == b"one"
        failure = await read(Read(outcome.stream, 0.01))
        assert failure.kind == "idle_timeout"
        await asyncio.sleep(0)
        assert ended == [True]
        assert (await read(Read(outcome.stream, 0.01))).kind == "idle_timeout"

    run_asgi(app, script, app_call(stream=True))


def test_an_asgi_stream_that_breaks():
    async def app(scope, receive, send):
        await send(start(kind=b"text/event-stream"))
        await send(part(b"one", True))
        raise ValueError("private text")

    async def script(transports, outcome):
        assert await transports.read(Read(outcome.stream)) == b"one"
        assert await transports.read(Read(outcome.stream)) == Failure("app_error", "ValueError")

    run_asgi(app, script, app_call(stream=True))


def test_closing_an_asgi_stream_cancels_the_app_and_a_complete_one_runs_on():
    cancelled, worked = [], []

    async def endless(scope, receive, send):
        await send(start(kind=b"text/event-stream"))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def with_background_work(scope, receive, send):
        await send(start())
        await send(part(b"{}"))
        await asyncio.sleep(0.01)
        worked.append(True)

    async def close(transports, outcome):
        await transports.close_stream(outcome.stream)
        await transports.close_stream(outcome.stream)
        await asyncio.sleep(0)

    async def wait(transports, outcome):
        await asyncio.sleep(0.05)

    run_asgi(endless, close, app_call(stream=True))
    run_asgi(with_background_work, wait)
    assert (cancelled, worked) == ([True], [True])


class Body:
    """A WSGI result that counts its ``close`` calls."""

    def __init__(self, parts):
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self):
        return self.parts

    def close(self):
        self.closed += 1


CLIENT_ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/somewhere",
    "QUERY_STRING": "q=1",
    "SCRIPT_NAME": "/mounted",
    "SERVER_NAME": "h",
    "SERVER_PORT": "80",
    "RAW_URI": "/somewhere?q=1",
    "HTTP_AUTHORIZATION": "Bearer clients-own",
    "CONTENT_LENGTH": "99",
    "REMOTE_ADDR": "10.0.0.9",
    "wsgi.url_scheme": "https",
}


def run_wsgi(app, **changes):
    return SyncTransports().call(app_call(**changes), WsgiAppTransport(app, CLIENT_ENVIRON))


def wsgi_app(parts, kind="application/json", status="200 OK"):
    body = Body(parts)

    def app(environ, start_response):
        start_response(status, [("Content-Type", kind)])
        return body

    return app, body


def test_the_wsgi_environment_is_the_clients_under_the_calls_request():
    seen = {}

    def app(environ, start_response):
        seen.update(environ, read=environ["wsgi.input"].read())
        write = start_response("201 Created", [("X-A", "1")])
        write(b"one,")
        return [b"two"]

    assert run_wsgi(app) == Answer(201, (("x-a", "1"),), b"one,two")
    del seen["wsgi.input"], seen["wsgi.errors"]
    assert seen == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/chat/compÃ©",
        "QUERY_STRING": "",
        "SCRIPT_NAME": "/mounted",
        "SERVER_NAME": "h",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.9",
        "CONTENT_LENGTH": "7",
        "CONTENT_TYPE": "application/json",
        "HTTP_X_A": "1,2",
        "wsgi.url_scheme": "https",
        "read": b'{"a":1}',
    }


def test_a_lazy_wsgi_head_and_one_close():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b""
        yield b"body"

    assert run_wsgi(app) == Answer(200, (), b"body")
    app, body = wsgi_app([b"", b"a", b"b"])
    assert run_wsgi(app).body == b"ab"
    assert body.closed == 1


def test_exc_info_replaces_the_head_only_before_the_body():
    def app(environ, start_response, late=False):
        start_response("200 OK", [])
        if late:
            yield b"started"
        try:
            raise ValueError("private text")
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"sorry"

    assert run_wsgi(app) == Answer(500, (), b"sorry")
    assert run_wsgi(lambda e, s: app(e, s, late=True)) == Failure("app_error", "ValueError")


def wsgi_raises(environ, start_response):
    raise ValueError("private text")


def wsgi_no_head(environ, start_response):
    return [b"x"]


def wsgi_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b""]


@pytest.mark.parametrize("app", [wsgi_raises, wsgi_no_head, wsgi_twice])
def test_a_wsgi_app_that_fails(app):
    outcome = run_wsgi(app)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "app_error"
    assert "private" not in outcome.detail


def test_a_wsgi_body_is_bounded_and_closed():
    app, body = wsgi_app(b"x" * 1000 for _ in range(1_000_000))
    outcome = run_wsgi(app, max_body_bytes=10_000)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, body.closed) == ("too_large", 1)


def test_a_wsgi_app_that_yields_for_ever_meets_the_total_limit():
    app, body = wsgi_app(b"" for _ in iter(int, 1))
    outcome = run_wsgi(app, total_s=0.05)
    assert isinstance(outcome, Failure)
    assert (outcome.kind, body.closed) == ("total_timeout", 1)


def test_a_wsgi_stream_is_read_as_it_is_yielded():
    made = []

    def parts():
        for number in range(3):
            made.append(number)
            yield b"data: %d\n\n" % number

    app, body = wsgi_app(parts(), "text/event-stream")
    transports = SyncTransports()
    outcome = run_wsgi(app, stream=True)
    for number in range(3):
        assert transports.read(Read(outcome.stream, 1.0)) == b"data: %d\n\n" % number
        assert made == list(range(number + 1))
    assert body.closed == 0
    assert transports.read(Read(outcome.stream)) == b""
    assert body.closed == 1
    transports.close_stream(outcome.stream)
    assert body.closed == 1


def test_closing_a_wsgi_stream_closes_the_result_once():
    app, body = wsgi_app([b"one", b"two"], "text/event-stream")
    outcome = run_wsgi(app, stream=True)
    transports = SyncTransports()
    transports.close_stream(outcome.stream)
    transports.close_stream(outcome.stream)
    assert body.closed == 1
    assert isinstance(transports.read(Read(outcome.stream)), Failure)
