"""One run: the checks in order, their dependencies, and what becomes of a target that breaks."""

import random
import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import Check, Scenario, catalogue
from aiproxy.conformance.grading import Grade, grade
from aiproxy.conformance.redaction import Redactor, public_url
from aiproxy.conformance.results import RED, Finding, Result, Status, settle
from aiproxy.conformance.scoring import derived, may_fail, not_observed, rows, scored

if TYPE_CHECKING:
    from aiproxy.conformance.endpoint import Exchange

MODE: Final = "observe"
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3
_MOST_SEED: Final = 1 << 32


class UnknownCheck(ValueError):
    """A check id was asked for that this suite does not have."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. ``checks`` limits the run to these ids and what they depend on.

    ``budget`` bounds the requests of the run, ``timeout_s`` each of them, ``limit_s`` all together.
    """

    level: int = 1
    seed: int | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    checks: tuple[str, ...] = ()
    budget: int = 200
    timeout_s: float = 30.0
    limit_s: float = 600.0
    command: str = ""


def fresh_seed() -> int:
    """Return a seed nobody has chosen."""
    return secrets.randbelow(_MOST_SEED)


def suite_version() -> str:
    """Return the version of the installed suite."""
    try:
        return metadata.version("aiproxy")
    except metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True)
class Report:
    """Everything a run found. ``unreachable`` holds the reason when there was nothing to grade."""

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
    mode: str = MODE

    @cached_property
    def grade(self) -> Grade:
        """The level these results add up to."""
        return grade(self.results, scored())

    @property
    def red(self) -> tuple[Result, ...]:
        """The results that are somebody's to mend."""
        return tuple(r for r in self.results if r.status in RED and not r.derived_from)

    @property
    def exit_code(self) -> int:
        """0 the level asked for is proven and nothing is red, 1 not so, 3 unreachable.

        A run of chosen checks only grades nothing, so only their own outcome counts.
        """
        if self.unreachable:
            return EXIT_UNREACHABLE
        if self.red or not (self.partial or self.grade.level >= self.asked):
            return EXIT_FAILED
        return EXIT_OK


class Session:
    """The state of a run. ``result_of`` runs what is needed for one check, each scenario once."""

    def __init__(self, target: str, options: Options, *, prefix: str = "") -> None:
        """Open a session.

        Raises:
            UnusableUrl: the target is not a URL. UnknownCheck: no such check id.
        """
        from aiproxy.conformance.endpoint import Endpoint
        from aiproxy.conformance.probe import Facts

        self.seed = fresh_seed() if options.seed is None else options.seed
        self.options = options
        self.asked = chosen(options)
        self.endpoint: Endpoint = Endpoint(
            target,
            api_key=options.api_key,
            budget=options.budget,
            timeout_s=options.timeout_s,
            limit_s=options.limit_s,
            prefix=prefix,
        )
        self.facts: Facts = Facts()
        self.results: dict[str, Result] = {}
        self.started = datetime.now(UTC)
        self._begun = time.monotonic()
        self._homes = {row.id: scenario for scenario in catalogue() for row in scenario.checks}
        self._redact = Redactor((options.api_key,) if options.api_key else ())

    def result_of(self, check_id: str) -> Result:
        """Return the result of ``check_id``, running its scenario when it has not run yet."""
        if check_id not in self.results:
            self._run(self._homes[check_id])
        return self.results[check_id]

    def report(self, *, unreachable: str = "") -> Report:
        """Return the report of what was asked for; unasked dependencies stay out of it."""
        asked = {row.id for row in self.asked}
        measured = {name: result for name, result in self.results.items() if name in asked}
        return assemble(
            self.endpoint.url,
            self.options,
            self.seed,
            measured,
            tuple(self.endpoint.exchanges),
            self.started,
            time.monotonic() - self._begun,
            unreachable,
        )

    def _run(self, scenario: Scenario) -> None:
        spent, begun = self.endpoint.spent, time.monotonic()
        findings = self._findings(scenario)
        took, requests = time.monotonic() - begun, self.endpoint.spent - spent
        for row in scenario.checks:
            own = tuple(finding for finding in findings if finding.check == row.id)
            self.results[row.id] = _result(row, own, requests, round(took, 4))

    def _findings(self, scenario: Scenario) -> list[Finding]:
        from aiproxy.conformance.endpoint import BudgetSpent, Throttled
        from aiproxy.conformance.probe import NotTestable, Probe
        from aiproxy.conformance.transport import Unanswered

        for needed in scenario.depends_on:
            before = self.result_of(needed)
            if before.blocks:
                reason = f"{needed} is {before.status}"
                return [Finding(row.id, Status.NOT_TESTABLE, reason) for row in scenario.checks]
        probe = Probe(
            self.endpoint,
            self.facts,
            random.Random(f"{self.seed}:{scenario.name}"),  # noqa: S311 (not for secrets)
            self.options.model,
        )
        found: list[Finding] = []
        try:
            for finding in scenario.look(probe):
                found.append(self._clean(finding))
        except NotTestable as missing:
            found += _rest(scenario, found, Status.NOT_TESTABLE, str(missing))
        except BudgetSpent as spent:
            found += _rest(scenario, found, Status.NOT_RUN, str(spent))
        except Throttled as limited:
            found += _rest(scenario, found, Status.INCONCLUSIVE, str(limited))
        except Unanswered as silence:
            found += self._blame(scenario, found, silence.reason)
        except Exception as bug:  # noqa: BLE001 a fault of ours must never look like the target's
            reason = f"the check itself broke: {type(bug).__name__}: {bug}"
            found += _rest(scenario, found, Status.HARNESS_ERROR, self._redact.text(reason))
        return found

    def _blame(self, scenario: Scenario, found: list[Finding], reason: str) -> list[Finding]:
        """Tell a request that was not answered from a target that is gone."""
        from aiproxy.conformance.endpoint import BudgetSpent, Throttled

        try:
            gone = self.endpoint.fault()
        except (BudgetSpent, Throttled):
            gone = ""
        if gone:
            return _rest(scenario, found, Status.UNREACHABLE, gone)
        silent = list(_rest(scenario, found, Status.NOT_TESTABLE, "an earlier step got no answer"))
        if silent:
            silent[0] = Finding(
                silent[0].check, Status.FAIL, "an answer", "one", reason, blocks=True
            )
        return silent

    def _clean(self, finding: Finding) -> Finding:
        return replace(finding, found=self._redact.text(finding.found))


def _rest(scenario: Scenario, found: list[Finding], status: Status, reason: str) -> list[Finding]:
    """Return one finding for each check of ``scenario`` that has none yet."""
    spoken = {finding.check for finding in found}
    return [
        Finding(row.id, status, reason, blocks=True)
        for row in scenario.checks
        if row.id not in spoken
    ]


def _result(row: Check, findings: tuple[Finding, ...], requests: int, seconds: float) -> Result:
    if not may_fail(row):
        findings = tuple(_softened(finding) for finding in findings)
    status, reason = settle(findings)
    return Result(
        row.id, row.level, row.keyword, row.title, row.clause, status,
        row.id in scored().get(row.level, ()), reason, findings, (), requests, seconds,
    )  # fmt: skip


def _softened(finding: Finding) -> Finding:
    """A SHOULD, and a rule of our own house, warns where a MUST fails."""
    if finding.status is Status.FAIL:
        return replace(finding, status=Status.WARN)
    return finding


def chosen(options: Options) -> tuple[Check, ...]:
    """Return the checks that ``options`` ask for, in the order they run.

    Raises:
        UnknownCheck: an id is not among the suite's; the message names close ones.
    """
    if not options.checks:
        return rows(options.level)
    every = {row.id: row for scenario in catalogue() for row in scenario.checks}
    for name in options.checks:
        if name not in every:
            close = get_close_matches(name, every, 3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise UnknownCheck(f"no check {name!r} in mode {MODE}{hint}")
    return tuple(row for name, row in every.items() if name in options.checks)


def assemble(
    target: str,
    options: Options,
    seed: int,
    measured: dict[str, Result],
    exchanges: tuple["Exchange", ...],
    started: datetime,
    seconds: float,
    unreachable: str = "",
) -> Report:
    """Return the report of ``measured``, with the derived and the unobserved results added."""
    partial = bool(options.checks)
    results = [*measured.values()]
    if not unreachable and not partial:
        results += [*derived(measured), *not_observed(options.level)]
    return Report(
        public_url(target),
        seed,
        options.level,
        tuple(results),
        exchanges,
        started.isoformat(timespec="seconds"),
        round(seconds, 3),
        options.budget,
        Redactor((options.api_key,) if options.api_key else ()).text(options.command),
        partial,
        unreachable,
    )


def run(url: str, options: Options | None = None) -> Report:
    """Grade the endpoint at ``url`` and return what was found.

    Raises:
        UnusableUrl: ``url`` is not an http or https URL. UnknownCheck: no such check id.
        ModuleNotFoundError: the extra ``aiproxy[conformance]`` is not installed.
    """
    session = Session(url, options or Options())
    try:
        unreachable = session.endpoint.fault()
        if not unreachable:
            for row in session.asked:
                session.result_of(row.id)
        return session.report(unreachable=unreachable)
    finally:
        session.endpoint.close()
