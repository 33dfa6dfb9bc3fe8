"""The named defects of the right router, from ``mutants/*.py``, and what each run must show.

A module of ``mutants`` holds ``MUTANTS``: a defect and the checks it must turn red, no others.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controlled import graded

from aiproxy.conformance import Report, Status
from aiproxy.conformance.checks import Scenario
from aiproxy.conformance.planning import home, with_needed
from aiproxy.conformance.scoring import may_fail

FOLDER = Path(__file__).parent / "mutants"
#: Defects that share a run of the modules of their checks, and one of the whole suite.
MOST_NEAR, MOST_TOGETHER = 8, 24
_NEVER = (Status.FAIL, Status.WARN, Status.UNREACHABLE, Status.HARNESS_ERROR)


@cache
def mutants() -> Mapping[str, tuple[str, ...]]:
    """Return every defect and the checks it must turn red: all that any module names."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        spec = spec_from_file_location(f"mutants_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        for defect, checks in module.MUTANTS.items():
            found.setdefault(defect, {}).update(dict.fromkeys(checks))
    return MappingProxyType({defect: tuple(checks) for defect, checks in found.items()})


def judged(defect: str) -> dict[str, str]:
    """Return what surprises in a run with ``defect``, of the modules that hold its checks."""
    checks = mutants()[defect]
    return judged_run((defect,), checks, checks=neighbours(checks))


def judged_near(group: tuple[str, ...]) -> dict[str, str]:
    """Return what surprises in one run with all of ``group``, of the modules that hold their checks.

    When something does, each defect is run by itself: together they may hide one another.
    """
    every = tuple(name for defect in group for name in mutants()[defect])
    if not judged_run(group, every, checks=neighbours(every)):
        return {}
    return {
        f"{defect}: {check}": said for defect in group for check, said in judged(defect).items()
    }


def judged_together(group: tuple[str, ...], level: int) -> dict[str, str]:
    """Return what surprises in a run of the whole suite with all of ``group``.

    When something does, each defect is run by itself, against what was surprising.
    """
    every = tuple(name for defect in group for name in mutants()[defect])
    surprising = judged_run(group, every, level=level)
    if not surprising:
        return {}
    return {
        f"{defect}: {check}": said
        for defect in group
        for check, said in judged_alone(defect, tuple(surprising)).items()
    }


def judged_alone(defect: str, others: tuple[str, ...]) -> dict[str, str]:
    """Return what surprises in a run with ``defect`` of its checks and of ``others``."""
    checks = mutants()[defect]
    return judged_run((defect,), checks, checks=tuple(dict.fromkeys((*checks, *others))))


def judged_run(group: Iterable[str], expected: Iterable[str], **options: Any) -> dict[str, str]:
    """Return the surprises of a run; one that calls the machine too noisy is repeated once."""
    found = surprises(graded(*group, **options), expected)
    if found and all(str(Status.INCONCLUSIVE) in said for said in found.values()):
        found = surprises(graded(*group, **options), expected)
    return found


def groups(least: int) -> list[tuple[int, tuple[str, ...]]]:
    """Return all defects in groups that one run can tell apart, each with the level of its run,
    ``least`` or above.

    No check of a group shares a scenario with one of another defect in it, or builds on it.
    """
    found: list[tuple[Any, list[str]]] = []
    for defect in mutants():
        _join(found, defect, max(least, level((defect,))), MOST_TOGETHER)
    return [(high, tuple(group)) for high, group in found]


def near_groups() -> list[tuple[str, ...]]:
    """Return all defects in groups that a run of the modules of their checks can tell apart."""
    found: list[tuple[Any, list[str]]] = []
    for defect, checks in mutants().items():
        _join(found, defect, frozenset(module_of(home()[name]) for name in checks), MOST_NEAR)
    return [tuple(group) for _, group in found]


def level(group: Iterable[str]) -> int:
    """Return the highest level of the scenarios that these defects must turn red."""
    names = (name for defect in group for name in mutants()[defect])
    return max(row.level for name in names for row in home()[name].checks)


def modules(group: Iterable[str]) -> set[str]:
    """Return the modules of the suite that hold the checks of these defects."""
    return {module_of(home()[name]) for defect in group for name in mutants()[defect]}


def _join(found: list[tuple[Any, list[str]]], defect: str, kind: Any, most: int) -> None:
    """Put ``defect`` into the first group of its kind that has room for it, or into a new one."""
    for other, group in found:
        others = [name for one in group for name in mutants()[one]]
        if other == kind and len(group) < most and apart(mutants()[defect], others):
            group.append(defect)
            return
    found.append((kind, [defect]))


def apart(checks: Iterable[str], others: Iterable[str]) -> bool:
    """Return whether neither checks build on the others."""
    above = any(builds_on(name, others) for name in checks)
    return not above and not any(builds_on(name, checks) for name in others)


def neighbours(checks: Iterable[str]) -> tuple[str, ...]:
    """Return the checks of the modules in which ``checks`` stand."""
    modules = {module_of(home()[name]) for name in checks}
    return tuple(name for name, scenario in home().items() if module_of(scenario) in modules)


def module_of(scenario: Scenario) -> str:
    """Return the module of the suite in which a scenario stands."""
    return scenario.name.partition(".")[0]


def surprises(report: Report, checks: Iterable[str]) -> dict[str, str]:
    """Return what a run with a defect shows that it should not, or does not show that it should.

    ``checks`` have to be red (a warning where a check can never fail), all others not. What
    builds on a red check may be not testable, and what shares its requests may be inconclusive.
    """
    expected = set(checks)
    statuses = {r.check: r.status for r in report.results if not r.derived_from}
    found = {
        name: f"{statuses.get(name)} in place of {red(name)}"
        for name in sorted(expected)
        if statuses.get(name) is not red(name)
    }
    said = {r.check: r.reason for r in report.results}
    for name, status in statuses.items():
        if name in expected or name not in home():
            continue
        if status in _NEVER or not excused(name, status, said[name], expected):
            found[name] = str(status)
    return found


def excused(check: str, status: Status, reason: str, red_ones: Iterable[str]) -> bool:
    """Return whether what is red explains that a check says nothing: it builds on it, or says that
    it had no other instrument."""
    if status is Status.NOT_TESTABLE:
        return builds_on(check, red_ones) or any(f"{name} is fail" in reason for name in red_ones)
    return status is not Status.INCONCLUSIVE or shares(check, red_ones)


def red(check: str) -> Status:
    """Return how a check tells of a defect: it fails, or warns where it can never fail."""
    rows = {row.id: row for row in home()[check].checks}
    return Status.FAIL if may_fail(rows[check]) else Status.WARN


def builds_on(check: str, others: Iterable[str]) -> bool:
    """Return whether a check, or one it needs, stands in a scenario of ``others``."""
    scenarios = {home()[name].name for name in others}
    return any(scenario.name in scenarios for scenario in with_needed((home()[check],)))


def shares(check: str, others: Iterable[str]) -> bool:
    """Return whether a check stands in a scenario of ``others``."""
    return home()[check].name in {home()[name].name for name in others}
