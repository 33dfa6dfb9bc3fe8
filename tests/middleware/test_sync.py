"""How ``auto`` parameters and headers act together (draft section 5, rules 1 to 4; XAI-SYNC)."""

import pytest
from mounts import CHEAP, DEAR, HELLO, RESPONSES, model
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
HIPAA = {"security": {"labels": [{"label": "hipaa"}]}}
CODER = {"capabilities": ["text-generation", "code-generation"]}


@req("XAI-SYNC-002", "XAI-SYNC-003", "XAI-SYNC-012")
def test_the_switch_off_sends_everything_to_the_default_provider(pair, fakes):
    served = pair({"cost_per_1k_tokens": DEAR})
    got = served.chat(
        {
            "X-AI-Multi-Provider": "disabled",
            "X-AI-Provider-Pool": "b",
            "X-AI-Routing-Strategy": "cost",
            "X-AI-Task-Hint": "coding",
            "X-AI-Quality-Threshold": "1",
        },
        tools="auto",
    )
    assert got.status == 200
    assert fakes.called() == {"a": 1}
    assert fakes.a.seen[0].body == {"model": "m-a", "messages": HELLO}
    assert not [name for name, _ in got.headers if name.startswith("x-ai-")]
    assert {row["why"] for row in served.record(got)["ignored"]} == {"multi_provider_disabled"}
    assert served.record(got)["mode"] == "disabled"


@req("XAI-SYNC-004")
@pytest.mark.parametrize(
    "headers",
    [{"X-AI-Security-Requirements": "hipaa"}, {"X-AI-Data-Classification": "secret"}],
)
def test_security_binds_with_the_switch_off(pair, fakes, headers):
    served = pair(provider_b=HIPAA, security={"classes": {"secret": {"labels": ["hipaa"]}}})
    got = served.chat({"X-AI-Multi-Provider": "disabled", **headers})
    assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")
    assert got.error["param"] in headers
    assert fakes.called() == {}


@req("XAI-SYNC-005", "XAI-SYNC-006")
@pytest.mark.parametrize("switch", [ON, {}])
def test_headers_assist_with_the_switch_on_or_absent(pair, switch):
    served = pair(
        {"cost_per_1k_tokens": DEAR, "latency_prior": "30ms", "quality": 0.9},
        {"latency_prior": "900ms"},
    )
    chosen = {
        strategy: served.chat({**switch, "X-AI-Routing-Strategy": strategy}).provider
        for strategy in ("latency", "quality", "cost")
    }
    assert chosen == {"cost": "b", "latency": "a", "quality": "a"}


@req("XAI-SYNC-007")
def test_auto_without_any_header_is_the_default_providers(pair, fakes):
    served = pair({"cost_per_1k_tokens": DEAR}, routing={"scope": "all"})
    got = served.chat()
    assert got.status == 200
    assert fakes.called() == {"a": 1}
    assert fakes.a.seen[0].body["model"] == "m-a"
    assert not [name for name, _ in got.headers if name.startswith("x-ai-")]
    selecting = pair(
        {"cost_per_1k_tokens": DEAR}, routing={"scope": "all", "auto_without_headers": "select"}
    )
    assert selecting.chat().provider == "b"


@req("XAI-SYNC-008")
@pytest.mark.parametrize(("threshold", "chosen"), [("0.95", "a"), ("0.6", "b")])
def test_a_threshold_outranks_the_strategy(pair, threshold, chosen):
    served = pair({"quality": 0.96, "cost_per_1k_tokens": DEAR}, {"quality": 0.7})
    headers = {"X-AI-Routing-Strategy": "cost", "X-AI-Quality-Threshold": threshold}
    assert served.chat(headers).provider == chosen


@req("XAI-SYNC-009")
def test_latency_and_cost_limits_outrank_the_strategy(pair):
    served = pair(
        {"quality": 0.99, "latency_prior": "900ms"}, {"quality": 0.5, "latency_prior": "100ms"}
    )
    got = served.chat({"X-AI-Routing-Strategy": "quality", "X-AI-Max-Latency": "200"})
    assert got.provider == "b"
    served = pair({"cost_per_1k_tokens": 1, "latency_prior": "10ms"}, {"latency_prior": "900ms"})
    got = served.chat({"X-AI-Routing-Strategy": "latency", "X-AI-Cost-Limit": "0.01"})
    assert got.provider == "b"


@req("XAI-SYNC-010", "XAI-FIG-003")
def test_example_1_native_reasoning_of_enough_quality(mount, fakes):
    providers = {
        "a": [model("weak", reasoning="native", quality=0.85)],
        "b": [model("right", reasoning="native", quality=0.93, cost_per_1k_tokens=DEAR)],
        "c": [model("plain", quality=0.99)],
    }
    headers = {
        **ON,
        "X-AI-Task-Hint": "reasoning",
        "X-AI-Reasoning-Preference": "native",
        "X-AI-Quality-Threshold": "0.9",
    }
    got = mount(fakes.config(providers)).chat(headers, reasoning="auto")
    assert got.provider == "b"
    assert got.selection["reasoning_capability"] == "native"
    del providers["b"]
    got = mount(fakes.config(providers)).chat(headers, reasoning="auto")
    assert got.provider == "c"  # the documented degrade: the instruction, and it says so
    assert got.selection["reasoning_capability"] == "simulated"
    assert "a" not in fakes.called()


@req("XAI-SYNC-011", "XAI-FIG-004", "XAI-REASON-006")
def test_example_2_an_explicit_model_with_reasoning_auto(pair, fakes):
    served = pair(None, {"reasoning": "native"})
    got = served.chat({**ON, "X-AI-Task-Hint": "reasoning"}, model="m-a", reasoning="auto")
    assert fakes.called() == {"a": 1}
    assert fakes.a.seen[0].body["model"] == "m-a"
    assert set(got.decisions) == {"reasoning"}
    assert got.selection["ignored_headers"] == ["X-AI-Task-Hint"]


@req("XAI-SYNC-013")
@pytest.mark.parametrize("path", ["/v1/chat/completions", RESPONSES])
def test_headers_never_change_what_the_client_wrote(pair, fakes, path):
    served = pair(routing={"scope": "all"})
    members = {"model": "m-a", "temperature": 0.1, "max_tokens": 5, "x_unknown": [1]}
    headers = {
        **ON,
        "X-AI-Task-Hint": "reasoning",
        "X-AI-Reasoning-Preference": "simulated",
        "X-AI-Tool-Categories": "web-search",
        "X-AI-Routing-Strategy": "quality",
        "X-AI-Quality-Threshold": "0.1",
        "X-AI-Max-Latency": "60000",
        "X-AI-Cost-Limit": "1",
        "X-AI-Provider-Pool": "a",
    }
    assert served.chat(path=path, **members).status == 200
    assert served.chat(headers, path=path, **members).status == 200
    bare, dressed = fakes.a.seen
    assert bare.body == dressed.body


# --- the order of precedence ---------------------------------------------------------------------

SECURE = {"X-AI-Security-Requirements": "hipaa"}
POOL_A, POOL_B = {"X-AI-Provider-Pool": "a"}, {"X-AI-Provider-Pool": "b"}
GOOD = {"X-AI-Quality-Threshold": "0.9"}
BY_COST = {"X-AI-Routing-Strategy": "cost"}
HINT = {"X-AI-Task-Hint": "coding"}
SAFE_A = {"provider_a": HIPAA}
LABEL = (422, "unsupported_security_requirement")
NOBODY = (422, "no_eligible_provider")

#: The levels: security, pool and cost, explicit parameters, quality and latency, strategy, hints,
#: configuration. One row a pair: who of the two must win, on what, and who serves or what is said.
CONFLICTS = {
    "security-pool": (SAFE_A, {}, {}, {**SECURE, **POOL_B}, None, LABEL),
    "security-explicit": (SAFE_A, {}, {}, SECURE, "m-b", LABEL),
    "security-quality": (
        SAFE_A,
        {"quality": 0.7},
        {"quality": 0.95},
        {**SECURE, **GOOD},
        None,
        LABEL,
    ),
    "security-strategy": (
        SAFE_A,
        {"cost_per_1k_tokens": DEAR},
        {},
        {**SECURE, **BY_COST},
        None,
        "a",
    ),
    "security-hint": (SAFE_A, {}, CODER, {**SECURE, **HINT}, None, "a"),
    "security-config": ({"provider_b": HIPAA}, {}, {}, SECURE, None, "b"),
    "pool-explicit": ({}, {}, {}, POOL_B, "m-a", NOBODY),
    "pool-quality": ({}, {"quality": 0.95}, {"quality": 0.7}, {**POOL_B, **GOOD}, None, NOBODY),
    "pool-strategy": ({}, {"cost_per_1k_tokens": DEAR}, {}, {**POOL_A, **BY_COST}, None, "a"),
    "pool-hint": ({}, {}, CODER, {**POOL_A, **HINT}, None, "a"),
    "pool-config": ({}, {}, {}, POOL_B, None, "b"),
    "explicit-quality": ({}, {"quality": 0.7}, {"quality": 0.95}, GOOD, "m-a", "a"),
    "explicit-strategy": ({}, {"cost_per_1k_tokens": DEAR}, {}, BY_COST, "m-a", "a"),
    "explicit-hint": ({}, {}, CODER, HINT, "m-a", "a"),
    "explicit-config": ({}, {}, {}, ON, "m-b", "b"),
    "quality-strategy": (
        {},
        {"quality": 0.95, "cost_per_1k_tokens": DEAR},
        {"quality": 0.7},
        {**GOOD, **BY_COST},
        None,
        "a",
    ),
    "quality-hint": ({}, {"quality": 0.95}, {"quality": 0.7, **CODER}, {**GOOD, **HINT}, None, "a"),
    "quality-config": ({}, {"quality": 0.7}, {"quality": 0.95}, GOOD, None, "b"),
    "strategy-hint": (
        {},
        {"cost_per_1k_tokens": DEAR, **CODER},
        {},
        {**BY_COST, **HINT},
        None,
        "b",
    ),
    "strategy-config": (
        {"routing": {"strategy": "quality_optimized"}},
        {"quality": 0.95, "cost_per_1k_tokens": DEAR},
        {"quality": 0.5},
        BY_COST,
        None,
        "b",
    ),
    "hint-config": (
        {"routing": {"strategy": "cost_optimized"}},
        {"cost_per_1k_tokens": DEAR, **CODER},
        {},
        HINT,
        None,
        "a",
    ),
}


@req("XAI-SYNC-014", "XAI-SYNC-018")
@pytest.mark.parametrize("name", CONFLICTS)
def test_each_pair_of_the_order_of_precedence(pair, fakes, name):
    more, a, b, headers, wanted, expected = CONFLICTS[name]
    more = dict(more)
    routing = {"default_provider": "a", **more.pop("routing", {})}
    served = pair(a, b, routing=routing, **more)
    got = served.chat(headers, model=wanted or "auto")
    if isinstance(expected, str):
        assert (got.status, got.provider) == (200, expected), got
        assert fakes.called() == {expected: 1}
    else:
        assert (got.status, got.error["code"]) == expected
        assert got.error["param"] in headers
        assert fakes.called() == {}


def test_the_table_has_every_pair():
    levels = ("security", "pool", "explicit", "quality", "strategy", "hint", "config")
    pairs = [f"{x}-{y}" for i, x in enumerate(levels) for y in levels[i + 1 :]]
    assert sorted(CONFLICTS) == sorted(pairs)
    assert len(pairs) == 21


@req("XAI-SYNC-015")
def test_ignored_headers_are_listed_or_absent(pair):
    served = pair()
    assert "ignored_headers" not in served.chat(ON).selection
    got = served.chat({"X-AI-Task-Hint": "coding"}, model="m-a")
    assert got.selection["ignored_headers"] == ["X-AI-Task-Hint"]


@req("XAI-SYNC-016")
def test_contradictory_numbers_are_refused(pair, fakes):
    headers = {"X-AI-Cost-Limit": "0", "X-AI-Quality-Threshold": "0.99"}
    got = pair({"cost_per_1k_tokens": 0}, {"quality": 1.0}).chat(headers)
    assert (got.status, got.error["code"]) == NOBODY
    assert got.error["param"] in headers
    assert fakes.called() == {}


@req("XAI-SYNC-017")
@pytest.mark.parametrize(
    ("header", "value", "weak", "strong"),
    [
        ("X-AI-Max-Latency", "100", {"latency_prior": "300ms"}, {"latency_prior": "30ms"}),
        ("X-AI-Quality-Threshold", "0.9", {"quality": 0.5}, {"quality": 0.95}),
    ],
)
def test_with_an_explicit_model_they_choose_among_its_providers(
    mount, fakes, header, value, weak, strong
):
    both = {"a": [model("m", **weak)], "b": [model("m", cost_per_1k_tokens=DEAR, **strong)]}
    served = mount(fakes.config(both))
    got = served.chat({header: value}, model="m")
    assert got.provider == "b"
    assert "ignored_headers" not in got.selection
    got = mount(fakes.config({"a": [model("m", **weak)]})).chat({header: value}, model="m")
    assert (got.status, got.provider) == (200, "a")
    assert got.selection["ignored_headers"] == [header]


@req("XAI-SYNC-018")
def test_a_cost_limit_binds_an_explicit_model(pair, fakes):
    got = pair({"cost_per_1k_tokens": 1.0}).chat({"X-AI-Cost-Limit": "0.01"}, model="m-a")
    assert (got.status, got.error["code"]) == NOBODY
    assert got.error["param"] == "X-AI-Cost-Limit"
    assert fakes.called() == {}


@req("XAI-SYNC-014")
def test_a_failing_first_choice_relaxes_nothing(mount, fakes):
    served = mount(
        fakes.config(
            {
                "a": {**HIPAA, "models": [model("m-a", quality=0.95, cost_per_1k_tokens=CHEAP)]},
                "b": [model("m-b", quality=0.95)],
                "c": {**HIPAA, "models": [model("m-c", quality=0.5)]},
            }
        )
    )
    fakes.a.script = Script(status=503)
    got = served.chat({**SECURE, **GOOD, "X-AI-Failover-Policy": "cascading"})
    assert got.status >= 500
    assert set(fakes.called()) == {"a"}
