"""The official SDKs of Anthropic and Google, unchanged, against the server on a real socket.

Each script runs once; each of its cases is a test here.
"""

import ast
import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from foreign import UPSTREAM_KEY, native, peculiar
from served import KEYS, environment, pair_config, provider, serve
from upstreams import Script, Seen

HERE = Path(__file__).parent
VENVS = HERE.parent.parent / ".venvs"
#: script, the SDK's environment, and the provider type that speaks its API
SDKS = {
    "anthropic": ("anthropic_client.py", "anthropic", "anthropic"),
    "google-genai": ("genai_client.py", "google-genai", "google"),
}


def _cases(script: str) -> list[str]:
    """The names of a script's cases, without importing it."""
    found, runs = [], []
    for node in ast.parse((HERE / script).read_text()).body:
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(mark, ast.Name) and mark.id == "case" for mark in node.decorator_list
        ):
            found.append(node.name)
        elif isinstance(node, ast.FunctionDef) and node.name in ("whole", "streamed", "events"):
            runs.append(node.name)
    return found + [f"{run}_{model}" for model in ("chat", "native") for run in runs]


CASES = [(sdk, name) for sdk, row in SDKS.items() for name in _cases(row[0])]


@dataclass
class Ran:
    """What the script said of each case; what upstreams saw, by name; all that the server wrote."""

    told: dict[str, dict[str, Any]]
    seen: dict[str, list[Seen]]
    written: str


def interpreter(name: str) -> Path:
    found = VENVS / name / "bin" / "python"
    if not found.exists():
        how = f"the SDK {name} is not there; run: python scripts/sdk_venvs.py {name}"
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(how)
        pytest.skip(how)
    return found


@pytest.fixture(scope="module")
def runs(upstreams: Any, tmp_path_factory: Any) -> Any:
    """``runs(sdk)``: what came of its script, which runs when first asked for."""
    done: dict[str, Ran] = {}

    def run(sdk: str) -> Ran:
        if sdk not in done:
            done[sdk] = _run(sdk, upstreams, tmp_path_factory.mktemp(sdk))
        return done[sdk]

    return run


def _run(sdk: str, upstreams: Any, folder: Path) -> Ran:
    script, venv, kind = SDKS[sdk]
    python = interpreter(venv)
    a, b = upstreams
    for upstream in (a, b):
        upstream.script = Script()
        upstream.seen.clear()
    config = pair_config(a, b)
    config["routing"]["stream_keepalive"] = "100ms"
    config["providers"]["a"]["models"].append({"name": "chat"})
    others = peculiar()
    speaker, entry = native(kind)
    config["providers"]["native"] = entry
    for name, upstream in others.items():
        capable = {"capabilities": ["text-generation", "vision"]} if name == "eyes" else {}
        row = {"name": name, **capable}
        config["providers"][name] = provider(upstream, row, priority=9)
    keys = [{"name": name, "key": key} for name, key in KEYS.items()]
    config["security"] = {"auth": {"enabled": True, "api_keys": keys}}
    with ExitStack() as stack:
        for upstream in (speaker, *others.values()):
            stack.enter_context(upstream)
        server = stack.enter_context(serve(folder, config))
        done = subprocess.run(
            [str(python), str(HERE / script), server.url, KEYS["anna"]],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=folder,
            timeout=240,
            check=False,
        )
        server.stop()
        written = server.out.read_text() + server.err.read_text()
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    everybody = {"a": a, "b": b, "native": speaker, **others}
    return Ran(
        {row["case"]: row for row in told},
        {name: list(upstream.seen) for name, upstream in everybody.items()},
        written,
    )


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize(("sdk", "case"), CASES)
def test_the_sdk_is_content(runs: Any, sdk: str, case: str) -> None:
    told = runs(sdk).told[case]
    assert told["ok"], told["detail"]


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("sdk", SDKS)
def test_the_script_ran_every_case_and_no_other(runs: Any, sdk: str) -> None:
    assert set(runs(sdk).told) == {*_cases(SDKS[sdk][0]), "version"}


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("sdk", SDKS)
def test_the_clients_key_goes_no_further_and_is_nowhere_written(runs: Any, sdk: str) -> None:
    ran = runs(sdk)
    assert KEYS["anna"] not in ran.written
    for name, seen in ran.seen.items():
        assert seen or name == "slow", name
        for request in seen:
            assert KEYS["anna"] not in json.dumps(request.headers), name
            assert KEYS["anna"] not in request.path, name
    own = {value for request in ran.seen["native"] for value in request.headers.values()}
    assert {UPSTREAM_KEY, f"Bearer {UPSTREAM_KEY}"} & own


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("sdk", SDKS)
def test_the_shape_of_an_answer_is_asked_for_upstream(runs: Any, sdk: str) -> None:
    [request] = runs(sdk).seen["shaped"]
    shape = request.body["response_format"]["json_schema"]["schema"]
    assert shape["properties"]["city"]["type"] == "string"


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("sdk", SDKS)
def test_no_upstream_is_sent_a_word_of_ours(runs: Any, sdk: str) -> None:
    for seen in runs(sdk).seen.values():
        for request in seen:
            assert not [name for name in request.headers if name.startswith("x-ai-")]
            assert request.body.get("model") != "auto"
            assert "auto:" not in request.path
