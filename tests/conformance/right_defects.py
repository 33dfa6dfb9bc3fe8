"""The named defects of the right router, from ``mutants/*.py``, and what each run must show.

A module of ``mutants`` holds ``MUTANTS``: a defect and the checks it must turn red, no others.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import MappingProxyType

from controlled import graded

from aiproxy.conformance import Report, Status
from aiproxy.conformance.checks import Scenario
from aiproxy.conformance.planning import home, with_needed
from aiproxy.conformance.scoring import may_fail

FOLDER = Path(__file__).parent / "mutants"
_NOTICED = (Status.FAIL, Status.WARN)
_FAULTS = (Status.UNREACHABLE, Status.HARNESS_ERROR)


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


def judged(defect: str, *, level: int = 0) -> dict[str, str]:
    """Return what surprises in a run with ``defect``, the whole suite's up to ``level`` if given.

    A run that says of itself that the machine was too noisy is repeated once.
    """
    checks = mutants()[defect]
    options = {"level": level} if level else {"checks": neighbours(checks)}
    found = surprises(graded(defect, **options), checks)
    if found and all(str(Status.INCONCLUSIVE) in said for said in found.values()):
        found = surprises(graded(defect, **options), checks)
    return found


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
    for name, status in statuses.items():
        if name in expected or name not in home():
            continue
        if status in _NOTICED or status in _FAULTS:
            found[name] = str(status)
        elif status is Status.NOT_TESTABLE and not builds_on(name, expected):
            found[name] = str(status)
        elif status is Status.INCONCLUSIVE and not shares(name, expected):
            found[name] = str(status)
    return found


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
