"""The exchange played from a script: no socket, no clock but the script's own."""

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mounts import HELLO
from wire import DONE, chat_stream, frame

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware
from aiproxy.middleware.config import load_config
from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Failure,
    Read,
    Reply,
    Send,
    Start,
    Wait,
)
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound, Runtime
from aiproxy.spec import checker, schema

JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)
MOST_ATTEMPTS = 4
STATUSES = {200} | {
    status for row in schema("error")["x-aiproxy-errors"].values() for status in row["statuses"]
}


def reply_body(text: str = "hi", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "x", "model": "theirs", "choices": [choice], **more}).encode()


@dataclass
class Clock:
    now: float = 100.0


@dataclass
class Tape:
    """A scripted stream: what its reads give."""

    reads: list[Any]


@dataclass
class Played:
    """What an exchange did; ``steps`` counts its effects."""

    reply: Reply | None = None
    start: Start | None = None
    sent: bytes = b""
    calls: list[Call] = field(default_factory=list)
    closed: list[object] = field(default_factory=list)
    waited: float = 0.0
    steps: int = 0


def config(**routing: Any) -> dict[str, Any]:
    return {
        "providers": {
            name: {
                "type": "openai_compatible",
                "endpoint": f"http://127.0.0.1:9/{name}",
                "models": [{"name": "m", "quality": quality}],
                "dialects": dialects,
            }
            for name, quality, dialects in (
                ("a", 0.9, ["chat", "responses"]),
                ("b", 0.8, ["chat"]),
                ("c", 0.7, ["responses"]),
            )
        },
        "routing": {
            "default_provider": "a",
            "timeout": "60s",
            "strategy": "quality",
            "failover": {"max_retries": MOST_ATTEMPTS - 1},
            **routing,
        },
    }


_CONFIG = load_config(config())


def gateway(clock: Clock, made: Any = None) -> Gateway:
    numbers = iter(range(10_000))
    runtime = Runtime(
        now=lambda: clock.now,
        wall=lambda: 1_800_000_000 + clock.now,
        new_id=lambda: f"{next(numbers):024x}",
        jitter=lambda: 0.5,
    )
    return Gateway(made or _CONFIG, wrapped_app=False, scope="all", runtime=runtime)


def exchange(at: Gateway, *, stream: bool = False, path: str = "chat", **more: Any) -> Exchange:
    body = {"model": "auto", "messages": HELLO, "stream": stream, **more}
    endpoint = "responses" if path == "responses" else "chat"
    headers = (("x-ai-routing-strategy", "quality"),)
    inbound = Inbound(f"/v1/{path}", endpoint, headers, json.dumps(body).encode())
    return Exchange(at, inbound)


def play(
    running: Exchange,
    clock: Clock,
    answers: Iterator[Any],
    *,
    leave_at: int | None = None,
    pace: float = 0.01,
) -> Played:
    """Perform the effects from ``answers``; ``leave_at`` closes the exchange at that effect."""
    seen = Played()
    flow = running.run()
    outcome: Any = None
    try:
        effect = next(flow)
        while True:
            if leave_at == seen.steps:
                flow.close()
                return seen
            seen.steps += 1
            assert seen.steps < 500, "the exchange does not end"
            outcome = _perform(effect, seen, clock, answers, pace)
            effect = flow.send(outcome)
    except StopIteration as stop:
        seen.reply = stop.value
    return seen


def _perform(effect: Any, seen: Played, clock: Clock, answers: Iterator[Any], pace: float) -> Any:
    if isinstance(effect, Call):
        seen.calls.append(effect)
        clock.now += pace
        answer = next(answers, Failure("connect_refused"))
        if isinstance(answer, Answer) and isinstance(answer.stream, Tape) and not effect.stream:
            # nobody asked for a stream: a transport reads it whole
            return Answer(
                200, SSE, b"".join(r for r in answer.stream.reads if isinstance(r, bytes))
            )
        return answer
    if isinstance(effect, Read):
        clock.now += pace
        assert isinstance(effect.stream, Tape)
        given = effect.stream.reads.pop(0) if effect.stream.reads else b""
        if given == "silence":
            clock.now += effect.timeout_s or 0.0
            return None if effect.soft else Failure("idle_timeout")
        return given
    if isinstance(effect, Wait):
        clock.now += effect.seconds
        seen.waited += effect.seconds
    elif isinstance(effect, Start):
        assert seen.start is None, "two heads"
        seen.start = effect
    elif isinstance(effect, Send):
        assert seen.start is not None, "bytes before the head"
        seen.sent += effect.data
    elif isinstance(effect, Close):
        seen.closed.append(effect.stream)
    return None


# --- what any script must hold -------------------------------------------------------------------

KINDS = [
    "connect_refused",
    "dns_failure",
    "tls_failure",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "reset",
    "protocol_error",
    "too_large",
    "app_error",
]
BODIES = st.sampled_from(
    [
        reply_body(),
        reply_body(**{"x-aiproxy": {"provider": "theirs"}}),
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"choices":[]}',
        b'{"choices":[{"message":null}]}',
        b'{"choices":[{"message":{"content":1}}]}',
        b'{"error":{"code":"context_length_exceeded"}}',
        b'{"error":{"code":7,"message":null,"param":"a b"}}',
        b'{"error":"text"}',
        b'{"object":"response","output":[]}',
        b'{"object":"response","status":"completed","output":[{"type":"message","content":[]}]}',
        b'{"object":"response","status":"queued","output":[]}',
    ]
)
HEADERS = st.sampled_from(
    [
        JSON,
        (("retry-after", "1"),),
        (("retry-after", "99999999999999999999"),),
        (("retry-after", "Wed, 99 Foo 2026"),),
        (("retry-after-ms", "-1"), ("set-cookie", "a=b"), ("x-ai-provider-used", "evil")),
    ]
)
PIECES = st.one_of(
    st.sampled_from(
        [
            frame({"role": "assistant", "content": ""}),
            frame({"content": "word"}),
            frame({}, "stop"),
            frame({}, "error"),
            DONE,
            chat_stream(["a", "b"]),
            b": comment\n\n",
            b'data: {"error":{"message":"SECRET"}}\n\n',
            b"data: {broken\n\n",
            b"data: 5\n\n",
            b'data: {"choices":5}\n\n',
            b'data: {"choices":[{"delta":5,"finish_reason":5}],"model":5}\n\n',
            b'data: {"type":"response.output_text.delta","delta":"x","output_index":0}\n\n',
            b'data: {"type":"response.completed","response":{"output":[],"model":"z"}}\n\n',
            b'data: {"type":"response.failed","response":null}\n\n',
            b"",
            "silence",
        ]
    ),
    st.binary(max_size=40),
    st.sampled_from([Failure("reset"), Failure("idle_timeout"), Failure("protocol_error")]),
)
ERRORS = [400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 507, 529, 599]
SCRIPTS = st.lists(
    st.one_of(
        st.builds(Failure, st.sampled_from(KINDS)),
        st.builds(
            Answer,
            st.sampled_from([200, 201, 204, 301, *ERRORS]) | st.just(200),
            HEADERS,
            BODIES,
        ),
        st.builds(
            lambda reads: Answer(200, SSE, stream=Tape(list(reads))), st.lists(PIECES, max_size=8)
        ),
    ),
    max_size=6,
)
ASKED = st.sampled_from(
    [("chat", False), ("chat", True), ("responses", False), ("responses", True)]
)


def settled(at: Gateway, running: Exchange, seen: Played) -> None:
    decision = running.decision
    assert len(decision.attempts) <= MOST_ATTEMPTS
    assert len(seen.calls) == len(decision.attempts)
    assert [call.provider for call in seen.calls] == [
        attempt.model.provider.id for attempt in decision.attempts
    ]
    assert all(attempt.outcome in ("ok", "failed", "aborted") for attempt in decision.attempts)
    assert decision.outcome in ("ok", "failed", "refused", "aborted")
    assert all(model.track.in_flight == 0 for model in at.registry.models)
    assert at.decisions.get(decision.id, None) is decision
    assert checker("decision").first_fault(json.loads(json.dumps(decision.record()))) is None


@settings(max_examples=250, deadline=None)
@given(script=SCRIPTS, asked=ASKED, pace=st.sampled_from([0.0, 0.01, 3.0, 25.0]))
def test_any_script_ends_well(script: list[Any], asked: tuple[str, bool], pace: float) -> None:
    path, stream = asked
    clock = Clock()
    at = gateway(clock)
    running = exchange(at, path=path, stream=stream)
    seen = play(running, clock, iter(script), pace=pace)
    settled(at, running, seen)
    assert b"SECRET" not in seen.sent
    if seen.start is None:
        assert seen.reply is not None
        assert seen.reply.status in STATUSES
        names = [name for name, _ in seen.reply.headers]
        if seen.reply.status != 200:
            error = json.loads(seen.reply.body)["error"]
            assert set(error) == {"message", "type", "param", "code"}
    else:
        assert seen.reply is None
        assert seen.start.status == 200
        names = [name for name, _ in seen.start.headers]
        assert stream
        ended_well = running.decision.outcome == "ok"
        assert ended_well == (b'"code":"stream_interrupted"' not in seen.sent)
        if ended_well or path == "responses":
            assert seen.sent.endswith(DONE)
        else:
            assert DONE not in seen.sent
    assert len(names) == len(set(names))
    assert "set-cookie" not in names
    opened = [a for a in script[: len(seen.calls)] if isinstance(a, Answer) and a.stream]
    assert len(seen.closed) == (len(opened) if stream else 0), "a stream was left open"


@settings(max_examples=250, deadline=None)
@given(script=SCRIPTS, asked=ASKED, step=st.integers(0, 12))
def test_a_client_may_leave_at_any_step(
    script: list[Any], asked: tuple[str, bool], step: int
) -> None:
    path, stream = asked
    clock = Clock()
    at = gateway(clock)
    running = exchange(at, path=path, stream=stream)
    seen = play(running, clock, iter(script), leave_at=step)
    if seen.steps < step or seen.reply is not None:
        return  # it was over before
    decision = running.decision
    assert decision.outcome in ("aborted", "ok", "failed")
    assert all(attempt.outcome in ("ok", "failed", "aborted") for attempt in decision.attempts)
    if decision.outcome == "aborted" and decision.served is not None:
        assert decision.served.outcome == "aborted"
        assert decision.served.error == "client_disconnected"
    assert all(model.track.in_flight == 0 for model in at.registry.models)
    assert at.decisions.get(decision.id, None) is decision
    assert checker("decision").first_fault(json.loads(json.dumps(decision.record()))) is None


def test_leaving_at_each_step_of_an_ordinary_stream() -> None:
    """Aborted at every step up to the last bytes, served from then on."""
    found = []
    for step in range(20):
        clock = Clock()
        at = gateway(clock)
        running = exchange(at, stream=True)
        words = [frame({"content": "a"}), frame({"content": "b"}), frame({}, "stop"), DONE]
        answer = Answer(200, SSE, stream=Tape(words))
        seen = play(running, clock, iter([answer]), leave_at=step)
        if seen.steps < step:
            break
        found.append(running.decision.outcome)
    aborted = found.count("aborted")
    assert found == ["aborted"] * aborted + ["ok"] * (len(found) - aborted)
    assert aborted >= 7
    assert found[-1] == "ok"


# --- arithmetic under a virtual clock ------------------------------------------------------------


def test_waits_are_the_configured_ones() -> None:
    clock = Clock()
    failover = {"same_provider_retries": 3, "retry_delay": "7s", "max_retries": 9}
    made = config(failover=failover)
    made["providers"] = {"a": made["providers"]["a"]}
    at = gateway(clock, made)
    running = exchange(at)
    seen = play(running, clock, iter([Answer(500, JSON)] * 4 + [Answer(200, JSON, reply_body())]))
    assert seen.reply is not None
    assert seen.reply.status == 502
    assert (len(seen.calls), seen.waited) == (4, 14.0)


def test_a_deadline_bounds_every_limit_of_a_call() -> None:
    clock = Clock()
    at = gateway(clock)
    running = exchange(at)
    seen = play(running, clock, iter([Failure("reset")] * 9), pace=25.0)
    limits = [(call.connect_s, call.first_byte_s, call.total_s) for call in seen.calls]
    assert [
        max(x or 0 for x in row) <= left for row, left in zip(limits, (60, 35, 10), strict=True)
    ]
    assert seen.reply is not None
    assert seen.reply.status == 504


def test_a_circuit_opens_and_lets_one_probe_through() -> None:
    """Open above the threshold with ten samples; one probe after a while; closed by its success."""
    clock = Clock()
    made = config()
    made["providers"] = {"a": made["providers"]["a"]}
    at = gateway(clock, made)
    for _ in range(12):
        play(exchange(at), clock, iter([Answer(503, JSON)] * 4))
        clock.now += 0.2
    refused = play(exchange(at), clock, iter([]))
    assert refused.calls == []
    assert refused.reply is not None
    assert refused.reply.status == 503
    clock.now += 6.0
    probe = exchange(at)
    flow = probe.run()
    assert isinstance(next(flow), Call)
    second = play(exchange(at), clock, iter([]))
    assert second.calls == [], "a second request joined the probe"
    with pytest.raises(StopIteration):
        flow.send(Answer(200, JSON, reply_body()))
    healthy = play(exchange(at), clock, iter([Answer(200, JSON, reply_body())]))
    assert healthy.reply is not None
    assert healthy.reply.status == 200


def test_a_few_refused_connections_among_many_answers_open_nothing() -> None:
    """A provider's circuit weighs its answers too, not its failures alone."""
    clock = Clock()
    made = config()
    made["providers"] = {"a": made["providers"]["a"]}
    at = gateway(clock, made)
    for _ in range(15):
        play(
            exchange(at), clock, iter([Failure("connect_refused"), Answer(200, JSON, reply_body())])
        )
        for _ in range(4):
            play(exchange(at), clock, iter([Answer(200, JSON, reply_body())]))
    provider = at.registry.providers["a"]
    assert provider.track.open_until == 0.0
    assert provider.track.error_rate(clock.now) < 0.3


def test_an_untranslatable_reply_is_no_success() -> None:
    """Counted as the failure it is: nobody is named as the one who served."""
    clock = Clock()
    made = config(default_provider="b")
    made["providers"] = {"b": made["providers"]["b"]}
    at = gateway(clock, made)
    running = exchange(at, path="responses")
    broken = reply_body().replace(b'"content": "hi"', b'"content": 5')
    seen = play(running, clock, iter([Answer(200, JSON, broken)] * 4))
    assert seen.reply is not None
    assert seen.reply.status == 502
    assert running.decision.served is None
    assert [attempt.outcome for attempt in running.decision.attempts] == ["failed"]
    assert "x-ai-provider-used" not in dict(seen.reply.headers)
    (model,) = at.registry.models
    assert model.track.error_rate(clock.now) == 1.0


# --- the two drivers -----------------------------------------------------------------------------


class Scripted:
    """Stands where a mount has its transports."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)

    def answer(self, call: Call, app: Any) -> Any:
        return next(self._answers, Failure("connect_refused"))

    def piece(self, read: Read) -> Any:
        assert isinstance(read.stream, Tape)
        return read.stream.reads.pop(0) if read.stream.reads else b""


class ScriptedAsync(Scripted):
    async def call(self, call: Call, app: Any) -> Any:
        return self.answer(call, app)

    async def read(self, read: Read) -> Any:
        return self.piece(read)

    async def close_stream(self, stream: object) -> None:
        """Nothing is open."""


class ScriptedSync(Scripted):
    def call(self, call: Call, app: Any, interrupt: Any = None) -> Any:
        return self.answer(call, app)

    def read(self, read: Read, interrupt: Any = None) -> Any:
        return self.piece(read)

    def close_stream(self, stream: object) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""


def over_asgi(answers: list[Any], body: bytes) -> tuple[int, dict[str, str], bytes]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the application was called")

    sent: list[Any] = []

    async def run() -> None:
        mount: Any = AIProxyMiddleware(app, gateway(Clock()))
        mount._transports = ScriptedAsync(answers)
        mount._loop = asyncio.get_running_loop()
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return inbox.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(b"x-ai-routing-strategy", b"quality")],
        }
        await mount(scope, receive, send)

    asyncio.run(run())
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    assert not sent[-1].get("more_body", False)
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


def over_wsgi(answers: list[Any], body: bytes) -> tuple[int, dict[str, str], bytes]:
    mount: Any = AIProxyWSGIMiddleware(lambda environ, start: [], gateway(Clock()))
    mount._transports = ScriptedSync(answers)
    head: list[Any] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/chat/completions",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_AI_ROUTING_STRATEGY": "quality",
        "wsgi.input": io.BytesIO(body),
    }
    result = mount(environ, lambda status, headers: head.append((status, headers)))
    data = b"".join(result)
    if hasattr(result, "close"):
        result.close()
    return int(head[0][0].split()[0]), dict(head[0][1]), data


def _whole() -> list[Any]:
    return [Failure("reset"), Failure("reset"), Answer(200, JSON, reply_body())]


def _stream() -> list[Any]:
    return [Answer(503, JSON), Answer(200, SSE, stream=Tape([chat_stream(["x", "y"]), b""]))]


def _broken() -> list[Any]:
    return [Answer(200, SSE, stream=Tape([frame({"content": "x"}), Failure("reset")]))]


def _exhausted() -> list[Any]:
    return [Answer(429, (("retry-after", "30"),))] * 4


def _refused() -> list[Any]:
    return [Answer(400, JSON, b'{"error":{"message":"SECRET","param":"top_p"}}')]


@pytest.mark.parametrize("script", [_whole, _stream, _broken, _exhausted, _refused])
@pytest.mark.parametrize("stream", [True, False])
def test_both_drivers_give_the_same_answer(script: Callable[[], list[Any]], stream: bool) -> None:
    body = json.dumps({"model": "auto", "messages": HELLO, "stream": stream}).encode()
    one = over_asgi(script(), body)
    two = over_wsgi(script(), body)
    assert one == two
    assert one[0] in STATUSES
