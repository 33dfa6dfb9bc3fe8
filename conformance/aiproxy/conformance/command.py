"""The command ``aiproxy conformance URL``: the same run as ``pytest --target URL``."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

MISSING_EXTRA: Final = "the conformance suite needs httpx: pip install 'aiproxy[conformance]'"
_OK, _FAILED, _USAGE, _UNREACHABLE, _INTERRUPTED = 0, 1, 2, 3, 130
_EPILOG: Final = (
    "Further commands: 'aiproxy conformance init' writes configurations for a target that you "
    "start yourself, 'aiproxy conformance upstream' runs fake providers alone; each has --help. "
    "The key of the target may also be in the variable AIPROXY_API_KEY."
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="aiproxy conformance",
        description="Grade an OpenAI-compatible endpoint. Exit status: 0 the level is proven, "
        "1 it is not, 2 usage, 3 unreachable.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("url", metavar="URL", nargs="?", help="the target, with or without /v1")
    parser.add_argument(
        "--launch", metavar="CMD",
        help="start the target: {config} is its configuration, {port} where it has to listen",
    )  # fmt: skip
    parser.add_argument(
        "--config-for", metavar="NAME",
        help="form of {config}: aiproxy (default), litellm, portkey, or a template's path",
    )  # fmt: skip
    parser.add_argument("--manifest", metavar="FILE", help="an aiproxy-target.yaml")
    parser.add_argument("--mode", metavar="MODE", help="observe, attached or controlled")
    parser.add_argument(
        "--upstreams", metavar="URL", help="control port of fake providers that run elsewhere"
    )
    parser.add_argument("--level", metavar="N", help="grade levels 1 to N (default 1)")
    parser.add_argument("--profile", metavar="NAME", help="grade this profile as well")
    parser.add_argument("--seed", metavar="S", help="repeat a run's random choices")
    parser.add_argument("--report-dir", type=Path, metavar="DIR")
    parser.add_argument("--baseline", metavar="FILE", help="checks that are expected to fail")
    parser.add_argument("--api-key", metavar="K", help="the target's key")
    parser.add_argument("--model", metavar="M", help="the model to talk to, in mode observe")
    parser.add_argument("--check", action="append", default=[], metavar="ID")
    parser.add_argument("-v", "--verbose", action="store_true", help="show both sides' bytes")
    return parser


def cli_main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; see the module's first line."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["init"]:
            from aiproxy.conformance.initial import init_main

            return init_main(words[1:])
        if words[:1] == ["upstream"]:
            from aiproxy.conformance.rig.command import main

            return main(words[1:])
        asked = _parser().parse_args(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _USAGE
    if find_spec("httpx") is None:
        return _say(_USAGE, MISSING_EXTRA)
    try:
        return _graded(asked)
    except KeyboardInterrupt:
        return _say(_INTERRUPTED, "interrupted; the target and the fake providers were stopped")


def _graded(given: argparse.Namespace) -> int:
    from aiproxy.conformance.asking import Usage, asked_for
    from aiproxy.conformance.reporting import write
    from aiproxy.conformance.running import run
    from aiproxy.conformance.wording import summary

    try:
        asked = asked_for({**vars(given), "command": _shown(given)}, os.environ)
    except Usage as fault:
        return _say(_USAGE, str(fault))
    report = run(asked.url, asked.options)
    if report.unreachable:
        at = f"{report.target} is unreachable: " if asked.url else ""
        return _say(_UNREACHABLE, f"{at}{report.unreachable}")
    again = f"aiproxy conformance {asked.repeat} --check {{check}} --seed {report.seed} -v"
    for line in summary(report, again, verbose=given.verbose):
        _print(line)
    if given.report_dir is not None:
        try:
            write(report, given.report_dir)
        except OSError as fault:
            return _say(_USAGE, f"--report-dir {given.report_dir}: {fault.strerror}")
    return report.exit_code


def _shown(given: argparse.Namespace) -> str:
    """Return the command as it was given, without the key."""
    words = ["aiproxy", "conformance", *([given.url] if given.url else [])]
    for name, value in vars(given).items():
        if name in ("url", "check", "api_key", "verbose") or value is None:
            continue
        words += [f"--{name.replace('_', '-')}", repr(value) if " " in str(value) else str(value)]
    words += [word for check in given.check for word in ("--check", check)]
    return " ".join(words)


def _print(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding))


def _say(status: int, message: str) -> int:
    print(f"aiproxy conformance: {message}", file=sys.stderr)
    return status
