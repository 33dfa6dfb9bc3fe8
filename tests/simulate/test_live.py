"""What is simulated is what happens: shares of a live router, over real sockets, within 2 points."""

from pathlib import Path

import pytest
from live import run_live, smaller

from aiproxy.reference_server.simulate import load, simulate

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
WITHIN = 0.02


def agree(name: str, folder: Path, *, seconds: float, requests: int, faster: bool = True) -> None:
    whole = load(SCENARIOS / f"{name}.yaml")
    scenario = smaller(whole, seconds=seconds, requests=requests, faster=faster)
    simulated = simulate(scenario)
    live = run_live(scenario, folder)
    assert simulated.measures.requests >= requests * 0.8
    assert set(live) == set(simulated.shares)
    for provider, share in simulated.shares.items():
        assert live[provider] == pytest.approx(share, abs=WITHIN), (live, simulated.shares)


def test_a_small_one_agrees(tmp_path: Path) -> None:
    agree("weighted", tmp_path, seconds=3, requests=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["weighted", "canary", "cost-mix"])
def test_the_live_router_has_the_simulated_shares(name: str, tmp_path: Path) -> None:
    # where clients say how long they will wait, providers have to keep their own pace
    agree(name, tmp_path, seconds=25, requests=1200, faster=name != "cost-mix")
