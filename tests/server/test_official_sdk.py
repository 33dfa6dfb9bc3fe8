"""The official SDK, in each of its major versions, against the server on a real socket.

The script ``sdk_client.py`` runs once an interpreter; each of its cases is a test here.
"""

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from served import ANNA, KEYS, environment, pair_config, provider, serve
from upstreams import Script, Upstream

SCRIPT = Path(__file__).parent / "sdk_client.py"
VENVS = Path(__file__).parent.parent.parent / ".venvs"
ENABLE = "python scripts/sdk_venvs.py"
VERSIONS = ("installed", "1", "2", "3")


def _cases() -> list[str]:
    """The names of the script's cases, without importing it."""
    found = []
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(mark, ast.Name) and mark.id == "case" for mark in node.decorator_list
        ):
            found.append(node.name)
    kinds = ("responses_create", "responses_create_stream", "responses_stream")
    return found + [f"{kind}_{name}" for kind in kinds for name in ("translated", "native")]


@dataclass
class Ran:
    """What the script said of each case, what the log said, how often the failing upstreams were
    asked."""

    told: dict[str, dict[str, Any]]
    requests: Counter[tuple[str, int]]
    hits: dict[str, int]


def interpreter(version: str) -> Path:
    if version == "installed":
        return Path(sys.executable)
    found = VENVS / f"openai-{version}" / "bin" / "python"
    if not found.exists():
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(f"openai {version}.x is required and missing; run: {ENABLE} {version}")
        pytest.skip(f"openai {version}.x is not there; run: {ENABLE} {version}")
    return found


def failing() -> Iterator[tuple[str, Upstream]]:
    """Upstreams that serve one model each and never well."""
    for name, script in (
        ("limited", Script(status=429)),
        ("broken", Script(status=500)),
        ("cut", Script(cut_after=2, done=False, finish=False)),
    ):
        upstream = Upstream(name)
        upstream.script = script
        yield name, upstream


@pytest.fixture(scope="module", params=VERSIONS)
def ran(request: pytest.FixtureRequest, upstreams: Any, tmp_path_factory: Any) -> Ran:
    python = interpreter(request.param)
    a, b = upstreams
    a.script, b.script = Script(), Script()
    config = pair_config(a, b)
    config["routing"]["failover"]["same_provider_retries"] = 1
    bad = dict(failing())
    for name, upstream in bad.items():
        upstream.start()
        config["providers"][name] = provider(upstream, name, priority=9)
    keys = [{"name": name, "key": key} for name, key in KEYS.items()]
    config["security"] = {"auth": {"enabled": True, "api_keys": keys}}
    folder = tmp_path_factory.mktemp(f"sdk-{request.param}")
    try:
        with serve(folder, config) as server:
            done = subprocess.run(
                [str(python), str(SCRIPT), server.url, KEYS["anna"]],
                capture_output=True,
                text=True,
                env=environment(),
                cwd=folder,
                timeout=120,
                check=False,
            )
            assert server.get("/v1/models", ANNA).status == 200
            server.stop()
            rows = [row for row in server.lines if row["event"] == "request"]
    finally:
        for upstream in bad.values():
            upstream.stop()
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return Ran(
        {row["case"]: row for row in told},
        Counter((str(row.get("requested")), row["status"]) for row in rows),
        {name: len(upstream.seen) for name, upstream in bad.items()},
    )


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("case", _cases())
def test_the_sdk_is_content(ran: Ran, case: str) -> None:
    assert ran.told[case]["ok"], ran.told[case]["detail"]


@pytest.mark.sdk
@pytest.mark.slow
def test_the_script_ran_every_case_and_no_other(ran: Ran, request: pytest.FixtureRequest) -> None:
    assert set(ran.told) == {*_cases(), "version"}
    wanted = request.node.callspec.params["ran"]
    assert wanted in ("installed", ran.told["version"]["detail"].partition(".")[0])


@pytest.mark.sdk
@pytest.mark.slow
def test_the_retries_of_the_sdk_do_not_multiply_ours(ran: Ran) -> None:
    """The SDK retries 429 and 5xx twice unless it is told not to. A 500 has been tried again by us,
    so its answer says ``x-should-retry: false``; a lone 429 has not, so it says when to come back."""
    asked: Counter[str] = Counter()
    for (model, _), times in ran.requests.items():
        asked[model] += times
    assert (asked["broken"], ran.hits["broken"]) == (1, 2)
    assert (asked["limited"], ran.hits["limited"]) == (3, 3)
    assert (asked["cut"], ran.hits["cut"]) == (1, 1)
