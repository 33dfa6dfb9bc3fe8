"""What a record says of a choice beyond whom it fell on; strategies that come as plug-ins."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from mounts import CHEAP, DEAR, model

from aiproxy.middleware.config import ConfigInvalid, load_config
from aiproxy.middleware.routing import plugins
from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
PREDICT = "/aiproxy/predict"


@pytest.fixture
def three(mount: Any, fakes: Any) -> Any:
    """a is quick and poor, b in between, c slow and good."""
    rows = {
        "a": model("m-a", quality=0.5, cost_per_1k_tokens=0.002, latency_prior="100ms"),
        "b": model("m-b", quality=0.7, cost_per_1k_tokens=CHEAP, latency_prior="500ms"),
        "c": model("m-c", quality=0.9, cost_per_1k_tokens=DEAR, latency_prior="5s"),
    }
    return lambda **routing: mount(
        fakes.config(
            {name: {"models": [row]} for name, row in rows.items()},
            routing={"scope": "all", **routing},
        )
    )


@req("UNI-ROUTE-017")
def test_what_was_expected_is_on_record(three: Any) -> None:
    """Latency and quality as they stood before the call, the cost of a usual answer, and how
    likely an answer was: 19 of 20 without any call, more after each that came."""
    mount = three(strategy="cost")
    first = mount.record(mount.chat(ON, max_tokens=1000))
    expected = first["predicted"]
    assert (expected["latency_ms"], expected["quality"]) == (500.0, 0.7)
    assert expected["success"] == 0.95
    assert expected["cost_usd"] == pytest.approx(CHEAP, rel=0.02)
    second = mount.record(mount.chat(ON))["predicted"]
    assert 0.95 < second["success"] < 1.0
    assert second["latency_ms"] < 500.0


@req("UNI-ROUTE-017")
def test_failures_make_success_less_likely(three: Any, fakes: Any) -> None:
    mount = three(strategy="cost", load_balancing={"health_aware": False})
    fakes.b.script.status = 503
    assert mount.chat({**ON, "X-AI-Failover-Policy": "none"}).status >= 500
    track = mount.gateway.registry.named("m-b")[0].track
    track.cooling_until = 0.0
    record = mount.record(mount.chat({**ON, "X-AI-Failover-Policy": "none"}))
    assert record["predicted"]["success"] == pytest.approx(4.75 / 6, abs=1e-4)
    assert record["explanation"]["risk"] == {"level": "medium", "reasons": ["error_rate"]}


@req("XAI-PERF-003", "XAI-PERF-006", "UNI-ROUTE-016")
def test_the_trade_off_names_the_fastest_and_the_best_and_why_not(three: Any) -> None:
    mount = three()
    limits = {**ON, "X-AI-Quality-Threshold": "0.6", "X-AI-Max-Latency": "1000"}
    record = mount.record(mount.chat({**limits, "X-AI-Routing-Strategy": "quality"}))
    assert record["selected"]["provider"] == "b"
    told = record["explanation"]
    fastest, best = told["trade_offs"]["fastest"], told["trade_offs"]["highest_quality"]
    assert (fastest["provider"], fastest["rejected"]) == ("a", "below_quality_threshold")
    assert (fastest["latency_ms"], fastest["quality"]) == (100.0, 0.5)
    assert (best["provider"], best["rejected"]) == ("c", "over_max_latency")
    assert (best["latency_ms"], best["quality"]) == (5000.0, 0.9)
    assert "cheapest" not in told["trade_offs"]
    rejected = {row["provider"]: row for row in record["candidates"] if not row["eligible"]}
    assert rejected["a"]["reason"] == "below_quality_threshold"
    assert (rejected["c"]["reason"], rejected["c"]["latency_ms"]) == ("over_max_latency", 5000.0)
    assert all(row["cost_usd"] > 0 for row in rejected.values())
    assert told["primary_factors"] == ["quality_threshold", "max_latency", "quality"]
    assert told["risk"] == {"level": "medium", "reasons": ["no_alternative"]}


@req("UNI-ROUTE-016")
def test_a_choice_that_gave_nothing_up_says_so(three: Any) -> None:
    record = three(strategy="cost")
    answer = record.chat({**ON, "X-AI-Provider-Pool": "b"})
    told = record.record(answer)["explanation"]
    assert set(told["trade_offs"]) == {"fastest", "highest_quality"}
    assert told["trade_offs"]["fastest"]["rejected"] == "not_in_pool"
    assert told["primary_factors"] == ["pool", "cost"]


# --- plug-ins ------------------------------------------------------------------------------------


def longest_name(request: RequestFacts, candidate: CandidateFacts) -> float:
    """Ranks by what the request says and the candidate is."""
    assert request.endpoint == "chat"
    return {"a": 0.1, "b": 0.9, "c": 0.4}[candidate.id] - (candidate.error_rate or 0.0)


@pytest.fixture
def plugged() -> Iterator[None]:
    plugins.register("Nearest", longest_name)
    yield
    plugins.forget("nearest")


@req("UNI-ROUTE-005")
@pytest.mark.usefixtures("plugged")
def test_a_plug_in_is_used_by_name_wherever_a_strategy_is_named(three: Any, fakes: Any) -> None:
    """The header, the native body and the configuration; inside every constraint."""
    mount = three(strategy="cost")
    got = mount.chat({"X-AI-Routing-Strategy": "NEAREST"})
    record = mount.record(got)
    assert got.provider == "b"
    assert (record["strategy"], record["selected"]["reason"]) == ("nearest", "custom_strategy")
    assert [row["provider"] for row in record["candidates"]] == ["b", "c", "a"]
    best = mount.chat({"X-AI-Routing-Strategy": "nearest", "X-AI-Quality-Threshold": "0.8"})
    assert best.provider == "c"
    configured = three(strategy="nearest")
    assert configured.chat(ON).provider == "b"
    native = mount.post(
        PREDICT,
        {"model": "auto", "input": "Hello", "routing": {"strategy": "nearest"}},
        ON,
    )
    assert native.json["metadata"]["provider"] == "b"
    rule = {"if": "request.tokens < 1000", "then": "prefer provider.a"}
    ruled = three(strategy="nearest", policies=[{"name": "p", "type": "nearest", "rules": [rule]}])
    assert ruled.chat(ON).provider == "a"
    assert ruled.chat({"X-AI-Routing-Strategy": "cost"}).provider == "b"


@req("UNI-ROUTE-005", "XAI-HDR-029")
def test_an_unknown_strategy_stays_an_error(three: Any, fakes: Any, tmp_path: Path) -> None:
    got = three().chat({"X-AI-Routing-Strategy": "nearest"})
    assert (got.status, got.error["code"]) == (400, "invalid_header_value")
    assert fakes.called() == {}
    file = tmp_path / "aiproxy.yaml"
    file.write_text("routing:\n  strategy: latncy\n")
    with pytest.raises(ConfigInvalid, match=r"aiproxy.yaml:2: routing.strategy: .*mean latency"):
        load_config(file)


@req("UNI-ROUTE-005")
def test_a_plug_in_may_come_as_an_entry_point(three: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("far", f"{__name__}:longest_name", plugins.GROUP)
    taken = EntryPoint("cost", f"{__name__}:longest_name", plugins.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: longest_name)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point, taken])
    plugins._installed.cache_clear()
    try:
        assert plugins.names() == ("far",)
        assert three(strategy="far").chat(ON).provider == "b"
        assert three(strategy="cost").chat(ON).provider == "b"
    finally:
        plugins._installed.cache_clear()
        plugins.forget("far")


@req("XAI-FAIL-021")
def test_a_plug_in_that_breaks_leaves_the_default_provider(three: Any) -> None:
    def broken(request: RequestFacts, candidate: CandidateFacts) -> float:
        raise ZeroDivisionError

    plugins.register("broken", broken)
    try:
        mount = three(strategy="broken", default_provider="c")
        got = mount.chat(ON)
        assert (got.status, got.provider) == (200, "c")
        limited = mount.chat({**ON, "X-AI-Provider-Pool": "a, b"})
        assert limited.provider != "c"
    finally:
        plugins.forget("broken")


@pytest.mark.parametrize("name", ["cost", "costOptimized", "model_specific", "a b", "", "a,b"])
def test_a_name_that_is_taken_or_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="found the strategy name"):
        plugins.register(name, longest_name)
