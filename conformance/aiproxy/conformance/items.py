"""The run as pytest items. Imported by the plugin only when a target is named.

The items are not Python test functions: no conftest can reach them with an autouse fixture. With
pytest-xdist each worker measures what it is given (and what that depends on) and the results
travel on the test reports; the controller puts them together.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import pytest

from aiproxy.conformance.asking import Asked, Usage, asked_for
from aiproxy.conformance.checks import Check
from aiproxy.conformance.endpoint import Endpoint, Exchange, exchange_from_json
from aiproxy.conformance.redaction import public_url
from aiproxy.conformance.report import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Report,
    WorldRun,
)
from aiproxy.conformance.reporting import write
from aiproxy.conformance.results import Result, Status, result_from_json
from aiproxy.conformance.running import Options, Session, assemble, chosen
from aiproxy.conformance.scoring import LEVELS_FILE, OBSERVE
from aiproxy.conformance.wording import summary

NODE: Final = "aiproxy"
_CARRIED: Final = "aiproxy_options"
_PASSED: Final = frozenset({Status.PASS, Status.WARN})
_SKIPPED: Final = frozenset({Status.UNSUPPORTED, Status.NOT_RUN, Status.INCONCLUSIVE})


class Refused(Exception):
    """No run can begin; ``status`` is the exit status and ``message`` the only line to print."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Unmet(Exception):
    """A requirement that is not met; pytest shows its text in place of a traceback."""


class RequirementItem(pytest.Item):
    """One check, as pytest counts it."""

    def __init__(self, *, row: Check, grading: "Grading", **others: Any) -> None:
        super().__init__(**others)
        self.row, self.grading = row, grading
        self.result: Result | None = None
        self.add_marker(pytest.mark.level(n=row.level))
        self.extra_keyword_matches.update((row.keyword, f"level{row.level}"))

    def runtest(self) -> None:
        """Measure, and translate the status into pytest's words."""
        self.result = result = self.grading.session.result_of(self.row.id)
        self.user_properties += [("status", result.status.value), ("title", result.title)]
        if result.status is Status.WARN:
            self.user_properties.append(("warning", result.reason))
        if result.status in _SKIPPED:
            pytest.skip(f"{result.status}: {result.reason}")
        if result.status not in _PASSED:
            raise Unmet(f"{result.status}: {result.reason}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what was expected and found, without a traceback when it is the target's doing."""
        if not isinstance(excinfo.value, Unmet):
            return super().repr_failure(excinfo, style)
        again = self.grading.again.replace("{check}", self.row.id)
        return f"{self.row.title} ({self.row.clause})\n{excinfo.value}\nagain: {again}"

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return how pytest names the item in its headings."""
        return self.path, None, f"{self.row.id} {self.row.title}"


class RequirementFile(pytest.File):
    """The frozen level lists as pytest's collection node; holds one item a check."""

    grading: "Grading"

    def collect(self) -> Iterator[RequirementItem]:
        """Yield the items in the order they run."""
        for row in chosen(self.grading.options):
            yield RequirementItem.from_parent(self, name=row.id, row=row, grading=self.grading)


class Grading:
    """The plugin of one graded run: on the controller, or on one worker of pytest-xdist."""

    def __init__(self, asked: Asked, folder: Path | None, worker: str) -> None:
        self.target, self.options, self.folder = asked.url, asked.options, folder
        self.repeat, self.worker = asked.repeat, worker
        self.again = f"pytest {asked.repeat} --check {{check}} --seed {self.options.seed} -v"
        self._session: Session | None = None
        self._results: dict[str, Result] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._worlds: dict[tuple[str, str], WorldRun] = {}
        self._url, self._dead = self.target, dict[str, str]()
        self._unwritten = ""
        self._sent = 0
        self._started = datetime.now(UTC)

    @classmethod
    def prepared(cls, config: pytest.Config) -> Self:
        """Return the grading of the controller, once a target that has a URL has answered.

        Raises:
            Refused: an option makes no sense, or nothing answers at the target.
        """
        try:
            asked = asked_for(_given(config), os.environ, "--target")
        except Usage as fault:
            raise Refused(EXIT_USAGE, str(fault)) from None
        if asked.url and asked.options.resolved_mode == OBSERVE:
            _await_answer(asked)
        _only_ours(config)
        folder = config.getoption("aiproxy_report_dir")
        return cls(asked, Path(folder).absolute() if folder else None, "")

    @classmethod
    def joined(cls, config: Any) -> Self:
        """Return the grading of a worker; its options came with the controller's."""
        _only_ours(config)
        given = config.workerinput[_CARRIED]
        asked = Asked(given["url"], Options.from_plain(given["options"]), given["repeat"])
        return cls(asked, None, f"{config.workerinput['workerid']}-")

    @property
    def session(self) -> Session:
        """The run itself, opened with the first item."""
        if self._session is None:
            self._session = Session(self.target, self.options, prefix=self.worker)
            if self.worker:
                self._session.expect(())  # which items come here is not known
        return self._session

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker of pytest-xdist the options: it parses the command line for itself only."""
        node.workerinput[_CARRIED] = {
            "url": self.target, "options": self.options.as_plain(), "repeat": self.repeat,
        }  # fmt: skip

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare our marker: strict projects demand it."""
        config.addinivalue_line("markers", "level(n): AIProxy compliance level of a requirement")

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> RequirementFile | None:
        """Collect the frozen level lists as our one file."""
        if file_path != LEVELS_FILE:
            return None
        node: RequirementFile = RequirementFile.from_parent(parent, path=file_path, nodeid=NODE)
        node.grading = self
        return node

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep our order, whatever others did: a world is started once and left for good."""
        order = {row.id: place for place, row in enumerate(chosen(self.options))}
        ours = [item for item in items if isinstance(item, RequirementItem)]
        ours.sort(key=lambda item: order[item.row.id])
        rest = iter(ours)
        items[:] = [next(rest) if isinstance(item, RequirementItem) else item for item in items]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start ahead only the worlds of items that were not deselected."""
        ours = [item.row.id for item in session.items if isinstance(item, RequirementItem)]
        if not self.worker and session.config.getoption("dist", "no") == "no" and ours:
            self.session.expect(ours)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        """Put the result and the new exchanges on the report, where xdist carries them along."""
        report: Any = yield
        if isinstance(item, RequirementItem) and report.when == "call" and item.result is not None:
            fresh = self.session.exchanges[self._sent :]
            self._sent += len(fresh)
            report.aiproxy_result = item.result.as_json()
            report.aiproxy_exchanges = [exchange.as_json() for exchange in fresh]
            report.aiproxy_run = {
                "worker": self.worker,
                "seen": (self.session.url, self.session.dead),
                "worlds": [asdict(world) for world in self.session.world_runs],
            }
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Gather what the items found, on whichever process they ran."""
        data = getattr(report, "aiproxy_result", None)
        if data is None:
            return
        result = result_from_json(data)
        self._results[result.check] = result
        exchanges = map(exchange_from_json, report.aiproxy_exchanges)
        self._exchanges.update((exchange.label, exchange) for exchange in exchanges)
        carried = report.aiproxy_run
        self._url, self._dead[carried["worker"]] = carried["seen"]
        for world in (WorldRun(**world) for world in carried["worlds"]):
            self._worlds[carried["worker"], world.name] = world

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the target; let the grade decide what pytest alone would call a success."""
        if self._session is not None:
            self._session.close()
        if self.worker or exitstatus not in (EXIT_OK, EXIT_FAILED):
            return
        if session.config.getoption("collectonly"):
            return
        report = self.report()
        session.exitstatus = report.exit_code
        try:
            if self.folder is not None:
                write(report, self.folder)
        except OSError as fault:
            self._unwritten = f"--report-dir {self.folder}: {fault.strerror}"
            session.exitstatus = EXIT_USAGE

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the summary that a person reads."""
        if self.worker or not self._results:
            return
        terminalreporter.section("AIProxy")
        verbose = bool(self.options.checks) and config.get_verbosity() > 0
        report = self.report()
        for line in summary(report, self.again, verbose=verbose):
            terminalreporter.write_line(line)
        if self._unwritten:
            terminalreporter.write_line(f"aiproxy: {self._unwritten}")

    def report(self) -> Report:
        """Return the report; it is partial after -k or -m."""
        rows = chosen(self.options)
        measured = {row.id: self._results[row.id] for row in rows if row.id in self._results}
        seconds = (datetime.now(UTC) - self._started).total_seconds()
        partial = self.options.checks or tuple(measured) * (len(measured) < len(rows))
        # Each worker of pytest-xdist has the budget for itself, because it repeats dependencies.
        workers = len({label.partition("-")[0] for label in self._exchanges if "-" in label}) or 1
        budget = self.options.most_requests * workers
        dead = next(iter(self._dead.values()), "") if all(self._dead.values()) else ""
        return assemble(
            self._url,
            replace(self.options, checks=partial, budget=budget),
            measured,
            tuple(self._exchanges.values()),
            self._started,
            seconds,
            dead,
            _summed(self._worlds.values()),
        )


def _summed(runs: Iterable[WorldRun]) -> tuple[WorldRun, ...]:
    """Return one entry a world; several workers may have run a part of it each."""
    found: dict[str, WorldRun] = {}
    for run in runs:
        known = found.get(run.name, WorldRun(run.name))
        found[run.name] = WorldRun(
            run.name,
            known.scenarios + run.scenarios,
            known.requests + run.requests,
            round(known.seconds + run.seconds, 3),
            known.fault or run.fault,
            known.repeated + run.repeated,
        )
    return tuple(found.values())


def _given(config: pytest.Config) -> dict[str, Any]:
    """Return what was asked for, by the names that the command line of ours has too."""
    names = (
        "launch", "config_for", "manifest", "mode", "upstreams", "level", "profile", "seed",
        "baseline", "api_key", "model", "check",
    )  # fmt: skip
    given = {name: config.getoption(f"aiproxy_{name}") for name in names}
    command = " ".join(("pytest", *map(str, config.invocation_params.args)))
    return {**given, "url": config.getoption("aiproxy_target"), "command": command}


def _await_answer(asked: Asked) -> None:
    endpoint = Endpoint(asked.url, api_key=asked.options.api_key, headers=asked.options.headers)
    try:
        fault = endpoint.fault()
    finally:
        endpoint.close()
    if fault:
        raise Refused(EXIT_UNREACHABLE, f"{public_url(asked.url)} is unreachable: {fault}")


def _only_ours(config: pytest.Config) -> None:
    """Collect our items and nothing else, unless the command line names paths of its own."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(LEVELS_FILE)]
