"""Streams: what is held, what is sent, how they end (draft §8, figure 9)."""

import json
import time
from typing import Any

import pytest
from mounts import HELLO, RESPONSES, Got
from tap import Tap
from upstreams import Script
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, chat_stream, frame

BEST = {"X-AI-Routing-Strategy": "quality"}
ROLE = frame({"role": "assistant", "content": ""})
STOP = frame({}, "stop")
DIALECTS = ["chat", "responses", "union", "completions"]


def chain(fakes: Any, *, routing: dict[str, Any] | None = None, **limits: str) -> dict[str, Any]:
    providers: dict[str, Any] = {
        name: {
            "models": [{"name": "m", "model": f"{name}-m", "quality": quality}],
            "dialects": ["chat", "responses", "completions"],
        }
        for name, quality in (("a", 0.9), ("b", 0.8))
    }
    if limits:
        providers["a"]["timeouts"] = limits
    config: dict[str, Any] = fakes.config(providers, routing=routing or {})
    return config


def wired(fakes: Any, upstream: WireUpstream, **options: Any) -> dict[str, Any]:
    """Provider ``a`` is the bare-socket upstream, ``b`` an ordinary one."""
    config = chain(fakes, **options)
    config["providers"]["a"]["endpoint"] = upstream.url
    return config


def body(dialect: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Path and body of a streaming request in each of the client's dialects."""
    if dialect == "completions":
        return "/v1/completions", {"model": "auto", "prompt": "Hello", "stream": True, **more}
    if dialect == "responses":
        return RESPONSES, {"model": "auto", "input": "Hello", "stream": True, **more}
    path = RESPONSES if dialect == "union" else "/v1/chat/completions"
    return path, {"model": "auto", "messages": HELLO, "stream": True, **more}


def stream(mount: Any, dialect: str = "chat", headers: Any = None, **more: Any) -> Got:
    path, asked = body(dialect, **more)
    got: Got = mount.post(path, asked, headers or BEST)
    return got


def text(got: Got) -> str:
    """The text a client of that dialect puts together."""
    said = ""
    for event in got.events:
        if event == "[DONE]" or "error" in event:
            continue
        if event.get("type") == "response.output_text.delta":
            said += event["delta"]
        elif event.get("object") in ("chat.completion.chunk", "text_completion"):
            for choice in event["choices"]:
                said += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    return said.strip()


def last_json(got: Got) -> Any:
    return [event for event in got.events if event != "[DONE]"][-1]


# --- a stream that goes well ---------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_in_each_dialect(mount: Any, fakes: Any, dialect: str) -> None:
    """XAI-STREAM-001, 003 to 007, 016."""
    fakes.a.script = Script(chunks=["One ", "two ", "three."])
    served = mount(chain(fakes))
    got = stream(served, dialect)
    assert got.status == 200
    assert (got.header("content-type") or "").startswith("text/event-stream")
    assert "no-cache" in (got.header("cache-control") or "")
    assert got.header("content-length") is None
    assert got.header("content-encoding") is None
    assert got.provider == "a"
    assert got.header("x-request-id")
    assert text(got) == "One two three."
    assert got.events[-1] == "[DONE]"
    assert got.events.count("[DONE]") == 1
    told = last_json(got)["x-aiproxy"]
    assert (told["provider"], told["model"], told["attempts"]) == ("a", "a-m", 1)
    assert sum("x-aiproxy" in event for event in got.events) == 1
    record = served.record(got)
    assert record["outcome"] == "ok"
    assert record["attempts"][0]["outcome"] == "ok"


def test_chat_frames(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-006."""
    events = stream(mount(chain(fakes))).events[:-1]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_responses_frames(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-007."""
    events = stream(mount(chain(fakes)), "responses").events[:-1]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_union_frames(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-004, 005: typed events that are ``response.chunk`` objects at once."""
    events = stream(mount(chain(fakes)), "union").events[:-1]
    assert {event["object"] for event in events} == {"response.chunk"}
    assert len({event["id"] for event in events}) == 1
    deltas = [event["choices"][0]["delta"].get("content") or "" for event in events]
    assert "".join(deltas).strip() == "served by a"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("model", ["auto", "m"])
def test_the_model_name_is_ours_in_every_frame(
    mount: Any, fakes: Any, dialect: str, model: str
) -> None:
    got = stream(mount(chain(fakes)), dialect, model=model)
    names = set()
    for event in got.events[:-1]:
        names |= {event.get("model"), (event.get("response") or {}).get("model")} - {None}
    assert names == {model}
    assert got.header("x-ai-model-mapped") == "a-m"
    told = {**last_json(got)}
    told.pop("x-aiproxy")
    assert "a-m" not in json.dumps([*got.events[:-2], told])


def test_usage_is_one_chunk_before_the_end(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-014; x-aiproxy is still on the last JSON frame."""
    got = stream(mount(chain(fakes)), stream_options={"include_usage": True})
    with_usage = [event for event in got.events[:-1] if event.get("usage")]
    assert with_usage == [last_json(got)]
    usage = with_usage[0]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert "x-aiproxy" in last_json(got)
    assert "estimated" not in last_json(got)["x-aiproxy"]


def test_usage_without_a_report_is_estimated_and_says_so(mount: Any, fakes: Any) -> None:
    got = stream(mount(chain(fakes)))
    assert last_json(got)["x-aiproxy"]["estimated"] is True


def test_parameters_resolve_as_without_a_stream(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-013."""
    served = mount(chain(fakes))
    asked = {"max_completion_tokens": "auto", "tools": "auto"}
    plain = served.chat(BEST, **asked)
    streamed = stream(served, **asked)
    one, two = (seen.body for seen in fakes.a.seen)
    assert two.pop("stream") is True
    one.pop("stream", None)
    assert one == two
    for name in ("x-ai-provider-used", "x-ai-model-mapped"):
        assert plain.header(name) == streamed.header(name)


def test_tool_calls_stream_as_they_come(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-015."""
    arguments = json.dumps({"city": "Zürich", "unit": "celsius", "days": [1, 2]})
    cuts = [arguments[i : i + 7] for i in range(0, len(arguments), 7)]

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        call = {"index": 0, "id": "call_1", "type": "function"}
        begin = {**call, "function": {"name": "weather", "arguments": ""}}
        wire.chunk(frame({"role": "assistant", "content": None, "tool_calls": [begin]}))
        for cut in cuts:
            wire.chunk(frame({"tool_calls": [{"index": 0, "function": {"arguments": cut}}]}))
        wire.chunk(frame({}, "tool_calls"), DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
    deltas = [event["choices"][0]["delta"] for event in got.events[:-1]]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert {piece["index"] for piece in pieces} == {0}
    told = "".join(piece["function"].get("arguments", "") for piece in pieces)
    assert json.loads(told) == json.loads(arguments)
    assert got.provider == "a"
    assert got.events[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_stream_flag_must_be_a_boolean(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-018."""
    got = mount(chain(fakes)).chat(BEST, stream="yes")
    assert (got.status, got.error["code"], got.error["param"]) == (400, "invalid_type", "stream")


def test_errors_before_the_stream_are_ordinary(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-010."""
    config = chain(fakes)
    config["routing"]["scope"] = "all"
    config["providers"]["a"]["models"][0]["name"] = "n"
    served = mount(config)
    got = stream(served, model="m", headers={"X-AI-Provider-Pool": "a"})
    assert got.status in (404, 422)
    assert got.header("content-type") == "application/json"
    fakes.b.script = Script(status=400)
    got = stream(served, model="m")
    assert (got.status, got.header("content-type")) == (400, "application/json")


# --- time ----------------------------------------------------------------------------------------


def test_chunks_are_forwarded_as_they_arrive(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-011."""
    sent: list[float] = []

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for word in ("first", "second", "third"):
            sent.append(time.monotonic())
            wire.chunk(frame({"content": word}))
            time.sleep(0.25)
        wire.chunk(STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream))
        with Tap(served.port, body("chat")[1], BEST) as tap:
            for number, word in enumerate((b"first", b"second", b"third")):
                tap.wait_for(word)
                assert time.monotonic() - sent[number] < 0.15
            assert b"[DONE]" not in tap.received
            assert tap.rest().count(b"[DONE]") == 1


def test_the_head_leaves_with_the_first_content(mount: Any, fakes: Any) -> None:
    """Decision headers come ahead of the first event (XAI-STREAM-003), once it is decided."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(ROLE)
        time.sleep(0.3)
        wire.chunk(frame({"content": "now"}), STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream))
        with Tap(served.port, body("chat")[1], BEST) as tap:
            assert tap.wait_for(b"\r\n\r\n") >= 0.3
            head = tap.received.partition(b"\r\n\r\n")[0].lower()
            assert b"x-ai-provider-used: a" in head
            assert b'"role": "assistant"' in tap.rest()


def test_a_slow_first_token_is_a_failure(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(ROLE)
        wire.hold()

    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream, first_token="200ms"))
        began = time.monotonic()
        got = stream(served)
        assert time.monotonic() - began < 1.0
        assert (got.provider, text(got)) == ("b", "served by b")
        assert got.selection["failover_reason"] == "timeout"
        assert upstream.wait_for_hangups(1)


def test_comments_do_not_keep_a_stream_without_content_alive(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        while True:
            wire.chunk(b": processing\n\n")
            time.sleep(0.05)

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream, first_token="200ms")))
        assert (got.provider, text(got)) == ("b", "served by b")


def test_keep_alive_comments_fill_the_silence(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "one "}))
        time.sleep(0.5)
        wire.chunk(frame({"content": "two"}), STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream, routing={"stream_keepalive": "100ms"})))
    assert text(got) == "one two"
    between = got.body.partition(b"one ")[2].partition(b"two")[0]
    assert 3 <= between.count(b": keep-alive\n\n") <= 5


def test_a_keep_alive_before_content_commits(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(ROLE)
        time.sleep(0.35)
        wire.chunk(frame({"content": "late"}), STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream, routing={"stream_keepalive": "100ms"}))
        with Tap(served.port, body("chat")[1], BEST) as tap:
            assert tap.wait_for(b": keep-alive") < 0.3
            assert b"late" in tap.rest()


def test_keep_alives_do_not_stretch_the_limits(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(ROLE)
        wire.hold()

    with WireUpstream(script) as upstream:
        routing = {"stream_keepalive": "80ms"}
        served = mount(wired(fakes, upstream, routing=routing, first_token="300ms"))
        began = time.monotonic()
        got = stream(served)
        assert 0.28 < time.monotonic() - began < 0.8
        assert got.events[-1]["error"]["code"] == "stream_interrupted"
        assert "[DONE]" not in got.events


# --- failures before content: nobody notices -----------------------------------------------------


def _cut(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(ROLE)


def _end_without_content(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(ROLE)
    wire.end()


def _error_chunk(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(ROLE, b'data: {"error":{"message":"SECRET","type":"overloaded_error"}}\n\n')
    wire.end()


def _error_event(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(b'event: error\ndata: {"message":"SECRET"}\n\n')
    wire.end()


def _error_finish(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(ROLE, frame({}, "error"), DONE)
    wire.end()


def _done_alone(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(ROLE, DONE)
    wire.end()


def _long_line(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    for _ in range(40):
        wire.chunk(b"data: " if _ == 0 else b"x" * 65536)
    wire.hold(1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_cut, "stream_interrupted"),
        (_end_without_content, "stream_interrupted"),
        (_error_chunk, "overloaded"),
        (_error_event, "invalid_response"),
        (_error_finish, "invalid_response"),
        (_done_alone, "stream_interrupted"),
        (_long_line, "invalid_response"),
    ],
)
def test_a_failure_before_content_is_invisible(
    mount: Any, fakes: Any, script: Any, reason: str
) -> None:
    """XAI-STREAM-008."""
    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream))
        got = stream(served)
        assert text(got) == "served by b"
        assert (got.provider, got.header("x-ai-failover-occurred")) == ("b", "true")
        assert got.selection["failover_reason"] == reason
        assert b"wire" not in got.body
        assert b"SECRET" not in got.body
        assert last_json(got)["x-aiproxy"]["failover"] is True
        assert [row["outcome"] for row in served.record(got)["attempts"]] == ["failed", "ok"]


def test_a_503_on_open_is_invisible(mount: Any, fakes: Any) -> None:
    """XAI-STREAM-008."""
    fakes.a.script = Script(status=503)
    got = stream(mount(chain(fakes)))
    assert (text(got), got.provider) == ("served by b", "b")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_failures_before_content_are_a_status(mount: Any, fakes: Any, dialect: str) -> None:
    """Lifecycle frames were held: no 200 had gone out."""
    if dialect == "responses":
        fakes.a.script = fakes.b.script = Script(cut_after=1)
    else:
        fakes.a.script = fakes.b.script = Script(cut_after=0)
    got = stream(mount(chain(fakes)), dialect)
    assert (got.status, got.error["code"]) == (502, "all_providers_failed")
    assert got.header("content-type") == "application/json"


def test_a_lone_provider_cut_before_content(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(cut_after=0)
    got = stream(mount(chain(fakes)), headers={"X-AI-Provider-Pool": "a"})
    assert (got.status, got.error["code"]) == (502, "upstream_invalid_response")


def test_lifecycle_frames_are_held_within_bounds(mount: Any, fakes: Any) -> None:
    """A flood without content is forwarded rather than kept."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for _ in range(400):
            wire.chunk(ROLE[:-2] + b"\n: " + b"x" * 1000 + b"\n\n")
        wire.chunk(frame({"content": "there"}), STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
        assert (got.provider, text(got)) == ("a", "there")


# --- failures after content: the stream says so --------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("how", ["cut", "error"])
def test_a_failure_after_content_ends_in_an_error(
    mount: Any, fakes: Any, dialect: str, how: str
) -> None:
    """XAI-STREAM-002, 009."""
    chunks = ["one ", "two ", "three "]
    if how == "error":
        if dialect == "responses":
            return _responses_error(mount, fakes)
        fakes.a.script = Script(chunks=chunks, error_after=2, gap_s=0.05)
    else:
        fakes.a.script = Script(chunks=chunks, cut_after=5 if dialect == "responses" else 2)
    served = mount(chain(fakes))
    got = stream(served, dialect)
    assert (got.status, got.provider) == (200, "a")
    assert text(got).startswith("one two")
    assert b"SECRET" not in got.body
    assert "b" not in fakes.called()
    _ended_in_error(got, dialect)
    record = served.record(got)
    assert (record["outcome"], record["error"]["code"]) == ("failed", "stream_interrupted")
    assert [row["outcome"] for row in record["attempts"]] == ["failed"]
    return None


def _responses_error(mount: Any, fakes: Any) -> None:
    def event(kind: str, **more: Any) -> bytes:
        data = json.dumps({"type": kind, **more})
        return f"event: {kind}\ndata: {data}\n\n".encode()

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(event("response.created", response={"id": "r", "model": "x"}))
        wire.chunk(event("response.output_text.delta", delta="one two", output_index=0))
        time.sleep(0.05)
        wire.chunk(event("error", message="SECRET", code="server_error"))
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)), "responses")
    assert text(got) == "one two"
    assert b"SECRET" not in got.body
    _ended_in_error(got, "responses")


def _ended_in_error(got: Got, dialect: str) -> None:
    if dialect in ("chat", "completions"):
        assert got.events[-1]["error"]["code"] == "stream_interrupted"
        assert set(got.events[-1]["error"]) == {"message", "type", "param", "code"}
        assert "[DONE]" not in got.events
        return
    error, failed, done = got.events[-3:]
    assert (error["type"], error["error"]["code"]) == ("error", "stream_interrupted")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "server_error"
    assert failed["sequence_number"] == error["sequence_number"] + 1
    assert done == "[DONE]"


def test_silence_after_content_is_an_error(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "one"}))
        wire.hold()

    with WireUpstream(script) as upstream:
        served = mount(wired(fakes, upstream, idle="200ms"))
        began = time.monotonic()
        got = stream(served)
        assert time.monotonic() - began < 1.0
        _ended_in_error(got, "chat")
        assert served.record(got)["attempts"][0]["error"] == "timeout"
        assert upstream.wait_for_hangups(1)


def test_the_deadline_ends_a_stream_too(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        while True:
            wire.chunk(frame({"content": "more "}))
            time.sleep(0.05)

    with WireUpstream(script) as upstream:
        began = time.monotonic()
        got = stream(mount(wired(fakes, upstream, routing={"timeout": "400ms"})))
        assert 0.35 < time.monotonic() - began < 1.0
        _ended_in_error(got, "chat")


def test_a_cut_after_the_finish_reason_is_complete(mount: Any, fakes: Any) -> None:
    """Complete means that a finish reason was seen, with or without [DONE]."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "all"}), STOP)

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
    assert (text(got), got.events[-1]) == ("all", "[DONE]")
    assert "x-aiproxy" in last_json(got)


def test_an_end_without_done_is_complete(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(done=False)
    got = stream(mount(chain(fakes)))
    assert (text(got), got.events[-1]) == ("served by a", "[DONE]")


def test_an_end_without_a_finish_reason_is_not(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(finish=False, done=True)
    _ended_in_error(stream(mount(chain(fakes))), "chat")


def test_one_unreadable_event_is_skipped(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "one "}), b"data: {nonsense\n\n", b"data: 5\n\n")
        wire.chunk(frame({"content": "two"}), STOP, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
    assert (text(got), got.events[-1]) == ("one two", "[DONE]")
    assert b"nonsense" not in got.body


def test_a_router_upstream_gives_way_to_our_own_account(mount: Any, fakes: Any) -> None:
    """Its x-aiproxy member is replaced: one name, one value."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        last = frame({}, "stop", **{"x-aiproxy": {"provider": "theirs"}})
        wire.chunk(frame({"content": "hi"}), last, DONE)
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
    assert got.body.count(b'"x-aiproxy"') == 1
    assert last_json(got)["x-aiproxy"]["provider"] == "a"


# --- how bytes are cut ---------------------------------------------------------------------------

WORDS = "naïve 🙂 日本語 “quotes”"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_any_slicing_gives_the_same_text(mount: Any, fakes: Any, size: int, ending: bytes) -> None:
    """XAI-STREAM-017."""
    wire_bytes = b": hello\n\n" + chat_stream(WORDS).replace(b"data: {", b"data:{", 1)
    wire_bytes = wire_bytes.replace(b"\n", ending)

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(*(wire_bytes[i : i + size] for i in range(0, len(wire_bytes), size)))
        wire.end()

    with WireUpstream(script) as upstream:
        got = stream(mount(wired(fakes, upstream)))
    assert got.provider == "a"
    payloads = [
        json.loads(line[5:])
        for line in got.body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if line.startswith("data:") and "[DONE]" not in line
    ]
    said = "".join(p["choices"][0]["delta"].get("content") or "" for p in payloads)
    assert said == WORDS
    assert got.body.count(b"[DONE]") == 1


# --- a document instead of a stream --------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["chat", "responses", "union"])
def test_a_document_is_told_as_a_stream(mount: Any, fakes: Any, dialect: str) -> None:
    """Some providers ignore ``stream``; their answer is whole, so it is told as asked for."""
    from upstreams import response_object

    document: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "theirs",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "in one piece"},
                "finish_reason": "length",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    if dialect == "responses":
        document = response_object("a", "theirs", "in one piece")
    fakes.a.script = Script(body=document)
    served = mount(chain(fakes))
    got = stream(served, dialect)
    assert (got.status, got.provider) == (200, "a")
    assert (got.header("content-type") or "").startswith("text/event-stream")
    assert text(got) == "in one piece"
    assert got.events[-1] == "[DONE]"
    assert last_json(got)["x-aiproxy"]["provider"] == "a"
    assert "theirs" not in got.body.decode()
    if dialect == "chat":
        assert last_json(got)["choices"][0]["finish_reason"] == "length"
    record = served.record(got)
    assert record["outcome"] == "ok"
    assert record["usage"]["output_tokens"] in (4, 12)


def test_a_document_with_tool_calls_as_a_stream(mount: Any, fakes: Any) -> None:
    call = {"id": "call_9", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    fakes.a.script = Script(body={"id": "x", "model": "y", "choices": [choice]})
    got = stream(mount(chain(fakes)))
    calls = [
        piece
        for event in got.events[:-1]
        for choice in event["choices"]
        for piece in choice["delta"].get("tool_calls", [])
    ]
    assert calls[0]["id"] == "call_9"
    assert "".join(c["function"].get("arguments", "") for c in calls) == '{"a":1}'


def test_a_completions_document_is_told_as_a_stream(mount: Any, fakes: Any) -> None:
    choice = {"index": 0, "text": "whole", "finish_reason": "stop"}
    fakes.a.script = Script(body={"id": "x", "choices": [choice]})
    got = stream(mount(chain(fakes)), "completions")
    assert (got.provider, text(got)) == ("a", "whole")
