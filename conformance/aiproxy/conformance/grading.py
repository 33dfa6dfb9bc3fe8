"""The level: a pure function of the results.

Level N is reached when every scored check of levels 1 to N passed. A scored check that could not
be measured leaves its level unproven, which is never better than measured badly. An optional
feature that the target honestly declines (``unsupported``) does not stand in the way.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiproxy.conformance.results import Result, Status

HIGHEST_LEVEL: Final = 5
_CLEARED: Final = frozenset({Status.PASS, Status.UNSUPPORTED})
# A warning on a scored check comes from a softer clause of it: the MUST part held.
_HELD: Final = _CLEARED | {Status.WARN}


@dataclass(frozen=True, slots=True)
class Step:
    """One level: ``proven``, ``failed``, ``unproven`` or ``not-measured``, and what stands there.

    ``blocking`` are the ids in the way; ``held`` of ``scored`` checks held.
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


def grade(results: Iterable[Result], scored: Mapping[int, Iterable[str]]) -> Grade:
    """Return the grade of ``results``; ``scored`` lists the deciding ids of each level."""
    known = {result.check: result for result in results}
    steps = tuple(
        _step(level, tuple(scored.get(level, ())), known) for level in range(1, HIGHEST_LEVEL + 1)
    )
    reached = 0
    for step in steps:
        if step.state != "proven":
            break
        reached = step.level
    warnings = sum(result.status is Status.WARN for result in known.values())
    return Grade(reached, steps, warnings)


def _step(level: int, ids: tuple[str, ...], known: Mapping[str, Result]) -> Step:
    statuses = {check: known[check].status if check in known else Status.NOT_RUN for check in ids}
    failed = tuple(check for check, status in statuses.items() if status is Status.FAIL)
    open_ = tuple(check for check, status in statuses.items() if status not in _HELD)
    held = len(ids) - len(open_)
    if not ids or all(status is Status.NOT_RUN for status in statuses.values()):
        return Step(level, "not-measured", (), 0, len(ids))
    if failed:
        return Step(level, "failed", failed, held, len(ids))
    if open_:
        return Step(level, "unproven", open_, held, len(ids))
    if not any(status in (Status.PASS, Status.WARN) for status in statuses.values()):
        return Step(level, "unproven", ids, 0, len(ids))
    return Step(level, "proven", (), held, len(ids))
