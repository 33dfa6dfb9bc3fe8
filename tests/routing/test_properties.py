"""What holds of every plan, over registries, pasts and requests drawn at random.

A cheaper, faster or better candidate never loses rank by it; nobody outside a constraint is in a
plan; policies compose as the specification says.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.config import Config, load_config
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intent import Intent, understand
from aiproxy.middleware.preferences import parse_headers
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.plan import Plan, worst_cost
from aiproxy.middleware.routing.refusing import NoCandidate

req = pytest.mark.requirement
STRATEGIES = ("cost", "latency", "quality", "capability-first", "balanced", "availability")
NOW = 1_000.0
some = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def row(chance: Random, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "quality": round(chance.uniform(0.2, 0.9), 2)}
    if chance.random() < 0.4:
        found["capabilities"] = ["text-generation", "code-generation"]
    if chance.random() < 0.9:
        found["price"] = {
            "input": chance.choice([0.0, 0.1, 0.5, 1.0]),
            "output": chance.choice([0.2, 0.5, 2.0]),
        }
    if chance.random() < 0.3:
        found["context_window"] = chance.choice([2_000, 20_000, 100_000])
    if chance.random() < 0.3:
        found["max_output_tokens"] = chance.choice([100, 4_000])
    return found


def drawn(chance: Random, *, policies: Any = (), **routing: Any) -> Config:
    """A configuration of some 12 models, or of some 60."""
    each = chance.choice([3, 15])
    providers = {
        f"p{i}": {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "priority": chance.randint(1, 3),
            "models": [row(chance, f"m{i}-{j}") for j in range(each)],
            "security": {
                "labels": [{"label": name} for name in ("hipaa", "gdpr") if chance.random() < 0.6],
                "regions": chance.choice([[], ["eu"], ["eu", "us"]]),
            },
        }
        for i in range(4)
    }
    return load_config(
        {
            "providers": providers,
            "routing": {"policies": list(policies), "default_provider": "p0", **routing},
            "security": {"classes": {"eu-only": {"regions": ["eu"]}}},
        }
    )


def lived(config: Config, seed: int) -> Gateway:
    """A gateway whose models have answered, or failed, in the last minute."""
    made = Gateway(config, wrapped_app=False, scope="all")
    chance = Random(seed)
    for model in made.registry.models:
        taken = chance.choice([0, 1, 5])
        for _ in range(taken):
            model.track.succeeded(NOW - 30, chance.choice([80.0, 200.0, 900.0, 4_000.0]), 50.0)
        if chance.random() < 0.15:
            made.registry.failed(
                model, NOW - 20, lambda: 0.5, chance.choice([None, 60.0]), whole_provider=False
            )
            model.track.cooling_until = 0.0
    return made


def asked(chance: Random, made: Gateway, strategy: str, *, limits: bool = True) -> Intent:
    text = "x" * chance.choice([10, 900, 9_000, 60_000])
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    if chance.random() < 0.7:
        body["max_tokens"] = chance.choice([1, 300, 5_000])
    headers = [("x-ai-routing-strategy", strategy)]
    for name, values, often in (
        ("x-ai-task-hint", ["coding", "reasoning"], 0.3),
        ("x-ai-provider-pool", ["p0,p1", "p2,p3,nobody"], 0.3),
        ("x-ai-security-requirements", ["hipaa", "hipaa,gdpr"], 0.2),
        ("x-ai-data-classification", ["eu-only"], 0.2),
        ("x-ai-quality-threshold", ["0.4", "0.7"], 0.4),
        ("x-ai-max-latency", ["150", "1000"], 0.4),
        ("x-ai-cost-limit", ["0.001", "0.05", "1"], 0.4),
    ):
        if limits and chance.random() < often:
            headers.append((name, chance.choice(values)))
    intent = understand("chat", body, parse_headers(headers), made.settings, made.registry)
    if limits and chance.random() < 0.2:
        intent.constraints.budget = chance.choice([0, 10**9, 10**11])
    return replace(intent, stream=chance.random() < 0.3)


def planned(made: Gateway, intent: Intent) -> Plan | None:
    try:
        return made.planner.plan(intent, NOW)
    except NoCandidate:
        return None


def place(plan: Plan | None, name: str) -> int:
    """Where a model stands; those who are not ranked stand behind all who are."""
    names = [r.model.name for r in plan.ranked] if plan is not None else []
    return names.index(name) if name in names else 1_000


# --- constraints ---------------------------------------------------------------------------------


def satisfied(intent: Intent, model: Model) -> None:
    limits, provider = intent.constraints, model.provider
    assert limits.pool is None or provider.id in limits.pool
    assert limits.labels <= provider.labels
    assert not limits.regions or (provider.regions and provider.regions <= limits.regions)
    assert intent.needs <= model.capabilities
    assert model.context_window is None or intent.prompt_tokens < model.context_window
    cost = worst_cost(intent, model)
    for limit in (limits.cost_limit, limits.budget):
        assert limit is None or (cost is not None and cost <= limit)
    if limits.quality is not None:
        assert (model.quality_for(intent.task) or 0.0) >= limits.quality
    if limits.max_latency_ms is not None:
        estimate = model.latency_ms(NOW, first_byte=intent.stream)
        assert estimate is None or estimate <= limits.max_latency_ms
    assert model.track.blocked_for(NOW) == 0


@req("AIP-ROUTE-002", "XAI-SYNC-014", "UNI-ROUTE-014")
@some
@given(seeds, st.sampled_from((*STRATEGIES, "round_robin")))
def test_nobody_in_a_plan_is_outside_a_constraint(seed: int, strategy: str) -> None:
    """And whoever is not in it is on record with a reason, or beyond the last that are kept."""
    chance = Random(seed)
    spread = {"enabled": chance.random() < 0.3, "strategy": "weighted"}
    made = lived(drawn(chance, load_balancing=spread), seed)
    for _ in range(3):
        try:
            intent = asked(chance, made, strategy)
        except ProxyError as refused:
            assert refused.code in ("unsupported_security_requirement", "no_eligible_provider")
            continue
        plan = planned(made, intent)
        if plan is None:
            continue
        for ranked in plan.ranked:
            satisfied(intent, ranked.model)
        out = {r.model for r in plan.rejected}
        assert len(out) == len(list(plan.rejected))
        assert not out & {r.model for r in plan.ranked}
        left = set(made.registry.models) - out - {r.model for r in plan.ranked}
        assert not left or (len(plan.ranked) == 16 and plan.eligible > 16)
        scores = [r.score for r in plan.ranked]
        assert all(0.0 <= score <= 1.0 for score in scores)
        assert 0.0 <= plan.confidence <= 1.0
        assert plan.confidence == 1.0 or len(plan.ranked) > 1


@req("XAI-RESP-013")
@pytest.mark.parametrize(
    ("prices", "confidence"),
    [([1.0], 1.0), ([1.0, 1.0], 0.0), ([1.0, 2.0], 0.5), ([1.0, 4.0, 8.0], 0.75)],
)
def test_confidence_is_the_margin_over_the_second(prices: list[float], confidence: float) -> None:
    """T-12: the normalised margin of the best over the second score, 1.0 when alone."""
    rows = [{"name": f"m{n}", "cost_per_1k_tokens": price} for n, price in enumerate(prices)]
    config = {
        "providers": {
            "p": {
                "type": "openai_compatible",
                "endpoint": "http://h/v1",
                "models": rows,
                "tls": {"allow_plaintext": True},
            }
        }
    }
    made = Gateway(load_config(config), wrapped_app=False, scope="all")
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    wish = parse_headers([("x-ai-routing-strategy", "cost")])
    plan = made.planner.plan(understand("chat", body, wish, made.settings, made.registry), NOW)
    assert plan.confidence == pytest.approx(confidence, abs=1e-3)


# --- monotone ------------------------------------------------------------------------------------


def cheaper(rows: dict[str, Any], track: Any, chance: Random) -> None:
    given_ = {half: value for half, value in rows["price"].items() if value is not None}
    if given_:
        new = {half: chance.choice([0.0, 0.5]) * value for half, value in given_.items()}
    else:
        new = {"input": 0.0, "output": 0.1}
    rows["price"] = {**rows["price"], **new}


def better(rows: dict[str, Any], track: Any, chance: Random) -> None:
    rows["quality"] = min(1.0, rows["quality"] + chance.choice([0.0, 0.05, 0.4]))


@req("XAI-HDR-023", "XAI-HDR-024", "XAI-HDR-025")
@pytest.mark.parametrize("improve", [cheaper, better])
@some
@given(seeds, st.sampled_from(STRATEGIES))
def test_a_cheaper_or_better_candidate_never_loses_rank(
    improve: Callable[..., None], seed: int, strategy: str
) -> None:
    chance = Random(seed)
    config = drawn(chance)
    before = lived(config, seed)
    try:
        intent = asked(Random(seed), before, strategy)
    except ProxyError:
        return
    chosen = chance.choice(before.registry.models)
    values = config.values
    provider = values["providers"][chosen.provider.id]
    rows = [dict(entry) for entry in provider["models"]]
    improve(next(entry for entry in rows if entry["name"] == chosen.name), None, chance)
    changed = {
        **values,
        "providers": {
            **values["providers"],
            chosen.provider.id: {**provider, "models": rows},
        },
    }
    after = lived(replace(config, values=changed), seed)
    old, new = planned(before, intent), planned(after, intent)
    assert place(new, chosen.name) <= place(old, chosen.name)


@req("XAI-HDR-024", "XAI-PERF-001")
@some
@given(seeds, st.sampled_from(STRATEGIES))
def test_a_faster_candidate_never_loses_rank(seed: int, strategy: str) -> None:
    chance = Random(seed)
    config = drawn(chance)
    before, after = lived(config, seed), lived(config, seed)
    try:
        intent = asked(Random(seed), before, strategy)
    except ProxyError:
        return
    measured = [
        i for i, m in enumerate(before.registry.models) if m.latency_ms(NOW, first_byte=False)
    ]
    if not measured:
        return
    at = chance.choice(measured)
    track = after.registry.models[at].track
    ring = track.latencies._ring
    for place_ in range(0, len(ring), 3):
        ring[place_ + 1] *= 0.5
        ring[place_ + 2] *= 0.5
    track._changed = True
    name = before.registry.models[at].name
    assert place(planned(after, intent), name) <= place(planned(before, intent), name)


# --- policies ------------------------------------------------------------------------------------

PROVIDERS = ("p0", "p1", "p2", "p3")
actions = st.sampled_from(
    [
        *(f"require provider.{p}" for p in PROVIDERS),
        "require provider.p0 or provider.p1",
        *(f"prefer provider.{p}" for p in PROVIDERS),
        "prefer provider.p2 > provider.p0",
        "provider.priority ASC",
        "provider.quality DESC",
        "provider.cost_per_1k_tokens ASC",
        "priority = 5",
    ]
)
conditions = st.sampled_from(
    ["request.tokens < 1000", "request.tokens >= 1000", "request.model matches '*'"]
)


@st.composite
def policies(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(0, 3))
    kinds = st.sampled_from(["model_specific", "cost_optimized", "latency_optimized"])
    return [
        {
            "name": f"policy-{n}",
            "type": draw(kinds),
            "rules": [
                {"if": draw(conditions), "then": draw(actions)}
                for _ in range(draw(st.integers(1, 2)))
            ],
        }
        for n in range(count)
    ]


def acting(rows: list[dict[str, Any]], strategy: str, tokens: int) -> list[str]:
    """What the policies do to a request: the action of the first rule that holds, of each that is
    active."""
    kinds = {"cost": "cost_optimized", "latency": "latency_optimized"}
    holds = {
        "request.tokens < 1000": tokens < 1000,
        "request.tokens >= 1000": tokens >= 1000,
        "request.model matches '*'": True,
    }
    found = []
    for one in rows:
        if one["type"] in ("model_specific", kinds.get(strategy)):
            found += [r["then"] for r in one["rules"] if holds[r["if"]]][:1]
    return found


@req("AIP-ROUTE-009", "AIP-ROUTE-023", "AIP-ROUTE-024", "ASC-RULE-006")
@some
@given(seeds, st.sampled_from(STRATEGIES), policies())
def test_policies_compose(seed: int, strategy: str, rows: list[dict[str, Any]]) -> None:
    """T-54 to T-56, T-85: what is required holds whatever comes later; nobody comes in by a
    policy; the last preference of all stands, and among its equals the strategy's order does."""
    chance = Random(seed)
    config = drawn(chance)
    plain = lived(config, seed)
    values = {**config.values, "routing": {**config.values["routing"], "policies": rows}}
    ruled = lived(replace(config, values=values), seed)
    try:
        intent = asked(Random(seed), plain, strategy)
    except ProxyError:
        return
    without, found = planned(plain, intent), planned(ruled, intent)
    done = acting(rows, strategy, intent.prompt_tokens)
    required = [set(PROVIDERS)]
    for action in done:
        if action.startswith("require"):
            required.append({p for p in PROVIDERS if p in action})
    allowed = set.intersection(*required)
    if without is None:
        assert found is None
        return
    if found is None:
        assert all(r.model.provider.id not in allowed for r in without.ranked), (
            "a policy turned away somebody it allows"
        )
        return
    for ranked in found.ranked:
        satisfied(intent, ranked.model)
        assert ranked.model.provider.id in allowed
    excluded = {r.model for r in found.rejected if r.reason == "policy_excluded"}
    assert all(m.provider.id not in allowed for m in excluded)
    if not done:
        assert [r.model.name for r in found.ranked] == [r.model.name for r in without.ranked]
        assert found.policies == ()
    if done and done[-1].startswith("prefer"):
        wanted = [w.strip().removeprefix("provider.") for w in done[-1][7:].split(">")]
        ranks = [
            wanted.index(r.model.provider.id) if r.model.provider.id in wanted else len(wanted)
            for r in found.ranked
        ]
        assert ranks == sorted(ranks)
    if len(done) == 1 and done[0].startswith("prefer") and without.eligible <= 16:
        for wanted_only in PROVIDERS:
            mine = [r.model.name for r in found.ranked if r.model.provider.id == wanted_only]
            theirs = [r.model.name for r in without.ranked if r.model.provider.id == wanted_only]
            assert mine == theirs
