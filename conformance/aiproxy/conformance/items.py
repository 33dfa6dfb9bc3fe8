"""The run as pytest items. Imported by the plugin only when a target is named.

The items are not Python test functions: no conftest can reach them with an autouse fixture. With
pytest-xdist each worker measures what it is given (and what that depends on) and the results
travel on the test reports; the controller puts them together.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import pytest

from aiproxy.conformance.checks import Check
from aiproxy.conformance.endpoint import Endpoint, Exchange, UnusableUrl, base_url
from aiproxy.conformance.redaction import public_url
from aiproxy.conformance.reporting import write
from aiproxy.conformance.results import Result, Status, result_from_json
from aiproxy.conformance.running import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Options,
    Report,
    Session,
    UnknownCheck,
    assemble,
    chosen,
    fresh_seed,
)
from aiproxy.conformance.scoring import LEVELS_FILE
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

    def __init__(self, target: str, options: Options, folder: Path | None, worker: str) -> None:
        self.target, self.options, self.folder, self.worker = target, options, folder, worker
        self.again = (
            f"pytest --target {public_url(target)} --check {{check}} --seed {options.seed} -v"
        )
        self._session: Session | None = None
        self._results: dict[str, Result] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._sent = 0
        self._started = datetime.now(UTC)

    @classmethod
    def prepared(cls, config: pytest.Config) -> Self:
        """Return the grading of the controller, once the target has answered.

        Raises:
            Refused: an option makes no sense, or nothing answers at the target.
        """
        target, options = str(config.getoption("aiproxy_target")), _options(config)
        try:
            url = base_url(target)
            chosen(options)
        except (UnusableUrl, UnknownCheck) as fault:
            raise Refused(EXIT_USAGE, str(fault)) from None
        endpoint = Endpoint(url, api_key=options.api_key)
        try:
            fault_text = endpoint.fault()
        finally:
            endpoint.close()
        if fault_text:
            raise Refused(EXIT_UNREACHABLE, f"{public_url(url)} is unreachable: {fault_text}")
        _only_ours(config)
        folder = config.getoption("aiproxy_report_dir")
        return cls(url, options, Path(folder).absolute() if folder else None, "")

    @classmethod
    def joined(cls, config: Any) -> Self:
        """Return the grading of a worker; its options came with the controller's."""
        _only_ours(config)
        given = config.workerinput
        options = Options(**{**given[_CARRIED], "checks": tuple(given[_CARRIED]["checks"])})
        target = base_url(config.getoption("aiproxy_target"))
        return cls(target, options, None, f"{given['workerid']}-")

    @property
    def session(self) -> Session:
        """The run itself, opened with the first item."""
        if self._session is None:
            self._session = Session(self.target, self.options, prefix=self.worker)
        return self._session

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker of pytest-xdist the options: it parses the command line for itself only."""
        node.workerinput[_CARRIED] = _fields(self.options)

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

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        """Put the result and the new exchanges on the report, where xdist carries them along."""
        report: Any = yield
        if isinstance(item, RequirementItem) and report.when == "call" and item.result is not None:
            fresh = self.session.endpoint.exchanges[self._sent :]
            self._sent += len(fresh)
            report.aiproxy_result = item.result.as_json()
            report.aiproxy_exchanges = [exchange.as_json() for exchange in fresh]
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Gather what the items found, on whichever process they ran."""
        data = getattr(report, "aiproxy_result", None)
        if data is None:
            return
        result = result_from_json(data)
        self._results[result.check] = result
        exchanges = (Exchange(**exchange) for exchange in report.aiproxy_exchanges)
        self._exchanges.update((exchange.label, exchange) for exchange in exchanges)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Close the target; let the grade decide what pytest alone would call a success."""
        if self._session is not None:
            self._session.endpoint.close()
        if self.worker or exitstatus not in (EXIT_OK, EXIT_FAILED):
            return
        report = self.report()
        session.exitstatus = report.exit_code
        if self.folder is not None:
            write(report, self.folder)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the summary that a person reads."""
        if self.worker or not self._results:
            return
        terminalreporter.section("AIProxy")
        verbose = bool(self.options.checks) and config.get_verbosity() > 0
        report = self.report()
        for line in summary(report, self.again, verbose=verbose):
            terminalreporter.write_line(line)

    def report(self) -> Report:
        """Return the report; it is partial after -k or -m."""
        rows = chosen(self.options)
        measured = {row.id: self._results[row.id] for row in rows if row.id in self._results}
        seconds = (datetime.now(UTC) - self._started).total_seconds()
        partial = self.options.checks or tuple(measured) * (len(measured) < len(rows))
        # Each worker of pytest-xdist has the budget for itself, because it repeats dependencies.
        workers = len({label.partition("-")[0] for label in self._exchanges if "-" in label}) or 1
        budget = self.options.budget * workers
        options = Options(**{**_fields(self.options), "checks": partial, "budget": budget})
        return assemble(
            self.target,
            options,
            self.options.seed or 0,
            measured,
            tuple(self._exchanges.values()),
            self._started,
            seconds,
        )


def _fields(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _options(config: pytest.Config) -> Options:
    key = config.getoption("aiproxy_api_key") or os.environ.get("AIPROXY_API_KEY") or None
    return Options(
        level=_number(config, "level", 1, range(1, 6)),
        seed=_number(config, "seed", fresh_seed(), range(1 << 32)),
        api_key=key,
        model=config.getoption("aiproxy_model"),
        checks=tuple(config.getoption("aiproxy_check") or ()),
        command=" ".join(("pytest", *config.invocation_params.args)),
    )


def _number(config: pytest.Config, name: str, default: int, allowed: range) -> int:
    given = config.getoption(f"aiproxy_{name}")
    if given is None:
        return default
    text = str(given)
    if text.isdecimal() and int(text) in allowed:
        return int(text)
    raise Refused(
        EXIT_USAGE, f"--{name} {text!r}: a number from {allowed[0]} to {allowed[-1]} is needed"
    )


def _only_ours(config: pytest.Config) -> None:
    """Collect our items and nothing else, unless the command line names paths of its own."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(LEVELS_FILE)]
