"""What a check says: findings, and the result they add up to.

A finding is one fact about the target; a result is one requirement's status. Nothing here knows
how the facts were found or who is going to read them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class Status(StrEnum):
    """The nine things that can be said about a requirement."""

    PASS = "pass"  # noqa: S105 (a status, not a secret)
    FAIL = "fail"
    WARN = "warn"
    UNSUPPORTED = "unsupported"
    NOT_TESTABLE = "not-testable"
    INCONCLUSIVE = "inconclusive"
    NOT_RUN = "not-run"
    UNREACHABLE = "unreachable"
    HARNESS_ERROR = "harness-error"


# Of several findings the first of these that occurs is the result.
_WORST_FIRST: Final = (
    Status.HARNESS_ERROR,
    Status.UNREACHABLE,
    Status.FAIL,
    Status.NOT_TESTABLE,
    Status.INCONCLUSIVE,
    Status.WARN,
    Status.PASS,
    Status.UNSUPPORTED,
    Status.NOT_RUN,
)

# What kept a requirement from being looked at: something it builds on does not hold; the target
# or its surroundings could not be set up; our own fault. Empty: the target itself.
DEPENDENCY: Final = "dependency"
SETUP: Final = "setup"
HARNESS: Final = "harness"

RED: Final = frozenset({Status.FAIL, Status.NOT_TESTABLE, Status.UNREACHABLE, Status.HARNESS_ERROR})


def worst(statuses: Iterable[Status]) -> Status:
    """Return the status that decides; ``not-run`` when there is none."""
    return min(statuses, key=_WORST_FIRST.index, default=Status.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Finding:
    """One observed fact.

    ``fact`` says what ought to be so; ``expected`` and ``found`` are filled when it is not.
    ``exchange`` names the recorded request that shows it. ``blocks`` means that checks which
    build on this one can say nothing now. ``cause`` is ``DEPENDENCY``, ``SETUP`` or ``HARNESS``
    where something else than the requirement itself stands in the way.
    """

    check: str
    status: Status
    fact: str
    expected: str = ""
    found: str = ""
    exchange: str = ""
    blocks: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One requirement's outcome in one run.

    ``scored`` results decide the level. ``reason`` is one line for people: the deciding finding,
    or why there is none. ``derived_from`` names the checks a derived result merely repeats.
    ``world`` is the configuration of the target it was found in.
    """

    check: str
    level: int
    keyword: str
    title: str
    clause: str
    status: Status
    scored: bool = False
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    derived_from: tuple[str, ...] = ()
    requests: int = 0
    seconds: float = 0.0
    world: str = ""

    @property
    def cause(self) -> str:
        """What kept the requirement from being looked at; empty when the target itself is told."""
        if self.status is Status.HARNESS_ERROR:
            return HARNESS
        deciding = (finding for finding in self.findings if finding.status is self.status)
        return next((finding.cause for finding in deciding if finding.cause), "")

    @property
    def blocks(self) -> bool:
        """Whether checks that depend on this one can say nothing."""
        if self.status is Status.FAIL:
            return any(finding.blocks for finding in self.findings)
        return self.status in RED

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON data."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # enumerations become text
        return data


def result_from_json(data: Mapping[str, Any]) -> Result:
    """Return the result that ``Result.as_json`` described."""
    findings = tuple(Finding(**{**f, "status": Status(f["status"])}) for f in data["findings"])
    return Result(
        **{
            **data,
            "status": Status(data["status"]),
            "findings": findings,
            "derived_from": tuple(data["derived_from"]),
        }
    )


def settle(findings: Iterable[Finding]) -> tuple[Status, str]:
    """Return the status that ``findings`` add up to, and one line saying why."""
    known = tuple(findings)
    if not known:
        return Status.HARNESS_ERROR, "the check reported nothing"
    status = worst(finding.status for finding in known)
    if status is Status.PASS:
        return status, ""
    return status, "; ".join(_sentence(f) for f in known if f.status is status)


def _sentence(finding: Finding) -> str:
    if finding.expected:
        return f"{finding.fact}: expected {finding.expected}, found {finding.found}"
    return f"{finding.fact}: {finding.found}" if finding.found else finding.fact
