"""Fake providers that other people wrote, as processes of their own on loopback."""

import importlib.util
import json
import os
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from upstreams import free_port

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("third_party", ROOT / "scripts" / "third_party.py")
assert spec is not None
assert spec.loader is not None
third_party = importlib.util.module_from_spec(spec)
spec.loader.exec_module(third_party)


class Running:
    """One of them, while it runs."""

    def __init__(self, command: list[str], port: int, ready: str) -> None:
        self.port = port
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while not self._answers(ready):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{command[0]} did not start")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 400, (answer.status, text)
            return json.loads(text) if text else None
        finally:
            connection.close()

    def _answers(self, path: str) -> bool:
        try:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def command_of(name: str) -> str:
    """The path of its command; skips, or fails where CI could have it, when it is not there."""
    path = getattr(third_party, name)()
    if not path.exists():
        why = third_party.can_have(name)
        reason = (
            f"{name} is not installed{f' ({why})' if why else ''}: scripts/third_party.py {name}"
        )
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1" and why is None:
            pytest.fail(reason)
        pytest.skip(reason)
    return str(path)


@pytest.fixture(scope="session")
def llmock() -> Iterator[Running]:
    command, port = command_of("llmock"), free_port()
    running = Running(
        [command, "serve", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"],
        port,
        "/_llmock/requests",
    )
    yield running
    running.stop()


@pytest.fixture(scope="session")
def aimock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    command, port = command_of("aimock"), free_port()
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    running = Running(
        [command, "--host", "127.0.0.1", "--port", str(port), "--fixtures", str(fixtures),
         "--strict", "--log-level", "silent"],
        port,
        "/health",
    )  # fmt: skip
    yield running
    running.stop()


def _call(city: str) -> dict[str, str]:
    return {"name": "weather", "arguments": json.dumps({"city": city})}


TEXT = "Grüße 😀 from a long enough sentence to come in several pieces."
FIXTURES: list[dict[str, Any]] = [
    {"match": {"userMessage": "say hello"}, "response": {"content": TEXT}},
    {
        "match": {"userMessage": "one call", "hasToolResult": False},
        "response": {"toolCalls": [_call("Bern")]},
    },
    {
        "match": {"userMessage": "one call", "hasToolResult": True},
        "response": {"content": "Sunny."},
    },
    {
        "match": {"userMessage": "two calls", "hasToolResult": False},
        "response": {"toolCalls": [_call("Bern"), _call("Rome")]},
    },
    {
        "match": {"userMessage": "two calls", "hasToolResult": True},
        "response": {"content": "Both."},
    },
    {
        "match": {"userMessage": "think first"},
        "response": {"content": "Because.", "reasoning": "Let me think."},
    },
    {
        "match": {"userMessage": "too busy"},
        "response": {
            "error": {"message": "SECRET busy", "type": "rate_limit_error"},
            "status": 429,
        },
    },
    {
        "match": {"userMessage": "broken"},
        "response": {"error": {"message": "SECRET broken", "type": "server_error"}, "status": 500},
    },
]
