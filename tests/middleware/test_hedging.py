"""A second provider is asked when the first is slow; the first good answer counts (routing.hedging)."""

import time
from typing import Any

import pytest
from mounts import HELLO, Got, model
from upstreams import Script
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

BEST = {"X-AI-Routing-Strategy": "quality"}
#: USD a token of the models here.
PRICE = 1e-6


def hedged(
    fakes: Any, first: str | None = None, after: str | None = "100ms", **more: Any
) -> dict[str, Any]:
    """Providers a, b and c in the order in which strategy quality asks them."""
    hedging = {"enabled": True, "after": after, "max_percent": 100, **more.pop("hedging", {})}
    routing = {"hedging": hedging, **more.pop("routing", {})}
    config: dict[str, Any] = fakes.config(
        {n: [model("m", quality=q)] for n, q in (("a", 0.9), ("b", 0.8), ("c", 0.7))},
        routing=routing,
        **more,
    )
    if first is not None:
        config["providers"]["a"]["endpoint"] = first
    return config


def attempts(mount: Any, got: Got) -> list[tuple[str, str, Any]]:
    return [(r["provider"], r["outcome"], r["error"]) for r in mount.record(got)["attempts"]]


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_answers_and_the_first_is_let_go(mount: Any, fakes: Any, stream: bool) -> None:
    """Both are in the record, both are paid for, and nothing of the loser stays open."""

    def slow(wire: Wire) -> None:
        if stream:
            wire.send(STREAM_HEAD)
            wire.chunk(frame({"role": "assistant", "content": ""}))
        wire.hold()

    with WireUpstream(slow) as first:
        served = mount(hedged(fakes, first.url))
        began = time.monotonic()
        got = served.chat(BEST, stream=stream)
        took = time.monotonic() - began
        assert (got.status, got.provider) == (200, "b")
        assert 0.1 <= took < 0.6
        assert first.wait_for_hangups(1)
        assert first.hangups[0] - fakes.b.seen[0].at < 0.15
    assert got.header("x-ai-failover-occurred") == "true"
    assert got.selection["failover_reason"] == "outpaced"
    record = served.record(got)
    assert attempts(served, got) == [("a", "aborted", "outpaced"), ("b", "ok", None)]
    lost, won = record["attempts"]
    assert lost["usage"]["estimated"] is True
    assert lost["usage"]["output_tokens"] == 0
    assert lost["cost_usd"] == pytest.approx(lost["usage"]["input_tokens"] * PRICE)
    assert won["cost_usd"] == record["cost_usd"]
    assert record["total_cost_usd"] == pytest.approx(lost["cost_usd"] + won["cost_usd"])
    if stream:
        assert got.events[-1] == "[DONE]"
    assert all(m.track.in_flight == 0 for m in served.gateway.registry.models)


def test_a_quick_first_answer_asks_nobody_else(mount: Any, fakes: Any) -> None:
    got = mount(hedged(fakes, after="2s")).chat(BEST)
    assert got.provider == "a"
    assert got.header("x-ai-failover-occurred") is None
    assert fakes.called() == {"a": 1}


def test_the_first_may_still_win(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=0.3)
    fakes.b.script = Script(delay_s=3)
    served = mount(hedged(fakes))
    got = served.chat(BEST)
    assert got.provider == "a"
    assert got.header("x-ai-failover-occurred") is None
    assert attempts(served, got) == [("a", "ok", None), ("b", "aborted", "outpaced")]
    assert served.record(got)["failover"]["occurred"] is False


def test_a_first_that_fails_at_once_is_followed_as_ever(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    began = time.monotonic()
    served = mount(hedged(fakes, after="3s"))
    got = served.chat(BEST)
    assert time.monotonic() - began < 1
    assert got.provider == "b"
    assert attempts(served, got) == [("a", "failed", "overloaded"), ("b", "ok", None)]


def test_a_bad_answer_of_the_hedge_does_not_count(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=0.4)
    fakes.b.script = Script(status=503)
    served = mount(hedged(fakes))
    got = served.chat(BEST)
    assert got.provider == "a"
    assert attempts(served, got) == [("a", "ok", None), ("b", "failed", "overloaded")]


def test_when_both_fail_the_rest_of_the_chain_is_asked(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503, delay_s=0.3)
    fakes.b.script = Script(status=503, delay_s=0.3)
    served = mount(hedged(fakes))
    got = served.chat(BEST)
    assert got.provider == "c"
    assert [row[0] for row in attempts(served, got)] == ["a", "b", "c"]
    assert fakes.called() == {"a": 1, "b": 1, "c": 1}


def test_a_fault_of_the_request_ends_the_race(mount: Any, fakes: Any) -> None:
    """A content filter is not routed around."""
    error = {"error": {"message": "x", "code": "content_filter"}}
    fakes.a.script = Script(status=400, body=error, delay_s=0.25)
    fakes.b.script = Script(delay_s=3)
    began = time.monotonic()
    got = mount(hedged(fakes)).chat(BEST)
    assert time.monotonic() - began < 1.5
    assert got.status == 400
    assert "content filter" in got.error["message"]


def test_a_stream_races_for_its_first_content(mount: Any, fakes: Any) -> None:
    """A head alone wins nothing; from the first word on only the winner is read."""

    def headed(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "content": ""}))
        wire.hold()

    def speaking(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        time.sleep(0.1)
        wire.chunk(frame({"content": "won"}))
        time.sleep(0.2)
        wire.chunk(frame({"content": " it"}), frame({}, "stop"), DONE)
        wire.end()

    with WireUpstream(headed) as first, WireUpstream(speaking) as second:
        config = hedged(fakes, first.url)
        config["providers"]["b"]["endpoint"] = second.url
        served = mount(config)
        got = served.chat(BEST, stream=True)
        assert first.wait_for_hangups(1)
        assert first.hangups[0] - second.seen[0].at < 0.25
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in got.events[:-1])
    assert said == "won it"
    assert got.provider == "b"


@pytest.mark.parametrize(("limit", "asked"), [("0.002", 1), ("0.003", 2)])
def test_the_worst_cases_of_both_bind(mount: Any, fakes: Any, limit: str, asked: int) -> None:
    """Each may cost about 0.0011 USD: both together fit only the larger limit."""
    fakes.a.script = Script(delay_s=0.4)
    got = mount(hedged(fakes)).chat({**BEST, "X-AI-Cost-Limit": limit}, max_tokens=1000)
    assert got.status == 200
    assert sum(fakes.called().values()) == asked


@pytest.mark.parametrize(
    "headers",
    [
        {"X-AI-Provider-Pool": "a"},
        {"X-AI-Failover-Policy": "none"},
        {"X-AI-Failover-Policy": "manual"},
        {"X-AI-Quality-Threshold": "0.85"},
        {"X-AI-Security-Requirements": "hipaa"},
        {"Idempotency-Key": "once"},
    ],
)
def test_nothing_relaxes_for_a_hedge(mount: Any, fakes: Any, headers: dict[str, str]) -> None:
    """Nor is a request doubled whose client asked for it to be carried out once."""
    fakes.a.script = Script(delay_s=0.3)
    config = hedged(fakes)
    attested = {"labels": [{"label": "hipaa", "evidence": "contract", "date": "2026-01-01"}]}
    config["providers"]["a"]["security"] = attested
    got = mount(config).chat({**BEST, **headers})
    assert got.status == 200
    assert fakes.called() == {"a": 1}


def test_another_model_of_the_same_provider_is_no_hedge(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=0.3)
    config = hedged(fakes)
    config["providers"] = {"a": config["providers"]["a"]}
    config["providers"]["a"]["models"].append(model("m2", quality=0.85))
    assert mount(config).chat(BEST).provider == "a"
    assert fakes.called() == {"a": 1}


def test_few_requests_of_a_minute_are_hedged(mount: Any, fakes: Any) -> None:
    """``max_percent``: at 25 the fourth request is the first that may be, the eighth the next."""
    fakes.a.script = Script(delay_s=0.12)
    served = mount(hedged(fakes, after="30ms", hedging={"max_percent": 25}))
    asked = []
    for _ in range(9):
        before = len(fakes.a.seen) + len(fakes.b.seen)
        assert served.chat(BEST).status == 200
        asked.append(len(fakes.a.seen) + len(fakes.b.seen) - before)
    assert asked == [1, 1, 1, 2, 1, 1, 1, 2, 1]


def test_without_a_time_the_usual_latency_decides(mount: Any, fakes: Any) -> None:
    """And while nothing is known of it nobody is hedged."""
    fakes.a.script = Script(delay_s=0.2)
    served = mount(hedged(fakes, after=None))
    assert served.chat(BEST).provider == "a"
    assert fakes.called() == {"a": 1}
    fakes.a.script = Script(delay_s=3)
    began = time.monotonic()
    assert served.chat(BEST).provider == "b"
    assert 0.2 <= time.monotonic() - began < 0.9


def test_an_unwell_provider_is_no_help(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=0.25)
    served = mount(hedged(fakes))
    found = served.gateway.registry.providers["b"].track
    found.failed(time.monotonic(), lambda: 0.5)
    assert served.chat(BEST).provider == "c"
    assert fakes.called() == {"a": 1, "c": 1}


def test_off_is_off(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(delay_s=0.25)
    served = mount(hedged(fakes, hedging={"enabled": False}))
    assert served.gateway.hedges is None
    assert served.chat(BEST).provider == "a"
    assert fakes.called() == {"a": 1}


def test_the_loser_counts_among_the_attempts_and_in_the_cost(mount: Any, fakes: Any) -> None:
    """When the winner breaks off before it is told, nobody is asked beyond the bounds."""
    fakes.a.script = Script(delay_s=3)
    fakes.b.script = Script(raw=b'{"choices":[{"message":{"content":"x","tool_calls":5}}]}')
    served = mount(hedged(fakes, routing={"failover": {"max_retries": 1}}))
    got = served.post("/v1/messages", {"model": "m", "messages": HELLO, "max_tokens": 9}, BEST)
    rows = attempts(served, got)
    assert len(rows) <= 2, rows
    assert "c" not in fakes.called()
