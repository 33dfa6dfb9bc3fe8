"""Answers no decent provider gives: each ends as a failure of that provider, never of ours."""

import time
from typing import Any

import orjson
import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import Script
from wire import STREAM_HEAD, Wire, WireUpstream

from aiproxy.middleware.answering import told, waits
from aiproxy.middleware.answering.passing import PassThrough
from aiproxy.middleware.dialects.sse import encode

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
BEST = {"X-AI-Routing-Strategy": "quality"}
CLAUDE, GOOGLE = "claude-sonnet-4-5", "gemini-2.5-flash"
EVENTS = "text/event-stream"
MESSAGES = "/v1/messages"


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def asked(dialect: str, stream: bool) -> tuple[str, dict[str, Any]]:
    """A client's request in a dialect: path and body."""
    if dialect == "gemini":
        action = "streamGenerateContent?alt=sse" if stream else "generateContent"
        contents = [{"role": "user", "parts": [{"text": "Hello"}]}]
        return f"/v1beta/models/m:{action}", {"contents": contents}
    body: dict[str, Any] = {"model": "m", "stream": stream}
    if dialect == "responses":
        return RESPONSES, {**body, "input": "Hello"}
    if dialect == "anthropic":
        return MESSAGES, {**body, "max_tokens": 9, "messages": HELLO}
    return CHAT, {**body, "messages": HELLO}


def two(fakes: Any, dialect: str, **facts: Any) -> Any:
    """a and b; a answers in ``dialect`` and goes first."""
    row = {"name": "m", "model": "up", "quality": 0.9, **facts}
    providers = {
        "a": {"dialects": [dialect], "models": [row]},
        "b": {"dialects": ["chat"], "models": [{"name": "m", "quality": 0.5}]},
    }
    return fakes.config(providers)


@pytest.mark.parametrize("levels", [100, 980, 1020])
@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_nested_too_deeply_says_nothing(
    mount: Any, fakes: Any, status: int, levels: int
) -> None:
    fakes.a.script = Script(status=status, raw=deep(levels))
    got = mount(two(fakes, "chat")).post(*asked("chat", False), BEST)
    assert got.status == (400 if status == 400 else 200), got
    assert got.status == 400 or got.provider == "b"


def test_reading_an_error_takes_any_nesting() -> None:
    for levels in (4, 500, 1000, 1023):
        for wrapped in (
            deep(levels),
            b'{"error":%b}' % deep(levels),
            b'{"detail":%b}' % deep(levels),
        ):
            assert told.read(wrapped).words == ()


#: Whole replies and frames whose nesting is deeper than can be written again.
def replies(dialect: str, nested: bytes) -> bytes:
    if dialect == "anthropic":
        return (
            b'{"id":"msg_1","type":"message","role":"assistant","model":"up","content":[{"type":'
            b'"tool_use","id":"t","name":"browser","input":{"a":%b}}],"stop_reason":"tool_use",'
            b'"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}' % nested
        )
    if dialect == "gemini":
        return (
            b'{"candidates":[{"index":0,"content":{"role":"model","parts":[{"functionCall":{"name":'
            b'"browser","args":{"a":%b}}}]},"finishReason":"STOP"}],"modelVersion":"up",'
            b'"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}' % nested
        )
    if dialect == "responses":
        return (
            b'{"id":"r","object":"response","status":"completed","model":"up","output":[{"type":'
            b'"message","role":"assistant","content":[{"type":"output_text","text":"hi",'
            b'"annotations":[]}]}],"zzz":%b}' % nested
        )
    return (
        b'{"id":"c","object":"chat.completion","model":"up","choices":[{"index":0,"message":{"role":'
        b'"assistant","content":"hi"},"finish_reason":"stop"}],"zzz":%b}' % nested
    )


@pytest.mark.parametrize("levels", [300, 1000])
@pytest.mark.parametrize("client", ["anthropic", "gemini", "chat", "responses"])
@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "chat", "responses"])
def test_a_reply_nested_too_deeply(
    mount: Any, fakes: Any, dialect: str, client: str, levels: int
) -> None:
    fakes.a.script = Script(raw=replies(dialect, deep(levels)))
    served = mount(two(fakes, dialect, tools={"web_scraper": "browser"}))
    path, body = asked(client, False)
    for tools in ({}, {"tools": "auto"}):
        headers = {**BEST, **({"X-AI-Tools": "web_scraper"} if tools else {})}
        got = served.post(path, {**body, **tools}, headers)
        assert got.status == 200, got


def frames(dialect: str, nested: bytes) -> bytes:
    spaced = b'"model"  :  "up"'
    if dialect == "anthropic":
        rows = [
            b'{"type":"message_start","message":{%b,"zzz":%b}}' % (spaced, nested),
            b'{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_result",'
            b'"content":%b}}' % nested,
            b'{"type":"content_block_stop","index":0}',
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}',
            b'{"type":"message_stop"}',
        ]
    elif dialect == "gemini":
        rows = [
            b'{"candidates":[{"index":0,"content":{"parts":[{"functionCall":{"name":"browser",'
            b'"args":{"a":%b}}}]},"finishReason":"STOP"}],"modelVersion"  :  "up"}' % nested
        ]
    elif dialect == "responses":
        rows = [
            b'{"type":"response.created","response":{%b,"zzz":%b}}' % (spaced, nested),
            b'{"type":"response.output_item.done","output_index":0,"item":{"type":'
            b'"web_search_call","id":"w","action":%b}}' % nested,
            b'{"type":"response.completed","response":{%b,"status":"completed","output":[],'
            b'"zzz":%b}}' % (spaced, nested),
        ]
    else:
        rows = [
            b'{%b,"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a"'
            b',"logprob":-1,"top_logprobs":[%b]}]},"finish_reason":"stop"}],"zzz":%b}'
            % (spaced, nested, nested)
        ]
    return b"".join(encode(row) for row in rows) + (
        b"data: [DONE]\n\n" if dialect == "chat" else b""
    )


@pytest.mark.parametrize("client", ["anthropic", "gemini", "chat", "responses"])
@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "chat", "responses"])
@pytest.mark.parametrize("levels", [300, 1000])
def test_a_stream_nested_too_deeply(
    mount: Any, fakes: Any, dialect: str, client: str, levels: int
) -> None:
    wire = frames(dialect, deep(levels))
    fakes.a.script = Script(raw=wire, content_type=EVENTS)
    got = mount(two(fakes, dialect)).post(*asked(client, True), BEST)
    assert got.status == 200, got
    told_of_it = b"error" in got.body or got.provider == "b"
    ended = {"anthropic": b"message_stop", "gemini": b"finishReason", "chat": b"[DONE]"}
    assert told_of_it or ended.get(client, b"response.completed") in got.body, got.body[:2000]


@pytest.mark.parametrize("client", ["anthropic", "gemini"])
@pytest.mark.parametrize("document", [False, True])
def test_more_than_may_be_held_of_a_stream(
    mount: Any, fakes: Any, monkeypatch: Any, client: str, document: bool
) -> None:
    """The client's dialect has to hold arguments or thoughts: above its bound nobody's bug shows."""
    from aiproxy.middleware.dialects.anthropic import stream_out as claude
    from aiproxy.middleware.dialects.gemini import stream_out as google

    monkeypatch.setattr(claude, "_MOST_HELD", 1000)
    monkeypatch.setattr(google, "MAX_HELD", 1000)
    long = '{"a":"' + "x" * 3000 + '"}'
    calls = [
        {
            "index": i,
            "id": f"c{i}",
            "type": "function",
            "function": {"name": "f", "arguments": long},
        }
        for i in range(3)
    ]
    # several calls in turns: all but the first have to wait
    mixed = {"role": "assistant", "content": None, "reasoning_content": "y" * 3000}
    if document:
        message = {**mixed, "tool_calls": calls}
        body = {
            "id": "c",
            "object": "chat.completion",
            "model": "up",
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        }
        fakes.a.script = Script(body=body)
    else:
        rows: list[Any] = [{"choices": [{"index": 0, "delta": {**mixed, "tool_calls": calls}}]}]
        rows.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        wire = b"".join(encode(orjson.dumps(row)) for row in rows) + b"data: [DONE]\n\n"
        fakes.a.script = Script(raw=wire, content_type=EVENTS)
    got = mount(two(fakes, "chat")).post(*asked(client, True), BEST)
    assert got.status == 200, got
    assert got.provider == "b" or b"error" in got.body, got.body[:500]


def test_waits_read_anything() -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    @given(st.text(max_size=80), st.text(alphabet="0123456789:-TZ+. ,GMTadhms", max_size=40))
    def holds(one: str, other: str) -> None:
        for value in (one, other):
            found = waits.retry_after((("retry-after", value), ("x-ratelimit-reset", value)), 1e9)
            assert found is None or found >= 0
            waits.in_prose(f"try again in {value}")

    holds()


def test_frames_held_at_a_keep_alive_are_sent_before_the_error(mount: Any, fakes: Any) -> None:
    """A client of the Responses API has to see the response begin before it fails."""
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(encode(orjson.dumps(created), "response.created"))
        time.sleep(0.3)
        wire.chunk(encode(b'{"type":"error","message":"SECRET"}', "error"))
        wire.end()

    with WireUpstream(script) as upstream:
        config = fakes.config(
            {"a": {"dialects": ["responses"], "models": [{"name": "m"}]}},
            routing={"stream_keepalive": "100ms"},
        )
        config["providers"]["a"]["endpoint"] = upstream.url
        got = mount(config).post(*asked("responses", True), BEST)
    kinds = [event["type"] for event in got.events if event != "[DONE]"]
    assert kinds == ["response.created", "error", "response.failed"]
    assert b"SECRET" not in got.body


@req("AIP-FAIL-010")
def test_what_a_failed_stream_reports_is_on_its_attempt(mount: Any, fakes: Any) -> None:
    start = {
        "type": "message_start",
        "message": {"id": "x", "model": "up", "usage": {"input_tokens": 700, "output_tokens": 1}},
    }
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    wire = b"".join(encode(orjson.dumps(row), str(row["type"])) for row in (start, fault))
    fakes.a.script = Script(raw=wire, content_type=EVENTS)
    served = mount(two(fakes, "anthropic", cost_per_1k_tokens=0.001))
    got = served.post(*asked("anthropic", True), BEST)
    assert got.provider == "b"
    first = served.record(got)["attempts"][0]
    assert first["usage"]["input_tokens"] == 700
    assert first["cost_usd"] == pytest.approx(0.000701)


@pytest.mark.parametrize("client", ["anthropic", "chat", "responses", "gemini"])
@pytest.mark.parametrize("document", [False, True])
def test_an_image_in_an_answer_is_shown_or_declared(
    mount: Any, fakes: Any, client: str, document: bool
) -> None:
    parts = [{"text": "here"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]
    content = {"role": "model", "parts": parts}
    candidate = {"index": 0, "content": content, "finishReason": "STOP"}
    body = {"candidates": [candidate], "modelVersion": "up"}
    raw = encode(orjson.dumps(body))
    fakes.a.script = Script(body=body) if document else Script(raw=raw, content_type=EVENTS)
    served = mount(two(fakes, "gemini"))
    got = served.post(*asked(client, True), BEST)
    assert got.provider == "a"
    assert b"here" in got.body
    lost = [loss["feature"] for loss in served.record(got)["losses"]]
    assert lost or b"AAAA" in got.body
    assert (b"AAAA" in got.body) == (client == "gemini")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("dialect", ["anthropic", "chat", "gemini"])
def test_all_but_the_last_frame_keeps_its_bytes(dialect: str, ending: bytes) -> None:
    """Also the frames that could have been the last one, and fields of theirs we do not read."""
    rows: list[tuple[str | None, bytes]]
    if dialect == "anthropic":
        rows = [
            ("message_start", b'{"type":"message_start","message":{"model":"m"}}'),
            ("message_delta", b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}'),
            ("ping", b'{"type": "ping"}'),
            ("message_stop", b'{"type":"message_stop"}'),
        ]
    elif dialect == "gemini":
        part = b'{"candidates": [{"content": {"parts": [{"text": "a"}]}%b}], "modelVersion": "m"}'
        rows = [(None, part % b""), (None, part % b', "finishReason": "STOP"'), (None, part % b"")]
    else:
        chunk = b'{"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": %b}]}'
        rows = [(None, chunk % b"null"), (None, chunk % b'"stop"'), (None, b'{"choices":[]}')]
    wire = [
        b"id: 7%bevent:%b%bdata:%b%b%b"
        % (ending, (name or "message").encode(), ending, data, ending, ending)
        for name, data in rows
    ]
    passing = PassThrough(dialect, "m")
    sent = b"".join(passing.feed(frame) for frame in wire)
    assert sent == b"".join(wire[:-1])
    assert passing.finished


@pytest.mark.parametrize("more", [b"", b"data: [DONE]\n\n"])
def test_a_whole_message_ends_as_a_message_does(mount: Any, fakes: Any, more: bytes) -> None:
    """The stop reason makes it whole; the last event is ours to add, as ``[DONE]`` is in chat."""
    rows: list[Any] = [
        {"type": "message_start", "message": {"id": "x", "type": "message", "model": "up"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "hi"},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}},
    ]
    wire = b"".join(encode(orjson.dumps(row), str(row["type"])) for row in rows) + more
    fakes.a.script = Script(raw=wire, content_type=EVENTS)
    got = mount(two(fakes, "anthropic")).post(*asked("anthropic", True), BEST)
    kinds = [event["type"] for event in got.events]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_stop") == 1
    assert "x-aiproxy" in got.events[-1]


UNREAD = {
    "type": "error",
    "error": {
        "type": "invalid_request_error",
        "message": "messages.1.content.0: Invalid `signature` in `thinking` block",
    },
}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
SIGNED = [
    *HELLO,
    {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "Hi"}]},
    *HELLO,
]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "up",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.mark.parametrize("policy", ["none", "automatic"])
def test_what_a_provider_cannot_read_is_taken_out_once(mount: Any, fakes: Any, policy: str) -> None:
    served = mount(two(fakes, "anthropic"))
    headers = {**BEST, "X-AI-Failover-Policy": policy, "Idempotency-Key": "once"}
    body = {"model": "m", "max_tokens": 9, "messages": SIGNED}
    fakes.a.queue = [Script(status=400, body=UNREAD), Script(body=MESSAGE)]
    got = served.post(MESSAGES, body, headers)
    assert (got.status, got.provider) == (200, "a"), got
    first, second = fakes.a.seen
    assert first.body["messages"] == SIGNED
    assert THOUGHT not in second.body["messages"][1]["content"]
    assert "idempotency-key" not in second.headers
    assert served.record(got)["losses"][0]["feature"] == "reasoning"
    fakes.a.script = Script(status=400, body=UNREAD)
    got = served.post(MESSAGES, body, headers)
    assert len(fakes.a.seen) == 4
    if policy == "none":
        assert got.status >= 400
        assert fakes.called() == {"a": 4}
    else:
        assert (got.status, got.provider) == (200, "b")
