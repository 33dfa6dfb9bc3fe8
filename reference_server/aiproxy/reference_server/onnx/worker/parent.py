"""A text model in a process of its own: a runner for the scheduler.

A fault of the device, a full memory or a kill ends the worker alone. The runner then raises
``RunnerLost``, and its engine restarts it.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.text import runner
from aiproxy.reference_server.onnx.text.runner import Capacity, Produced, RunnerLost, Traits
from aiproxy.reference_server.onnx.worker.messages import (
    Add,
    Drop,
    FromWorker,
    Refused,
    Stepped,
    WorkerSpec,
)
from aiproxy.reference_server.onnx.worker.process import END_S, Waker, WorkerProcess

__all__ = ["WorkerRunner", "WorkerSpec"]

#: Seconds without a message after which a worker counts as hung, by kind of device: a long prompt
#: is one step, and slow where there is no GPU.
_SILENT_S: Final[Mapping[str, float]] = {"cuda": 30.0, "cpu": 120.0}


class WorkerRunner:
    """See ``runner.Runner`` and ``engine.RemoteRunner``. ``wake`` and ``close`` may be called from
    any thread."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Start the worker and wait until it has opened its model.

        Raises:
            ModelUnavailable: it cannot be opened, or its process ends or takes too long.
        """
        self._spec = spec
        self._silent_s = spec.silent_s or _SILENT_S[spec.device.kind]
        self._waker = Waker()
        self._lock = threading.Lock()
        self._closed = False
        self._live: set[int] = set()
        self._refusals: dict[int, RequestRefused] = {}
        self._steps = self._steps_before = 0
        self._heard = 0.0
        self._process: WorkerProcess | None = None
        try:
            self._start(interruptible=False)
        except RunnerLost as lost:
            self.close()
            raise ModelUnavailable(lost.reason) from lost
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> Capacity:
        return self._capacity

    @property
    def traits(self) -> Traits:
        return self._traits

    @property
    def device(self) -> Device:
        return self._spec.device

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def pid(self) -> int | None:
        """The worker's process id; None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def wake(self) -> None:
        self._waker.wake()

    def refusal(self, key: int) -> RequestRefused | None:
        return self._refusals.pop(key, None)

    def add(self, sequence: runner.Sequence) -> None:
        with self._lock:
            process = self._mine()
            if not self._live:
                self._heard = time.monotonic()
            try:
                process.send(Add(sequence))
            except OverflowError as large:
                raise RequestRefused(
                    "invalid_value", "a number of the request has more than 64 bits", None
                ) from large
            self._live.add(sequence.key)

    def drop(self, key: int) -> None:
        with self._lock:
            self._live.discard(key)
            self._refusals.pop(key, None)
            if self._process is not None and self._process.owner == os.getpid():
                self._process.send(Drop(key))

    def step(self, patience_s: float) -> list[Produced]:
        with self._lock:
            process = self._mine()
            if self._live:
                patience_s = min(patience_s, self._heard + self._silent_s - time.monotonic())
            try:
                messages, _ = process.receive(max(0.0, patience_s))
            except RunnerLost:
                self._forget()
                raise
            now = time.monotonic()
            if messages:
                self._heard = now
            elif self._live and now - self._heard >= self._silent_s:
                process.kill()
                self._forget()
                raise RunnerLost(f"its process said nothing for {self._silent_s:g} s")
            return [part for message in messages for part in self._read(message)]

    def restart(self) -> None:
        with self._lock:
            if not self._closed:
                self._waker.rest()
            self._start(interruptible=True)

    def close(self) -> None:
        self._closed = True
        process = self._process
        if process is not None:
            process.hang_up()
        self._waker.wake()
        if not self._lock.acquire(timeout=END_S):
            if process is not None:
                process.kill()
            return
        try:
            self._forget()
            self._waker.close()
        finally:
            self._lock.release()

    def _start(self, *, interruptible: bool) -> None:
        self._forget()
        if self._closed:
            raise RunnerLost("it is closed")
        self._process = WorkerProcess(self._spec, self._waker)
        try:
            opened = self._process.open(interruptible=interruptible)
        except BaseException:
            self._forget(at_once=True)
            raise
        self._capacity, self._traits = opened.capacity, opened.traits

    def _mine(self) -> WorkerProcess:
        """Return the worker; a fork of the process that started it gets one of its own."""
        if self._process is None:
            raise RunnerLost("its process is gone")
        if self._process.owner != os.getpid():
            self._waker = Waker()
            try:
                self._start(interruptible=False)
            except ModelUnavailable as unavailable:
                raise RunnerLost(unavailable.reason) from unavailable
        return self._process

    def _forget(self, *, at_once: bool = False) -> None:
        process, self._process = self._process, None
        self._live.clear()
        self._refusals.clear()
        self._steps_before = self._steps
        if process is not None:
            if at_once:
                process.kill()
            process.end()

    def _read(self, message: FromWorker) -> Sequence[Produced]:
        if isinstance(message, Refused):
            if message.key not in self._live:
                return ()
            self._live.discard(message.key)
            self._refusals[message.key] = RequestRefused(
                message.code, message.message, message.param
            )
            return (Produced(message.key, finish="failed", error=message.code),)
        assert isinstance(message, Stepped)
        if message.steps:
            self._steps = self._steps_before + message.steps
        for part in message.produced:
            if part.finish is not None:
                self._live.discard(part.key)
        return message.produced
