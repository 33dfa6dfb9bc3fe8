"""A board changes what a decision costs, never what it is."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intent import Intent, understand
from aiproxy.middleware.preferences import parse_headers
from aiproxy.middleware.routing.board import SHORTEST
from aiproxy.middleware.routing.plan import Plan, worst_cost
from aiproxy.middleware.routing.refusing import NoCandidate

STRATEGIES = (
    *("cost", "latency", "quality", "capability-first"),
    *("balanced", "availability", "round_robin"),
)
PRICES = ("split", "blended", "free", "capped", "unknown")


def model(chance: Random, name: str, prices: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "capabilities": [
            "text-generation",
            *(["code-generation"] if chance.random() < 0.4 else []),
        ],
        "reasoning": chance.choice(["none", "native", "enhanced"]),
    }
    if chance.random() < 0.9:
        row["quality"] = chance.choice([0.5, 0.6, 0.9, round(chance.random(), 2)])
    if prices == "blended":
        row["cost_per_1k_tokens"] = chance.randint(0, 9) / 1000
    elif prices == "free":
        row["cost_per_1k_tokens"] = 0.0
    elif prices != "unknown" or chance.random() < 0.7:
        row["price"] = {
            "input": chance.choice([0.1, 0.5, 1, round(chance.random(), 3)]),
            "output": chance.choice([0.1, 0.5, 2, round(chance.random(), 3)]),
        }
        if prices == "capped":
            row["max_output_tokens"] = chance.choice([100, 4096, 16384])
            row["cost_per_generation"] = chance.choice([0.0, 0.001])
    return row


def served(chance: Random, prices: str) -> Gateway:
    """A gateway of some 200 models that have answered, and failed, in the last second."""
    providers = {
        f"p{i}": {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "priority": chance.randint(1, 4),
            "models": [model(chance, f"m{i}-{j}", prices) for j in range(12)],
        }
        for i in range(chance.choice([4, 18]))
    }
    weights = {"cost": chance.choice([1, 3]), "latency": chance.choice([0, 2]), "quality": 1}
    routing = {"weights": weights, "default_provider": "p0"}
    made = Gateway({"providers": providers, "routing": routing}, wrapped_app=False, scope="all")
    now = made.runtime.now()
    for row in made.registry.models:
        for _ in range(chance.choice([0, 1, 20])):
            row.track.succeeded(now - 1, chance.choice([100.0, 900 * chance.random()]), 50.0)
        if chance.random() < 0.2:
            row.track.failed(now - 40, chance.random)
    return made


def wish(chance: Random, made: Gateway, strategy: str) -> Intent:
    text = "x" * chance.choice([1, 50, 4000, 60_000])
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    if chance.random() < 0.7:
        body["max_tokens"] = chance.choice([1, 256, 5000, 100_000])
    if chance.random() < 0.4:
        body["reasoning_effort"] = "auto"
    headers = [("x-ai-multi-provider", "enabled"), ("x-ai-routing-strategy", strategy)]
    if chance.random() < 0.6:
        headers.append(("x-ai-task-hint", chance.choice(["coding", "reasoning", "creative"])))
    intent = understand("chat", body, parse_headers(headers), made.settings, made.registry)
    return replace(
        intent,
        strategy_source=chance.choice(["header", "config"]),
        stream=chance.random() < 0.3,
        copies=chance.choice([1, 3]),
    )


def plan_or_none(made: Gateway, intent: Intent, now: float) -> Plan | None:
    try:
        return made.planner.plan(intent, now)
    except NoCandidate:
        return None


def same_past(made: Gateway, other: Gateway) -> None:
    """What the models of one gateway have lived through is what those of the other have."""
    for theirs, ours in zip(made.registry.models, other.registry.models, strict=True):
        for name in theirs.track.__slots__:
            setattr(ours.track, name, getattr(theirs.track, name))
    other.registry.trouble_until = made.registry.trouble_until


def limited(chance: Random, made: Gateway, intent: Intent, now: float) -> Intent:
    """The request under limits that turn somebody away, or everybody but a few."""
    models = made.registry.models
    costs = [c for m in models if (c := worst_cost(intent, m)) is not None] or [0]
    known = [ms for m in models if (ms := m.latency_ms(now, first_byte=intent.stream)) is not None]
    limits = replace(
        intent.constraints,
        cost_limit=sorted(costs)[chance.choice([3, len(costs) // 2, -1])]
        if chance.random() < 0.7
        else None,
        max_latency_ms=chance.choice([150.0, *known, 1e6]) if chance.random() < 0.7 else None,
    )
    if chance.random() < 0.2:
        limits.budget = chance.choice(costs)
    return replace(intent, constraints=limits)


@pytest.mark.parametrize("limits", [False, True])
@pytest.mark.parametrize("prices", PRICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_candidates_in_the_same_order_as_without(
    strategy: str, prices: str, limits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(f"{strategy} {prices}")
    made = served(chance, prices)
    assert len(made.registry.models) > SHORTEST
    now = made.runtime.now()
    wishes = [wish(chance, made, strategy) for _ in range(12)]
    if limits:
        wishes = [limited(chance, made, intent, now) for intent in wishes]
    with_it = [plan_or_none(made, intent, now) for intent in wishes]

    monkeypatch.setattr("aiproxy.middleware.routing.slate.SHORTEST", 1 << 30)
    plain = Gateway(made.config, wrapped_app=False, scope="all")
    same_past(made, plain)
    without = [plan_or_none(plain, intent, now) for intent in wishes]

    for fast, slow in zip(with_it, without, strict=True):
        assert (fast is None) == (slow is None)
        if fast is None or slow is None:
            continue
        assert [(r.model.name, r.cost, r.latency_ms, r.quality) for r in fast.ranked] == [
            (r.model.name, r.cost, r.latency_ms, r.quality) for r in slow.ranked
        ]
        assert [r.score for r in fast.ranked] == pytest.approx([r.score for r in slow.ranked])
        assert fast.reason == slow.reason
        assert (fast.eligible > 16) == (slow.eligible > 16)
        assert {(r.model.name, r.reason) for r in fast.rejected} == {
            (r.model.name, r.reason) for r in slow.rejected
        }
        assert fast.confidence == pytest.approx(slow.confidence, abs=1e-4)


@pytest.mark.parametrize("prices", PRICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_kept_for_requests_of_one_length_suits_each_of_them(
    strategy: str, prices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(f"{strategy} {prices} again")
    made = served(chance, prices)
    monkeypatch.setattr("aiproxy.middleware.routing.slate.SHORTEST", 1 << 30)
    plain = Gateway(made.config, wrapped_app=False, scope="all")
    monkeypatch.undo()
    now = made.runtime.now()
    first = replace(wish(chance, made, strategy), task="general", task_source="classified")
    for _ in range(40):
        now += chance.choice([0.0, 0.05, 0.2])
        for row in chance.sample(made.registry.models, 3):
            row.track.succeeded(now, 900 * chance.random(), 50.0)
        same_past(made, plain)
        longer = chance.choice([1, 1, 1, 30])
        intent = replace(first, prompt_tokens=first.prompt_tokens * longer + chance.randint(0, 9))
        # the board reads latencies every 100 ms: here it is to read them for each request
        made.planner._slates.clear()
        if chance.random() < 0.5:
            made.planner.plan(replace(intent, prompt_tokens=intent.prompt_tokens + 1), now)
        fast = made.planner.plan(intent, now)
        monkeypatch.setattr("aiproxy.middleware.routing.slate.SHORTEST", 1 << 30)
        slow = plain.planner.plan(intent, now)
        monkeypatch.undo()
        turns = strategy == "round_robin"
        assert turns or [r.model.name for r in fast.ranked] == [r.model.name for r in slow.ranked]


def test_a_model_that_grew_faster_is_found_after_a_moment() -> None:
    chance = Random(7)
    made = served(chance, "split")
    now = made.runtime.now()
    intent = replace(wish(chance, made, "latency"), stream=False, strategy_source="header")
    slowest = max(made.registry.models, key=lambda m: m.latency_ms(now, first_byte=False) or 0.0)
    before = made.planner.plan(intent, now).ranked[0].model
    assert before is not slowest
    for _ in range(64):
        slowest.track.succeeded(now, 0.5, 0.5)
    assert made.planner.plan(intent, now + 0.2).ranked[0].model is slowest


@pytest.mark.parametrize("prices", PRICES)
def test_a_cost_limit_rejects_exactly_those_above_it(prices: str) -> None:
    chance = Random(prices)
    made = served(chance, prices)
    now = made.runtime.now()
    rejecting = 0
    for _ in range(30):
        intent = wish(chance, made, "cost")
        costs = {m: worst_cost(intent, m) for m in made.registry.models}
        limit = chance.choice([10**15, *(c for c in costs.values() if c is not None)])
        limited = replace(intent.constraints, cost_limit=limit)
        plan = made.planner.plan(replace(intent, constraints=limited), now)
        above = {m for m, cost in costs.items() if cost is None or cost > limit}
        assert {row.model for row in plan.rejected} == above
        assert (plan.eligible > len(plan.ranked)) == (len(costs) - len(above) > len(plan.ranked))
        rejecting += bool(above)
    assert prices == "free" or rejecting > 0


@pytest.mark.parametrize("strategy", ["cost", "capability-first", "balanced"])
@pytest.mark.parametrize("facts", [{}, {"cost_per_1k_tokens": 0.001, "quality": 0.7}])
def test_of_a_thousand_who_are_alike_a_few_are_weighed(
    strategy: str, facts: dict[str, Any]
) -> None:
    rows = [{"name": f"m{i}", "capabilities": ["text-generation"], **facts} for i in range(1000)]
    provider = {"type": "openai_compatible", "endpoint": "http://127.0.0.1:9/v1", "models": rows}
    made = Gateway({"providers": {"p": provider}}, wrapped_app=False, scope="all")
    intent = wish(Random(3), made, strategy)
    now = made.runtime.now()
    made.planner.plan(intent, now)
    [kept] = made.planner._slates.values()
    weights = made.settings.weights
    picked = kept.board.pick(intent, now, weights, [], timed=False, spread=False)
    assert [model.name for model in picked.figures.models[:2]] == ["m0", "m1"]
    assert len(picked.figures.models) <= 20
