"""A report in words: what a person wants to know, in the order they want to know it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from aiproxy.conformance.grading import NOT_MEASURED, PROVEN, Step
from aiproxy.conformance.report import Report, suite_version
from aiproxy.conformance.results import DEPENDENCY, SETUP, Result, Status
from aiproxy.conformance.scoring import OBSERVE

_WIDTH: Final = 200
_MOST_OF_A_STATUS: Final = 20


def verdict(report: Report) -> str:
    """Return the outcome in one line."""
    if report.unreachable:
        return f"unreachable: {report.unreachable}"
    if report.partial:
        return f"{_chosen(report)}; that is no grade"
    grade = report.grade
    told = [f"level {grade.level} proven" if grade.level else "no level proven"]
    if grade.warnings:
        told[0] += f", {_several(grade.warnings, 'warning')}"
    following = [step for step in grade.steps if step.level > grade.level]
    measured = [step for step in following if step.state != NOT_MEASURED]
    for step in measured:
        why = f" ({_listed(step.blocking)})" if step is measured[0] and step.blocking else ""
        told.append(f"level {step.level} {step.state}{why}")
    told += _unmeasured(report)
    if grade.level < report.asked and following[0].state == NOT_MEASURED and grade.level:
        told.append(f"level {report.asked} was asked for and is not")
    return "; ".join(told)


def _chosen(report: Report) -> str:
    """Return what became of the chosen checks; one that was not run is no check that holds."""
    every = _several(len(report.results), "chosen check")
    skipped = [result for result in report.results if result.status is Status.NOT_RUN]
    if report.idle:
        reasons = dict.fromkeys(result.reason for result in skipped)
        return f"nothing was looked at: {'; '.join(reasons) or 'none was chosen'}"
    unrun = f", {len(skipped)} not run ({skipped[0].reason})" if skipped else ""
    return f"{len(report.red)} of {every} red{unrun}"


def _unmeasured(report: Report) -> list[str]:
    levels = [s.level for s in report.grade.steps if s.state == NOT_MEASURED]
    return [f"{_span(levels)} not measured"] if levels else []


def _span(levels: Sequence[int]) -> str:
    if len(levels) == 1:
        return f"level {levels[0]}"
    if len(levels) == levels[-1] - levels[0] + 1:
        return f"levels {levels[0]}-{levels[-1]}"
    return f"levels {', '.join(map(str, levels))}"


def step_lines(report: Report) -> Iterator[str]:
    """Yield a line for each measured level and one for those that were not."""
    for measured, group in groupby(report.grade.steps, lambda step: step.state != NOT_MEASURED):
        if measured:
            yield from (_step_line(report, step) for step in group)
        elif not report.partial:
            levels = [step.level for step in group]
            yield f"{_span(levels)}: not measured; {_why_not(report, levels[0])}"


def _why_not(report: Report, level: int) -> str:
    if report.mode == OBSERVE:
        return f"mode {OBSERVE} has no control of the upstreams"
    return "no check of it was run" if level <= report.asked else "not asked for"


def profile_line(report: Report) -> str:
    """Return the profiles beside the level in one line."""
    told = []
    for profile in report.profiles:
        count = f" ({profile.held} of {profile.scored})" if profile.state != NOT_MEASURED else ""
        told.append(f"{profile.name} {profile.state.replace('-', ' ')}{count}")
    return f"profiles: {', '.join(told)}"


def baseline_lines(report: Report) -> Iterator[str]:
    """Yield what the baseline makes of the run; nothing without one."""
    if report.baseline is None:
        return
    compared = report.compared
    yield f"baseline {report.baseline.file}: {len(compared.known)} failed as expected"
    if compared.unexpected:
        yield f"  not expected: {_listed(compared.unexpected)}"
    if compared.stale:
        yield f"  expected to fail, and holds (remove it): {_listed(compared.stale)}"


def _step_line(report: Report, step: Step) -> str:
    if report.mode == OBSERVE and step.level > 1:
        return f"level {step.level}: refuted by {_listed(step.blocking)}"
    line = f"level {step.level}: {step.state}, {step.held} of {step.scored} scored checks hold"
    if step.blocking:
        return f"{line}; in the way: {_listed(step.blocking)}"
    return line if step.state == PROVEN else f"{line}; level {report.grade.level + 1} comes first"


def summary(report: Report, again: str, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines of the terminal summary.

    ``again`` is the command that repeats one check, with ``{check}`` where its id goes.
    """
    yield f"AIProxy conformance {suite_version()}  {report.target}"
    yield f"mode: {report.mode}  seed: {report.seed}{_worlds(report)}"
    yield ""
    for world in report.worlds:
        if world.fault:
            yield f"SETUP         world {world.name}: {_cut(world.fault)}"
    for status in (s for s in Status if s not in (Status.PASS, Status.NOT_RUN)):
        yield from _of_status(report, status, verbose)
    if verbose:
        yield from _bytes(report)
    news = report.compared.unexpected
    if news:
        yield ""
        first = next((name for name in report.grade.blocking if name in news), news[0])
        yield f"again, with the bytes of both sides: {again.replace('{check}', first)}"
    yield ""
    if not report.partial:
        yield from step_lines(report)
        yield profile_line(report)
    yield from baseline_lines(report)
    repeated = sum(world.repeated for world in report.worlds)
    if repeated:
        yield f"{repeated} repeated, for this machine stood still: a quieter one gives a firmer word"
    yield (
        f"{_counted(report)}; {len(report.exchanges)} of at most {report.budget} requests "
        f"in {report.seconds:.1f} of at most {report.limit_s:g} s"
    )
    yield f"RESULT: {verdict(report)}"


def _worlds(report: Report) -> str:
    names = [world.name for world in report.worlds]
    return f"  worlds: {_listed(names)}" if names else ""


def _of_status(report: Report, status: Status, verbose: bool) -> Iterator[str]:
    own = [r for r in report.results if r.status is status and not r.derived_from]
    own.sort(key=lambda result: result.level)
    behind = {} if verbose else _behind(own)
    shown = [result for result in own if result.reason not in behind]
    most = len(shown) if verbose else _MOST_OF_A_STATUS
    for result in shown[:most]:
        yield from _told(result, known=result.check in report.compared.known)
    if len(shown) > most:
        yield f"{status.upper():<13} and {len(shown) - most} more; the report files have them all"
    faults = [world.fault for world in report.worlds if world.fault]
    for reason, names in behind.items():
        told = any(fault in reason for fault in faults)  # in full above, beside its world
        yield f"{status.upper():<13} {_listed(names)}"
        yield f"{'':<13} {reason.partition(': ')[0] if told else _cut(reason)}"


def _behind(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the checks that one and the same thing kept from being looked at, by its reason."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.cause in (DEPENDENCY, SETUP):
            reasons.setdefault(result.reason, []).append(result.check)
    return reasons


def _told(result: Result, *, known: bool) -> Iterator[str]:
    yield f"{result.status.upper():<13} {result.check:<15} {result.title}"
    reason = _cut(result.reason)
    if known:
        reason = f"(expected by the baseline) {reason}"
    if result.status is Status.HARNESS_ERROR:
        reason += " (a fault of the suite, not of the target)"
    if reason:
        yield f"{'':<13} {reason}"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"


def _bytes(report: Report) -> Iterator[str]:
    for exchange in report.exchanges:
        yield f"--- exchange {exchange.label}: the client and the target ---"
        yield from (f"> {line}" for line in exchange.request.splitlines())
        yield from (f"< {line}" for line in exchange.response.splitlines())
        for number, seen in enumerate(exchange.upstream, 1):
            yield f"--- exchange {exchange.label}: behind the target, {number} ---"
            yield from (f"| {line}" for line in seen.splitlines())


def _counted(report: Report) -> str:
    told = []
    for status in Status:
        count = sum(r.status is status and not r.derived_from for r in report.results)
        if count:
            told.append(f"{count} {status}")
    return ", ".join(told) or "nothing ran"


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:4])
    return f"{shown} and {len(ids) - 4} more" if len(ids) > 4 else shown
