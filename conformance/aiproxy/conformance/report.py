"""A run's report as data: what was asked, what was found, and what follows from it."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.baseline import Baseline, Comparison, compare
from aiproxy.conformance.grading import NOT_MEASURED, PROVEN, Grade, up_to
from aiproxy.conformance.manifest import Target
from aiproxy.conformance.profiles import ProfileGrade, profile_grades
from aiproxy.conformance.redaction import Redactor
from aiproxy.conformance.results import RED, Result, Status
from aiproxy.conformance.scoring import OBSERVE, graded

if TYPE_CHECKING:
    from aiproxy.conformance.endpoint import Exchange

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3
DISTRIBUTION: Final = "aiproxy"


def suite_version() -> str:
    """Return the version of the installed suite."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class WorldRun:
    """One configuration the target was run in. ``fault`` says why it could not be, if so;
    ``repeated`` is how often a scenario was run again because the machine stood still."""

    name: str
    scenarios: int = 0
    requests: int = 0
    seconds: float = 0.0
    fault: str = ""
    repeated: int = 0


@dataclass(frozen=True)
class Report:
    """Everything a run found. ``unreachable`` holds the reason when there was nothing to grade.

    ``about`` is what the manifest says of the target; nothing in it passes a check. ``profile`` is
    the profile asked for, if any. ``limit_s`` bounds the seconds it may take. ``partial``: only
    chosen checks were run, which grades nothing.
    """

    target: str
    seed: int
    asked: int
    results: tuple[Result, ...]
    exchanges: tuple["Exchange", ...]
    started: str
    seconds: float
    budget: int
    command: str = ""
    partial: bool = False
    unreachable: str = ""
    mode: str = OBSERVE
    worlds: tuple[WorldRun, ...] = ()
    about: Target = field(default_factory=Target)
    baseline: Baseline | None = None
    profile: str = ""
    limit_s: float = 600.0

    @cached_property
    def grade(self) -> Grade:
        """The level these results add up to.

        What a profile looks at above the level asked for is a part of those levels, and no grade
        of them.
        """
        return up_to(self.asked, graded(self.results, self.mode, self.about.level or 0))

    @cached_property
    def profiles(self) -> tuple[ProfileGrade, ...]:
        """Each profile beside the level."""
        return profile_grades(self.results, self.mode)

    @property
    def red(self) -> tuple[Result, ...]:
        """The results that are somebody's to mend, expected or not."""
        return tuple(r for r in self.results if r.status in RED and not r.derived_from)

    @cached_property
    def compared(self) -> Comparison:
        """The run beside its baseline; without one, every red result is unexpected."""
        return compare(self.results, self.baseline.expected if self.baseline else ())

    @property
    def idle(self) -> bool:
        """Whether not one of the checks was run."""
        return all(result.status is Status.NOT_RUN for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 what was asked for is proven and nothing is red, 1 not so, 3 unreachable.

        A run of chosen checks grades nothing, so only their own outcome counts; one of them at
        least must have been run. Failures that a baseline expects neither are red nor stand in the
        way of what was asked for.
        """
        if self.unreachable:
            return EXIT_UNREACHABLE
        holds = not self.idle if self.partial else self._holds
        return EXIT_OK if holds and not self.compared.red else EXIT_FAILED

    @property
    def _holds(self) -> bool:
        """Whether level and profile asked for are proven, but for what the baseline expects."""
        known = set(self.compared.known)
        steps = (step for step in self.grade.steps if step.level <= self.asked)
        for step in steps:
            measured = step.scored and step.state != NOT_MEASURED
            if not measured or not known.issuperset(step.blocking):
                return False
        profiles = (profile for profile in self.profiles if profile.name == self.profile)
        return all(
            p.state == PROVEN or (bool(p.blocking) and known.issuperset(p.blocking))
            for p in profiles
        )


# What the suite itself wrote, and a report is useless without.
_OURS: Final = frozenset(
    {"check", "derived_from", "label", "exchange", "world", "mode", "status", "cause"}
)


def cleaned(report: Report, redactor: Redactor) -> Report:
    """Return ``report`` with every secret masked in every text that came from outside."""
    shown: Report = _cleaned(report, redactor)
    return shown


def _cleaned(value: Any, redactor: Redactor) -> Any:
    match value:
        case Enum():
            return value
        case str():
            return redactor.mask(value)
        case tuple():
            return tuple(_cleaned(member, redactor) for member in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changed = {}
    for member in fields(value):
        before = getattr(value, member.name)
        after = before if member.name in _OURS else _cleaned(before, redactor)
        if after is not before and after != before:
            changed[member.name] = after
    return replace(value, **changed) if changed else value
