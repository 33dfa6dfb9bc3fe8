"""One run: the checks in order, their dependencies, and what becomes of a target that breaks."""

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import Check, Scenario
from aiproxy.conformance.options import Options, fresh_seed
from aiproxy.conformance.planning import UnknownCheck, chosen, home, plan, with_needed, world_of
from aiproxy.conformance.pulse import Pulse
from aiproxy.conformance.redaction import Redactor, public_url
from aiproxy.conformance.report import Report, WorldRun, cleaned
from aiproxy.conformance.results import DEPENDENCY, SETUP, Finding, Result, Status, settle
from aiproxy.conformance.scoring import OBSERVE, derived, may_fail, not_observed, scored

if TYPE_CHECKING:
    from aiproxy.conformance.endpoint import Exchange
    from aiproxy.conformance.staging import NotStaged, Stage

#: How often a scenario is run again, and all of a run together, when the machine stood still.
_REPEATS: Final = 2
_MOST_REPEATS: Final = 20
_DOUBTFUL: Final = frozenset({Status.FAIL, Status.WARN, Status.INCONCLUSIVE})

__all__ = ["Options", "Session", "UnknownCheck", "assemble", "chosen", "fresh_seed", "run"]


class Session:
    """The state of a run. ``result_of`` runs what is needed for one check, each scenario once.

    ``dead`` says why there is nothing to grade, if so.
    """

    def __init__(self, target: str, options: Options, *, prefix: str = "") -> None:
        """Open a session; ``target`` is empty when the run starts the target itself.

        Raises:
            UnusableUrl: the target is not a URL. UnknownCheck: no such check id.
            ValueError: no such form of configuration.
        """
        from aiproxy.conformance.worlds import Worlds

        self.seed = fresh_seed() if options.seed is None else options.seed
        self.options = options
        self.mode = options.resolved_mode
        self.asked = chosen(options)
        self.results: dict[str, Result] = {}
        self.started = datetime.now(UTC)
        self._begun = time.monotonic()
        self._plan = plan(self.asked, self.mode)
        self._worlds = Worlds(target, options, self.seed, self._plan, prefix)
        self._redact = Redactor(options.secrets)
        self._pulse = Pulse()
        self._repeats = 0
        self.expect(row.id for row in self.asked)

    @property
    def dead(self) -> str:
        """Why nothing can be graded: the first world could not be set up."""
        return self._worlds.dead

    @property
    def url(self) -> str:
        """The URL of the target, in its first world when there are several."""
        return self._worlds.url

    @property
    def exchanges(self) -> tuple["Exchange", ...]:
        """All requests so far with both their sides, in the order of their worlds."""
        return self._worlds.exchanges()

    @property
    def world_runs(self) -> tuple[WorldRun, ...]:
        """What became of each world so far."""
        return self._worlds.runs()

    def expect(self, checks: Iterable[str]) -> None:
        """Say which checks will be asked for, so that their worlds can be started ahead."""
        self._worlds.expected = [world_of(home()[name], self.mode).name for name in checks]

    def close(self) -> None:
        """Stop the target, the fakes and what runs in the background."""
        self._pulse.stop()
        self._worlds.close()

    def result_of(self, check_id: str) -> Result:
        """Return the result of ``check_id``, running its scenario when it has not run yet."""
        if check_id not in self.results:
            self._run(home()[check_id])
        return self.results[check_id]

    def report(self) -> Report:
        """Return the report of what was asked for; unasked dependencies stay out of it."""
        asked = {row.id for row in self.asked}
        measured = {name: result for name, result in self.results.items() if name in asked}
        return assemble(
            self._worlds.url,
            replace(self.options, seed=self.seed),
            measured,
            self.exchanges,
            self.started,
            time.monotonic() - self._begun,
            self.dead,
            self.world_runs,
        )

    def _run(self, scenario: Scenario) -> None:
        """Run ``scenario`` after what it needs; what other worlds lend is run there at once."""
        for needed in with_needed((scenario,)):
            if self._done(needed):
                continue
            world = world_of(needed, self.mode).name
            if world != world_of(scenario, self.mode).name:
                for lent in self._plan.lent.get(world, (needed,)):
                    if not self._done(lent):
                        self._look(lent)
            if not self._done(needed):
                self._look(needed)

    def _done(self, scenario: Scenario) -> bool:
        return all(row.id in self.results for row in scenario.checks)

    def _look(self, scenario: Scenario) -> None:
        begun = time.monotonic()
        world = world_of(scenario, self.mode).name
        spent = self._worlds.allowance.spent
        findings = self._undisturbed(scenario)
        took, requests = time.monotonic() - begun, self._worlds.allowance.spent - spent
        self._worlds.count(world, requests, took)
        for row in scenario.checks:
            own = tuple(finding for finding in findings if finding.check == row.id)
            self.results[row.id] = _result(row, own, requests, round(took, 4), world, self.mode)

    def _undisturbed(self, scenario: Scenario) -> list[Finding]:
        """Return what a scenario finds. What it holds against the target while the machine stands
        still is not believed: it runs again, in front of a target that has seen nothing."""
        self._pulse.start()
        self._pulse.take()
        found = self._findings(scenario)
        for _ in range(_REPEATS):
            doubtful = any(finding.status in _DOUBTFUL for finding in found)
            if not doubtful or self._repeats >= _MOST_REPEATS or not self._pulse.take():
                break
            if not self._worlds.renew(world_of(scenario, self.mode)):
                break
            self._repeats += 1
            anew = self._findings(scenario)
            if any(finding.status is Status.NOT_RUN for finding in anew):
                break  # the run's requests or its time are spent: nothing better was learnt
            found = anew
        return found

    def _findings(self, scenario: Scenario) -> list[Finding]:
        lacking = [row for row in scenario.checks if self._lacks(row)]
        found = [_unsupported(row) for row in lacking]
        if len(lacking) == len(scenario.checks):
            return found
        for needed in scenario.depends_on:
            before = self.results[needed]
            if before.blocks:
                reason = f"{needed} is {before.status}"
                return found + _rest(scenario, found, Status.NOT_TESTABLE, reason, DEPENDENCY)
        from aiproxy.conformance.rig.guard import HarnessFault
        from aiproxy.conformance.staging import NotStaged

        try:
            stage = self._worlds.enter(world_of(scenario, self.mode))
        except NotStaged as fault:
            status = Status.NOT_RUN if fault.missing else Status.NOT_TESTABLE
            reason = self._redact.text(f"{self._where(scenario, fault)}: {fault}")
            return found + _rest(scenario, found, status, reason, SETUP)
        except HarnessFault as ours:
            reason = self._redact.text(str(ours))
            return found + _rest(scenario, found, Status.HARNESS_ERROR, reason)
        return self._looked(scenario, stage, found)

    def _looked(self, scenario: Scenario, stage: "Stage", known: list[Finding]) -> list[Finding]:
        """Return ``known`` and what the scenario found; only its own fault is a harness error."""
        from aiproxy.conformance.bothsides import fill_in
        from aiproxy.conformance.endpoint import BudgetSpent, Throttled
        from aiproxy.conformance.probe import NotTestable, Probe
        from aiproxy.conformance.rig.rendering import unsaid
        from aiproxy.conformance.transport import Unanswered

        found, lacking = list(known), {finding.check for finding in known}
        if stage.gone:
            return found + _rest(scenario, found, Status.UNREACHABLE, stage.gone)
        missing = unsaid(self.options.config_for, stage.cast_of(scenario.name))
        if missing:
            return found + _rest(scenario, found, Status.NOT_TESTABLE, missing, SETUP)
        stage.configure(scenario.name)
        probe = Probe(
            stage.endpoint,
            stage.facts,
            random.Random(f"{self.seed}:{scenario.name}"),  # noqa: S311 (not for secrets)
            stage.asked_model or self.options.model,
            behind=stage.behind(scenario, self.seed),
            target=self.options.target,
        )
        before = len(stage.endpoint.exchanges)
        try:
            for finding in scenario.look(probe):
                if finding.check not in lacking:
                    found.append(self._clean(finding))
        except NotTestable as lack:
            found += _rest(scenario, found, Status.NOT_TESTABLE, str(lack), SETUP)
        except BudgetSpent as spent:
            found += _rest(scenario, found, Status.NOT_RUN, str(spent))
        except Throttled as limited:
            found += _rest(scenario, found, Status.INCONCLUSIVE, str(limited))
        except Unanswered as silence:
            found += self._blame(scenario, stage, found, silence.reason)
        except Exception as bug:  # noqa: BLE001 a fault of ours must never look like the target's
            reason = f"the check itself broke: {type(bug).__name__}: {bug}"
            found += _rest(scenario, found, Status.HARNESS_ERROR, self._redact.text(reason))
        if stage.upstreams is not None:
            fill_in(stage.endpoint, before, stage.upstreams.attempts)
        return self._founded(scenario, stage, found, before)

    def _founded(
        self, scenario: Scenario, stage: "Stage", found: list[Finding], before: int
    ) -> list[Finding]:
        """Return ``found`` without failures that only repeat that of a means they were seen by."""
        from aiproxy.conformance import instruments

        own = {row.id for row in scenario.checks}
        failed = any(finding.status is Status.FAIL for finding in found)
        if self.mode == OBSERVE or not failed or own & set(instruments.PROOFS):
            return found
        asked = zip(stage.endpoint.answers[before:], stage.endpoint.sent[before:], strict=True)
        means = {reply.label: instruments.used(sent) for reply, sent in asked}
        proofs = {proof for some in means.values() for proof in some}
        broken = [
            proof for proof in instruments.PROOFS
            if proof in proofs and self.result_of(proof).status is Status.FAIL
        ]  # fmt: skip
        told = (instruments.stands_on(finding, means, broken) for finding in found)
        return list(dict.fromkeys(told))

    def _blame(
        self, scenario: Scenario, stage: "Stage", found: list[Finding], reason: str
    ) -> list[Finding]:
        """Tell a request that was not answered from a target that is gone."""
        from aiproxy.conformance.endpoint import BudgetSpent

        try:
            gone = stage.endpoint.fault()
        except BudgetSpent:
            gone = ""
        if gone:
            stage.gone = self._redact.text(stage.end())
            return _rest(scenario, found, Status.UNREACHABLE, stage.gone or gone)
        reason_then = "an earlier step got no answer"
        silent = _rest(scenario, found, Status.NOT_TESTABLE, reason_then, DEPENDENCY)
        if silent:
            silent[0] = Finding(
                silent[0].check, Status.FAIL, "an answer", "one", reason, blocks=True
            )
        return silent

    def _lacks(self, row: Check) -> bool:
        return bool(row.feature) and self.options.target.features.get(row.feature) is False

    def _where(self, scenario: Scenario, fault: "NotStaged") -> str:
        name = world_of(scenario, self.mode).name
        if self.options.worlds or fault.untold:
            return f"world {name}"
        return f"the target did not start in world {name}" if name else "the target did not start"

    def _clean(self, finding: Finding) -> Finding:
        return replace(finding, found=self._redact.text(finding.found))


def _unsupported(row: Check) -> Finding:
    reason = f"the target's manifest says that it lacks {row.feature}"
    return Finding(row.id, Status.UNSUPPORTED, reason)


def _rest(
    scenario: Scenario, found: list[Finding], status: Status, reason: str, cause: str = ""
) -> list[Finding]:
    """Return one finding for each check of ``scenario`` that has none yet."""
    spoken = {finding.check for finding in found}
    return [
        Finding(row.id, status, reason, blocks=True, cause=cause)
        for row in scenario.checks
        if row.id not in spoken
    ]


def _result(
    row: Check,
    findings: tuple[Finding, ...],
    requests: int,
    seconds: float,
    world: str,
    mode: str,
) -> Result:
    if not may_fail(row):
        findings = tuple(_softened(finding) for finding in findings)
    status, reason = settle(findings)
    return Result(
        row.id, row.level, row.keyword, row.title, row.clause, status,
        row.id in scored(mode).get(row.level, ()), reason, findings, (), requests, seconds, world,
    )  # fmt: skip


def _softened(finding: Finding) -> Finding:
    """A SHOULD, and a rule of our own house, warns where a MUST fails."""
    if finding.status is Status.FAIL:
        return replace(finding, status=Status.WARN)
    return finding


def assemble(
    target: str,
    options: Options,
    measured: dict[str, Result],
    exchanges: tuple["Exchange", ...],
    started: datetime,
    seconds: float,
    unreachable: str = "",
    worlds: tuple[WorldRun, ...] = (),
) -> Report:
    """Return the report of ``measured``, with the derived and the unobserved results added."""
    from aiproxy.conformance.baseline import Baseline

    partial = bool(options.checks)
    results = [*measured.values()]
    mode = options.resolved_mode
    if not unreachable and not partial:
        results += [*derived(measured), *not_observed(options.level, mode)]
    report = Report(
        public_url(target),
        options.seed or 0,
        options.level,
        tuple(results),
        exchanges,
        started.isoformat(timespec="seconds"),
        round(seconds, 3),
        options.most_requests,
        options.command,
        partial,
        unreachable,
        mode,
        worlds,
        options.target,
        Baseline(options.baseline, options.expected) if options.baseline else None,
        options.profile,
        options.limit_s,
    )
    return cleaned(report, Redactor(options.secrets))


def run(url: str, options: Options | None = None) -> Report:
    """Grade the endpoint at ``url``, or the one that ``options`` start, and say what was found.

    Raises:
        UnusableUrl: ``url`` is not an http or https URL. UnknownCheck: no such check id.
        ModuleNotFoundError: the extra ``aiproxy[conformance]`` is not installed.
    """
    session = Session(url, options or Options())
    try:
        for row in session.asked:
            session.result_of(row.id)
            if session.dead:
                break
        return session.report()
    finally:
        session.close()
