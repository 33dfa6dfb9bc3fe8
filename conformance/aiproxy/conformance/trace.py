"""Which requirement was looked at by what, told from the results of a run.

A check counts when a run reported it: source code proves nothing. Every other row of the register
repeats checked ones or is excluded with a reason; ``gaps`` names the rows that do neither.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.conformance.checks import catalogue, derived_rows
from aiproxy.conformance.exclusions import exclusions, faults
from aiproxy.conformance.results import Status
from aiproxy.spec import Requirement, requirements

TESTED, SILENT, DERIVED, EXCLUDED, GAP = "tested", "silent", "repeats", "excluded", "gap"
_MEANING: Final = {
    TESTED: "a check looked at it in the run; its status is shown",
    SILENT: "it has a check, which gave no verdict in the run; the reason is shown",
    DERIVED: "it holds exactly when the named rows do",
    EXCLUDED: "no check looks at it; the reason is shown",
    GAP: "neither of these",
}
_NO_VERDICT: Final = frozenset(
    {Status.NOT_RUN, Status.NOT_TESTABLE, Status.INCONCLUSIVE, Status.UNREACHABLE,
     Status.HARNESS_ERROR}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Traced:
    """One row of the register: how it is accounted for, and in which words."""

    row: Requirement
    how: str
    told: str


def trace(results: Iterable[Mapping[str, Any]]) -> tuple[Traced, ...]:
    """Return every row of the register, in its order, with what became of it.

    ``results`` are those of a report in the shape of the schema ``report``.
    """
    reported = {result["check"]: result for result in results}
    checked = {row.id for scenario in catalogue() for row in scenario.checks}
    repeats = {row.id: row.of for row in derived_rows()}
    return tuple(
        Traced(row, *_how(row.id, reported.get(row.id), row.id in checked, repeats.get(row.id, ())))
        for row in requirements()
    )


def _how(
    name: str, result: Mapping[str, Any] | None, checked: bool, repeats: Sequence[str]
) -> tuple[str, str]:
    if checked:
        if result is None:
            return SILENT, "not part of the run"
        status = Status(result["status"])
        if status in _NO_VERDICT:
            return SILENT, f"{status}: {result.get('reason') or 'no reason given'}"
        return TESTED, status.value
    if repeats:
        return DERIVED, ", ".join(repeats)
    if name in exclusions():
        return EXCLUDED, exclusions()[name]
    return GAP, ""


def gaps() -> tuple[str, ...]:
    """Return what is wrong with the account, in words: rows nobody speaks of, and double ones."""
    register = {row.id for row in requirements()}
    checked = {row.id for scenario in catalogue() for row in scenario.checks}
    repeats = {row.id for row in derived_rows()}
    excluded = set(exclusions())
    found = [
        *faults(),
        *(f"{name}: no such row" for name in sorted((checked | repeats | excluded) - register)),
    ]
    found += [f"{name}: excluded, and a check looks at it" for name in sorted(excluded & checked)]
    found += [f"{name}: excluded, and it repeats others" for name in sorted(excluded & repeats)]
    found += [f"{name}: looked at, and it repeats others" for name in sorted(checked & repeats)]
    found += [
        f"{row.id}: repeats {name}, which no check looks at"
        for row in derived_rows()
        for name in row.of
        if name not in checked
    ]
    silent = register - checked - repeats - excluded
    return (*found, *(f"{row.id}: {_silent(row)}" for row in requirements() if row.id in silent))


def _silent(row: Requirement) -> str:
    return f"level {row.level} {row.adopt}, {row.observable}: neither looked at nor excluded"


def trace_page(report: Mapping[str, Any]) -> str:
    """Return the trace of ``report`` (in the shape of its schema) as a Markdown page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    rows = trace(report["results"])
    target = report["target"]
    name = " ".join(filter(None, (target.get("implementation"), target.get("version"))))
    yield "# Trace\n"
    yield (
        f"Every row of the register, told from one run: {name or 'target'}, mode {report['mode']}, "
        f"suite {report['suite']['version']}, seed {report['seed']}, {report['started'][:10]}.\n"
    )
    counts = Counter(traced.how for traced in rows)
    yield "| how | rows | means |\n|---|---|---|"
    for how, meaning in _MEANING.items():
        if counts[how]:
            yield f"| {how} | {counts[how]} | {meaning} |"
    for level in range(1, 6):
        yield f"\n## Level {level}\n"
        yield "| requirement | weight | how | what |\n|---|---|---|---|"
        for traced in rows:
            if traced.row.level == level:
                yield _line(traced)


def _line(traced: Traced) -> str:
    told = traced.told.replace("|", "\\|").replace("\n", " ")
    return f"| `{traced.row.id}` | {traced.row.adopt} | {traced.how} | {told} |"
