"""Properties of the parts that decide: header parsing, ranking, money, body patching."""

import json
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from random import Random

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway
from aiproxy.middleware.intake.members import append, patch
from aiproxy.middleware.intent import understand
from aiproxy.middleware.money.amounts import PER_USD, per_token, picodollars, usd
from aiproxy.middleware.preferences import NONE, REQUEST_FIELDS, RESPONSE_NAMES, parse_headers
from aiproxy.middleware.registry import Price
from aiproxy.spec import HEADERS, checker

req = pytest.mark.requirement
calm = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
many = settings(max_examples=250, deadline=None, suppress_health_check=calm)
some = settings(max_examples=60, deadline=None, suppress_health_check=calm)

# --- headers -------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(sorted(REQUEST_FIELDS)),
    st.sampled_from(sorted(RESPONSE_NAMES)),
    st.text(max_size=20).map(lambda text: "x-ai-" + text),
    st.text(max_size=20),
)
examples = [value for field in HEADERS.values() for value in (*field.accepted, *field.refused)]
values = st.one_of(
    st.text(max_size=80),
    st.sampled_from(examples),
    st.text(alphabet=" \t,;\"'=0123456789.-_aeinNf\x00\x7f\xff\r\n", max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.builds(lambda a, b: f"{a},{b}", st.sampled_from(examples), st.sampled_from(examples)),
    st.integers(0, 5000).map(lambda n: "a" * n),
)


@req("XAI-HDR-078", "XAI-HDR-009")
@many
@given(st.lists(st.tuples(names, values), max_size=6), st.booleans())
@example([("x-ai-max-latency", "²")], False)
@example([("x-ai-cost-limit", "١")], False)
@example([("x-ai-provider-pool", ",")], True)
@example([("x-ai-max-latency", "100\r\n 200")], False)
def test_arbitrary_headers_give_preferences_or_a_proxy_error(headers, lenient):
    well_behaved(headers, lenient)


@req("XAI-HDR-078")
def test_thousands_of_spoilt_examples_do_too():
    dice = Random(9)
    letters = [*map(chr, range(256)), "²", "١", "\u2028", "🦆", ",", ",", ".", "-", " "]
    fields = sorted(REQUEST_FIELDS)
    for _ in range(8000):
        headers = []
        for _ in range(dice.randrange(1, 4)):
            name = dice.choice(fields)
            field = REQUEST_FIELDS[name]
            value = list(dice.choice(field.accepted + field.refused + tuple(field.aliases)))
            for _ in range(dice.randrange(3)):
                spot = dice.randrange(len(value) + 1)
                value[spot : spot + dice.randrange(2)] = dice.choice(letters)
            headers.append((name, "".join(value)))
        well_behaved(headers, dice.random() < 0.5)


def well_behaved(headers, lenient):
    try:
        found = parse_headers(headers, lenient=lenient)
    except ProxyError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.status in (400, 431)
        assert refusal.param in HEADERS
        assert refusal.message.isprintable()
        return
    if not any(name in REQUEST_FIELDS for name, _ in headers):
        assert found.active is False
    # what was accepted has the type its schema states
    for name, attribute in (
        ("x-ai-max-latency", found.max_latency_ms),
        ("x-ai-quality-threshold", found.quality),
        ("x-ai-routing-strategy", found.strategy),
        ("x-ai-failover-policy", found.failover),
    ):
        if attribute is not None:
            assert checker(REQUEST_FIELDS[name].schema_name).ok(attribute)
    for members in (found.pool or (), found.security, found.tool_categories, found.merge_branches):
        assert len(set(members)) == len(members)
        assert all(member and member.isascii() and "," not in member for member in members)


@many
@given(st.sampled_from(sorted(REQUEST_FIELDS)), values)
def test_a_value_said_twice_means_the_same_once(name, value):
    """However a server hands repeated lines on: as two, or joined by a comma."""
    assume("," not in value and len(value) < 900)

    def outcome(headers):
        try:
            return parse_headers(headers)
        except ProxyError as error:
            return error.code, error.param

    once = outcome([(name, value)])
    assert outcome([(name, value), (name, value)]) == once
    if value.strip(" \t"):
        assert outcome([(name, f"{value}, {value}")]) == once


def test_no_header_of_ours_gives_the_shared_nothing():
    assert parse_headers([("accept", "*/*"), ("x-aix", "1")]) is NONE


@pytest.mark.parametrize("fold", ["\r\n ", "\n ", "\r\n\t"])
def test_a_fold_that_a_server_hands_on_is_refused(fold):
    with pytest.raises(ProxyError) as caught:
        parse_headers([("x-ai-provider-pool", f"a,{fold}b")])
    assert (caught.value.status, caught.value.param) == (400, "X-AI-Provider-Pool")


# --- ranking -------------------------------------------------------------------------------------


def gateway(rows, **routing):
    """One provider a row of (cost, latency in ms, quality, capabilities, reasoning)."""
    providers = {}
    for number, (cost, latency, quality, capabilities, reasoning) in enumerate(rows):
        providers[f"p{number}"] = {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "models": [
                {
                    "name": f"m{number}",
                    "cost_per_1k_tokens": cost,
                    "latency_prior": None if latency is None else f"{latency}ms",
                    "quality": quality,
                    "capabilities": capabilities,
                    "reasoning": reasoning,
                }
            ],
        }
    routing.setdefault("default_provider", "p0")
    return Gateway({"providers": providers, "routing": routing}, wrapped_app=False)


def planned(made, headers, **members):
    """The providers in order, and those rejected."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi there"}], **members}
    headers = {"x-ai-multi-provider": "enabled", **headers}
    parsed = parse_headers(headers.items())
    try:
        intent = understand("chat", body, parsed, made.settings, made.registry)
        plan = made.planner.plan(intent, 1000.0)
    except ProxyError as error:
        return [], [row.model.provider.id for row in getattr(error, "rejected", ())], error
    assert all(0.0 <= row.score <= 1.0 for row in plan.ranked)
    assert all(a.score >= b.score for a, b in pairwise(plan.ranked))
    assert 0.0 <= plan.confidence <= 1.0
    return (
        [row.model.provider.id for row in plan.ranked],
        [row.model.provider.id for row in plan.rejected],
        plan,
    )


costs = st.one_of(st.none(), st.sampled_from([0, 0.0001, 0.001, 0.002, 0.01, 0.5]))
latencies = st.one_of(st.none(), st.sampled_from([1, 20, 200, 900, 5000]))
qualities = st.one_of(st.none(), st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.95, 1.0]))
abilities = st.sampled_from(
    [["text-generation"], ["vision"], ["code-generation"], ["embeddings"], ["reasoning"]]
)
rungs = st.sampled_from(["none", "none", "native", "enhanced"])
rows = st.lists(st.tuples(costs, latencies, qualities, abilities, rungs), min_size=1, max_size=6)
strategies_ = st.sampled_from(HEADERS["X-AI-Routing-Strategy"].values)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "x-ai-routing-strategy": strategies_,
        "x-ai-task-hint": st.sampled_from(["coding", "reasoning", "multimodal", "creative"]),
        "x-ai-quality-threshold": st.sampled_from(["0.4", "0.9"]),
        "x-ai-max-latency": st.sampled_from(["100", "1000"]),
        "x-ai-cost-limit": st.sampled_from(["0", "0.002", "0.1"]),
        "x-ai-provider-pool": st.sampled_from(["p0,p1", "p1,p2,p3", "p5"]),
        "x-ai-reasoning-preference": st.sampled_from(["native", "enhanced", "simulated"]),
    },
)


@req("XAI-HDR-078", "XAI-HDR-079")
@some
@given(rows, wishes)
def test_nobody_rejected_is_ranked_and_order_is_deterministic(candidates, headers):
    assume(headers.get("x-ai-routing-strategy") != "round_robin")
    made = gateway(candidates)
    ranked, rejected, _ = planned(made, headers)
    assert not set(ranked) & set(rejected)
    assert len(set(ranked)) == len(ranked)
    assert planned(made, headers)[:2] == (ranked, rejected)
    assert planned(gateway(candidates), headers)[:2] == (ranked, rejected)


@req("XAI-HDR-016", "XAI-HDR-057", "XAI-HDR-061", "XAI-HDR-065", "XAI-AUTO-012")
@some
@given(rows, wishes)
def test_every_ranked_candidate_keeps_every_constraint(candidates, headers):
    made = gateway(candidates)
    ranked, _, plan = planned(made, headers)
    pool = headers.get("x-ai-provider-pool")
    for name, row in zip(ranked, plan.ranked if ranked else (), strict=True):
        cost, latency, quality, capabilities, _ = candidates[int(name[1:])]
        assert "embeddings" not in capabilities
        assert pool is None or name in pool.split(",")
        if "x-ai-quality-threshold" in headers:
            assert quality is not None
            assert quality >= float(headers["x-ai-quality-threshold"])
        if "x-ai-max-latency" in headers and latency is not None:
            assert latency <= int(headers["x-ai-max-latency"])
        if "x-ai-cost-limit" in headers:
            assert cost is not None
            assert usd(row.cost) <= float(headers["x-ai-cost-limit"])


@req("XAI-HDR-023", "XAI-HDR-024", "XAI-HDR-025", "XAI-HDR-027")
@some
@given(
    rows,
    st.sampled_from(["cost", "latency", "quality", "balanced"]),
    st.sampled_from(["coding", None]),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.1, 0.5, 0.99]),
)
def test_getting_better_never_costs_a_rank(candidates, strategy, hint, which, factor):
    which %= len(candidates)
    headers = {"x-ai-routing-strategy": strategy} | ({"x-ai-task-hint": hint} if hint else {})
    before = planned(gateway(candidates), headers)[0]
    name = f"p{which}"
    assume(name in before)
    cost, latency, quality, *rest = candidates[which]
    better = [
        (None if cost is None else cost * factor, latency, quality, *rest),
        (cost, None if latency is None else max(latency * factor, 0.5), quality, *rest),
        (cost, latency, None if quality is None else quality + (1 - quality) * (1 - factor), *rest),
    ]
    for changed in better:
        after = planned(gateway([*candidates[:which], changed, *candidates[which + 1 :]]), headers)[
            0
        ]
        assert after.index(name) <= before.index(name), (changed, before, after)


@req("XAI-HDR-066")
@some
@given(rows)
def test_unknown_prices_rank_last_under_cost(candidates):
    ranked = planned(gateway(candidates), {"x-ai-routing-strategy": "cost"})[0]
    prices = [candidates[int(name[1:])][0] for name in ranked]
    known = [price for price in prices if price is not None]
    assert known == sorted(known)
    assert prices[len(known) :] == [None] * (len(prices) - len(known))


@req("XAI-HDR-062")
@some
@given(rows, strategies_)
def test_unmeasured_latency_ranks_last_under_a_limit(candidates, strategy):
    headers = {"x-ai-routing-strategy": strategy, "x-ai-max-latency": "1000"}
    ranked = planned(gateway(candidates), headers)[0]
    measured = [candidates[int(name[1:])][1] is not None for name in ranked]
    assert measured == sorted(measured, reverse=True)


@req("XAI-HDR-051", "XAI-HDR-052", "XAI-HDR-053")
@some
@given(rows, strategies_, st.sampled_from(["native", "enhanced", "simulated"]))
def test_the_rungs_of_reasoning_never_mix(candidates, strategy, preference):
    assume(strategy != "round_robin")
    headers = {"x-ai-routing-strategy": strategy, "x-ai-reasoning-preference": preference}
    ranked = planned(gateway(candidates), headers)[0]
    ladder = {
        "native": ["native", "enhanced", "none"],
        "enhanced": ["enhanced", "native", "none"],
        "simulated": ["none", "enhanced", "native"],
    }[preference]
    places = [ladder.index(candidates[int(name[1:])][4]) for name in ranked]
    assert places == sorted(places)


@req("XAI-SYNC-007")
@some
@given(rows)
def test_without_a_header_only_the_default_provider_is_planned(candidates):
    made = gateway(candidates)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
    intent = understand("chat", body, NONE, made.settings, made.registry)
    assert not intent.selects
    if candidates[0][3] == ["embeddings"]:
        with pytest.raises(ProxyError) as caught:
            made.planner.plan(intent, 0.0)
        assert caught.value.code == "no_eligible_provider"
        return
    plan = made.planner.plan(intent, 0.0)
    assert [row.model.provider.id for row in plan.ranked] == ["p0"]


@some
@given(rows, wishes)
@example(
    [
        (None, None, None, ["text-generation"], "none"),
        (None, None, None, ["text-generation"], "native"),
    ],
    {"x-ai-routing-strategy": "round_robin", "x-ai-reasoning-preference": "native"},
)
def test_the_fallback_plan_keeps_every_constraint_too(candidates, headers):
    """What is used when selection itself breaks (XAI-FAIL-021)."""
    made = gateway(candidates)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hi there"}]}
    headers = {"x-ai-multi-provider": "enabled", **headers}
    try:
        intent = understand(
            "chat", body, parse_headers(headers.items()), made.settings, made.registry
        )
    except ProxyError:
        return
    eligible, _, _ = planned(made, headers)
    try:
        plan = made.planner.plan_default(intent, 1000.0)
    except ProxyError:
        assert eligible == []
        return
    assert {row.model.provider.id for row in plan.ranked} == set(eligible) or (
        headers.get("x-ai-task-hint") == "multimodal"
    )


def test_more_copies_cost_more_in_the_worst_case():
    from aiproxy.middleware.routing.plan import worst_cost

    made = gateway([(0.01, None, None, ["text-generation"], "none")])
    [only] = made.registry.models
    body = {"model": "m0", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100}
    intent = understand("chat", body, NONE, made.settings, made.registry)
    once, thrice = (worst_cost(replace(intent, copies=n), only) for n in (1, 3))
    assert thrice - once == 200 * only.price.output
    item = replace(only, price=Price(0, 0, per_item=7))
    assert worst_cost(replace(intent, copies=3), item) == 21


# --- money ---------------------------------------------------------------------------------------

amounts = st.decimals(0, 10_000, places=9, allow_nan=False, allow_infinity=False)


@req("AIP-API-005", "AIP-API-016")
@many
@given(amounts, st.integers(0, 10**7), st.integers(0, 10**7))
def test_money_is_exact(price, prompt, output):
    each = per_token(price)
    assert Decimal(each) * 1000 == price * PER_USD
    cost = Price(each, each).cost(Usage(prompt, output))
    assert Decimal(cost) / PER_USD == price * (prompt + output) / 1000
    assert picodollars(usd(picodollars(price))) == pytest.approx(picodollars(price), rel=1e-12)


@given(st.lists(amounts, max_size=50))
def test_sums_do_not_depend_on_the_order(prices):
    whole = [picodollars(price) for price in prices]
    assert sum(whole) == sum(reversed(whole)) == int(sum(prices, Decimal(0)) * PER_USD)


def test_floats_are_read_as_they_are_written():
    assert picodollars(0.1) == 100_000_000_000
    assert per_token(0.0003) == 300_000
    assert usd(Price(per_token(0.001), per_token(0.001)).cost(Usage(9, 12))) == 0.000021


def test_cached_tokens_have_their_own_price():
    price = Price(10, 40, cache_read=1, cache_write=12)
    assert price.cost(Usage(100, 5, cached=60, cache_write=20)) == 20 * 10 + 60 + 20 * 12 + 5 * 40
    assert Price(10, 40).cost(Usage(100, 5, cached=60)) == 100 * 10 + 5 * 40
    assert price.worst(100, 5) == 100 * 12 + 5 * 40


# --- patching ------------------------------------------------------------------------------------

scalars = st.one_of(
    st.sampled_from(["1e2", "1E400", "-0.0", "1.10", "12345678901234567890123", "true", "null"]),
    st.text(max_size=12).map(json.dumps),
    st.text(max_size=12).map(lambda t: json.dumps(t, ensure_ascii=False)),
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda found: "[ " + " , ".join(found) + "]"),
        st.dictionaries(st.text(max_size=5), inner, max_size=3).map(
            lambda found: "{" + ", ".join(f"{json.dumps(k)} : {v}" for k, v in found.items()) + "}"
        ),
    ),
    max_leaves=8,
)
members_ = st.dictionaries(st.text(max_size=8), documents, max_size=5)


def utf8(text):
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


@many
@given(members_, st.sampled_from(["model", "a", "é"]), st.sets(st.sampled_from(["tools", "b"])))
def test_patch_keeps_the_bytes_of_every_other_member(members, changed, removed):
    raw = utf8("{" + " , ".join(f"{json.dumps(k)}: {v}" for k, v in members.items()) + "}")
    assume(raw is not None)
    try:
        before = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:  # a lone surrogate, which no JSON parser on the path accepts
        assume(False)
    after = msgspec.json.decode(
        patch(raw, {changed: "new"}, remove=frozenset(removed)), type=dict[str, msgspec.Raw]
    )
    assert bytes(after[changed]) == b'"new"'
    expected = [name for name in before if name not in removed]
    assert list(after) == expected + ([] if changed in before else [changed])
    for name in expected:
        if name != changed:
            assert bytes(after[name]) == bytes(before[name])


@given(st.dictionaries(st.text(max_size=8), st.integers(), min_size=1, max_size=5), st.integers())
def test_append_adds_one_member_at_the_end(members, value):
    raw = json.dumps(members).encode() + b" \n"
    longer = append(raw, "x-aiproxy", {"cost": value % 1000})
    assert longer.startswith(raw.rstrip()[:-1])
    assert orjson.loads(longer)["x-aiproxy"] == {"cost": value % 1000}
