"""What the condition of providers does to traffic, on both mounts: too slow (XAI-FAIL-014), one
probe at a time (ASC-CB-005), and the figures that are told (ASC-HEALTH-001)."""

import json
import threading
import time
from typing import Any

import pytest
from mounts import model
from upstreams import Script

from aiproxy.middleware.watching.condition import provider_condition

COST = {"x-ai-routing-strategy": "cost"}
SLOW = Script(delay_s=0.25)


def rows(fakes: Any, **a: Any) -> dict[str, Any]:
    cheap, dear = model("m-a", cost_per_1k_tokens=0.001), model("m-b", cost_per_1k_tokens=0.01)
    return fakes.config(
        {"a": {"models": [cheap], **a}, "b": [dear]},
        routing={
            "failover": {"same_provider_retries": 0, "max_retry_after": "50ms"},
            "health": {"min_samples": 5, "probe_after": "1s", "probe_max": "2s"},
        },
    )


def until_served_by(served: Any, name: str) -> Any:
    deadline = time.monotonic() + 8
    while (got := served.chat(COST)).provider != name:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return got


@pytest.mark.requirement("XAI-FAIL-014")
def test_traffic_leaves_a_provider_that_answers_too_slowly_and_comes_back(
    mount: Any, fakes: Any
) -> None:
    served = mount(rows(fakes, degraded_latency="100ms"))
    assert [served.chat(COST).provider for _ in range(4)] == ["a"] * 4
    fakes.a.script = SLOW
    assert [served.chat(COST).provider for _ in range(2)] == ["a"] * 2, "two are no trend"
    until_served_by(served, "b")
    got = served.chat(COST)
    assert got.provider == "b"
    assert got.status == 200
    others = json.loads(got.header("x-ai-alternatives-considered") or "[]")
    assert [(row["provider"], row["reason"]) for row in others] == [("a", "too_slow")]
    candidates = served.record(got)["candidates"]
    assert [(row["provider"], row["reason"]) for row in candidates] == [
        ("b", None),
        ("a", "too_slow"),
    ]
    assert provider_condition(served.gateway, served.gateway.registry.providers["a"])[
        "status"
    ] == "degraded"  # fmt: skip
    assert served.chat({**COST, "x-ai-provider-pool": "a"}).provider == "a", "never kept out"
    fakes.a.script = Script()
    until_served_by(served, "a")
    assert [served.chat(COST).provider for _ in range(3)] == ["a"] * 3


@pytest.mark.requirement("XAI-FAIL-014")
def test_a_stream_is_judged_by_its_first_content(mount: Any, fakes: Any) -> None:
    """A long answer is not a slow one."""
    fakes.a.script = Script(gap_s=0.05, chunks=["word "] * 8)
    served = mount(rows(fakes, degraded_latency="200ms"))
    for _ in range(5):
        got = served.chat(COST, stream=True)
        assert got.provider == "a"
    track = served.gateway.registry.by_provider["a"][0].track
    totals, _ = track.latencies.recent(time.monotonic())
    assert min(totals) > 300
    assert not track.slow_until


@pytest.mark.requirement("XAI-FAIL-014")
def test_without_a_limit_nobody_is_too_slow(mount: Any, fakes: Any) -> None:
    fakes.a.script = SLOW
    served = mount(rows(fakes))
    assert [served.chat(COST).provider for _ in range(5)] == ["a"] * 5


@pytest.mark.requirement("ASC-CB-003", "ASC-CB-005", "ASC-CB-002")
def test_a_crowd_sends_one_probe(mount: Any, fakes: Any) -> None:
    """Twenty requests meet a half-open circuit: one is the probe, the others are served elsewhere,
    also those that had planned with it."""
    fakes.a.script = Script(status=500)
    served = mount(rows(fakes))
    for _ in range(6):
        served.chat({**COST, "x-ai-provider-pool": "a"})
    track = served.gateway.registry.by_provider["a"][0].track
    assert track.state(time.monotonic()) == "open"
    fakes.a.script = Script(status=500, delay_s=0.5)
    calls = len([seen for seen in fakes.a.seen if seen.body])
    time.sleep(max(0.0, track.open_until - time.monotonic()) + 0.01)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(served.chat(COST))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [got.provider for got in found] == ["b"] * 20
    assert len([seen for seen in fakes.a.seen if seen.body]) - calls == 1
    attempts = [len(served.record(got)["attempts"]) for got in found]
    assert sorted(attempts) == [1] * 19 + [2]


@pytest.mark.requirement("ASC-CB-005", "AIP-LB-004")
def test_a_lone_provider_beside_its_own_probe_says_when_to_come_back(
    mount: Any, fakes: Any
) -> None:
    fakes.a.script = Script(status=500)
    served = mount(rows(fakes))
    alone = {**COST, "x-ai-provider-pool": "a"}
    for _ in range(6):
        served.chat(alone)
    track = served.gateway.registry.by_provider["a"][0].track
    fakes.a.script = Script(delay_s=0.6)
    time.sleep(max(0.0, track.open_until - time.monotonic()) + 0.01)
    found: list[Any] = []
    probe = threading.Thread(target=lambda: found.append(served.chat(alone)))
    probe.start()
    time.sleep(0.3)
    got = served.chat(alone)
    assert (got.status, got.error["code"]) == (503, "no_healthy_provider")
    assert int(got.header("retry-after") or 99) <= 2
    probe.join(10)
    assert found[0].provider == "a"
    assert served.chat(alone).provider == "a"


@pytest.mark.requirement("ASC-HEALTH-001")
def test_the_figures_are_those_of_the_calls(mount: Any, fakes: Any) -> None:
    served = mount(rows(fakes, max_connections=8))
    fakes.a.queue = [Script(delay_s=0.1), Script(), Script(status=500), Script(status=400)]
    for _ in range(4):
        served.chat(COST)
        time.sleep(0.02)
        served.gateway.registry.by_provider["a"][0].track.cooling_until = 0.0
    found = provider_condition(served.gateway, served.gateway.registry.providers["a"])
    assert (found["requests"], found["error_rate"]) == (3, pytest.approx(1 / 3, abs=1e-4))
    assert found["latency_ms"]["p99"] >= 100 > found["latency_ms"]["p50"] > 0
    assert found["tokens_per_s"] == pytest.approx(2 * 12 / 2.0, rel=0.5)
    assert (found["in_flight"], found["saturation"]) == (0, 0.0)
    assert (found["circuit"], found["last_look"], found["transitions"]) == ("closed", None, [])
    assert list(found["models"]) == ["m-a"]


@pytest.mark.requirement("ASC-HEALTH-001")
def test_a_provider_without_a_model_list_counts_an_answer_once(mount: Any, server: Any) -> None:
    served = mount({})
    for _ in range(3):
        assert served.post(
            "/v1/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": "x"}]},
            {"x-ai-multi-provider": "enabled"},
        ).status == 200  # fmt: skip
    found = provider_condition(served.gateway, served.gateway.registry.providers["app"])
    assert found["requests"] == 3
