"""A real redis-server for tests, as a process of its own on loopback."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upstreams import free_port

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "server"))
spec = importlib.util.spec_from_file_location("services", ROOT / "scripts" / "services.py")
assert spec is not None
assert spec.loader is not None
services = importlib.util.module_from_spec(spec)
spec.loader.exec_module(services)


class RedisServer:
    """A server without persistence; ``kill`` ends it the hard way, ``start`` makes an empty one."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.port = free_port()
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline, "redis-server did not start"
            time.sleep(0.02)

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, socket_timeout=5)

    def _answers(self) -> bool:
        import redis

        client = redis.Redis(port=self.port, socket_timeout=1)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()

    def freeze(self) -> None:
        """Let it keep its connections and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


def command() -> list[str]:
    """How redis-server is started; skips, or fails where services are required, without one."""
    found: list[str] | None = services.redis_server()
    if found is None:
        reason = "there is no redis-server: python scripts/services.py redis"
        if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def _redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(command(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(_redis: RedisServer) -> RedisServer:
    """A running, empty server that several tests share."""
    client = _redis.client()
    client.flushall()
    client.close()
    return _redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test's own, to be killed."""
    server = RedisServer(command(), tmp_path)
    server.start()
    yield server
    server.kill()
