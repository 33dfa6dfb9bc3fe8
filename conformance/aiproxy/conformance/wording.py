"""A report in words: what a person wants to know, in the order they want to know it."""

from collections.abc import Iterator

from aiproxy.conformance.grading import Step
from aiproxy.conformance.results import Result, Status
from aiproxy.conformance.running import Report, suite_version

_WIDTH = 200


def verdict(report: Report) -> str:
    """Return the outcome in one line."""
    if report.unreachable:
        return f"unreachable: {report.unreachable}"
    if report.partial:
        red = len(report.red)
        return f"{red} of {_several(len(report.results), 'chosen check')} red; that is no grade"
    grade = report.grade
    warned = f", {_several(grade.warnings, 'warning')}" if grade.warnings else ""
    if 0 < grade.level < report.asked:
        return f"level {grade.level} proven{warned}; level {report.asked} was asked for and is not"
    if grade.level:
        return f"level {grade.level} proven{warned}"
    state = grade.steps[0].state
    return f"no level proven: level 1 is {state} ({_listed(grade.steps[0].blocking)}){warned}"


def step_lines(report: Report) -> Iterator[str]:
    """Yield a line for each measured level and one for those that were not."""
    unmeasured = []
    for step in report.grade.steps:
        if step.state == "not-measured":
            unmeasured.append(step.level)
        else:
            yield _step_line(step)
    refuted = sorted({r.level for r in report.red if r.level in unmeasured})
    if unmeasured and not report.partial:
        span = f"level {unmeasured[0]}"
        if len(unmeasured) > 1:
            span = f"levels {unmeasured[0]}-{unmeasured[-1]}"
        yield f"{span}: not measured; mode {report.mode} has no control of the upstreams"
    for level in refuted:
        yield f"level {level}: refuted by {_listed([r.check for r in report.red if r.level == level])}"


def _several(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _step_line(step: Step) -> str:
    line = f"level {step.level}: {step.state}, {step.held} of {step.scored} scored checks hold"
    return f"{line}; in the way: {_listed(step.blocking)}" if step.blocking else line


def summary(report: Report, again: str, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines of the terminal summary.

    ``again`` is the command that repeats one check, with ``{check}`` where its id goes.
    """
    yield (
        f"AIProxy conformance {suite_version()}  {report.target}  "
        f"mode: {report.mode}  seed: {report.seed}"
    )
    yield ""
    for status in (s for s in Status if s not in (Status.PASS, Status.NOT_RUN)):
        for result in report.results:
            if result.status is status and not result.derived_from:
                yield from _told(result)
    if verbose:
        yield from _bytes(report)
    first = next(iter(report.red), None)
    if first is not None:
        yield ""
        command = again.replace("{check}", first.check)
        yield f"again, with the bytes of both sides: {command}"
    yield ""
    if not report.partial:
        yield from step_lines(report)
    yield (
        f"{_counted(report)}; {len(report.exchanges)} of at most {report.budget} requests "
        f"in {report.seconds:.1f} s"
    )
    yield f"RESULT: {verdict(report)}"


def _told(result: Result) -> Iterator[str]:
    yield f"{result.status.upper():<13} {result.check:<15} {result.title}"
    reason = result.reason if len(result.reason) <= _WIDTH else f"{result.reason[:_WIDTH]}…"
    if reason:
        yield f"{'':<13} {reason}"


def _bytes(report: Report) -> Iterator[str]:
    for exchange in report.exchanges:
        yield f"--- exchange {exchange.label} ---"
        yield from (f"> {line}" for line in exchange.request.splitlines())
        yield from (f"< {line}" for line in exchange.response.splitlines())


def _counted(report: Report) -> str:
    told = []
    for status in Status:
        count = sum(r.status is status and not r.derived_from for r in report.results)
        if count:
            told.append(f"{count} {status}")
    return ", ".join(told) or "nothing ran"


def _listed(ids: "tuple[str, ...] | list[str]") -> str:
    shown = ", ".join(ids[:4])
    return f"{shown} and {len(ids) - 4} more" if len(ids) > 4 else shown
