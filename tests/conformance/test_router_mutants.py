"""The checks of levels 2 and above are graded: a right router is green, each defect is seen.

With ``-m slow`` the defects are run against the modules of the suite that hold the checks they must turn
red, with ``-m exhaustive`` against the whole suite, which takes half an hour. Defects that cannot be
mistaken for one another share a run. A run waits more than it works, so some go on at once.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from controlled import graded
from right_defects import (
    groups,
    judged_near,
    judged_together,
    mutants,
    near_groups,
    red,
)
from test_mutants import MUTANTS as LEVEL_1

from aiproxy.conformance import Status
from aiproxy.conformance.planning import home
from aiproxy.conformance.scoring import CONTROLLED, scored

HIGHEST, USUAL = 5, 3
AT_ONCE = 3


def near() -> list[Any]:
    """Return the groups of a run each, with their marks."""
    return [pytest.param(group, id=group[0], marks=pytest.mark.slow) for group in near_groups()]


def together() -> list[Any]:
    """Return the groups of a run of the whole suite each, with their marks."""
    return [
        pytest.param((high, group), id=group[0], marks=pytest.mark.exhaustive)
        for high, group in groups(USUAL)
    ]


@pytest.fixture(scope="module")
def verdict(request: pytest.FixtureRequest) -> Iterator[Callable[..., dict[str, str]]]:
    """Return what calls a function of ``right_defects`` with the arguments of a test, elsewhere.

    All such calls of the session begin at once, in the order of its tests.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        yield lambda function, *arguments: function(*arguments)  # xdist does that already
        return
    asked = [getattr(item, "callspec", None) for item in request.session.items]
    with ProcessPoolExecutor(AT_ONCE, get_context("spawn")) as pool:
        runs: dict[Any, Any] = {}
        for one in asked:
            if one is not None and "near" in one.params:
                runs[judged_near, one.params["near"]] = pool.submit(judged_near, one.params["near"])
            elif one is not None and "together" in one.params:
                high, group = one.params["together"]
                runs[judged_together, group, high] = pool.submit(judged_together, group, high)
        yield lambda *call: runs[call].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
def test_the_right_router_proves_its_level_without_a_warning():
    report = graded(level=HIGHEST)
    noticed = {r.check: r.reason for r in report.results if r.status is Status.WARN}
    assert (report.grade.level, [r.check for r in report.red], noticed) == (HIGHEST, [], {})


def test_a_model_that_takes_texts_beside_pictures_is_not_blamed_for_it():
    report = graded("colours-take-texts", level=2, checks=("AIP-API-017",))
    [told] = [row for row in report.results if row.check == "AIP-API-017"]
    assert told.status is Status.PASS, told.reason


@pytest.mark.parametrize("near", near())
def test_defects_turn_exactly_their_checks_red(
    near: tuple[str, ...], verdict: Callable[..., dict[str, str]]
):
    surprises = verdict(judged_near, near)
    if surprises:
        # A machine that stalls for seconds looks like a defect, too. What is really there is there
        # again when the group runs anew.
        again = judged_near(near)
        surprises = {name: what for name, what in surprises.items() if again.get(name) == what}
    assert surprises == {}


@pytest.mark.parametrize("together", together())
def test_defects_turn_no_other_check_of_the_suite_red(
    together: tuple[int, tuple[str, ...]], verdict: Callable[..., dict[str, str]]
):
    high, group = together
    assert verdict(judged_together, group, high) == {}


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
