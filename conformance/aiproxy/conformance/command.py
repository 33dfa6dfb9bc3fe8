"""The command ``aiproxy conformance URL``: the same run as ``pytest --target URL``."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

KEY_VARIABLE: Final = "AIPROXY_API_KEY"
MISSING_EXTRA: Final = "the conformance suite needs httpx: pip install 'aiproxy[conformance]'"
_OK, _FAILED, _USAGE, _UNREACHABLE = 0, 1, 2, 3


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="aiproxy conformance",
        description="Grade an OpenAI-compatible endpoint. Exit status: 0 the level is proven, "
        "1 it is not, 2 usage, 3 unreachable.",
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", nargs="?", help="the target, with or without /v1")
    parser.add_argument("--launch", metavar="CMD", help="start the target; {port}, {config}")
    parser.add_argument("--level", type=int, choices=range(1, 6), default=1, metavar="N")
    parser.add_argument("--seed", type=int, metavar="S", help="repeat a run's random choices")
    parser.add_argument("--report-dir", type=Path, metavar="DIR")
    parser.add_argument("--api-key", metavar="K", help=f"or the variable {KEY_VARIABLE}")
    parser.add_argument("--model", metavar="M", help="the model to talk to")
    parser.add_argument("--check", action="append", default=[], metavar="ID")
    parser.add_argument("-v", "--verbose", action="store_true", help="show both sides' bytes")
    return parser


def cli_main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see the module's first line."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _USAGE
    if (asked.url is None) == (asked.launch is None):
        return _say(_USAGE, "give a URL, or --launch CMD to start the target")
    if find_spec("httpx") is None:
        return _say(_USAGE, MISSING_EXTRA)
    return _graded(asked)


def _graded(asked: argparse.Namespace) -> int:
    from aiproxy.conformance.endpoint import UnusableUrl
    from aiproxy.conformance.launching import NotLaunched, UnusableCommand, launched
    from aiproxy.conformance.reporting import write
    from aiproxy.conformance.running import Options, UnknownCheck, chosen, run
    from aiproxy.conformance.wording import summary

    options = Options(
        level=asked.level,
        seed=asked.seed,
        api_key=asked.api_key or os.environ.get(KEY_VARIABLE) or None,
        model=asked.model,
        checks=tuple(asked.check),
        command=_shown(asked),
    )
    try:
        chosen(options)  # before anything is started
        with ExitStack() as stack:
            url = asked.url or stack.enter_context(launched(asked.launch))
            report = run(url, options)
    except (UnusableUrl, UnknownCheck, UnusableCommand) as fault:
        return _say(_USAGE, str(fault))
    except NotLaunched as fault:
        return _say(_UNREACHABLE, str(fault))
    if report.unreachable:
        return _say(_UNREACHABLE, f"{report.target} is unreachable: {report.unreachable}")
    target = f"--launch {asked.launch!r}" if asked.launch else report.target
    again = f"aiproxy conformance {target} --check {{check}} --seed {report.seed} -v"
    for line in summary(report, again, verbose=asked.verbose):
        _print(line)
    if asked.report_dir is not None:
        try:
            write(report, asked.report_dir)
        except OSError as fault:
            return _say(_USAGE, f"--report-dir {asked.report_dir}: {fault.strerror}")
    return report.exit_code


def _shown(asked: argparse.Namespace) -> str:
    words = ["aiproxy", "conformance", asked.url or f"--launch {asked.launch!r}"]
    words += ["--level", str(asked.level)]
    words += [word for check in asked.check for word in ("--check", check)]
    return " ".join(words)


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding))


def _say(status: int, message: str) -> int:
    print(f"aiproxy conformance: {message}", file=sys.stderr)
    return status
