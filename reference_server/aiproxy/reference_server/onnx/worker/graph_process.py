"""A graph in a process of its own, so that a fault of its device ends that process alone.

The parent is a ``vectors.session.Session``; arrays travel as their bytes over a socket. A process
that ends or gives no answer is killed; the next call after a pause starts another.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from aiproxy.reference_server.onnx.devices import CUDA, Device
from aiproxy.reference_server.onnx.devices.nvidia import worker_environment
from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable
from aiproxy.reference_server.onnx.folders.graphs import Value

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.vectors.session import Feeds

log = logging.getLogger(__name__)

#: Seconds a process may take to load its graph, to compute one batch, and to end.
START_S: Final = 300.0
COMPUTE_S: Final = 60.0
_END_S: Final = 5.0
#: Seconds before another is started after a fault: at first, and at most.
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """An array: numpy's name of its element type, its shape, its elements in C order."""

    type: str
    shape: tuple[int, ...]
    data: bytes


class Open(msgspec.Struct, frozen=True):
    """The first message to a process."""

    path: str
    device: Device


class Opened(msgspec.Struct, frozen=True):
    """Its answer: what the graph takes and gives, or why it cannot be loaded."""

    inputs: dict[str, Value] = {}
    outputs: dict[str, Value] = {}
    problem: str | None = None


class Compute(msgspec.Struct, frozen=True):
    feeds: dict[str, Tensor]
    outputs: tuple[str, ...]


class Computed(msgspec.Struct, frozen=True):
    """The outputs asked for, or what failed in this call alone."""

    outputs: dict[str, Tensor] = {}
    problem: str | None = None


Answer = TypeVar("Answer", Opened, Computed)


_LOST: Final = "its process failed and is started again"


class CallFailed(Exception):
    """The graph refused one call; the process lives on."""


class GraphProcess:
    """A session of the graph at ``path`` on ``device``, elsewhere.

    Raises:
        ModelUnavailable: it cannot be loaded there.
    """

    def __init__(
        self,
        path: Path,
        device: Device,
        *,
        compute_s: float = COMPUTE_S,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._open = Open(str(path), device)
        self._compute_s = compute_s
        self._first_pause_s = self._pause_s = pause_s
        self._name = path.name
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Connection | None = None
        self._owner = os.getpid()
        self._lost_at: float | None = None
        self._lost: str | None = None
        self._closed = False
        opened = self._start()
        self.inputs: Mapping[str, Value] = opened.inputs
        self.outputs: Mapping[str, Value] = opened.outputs

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def lost(self) -> str | None:
        """Why nothing computes now, or None. A later call starts another process."""
        process = self._process
        if self._owner != os.getpid():
            return None  # forked: the first call here starts one
        if process is None or process.poll() is not None:
            return _LOST
        return self._lost

    def run(self, feeds: "Feeds", outputs: Sequence[str]) -> Mapping[str, Any]:
        """Compute there.

        Raises:
            ModelUnavailable: the process was lost, in this call or shortly before.
            CallFailed: the graph refused these arrays.
        """
        message = Compute({name: pack(array) for name, array in feeds.items()}, tuple(outputs))
        with self._lock:
            self._revive()
            answer = self._ask(msgspec.msgpack.encode(message), Computed, self._compute_s)
        self._pause_s = self._first_pause_s
        if answer.problem is not None:
            raise CallFailed(answer.problem)
        return {name: unpack(tensor) for name, tensor in answer.outputs.items()}

    def close(self) -> None:
        """End the process; a computation that is under way has some seconds, then it fails."""
        self._closed = True
        process = self._process
        if not self._lock.acquire(timeout=_END_S):
            # Who computes holds the lock until its process answers, or is gone.
            if process is not None and self._owner == os.getpid():
                process.kill()
            self._lock.acquire()
        try:
            self._end()
        finally:
            self._lock.release()

    def _start(self) -> Opened:
        ours, theirs = socket.socketpair()
        device = self._open.device
        with theirs:
            self._link = Connection(ours.detach())
            self._process = subprocess.Popen(  # noqa: S603 - our own module and a number
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=dict(worker_environment(device)),
            )
        # The only GPU it sees is its first.
        inside = replace(device, index=0) if device.kind == CUDA else device
        first = msgspec.msgpack.encode(Open(self._open.path, inside))
        opened = self._ask(first, Opened, START_S)
        if opened.problem is not None:
            self._end()
            raise ModelUnavailable(opened.problem)
        return opened

    def _revive(self) -> None:
        if self._closed:
            raise ModelUnavailable("it is unloaded")
        if self._owner != os.getpid():
            # A process forked from the one that started it shares no socket with its child.
            self._owner, self._process, self._link, self._lost_at = os.getpid(), None, None, 0.0
        if self._link is not None:
            return
        if time.monotonic() - (self._lost_at or 0.0) < self._pause_s:
            raise ModelUnavailable("its process failed and is started again soon")
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._lost_at = time.monotonic()
        log.warning("%s: starting another process", self._name)
        self._start()
        self._lost = None

    def _ask(self, message: bytes, answer: type[Answer], patience_s: float) -> Answer:
        link = self._link
        assert link is not None
        try:
            link.send_bytes(message)
            if not link.poll(patience_s):
                raise TimeoutError
            return msgspec.msgpack.decode(link.recv_bytes(), type=answer)
        except (OSError, EOFError, msgspec.DecodeError) as lost:
            code = self._end()
            self._lost, self._lost_at = _LOST, time.monotonic()
            log.error(
                "%s: its process was lost (%s, exit %s)", self._name, type(lost).__name__, code
            )
            raise ModelUnavailable(_LOST) from lost

    def _end(self) -> int | None:
        """End the process, if it is ours; return its exit code."""
        link, process = self._link, self._process
        self._link = self._process = None
        if link is not None:
            link.close()  # it ends by itself when it reads that
        if process is None or self._owner != os.getpid():
            return None
        try:
            return process.wait(_END_S if self._closed else 0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def pack(array: Any) -> Tensor:
    whole = np.ascontiguousarray(array)
    return Tensor(whole.dtype.name, array.shape, whole.tobytes())


def unpack(tensor: Tensor) -> Any:
    return np.frombuffer(tensor.data, np.dtype(tensor.type)).reshape(tensor.shape)


def main(descriptor: int) -> None:
    """Open one graph and compute with it until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this is over
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Connection(descriptor)
    try:
        asked = msgspec.msgpack.decode(link.recv_bytes(), type=Open)
        try:
            from aiproxy.reference_server.onnx.vectors.pytorch import open_graph

            session = open_graph(Path(asked.path), asked.device)
        except ModelUnavailable as unavailable:
            link.send_bytes(msgspec.msgpack.encode(Opened(problem=unavailable.reason)))
            return
        link.send_bytes(msgspec.msgpack.encode(Opened(dict(session.inputs), dict(session.outputs))))
        while True:
            call = msgspec.msgpack.decode(link.recv_bytes(), type=Compute)
            link.send_bytes(msgspec.msgpack.encode(compute(session, call)))
    except (EOFError, OSError):
        return


def compute(session: Any, call: Compute) -> Computed:
    feeds = {name: unpack(tensor) for name, tensor in call.feeds.items()}
    try:
        made = session.run(feeds, call.outputs)
    except Exception as failed:
        if _sticky(failed):
            raise SystemExit(3) from failed
        return Computed(problem=f"{type(failed).__name__}: {failed}"[:500])
    return Computed({name: pack(array) for name, array in made.items()})


def _sticky(failed: Exception) -> bool:
    """Whether no later call can succeed: after such a fault CUDA answers every call with it."""
    if isinstance(failed, LocalError):
        return True
    text = str(failed).lower()
    return "cuda" in text and any(
        word in text
        for word in ("illegal memory", "unspecified launch", "device-side assert", "ecc")
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
