"""Whatever a scenario is: every request ends once, shares and costs add up, circuits are legal."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scenes import scene, traffic

from aiproxy.reference_server.simulate import Result, simulate
from aiproxy.reference_server.simulate.conditions import holds
from aiproxy.reference_server.simulate.result import measure, percentile
from aiproxy.reference_server.simulate.running import _Run

STATES = {"closed", "open", "half_open"}


def sound(result: Result) -> None:
    """What holds of every run."""
    measures = result.measures
    assert sum(measures.outcomes.values()) == measures.requests == len(result.rows)
    assert set(measures.outcomes) <= {"ok", "failed", "refused", "aborted", "unfinished"}
    if measures.answered:
        assert sum(measures.share.values()) == pytest.approx(1)
        assert sum(measures.model_share.values()) == pytest.approx(1)
        assert measures.p50_ms is not None
        assert measures.p95_ms is not None
        assert measures.p50_ms <= measures.p95_ms
    else:
        assert measures.share == {}
    spent = sum(one.cost_usd for one in result.providers)
    assert spent == pytest.approx(measures.cost_usd)
    calls = Counter(name for row in result.rows for name in row.calls)
    assert {one.provider: one.calls for one in result.providers if one.calls} == calls
    for row in result.rows:
        assert row.latency_ms >= 0
        assert row.ok == (row.provider is not None)
        assert not row.ok or row.provider in row.calls
    for decision in result.decisions:
        assert all(attempt.outcome != "running" for attempt in decision.attempts)
    legal(result)


def legal(result: Result) -> None:
    """Circuits begin closed, and each step begins where the one before ended."""
    for name in {one.name for one in result.breakers}:
        steps = [one for one in result.breakers if one.name == name]
        assert steps[0].before == "closed"
        for one, other in pairwise(steps):
            assert one.after == other.before
            assert one.at_s <= other.at_s
        for step in steps:
            assert {step.before, step.after} <= STATES
            assert step.before != step.after
            assert (step.before, step.after) != ("closed", "half_open")


TIMES = st.sampled_from(["0s", "1ms", "50ms", "400ms", "3s", "40s"])
SPREADS = st.one_of(
    TIMES,
    st.sampled_from(
        [
            {"uniform": ["10ms", "2s"]},
            {"lognormal": {"p50": "200ms", "p95": "2s"}},
            {"exponential": {"mean": "300ms"}},
        ]
    ),
)
ERRORS = st.fixed_dictionaries(
    {"rate": st.sampled_from([0.1, 0.5, 1]), "from": st.sampled_from(["0s", "3s"])},
    optional={"latency": TIMES, "after": st.sampled_from([0, 0.3, 1])},
).flatmap(
    lambda row: st.one_of(
        st.sampled_from([400, 401, 404, 429, 500, 503, 529]).map(
            lambda status: {**row, "status": status}
        ),
        st.sampled_from(
            [
                "refused", "dns", "tls", "connect_timeout", "reset", "timeout",
                "cut", "stall", "error_event", "malformed",
            ]
        ).map(lambda fault: {**row, "fault": fault}),
        st.just({**row, "status": 429, "retry_after": "2s"}),
    )
)  # fmt: skip
SCRIPTS = st.fixed_dictionaries(
    {},
    optional={
        "latency": SPREADS,
        "first_token": SPREADS,
        "per_token": st.sampled_from(["0s", "10ms"]),
        "output_tokens": st.sampled_from([1, 30]),
        "errors": st.lists(ERRORS, max_size=2),
        "slow": st.just([{"from": "2s", "to": "4s", "factor": 20}]),
        "max_in_flight": st.sampled_from([1, 3]),
        "when_full": st.sampled_from(["queue", "reject"]),
        "max_queue": st.sampled_from([0, 2]),
    },
)
KINDS = st.fixed_dictionaries(
    {},
    optional={
        "stream": st.sampled_from([0, 0.5, 1]),
        "patience": st.sampled_from(["300ms", "5s"]),
        "prompt_tokens": st.sampled_from([1, 50]),
        "output_tokens": st.sampled_from([0, 7]),
        "turns": st.sampled_from([1, 3]),
        "headers": st.sampled_from(
            [{}, {"X-AI-Failover-Policy": "none"}, {"X-AI-Routing-Strategy": "cost"}]
        ),
    },
)
PHASES = st.sampled_from(
    [
        {"rate": 8, "for_": "6s"},
        {"rate": 3, "ramp_to": 20, "arrivals": "constant", "for_": "4s"},
        {"rate": 10, "ramp_to": 0, "for_": "4s"},
        {"clients": 4, "think": "200ms", "for_": "6s"},
    ]
)
ROUTING = st.sampled_from(
    [
        {},
        {"failover": {"max_retries": 3, "same_provider_retries": 1}},
        {"load_balancing": {"enabled": True, "strategy": "round_robin"}},
        {"health": {"min_samples": 2, "probe_after": "1s"}, "timeout": "20s"},
        {"hedging": {"enabled": True, "after": "150ms", "max_percent": 50}},
    ]
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=3),
    kinds=st.lists(KINDS, min_size=1, max_size=2),
    phase=PHASES,
    routing=ROUTING,
    seed=st.integers(0, 3),
)
def test_random_scenarios_lose_and_invent_nothing(
    scripts: list[Any], kinds: list[Any], phase: dict[str, Any], routing: Any, seed: int
) -> None:
    named = dict(zip("abc", scripts, strict=False))
    document = scene(
        len(scripts), named, routing=routing, seed=seed, traffic=traffic(*kinds, **phase)
    )
    document["providers"] = named
    result = simulate(document, keep=10_000)
    sound(result)
    assert result.measures.outcomes.get("unfinished", 0) == 0, "the drain is long enough for all"


@settings(max_examples=10, deadline=None)
@given(scripts=st.lists(SCRIPTS, min_size=2, max_size=2), seed=st.integers(0, 99))
def test_providers_were_asked_exactly_what_the_records_say(scripts: list[Any], seed: int) -> None:
    """The world's own count of calls is that of the attempts, losers of a race included; and in the
    end nobody is busy any more."""
    from aiproxy.reference_server.simulate import load

    named = dict(zip("ab", scripts, strict=True))
    routing = {"hedging": {"enabled": True, "after": "50ms", "max_percent": 100}}
    document = scene(2, named, routing=routing, seed=seed)
    run = _Run(load(document), 1000)
    result = run.result()
    assert run.world.calls == {one.provider: one.calls for one in result.providers}
    assert set(run.world.busy.values()) == {0}
    for model in run.gateway.registry.models:
        assert model.track.in_flight == 0


def test_the_loser_of_a_race_is_counted_and_paid() -> None:
    routing = {"hedging": {"enabled": True, "after": "200ms", "max_percent": 100}}
    result = simulate(
        scene(2, {"a": {"latency": "900ms"}, "b": {"latency": "100ms"}}, routing=routing)
    )
    sound(result)
    hedged = [row for row in result.rows if len(row.calls) == 2]
    assert hedged, "the first answer comes after 900 ms, so somebody was asked as well"
    assert {row.provider for row in hedged} == {"b"}
    assert {round(row.latency_ms) for row in hedged} == {300}


def test_an_impatient_client_leaves_and_its_call_is_given_up() -> None:
    kind = {"patience": "50ms"}
    result = simulate(scene(1, traffic=traffic(kind, rate=10)))
    sound(result)
    assert set(result.measures.outcomes) == {"aborted"}
    assert [row.latency_ms for row in result.rows] == pytest.approx([50] * len(result.rows))


def test_the_end_of_the_run_ends_what_is_open() -> None:
    document = scene(1, {"a": {"errors": [{"fault": "timeout"}]}}, drain="1s")
    result = simulate(document)
    assert result.measures.outcomes["unfinished"] > 0
    assert result.ended_s <= 11.0


def test_traffic_is_bounded_by_max_requests() -> None:
    result = simulate(scene(1, max_requests=7))
    assert result.cut
    assert result.measures.requests == 7
    assert not simulate(scene(1)).cut


def test_constant_arrivals_are_evenly_spaced_and_a_ramp_has_its_area() -> None:
    moments = [row.at_s for row in simulate(scene(1)).rows]
    assert moments == pytest.approx([n / 10 for n in range(100)])
    ramp = traffic(rate=0, ramp_to=20, arrivals="constant")
    rows = simulate(scene(1, traffic=ramp)).rows
    assert len(rows) == 100
    assert sum(row.at_s >= 5 for row in rows) == pytest.approx(75, abs=1)


def test_poisson_arrivals_have_their_rate() -> None:
    rows = simulate(scene(1, traffic=traffic(for_="100s", rate=0, ramp_to=40))).rows
    assert len(rows) == pytest.approx(2000, rel=0.08)
    assert sum(row.at_s >= 50 for row in rows) / len(rows) == pytest.approx(0.75, abs=0.03)


def test_clients_wait_for_their_answers() -> None:
    closed = traffic(for_="60s", clients=3, think="900ms")
    rows = simulate(scene(1, traffic=closed)).rows
    assert len(rows) == pytest.approx(3 * 60, abs=4)


def test_a_conversation_carries_what_was_said_and_its_id() -> None:
    kind = {"turns": 3, "pause": "1s", "prompt_tokens": 20}
    result = simulate(scene(1, traffic=traffic(kind, for_="2s", rate=1, arrivals="constant")))
    talks: dict[str | None, list[int]] = {}
    for decision in result.decisions:
        assert decision.intent is not None
        talks.setdefault(decision.conversation, []).append(decision.intent.prompt_tokens)
    assert set(talks) == {"sim-1", "sim-2"}
    lengths = talks["sim-1"]
    assert lengths == sorted(set(lengths)), "each turn is longer than the one before"


def test_keys_are_needed_as_soon_as_one_kind_has_one() -> None:
    key = {"name": "team", "key": "team-key-0123456789"}
    config = {"security": {"auth": {"api_keys": [key]}}}
    kinds = ({"name": "signed", "key": "team"}, {"name": "unsigned"})
    result = simulate(scene(1, config=config, traffic=traffic(*kinds, rate=20)))
    assert result.of("signed").errors == 0
    assert result.of("unsigned").statuses == {"401": result.of("unsigned").requests}
    alone = simulate(scene(1, config=config, traffic=traffic({}, rate=5)))
    assert alone.errors == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "m", "input": "Hello"}),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
        ("/v1/completions", {"model": "m", "prompt": "Hello"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "kind",
    ["openai", "openai_compatible", "anthropic", "google", "mistral", "cohere", "cloudflare"],
)
def test_every_dialect_is_answered(path: str, body: Any, kind: str) -> None:
    entry: dict[str, Any] = {"type": kind, "credentials": {"api_key": "key"}}
    if kind == "cloudflare":
        entry["credentials"] = {"api_token": "token", "account_id": "account"}
    if kind != "openai_compatible":
        entry["endpoint"] = None
    for stream in (0, 1):
        asked = {"path": path, "body": body, "stream": stream, "prompt_tokens": 12}
        result = simulate(scene({"p": entry}, traffic=traffic(asked, for_="2s", rate=3)))
        assert result.errors == 0, [row.error for row in result.rows]
        assert result.cost_usd > 0
        assert (result.measures.first_token_p50_ms is not None) == bool(stream)


def test_embeddings_are_answered() -> None:
    entry = {"models": [{"name": "m", "capabilities": ["embeddings"], "price": {"input": 0.001}}]}
    asked = {"path": "/v1/embeddings", "body": {"model": "m", "input": ["a", "b"]}}
    result = simulate(scene({"p": entry}, traffic=traffic(asked, rate=3)))
    assert result.errors == 0
    assert result.cost_usd > 0


def test_a_wall_clock_that_jumps_takes_nothing_with_it() -> None:
    jumps = [{"at": "3s", "by_s": -7200}, {"at": "6s", "by_s": 86400}]
    calm, jumping = simulate(scene(2)), simulate(scene(2, clock_jumps=jumps))
    assert [row.latency_ms for row in jumping.rows] == [row.latency_ms for row in calm.rows]
    assert jumping.shares == calm.shares


def test_one_model_of_a_provider_may_differ() -> None:
    models = [{"name": "m"}, {"name": "n", "model": "vendor/n"}]
    scripts = {"p": {"latency": "100ms", "models": {"vendor/n": {"latency": "700ms"}}}}
    kinds = (
        {"name": "m"},
        {"name": "n", "body": {"model": "n", "messages": [{"role": "user", "content": "x"}]}},
    )
    result = simulate(scene({"p": {"models": models}}, scripts, traffic=traffic(*kinds, rate=10)))
    assert result.of("m").p50_ms == pytest.approx(100)
    assert result.of("n").p50_ms == pytest.approx(700)


def test_figures_of_no_request_are_none() -> None:
    empty = measure([])
    assert (empty.p50_ms, empty.cost_per_request_usd, empty.errors) == (None, None, 0.0)
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0


@pytest.mark.parametrize(
    ("condition", "value", "ok"),
    [
        (">= 0.6", 0.6, True),
        ("> 0.6", 0.6, False),
        ("< 1%", 0.0099, True),
        ("< 1%", 0.01, False),
        (">= 0.4 and <= 0.6", 0.5, True),
        (">= 0.4 and <= 0.6", 0.61, False),
        ("== 3", 3.0, True),
        ("<= 1e-3", 0.001, True),
        (0.5, 0.5, True),
        (0, 0.0, True),
        (0, 0.1, False),
        (">= 0", None, False),
        ("<= 0.3", 0.1 + 0.2, True),
    ],
)
def test_conditions(condition: Any, value: Any, ok: bool) -> None:
    assert holds(condition, value) is ok


def test_a_provider_stands_for_its_models_in_what_is_expected_of_circuits() -> None:
    from aiproxy.reference_server.simulate.breakers import Transition, closed_at_last, opened

    steps = [
        Transition(1.0, "a/m", "closed", "open", ""),
        Transition(2.0, "ab", "closed", "open", ""),
    ]
    assert opened(steps, "a")
    assert opened(steps, "a/m")
    assert not opened(steps, "a/n")
    assert not closed_at_last(steps, "a")
    steps += [
        Transition(3.0, "a/m", "open", "half_open", ""),
        Transition(4.0, "a/m", "half_open", "closed", ""),
    ]
    assert closed_at_last(steps, "a")
    assert not closed_at_last(steps, "ab")
    assert not closed_at_last(steps, "c")
