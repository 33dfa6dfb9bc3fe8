"""Starting the target for a run, and stopping it afterwards whatever happened."""

import contextlib
import math
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Final

from aiproxy.conformance.redaction import Redactor

# Starts a target with the configuration at a path, on a port; gives the URL and stops it again.
Launcher = Callable[[Path, int], AbstractContextManager[str]]

_READY_S: Final = 60.0
_STOP_S: Final = 10.0
_UNREADY_S: Final = 5.0
_PAUSE_S: Final = 0.05
_OWN_PORTS: Final = (10_240, 20_000)
_TRIES: Final = 100
_ANSWER_S: Final = 2.0
_LAST_BYTES: Final = 4096
_PRINTABLE: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]")


class NotLaunched(Exception):
    """The target did not start or did not begin to listen; the text says which."""


class UnusableCommand(ValueError):
    """The launch command cannot be understood."""


def free_port() -> int:
    """Return a TCP port of the loopback address that was free a moment ago.

    It lies below those that the system hands out by itself: until the target listens on it, the
    fake providers and connections of this run and of others must not get it.
    """
    low, high = _OWN_PORTS
    for _ in range(_TRIES):
        port = secrets.randbelow(high - low) + low
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise NotLaunched("no free port was found")


def takes_config(command: str) -> bool:
    """Return whether ``command`` lets us choose the target's configuration."""
    return "{config}" in command


@contextmanager
def launched(
    command: str, *, ready_s: float = _READY_S, cancelled: threading.Event | None = None
) -> Iterator[str]:
    """Run ``command`` with ``{port}`` filled in and, as ``{config}``, a file that names the port.

    Raises:
        UnusableCommand: unbalanced quotes, or nothing to run.
        NotLaunched: it ended, or nothing listened within ``ready_s``; says how to look further.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aiproxy-conformance-") as folder:
        config = Path(folder) / "aiproxy.yaml"
        config.write_text(f'server:\n  listen_addr: "127.0.0.1:{port}"\n', encoding="utf-8")
        with started(command, config, port, ready_s=ready_s, cancelled=cancelled) as process:
            yield process.url


class Launched:
    """A target that we started: where it listens, and what became of it."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes], port: int) -> None:
        self._process, self._output, self._port = process, output, port
        self.url = f"http://127.0.0.1:{port}"

    def end(self, patience_s: float = 0.0) -> str:
        """Return how the process ended, in words; nothing while it runs for that long."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return ""
        how = f"with status {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
        return f"the target ended {how}{_last_line(self._output)}"

    def await_ready(self, ready_s: float, cancelled: threading.Event) -> None:
        """Return once it answers; a ``/readyz`` that says 503 gets a little patience.

        Raises:
            NotLaunched: it ended, or nothing answered within ``ready_s``.
        """
        until = time.monotonic() + ready_s
        heard = math.inf
        while time.monotonic() < until and not cancelled.wait(_PAUSE_S):
            end = self.end()
            if end:
                raise NotLaunched(end)
            state = _state(self._port)
            if state == _NOT_READY:
                heard = min(heard, time.monotonic())
            if state == _READY or time.monotonic() - heard > _UNREADY_S:
                end = self.end(_PAUSE_S)  # somebody else may have answered
                if end:
                    raise NotLaunched(end)
                return
        if cancelled.is_set():
            raise NotLaunched("the run ended before the target listened")
        raise NotLaunched(
            f"nothing listened on port {self._port} within {ready_s:g} s"
            f"{_last_line(self._output)}; does the command use {{port}} or {{config}}?"
        )


@contextmanager
def started(
    command: str,
    config: Path,
    port: int,
    *,
    world: str = "",
    ready_s: float = _READY_S,
    cancelled: threading.Event | None = None,
) -> Iterator[Launched]:
    """Run ``command`` with ``{port}``, ``{config}`` and ``{world}`` filled in.

    Raises:
        UnusableCommand: unbalanced quotes, or nothing to run.
        NotLaunched: it ended, or nothing listened within ``ready_s``; says how to look further.
    """
    words = [_filled(word, config, port, world) for word in launch_words(command)]
    with tempfile.TemporaryFile("w+b") as output:
        process = _start(words, output)
        try:
            target = Launched(process, output, port)
            target.await_ready(ready_s, cancelled or threading.Event())
            yield target
        finally:
            _stop(process)


def launch_words(command: str) -> list[str]:
    """Return the words of a launch command.

    Raises:
        UnusableCommand: unbalanced quotes, or nothing to run.
    """
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise UnusableCommand(f"--launch: {fault}") from None
    if not words:
        raise UnusableCommand("--launch: nothing to run")
    return words


def _filled(word: str, config: Path, port: int, world: str) -> str:
    known = {"{port}": str(port), "{config}": str(config), "{world}": world}
    for name, value in known.items():
        word = word.replace(name, value)
    return word


def _start(words: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 (the user's own command)
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as fault:
        raise NotLaunched(f"cannot run {words[0]!r}: {fault.strerror}") from None


_READY, _NOT_READY, _SILENT = "ready", "not ready", "silent"


def _state(port: int) -> str:
    """Return whether something answers HTTP on ``port`` and does not call itself unready."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        return _NOT_READY if connection.getresponse().status == 503 else _READY
    except ConnectionRefusedError:
        return _SILENT
    except (OSError, HTTPException):
        # Something listens, and may be no HTTP at all: the run itself will tell.
        return _READY if _listens(port) else _SILENT
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), _ANSWER_S).close()
    except OSError:
        return False
    return True


def _last_line(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    said = os.pread(output.fileno(), _LAST_BYTES, max(0, end - _LAST_BYTES))
    lines = _PRINTABLE.sub(" ", said.decode("utf-8", "replace")).strip().splitlines()
    return f"; its last words: {Redactor(most=300).text(lines[-1].strip())}" if lines else ""


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
