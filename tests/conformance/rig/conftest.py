"""Fake providers for the tests of the fake providers."""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiproxy.conformance.rig.fleet import Fake, Fleet, cast
from aiproxy.conformance.rig.upstreams import Upstreams

sys.path.insert(0, str(Path(__file__).parent))

from rig_client import Stage, new_nonce
from rig_talk import Talk


@pytest.fixture
def stage_of() -> Iterator[Callable[..., Stage]]:
    """Open fakes by role."""
    opened: list[Upstreams] = []

    def build(**fakes: Fake) -> Stage:
        upstreams = Upstreams(b"secret of a test")
        opened.append(upstreams)
        actors = cast(Fleet(fakes), "test", random.randrange(10**6))
        return Stage(upstreams, actors, upstreams.open(actors.actors.values()))

    yield build
    for upstreams in opened:
        upstreams.close_all()


@pytest.fixture
def stage(stage_of: Callable[..., Stage]) -> Stage:
    """Two plain providers, ``a`` and ``b``."""
    return stage_of(a=Fake(), b=Fake())


@pytest.fixture
def nonce() -> str:
    return new_nonce()


@pytest.fixture
def talk_of(stage_of: Callable[..., Stage]) -> Callable[[str], Talk]:
    """Open one fake of a dialect, and talk to it in that."""
    return lambda dialect: Talk(stage_of(a=Fake(dialect=dialect)), dialect)
