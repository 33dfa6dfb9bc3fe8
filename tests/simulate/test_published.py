"""What the published scenarios show, looked at more closely than they look themselves."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from aiproxy.reference_server.simulate import Result, load, simulate
from aiproxy.spec import schema, validate

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"


@cache
def ran(name: str) -> Result:
    return simulate(SCENARIOS / f"{name}.yaml", keep=10_000)


@pytest.mark.requirement("AIP-USE-001", "AIP-CFG-072")
def test_local_is_used_alone_and_the_cloud_only_while_local_is_down() -> None:
    """AIP-USE-001, AIP-CFG-072: the sample policy of use case 7.1, local up, down and back."""
    result = ran("local-first")
    before, down, after = result.between(0, 300), result.between(302, 355), result.between(480, 600)
    assert before.requests > 100
    assert before.share == after.share == {"local": 1.0}
    assert down.share == {"cloud": 1.0}
    assert before.cost_usd == after.cost_usd == 0
    assert result.errors == 0


@pytest.mark.requirement("ASC-CB-001", "ASC-CB-002", "ASC-CB-003", "ASC-CB-004", "ASC-CB-005")
def test_the_circuit_of_a_provider_that_hangs() -> None:
    """ASC-CB-001 to 005: it opens above the threshold, requests then take as long as at the spare,
    single probes go through, a failed one lengthens the pause, a good one closes it; the spare's
    circuit has no part in it."""
    result = ran("outage")
    steps = result.breakers
    assert {step.name for step in steps} == {"main/chat"}
    assert (steps[0].before, steps[0].after) == ("closed", "open")
    opened, closed = steps[0].at_s, steps[-1].at_s
    assert 60 < opened < 66
    assert 90 < closed < 130
    calls = sum(row.calls.count("main") for row in result.rows if opened < row.at_s < closed)
    probes = sum(step.after == "half_open" for step in steps)
    assert calls <= probes + 1
    quick = result.where(lambda row: opened < row.at_s < closed and row.calls == ("spare",))
    assert quick.requests > 400
    assert quick.p95_ms is not None
    assert quick.p95_ms < 1300
    pauses = [probe.at_s - step.at_s for step, probe in pairwise(steps) if step.after == "open"]
    assert pauses == sorted(pauses)


@pytest.mark.slow
def test_every_record_of_a_run_is_valid() -> None:
    for name in ("outage", "canary"):
        for decision in list(ran(name).decisions)[::50]:
            validate(decision.record(), "decision")


def test_weights_are_kept_whoever_is_slow() -> None:
    result = ran("weighted")
    late = result.between(60, 120)
    assert late.share["c"] == pytest.approx(0.2, abs=0.01)
    assert late.p99_ms is not None
    assert late.p99_ms > 1500


def test_every_scenario_is_valid_and_expects_something() -> None:
    files = sorted(SCENARIOS.glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        scenario = load(file)
        assert scenario.expect
        assert scenario.description or file.read_text().startswith("#")
    assert schema("scenario")["examples"]


def test_the_scenario_of_the_page_holds() -> None:
    page = (SCENARIOS.parents[1] / "docs" / "simulate.md").read_text("utf-8")
    (text,) = re.findall(r"```yaml\n(config: .*?)```", page, re.DOTALL)
    document = yaml.safe_load(text)
    document["config"] = yaml.safe_load((SCENARIOS / "outage.yaml").read_text())["config"]
    simulate(document).raise_for_failures()
