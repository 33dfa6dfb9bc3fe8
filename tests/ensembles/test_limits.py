"""What binds an ensemble: limits hold for the sum, a quorum for the answers (UNI-ENS-006, 007)."""

import json
from typing import Any

import pytest
from upstreams import Script

from aiproxy.middleware.gateway import Inbound

req = pytest.mark.requirement

ASK = {"model": "ensemble/e", "max_tokens": 100}
#: The prompt is 9 tokens by the published estimate: a worst case of 109 at 0.001 a thousand.
WORST = 109 * 0.001 / 1000


def members(served: Any, got: Any) -> list[tuple[str, Any]]:
    rows = served.record(got)["ensemble"]["members"]
    return [(row["outcome"], row["reason"]) for row in rows]


def limit(usd: float) -> dict[str, str]:
    return {"X-AI-Cost-Limit": f"{usd:.9f}"}


@req("UNI-ENS-006")
def test_a_limit_holds_for_the_sum_of_the_members(panel: Any, fakes: Any) -> None:
    """UNI-ENS-006: the dearest is left out while a quorum remains."""
    prices = {"a": 0.003, "b": 0.001, "c": 0.001}
    served = panel(prices=prices)
    got = served.chat(limit(5 * WORST), **ASK)
    assert got.status == 200
    assert fakes.called() == {"a": 1, "b": 1, "c": 1}
    record = served.record(got)
    assert record["ensemble"]["worst_case_usd"] == pytest.approx(5 * WORST)
    got = served.chat(limit(4.9 * WORST), **ASK)
    assert got.status == 200
    assert fakes.called() == {"a": 1, "b": 2, "c": 2}
    assert members(served, got)[0] == ("left_out", "over_cost_limit")
    record = served.record(got)
    assert record["ensemble"]["worst_case_usd"] == pytest.approx(2 * WORST)
    assert record["cost_usd"] <= 4.9 * WORST
    rejected = {r["provider"]: r["reason"] for r in record["candidates"] if not r["eligible"]}
    assert rejected == {"a": "over_cost_limit"}


@req("UNI-ENS-006")
def test_below_the_cheapest_quorum_nothing_is_sent(panel: Any, fakes: Any) -> None:
    """UNI-ENS-006: 422, and the sum is told."""
    served = panel()
    got = served.chat(limit(1.9 * WORST), **ASK)
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert got.error["param"] == "X-AI-Cost-Limit"
    assert "0.000109 + 0.000109 = 0.000218 USD" in got.error["message"]
    assert fakes.called() == {}


def test_prices_stay_unsaid_where_decisions_are_not_shown(panel: Any, fakes: Any) -> None:
    served = panel(sections={"transparency": "minimal"})
    got = served.chat(limit(1.9 * WORST), **ASK)
    assert got.status == 422
    assert "0.000109" not in got.error["message"]


def test_an_operators_own_limit_holds_too(panel: Any, fakes: Any) -> None:
    served = panel(sections={"routing": {"max_cost": 2.5 * WORST}})
    got = served.chat(**ASK)
    assert got.status == 200, got.body
    assert sum(fakes.called().values()) == 2


def test_a_members_failover_stays_within_what_is_reserved(panel: Any, fakes: Any) -> None:
    """The second provider of the same model is dearer than what is left, so it is not asked."""
    model = {"name": "m-a", "model": "up-x", "quality": 0.8, "cost_per_1k_tokens": 0.01}
    more = {"x": {"type": "openai_compatible", "endpoint": fakes.x.url, "models": [model]}}
    fakes.a.script = Script(status=503)
    served = panel(more=more, prices={"a": 0.001})
    got = served.chat({"X-AI-Routing-Strategy": "cost", **limit(3.5 * WORST)}, **ASK)
    assert got.status == 200
    assert "x" not in fakes.called()
    assert members(served, got)[0][0] == "failed"
    # with room for it, it takes its place
    got = served.chat({"X-AI-Routing-Strategy": "cost", **limit(60 * WORST)}, **ASK)
    assert got.status == 200
    assert fakes.called()["x"] == 1
    assert [outcome for outcome, _ in members(served, got)] == ["ok"] * 3


def test_what_a_judge_costs_is_part_of_the_sum(panel: Any, fakes: Any) -> None:
    """A judge that does not fit beside a quorum is left out, and says so."""
    fakes.a.script, fakes.b.script = Script(text="one"), Script(text="two")
    judge = {"name": "m-j", "model": "up-j", "quality": 0.8, "cost_per_1k_tokens": 0.01}
    more = {"j": {"type": "openai_compatible", "endpoint": fakes.j.url, "models": [judge]}}
    served = panel("ab", method="best_of", judge="m-j", quorum=2, more=more)
    got = served.chat(limit(3 * WORST), **ASK)
    assert got.status == 200, got.body
    found = served.record(got)["ensemble"]
    assert (found["judge"]["outcome"], found["judge"]["reason"]) == ("left_out", "over_cost_limit")
    assert found["fallback"] == "consensus"
    assert "j" not in fakes.called()
    assert found["worst_case_usd"] <= 3 * WORST


@req("UNI-ENS-006", "XAI-SEC-027")
def test_security_binds_members_and_judge(panel: Any, fakes: Any) -> None:
    """UNI-ENS-006, XAI-SEC-027: who is not attested is neither a member nor a judge."""
    attested = {"security": {"labels": [{"label": "hipaa", "evidence": "x", "date": "2026-01-01"}]}}
    judge = {"name": "m-j", "model": "up-j", "quality": 0.8, "cost_per_1k_tokens": 0.001}
    more = {"j": {"type": "openai_compatible", "endpoint": fakes.j.url, "models": [judge]}}
    fakes.a.script, fakes.b.script = Script(text="one"), Script(text="two")
    served = panel(method="best_of", judge="m-j", more=more, facts={"a": attested, "b": attested})
    got = served.chat({"X-AI-Security-Requirements": "hipaa"}, **ASK)
    assert got.status == 200, got.body
    assert fakes.called() == {"a": 1, "b": 1}
    assert members(served, got)[2] == ("left_out", "lacks_security_label")
    found = served.record(got)["ensemble"]
    assert found["judge"]["reason"] == "lacks_security_label"
    # without a quorum of attested members nothing is sent at all
    served = panel(facts={"a": attested})
    fakes.reset()
    got = served.chat({"X-AI-Security-Requirements": "hipaa"}, **ASK)
    assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")
    assert got.error["param"] == "X-AI-Security-Requirements"
    assert fakes.called() == {}


def test_a_pool_binds_every_member(panel: Any, fakes: Any) -> None:
    served = panel()
    got = served.chat({"X-AI-Provider-Pool": "a,b"}, **ASK)
    assert got.status == 200
    assert fakes.called() == {"a": 1, "b": 1}
    assert members(served, got)[2] == ("left_out", "not_in_pool")
    got = served.chat({"X-AI-Provider-Pool": "a"}, **ASK)
    assert (got.status, got.error["param"]) == (422, "X-AI-Provider-Pool")


def test_a_quality_threshold_binds_every_member(panel: Any, fakes: Any) -> None:
    """The members were not named by the client, so quality is not only a wish."""
    got = panel().chat({"X-AI-Quality-Threshold": "0.9"}, **ASK)
    assert (got.status, got.error["param"]) == (422, "X-AI-Quality-Threshold")
    assert fakes.called() == {}


# --- quorum --------------------------------------------------------------------------------------


@req("UNI-ENS-007")
@pytest.mark.parametrize(
    ("failing", "quorum", "status"),
    [(0, None, 200), (1, None, 200), (2, None, 502), (2, 1, 200), (3, 1, 502), (1, 3, 502)],
)
def test_members_may_fail_while_a_quorum_remains(
    panel: Any, fakes: Any, failing: int, quorum: int | None, status: int
) -> None:
    """UNI-ENS-007."""
    for name in "abc"[:failing]:
        fakes[name].script = Script(status=500)
    got = panel(quorum=quorum).chat(**ASK)
    assert got.status == status, got.body
    if status == 502:
        assert got.error["code"] == "all_providers_failed"
        assert got.error["message"].startswith(f"ensemble/e needs {quorum or 2} answers and got")
        assert "all_providers_failed" in got.error["message"]
        assert got.header("x-should-retry") == "false"


def test_what_everybody_says_of_the_request_is_told_to_the_client(panel: Any, fakes: Any) -> None:
    for name in "abc":
        error = {"error": {"message": "no", "param": "temperature", "code": None}}
        fakes[name].script = Script(status=400, body=error)
    got = panel().chat(**ASK)
    assert (got.status, got.error["param"]) == (400, "temperature")


def test_members_that_are_overloaded_leave_the_client_a_time_to_come_back(
    panel: Any, fakes: Any
) -> None:
    for name in "abc":
        fakes[name].script = Script(status=503, headers={"retry-after": "30"})
    got = panel().chat(**ASK)
    assert (got.status, got.error["code"]) == (503, "provider_overloaded")
    assert got.header("retry-after") == "30"


def test_too_few_healthy_members_are_503(panel: Any, fakes: Any) -> None:
    served = panel()
    for name in "ab":
        model = served.gateway.registry.by_name[f"m-{name}"][0]
        now = served.gateway.runtime.now()
        for _ in range(30):
            served.gateway.registry.failed(model, now, lambda: 0.5, None, whole_provider=False)
    got = served.chat(**ASK)
    assert (got.status, got.error["code"]) == (503, "no_healthy_provider")
    assert int(got.header("retry-after")) >= 1
    assert fakes.called().keys() <= {"c"}  # a call that the test before gave up may arrive now


# --- explaining ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["consensus", "cascade"])
def test_explain_says_who_would_be_asked_and_what_it_may_cost(
    panel: Any, fakes: Any, method: str
) -> None:
    from aiproxy.middleware.exchange import Exchange

    served = panel(method=method)
    body = json.dumps({**ASK, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    inbound = Inbound("/v1/chat/completions", "chat", (), body)
    record = Exchange(served.gateway, inbound).explain().record()
    assert fakes.called() == {}
    assert record["attempts"] == []
    found = record["ensemble"]
    assert found["worst_case_usd"] == pytest.approx(3 * WORST)
    assert [row["provider"] for row in found["members"]] == ["a", "b", "c"]
    assert {row["outcome"] for row in found["members"]} == {"planned"}
    assert [row["provider"] for row in record["candidates"]] == ["a", "b", "c"]


# --- money and conversations ---------------------------------------------------------------------


def test_what_a_budget_has_left_binds_the_sum(panel: Any, fakes: Any, tmp_path: Any) -> None:
    """Members reserve and settle like anybody; below a quorum it is the budget that refuses."""
    budget = {"daily_limit": 2.5 * WORST, "cost_db": f"sqlite:///{tmp_path}/costs.db"}
    served = panel(sections={"budget": budget})
    got = served.chat(**ASK)
    assert got.status == 200, got.body
    assert sum(fakes.called().values()) == 2
    assert members(served, got)[2] == ("left_out", "over_budget")
    fakes.reset()
    for _ in range(4):
        got = served.chat(**ASK)
    assert (got.status, got.error["code"]) == (429, "budget_exceeded")
    assert got.header("retry-after") is not None


def test_an_ensemble_takes_part_in_a_conversation(panel: Any, fakes: Any) -> None:
    """What it answered is what the members of the next turn are shown."""
    for name in "abc":
        fakes[name].script = Script(text="Paris")
    served = panel(sections={"conversations": {"enabled": True}})
    first = served.chat({"X-AI-Multi-Provider": "enabled"}, **ASK)
    assert first.status == 200, first.body
    name = first.header("x-ai-conversation-id")
    assert name
    turn = [{"role": "user", "content": "And of Italy?"}]
    got = served.chat({"X-AI-Conversation-ID": name}, **{**ASK, "messages": turn})
    assert got.status == 200, got.body
    for fake in "abc":
        said = [(m["role"], m["content"]) for m in fakes[fake].seen[-1].body["messages"]]
        assert said == [("user", "Hello"), ("assistant", "Paris"), ("user", "And of Italy?")]
