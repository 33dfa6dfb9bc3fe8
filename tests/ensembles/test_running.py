"""Members side by side: deadlines, clients that leave, streams and every client's own dialect."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from mounts import HELLO
from tap import Tap
from upstreams import Script
from wire import Wire, WireUpstream

req = pytest.mark.requirement

ASK = {"model": "ensemble/e"}
HEADERS = {"X-AI-Multi-Provider": "enabled"}


def until(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def silent(wire: Wire) -> None:
    wire.hold()


def at(url: str) -> dict[str, Any]:
    return {"endpoint": url}


# --- time ----------------------------------------------------------------------------------------


@req("UNI-ENS-007")
def test_a_late_member_is_stopped_and_its_connection_closed(panel: Any, fakes: Any) -> None:
    """UNI-ENS-007: the answers that are there in time count; nobody waits for the third."""
    fakes.a.script = fakes.b.script = Script(text="x")
    with WireUpstream(silent) as slow:
        served = panel(timeout="300ms", facts={"c": at(slow.url)})
        began = time.monotonic()
        got = served.chat(HEADERS, **ASK)
        took = time.monotonic() - began
        assert got.status == 200, got.body
        assert 0.28 < took < 0.6
        assert slow.wait_for_hangups(1)
        assert slow.hangups[0] - began < 0.6
    found = served.record(got)["ensemble"]
    assert [row["outcome"] for row in found["members"]] == ["ok", "ok", "late"]
    assert found["members"][2]["reason"] == "deadline_passed"
    assert found["members"][2]["latency_ms"] == pytest.approx(300, abs=60)
    assert (found["agreement"], found["confidence"]) == (1.0, 0.6667)
    attempt = served.record(got)["attempts"][2]
    assert (attempt["outcome"], attempt["error"]) == ("aborted", "timeout")


def test_too_few_answers_in_time_are_504(panel: Any, fakes: Any) -> None:
    with WireUpstream(silent) as slow:
        served = panel(timeout="200ms", facts={"b": at(slow.url), "c": at(slow.url)})
        got = served.chat(**ASK)
        assert (got.status, got.error["code"]) == (504, "upstream_timeout")
        assert got.header("x-should-retry") == "false"
        assert slow.wait_for_hangups(2)


def test_the_requests_own_deadline_binds_too(panel: Any, fakes: Any) -> None:
    with WireUpstream(silent) as slow:
        served = panel(facts={"c": at(slow.url)}, sections={"routing": {"timeout": "400ms"}})
        began = time.monotonic()
        got = served.chat(**ASK)
        assert got.status == 200, got.body
        assert time.monotonic() - began < 0.8
        assert slow.wait_for_hangups(1)
    assert served.record(got)["ensemble"]["members"][2]["outcome"] == "failed"


def test_the_others_are_let_go_when_no_quorum_is_left(panel: Any, fakes: Any) -> None:
    fakes.a.script = fakes.b.script = Script(status=400)
    with WireUpstream(silent) as slow:
        served = panel(facts={"c": at(slow.url)})
        began = time.monotonic()
        got = served.chat(**ASK)
        assert got.status == 400
        assert time.monotonic() - began < 0.5
        assert slow.wait_for_hangups(len(slow.seen))


def test_a_slow_cascade_member_gives_way_to_the_next(panel: Any, fakes: Any) -> None:
    with WireUpstream(silent) as slow:
        served = panel(
            method="cascade",
            timeout="200ms",
            facts={"a": at(slow.url)},
            prices={"a": 0.0001, "b": 0.001, "c": 0.01},
        )
        got = served.chat(**ASK)
        assert got.status == 200, got.body
        assert got.json["choices"][0]["message"]["content"] == "served by b"
        assert slow.wait_for_hangups(1)
    rows = served.record(got)["ensemble"]["members"]
    assert [row["outcome"] for row in rows] == ["late", "ok", "not_asked"]


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_all_members_along(panel: Any, fakes: Any, stream: bool) -> None:
    """Every member's connection is closed within 100 ms; the record has all of them as aborted."""
    with WireUpstream(silent) as slow:
        served = panel(facts=dict.fromkeys("abc", at(slow.url)))
        body = {**ASK, "messages": HELLO, "stream": stream}
        with Tap(served.port, body, HEADERS) as tap:
            assert until(lambda: len(slow.seen) == 3)
            time.sleep(0.08)  # past the time in which a request is not watched
            left = time.monotonic()
            tap.leave()
            assert slow.wait_for_hangups(3)
        assert max(slow.hangups) - left < 0.1
        assert until(lambda: bool(served.gateway.decisions._rows))
        rows = served.gateway.decisions._rows
        record = rows[next(reversed(rows))].record()
        assert record["outcome"] == "aborted"
        assert [row["outcome"] for row in record["attempts"]] == ["aborted"] * 3
        model = served.gateway.registry.by_name["m-a"][0]
        assert model.track.in_flight == 0


def test_a_member_fails_over_within_itself(panel: Any, fakes: Any) -> None:
    """A member without a provider is served by whoever serves its model."""
    model = {"name": "m-a", "model": "up-x", "quality": 0.8, "cost_per_1k_tokens": 0.002}
    more = {"x": {"type": "openai_compatible", "endpoint": fakes.x.url, "models": [model]}}
    fakes.a.script = Script(status=503)
    served = panel(more=more)
    got = served.chat({"X-AI-Routing-Strategy": "cost"}, **ASK)
    assert got.status == 200
    record = served.record(got)
    assert record["strategy"] == "cost"
    assert record["ignored"] == []
    assert record["ensemble"]["members"][0]["provider"] == "x"
    assert sorted(row["provider"] for row in record["attempts"]) == ["a", "b", "c", "x"]
    # one that names its provider has only that one
    members = [{"model": "m-a", "provider": "a"}, {"model": "m-b"}, {"model": "m-c"}]
    served = panel(more=more, members=members)
    fakes.x.seen.clear()
    got = served.chat({"X-AI-Routing-Strategy": "cost"}, **ASK)
    assert got.status == 200
    assert served.record(got)["ensemble"]["members"][0]["outcome"] == "failed"
    assert "x" not in fakes.called()


def test_every_member_gets_a_key_of_its_own_against_doing_things_twice(
    panel: Any, fakes: Any
) -> None:
    """Two members at one provider are two requests, and the same ones when the client repeats."""
    served = panel()
    for _ in range(2):
        served.chat({"Idempotency-Key": "k1"}, **ASK)
    keys = [[seen.headers["idempotency-key"] for seen in fakes[name].seen] for name in "abc"]
    assert keys == [["k1-member-0"] * 2, ["k1-member-1"] * 2, ["k1-member-2"] * 2]


# --- every client's own dialect ------------------------------------------------------------------

TEXT = "The capital is Paris."
ON = {**HEADERS, "content-type": "application/json"}
SAID: dict[str, Callable[[Any], Any]] = {
    "chat": lambda d: d["choices"][0]["message"]["content"],
    "responses": lambda d: d["output"][-1]["content"][0]["text"],
    "draft": lambda d: d["choices"][0]["message"]["content"],
    "completions": lambda d: d["choices"][0]["text"],
    "anthropic": lambda d: d["content"][0]["text"],
    "gemini": lambda d: d["candidates"][0]["content"]["parts"][0]["text"],
    "predict": lambda d: d["output"],
}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {**ASK, "messages": HELLO}),
    "responses": ("/v1/responses", {**ASK, "input": "Hello"}),
    "draft": ("/v1/responses", {**ASK, "messages": HELLO}),
    "completions": ("/v1/completions", {**ASK, "prompt": "Hello"}),
    "anthropic": ("/v1/messages", {**ASK, "messages": HELLO, "max_tokens": 99}),
    "gemini": (
        "/v1beta/models/ensemble/e:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
    ),
    "predict": ("/aiproxy/predict", {**ASK, "input": "Hello"}),
}
#: Prompt and completion tokens of three members, wherever a dialect has them.
TOKENS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda d: (d["usage"]["prompt_tokens"], d["usage"]["completion_tokens"]),
    "responses": lambda d: (d["usage"]["input_tokens"], d["usage"]["output_tokens"]),
    "draft": lambda d: (d["usage"]["prompt_tokens"], d["usage"]["output_tokens"]),
    "completions": lambda d: (d["usage"]["prompt_tokens"], d["usage"]["completion_tokens"]),
    "anthropic": lambda d: (d["usage"]["input_tokens"], d["usage"]["output_tokens"]),
    "gemini": lambda d: (
        d["usageMetadata"]["promptTokenCount"],
        d["usageMetadata"]["candidatesTokenCount"],
    ),
    "predict": lambda d: (d["metadata"]["tokens"]["input"], d["metadata"]["tokens"]["output"]),
}


@pytest.mark.parametrize("kind", ASKED)
def test_every_endpoint_has_ensembles(panel: Any, fakes: Any, kind: str) -> None:
    """One standard answer in the client's dialect: the ensemble's name, the sum of all tokens."""
    fakes.a.script, fakes.b.script = Script(text=TEXT), Script(text=TEXT.upper())
    served = panel()
    path, body = ASKED[kind]
    got = served.post(path, body, ON)
    assert got.status == 200, got.body
    document = got.json
    assert SAID[kind](document) == TEXT
    assert TOKENS[kind](document) == (27, 36)
    named = document.get("modelVersion") if kind == "gemini" else document["model"]
    assert named == "ensemble/e"
    assert got.header("x-ai-model-mapped") == "up-a"
    found = served.record(got)["ensemble"]
    assert (found["agreement"], found["winner"]) == (0.6667, 0)
    for name in "abc":
        assert fakes[name].seen[-1].body["model"] == f"up-{name}"
        assert not fakes[name].seen[-1].body.get("stream")


STREAMS = [kind for kind in ASKED if kind != "predict"]


def told(kind: str, events: list[Any]) -> str:
    if kind == "gemini":
        parts = [p for e in events for c in e["candidates"] for p in c["content"].get("parts", ())]
        return "".join(part.get("text", "") for part in parts)
    if kind == "anthropic":
        return "".join(e["delta"].get("text", "") for e in events if e["type"].endswith("_delta"))
    if kind in ("responses", "draft"):
        return "".join(e["delta"] for e in events if e.get("type", "").endswith("text.delta"))
    member = "text" if kind == "completions" else "delta"
    choices = [choice for e in events for choice in e["choices"]]
    if member == "text":
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_tells_the_whole_result(panel: Any, fakes: Any, kind: str) -> None:
    """The members answer whole documents; the client gets the winner's as a stream that ends well."""
    fakes.a.script, fakes.b.script = Script(text=TEXT), Script(text=TEXT)
    served = panel()
    path, body = ASKED[kind]
    if kind == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    else:
        body = {**body, "stream": True}
    if kind in ("chat", "completions"):
        body["stream_options"] = {"include_usage": True}
    got = served.post(path, body, ON)
    assert got.status == 200, got.body
    assert got.header("content-type").startswith("text/event-stream")
    events = [event for event in got.events if event != "[DONE]"]
    if kind not in ("anthropic", "gemini"):
        assert got.events[-1] == "[DONE]"
    assert told(kind, events) == TEXT
    flat = json.dumps(events)
    assert '"ensemble/e"' in flat
    assert '"x-aiproxy"' in flat
    for name in "abc":
        assert not fakes[name].seen[-1].body.get("stream")
        assert "stream_options" not in fakes[name].seen[-1].body
    record = served.record(got)
    assert (record["outcome"], record["usage"]["total_tokens"]) == ("ok", 63)
    if kind == "chat":
        usages = [event["usage"] for event in events if event.get("usage")]
        assert [usage["total_tokens"] for usage in usages] == [63]


def test_members_may_speak_other_dialects_than_the_client(panel: Any, fakes: Any) -> None:
    """A chat client, an Anthropic client and members of the Responses API agree all the same."""
    facts = {"b": {"dialects": ["responses"]}, "c": {"dialects": ["responses"]}}
    fakes.b.script, fakes.c.script = Script(text=TEXT), Script(text=TEXT)
    served = panel(facts=facts)
    for kind in ("chat", "anthropic"):
        path, body = ASKED[kind]
        got = served.post(path, body, ON)
        assert got.status == 200, got.body
        assert SAID[kind](got.json) == TEXT
        assert TOKENS[kind](got.json) == (27, 36)


def test_nobodys_health_is_told_twice(panel: Any, fakes: Any) -> None:
    """Telling the answer says nothing of who gave it: one success a member, streamed or not."""
    served = panel()
    counted: list[str] = []
    for name in "abc":
        track = served.gateway.registry.by_name[f"m-{name}"][0].track
        real = track.succeeded

        class Counting(type(track)):  # type: ignore[misc]
            __slots__ = ()

            def succeeded(self, *args: Any, **more: Any) -> Any:
                counted.append("one")
                return super().succeeded(*args, **more)

        assert callable(real)
        track.__class__ = Counting
    served.chat(HEADERS, **ASK)
    assert len(counted) == 3
    served.chat(HEADERS, **ASK, stream=True)
    assert len(counted) == 6


def test_googles_json_array_is_a_stream_too(panel: Any, fakes: Any) -> None:
    """Without ``alt=sse`` a Gemini client reads one JSON array."""
    fakes.a.script, fakes.b.script = Script(text=TEXT), Script(text=TEXT)
    path, body = ASKED["gemini"]
    got = panel().post(path.replace(":generateContent", ":streamGenerateContent"), body, ON)
    assert got.status == 200, got.body
    assert told("gemini", got.json) == TEXT
