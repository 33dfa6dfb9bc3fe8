"""Which results decide a level, and which requirements a URL alone cannot show.

The register and the frozen level lists come from ``aiproxy.spec``. A check scores when its row is
frozen for the level, is a MUST, and is not a rule of our own house: those may only warn.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import aiproxy.spec
from aiproxy.conformance.checks import DERIVED, Check, catalogue
from aiproxy.conformance.results import Result, Status
from aiproxy.spec import Requirement, levels, requirement, requirements

LEVELS_FILE: Final = Path(aiproxy.spec.__file__).parent / "levels.yaml"

_WHY_NOT: Final = {
    "needs-controlled-upstream": "needs upstreams that the suite controls (mode controlled)",
    "config": "about the implementation's configuration, which a URL does not show",
    "static": "about the implementation's files, which a URL does not show",
    "operational": "about running the implementation, which a URL does not show",
    "black-box": "no check looks at this yet",
}
_WHY_NOT_THIS: Final = {
    "XAI-SEC-002": "needs the same target under an http and an https URL",
    "UNI-STAT-004": "needs several providers behind the target (mode controlled)",
    "UNI-STAT-006": "needs several providers behind the target (mode controlled)",
    "AIP-LEVEL-001": "this is level 1 itself: see the grade",
}


def may_fail(check: Check) -> bool:
    """Return whether ``check`` can be red: a MUST that is more than a rule of our house."""
    return check.keyword == "MUST" and requirement(check.id).origin != "house"


@cache
def scored() -> Mapping[int, tuple[str, ...]]:
    """Return the ids that decide each level in mode observe.

    Above level 1 there are none: a URL can refute those levels, never prove them.
    """
    frozen = set(levels()[1])
    rows = [row for scenario in catalogue() for row in scenario.checks]
    return {1: tuple(row.id for row in rows if row.id in frozen and may_fail(row))}


@cache
def levels_digest() -> str:
    """Return what identifies the frozen lists and what is scored of them."""
    text = LEVELS_FILE.read_bytes() + ",".join(scored()[1]).encode()
    return "sha256:" + hashlib.sha256(text).hexdigest()


def rows(level: int) -> tuple[Check, ...]:
    """Return the checks up to ``level``, in the order they run."""
    every = (row for scenario in catalogue() for row in scenario.checks)
    return tuple(row for row in every if row.level <= level)


def derived(results: Mapping[str, Result]) -> Iterator[Result]:
    """Yield the results that only repeat others: those whose members were all looked at."""
    for row in DERIVED:
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


def not_observed(level: int) -> Iterator[Result]:
    """Yield a ``not-run`` result with its reason for each other requirement up to ``level``."""
    looked_at = {row.id for row in rows(level)} | {row.id for row in DERIVED}
    for row in requirements():
        if row.level <= level and row.id not in looked_at and not row.stretch:
            reason = _WHY_NOT_THIS.get(row.id) or _WHY_NOT.get(row.observable, "not visible here")
            yield _not_run(row, reason)


def _not_run(row: Requirement, reason: str) -> Result:
    return Result(
        row.id, row.level, row.adopt, row.statement, row.source, Status.NOT_RUN, reason=reason
    )
