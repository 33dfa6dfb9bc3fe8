"""Profiles: parts of the register graded beside the levels, as pure functions of the results.

The core of a profile are its MUST rows with a check, and the softer rows it demands; they decide
it. Its extended part are the other softer rows and those of optional features; they are counted.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from aiproxy.conformance.checks import Check, catalogue
from aiproxy.conformance.grading import HELD, PROVEN, UNPROVEN, judged
from aiproxy.conformance.results import Result, Status
from aiproxy.conformance.scoring import MODES, OBSERVE, may_fail, may_refuse
from aiproxy.spec import profiles


@dataclass(frozen=True, slots=True)
class Part:
    """What became of a set of checks. ``skipped`` were not run or gave no answer."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    unsupported: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProfileGrade:
    """One profile: ``proven``, ``failed``, ``unproven`` or ``not-measured``.

    ``blocking`` are the ids of the core in the way; ``held`` of ``scored`` of them held.
    """

    name: str
    title: str
    state: str
    blocking: tuple[str, ...]
    held: int
    scored: int
    core: Part
    extended: Part


def profile_rows(name: str) -> tuple[Check, ...]:
    """Return the checks of the profile ``name``, in the order they run.

    Raises:
        KeyError: no such profile.
    """
    families = profiles()[name].families
    every = (row for scenario in catalogue() for row in scenario.checks)
    return tuple(row for row in every if row.id.rpartition("-")[0] in families)


def core_of(name: str) -> tuple[str, ...]:
    """Return the ids that decide the profile ``name``; a demanded row is one without a check too.

    Raises:
        KeyError: no such profile.
    """
    demands = profiles()[name].demands
    own = [r.id for r in profile_rows(name) if may_fail(r) and not r.feature]
    return (*own, *(demanded for demanded in demands if demanded not in own))


def profile_grades(results: Iterable[Result], mode: str) -> tuple[ProfileGrade, ...]:
    """Return the grade of every profile.

    Raises:
        ValueError: no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"no mode {mode!r}")
    known = {result.check: result for result in results}
    return tuple(_graded(name, known, mode) for name in profiles())


def _graded(name: str, known: Mapping[str, Result], mode: str) -> ProfileGrade:
    core, demands = core_of(name), profiles()[name].demands
    extended = tuple(row.id for row in profile_rows(name) if row.id not in core)
    # A softer row warns; where it is demanded, that is a failure.
    known = {
        check: replace(result, status=Status.FAIL)
        if check in demands and result.status is Status.WARN
        else result
        for check, result in known.items()
    }
    state, blocking, held, scored = judged(core, known, may_refuse())
    if state == PROVEN and mode == OBSERVE:
        state = UNPROVEN  # a URL alone refutes, and never proves what lies behind it
    title = profiles()[name].title
    parts = (_part(core, known, HELD), _part(extended, known, {Status.PASS}))
    return ProfileGrade(name, title, state, blocking, held, scored, *parts)


def _part(ids: tuple[str, ...], known: Mapping[str, Result], held: Container[Status]) -> Part:
    statuses = {name: known[name].status if name in known else Status.NOT_RUN for name in ids}
    passed = tuple(name for name, status in statuses.items() if status in held)
    wrong = {Status.FAIL, Status.WARN}
    failed = tuple(n for n, status in statuses.items() if status in wrong and n not in passed)
    refused = tuple(name for name, status in statuses.items() if status is Status.UNSUPPORTED)
    rest = tuple(name for name in ids if name not in {*passed, *failed, *refused})
    return Part(passed, failed, refused, rest)
