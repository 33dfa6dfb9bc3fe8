"""Parts of the router that live beside requests take part in a run: looks, mirrors, budgets, ensembles."""

from typing import Any

import pytest
from scenes import scene, traffic

from aiproxy.reference_server.simulate import simulate

FAST_HEALTH = {"min_samples": 3, "window": "2s", "probe_after": "500ms", "probe_max": "2s"}


def test_the_monitor_looks_and_lets_a_provider_in_again() -> None:
    """A look is no call: nobody's count of calls has it, and a circuit it reaches is probed."""
    health = {**FAST_HEALTH, "probe_after": "4s", "probe_max": "8s"}
    scripts = {"a": {"latency": "100ms", "outages": [{"from": "3s", "to": "12s"}]}}
    asked = traffic(for_="40s", rate=10)
    on, off = (
        simulate(
            scene(
                1,
                scripts,
                routing={
                    "failover": {"max_retries": 0},
                    "health": {**health, "monitor": {"enabled": enabled}},
                },
                traffic=asked,
            )
        )
        for enabled in (True, False)
    )
    whys = {step.why for step in on.breakers}
    assert "reachable again" in whys
    assert not {step.why for step in off.breakers} & {"reachable again", "not reachable"}
    for result in (on, off):
        assert sum(len(row.calls) for row in result.rows) == result.providers[0].calls
        assert result.breakers[-1].after == "closed"


def test_a_mirror_is_paid_for_and_is_nobodys_request() -> None:
    mirrors = [{"name": "shadow", "provider": "b", "percent": 100}]
    result = simulate(scene(2, routing={"mirrors": mirrors}))
    assert result.measures.requests == 100
    assert result.shares == {"a": 1.0}
    a, b = result.providers
    assert (a.calls, b.calls, b.served) == (100, 100, 0)
    assert result.background == 100
    assert result.background_cost_usd == pytest.approx(b.cost_usd)
    assert result.cost_usd == pytest.approx(a.cost_usd)
    assert [row.latency_ms for row in result.rows] == pytest.approx([100] * 100)


def test_a_budget_ends_what_may_be_spent() -> None:
    """Use case 7.3: when the money is gone paid providers are gone, and what is free goes on."""
    entries: dict[str, Any] = {
        name: {"models": [{"name": "m", "price": {"input": price, "output": price}, "quality": q}]}
        for name, price, q in (("paid", 0.002, 0.9), ("free", 0, 0.5))
    }
    config = {"budget": {"daily_limit": 0.01}}
    result = simulate(scene(entries, routing={"strategy": "quality"}, config=config))
    assert result.errors == 0
    assert 0.008 < result.cost_usd <= 0.01
    assert 0 < result.shares["free"] < 1
    late = result.between(8, 10)
    assert late.share == {"free": 1.0}


def test_members_of_an_ensemble_are_calls_of_one_request() -> None:
    members = [{"model": "m", "provider": name} for name in "abc"]
    ensembles = {"panel": {"members": members, "method": "voting"}}
    asked = {"body": {"model": "ensemble/panel", "messages": [{"role": "user", "content": "Hi"}]}}
    result = simulate(scene(3, routing={"ensembles": ensembles}, traffic=traffic(asked, rate=2)))
    assert {name for row in result.rows for name in row.calls} == {"a", "b", "c"}
    assert all(len(row.calls) >= 3 for row in result.rows)
    assert sum(one.cost_usd for one in result.providers) == pytest.approx(result.cost_usd)
