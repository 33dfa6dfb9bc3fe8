"""Real stores on loopback for tests: one PostgreSQL and one Valkey or Redis a session.

Where a program is missing the test is skipped with the reason, or fails under
``AIPROXY_REQUIRE_SERVICES=1``.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from upstreams import free_port

_PATIENCE_S = 20.0
_FILE = Path(__file__).resolve().parents[2] / "scripts" / "services.py"
_SPEC = importlib.util.spec_from_file_location("services", _FILE)
assert _SPEC is not None
assert _SPEC.loader is not None
services = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(services)


def missing(what: str) -> None:
    """Skip, or fail where services are required."""
    if os.environ.get("AIPROXY_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{what}, and AIPROXY_REQUIRE_SERVICES=1")
    pytest.skip(what)


@contextmanager
def redis_server(*options: str, port: int | None = None) -> Iterator[int]:
    """The port of a fresh Valkey or Redis without persistence."""
    command: list[str] | None = services.redis_server()
    if command is None:
        missing("there is no redis-server: python scripts/services.py redis")
    assert command is not None
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        running = subprocess.Popen(
            [
                *command,
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                folder,
                "--appendonly",
                "no",
                *options,
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait(port, running)
            yield port
        finally:
            running.terminate()
            running.wait(10)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of an empty database of a fresh PostgreSQL."""
    programs = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if None in programs.values():
        missing("PostgreSQL (initdb, postgres) is not installed")
    try:
        import psycopg  # noqa: F401 - what SQLAlchemy drives it with
    except ImportError:
        missing("psycopg is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        as_user = _nobody(folder)
        subprocess.run(
            [str(programs["initdb"]), "-D", str(data), "-U", "test", "-A", "trust", "-N"],
            check=True, capture_output=True, **as_user,
        )  # fmt: skip
        running = subprocess.Popen(
            [str(programs["postgres"]), "-D", str(data), "-p", str(port), "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-k", folder],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user,
        )  # fmt: skip
        try:
            _wait(port, running)
            _ready(port)
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            running.send_signal(signal.SIGINT)  # a fast shutdown: clients are let go
            running.wait(20)


def _nobody(folder: str) -> dict[str, object]:
    """PostgreSQL does not run as root: then it runs as somebody else."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    os.chmod(folder, 0o755)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _wait(port: int, running: "subprocess.Popen[bytes]") -> None:
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        assert running.poll() is None, "the server ended while it was starting"
        with socket.socket() as plug:
            plug.settimeout(0.2)
            if plug.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the server does not listen")


def _ready(port: int) -> None:
    import psycopg

    ends = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=test dbname=postgres").close()
            return
        except psycopg.OperationalError:  # it listens, and still starts
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
