"""The checks of levels 2 and above are graded: a right router is green, each defect is seen.

By default a defect is run against the modules of the suite that hold the checks it must turn red;
with ``-m slow`` against the whole suite. A run waits more than it works, so several go on at once.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from controlled import graded
from right_defects import judged, mutants, red
from test_mutants import MUTANTS as LEVEL_1

from aiproxy.conformance import Status
from aiproxy.conformance.planning import home
from aiproxy.conformance.scoring import CONTROLLED, scored

LEVEL = 3
AT_ONCE = 3
NEIGHBOURS = "test_a_defect_turns_exactly_its_checks_red"


@pytest.fixture(scope="module")
def verdict(request: pytest.FixtureRequest) -> Iterator[Callable[[str], dict[str, str]]]:
    """Return what tells the surprises of a defect, having begun with every one that is asked."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield judged  # its workers are several at once already
        return
    chosen = [i for i in request.session.items if getattr(i, "originalname", "") == NEIGHBOURS]
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn")) as pool:
        runs: dict[str, Any] = {}
        for item in chosen:
            defect = item.callspec.params["defect"]  # type: ignore[attr-defined]
            runs[defect] = pool.submit(judged, defect)
        yield lambda defect: runs[defect].result()
        pool.shutdown(cancel_futures=True)


def test_the_right_router_proves_its_level_without_a_warning():
    report = graded(level=LEVEL)
    noticed = {r.check: r.reason for r in report.results if r.status is Status.WARN}
    assert (report.grade.level, [r.check for r in report.red], noticed) == (LEVEL, [], {})


@pytest.mark.parametrize("defect", mutants())
def test_a_defect_turns_exactly_its_checks_red(
    defect: str, verdict: Callable[[str], dict[str, str]]
):
    assert verdict(defect) == {}


@pytest.mark.slow
@pytest.mark.parametrize("defect", mutants())
def test_a_defect_turns_no_other_check_of_the_suite_red(defect: str):
    level = max(row.level for name in mutants()[defect] for row in home()[name].checks)
    assert judged(defect, level=max(level, LEVEL)) == {}


def test_every_check_has_a_defect_that_kills_it():
    killed = {name for checks in mutants().values() for name in checks} | set(LEVEL_1.values())
    survivors = {
        level: [name for name in ids if name not in killed]
        for level, ids in scored(CONTROLLED).items()
    }
    assert {level: names for level, names in survivors.items() if names} == {}


def test_every_defect_names_checks_of_the_suite():
    unknown = {
        defect: [name for name in checks if name not in home()]
        for defect, checks in mutants().items()
    }
    assert {defect: names for defect, names in unknown.items() if names} == {}
    assert all(red(name) for checks in mutants().values() for name in checks)
