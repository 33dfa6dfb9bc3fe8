"""``stage`` puts a scenario's configuration in front of scripted upstreams, two ways."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

#: The command as a process, and the WSGI mount around an application.
KINDS = ("server", "wsgi")


@pytest.fixture(params=KINDS)
def stage(
    request: pytest.FixtureRequest, fakes: Any, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """``stage(providers, config)``: every provider is an upstream of its own on a socket."""
    from mounts import mounted
    from replaying import Stage
    from served import serve

    with ExitStack() as stack:

        def build(providers: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Any:
            letters = dict(zip(providers, "abcdefgh", strict=False))
            rows = {name: {**row, "upstream": letters[name]} for name, row in providers.items()}
            values = fakes.config(rows, **(config or {}))
            values["routing"].setdefault("failover", {}).setdefault("same_provider_retries", 0)
            upstreams = {name: fakes[letter] for name, letter in letters.items()}
            if request.param == "server":
                server = stack.enter_context(serve(tmp_path, values))
                path = "/v1/routing/decisions/"
                return Stage(
                    server,
                    upstreams,
                    lambda got: server.get(path + (got.header("x-request-id") or "")).json,
                )
            wsgi = request.getfixturevalue("wsgi_server")
            served = stack.enter_context(mounted(wsgi, values))
            return Stage(served, upstreams, served.record)

        yield build
