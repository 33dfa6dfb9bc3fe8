"""Which results decide a level, and why the other requirements were not looked at.

The register and the frozen lists come from ``aiproxy.spec``. A check scores when its row is frozen
for the level, is a MUST that is more than a rule of our own house, and does not stand under
``not_scored``. In mode observe nothing above level 1 scores, nor does what needs upstreams that
the suite controls: a URL alone can refute that, never prove it.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import aiproxy.spec
from aiproxy.conformance.checks import Check, Scenario, catalogue, derived_rows
from aiproxy.conformance.exclusions import exclusions
from aiproxy.conformance.grading import FAILED, HIGHEST_LEVEL, Grade, grade
from aiproxy.conformance.results import Result, Status
from aiproxy.spec import Requirement, freeze, requirement, requirements

LEVELS_FILE: Final = Path(aiproxy.spec.__file__).parent / "levels.yaml"
OBSERVE, ATTACHED, CONTROLLED = "observe", "attached", "controlled"
MODES: Final = (OBSERVE, ATTACHED, CONTROLLED)

_NEEDS_CONTROL: Final = "needs upstreams that the suite controls (mode controlled)"
_NOT_VISIBLE: Final = "no check looks at this yet"


def may_fail(check: Check) -> bool:
    """Return whether ``check`` can be red: a scored MUST, not a rule of our own house."""
    return (
        check.keyword == "MUST"
        and requirement(check.id).origin != "house"
        and check.id not in freeze().not_scored
    )


def visible(scenario: Scenario, mode: str) -> bool:
    """Return whether ``scenario`` can be run in ``mode``."""
    return mode != OBSERVE or scenario.fleet is None


@cache
def scored(mode: str = OBSERVE) -> Mapping[int, tuple[str, ...]]:
    """Return the ids that decide each level in ``mode``, in the order they run."""
    highest = 1 if mode == OBSERVE else HIGHEST_LEVEL
    candidates = [
        row.id
        for scenario in catalogue()
        if visible(scenario, mode)
        for row in scenario.checks
        if may_fail(row)
    ]
    frozen = {level: set(ids) for level, ids in freeze().levels.items() if level <= highest}
    return {level: tuple(c for c in candidates if c in ids) for level, ids in frozen.items()}


@cache
def may_refuse() -> frozenset[str]:
    """Return the checks for which ``unsupported`` does not stand in the way of a level."""
    optional = {row.id for scenario in catalogue() for row in scenario.checks if row.feature}
    return frozenset(optional | set(freeze().may_refuse))


def graded(results: Iterable[Result], mode: str, claimed: int = 0) -> Grade:
    """Return the grade of ``results`` in ``mode``; ``claimed`` is the level the manifest claims.

    In mode observe a level above 1 fails when something of it is seen to be broken.
    """
    known = tuple(results)
    found = grade(known, scored(mode), may_refuse(), claimed)
    if mode != OBSERVE:
        return found
    frozen = freeze().levels
    steps = tuple(
        replace(step, state=FAILED, blocking=refuting)
        if step.level > 1 and (refuting := _refuting(known, frozen[step.level]))
        else step
        for step in found.steps
    )
    return replace(found, steps=steps)


def _refuting(results: Iterable[Result], ids: Container[str]) -> tuple[str, ...]:
    failed = (r for r in results if r.status is Status.FAIL and not r.derived_from)
    return tuple(result.check for result in failed if result.check in ids)


@cache
def levels_digest() -> str:
    """Return what identifies the frozen lists and what is scored of them."""
    ids = (",".join(scored(CONTROLLED)[level]) for level in sorted(scored(CONTROLLED)))
    return "sha256:" + hashlib.sha256(LEVELS_FILE.read_bytes() + ";".join(ids).encode()).hexdigest()


def rows(level: int, mode: str = OBSERVE) -> tuple[Check, ...]:
    """Return the checks up to ``level`` that can be run in ``mode``, in the order they run."""
    every = (row for s in catalogue() if visible(s, mode) for row in s.checks)
    return tuple(row for row in every if row.level <= level)


def derived(results: Mapping[str, Result]) -> Iterator[Result]:
    """Yield the results that only repeat others: those whose members were all looked at."""
    for row in derived_rows():
        members = [results[name] for name in row.of if name in results]
        if len(members) < len(row.of):
            continue
        bad = [member for member in members if member.status not in (Status.PASS, Status.WARN)]
        status = bad[0].status if bad else Status.PASS
        reason = f"as {', '.join(member.check for member in bad)}" if bad else ""
        yield Result(
            row.id, row.level, row.keyword, row.title, row.clause, status,
            reason=reason, derived_from=row.of,
        )  # fmt: skip


def not_observed(level: int, mode: str = OBSERVE) -> Iterator[Result]:
    """Yield a ``not-run`` result with its reason for each other requirement up to ``level``."""
    looked_at = {row.id for row in rows(level, mode)}
    checked = {row.id for scenario in catalogue() for row in scenario.checks}
    repeats = {row.id: row.of for row in derived_rows()}
    for row in requirements():
        if row.level > level or row.id in looked_at or row.stretch:
            continue
        missing = [name for name in repeats.get(row.id, ()) if name not in looked_at]
        if row.id in checked:
            yield _not_run(row, _NEEDS_CONTROL)
        elif missing:
            yield _not_run(row, f"repeats {', '.join(missing)}, not looked at in this run")
        elif row.id not in repeats:
            yield _not_run(row, exclusions().get(row.id, _NOT_VISIBLE))


def _not_run(row: Requirement, reason: str) -> Result:
    return Result(
        row.id, row.level, row.adopt, row.statement, row.source, Status.NOT_RUN, reason=reason
    )
