"""Who goes before the order of a strategy: a conversation's last provider, a canary's share."""

import time
from pathlib import Path
from typing import Any

import pytest
from mounts import CHEAP, DEAR

from aiproxy.middleware.config import ConfigInvalid, load_config

req = pytest.mark.requirement
COST = {"routing": {"strategy": "cost", "scope": "all"}}
ON = {"X-AI-Multi-Provider": "enabled"}


def talk(name: str, **more: str) -> dict[str, str]:
    return {**ON, "X-AI-Conversation-ID": name, **more}


def routing(**more: Any) -> dict[str, Any]:
    return {"strategy": "cost", "scope": "all", **more}


@pytest.fixture
def priced(pair: Any) -> Any:
    """b is the cheaper one."""

    def build(b: Any = None, **rest: Any) -> Any:
        a = {"cost_per_1k_tokens": DEAR, "quality": 0.9}
        return pair(a, {"cost_per_1k_tokens": CHEAP, "quality": 0.8, **(b or {})}, **rest)

    return build


# --- affinity ------------------------------------------------------------------------------------


@req("XAI-CONV-003")
def test_a_conversation_stays_with_whom_it_began(priced: Any) -> None:
    """The first turn asks for quality; the next ones ask for nothing and stay."""
    mount = priced(**COST)
    first = mount.chat(talk("c1", **{"X-AI-Routing-Strategy": "quality"}))
    assert first.provider == "a"
    second = mount.chat(talk("c1"))
    assert second.provider == "a"
    selected = mount.record(second)["selected"]
    assert (selected["provider"], selected["reason"]) == ("a", "conversation_affinity")
    assert mount.chat(talk("c2")).provider == "b"
    assert mount.chat(ON).provider == "b"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"X-AI-Routing-Strategy": "cost"}, "b"),
        ({"X-AI-Task-Hint": "coding"}, "b"),
        ({"X-AI-Reasoning-Preference": "native"}, "b"),
        ({"X-AI-Provider-Pool": "b"}, "b"),
        ({"X-AI-Cost-Limit": "0.005"}, "b"),
        ({"X-AI-Quality-Threshold": "0.85"}, "a"),
    ],
)
def test_a_turn_of_its_own_mind_is_ranked_afresh(
    priced: Any, header: dict[str, str], expected: str
) -> None:
    """A strategy or hint of the turn counts before its past, and so does every constraint."""
    mount = priced(**COST)
    assert mount.chat(talk("c1", **{"X-AI-Routing-Strategy": "quality"})).provider == "a"
    got = mount.chat(talk("c1", **header), max_tokens=1000)
    assert got.provider == expected
    reason = mount.record(got)["selected"]["reason"]
    assert (reason == "conversation_affinity") == (expected == "a")


def test_a_conversation_leaves_whom_it_cannot_stay_with(priced: Any, fakes: Any) -> None:
    """A provider that fails is left, and the conversation stays with the one that took over."""
    mount = priced(**COST)
    assert mount.chat(talk("c1", **{"X-AI-Routing-Strategy": "quality"})).provider == "a"
    fakes.a.script.status = 503
    moved = mount.chat(talk("c1"))
    assert (moved.provider, moved.header("x-ai-failover-occurred")) == ("b", "true")
    fakes.a.script.status = 200
    assert mount.chat(talk("c1")).provider == "b"


def test_affinity_can_be_off_and_forgets(priced: Any) -> None:
    best = {"X-AI-Routing-Strategy": "quality"}
    off = priced(routing=routing(affinity={"enabled": False}))
    assert off.chat(talk("c1", **best)).provider == "a"
    assert off.chat(talk("c1")).provider == "b"
    small = priced(routing=routing(affinity={"max_entries": 2}))
    for name in ("c1", "c2", "c3"):
        assert small.chat(talk(name, **best)).provider == "a"
    assert len(small.gateway.affinity) == 2
    assert small.chat(talk("c1")).provider == "b"
    assert small.chat(talk("c3")).provider == "a"
    brief = priced(routing=routing(affinity={"ttl": "1ms"}))
    assert brief.chat(talk("c1", **best)).provider == "a"
    time.sleep(0.01)
    assert brief.chat(talk("c1")).provider == "b"


def test_a_conversation_id_of_somebody_else_is_another_conversation(
    priced: Any,
) -> None:
    """XAI-CONV: what one key's turns taught says nothing to another key with the same id."""
    keys = [{"name": n, "key": f"key-of-{n}-0123456789"} for n in ("one", "two")]
    mount = priced(**COST, security={"auth": {"enabled": True, "api_keys": keys}})
    mine, theirs = ({"Authorization": f"Bearer {row['key']}"} for row in keys)
    best = {"X-AI-Routing-Strategy": "quality"}
    assert mount.chat(talk("c1", **mine, **best)).provider == "a"
    assert mount.chat(talk("c1", **mine)).provider == "a"
    assert mount.chat(talk("c1", **theirs)).provider == "b"


def test_a_policy_outranks_affinity(priced: Any) -> None:
    rule = {"if": "request.tokens < 1000", "then": "prefer provider.b"}
    named = [{"name": "p", "type": "quality_optimized", "rules": [rule]}]
    mount = priced(routing=routing(strategy="quality", policies=named))
    assert mount.chat(talk("c1", **{"X-AI-Provider-Pool": "a"})).provider == "a"
    assert mount.chat(talk("c1")).provider == "b"


# --- canaries ------------------------------------------------------------------------------------


def canary(percent: float, **more: Any) -> dict[str, Any]:
    return {"name": "new", "provider": "a", "percent": percent, **more}


@req("ASC-RULE-005")
@pytest.mark.parametrize(("percent", "expected"), [(0, "b"), (100, "a")])
def test_nobody_at_0_and_everybody_at_100(priced: Any, percent: float, expected: str) -> None:
    """T-89: exact at both ends."""
    mount = priced(routing=routing(canaries=[canary(percent)]))
    got = [mount.chat(ON) for _ in range(20)]
    assert {answer.provider for answer in got} == {expected}
    record = mount.record(got[0])
    assert record["canary"] == ("new" if percent else None)
    assert (record["selected"]["reason"] == "canary") == bool(percent)


@req("ASC-RULE-005")
def test_a_share_is_sticky_by_conversation(priced: Any) -> None:
    mount = priced(routing=routing(canaries=[canary(40)]))
    sides = {}
    for name in (f"c{n}" for n in range(30)):
        sides[name] = mount.chat(talk(name)).provider
    assert set(sides.values()) == {"a", "b"}
    assert 4 <= list(sides.values()).count("a") <= 20
    for name, side in sides.items():
        assert mount.chat(talk(name)).provider == side


@req("ASC-RULE-005")
def test_a_share_that_is_taken_back_is_empty_at_once(priced: Any) -> None:
    """Affinity does not keep a conversation where only the canary had sent it."""
    mount = priced(routing=routing(canaries=[canary(100)]))
    assert mount.chat(talk("c1")).provider == "a"
    mount.gateway.canaries = ()
    assert mount.chat(talk("c1")).provider == "b"


@req("ASC-RULE-005", "XAI-SYNC-014")
@pytest.mark.parametrize(
    "header",
    [
        {"X-AI-Provider-Pool": "b"},
        {"X-AI-Cost-Limit": "0.005"},
        {"X-AI-Security-Requirements": "hipaa"},
    ],
)
def test_a_canary_is_inside_every_constraint(
    priced: Any, fakes: Any, header: dict[str, str]
) -> None:
    labels = {"security": {"labels": [{"label": "hipaa"}]}}
    mount = priced(provider_b=labels, routing=routing(canaries=[canary(100)]))
    got = mount.chat({**ON, **header}, max_tokens=1000)
    assert (got.status, got.provider) == (200, "b")
    assert mount.record(got)["canary"] is None
    assert fakes.a.seen == []


@req("ASC-RULE-005")
def test_the_normal_order_stands_behind_a_canary(priced: Any, fakes: Any) -> None:
    fakes.a.script.status = 503
    mount = priced(routing=routing(canaries=[canary(100)]))
    got = mount.chat(ON)
    assert (got.provider, got.header("x-ai-failover-occurred")) == ("b", "true")
    assert [row["provider"] for row in mount.record(got)["attempts"]] == ["a", "b"]


@req("ASC-RULE-005")
def test_a_new_model_gets_a_share_of_an_old_ones_requests(priced: Any, fakes: Any) -> None:
    rows = [{"name": "new", "model": "m-b", "to": "m-a", "percent": 100}]
    mount = priced(routing=routing(canaries=rows))
    got = mount.chat(model="m-b")
    assert got.json["model"] == "m-a"
    assert [seen.body["model"] for seen in fakes.a.seen] == ["m-a"]
    assert fakes.b.seen == []
    assert mount.chat(model="m-a").json["x-aiproxy"]["provider"] == "a"
    off = mount.chat({"X-AI-Multi-Provider": "disabled"}, model="m-a")
    assert mount.record(off)["canary"] is None


@req("ASC-RULE-005", "AIP-ROUTE-025")
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("provider: c", r"7: routing.canaries\[0\].provider: found a provider that is not conf"),
        ("to: m9", r"7: routing.canaries\[0\].to: found a model that no provider lists"),
        ("to: m, model: mm", r"8: routing.canaries\[0\].model: found a model that no provider"),
        ("", r"7: routing.canaries\[0\]: found neither provider nor to"),
    ],
)
def test_unknown_names_are_found_at_load(tmp_path: Path, row: str, message: str) -> None:
    body = row.replace(", ", "\n        ")
    text = f"""providers:
  openai_compatible:
    endpoint: http://127.0.0.1:9/v1
    models: [{{name: m}}]
routing:
  canaries:
      - {body or "sticky: key"}
        name: new
        percent: 5
"""
    file = tmp_path / "aiproxy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match=f"aiproxy.yaml:{message}"):
        load_config(file)
