"""Shares of traffic that somebody else gets as well, on both mounts over real sockets."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstreams import Script
from wire import Wire, WireUpstream

from aiproxy.middleware.answering.mirrors import in_share
from aiproxy.middleware.config import ConfigInvalid, load_config


def until(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def mirrored(mount: Any, fakes: Any, *rows: dict[str, Any], **more: Any) -> Any:
    """Provider a serves m, b serves m2; b gets the share unless a row says otherwise."""
    providers: dict[str, Any] = {
        "a": {"models": [{"name": "m", "model": "up-a", "cost_per_1k_tokens": 0.001}]},
        "b": {
            **more.pop("b", {}),
            "models": [{"name": "m2", "model": "up-b", "cost_per_1k_tokens": 0.002}],
        },
    }
    mirrors = [{"name": f"t{i}", "to": "m2", "percent": 100, **row} for i, row in enumerate(rows)]
    routing = {"scope": "all", "mirrors": mirrors, **more.pop("routing", {})}
    return mount(fakes.config(providers, routing=routing, **more))


def record_of(served: Any, got: Any) -> dict[str, Any]:
    """The decision of the one mirror of an answer."""
    (mirror_id,) = served.record(got)["mirrors"]
    rows = served.gateway.decisions
    assert until(lambda: rows.get(mirror_id, None) is not None), "the mirror left no decision"
    found: dict[str, Any] = rows.get(mirror_id, None).record()
    assert found["mirror"]["of"] == got.header("x-request-id")
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_mirror_gets_the_same_request_and_its_answer_is_thrown_away(
    mount: Any, fakes: Any, stream: bool
) -> None:
    """It has a decision of its own with its cost; the client's answer and costs are as without."""
    served = mirrored(mount, fakes, {})
    got = served.chat(model="m", stream=stream, messages=[{"role": "user", "content": "Mirror me"}])
    assert got.status == 200
    assert b"served by b" not in got.body
    found = record_of(served, got)
    assert fakes.called() == {"a": 1, "b": 1}
    seen = fakes.b.seen[0].body
    assert seen["messages"] == [{"role": "user", "content": "Mirror me"}]
    assert seen["model"] == "up-b"
    assert not seen.get("stream")
    assert found["outcome"] == "ok"
    (attempt,) = found["attempts"]
    assert (attempt["provider"], attempt["role"]) == ("b", "mirror")
    assert found["cost_usd"] == pytest.approx(21 * 0.002 / 1000)
    mine = served.record(got)
    assert [row["provider"] for row in mine["attempts"]] == ["a"]
    if not stream:
        assert mine["cost_usd"] == pytest.approx(21 * 0.001 / 1000)


def test_without_a_mirror_nothing_is_there(mount: Any, fakes: Any) -> None:
    served = mirrored(mount, fakes)
    assert served.gateway.mirrors is None
    got = served.chat(model="m")
    assert "mirrors" not in served.record(got)
    assert fakes.called() == {"a": 1}


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (100, 20)])
def test_nobody_at_0_and_everybody_at_100(
    mount: Any, fakes: Any, percent: int, expected: int
) -> None:
    served = mirrored(mount, fakes, {"percent": percent, "max_concurrency": 100})
    for _ in range(20):
        assert served.chat(model="m").status == 200
    assert until(lambda: fakes.called().get("b", 0) == expected)
    time.sleep(0.05)
    assert fakes.called().get("b", 0) == expected


@given(st.text(max_size=20), st.text(max_size=40), st.floats(0, 100))
def test_a_share_is_the_same_for_the_same_request_and_grows_with_the_percentage(
    name: str, sample: str, percent: float
) -> None:
    assert not in_share(name, sample, 0)
    assert in_share(name, sample, 100)
    assert in_share(name, sample, percent) == in_share(name, sample, percent)
    if in_share(name, sample, percent):
        assert in_share(name, sample, min(100.0, percent + 1))


def test_shares_are_near_what_was_asked_and_apart_from_each_other() -> None:
    names = [f"req-{i}" for i in range(4000)]
    both = Counter((in_share("x", n, 25), in_share("y", n, 25)) for n in names)
    assert sum(count for (x, _), count in both.items() if x) == pytest.approx(1000, abs=150)
    assert both[True, True] == pytest.approx(250, abs=80)


@pytest.mark.parametrize(
    ("pattern", "count"), [("m", 1), ("*", 1), ("m*", 1), ("x", 0), ("auto", 0)]
)
def test_a_mirror_is_for_the_models_it_names(
    mount: Any, fakes: Any, pattern: str, count: int
) -> None:
    served = mirrored(mount, fakes, {"model": pattern})
    got = served.chat(model="m")
    assert len(served.record(got).get("mirrors", ())) == count


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"X-AI-Security-Requirements": "hipaa"}, "unsupported_security_requirement"),
        ({"X-AI-Provider-Pool": "a"}, "no_eligible_provider"),
        ({"X-AI-Cost-Limit": "0.000002"}, "no_eligible_provider"),
    ],
)
def test_a_mirror_stays_inside_every_constraint(
    mount: Any, fakes: Any, headers: dict[str, str], reason: str
) -> None:
    """Security, pool and cost: whoever may not serve the request may not see it either."""
    providers = {
        "a": {
            "security": {"labels": [{"label": "hipaa", "evidence": "x", "date": "2026-01-01"}]},
            "models": [{"name": "m", "cost_per_1k_tokens": 0}],
        },
        "b": {"models": [{"name": "m2", "cost_per_1k_tokens": 0.1}]},
    }
    mirrors = [{"name": "t", "to": "m2", "percent": 100}]
    served = mount(fakes.config(providers, routing={"scope": "all", "mirrors": mirrors}))
    got = served.chat(headers, model="m")
    assert got.status == 200, got.body
    found = record_of(served, got)
    assert (found["outcome"], found["error"]["code"]) == ("refused", reason)
    assert fakes.called() == {"a": 1}


def test_a_request_for_one_provider_only_is_not_mirrored(mount: Any, fakes: Any) -> None:
    served = mirrored(mount, fakes, {})
    got = served.chat({"X-AI-Multi-Provider": "disabled"}, model="m")
    assert got.status == 200
    assert "mirrors" not in served.record(got)


def test_a_refused_request_is_nobodys_traffic(mount: Any, fakes: Any) -> None:
    served = mirrored(mount, fakes, {})
    got = served.chat({"X-AI-Cost-Limit": "0"}, model="m")
    assert got.status == 422
    assert "mirrors" not in served.record(got)
    assert fakes.called() == {}


def test_who_answered_is_not_asked_again(mount: Any, fakes: Any) -> None:
    served = mirrored(mount, fakes, {"to": "m"})
    got = served.chat(model="m")
    assert record_of(served, got)["outcome"] == "refused"
    assert fakes.called() == {"a": 1}


def test_a_mirror_by_provider_gets_the_model_that_was_asked_for(mount: Any, fakes: Any) -> None:
    providers = {"a": {"models": [{"name": "m"}]}, "b": {"models": [{"name": "m"}]}}
    mirrors = [{"name": "t", "provider": "b", "percent": 100}]
    served = mount(fakes.config(providers, routing={"scope": "all", "mirrors": mirrors}))
    got = served.chat({"X-AI-Provider-Pool": "a,b"}, model="m")
    assert record_of(served, got)["outcome"] in ("ok", "refused")
    other = {"a": "b", "b": "a"}[str(got.provider)]
    assert fakes.called().get(other, 0) == (1 if other == "b" else 0)


@pytest.mark.parametrize("script", [Script(status=500), Script(raw=b"no json")])
def test_a_mirror_that_fails_is_only_in_its_own_record(
    mount: Any, fakes: Any, script: Script
) -> None:
    fakes.b.script = script
    served = mirrored(mount, fakes, {})
    got = served.chat(model="m")
    assert got.status == 200
    found = record_of(served, got)
    assert found["outcome"] == "failed"
    assert len(found["attempts"]) in (1, 2)  # the same provider may be asked twice, nobody else
    assert {row["provider"] for row in found["attempts"]} == {"b"}


def test_mirrors_never_delay_a_request_and_are_bounded(mount: Any, fakes: Any) -> None:
    """The slow mirror is still at work when all answers are there; more than two are left out."""

    def slow(wire: Wire) -> None:
        wire.hold()

    with WireUpstream(slow) as silent:
        served = mirrored(mount, fakes, {"max_concurrency": 2}, b={"endpoint": silent.url})
        began = time.monotonic()
        answers = [served.chat(model="m") for _ in range(5)]
        assert time.monotonic() - began < 2
        assert {got.status for got in answers} == {200}
        assert until(lambda: len(silent.seen) == 2)
        ids = [served.record(got)["mirrors"][0] for got in answers]
        rows = served.gateway.decisions
        assert until(lambda: sum(rows.get(i, None) is not None for i in ids) == 3)
        left_out = [rows.get(i, None) for i in ids]
        codes = [row.error["code"] for row in left_out if row is not None]
        assert codes == ["provider_overloaded"] * 3
        # shutting down closes what is under way, and says so
        if served.kind == "wsgi":
            served.middleware.close()
        else:
            import asyncio

            loop = served.middleware._loop
            asyncio.run_coroutine_threadsafe(served.middleware.aclose(), loop).result(5)
        assert silent.wait_for_hangups(2)
        assert until(lambda: sum(rows.get(i, None) is not None for i in ids) == 5)
        assert sorted(rows.get(i, None).outcome for i in ids) == ["aborted"] * 2 + ["refused"] * 3


def test_an_ensemble_may_be_mirrored_to_a_model(mount: Any, fakes: Any) -> None:
    ensembles = {"e": {"members": [{"model": "m"}]}}
    served = mirrored(mount, fakes, {}, routing={"ensembles": ensembles})
    got = served.chat(model="ensemble/e")
    assert got.status == 200, got.body
    assert record_of(served, got)["outcome"] == "ok"


@pytest.mark.parametrize(
    "row",
    [
        {"name": "t", "percent": 10},
        {"name": "t", "percent": 101, "to": "m"},
        {"name": "t", "percent": 10, "provider": "nobody"},
        {"name": "t", "percent": 10, "to": "m", "max_concurrency": 0},
    ],
)
def test_a_mirror_to_nobody_is_refused_at_load(row: dict[str, Any]) -> None:
    entry = {"type": "openai_compatible", "endpoint": "http://127.0.0.1:1/v1"}
    with pytest.raises(ConfigInvalid):
        load_config(
            {
                "providers": {"a": {**entry, "models": [{"name": "m"}]}},
                "routing": {"mirrors": [row]},
            }
        )


def test_a_mirror_has_a_line_of_its_own_in_the_servers_log(mount: Any, fakes: Any) -> None:
    """It names the request it repeats; no answer ever comes with its own id, so none is awaited."""
    import logging

    from aiproxy.reference_server.request_log import RequestLog

    class Lines:
        def __init__(self) -> None:
            self.rows: list[dict[str, Any]] = []

        def write(self, row: dict[str, Any]) -> None:
            self.rows.append(row)

        def redact(self, text: str) -> str:
            return text

    lines = Lines()
    log = RequestLog(lines, logging.INFO)  # type: ignore[arg-type]
    served = mirrored(mount, fakes, {})
    served.gateway._on_decision = log
    got = served.chat(model="m")
    found = record_of(served, got)
    assert until(lambda: len(lines.rows) == 2)
    mine, mirror = lines.rows
    assert (mine["event"], mirror["event"]) == ("request", "mirror")
    assert (mirror["request_id"], mirror["of"]) == (found["id"], mine["request_id"])
    assert mirror["cost_usd"] == found["cost_usd"]
    assert log._decided == {mine["request_id"]}
