"""A worker process as its parent holds it: started, spoken to, listened to, ended."""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Final

from aiproxy.reference_server.onnx.devices.nvidia import worker_environment
from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.text.runner import RunnerLost
from aiproxy.reference_server.onnx.worker.messages import (
    Frames,
    FromWorker,
    Lost,
    Open,
    Opened,
    ToWorker,
    Unfit,
    WorkerSpec,
    pack,
    read_from_worker,
)

log = logging.getLogger(__name__)

#: Seconds a worker has to end by itself.
END_S: Final = 5.0
_CHUNK: Final = 1 << 20
#: Lines of a worker's standard error that are logged, and characters of each.
_MOST_LINES: Final = 200
_LONGEST_LINE: Final = 500
_COMMAND: Final = (sys.executable, "-P", "-m", "aiproxy.reference_server.onnx.worker.child")


class Waker:
    """Lets another thread end a wait."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        try:
            os.write(self._write, b"w")
        except BlockingIOError:
            pass  # full: it is awake
        except OSError:
            pass  # closed: nobody waits

    def rest(self) -> bool:
        """Return whether somebody woke it since the last time."""
        try:
            return bool(os.read(self._read, _CHUNK))
        except BlockingIOError:
            return False

    def close(self) -> None:
        write, self._write = self._write, -1
        read, self._read = self._read, -1
        for end in (write, read):
            if end >= 0:
                os.close(end)


class WorkerProcess:
    """One process that runs ``spec``. For one thread at a time, but for ``hang_up``."""

    def __init__(self, spec: WorkerSpec, waker: Waker) -> None:
        """Start it; nothing is waited for."""
        self._spec = spec
        self._waker = waker
        self._frames = Frames()
        self._out = bytearray()
        self._said = bytearray()
        self._lines = 0
        self.owner: Final = os.getpid()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                    [*_COMMAND, str(theirs.fileno()), str(self.owner)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env={**worker_environment(spec.device), "ORT_DISABLE_TELEMETRY": "1"},
                )
        except OSError as refused:
            ours.close()
            raise RunnerLost(f"its process cannot be started ({refused.strerror})") from refused
        assert self._process.stdout is not None
        self._link, self._pipe = ours, self._process.stdout
        ours.setblocking(False)
        os.set_blocking(self._pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        for source in (ours, self._pipe, waker):
            self._selector.register(source, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, *, interruptible: bool) -> Opened:
        """Return what the worker opened; with ``interruptible`` waking it gives up.

        Raises:
            ModelUnavailable: it cannot be opened.
            RunnerLost: the process ended, took too long, or was given up.
        """
        self.send(Open(self._spec))
        until = time.monotonic() + self._spec.start_timeout_s
        while (left_s := until - time.monotonic()) > 0:
            messages, woken = self.receive(left_s)
            for message in messages:
                if isinstance(message, Unfit):
                    raise ModelUnavailable(message.reason)
                assert isinstance(message, Opened)
                return message
            if woken and interruptible:
                raise RunnerLost("its start was given up")
        raise RunnerLost(f"its process was not ready after {self._spec.start_timeout_s:g} s")

    def send(self, message: ToWorker) -> None:
        """Send without waiting; what the socket does not take goes with the next ``receive``.

        Raises:
            OverflowError: the message holds a number of more than 64 bits.
        """
        self._out += pack(message)
        self._write()

    def receive(self, patience_s: float) -> tuple[list[FromWorker], bool]:
        """Return the next messages, none after ``patience_s``, and whether it was woken.

        Raises:
            RunnerLost: the process ended, or says that it can compute nothing any more.
        """
        until = time.monotonic() + patience_s
        found: list[FromWorker] = []
        woken = False
        while True:
            for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
                if key.fileobj is self._link:
                    found += self._read()
                elif key.fileobj is self._pipe:
                    self._log()
                else:
                    woken = self._waker.rest() or woken
            self._write()
            for message in found:
                if isinstance(message, Lost):
                    raise RunnerLost(message.reason)
            if found or woken or time.monotonic() >= until:
                return found, woken

    def _read(self) -> list[FromWorker]:
        try:
            data = self._link.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise RunnerLost(self._last_words())
        return [read_from_worker(content) for content in self._frames.feed(data)]

    def _write(self) -> None:
        if self._out:
            try:
                del self._out[: self._link.send(self._out)]
            except BlockingIOError:
                pass
            except OSError:
                self._out.clear()  # reading tells why
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if self._selector.get_key(self._link).events != wanted:
            self._selector.modify(self._link, wanted)

    def _log(self) -> None:
        data = self._pipe.read(_CHUNK)
        if data is None:
            return
        if not data:
            self._selector.unregister(self._pipe)
            data = b"\n"
        *lines, rest = (self._said + data).split(b"\n")
        self._said = bytearray(rest[:_CHUNK])
        for line in filter(None, lines):
            self._lines += 1
            if self._lines > _MOST_LINES:
                return
            text = line[:_LONGEST_LINE].decode("utf-8", "replace")
            level = logging.INFO if text.startswith("INFO ") else logging.WARNING
            log.log(level, "worker of %s: %s", self._spec.name, text.removeprefix("INFO "))

    def _last_words(self) -> str:
        """Return how the process ended; what it said before is logged."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "its process hung up"
        if self._pipe in self._selector.get_map():
            self._log()
        if code >= 0:
            return f"its process ended with code {code}"
        try:
            return f"its process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"its process was ended by signal {-code}"

    def hang_up(self) -> None:
        """Tell the process to end; from any thread."""
        if self.owner != os.getpid():
            return  # the socket is shared with the one that this one was forked from
        try:
            self._link.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed, or the other side is gone

    def kill(self) -> None:
        """End the process at once; from any thread."""
        if self.owner == os.getpid():
            self._process.kill()

    def end(self) -> None:
        """End the process, after some seconds by force, and give everything back."""
        if self.owner != os.getpid():
            self._abandon()
            return
        self.hang_up()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _abandon(self) -> None:
        """Leave the process to the one that this one was forked from."""
        self._process.returncode = 0  # else its destructor would look after it
        self._close()

    def _close(self) -> None:
        self._selector.close()
        self._link.close()
        self._pipe.close()
