"""Routing policies at work in a mount (AIP-ROUTE, AIP-CFG-066 to 072): the strategy orders, the
policies have the last word, constraints hold."""

from typing import Any

import pytest

SHORT = "request.tokens < 1000"


def policy(kind: str, condition: str, action: str) -> list[dict[str, Any]]:
    return [{"name": "p", "type": kind, "rules": [{"if": condition, "then": action}]}]


#: policies -> who serves; a is dear, first and good, b is cheap; the strategy is cost
CASES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a require turns everybody else away": (
        policy("model_specific", "request.model matches '*'", "require provider.a"),
        "a",
    ),
    "a prefer outranks the strategy": (policy("model_specific", SHORT, "prefer provider.a"), "a"),
    "a policy of another strategy stays silent": (
        policy("latency_optimized", SHORT, "prefer provider.a"),
        "b",
    ),
    "a policy of the active strategy acts": (
        policy("cost_optimized", SHORT, "provider.priority ASC"),
        "a",
    ),
    "a require that holds for all leaves the strategy's order": (
        policy("model_specific", SHORT, "require provider.a or provider.b"),
        "b",
    ),
    "bare rules form one policy": (
        [{"if": "provider.id == 'a'", "then": "priority = 1"}, {"else": "priority = 999"}],
        "a",
    ),
}


@pytest.mark.requirement("AIP-ROUTE-022", "AIP-CFG-072")
@pytest.mark.parametrize("case", CASES)
def test_policies_have_the_last_word(pair: Any, fakes: Any, case: str) -> None:
    policies, expected = CASES[case]
    routing = {"strategy": "cost", "policies": policies}
    mount = pair(
        {"cost_per_1k_tokens": 0.01},
        {"cost_per_1k_tokens": 0.001},
        provider_a={"priority": 1},
        provider_b={"priority": 2},
        routing=routing,
    )
    got = mount.chat({"X-AI-Multi-Provider": "enabled"})
    assert (got.status, got.provider) == (200, expected)
    assert (len(fakes.a.seen), len(fakes.b.seen)) == ((1, 0) if expected == "a" else (0, 1))


@pytest.mark.requirement("AIP-ROUTE-024")
def test_a_require_is_never_relaxed_by_failover(pair: Any, fakes: Any) -> None:
    routing = {"policies": policy("model_specific", SHORT, "require provider.a")}
    mount = pair(routing=routing)
    fakes.a.script.status = 503
    got = mount.chat({"X-AI-Failover-Policy": "automatic"})
    assert got.status in (502, 503)
    assert got.rejected == {"b": "policy_excluded"}
    assert fakes.b.seen == []


def test_a_constraint_and_a_require_that_exclude_each_other_are_refused(
    pair: Any, fakes: Any
) -> None:
    routing = {"policies": policy("model_specific", SHORT, "require provider.a")}
    got = pair(routing=routing).chat({"X-AI-Provider-Pool": "b"})
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert (fakes.a.seen, fakes.b.seen) == ([], [])


@pytest.mark.requirement("AIP-ROUTE-028")
def test_a_native_reply_names_the_rule_that_decided(pair: Any) -> None:
    rows = policy("model_specific", "request.tokens < 1000", "prefer provider.a")
    mount = pair(
        {"cost_per_1k_tokens": 0.01},
        {"cost_per_1k_tokens": 0.001},
        routing={"strategy": "cost", "scope": "all", "policies": rows},
    )
    body = {"model": "auto", "input": "Hello"}
    got = mount.post("/aiproxy/predict", body, {"X-AI-Multi-Provider": "enabled"})
    routing = got.json["metadata"]["routing"]
    assert got.json["metadata"]["provider"] == "a"
    assert routing["reason"] == "routing_policy: p[0]"
