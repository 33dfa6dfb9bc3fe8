"""``pytest --target URL``: grade an OpenAI-compatible endpoint.

This module loads in every pytest run of every environment that has aiproxy, so it imports nothing
but pytest and the standard library, and does nothing until a target is named. It lies beside the
namespace ``aiproxy``, not in it, because pytest would otherwise rewrite the assertions of other
people's packages that share a folder name with ours.

Each option has a long name that is always there (``--aiproxy-level``) and a short one that is
there when a target is named and nobody else owns it (``--level``): a project whose own conftest
has a ``--seed`` must not break because aiproxy is installed.
"""

import argparse
import os
import sys
from collections.abc import Generator, Iterable
from importlib.util import find_spec
from typing import Any, Final

import pytest

# Any of these names a target, and with it wakes the plugin.
_TARGETS: Final[dict[str, dict[str, Any]]] = {
    "target": {"metavar": "URL", "help": "grade this endpoint instead of running tests"},
    "launch": {"metavar": "CMD", "help": "start the target: {config}, {port} are filled in"},
    "manifest": {"metavar": "FILE", "help": "an aiproxy-target.yaml that describes the target"},
}
# Short name -> what argparse needs; the long name and the destination follow from it.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "config-for": {"metavar": "NAME", "help": "aiproxy, litellm, portkey or a template's path"},
    "mode": {"metavar": "MODE", "help": "observe, attached or controlled"},
    "upstreams": {"metavar": "URL", "help": "control port of fake providers elsewhere"},
    "level": {"metavar": "N", "help": "grade levels 1 to N (default 1)"},
    "seed": {"metavar": "S", "help": "repeat the random choices of an earlier run"},
    "report-dir": {"metavar": "DIR", "help": "write report.json, .html, junit.xml and badge.json"},
    "api-key": {"metavar": "K", "help": "the target's key (or the variable AIPROXY_API_KEY)"},
    "model": {"metavar": "M", "help": "the model to talk to"},
    "profile": {"metavar": "NAME", "help": "grade this profile as well"},
    "baseline": {"metavar": "FILE", "help": "the checks that are expected to fail"},
    "check": {"metavar": "ID", "action": "append", "help": "only this check (repeatable)"},
}
_MISSING: Final = "the conformance suite needs httpx: pip install 'aiproxy[conformance]'"
_USAGE: Final = 2


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the long names, and the short ones that name a target, where asked for and free."""
    group = parser.getgroup(
        "aiproxy", "grade an OpenAI-compatible endpoint (short: --target, and so on below)"
    )
    for name, how in (_TARGETS | _OPTIONS).items():
        group.addoption(f"--aiproxy-{name}", dest=_dest(name), **how)
    config: Any = pluginmanager.getplugin("pytestconfig")
    given = [*config.invocation_params.args, *os.environ.get("PYTEST_ADDOPTS", "").split()]
    for name, how in _TARGETS.items():
        if _among(given, f"--{name}"):
            _add_free(group, name, how)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Once every plugin and conftest has taken its names, take the short ones that are free."""
    result = yield
    if any(_among(args, f"--{p}{name}") for name in _TARGETS for p in ("", "aiproxy-")):
        group = parser.getgroup("aiproxy")
        for name, how in (_TARGETS | _OPTIONS).items():
            _add_free(group, name, how)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Answer what needs no test session: a missing extra, wrong usage, an unreachable target."""
    if not _awake(config) or hasattr(config, "workerinput"):
        return None
    if find_spec("httpx") is None:
        return _say(_USAGE, _MISSING)
    from aiproxy.conformance.items import Grading, Refused

    try:
        grading = Grading.prepared(config)
    except Refused as refused:
        return _say(refused.status, refused.message)
    config.pluginmanager.register(grading, "aiproxy-grading")
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """On a worker of pytest-xdist: the controller has prepared everything, join in."""
    if not _awake(config):
        return
    if hasattr(config, "workerinput") and not config.pluginmanager.hasplugin("aiproxy-grading"):
        from aiproxy.conformance.items import Grading

        config.pluginmanager.register(Grading.joined(config), "aiproxy-grading")


@pytest.fixture
def aiproxy_upstreams() -> Generator[Any, None, None]:
    """Open fake AI providers by role; see ``aiproxy.conformance.rig.fixtures``."""
    from aiproxy.conformance.rig.fixtures import opened_fakes

    yield from opened_fakes()


def _awake(config: pytest.Config) -> bool:
    """Whether a target was named."""
    return any(config.getoption(_dest(name), None) for name in _TARGETS)


def _dest(name: str) -> str:
    return f"aiproxy_{name.replace('-', '_')}"


def _among(args: Iterable[str], option: str) -> bool:
    return any(arg == option or arg.startswith(f"{option}=") for arg in args)


def _add_free(group: Any, name: str, how: dict[str, Any]) -> None:
    """Add the short option ``name`` unless it is taken, by ourselves or by others."""
    try:
        group.addoption(f"--{name}", dest=_dest(name), **{**how, "help": argparse.SUPPRESS})
    except (ValueError, argparse.ArgumentError):
        return


def _say(status: int, message: str) -> int:
    print(f"aiproxy: {message}", file=sys.stderr)
    return status
