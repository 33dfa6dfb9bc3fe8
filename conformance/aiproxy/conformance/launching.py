"""Starting the target for a run, and stopping it afterwards whatever happened."""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

_READY_S: Final = 60.0
_STOP_S: Final = 10.0
_PAUSE_S: Final = 0.05


class NotLaunched(Exception):
    """The target did not start or did not begin to listen; the text says which."""


class UnusableCommand(ValueError):
    """The launch command cannot be understood."""


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def launched(command: str, *, ready_s: float = _READY_S) -> Iterator[str]:
    """Run ``command`` with ``{port}`` and ``{config}`` filled in; yield the URL it listens on.

    Raises:
        UnusableCommand: unbalanced quotes, or nothing to run.
        NotLaunched: it ended, or nothing listened within ``ready_s``; says how to look further.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aiproxy-conformance-") as folder:
        config = Path(folder) / "aiproxy.yaml"
        config.write_text(f'server:\n  listen_addr: "127.0.0.1:{port}"\n', encoding="utf-8")
        words = _words(command, port, config)
        with (Path(folder) / "output").open("w+b") as output:
            process = _start(words, output)
            try:
                _await_port(process, port, ready_s, output)
                yield f"http://127.0.0.1:{port}"
            finally:
                _stop(process)


def _words(command: str, port: int, config: Path) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise UnusableCommand(f"--launch: {fault}") from None
    if not words:
        raise UnusableCommand("--launch: nothing to run")
    return [w.replace("{port}", str(port)).replace("{config}", str(config)) for w in words]


def _start(words: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 (the user's own command)
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as fault:
        raise NotLaunched(f"cannot run {words[0]!r}: {fault.strerror}") from None


def _await_port(
    process: subprocess.Popen[bytes], port: int, ready_s: float, output: IO[bytes]
) -> None:
    until = time.monotonic() + ready_s
    while time.monotonic() < until:
        if process.poll() is not None:
            code = process.returncode
            raise NotLaunched(f"the target ended at once with status {code}{_last_line(output)}")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(_PAUSE_S)
        else:
            return
    raise NotLaunched(
        f"nothing listened on port {port} within {ready_s:g} s{_last_line(output)}; "
        "does the command use {port} or {config}?"
    )


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    lines = output.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
    return f"; its last words: {lines[-1][:300]}" if lines else ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, first politely."""
    for sign, patience in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()
