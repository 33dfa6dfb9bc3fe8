"""What every test folder may use: scripted upstreams and the two mounts on real sockets."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from stalls import (  # noqa: F401  what pytest calls by name
    pytest_runtest_protocol,
    pytest_sessionfinish,
    pytest_sessionstart,
    pytest_terminal_summary,
)

#: The gate: a tenth of the examples of each property test, the same ones every time, so that a red
#: run is about the change it ran on. The search, with AIPROXY_THOROUGH=1: all of them, other ones
#: every time, and what is found is kept and tried again.
THOROUGH = bool(os.environ.get("AIPROXY_THOROUGH"))
LEAST = 15
FOUND = Path(__file__).parent / "corpus" / "examples"

settings.register_profile("gate", derandomize=True, database=None, deadline=None)
settings.register_profile(
    "search", database=DirectoryBasedExampleDatabase(FOUND), deadline=None, print_blob=True
)
settings.load_profile("search" if THOROUGH else "gate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        function = getattr(item, "obj", None)
        if THOROUGH or not is_hypothesis_test(function):
            continue
        given = function._hypothesis_internal_use_settings  # where the library's own plugin looks
        most = min(given.max_examples, max(LEAST, given.max_examples // 10))
        function._hypothesis_internal_use_settings = settings(given, max_examples=most)


@pytest.fixture(scope="session")
def _fakes() -> Iterator[Any]:
    from mounts import Fakes

    made = Fakes()
    yield made
    made.stop()


@pytest.fixture
def fakes(_fakes: Any) -> Iterator[Any]:
    """Upstreams by name (``fakes.a``), silent and unscripted at the start of each test."""
    _fakes.reset()
    yield _fakes
    _fakes.check()


@pytest.fixture(scope="session")
def asgi_server() -> Iterator[Any]:
    from mounts import AsgiServer

    made = AsgiServer()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def wsgi_server() -> Iterator[Any]:
    from mounts import WsgiServer

    made = WsgiServer()
    yield made
    made.stop()


@pytest.fixture(params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest) -> Any:
    """The running server of each mount kind."""
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def mount(server: Any) -> Iterator[Callable[..., Any]]:
    """``mount(config)`` serves a host application behind the middleware; see ``mounts.Mount``."""
    from mounts import mounted

    with ExitStack() as stack:
        yield lambda config, **options: stack.enter_context(mounted(server, config, **options))
