"""Our own server passes the suite it ships with, run as anybody would run it: from elsewhere."""

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from served import AIPROXY, ANNA, COMMANDS, KEYS, environment, run
from upstreams import free_port

from aiproxy.spec import validate

PYTEST = str(COMMANDS / "pytest")
MOUNTED = Path(__file__).with_name("mounted.py")
#: What the README says our server proves.
CLAIM = 3
OURS = ("--launch", f"{AIPROXY} serve --config {{config}} --port {{port}}")


def graded(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``pytest --target`` in a folder that knows nothing of this repository."""
    return subprocess.run(
        [PYTEST, "-q", "-p", "no:cacheprovider", *arguments],
        cwd=where,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def commanded(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``aiproxy conformance`` there."""
    return subprocess.run(
        [AIPROXY, "conformance", *arguments],
        cwd=where,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_server_is_started_and_proves_level_1_in_front_of_fakes(tmp_path: Path) -> None:
    done = graded(tmp_path, *OURS, "--report-dir", "report")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mode: controlled" in done.stdout
    assert proven(tmp_path / "report") == (1, [])


@pytest.mark.slow
def test_the_server_proves_what_it_claims(tmp_path: Path) -> None:
    words = (*OURS, "--level", str(CLAIM), "--seed", "7", "--report-dir", "report")
    done = commanded(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"RESULT: level {CLAIM} proven" in done.stdout
    assert _outcome(tmp_path / "report")[0] == CLAIM


def _outcome(folder: Path) -> tuple[int | None, dict[str, str]]:
    """The level and the status of each check that decides it, from a folder of valid files."""
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir()}
    report = json.loads(texts.pop("report.json"))
    validate(report, "report")
    validate(yaml.safe_load(texts.pop("report.yaml")), "report-summary")
    suite = ET.fromstring(texts.pop("junit.xml"))[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    badge = json.loads(texts.pop("badge.json"))
    assert set(badge) == {"schemaVersion", "label", "message", "color"}
    assert (badge["schemaVersion"], badge["label"]) == (1, "AIProxy")
    assert badge["message"].startswith(f"L{CLAIM} - controlled")
    shown = texts.pop("report.html")
    assert re.findall(r"<script|<link|<img|<iframe|@import|url\(", shown) == []
    assert texts == {}
    decides = (row for row in report["results"] if row["scored"])
    return report["level"], {row["check"]: row["status"] for row in decides}


#: What a mount does not have, or cannot do, and the server has and does.
MOUNTS = {
    "asgi": {
        "UNI-REG-001": "unsupported",  # GET /v1/providers is the server's
        "UNI-REG-007": "unsupported",
    },
    "wsgi": {
        "UNI-REG-001": "unsupported",
        "UNI-REG-007": "unsupported",
        "XAI-STREAM-012": "fail",  # nobody tells a WSGI application that its client left
        "UNI-STAT-005": "fail",  # max_connections is not kept to
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MOUNTS)
def test_a_mount_proves_level_1_and_all_of_level_2_but_what_it_cannot(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "target.yaml").write_text("features: {local-models: false}\n")
    done = commanded(
        tmp_path, "--launch", f"{sys.executable} {MOUNTED} {kind} {{config}} {{port}}",
        "--manifest", "target.yaml", "--level", "2", "--report-dir", "report",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    status = {row["check"]: row["status"] for row in report["results"]}
    missing = {name: status[name] for name in report["levels"][1]["blocking"]}
    assert (report["level"], missing) == (1, MOUNTS[kind]), done.stdout


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


@pytest.mark.slow
def test_another_server_is_graded_under_pytest(other: str, tmp_path: Path) -> None:
    done = graded(tmp_path, "--target", other)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert " failed" in last
    assert " passed" in last


@pytest.mark.slow
def test_another_server_is_graded_by_the_command(other: str, tmp_path: Path) -> None:
    done = run("conformance", other, "--report-dir", str(tmp_path))
    level, failed = proven(tmp_path)
    assert (done.returncode, level) == (1, None)
    assert "AIP-API-001" not in failed
    assert len(failed) > 3
