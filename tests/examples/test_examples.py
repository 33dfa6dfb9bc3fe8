"""Every example runs as its own process on a real socket, in front of a scripted provider."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from upstreams import free_port

from aiproxy.conformance.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
ROUTED = {"X-AI-Provider-Pool": "cloud"}
BODY = {"model": "cloud-model", "messages": [{"role": "user", "content": "Hello"}]}

UVICORN = ("uvicorn", "--app-dir", str(EXAMPLES), "--host", "127.0.0.1", "--port", "{port}")
GUNICORN = (
    "gunicorn", "--chdir", str(EXAMPLES), "--bind", "127.0.0.1:{port}", "--preload",
    "--worker-class", "gthread", "--workers", "2", "--threads", "4",
)  # fmt: skip
MOUNTED = {
    "Starlette": (*UVICORN, "starlette_app:app"),
    "FastAPI": (*UVICORN, "fastapi_app:app"),
    "Falcon": (*UVICORN, "falcon_app:app"),
    "Flask": (*GUNICORN, "flask_app:app"),
    "Django": (*GUNICORN, "django_app:application"),
}


@dataclass
class Running:
    """One example under its server."""

    name: str
    port: int
    process: subprocess.Popen[str]

    def post(self, headers: dict[str, str] | None = None, **more: Any) -> tuple[Any, bytes]:
        """POST a chat completion; return the response and its whole body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps({**BODY, **more}),
                {"Content-Type": "application/json", **(headers or {})},
            )
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def stop(self) -> tuple[int, str]:
        """Ask the server to end; return its exit status and what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output


def start(name: str, config: Path) -> Running:
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in MOUNTED[name]]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", *command],
        # HOME: recent gunicorn leaves a control socket below it
        env={**os.environ, "AIPROXY_CONFIG": str(config), "HOME": str(config.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Running(name, port, process)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{name} did not start:\n{process.communicate()[0]}")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def cloud() -> Iterator[Any]:
    from upstreams import Upstream

    with Upstream("cloud") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def config(cloud: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    provider = {
        "type": "openai_compatible",
        "endpoint": cloud.url,
        "models": [{"name": "cloud-model", "quality": 0.8, "cost_per_1k_tokens": 0.001}],
    }
    path = tmp_path_factory.mktemp("config") / "aiproxy.yaml"
    path.write_text(yaml.safe_dump({"providers": {"cloud": provider}}))
    return path


@pytest.fixture(scope="module", params=MOUNTED)
def running(request: pytest.FixtureRequest, config: Path) -> Iterator[Running]:
    started = start(request.param, config)
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.communicate()


def test_a_request_without_our_headers_is_the_applications(running: Running, cloud: Any) -> None:
    before = len(cloud.seen)
    response, body = running.post()
    assert response.status == 200
    answer = json.loads(body)["choices"][0]["message"]["content"]
    assert answer == f"answered by the {running.name} app"
    assert [name for name in response.headers if name.lower().startswith("x-ai")] == []
    assert len(cloud.seen) == before


def test_a_request_with_our_headers_is_routed(running: Running, cloud: Any) -> None:
    response, body = running.post(ROUTED)
    assert response.status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == "served by cloud"
    assert response.headers["x-ai-provider-used"] == "cloud"
    assert [n for n in cloud.seen[-1].headers if n.startswith("x-ai-")] == []


def test_the_application_is_a_provider_too(running: Running) -> None:
    response, body = running.post({"X-AI-Provider-Pool": "app"}, model="its-own-model")
    answer = json.loads(body)["choices"][0]["message"]["content"]
    assert (response.status, answer) == (200, f"answered by the {running.name} app")
    assert response.headers["x-ai-provider-used"] == "app"


@pytest.mark.parametrize("headers", [{}, ROUTED], ids=["the app's", "routed"])
def test_streams_arrive_whole(running: Running, headers: dict[str, str]) -> None:
    response, body = running.post(headers, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    pieces = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    expected = "served by cloud" if headers else f"answered by the {running.name} app"
    assert "".join(pieces).strip() == expected
    assert ("x-aiproxy" in chunks[-1]) == bool(headers)


def test_the_server_ends_cleanly_when_asked(running: Running) -> None:
    # the last test of each server: it holds pooled connections to the provider by now
    status, output = running.stop()
    # uvicorn finishes its shutdown, then ends by the signal it was sent
    assert status in ((0, -signal.SIGTERM) if "uvicorn" in running.process.args else (0,)), output
    assert status == 0 or "Application shutdown complete" in output
    assert "Traceback" not in output
    assert "Warning" not in output


def test_the_sdk_example_prints_the_answer_and_the_decision(config: Path, cloud: Any) -> None:
    host = start("Starlette", config)
    try:
        done = subprocess.run(
            [
                sys.executable,
                str(EXAMPLES / "client_openai.py"),
                f"http://127.0.0.1:{host.port}/v1",
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        status, _ = host.stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert status == -signal.SIGTERM
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert lines["answer"].strip() == "served by cloud"
    assert lines["provider"].strip() == "cloud"
    assert lines["stream"].strip() == "served by cloud"
    assert "'provider': 'cloud'" in lines["x-aiproxy"]


def test_the_tests_of_a_gateway_pass_in_a_project_of_their_own(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "test_gateway.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.slow  # the same scenarios run in tests/simulate
def test_the_tests_of_a_configuration_pass_in_a_project_of_their_own(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "test_scenarios.py", tmp_path)
    shutil.copytree(EXAMPLES / "scenarios", tmp_path / "scenarios")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_the_manifest_is_one() -> None:
    manifest = read_manifest(EXAMPLES / "aiproxy-target.yaml", {"MY_GATEWAY_KEY": "k"})
    assert (manifest.target.level, manifest.target.lacks) == (2, ("local-models",))
    assert (manifest.config_for, manifest.api_key) == ("aiproxy", "k")


def test_every_mounted_example_is_run() -> None:
    files = {path.stem for path in EXAMPLES.glob("*_app.py")}
    assert files == {command[-1].partition(":")[0] for command in MOUNTED.values()}
