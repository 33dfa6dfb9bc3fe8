"""Targets that look right: none of them reaches level 2, whatever it prints or claims."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from controlled import launcher
from passthrough import pass_through
from right_server import RightServer, liar
from test_mutants import CANNED, with_status

from aiproxy.conformance import Options, Status, run
from aiproxy.conformance.launching import Launcher
from aiproxy.conformance.manifest import Target


@contextmanager
def canned(config: Path, port: int) -> Iterator[str]:
    """Start a server that gives one right answer to everything."""
    with RightServer(handler=liar(200, CANNED, "application/json"), port=port) as server:
        yield server.url


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "highest"),
    [
        pytest.param(canned, 0, id="canned-200", marks=pytest.mark.slow),
        pytest.param(
            launcher("header-liar", "always-first"), 1, id="header-liar", marks=pytest.mark.slow
        ),
        pytest.param(launcher("always-first"), 1, id="always-first"),
    ],
)
def test_a_liar_reaches_level_1_at_most(started: Launcher, highest: int):
    report = run("", Options(level=2, seed=7, launcher=started))
    assert report.grade.level <= highest
    assert report.exit_code == 1
    assert not with_status(report, Status.HARNESS_ERROR, Status.UNREACHABLE)


@pytest.mark.slow
@pytest.mark.parametrize("claimed", [None, 5])
def test_a_plain_proxy_proves_level_1_exactly_whatever_it_claims(claimed: int | None):
    told = Options(level=2, seed=7, launcher=pass_through, target=Target(level=claimed))
    report = run("", told)
    assert report.grade.level == 1
    assert report.exit_code == 1
    assert not with_status(report, Status.HARNESS_ERROR, Status.UNREACHABLE)
