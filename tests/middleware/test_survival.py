"""Waits, cost and places over a whole chain of attempts, and what a cascade tells of itself."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mounts import HELLO, Got, model
from tap import Tap
from upstreams import Script, free_port
from wire import Wire, WireUpstream

from aiproxy.middleware.answering.hedges import Hedges
from aiproxy.middleware.answering.places import Places
from aiproxy.middleware.effects import Answer, Call, Failure, Reply, Wait
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound, Runtime

BEST = {"X-AI-Routing-Strategy": "quality"}
CHEAPEST = {"X-AI-Routing-Strategy": "cost"}
QUALITY = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}


def chain(fakes: Any, names: str = "ab", /, **routing: Any) -> dict[str, Any]:
    """Providers in the order in which strategy quality asks them."""
    rows = {n: [model("m", quality=QUALITY[n])] for n in names}
    config: dict[str, Any] = fakes.config(rows, routing=routing)
    return config


def tried(mount: Any, got: Got) -> str:
    return "".join(row["provider"] for row in mount.record(got)["attempts"])


def busy(seconds: str) -> Script:
    return Script(status=429, headers={"retry-after-ms": seconds})


# --- waits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quality", "expected"), [(0.4, "aa"), (0.8, "ab")])
def test_a_clearly_preferred_provider_is_waited_for(
    mount: Any, fakes: Any, quality: float, expected: str
) -> None:
    """Somebody half as good is no match for a moment's patience (design 4a)."""
    fakes.a.queue = [busy("300")]
    config = fakes.config({"a": [model("m", quality=0.9)], "b": [model("m", quality=quality)]})
    served = mount(config)
    began = time.monotonic()
    got = served.chat(BEST)
    assert (got.status, tried(served, got)) == (200, expected)
    assert (time.monotonic() - began > 0.3) is (expected == "aa")


def test_a_cheaper_provider_is_waited_for_and_a_faster_one_is_not(mount: Any, fakes: Any) -> None:
    """Where time is what counts, waiting would defeat the purpose."""
    rows = {
        "a": [model("m", cost_per_1k_tokens=0.001, latency_prior="10ms")],
        "b": [model("m", cost_per_1k_tokens=0.01, latency_prior="900ms")],
    }
    for headers, expected in (
        (CHEAPEST, "aa"),
        ({"X-AI-Routing-Strategy": "latency"}, "ab"),
        ({**CHEAPEST, "X-AI-Max-Latency": "5000"}, "ab"),
    ):
        fakes.reset()
        fakes.a.queue = [busy("200")]
        served = mount(fakes.config(rows))
        got = served.chat(headers)
        assert (got.status, tried(served, got)) == (200, expected), headers


def test_a_longer_wait_is_never_worth_it(mount: Any, fakes: Any) -> None:
    fakes.a.queue = [busy("2500")]
    config = fakes.config({"a": [model("m", quality=0.9)], "b": [model("m", quality=0.1)]})
    served = mount(config)
    got = served.chat(BEST)
    assert tried(served, got) == "ab"


def test_when_all_ask_for_a_moment_the_soonest_is_asked_again(mount: Any, fakes: Any) -> None:
    fakes.a.queue, fakes.b.queue = [busy("900")], [busy("300")]
    served = mount(chain(fakes))
    began = time.monotonic()
    got = served.chat(BEST)
    assert (got.status, tried(served, got)) == (200, "abb")
    assert 0.3 <= time.monotonic() - began < 0.8


def test_the_wait_for_the_soonest_counts_as_an_attempt(mount: Any, fakes: Any) -> None:
    fakes.a.script = fakes.b.script = busy("50")
    served = mount(chain(fakes, failover={"max_retries": 3}))
    got = served.chat(BEST)
    assert (got.status, tried(served, got)) == (502, "abab")
    assert got.header("retry-after") == "1"


def test_no_wait_for_the_soonest_goes_past_the_deadline(mount: Any, fakes: Any) -> None:
    fakes.a.script = fakes.b.script = busy("900")
    served = mount(chain(fakes, timeout="600ms"))
    began = time.monotonic()
    got = served.chat(BEST)
    assert time.monotonic() - began < 0.5
    assert (got.status, tried(served, got)) == (502, "ab")


def test_a_request_that_finds_everybody_blocked_waits_for_the_soonest(
    mount: Any, fakes: Any
) -> None:
    """Instead of a 503 at once, when it is a matter of a moment."""
    served = mount(chain(fakes))
    tracks = [m.track for m in served.gateway.registry.models]
    now = time.monotonic()
    for track, seconds in zip(tracks, (0.9, 0.4), strict=True):
        track.failed(now, lambda: 0.5, retry_after_s=seconds)
    served.gateway.registry.trouble_until = now + 5
    got = served.chat(BEST)
    took = time.monotonic() - now
    assert (got.status, got.provider) == (200, "b")
    assert 0.39 <= took < 0.8
    assert served.record(got)["outcome"] == "ok"


@pytest.mark.parametrize(("blocked", "timeout"), [(3.0, "60s"), (0.9, "500ms")])
def test_a_longer_block_is_told_at_once(
    mount: Any, fakes: Any, blocked: float, timeout: str
) -> None:
    served = mount(chain(fakes, timeout=timeout))
    now = time.monotonic()
    for found in served.gateway.registry.models:
        found.track.failed(now, lambda: 0.5, retry_after_s=blocked)
    served.gateway.registry.trouble_until = now + 5
    got = served.chat(BEST)
    assert time.monotonic() - now < 0.4
    assert (got.status, got.error["code"]) == (503, "no_healthy_provider")
    assert int(got.header("retry-after") or 0) in (1, 2, 3)


# --- cost over the whole chain -------------------------------------------------------------------

USED = {"prompt_tokens": 10, "completion_tokens": 590, "total_tokens": 600}


def test_what_failed_attempts_cost_counts_against_the_limit(mount: Any, fakes: Any) -> None:
    """The first used 600 tokens of 1000 and failed: nobody else fits, and the error says why."""
    fakes.a.script = Script(status=503, body={"error": {"message": "x"}, "usage": USED})
    served = mount(chain(fakes))
    limit = {"X-AI-Cost-Limit": "0.0015"}
    got = served.chat({**BEST, **limit}, max_tokens=1000)
    assert fakes.called() == {"a": 1}
    assert got.status == 503
    assert "up to 0.0006 USD of 0.0015 are spent" in got.error["message"]
    assert "the next one may cost 0.0010" in got.error["message"]
    record = served.record(got)
    assert {"provider": "b", "reason": "over_cost_limit"}.items() <= next(
        row for row in record["candidates"] if row["provider"] == "b"
    ).items()
    got = served.chat({**BEST, "X-AI-Cost-Limit": "0.0017"}, max_tokens=1000)
    assert (got.status, got.provider) == (200, "b")


def test_an_attempt_whose_cost_nobody_knows_counts_at_its_worst(mount: Any, fakes: Any) -> None:
    """A provider that fell silent may have worked; one that refused the connection has not."""
    fakes.a.script = Script(delay_s=3)
    config = chain(fakes)
    config["providers"]["a"]["timeouts"] = {"first_byte": "150ms"}
    limit = {**BEST, "X-AI-Cost-Limit": "0.0015"}
    got = mount(config).chat(limit, max_tokens=1000)
    assert (got.status, fakes.called()) == (504, {"a": 1})
    assert "cost limit" in got.error["message"]
    config["providers"]["a"]["endpoint"] = f"http://127.0.0.1:{free_port()}/v1"
    got = mount(config).chat(limit, max_tokens=1000)
    assert (got.status, got.provider) == (200, "b")


def test_a_cheaper_candidate_that_still_fits_is_asked(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503, body={"error": {"message": "x"}, "usage": USED})
    rows = {
        "a": [model("m", quality=0.9)],
        "b": [model("m", quality=0.8)],
        "c": [model("m", quality=0.7, cost_per_1k_tokens=0.0002)],
    }
    served = mount(fakes.config(rows))
    got = served.chat({**BEST, "X-AI-Cost-Limit": "0.0015"}, max_tokens=1000)
    assert (got.status, got.provider) == (200, "c")
    assert fakes.called() == {"a": 1, "c": 1}


def test_without_a_limit_nothing_is_skipped(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503, body={"error": {"message": "x"}, "usage": USED})
    served = mount(chain(fakes))
    got = served.chat(BEST, max_tokens=1000)
    assert got.provider == "b"
    record = served.record(got)
    one, two = record["attempts"]
    assert one["cost_usd"] == 0.0006  # AIP-FAIL-010
    assert record["total_cost_usd"] == pytest.approx(0.0006 + two["cost_usd"])


# --- places --------------------------------------------------------------------------------------


class Gate:
    """An upstream that answers when it is told to, and counts how many it has at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, wire: Wire) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.open.wait(10)
        with self._lock:
            self.now -= 1
        message = {"role": "assistant", "content": "gated"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"id": "x", "model": "m", "choices": [choice]}).encode()
        wire.document(body, b"200 OK", b"Connection: close")


def until(condition: Any, seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def bounded(fakes: Any, url: str, names: str = "ab", **bounds: Any) -> dict[str, Any]:
    config = chain(fakes, names)
    config["providers"]["a"] |= {"endpoint": url, "max_concurrency": 1, **bounds}
    return config


def test_a_full_provider_is_passed_over_at_once(mount: Any, fakes: Any) -> None:
    """AIP-FAIL-006 for remote providers: the next one serves, and the record says why."""
    gate = Gate()
    with WireUpstream(gate) as upstream, ThreadPoolExecutor(1) as pool:
        served = mount(bounded(fakes, upstream.url))
        first = pool.submit(served.chat, BEST)
        assert until(lambda: gate.now == 1)
        began = time.monotonic()
        got = served.chat(BEST)
        assert time.monotonic() - began < 0.5
        assert (got.status, got.provider) == (200, "b")
        assert got.rejected == {"a": "capacity_exceeded"}
        gate.open.set()
        assert first.result(5).provider == "a"
        assert served.chat(BEST).provider == "a"
    assert gate.most == 1
    places = served.gateway.registry.providers["a"].places
    assert (places.taken, places.waiting) == (0, 0)


def test_a_full_lone_provider_is_waited_for(mount: Any, fakes: Any) -> None:
    gate = Gate()
    with WireUpstream(gate) as upstream, ThreadPoolExecutor(4) as pool:
        served = mount(bounded(fakes, upstream.url, "a"))
        asked = [pool.submit(served.chat, BEST) for _ in range(4)]
        assert until(lambda: gate.now == 1)
        gate.open.set()
        replies = [one.result(10) for one in asked]
    assert [got.status for got in replies] == [200] * 4
    assert gate.most == 1
    for got in replies:
        (row,) = served.record(got)["candidates"]
        assert row["eligible"] is True


@pytest.mark.parametrize("bounds", [{"max_queue": 0}, {"max_queue_wait": "200ms"}])
def test_a_queue_is_bounded_in_length_and_time(
    mount: Any, fakes: Any, bounds: dict[str, Any]
) -> None:
    gate = Gate()
    with WireUpstream(gate) as upstream, ThreadPoolExecutor(1) as pool:
        served = mount(bounded(fakes, upstream.url, "a", **bounds))
        first = pool.submit(served.chat, BEST)
        assert until(lambda: gate.now == 1)
        began = time.monotonic()
        got = served.chat(BEST)
        took = time.monotonic() - began
        assert (got.status, got.error["code"]) == (503, "provider_overloaded")
        assert got.header("retry-after") == "1"
        assert took < 0.15 if "max_queue" in bounds else 0.2 <= took < 0.6
        assert served.record(got)["attempts"] == []
        gate.open.set()
        assert first.result(5).status == 200
    assert len(upstream.seen) == 1


def test_a_policy_of_one_attempt_waits_rather_than_move_on(mount: Any, fakes: Any) -> None:
    gate = Gate()
    with WireUpstream(gate) as upstream, ThreadPoolExecutor(2) as pool:
        served = mount(bounded(fakes, upstream.url))
        first = pool.submit(served.chat, BEST)
        assert until(lambda: gate.now == 1)
        second = pool.submit(served.chat, {**BEST, "X-AI-Failover-Policy": "none"})
        places = served.gateway.registry.providers["a"].places
        assert until(lambda: places.waiting == 1)
        gate.open.set()
        got = second.result(5)
        assert [first.result(5).provider, got.provider] == ["a", "a"], got.body


def test_the_places_of_a_stream_last_as_long_as_it_does(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(chunks=["x"] * 10, gap_s=0.05)
    config = chain(fakes)
    config["providers"]["a"]["max_concurrency"] = 1
    served = mount(config)
    body = {"model": "auto", "messages": HELLO, "stream": True}
    with Tap(served.port, body, BEST) as tap:
        tap.wait_for(b'"x"')
        assert served.chat(BEST).provider == "b"
        tap.rest()
    places = served.gateway.registry.providers["a"].places
    assert until(lambda: places.taken == 0)
    assert served.chat(BEST).provider == "a"


def test_a_failed_attempt_gives_its_place_back(mount: Any, fakes: Any) -> None:
    config = chain(fakes, "a")
    config["providers"]["a"]["max_concurrency"] = 1
    served = mount(config)
    for status in (503, 400, 404):
        fakes.a.queue = [Script(status=status)]
        served.chat(BEST)
    assert served.gateway.registry.providers["a"].places.taken == 0


@given(st.lists(st.sampled_from(["take", "queue", "leave", "release"]), max_size=60))
def test_places_are_never_overbooked_nor_lost(steps: list[str]) -> None:
    """Whatever happens in whatever order; and nobody in the queue is overtaken."""
    places = Places(2, 3, 1.0)
    running = 0
    tickets: list[Any] = []
    for step in steps:
        if step == "take":
            got = places.take()
            assert not (got and [t for t in tickets if not t.called])
            running += got
        elif step == "queue":
            ticket = places.queue()
            if ticket is not None:
                tickets.append(ticket)
        elif step == "leave" and tickets:
            places.leave(tickets.pop(0))
        elif step == "release" and running:
            running -= 1
            places.release()
        called = sum(t.called for t in tickets)
        waiting = [t.called for t in tickets]
        assert places.taken == running + called <= 2
        assert places.waiting == len(tickets) - called <= 3
        assert waiting == sorted(waiting, reverse=True)
    for ticket in tickets:
        places.leave(ticket)
    for _ in range(running):
        places.release()
    assert (places.taken, places.waiting) == (0, 0)


@given(
    st.lists(st.tuples(st.floats(0, 200), st.booleans()), max_size=200),
    st.sampled_from([0.0, 0.1, 0.25, 1.0]),
)
def test_hedges_stay_within_their_share(steps: list[tuple[float, bool]], share: float) -> None:
    hedges = Hedges(share)
    requests: list[int] = []
    taken: list[int] = []
    for now, hedge in sorted(steps):
        hedges.request(now)
        requests.append(int(now))
        if hedge and hedges.take(now):
            taken.append(int(now))
            recent = [at for at in requests if at > int(now) - 60]
            assert sum(at > int(now) - 60 for at in taken) <= share * len(recent)


# --- attempts over the whole chain ---------------------------------------------------------------

OK = json.dumps(
    {
        "id": "x",
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        ],
    }
).encode()
STATUSES = [200, 400, 401, 404, 408, 409, 429, 500, 502, 503, 529]
ANSWERS = st.one_of(
    st.sampled_from([Failure("connect_refused"), Failure("reset"), Failure("first_byte_timeout")]),
    st.builds(
        lambda status, wait: Answer(
            status,
            () if wait is None else (("retry-after-ms", str(wait)),),
            OK if status == 200 else b"{}",
        ),
        st.sampled_from(STATUSES),
        st.sampled_from([None, 0, 100, 1500, 9000]),
    ),
)


@settings(max_examples=400, deadline=None)
@given(
    answers=st.lists(ANSWERS, max_size=30),
    retries=st.integers(0, 5),
    again=st.integers(0, 5),
    limit=st.sampled_from([None, "0.0012", "0.003", "0.02"]),
    policy=st.sampled_from([None, "none", "manual", "cascading"]),
)
def test_attempts_time_and_cost_are_bounded_over_the_whole_chain(
    answers: list[Any], retries: int, again: int, limit: str | None, policy: str | None
) -> None:
    """AIP-FAIL-004, XAI-FAIL-023: whatever providers answer, in whatever order."""
    clock = [100.0]
    gateway = Gateway(
        {
            "providers": {
                name: {
                    "type": "openai_compatible",
                    "endpoint": f"http://127.0.0.1:9/{name}",
                    "models": [
                        {"name": "m", "quality": quality, "cost_per_1k_tokens": 0.001},
                        {"name": "m2", "quality": quality / 2, "cost_per_1k_tokens": 0.001},
                    ],
                }
                for name, quality in QUALITY.items()
            },
            "routing": {
                "timeout": "20s",
                "failover": {"max_retries": retries, "same_provider_retries": again},
            },
        },
        wrapped_app=False,
        scope="all",
        runtime=Runtime(now=lambda: clock[0], jitter=lambda: 0.5),
    )
    headers = [("x-ai-routing-strategy", "quality")]
    if limit is not None:
        headers.append(("x-ai-cost-limit", limit))
    if policy is not None:
        headers.append(("x-ai-failover-policy", policy))
    body = {"model": "auto", "messages": HELLO, "max_tokens": 1000}
    inbound = Inbound("/v1/chat/completions", "chat", tuple(headers), json.dumps(body).encode())
    running = Exchange(gateway, inbound)
    flow, script = running.run(), iter(answers)
    calls, outcome = 0, None
    reply: Reply | None = None
    try:
        effect = next(flow)
        while True:
            outcome = None
            if isinstance(effect, Call):
                calls += 1
                clock[0] += 0.01
                outcome = next(script, Failure("connect_refused"))
            elif isinstance(effect, Wait):
                clock[0] += effect.seconds
            effect = flow.send(outcome)
    except StopIteration as stop:
        reply = stop.value
    assert reply is not None
    record = running.decision.record()
    assert calls == len(record["attempts"]) <= (1 if policy in ("none", "manual") else 1 + retries)
    assert clock[0] - 100.0 <= 20.0 + 0.01 * calls
    if limit is not None:
        # each attempt that may have been paid for at its worst: nothing here reports usage
        paid = [r for r in record["attempts"] if r["status"] == 200 or r["error"] == "timeout"]
        unknown = [r for r in paid if r["status"] in (None, 200)]
        assert len(unknown) * 0.001 <= float(limit)
    assert all(m.track.in_flight == 0 for m in gateway.registry.models)


# --- what a cascade tells ------------------------------------------------------------------------


def test_a_cascade_tells_each_attempt_and_what_became_of_the_quality(
    mount: Any, fakes: Any
) -> None:
    """Figure 19: XAI-FIG-019, XAI-FAIL-017, 019."""
    fakes.a.script = Script(delay_s=3)
    fakes.b.script = Script(status=529)
    rows = {
        "a": [model("m", quality=0.95)],
        "b": [model("m", quality=0.9)],
        "c": [model("m", quality=0.82)],
        "d": [model("m", quality=0.79)],
    }
    config = fakes.config(rows)
    config["providers"]["a"]["timeouts"] = {"first_byte": "150ms"}
    served = mount(config)
    headers = {"X-AI-Failover-Policy": "cascading", "X-AI-Quality-Threshold": "0.8", **BEST}
    got = served.chat(headers)
    assert got.provider == "c"
    steps = got.selection["failover_cascade"]
    told = [(k, v["provider"], v["status"], v["decision"]) for k, v in steps.items()]
    assert told == [
        ("primary_attempt", "a", "degraded", "too_slow"),
        ("secondary_attempt", "b", "overloaded", "capacity_exceeded"),
        ("tertiary_selection", "c", "available", "selected_with_quality_adjustment"),
    ]
    assert steps["primary_attempt"]["quality_estimate"] == 0.95
    assert 145 <= steps["primary_attempt"]["response_time_ms"] < 400
    assert got.selection["quality_adjustment"] == {
        "target": 0.95,
        "achieved": 0.82,
        "mitigation": "none",
    }


def test_only_a_cascade_tells_of_one(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    served = mount(chain(fakes))
    assert "failover_cascade" not in served.chat(BEST).selection
    served = mount(chain(fakes, "b"))
    headers = {**BEST, "X-AI-Failover-Policy": "cascading"}
    assert "quality_adjustment" not in served.chat(headers).selection


def test_a_cascade_that_loses_no_quality_says_so(mount: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    rows = {"a": [model("m", quality=0.8)], "b": [model("m", quality=0.8)]}
    got = mount(fakes.config(rows)).chat({**BEST, "X-AI-Failover-Policy": "cascading"})
    assert got.selection["quality_adjustment"]["achieved"] == 0.8
    assert got.selection["failover_cascade"]["secondary_selection"]["decision"] == "failover"
