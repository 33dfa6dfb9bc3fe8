"""Our own server passes the suite it ships with, run as anybody would run it: from elsewhere."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import ANNA, COMMANDS, KEYS, environment, run
from upstreams import free_port

PYTEST = str(COMMANDS / "pytest")


def graded(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``pytest --target`` in a folder that knows nothing of this repository."""
    return subprocess.run(
        [PYTEST, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=where,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def proven(folder: Path) -> tuple[int | None, list[str]]:
    """The level a report proves, and the checks that failed."""
    report = json.loads((folder / "report.json").read_text())
    failed = [row["check"] for row in report["results"] if row["status"] == "fail"]
    return report["level"], failed


def test_the_embedded_server_proves_level_1_under_pytest(embedded: Any, tmp_path: Path) -> None:
    done = graded(tmp_path, "--target", embedded.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout.splitlines()[-1]


@pytest.mark.requirement("AIP-CLI-005")
def test_the_embedded_server_proves_level_1_by_the_command(embedded: Any, tmp_path: Path) -> None:
    done = run("conformance", embedded.url, "--report-dir", str(tmp_path / "report"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    says = "RESULT: level 1 proven; levels 2-5 not measured"
    assert done.stdout.splitlines()[-1] == says
    assert proven(tmp_path / "report") == (1, [])


def test_a_server_with_keys_and_upstreams_proves_level_1(pair: Any, tmp_path: Path) -> None:
    done = run("conformance", pair.server.url, "--report-dir", str(tmp_path), "--model", "shared")
    assert (done.returncode, proven(tmp_path)) == (0, (1, [])), done.stdout


def test_a_key_is_asked_for_and_taken(keyed: Any, tmp_path: Path) -> None:
    assert keyed.server.get("/v1/models", ANNA).status == 200
    refused = run("conformance", keyed.server.url, cwd=tmp_path)
    assert refused.returncode == 1
    assert "--api-key" in refused.stdout
    checks = ("--check", "AIP-API-001")
    taken = run("conformance", keyed.server.url, "--api-key", KEYS["anna"], *checks)
    assert "asks for one" not in taken.stdout


def test_an_unreachable_target_is_3(tmp_path: Path) -> None:
    done = run("conformance", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


OTHER = textwrap.dedent(
    """
    import sys, time, uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def models(request):
        rows = [{"id": "other", "object": "model", "created": 1, "owned_by": "them"}]
        return JSONResponse({"object": "list", "data": rows})

    async def chat(request):
        body = await request.json()
        message = {"role": "assistant", "content": "hi"}
        return JSONResponse({
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()),
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        })

    app = Starlette(routes=[
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
    """
)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An OpenAI-compatible server that is not ours, and careless about errors and streams."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "other.py").write_text(OTHER)
    port = free_port()
    process = subprocess.Popen([sys.executable, "other.py", str(port)], cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait(url: str) -> None:
    from mounts import Client

    client = Client(int(url.rpartition(":")[2]))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if client.get("/v1/models").status == 200:
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the other server did not start")


def test_another_server_is_graded_under_pytest(other: str, tmp_path: Path) -> None:
    done = graded(tmp_path, "--target", other)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert " failed" in last
    assert " passed" in last


def test_another_server_is_graded_by_the_command(other: str, tmp_path: Path) -> None:
    done = run("conformance", other, "--report-dir", str(tmp_path))
    level, failed = proven(tmp_path)
    assert (done.returncode, level) == (1, None)
    assert "AIP-API-001" not in failed
    assert len(failed) > 3
