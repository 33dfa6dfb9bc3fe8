"""Tests of a configuration: what it does under load, in an outage, to the bill. Calls nobody.

    pip install 'aiproxy[server]' pytest
    pytest test_scenarios.py

Each scenario of the folder is a test by what it expects itself; and a result can be asked anything
else. Time is virtual: minutes of traffic take a second.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from aiproxy.reference_server.simulate import Result, load, simulate

SCENARIOS = Path(__file__).parent / "scenarios"


@pytest.fixture(scope="session")
def simulated() -> Callable[[str], Result]:
    """Run a scenario of the folder by name, each once."""
    return cache(lambda name: simulate(SCENARIOS / f"{name}.yaml"))


@pytest.mark.parametrize("name", sorted(file.stem for file in SCENARIOS.glob("*.yaml")))
def test_what_a_scenario_expects(name: str, simulated: Callable[[str], Result]) -> None:
    simulated(name).raise_for_failures()


def test_nobody_notices_the_outage(simulated: Callable[[str], Result]) -> None:
    result = simulated("outage")
    assert result.errors == 0
    during, after = result.between(66, 90), result.between(120, 180)
    assert during.share["spare"] > 0.9
    assert after.share["main"] > 0.95
    steps = [step.after for step in result.breakers if step.name == "main/chat"]
    assert (steps[0], steps[-1]) == ("open", "closed")


def test_a_conversation_stays_on_its_side_of_the_canary(
    simulated: Callable[[str], Result],
) -> None:
    sides: dict[str, set[str]] = {}
    for decision in simulated("canary").decisions:
        if decision.conversation and decision.served:
            provider = decision.served.model.provider.id
            sides.setdefault(decision.conversation, set()).add(provider)
    assert sides
    assert all(len(providers) == 1 for providers in sides.values())


def test_twice_the_traffic_still_fits() -> None:
    """A scenario is data: change what the question is about, keep the rest."""
    from dataclasses import replace

    scenario = load(SCENARIOS / "cost-mix.yaml")
    busier = [replace(p, rate=(p.rate or 0) * 2, for_s=p.for_s / 2) for p in scenario.phases]
    result = simulate(replace(scenario, phases=busier))
    assert result.errors == 0
    assert result.of("hurry").p95_ms < 500
