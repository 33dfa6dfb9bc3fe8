"""What must not travel: credentials, connection headers, provider text, unbounded bodies."""

import json
import logging
import socket
import time
from typing import Any

import pytest
from mounts import CHAT, HELLO, Got
from upstreams import Script
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

BEST = {"X-AI-Routing-Strategy": "quality"}
CLIENT_KEY = "canary-client-key"
KEYS = {"a": "canary-key-of-a", "b": "canary-key-of-b"}


def chain(fakes: Any, **sections: Any) -> dict[str, Any]:
    config: dict[str, Any] = fakes.config(
        {
            name: {
                "models": [{"name": "m", "model": f"{name}-m", "quality": quality}],
                "credentials": {"api_key": KEYS[name]},
            }
            for name, quality in (("a", 0.9), ("b", 0.8))
        },
        **sections,
    )
    return config


def everything(fake: Any) -> str:
    """All that an upstream saw, as one text."""
    return "\n".join(f"{s.path}\n{s.headers}\n{json.dumps(s.body)}" for s in fake.seen)


# --- towards providers ---------------------------------------------------------------------------


def test_each_provider_sees_its_own_key_and_no_other(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    headers = {
        **BEST,
        "Authorization": f"Bearer {CLIENT_KEY}",
        "Cookie": "session=canary-cookie",
        "X-Api-Key": "canary-other",
        "Proxy-Authorization": "Basic canary-proxy",
        "X-AI-Conversation-ID": "conv_0123456789abcdef",
        "X-Forwarded-For": "10.1.2.3",
        "Connection": "keep-alive, X-Secret-Hop",
        "X-Secret-Hop": "canary-hop",
        "TE": "trailers",
        "Upgrade": "h2c",
    }
    assert mount(chain(fakes)).chat(headers).status == 200
    for name, other in (("a", "b"), ("b", "a")):
        saw = everything(fakes[name])
        assert KEYS[name] in saw
        assert fakes[name].seen[0].headers["authorization"] == f"Bearer {KEYS[name]}"
        assert KEYS[other] not in saw
        for canary in (CLIENT_KEY, "canary-cookie", "canary-other", "canary-proxy", "canary-hop"):
            assert canary not in saw
        sent = set(fakes[name].seen[0].headers)
        assert not {header for header in sent if header.startswith("x-")}
        assert sent <= {
            "host",
            "accept",
            "accept-encoding",
            "user-agent",
            "content-type",
            "content-length",
            "authorization",
            "connection",
        }


def test_the_wrapped_application_sees_no_x_ai_headers(server: Any, mount: Any, fakes: Any) -> None:
    """It is the service the client called: its other headers stand, ours are taken off."""
    seen: list[dict[str, str]] = []
    served = mount({}, app=_echoing(server.kind, seen, chain(fakes)))
    headers = {**BEST, "Authorization": f"Bearer {CLIENT_KEY}", "X-Own": "kept", "TE": "trailers"}
    got = served.post(CHAT, {"model": "of-the-app", "messages": HELLO}, headers)
    assert (got.status, got.provider) == (200, "app")
    (asked,) = seen
    assert not [name for name in asked if name.startswith("x-ai-")]
    assert asked["authorization"] == f"Bearer {CLIENT_KEY}"
    assert asked["x-own"] == "kept"
    assert "te" not in asked
    assert KEYS["a"] not in str(asked)
    assert got.header("set-cookie") == "a=b"
    assert got.header("x-ai-forged") is None


def _echoing(kind: str, seen: list[dict[str, str]], config: Any) -> Any:
    from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware

    message = {"role": "assistant", "content": "app"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps({"id": "x", "choices": [choice]}).encode()
    sent = [
        ("content-type", "application/json"),
        ("set-cookie", "a=b"),
        ("x-ai-forged", "1"),
        ("x-ai-provider-used", "evil"),
        ("keep-alive", "timeout=5"),
    ]

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        seen.append({k.decode(): v.decode() for k, v in scope["headers"]})
        head = [(k.encode(), v.encode()) for k, v in sent]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        seen.append(
            {
                k[5:].lower().replace("_", "-"): str(v)
                for k, v in environ.items()
                if k.startswith("HTTP_")
            }
        )
        start_response("200 OK", sent)
        return [body]

    return (
        AIProxyMiddleware(asgi, config) if kind == "asgi" else AIProxyWSGIMiddleware(wsgi, config)
    )


# --- towards clients -----------------------------------------------------------------------------

UPSTREAM_HEADERS = {
    "set-cookie": "canary=1",
    "x-ai-provider-used": "evil",
    "x-ai-forged": "evil",
    "x-request-id": "theirs",
    "server": "their-server",
    "openai-organization": "their-org",
    "x-ratelimit-remaining": "3",
    "access-control-allow-origin": "*",
}


@pytest.mark.parametrize("stream", [False, True])
def test_provider_headers_are_dropped_unless_listed(mount: Any, fakes: Any, stream: bool) -> None:
    fakes.a.script = Script(headers=UPSTREAM_HEADERS)
    config = chain(fakes)
    config["providers"]["a"]["relay_headers"] = [
        "X-RateLimit-Remaining",
        "X-AI-Forged",
        "X-AI-Provider-Used",
        "Content-Length",
        "X-Request-ID",
    ]
    got = mount(config).chat(BEST, stream=stream)
    assert got.header("x-ratelimit-remaining") == "3"
    assert got.header("x-ai-provider-used") == "a"
    assert got.header("x-ai-forged") is None
    assert got.header("x-request-id") != "theirs"
    for name in ("set-cookie", "openai-organization", "access-control-allow-origin"):
        assert got.header(name) is None
    assert "evil" not in str(got.headers)
    assert "their-server" not in str(got.headers)


def test_nothing_is_relayed_by_default(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(headers=UPSTREAM_HEADERS)
    got = mount(chain(fakes)).chat(BEST)
    assert got.header("x-ratelimit-remaining") is None
    assert "canary" not in str(got.headers)


def test_control_characters_in_a_model_name_reach_no_header(mount: Any, fakes: Any) -> None:
    config = chain(fakes)
    config["providers"]["a"]["models"][0]["model"] = "evil\r\nX-Injected: 1\x00é日"
    got = mount(config).chat(BEST)
    assert got.status == 200
    assert got.header("x-injected") is None
    mapped = got.header("x-ai-model-mapped") or ""
    assert mapped.isascii()
    assert mapped.isprintable()
    assert fakes.a.seen[0].body["model"] == "evil\r\nX-Injected: 1\x00é日"


# --- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_redirects_are_not_followed(mount: Any, fakes: Any, status: int, stream: bool) -> None:
    """Neither elsewhere nor on the same host; the next provider is asked instead."""
    fakes.a.script = Script(status=status, headers={"location": fakes.c.url + "/chat/completions"})
    got = mount(chain(fakes)).chat(BEST, stream=stream)
    assert (got.status, got.provider) == (200, "b")
    assert fakes.called() == {"a": 1, "b": 1}


# --- bounds --------------------------------------------------------------------------------------

SMALL = {"server": {"max_request_size": "2KB"}}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_bound_is_413(mount: Any, fakes: Any, chunked: bool) -> None:
    served = mount(chain(fakes, **SMALL))
    body = json.dumps({"model": "auto", "messages": HELLO, "user": "x" * 3000}).encode()
    got = served.post(CHAT, body, {**BEST, "content-type": "application/json"}, chunked=chunked)
    assert (got.status, got.error["code"]) == (413, "request_too_large")
    assert fakes.called() == {}
    assert served.chat(BEST).status == 200
    small = json.dumps({"model": "auto", "messages": HELLO}).encode()
    headers = {**BEST, "content-type": "application/json"}
    assert served.post(CHAT, small, headers, chunked=chunked).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "text/json"])
def test_another_media_type_is_415(mount: Any, fakes: Any, kind: str) -> None:
    got = mount(chain(fakes)).post(CHAT, b"{}", {**BEST, "Content-Type": kind})
    assert (got.status, got.error["code"]) == (415, "unsupported_media_type")
    assert got.error["param"] == "Content-Type"


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_a_compressed_body_is_415(mount: Any, fakes: Any, coding: str) -> None:
    got = mount(chain(fakes)).chat({**BEST, "Content-Encoding": coding})
    assert (got.status, got.error["param"]) == (415, "Content-Encoding")
    assert fakes.called() == {}


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
def test_a_slow_body_is_408(mount: Any, fakes: Any) -> None:
    served = mount(chain(fakes, server={"read_timeout": "200ms"}))
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-AI-Task-Hint: coding\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        began = time.monotonic()
        plug.sendall(head)
        answer = b""
        while data := plug.recv(65536):
            answer += data
    assert 0.15 < time.monotonic() - began < 2
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in answer
    assert fakes.called() == {}


def test_an_endless_answer_is_given_up(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + b" " * 1000)
        wire.hold()

    with WireUpstream(script) as upstream:
        config = chain(fakes)
        config["providers"]["a"]["endpoint"] = upstream.url
        got = mount(config).chat(BEST)
        assert (got.status, got.provider) == (200, "b")
        assert got.selection["failover_reason"] == "invalid_response"
        assert upstream.wait_for_hangups(1)


# --- canaries under faults -----------------------------------------------------------------------

LEAK = "SECRET-TEXT prompt-of-somebody sk-live-0123456789 http://10.0.0.7/internal"


def _leaky_error(status: int) -> Script:
    error = {"message": LEAK, "type": LEAK, "param": LEAK, "code": LEAK}
    return Script(status=status, body={"error": error}, headers={"x-debug": "SECRET-TEXT"})


def _in_body(wire: Wire) -> None:
    wire.document(json.dumps({"error": {"message": LEAK, "code": LEAK}}).encode())


def _in_status_line(wire: Wire) -> None:
    wire.document(LEAK.encode(), f"500 {LEAK}".encode())


def _in_stream(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(frame({"content": "hi"}))
    time.sleep(0.03)
    wire.chunk(b"data: " + json.dumps({"error": {"message": LEAK}}).encode() + b"\n\n", DONE)
    wire.end()


def _in_junk(wire: Wire) -> None:
    wire.send(LEAK.encode() + b"\r\n\r\n")


def _in_framing(wire: Wire) -> None:
    wire.send(STREAM_HEAD, LEAK.encode() + b"\r\n")


def clean(served: Any, got: Got, caplog: pytest.LogCaptureFixture) -> None:
    """No canary in the answer, its headers, the record or what was logged."""
    told = "\n".join(
        [
            got.body.decode(),
            str(got.headers),
            json.dumps(served.record(got)),
            caplog.text,
            repr(served.gateway.registry.providers),
            repr(served.gateway.settings),
        ]
    )
    for canary in ("SECRET", "sk-live", "10.0.0.7", "prompt-of", CLIENT_KEY, *KEYS.values()):
        assert canary not in told, canary


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 418, 422, 429, 500, 503, 529])
def test_no_canary_leaks_from_an_error_status(
    mount: Any, fakes: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.a.script = fakes.b.script = _leaky_error(status)
    served = mount(chain(fakes))
    with caplog.at_level(logging.DEBUG):
        got = served.chat({**BEST, "Authorization": f"Bearer {CLIENT_KEY}"})
    assert got.status >= 400
    clean(served, got, caplog)


@pytest.mark.parametrize("script", [_in_body, _in_status_line, _in_stream, _in_junk, _in_framing])
@pytest.mark.parametrize("stream", [False, True])
def test_no_canary_leaks_from_a_broken_answer(
    mount: Any, fakes: Any, script: Any, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with WireUpstream(script) as upstream:
        config = chain(fakes)
        for name in "ab":
            config["providers"][name]["endpoint"] = upstream.url
        served = mount(config)
        with caplog.at_level(logging.DEBUG):
            got = served.chat({**BEST, "Authorization": f"Bearer {CLIENT_KEY}"}, stream=stream)
        clean(served, got, caplog)


def test_no_canary_leaks_from_a_bug(
    mount: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets an id to quote; the cause is in the log alone."""
    from aiproxy.middleware.answering import whole

    def explode(*_: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(whole, "reply", explode)
    served = mount(chain(fakes))
    got = served.chat({**BEST, "Authorization": f"Bearer {CLIENT_KEY}"})
    assert (got.status, got.error["code"]) == (500, "internal_error")
    assert got.header("x-request-id") in got.error["message"]
    assert "a bug of ours" not in got.body.decode()
    assert "a bug of ours" in caplog.text
    clean(served, got, caplog)
    assert served.record(got)["attempts"][0]["outcome"] == "failed"


def test_a_bug_inside_a_stream_still_ends_it(
    mount: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiproxy.middleware.answering import streaming

    def explode(*_: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(streaming, "metadata", explode)
    served = mount(chain(fakes))
    got = served.chat(BEST, stream=True)
    assert got.status == 200
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in got.events
    assert served.record(got)["outcome"] == "failed"
