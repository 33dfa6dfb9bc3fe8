"""The level: a pure function of the results.

Level N is reached when every scored check of levels 1 to N passed. A scored check that could not
be measured leaves its level unproven, which is never better than measured badly. An honest
refusal (``unsupported``) does not stand in the way where the frozen lists allow one.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aiproxy.conformance.results import Result, Status

HIGHEST_LEVEL: Final = 5
# A warning on a scored check comes from a softer clause of it: the MUST part held.
HELD: Final = frozenset({Status.PASS, Status.WARN})

PROVEN, FAILED, UNPROVEN, NOT_MEASURED = "proven", "failed", "unproven", "not-measured"


@dataclass(frozen=True, slots=True)
class Step:
    """One level: ``proven``, ``failed``, ``unproven`` or ``not-measured``, and what stands there.

    ``blocking`` are the ids of this level in the way; ``held`` of ``scored`` checks held. A level
    is not proven before those below it: then nothing of its own may be in the way.
    """

    level: int
    state: str
    blocking: tuple[str, ...]
    held: int
    scored: int


@dataclass(frozen=True, slots=True)
class Grade:
    """The highest level proven (0: none), each level's step, and the warnings beside it."""

    level: int
    steps: tuple[Step, ...]
    warnings: int

    @property
    def blocking(self) -> tuple[str, ...]:
        """The ids that keep the target from the next level."""
        return next((step.blocking for step in self.steps if step.level > self.level), ())


def grade(
    results: Iterable[Result],
    scored: Mapping[int, Iterable[str]],
    may_refuse: Container[str] = (),
    claimed: int = 0,
) -> Grade:
    """Return the grade of ``results``; ``scored`` lists the deciding ids of each level.

    ``may_refuse`` are those among them that may be ``unsupported``. Within a ``claimed`` level a
    check that could not be made for want of a prerequisite counts as failed.
    """
    known = {result.check: result for result in results}
    steps: list[Step] = []
    for level in range(1, HIGHEST_LEVEL + 1):
        ids = tuple(scored.get(level, ()))
        state, blocking, held, count = judged(ids, known, may_refuse, level <= claimed)
        if state == PROVEN and any(below.state != PROVEN for below in steps):
            state = UNPROVEN
        steps.append(Step(level, state, blocking, held, count))
    reached = sum(step.state == PROVEN for step in steps)
    warnings = sum(result.status is Status.WARN for result in known.values())
    return Grade(reached, tuple(steps), warnings)


def up_to(level: int, grade: Grade) -> Grade:
    """Return ``grade`` with the levels above ``level`` as not measured."""
    steps = tuple(
        replace(step, state=NOT_MEASURED, blocking=(), held=0) if step.level > level else step
        for step in grade.steps
    )
    return replace(grade, level=min(level, grade.level), steps=steps)


def judged(
    ids: tuple[str, ...],
    known: Mapping[str, Result],
    may_refuse: Container[str],
    claimed: bool = False,
) -> tuple[str, tuple[str, ...], int, int]:
    """Return the state of a set of checks, what is in the way, how many held and how many there are.

    What failed comes first of what is in the way. Something must have been seen to hold: a target that refuses everything proves nothing.
    """
    statuses = {name: known[name].status if name in known else Status.NOT_RUN for name in ids}
    red = {Status.FAIL, Status.NOT_TESTABLE} if claimed else {Status.FAIL}
    failed = tuple(name for name in ids if statuses[name] in red)
    held = {name for name, status in statuses.items() if status in HELD}
    refused = {n for n, s in statuses.items() if s is Status.UNSUPPORTED and n in may_refuse}
    open_ = (*failed, *(n for n in ids if n not in held | refused and n not in failed))
    cleared = len(ids) - len(open_)
    if all(status is Status.NOT_RUN for status in statuses.values()):
        return NOT_MEASURED, (), 0, len(ids)
    if failed:
        return FAILED, open_, cleared, len(ids)
    if open_:
        return UNPROVEN, open_, cleared, len(ids)
    if not held:
        return UNPROVEN, ids, 0, len(ids)
    return PROVEN, (), cleared, len(ids)
