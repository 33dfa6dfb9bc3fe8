"""A stream that breaks off is carried on by another provider (routing.failover.mid_stream: resume)."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mounts import HELLO, RESPONSES, Got, model
from upstreams import responses_frames
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

from aiproxy.middleware.effects import Answer, Call, Failure, Read, Send
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound

BEST = {"X-AI-Routing-Strategy": "quality"}
QUALITY = {"a": 0.9, "b": 0.8, "c": 0.7}
STORY = "Once upon a time there was a router."

Script = Callable[[Wire], None]


def says(*texts: str, breaks: bool = False, usage: dict[str, int] | None = None) -> Script:
    """A chat stream of these texts, which breaks off after them or ends well."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "content": ""}))
        for text in texts:
            wire.chunk(frame({"content": text}))
        if breaks:
            return
        wire.chunk(frame({}, "stop"))
        if usage is not None:
            told = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            row = json.dumps({**told, "choices": [], "usage": usage}).encode()
            wire.chunk(b"data: " + row + b"\n\n")
        wire.chunk(DONE)
        wire.end()

    return script


@pytest.fixture
def chain(mount: Any, fakes: Any) -> Any:
    """``chain(a=script, b=script)`` mounts providers in the order in which they are asked."""
    opened: list[WireUpstream] = []

    def build(facts: dict[str, Any] | None = None, /, **scripts: Script) -> Any:
        config = fakes.config(
            {n: [model("m", quality=QUALITY[n], **(facts or {}))] for n in scripts},
            routing={"failover": {"mid_stream": "resume"}},
        )
        upstreams = {}
        for name, script in scripts.items():
            upstreams[name] = WireUpstream(script).__enter__()
            opened.append(upstreams[name])
            config["providers"][name]["endpoint"] = upstreams[name].url
        served = mount(config)
        served.upstreams = upstreams
        return served

    yield build
    for upstream in opened:
        upstream.__exit__(None, None, None)


def told(got: Got) -> str:
    """The text that a chat client put together."""
    deltas = [e["choices"][0]["delta"] for e in got.events if e != "[DONE]" and e.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


def ended_well(got: Got) -> dict[str, Any]:
    """The client's ``x-aiproxy`` of a stream that is whole, to every client of Chat Completions."""
    assert got.events[-1] == "[DONE]", got.body
    assert not any("error" in event for event in got.events[:-1])
    ids = {event["id"] for event in got.events[:-1]}
    roles = [e for e in got.events[:-1] if e["choices"] and "role" in e["choices"][0]["delta"]]
    reasons = [e["choices"][0]["finish_reason"] for e in got.events[:-1] if e["choices"]]
    assert len(ids) == 1
    assert len(roles) == 1
    assert [reason for reason in reasons if reason] == ["stop"]
    extra: dict[str, Any] = got.events[-2]["x-aiproxy"]
    return extra


def broke(got: Got) -> None:
    assert got.status == 200
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in got.events


def test_a_restart_is_held_until_it_said_what_was_delivered(chain: Any) -> None:
    """However both cut their text, the client gets every byte once."""
    served = chain(
        a=says("Once upon ", "a ti", breaks=True),
        b=says("Once", " upon a time", " there was", " a router."),
    )
    got = served.chat(BEST, stream=True)
    assert told(got) == STORY
    extra = ended_well(got)
    assert (extra["provider"], extra["resumed"], extra["failover"]) == ("b", True, True)
    assert extra["failover_reason"] == "stream_interrupted"
    record = served.record(got)
    assert record["outcome"] == "ok"
    assert record["resumed"] == [{"from": "a", "to": "b", "how": "restart", "at_chars": 14}]
    rows = [(r["provider"], r["outcome"], r["error"]) for r in record["attempts"]]
    assert rows == [("a", "failed", "stream_interrupted"), ("b", "ok", None)]
    asked = [served.upstreams[name].seen[0].json["messages"] for name in "ab"]
    assert asked[0] == asked[1] == HELLO


def test_a_continuation_where_the_model_is_known_to_go_on(chain: Any) -> None:
    served = chain(
        {"continues": True},
        a=says("Once upon ", "a time", breaks=True),
        b=says(" there was", " a router."),
    )
    got = served.chat(BEST, stream=True)
    assert told(got) == STORY
    assert ended_well(got)["resumed"] is True
    (row,) = served.record(got)["resumed"]
    assert row == {"from": "a", "to": "b", "how": "continuation", "at_chars": 16}
    messages = served.upstreams["b"].seen[0].json["messages"]
    assert messages == [*HELLO, {"role": "assistant", "content": "Once upon a time"}]


@pytest.mark.parametrize(("answer", "whole"), [(" there", True), ("there", False)])
def test_white_space_at_the_end_is_neither_lost_nor_doubled(
    chain: Any, answer: str, whole: bool
) -> None:
    """A partial turn cannot end in white space, so it goes without, and has to be said again."""
    served = chain({"continues": True}, a=says("once ", breaks=True), b=says(answer, " was"))
    got = served.chat(BEST, stream=True)
    assert served.upstreams["b"].seen[0].json["messages"][-1]["content"] == "once"
    if whole:
        assert told(got) == "once there was"
        ended_well(got)
    else:
        assert told(got) == "once "
        broke(got)


@pytest.mark.parametrize(
    "texts",
    [
        ("Once upon a ship",),
        ("Twice",),
        ("Once",),  # it ends too early
        ("Once upon", " a t", "omb"),
    ],
)
def test_an_answer_that_diverges_ends_in_an_error(chain: Any, texts: tuple[str, ...]) -> None:
    """No byte of it reaches the client, and nobody else is asked."""
    served = chain(a=says("Once upon a time", breaks=True), b=says(*texts), c=says(STORY))
    got = served.chat(BEST, stream=True)
    assert told(got) == "Once upon a time"
    broke(got)
    record = served.record(got)
    assert record["outcome"] == "failed"
    assert record["attempts"][-1]["error"] == "diverged"
    assert served.upstreams["c"].seen == []
    track = served.gateway.registry.by_provider["b"][0].track
    assert track.failures_in_row == 0  # it did nothing wrong


def test_one_that_dies_again_is_carried_on_too(chain: Any) -> None:
    served = chain(
        a=says("Once upon ", breaks=True),
        b=says("Once upon a time ", "there ", breaks=True),
        c=says(STORY),
    )
    got = served.chat(BEST, stream=True)
    assert told(got) == STORY
    ended_well(got)
    assert [(r["from"], r["to"], r["at_chars"]) for r in served.record(got)["resumed"]] == [
        ("a", "b", 10),
        ("b", "c", 23),
    ]


def test_one_that_dies_before_it_said_anything_new_is_passed_over(chain: Any) -> None:
    served = chain(
        a=says("Once upon a time", breaks=True), b=says("Once up", breaks=True), c=says(STORY)
    )
    got = served.chat(BEST, stream=True)
    assert told(got) == STORY
    (row,) = served.record(got)["resumed"]
    assert (row["from"], row["to"]) == ("a", "c")


def test_when_nobody_is_left_the_stream_ends_in_an_error(chain: Any) -> None:
    served = chain(a=says("Once", breaks=True), b=lambda wire: wire.document(b"{}", b"503 No"))
    got = served.chat(BEST, stream=True)
    assert told(got) == "Once"
    broke(got)
    record = served.record(got)
    assert (record["outcome"], record["resumed"]) == ("failed", [])


def test_usage_and_cost_are_of_both(chain: Any) -> None:
    """What broke off is estimated; what the client is told covers both."""
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    served = chain(a=says("Once upon ", breaks=True), b=says(STORY, usage=usage))
    got = served.chat(BEST, stream=True, stream_options={"include_usage": True})
    extra = ended_well(got)
    record = served.record(got)
    one, two = record["attempts"]
    assert one["usage"]["estimated"] is True
    assert (two["usage"]["input_tokens"], two["usage"]["output_tokens"]) == (10, 20)
    both = one["usage"]["input_tokens"] + 10, one["usage"]["output_tokens"] + 20
    assert (record["usage"]["input_tokens"], record["usage"]["output_tokens"]) == both
    assert record["usage"]["estimated"] is True
    assert record["cost_usd"] == pytest.approx(one["cost_usd"] + two["cost_usd"])
    assert extra["cost"] == record["cost_usd"]
    said = next(e["usage"] for e in got.events[:-1] if e.get("usage"))
    assert (said["prompt_tokens"], said["completion_tokens"]) == both


def test_the_attempts_stay_bounded(mount: Any, fakes: Any, chain: Any) -> None:
    served = chain(a=says("O", breaks=True), b=says("On", breaks=True), c=says("Onc", breaks=True))
    object.__setattr__(served.gateway.settings.failover, "max_retries", 1)
    got = served.chat(BEST, stream=True)
    assert told(got) == "On"
    broke(got)
    assert len(served.record(got)["attempts"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_what_cannot_be_carried_on_ends_as_ever(chain: Any, body: dict[str, Any]) -> None:
    served = chain(a=says("Once", breaks=True), b=says(STORY))
    got = served.chat(BEST, stream=True, **body)
    assert told(got) == "Once"
    broke(got)
    assert served.upstreams["b"].seen == []


def test_a_tool_call_in_flight_is_not_carried_on(chain: Any) -> None:
    def calls(wire: Wire) -> None:
        call = {
            "index": 0,
            "id": "c1",
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        }
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "tool_calls": [call]}))

    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    served = chain(a=calls, b=says(STORY))
    got = served.chat(BEST, stream=True, tools=[tool])
    broke(got)
    assert served.upstreams["b"].seen == []


@pytest.mark.parametrize("policy", ["none", "manual"])
def test_a_policy_of_one_attempt_holds(chain: Any, policy: str) -> None:
    served = chain(a=says("Once", breaks=True), b=says(STORY))
    got = served.chat({**BEST, "X-AI-Failover-Policy": policy}, stream=True)
    broke(got)
    assert served.upstreams["b"].seen == []


def test_an_error_inside_the_stream_is_survived_too(chain: Any) -> None:
    def fails(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "Once upon"}))
        time.sleep(0.1)
        wire.chunk(b'data: {"error":{"message":"SECRET","code":"server_error"}}\n\n')

    served = chain(a=fails, b=says(STORY))
    got = served.chat(BEST, stream=True)
    assert told(got) == STORY
    ended_well(got)
    assert b"SECRET" not in got.body


def test_silence_is_survived_too(mount: Any, fakes: Any) -> None:
    def silent(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "Once upon"}))
        wire.hold()

    with WireUpstream(silent) as one, WireUpstream(says(STORY)) as two:
        config = fakes.config(
            {n: [model("m", quality=QUALITY[n])] for n in "ab"},
            routing={"failover": {"mid_stream": "resume"}},
        )
        config["providers"]["a"] |= {"endpoint": one.url, "timeouts": {"idle": "200ms"}}
        config["providers"]["b"]["endpoint"] = two.url
        served = mount(config)
        got = served.chat(BEST, stream=True)
        assert one.wait_for_hangups(1)
    assert told(got) == STORY
    assert served.record(got)["attempts"][0]["error"] == "timeout"


def test_a_filters_verdict_is_not_routed_around(chain: Any) -> None:
    def fails(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "Once upon"}))
        time.sleep(0.1)
        wire.chunk(b'data: {"error":{"message":"x","code":"content_filter"}}\n\n')

    served = chain(a=fails, b=says(STORY))
    broke(served.chat(BEST, stream=True))
    assert served.upstreams["b"].seen == []


# --- across dialects -----------------------------------------------------------------------------


def responds(text: str, *, cut: int | None = None) -> Script:
    """A Responses stream of single words, cut after so many events."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        pieces = [word + " " for word in text.split()]
        frames = responses_frames("x", "m", pieces)
        wire.chunk(*frames[:cut])
        if cut is None:
            wire.end()

    return script


@pytest.mark.parametrize("client", ["chat", "responses", "anthropic"])
@pytest.mark.parametrize(("first", "second"), [("chat", "responses"), ("responses", "chat")])
def test_from_any_dialect_to_any_other(
    mount: Any, fakes: Any, client: str, first: str, second: str
) -> None:
    story = "Once upon a time there was a router "
    one = says("Once upon a ", breaks=True) if first == "chat" else responds(story, cut=8)
    two = says(story) if second == "chat" else responds(story)
    with WireUpstream(one) as a, WireUpstream(two) as b:
        config = fakes.config(
            {n: [model("m", quality=QUALITY[n])] for n in "ab"},
            routing={"failover": {"mid_stream": "resume"}},
        )
        config["providers"]["a"] |= {"endpoint": a.url, "dialects": [first]}
        config["providers"]["b"] |= {"endpoint": b.url, "dialects": [second]}
        served = mount(config)
        body: dict[str, Any] = {"model": "m", "stream": True}
        if client == "responses":
            got = served.post(RESPONSES, {**body, "input": "hi"}, BEST)
            deltas = [e for e in got.events[:-1] if e["type"] == "response.output_text.delta"]
            assert "".join(e["delta"] for e in deltas) == story
            assert len({e["item_id"] for e in deltas}) == 1
            whole = got.events[-2]["response"]
            assert whole["status"] == "completed"
            assert whole["output"][0]["content"][0]["text"] == story
            numbers = [e["sequence_number"] for e in got.events[:-1]]
            assert numbers == list(range(len(numbers)))
        elif client == "anthropic":
            got = served.post("/v1/messages", {**body, "messages": HELLO, "max_tokens": 100}, BEST)
            kinds = [e["type"] for e in got.events]
            deltas = [e["delta"]["text"] for e in got.events if e["type"] == "content_block_delta"]
            assert "".join(deltas) == story
            assert kinds.count("message_start") == kinds.count("message_stop") == 1
            assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
        else:
            got = served.chat(BEST, stream=True)
            assert told(got) == story
            ended_well(got)
        assert served.record(got)["resumed"][0]["to"] == "b"


def test_marks_that_a_kind_of_provider_wants_for_a_partial_turn(mount: Any, fakes: Any) -> None:
    """As the catalogue has them: Mistral's ``prefix``, vLLM's ``continue_final_message``."""
    sent = {}
    for kind in ("mistral", "vllm"):
        with (
            WireUpstream(says("Once upon ", breaks=True)) as a,
            WireUpstream(says(" a time")) as b,
        ):
            config = fakes.config(
                {n: [model("m", quality=QUALITY[n])] for n in "ab"},
                routing={"failover": {"mid_stream": "resume"}},
            )
            config["providers"]["a"]["endpoint"] = a.url
            key = {"credentials": {"api_key": "k"}}
            config["providers"]["b"] |= {"endpoint": b.url, "type": kind, **key}
            served = mount(config)
            got = served.chat(BEST, stream=True)
            assert told(got) == "Once upon a time"
            assert served.record(got)["resumed"][0]["how"] == "continuation"
            sent[kind] = b.seen[0].json
    assert sent["mistral"]["messages"][-1]["prefix"] is True
    assert sent["vllm"]["continue_final_message"] is True
    assert sent["vllm"]["add_generation_prompt"] is False


def test_a_model_that_is_said_not_to_go_on_is_asked_again(mount: Any, fakes: Any) -> None:
    with WireUpstream(says("Once upon ", breaks=True)) as a, WireUpstream(says(STORY)) as b:
        config = fakes.config(
            {n: [model("m", quality=QUALITY[n], continues=False)] for n in "ab"},
            routing={"failover": {"mid_stream": "resume"}},
        )
        config["providers"]["a"]["endpoint"] = a.url
        config["providers"]["b"] |= {"endpoint": b.url, "type": "vllm"}
        served = mount(config)
        got = served.chat(BEST, stream=True)
        assert told(got) == STORY
        assert served.record(got)["resumed"][0]["how"] == "restart"


# --- whatever breaks wherever --------------------------------------------------------------------


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[tuple[str, list[str], bool]]]:
    """A text, and what each provider says of it: its own words, in pieces, to its end or not."""
    text = draw(st.text(alphabet="ab \n", min_size=1, max_size=12))
    rows = []
    for place in range(3):
        said = draw(st.sampled_from([text, text, text + "x", "x" + text, text[: len(text) // 2]]))
        cuts = sorted(draw(st.sets(st.integers(0, len(said)), max_size=4)) | {0, len(said)})
        pieces = [said[i:j] for i, j in pairwise(cuts)]
        whole = place > 0 and draw(st.booleans())  # the first one always breaks off
        least = 0 if place else 1
        kept = pieces if whole else pieces[: draw(st.integers(least, max(least, len(pieces))))]
        rows.append((said, kept, whole))
    return text, rows


@settings(max_examples=300, deadline=None)
@given(found=answers(), continues=st.booleans())
def test_no_byte_is_ever_repeated_or_contradicted(
    found: tuple[str, list[tuple[str, list[str], bool]]], continues: bool
) -> None:
    """What the client put together is what one provider's answer says, or a beginning of it; a
    stream that ends well is such an answer as a whole."""
    _, rows = found
    gateway = _gateway(continues=continues)
    body = {"model": "auto", "messages": HELLO, "stream": True}
    headers = (("x-ai-routing-strategy", "quality"),)
    inbound = Inbound("/v1/chat/completions", "chat", headers, json.dumps(body).encode())
    running = Exchange(gateway, inbound)
    flow = running.run()
    sent, asked, outcome, reply = b"", iter(rows), None, None
    delivered: list[str] = []
    try:
        effect = next(flow)
        while True:
            outcome = None
            if isinstance(effect, Call):
                said, pieces, whole = next(asked, ("", [], False))
                turns = json.loads(effect.body)["messages"]
                if turns[-1]["role"] == "assistant":  # it goes on where that ends
                    prefix = turns[-1]["content"]
                    if said.startswith(prefix):
                        rest = "".join(pieces)[len(prefix) :] if whole else ""
                        pieces = [rest] if rest else []
                    delivered.append(prefix)
                frames = [frame({"content": piece}) for piece in pieces if piece]
                if whole:
                    frames += [frame({}, "stop"), DONE]
                outcome = Answer(200, (("content-type", "text/event-stream"),), stream=frames)
            elif isinstance(effect, Read):
                stream: Any = effect.stream
                outcome = stream.pop(0) if stream else Failure("reset")
            elif isinstance(effect, Send):
                sent += effect.data
            effect = flow.send(outcome)
    except StopIteration as stop:
        reply = stop.value
    got = Got(200, [], sent)
    text = told(got)
    if not continues:
        assert any(said.startswith(text) for said, _, _ in rows)
    if got.events and got.events[-1] == "[DONE]":
        assert running.decision.outcome == "ok"
        if not continues:
            assert any(whole and said == text for said, _, whole in rows)
    else:
        assert running.decision.outcome == "failed"
        assert reply is not None or "error" in got.events[-1]
    for prefix in delivered:
        assert text.startswith(prefix)
        assert not prefix[-1:].isspace()
    assert all(m.track.in_flight == 0 for m in gateway.registry.models)


def _gateway(*, continues: bool) -> Gateway:
    providers = {
        name: {
            "type": "openai_compatible",
            "endpoint": f"http://127.0.0.1:9/{name}",
            "models": [{"name": "m", "quality": quality, "continues": continues}],
        }
        for name, quality in QUALITY.items()
    }
    routing = {"failover": {"mid_stream": "resume", "same_provider_retries": 0}}
    config = {"providers": providers, "routing": routing}
    return Gateway(config, wrapped_app=False, scope="all")
