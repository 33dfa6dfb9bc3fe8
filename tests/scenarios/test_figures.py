"""The draft's Figures 1 to 21 as executable scenarios (XAI-FIG-001 to 021): see figures.yaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from replaying import replay

SCENARIOS = yaml.safe_load((Path(__file__).parent / "figures.yaml").read_bytes())


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            row,
            id=f"{row['figure']:02}",
            marks=pytest.mark.requirement(f"XAI-FIG-{row['figure']:03}"),
        )
        for row in SCENARIOS
    ],
)
def test_figure(stage: Any, scenario: dict[str, Any]) -> None:
    built = stage(scenario["providers"], scenario.get("config"))
    replay(built, scenario["figure"], scenario["steps"])


def test_all_figures_are_there() -> None:
    assert [row["figure"] for row in SCENARIOS] == list(range(1, 22))
