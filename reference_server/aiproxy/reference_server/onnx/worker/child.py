"""The worker process: opens one model and computes with it, as its parent says, until that is gone.

Started as ``python -m aiproxy.reference_server.onnx.worker.child FD PARENT``: the number of an
inherited socket, and the process that must stay alive. It knows token ids, no text. What
goes to its standard error ends in its parent's log.
"""

import faulthandler
import importlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, NoReturn

from aiproxy.reference_server.onnx.adapters import open_adapter
from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable
from aiproxy.reference_server.onnx.text.runner import Produced, Runner, RunnerLost
from aiproxy.reference_server.onnx.worker.messages import (
    Add,
    Drop,
    Frames,
    FromWorker,
    Lost,
    Open,
    Opened,
    Refused,
    Stepped,
    ToWorker,
    Unfit,
    WorkerSpec,
    pack,
    read_to_worker,
)

log = logging.getLogger(__name__)

#: Seconds after which steps without a token are reported.
BEAT_S: Final = 1.0
#: Seconds between two looks whether the parent is still the same.
_LOOK_S: Final = 2.0
_CHUNK: Final = 1 << 20


def main(arguments: Sequence[str]) -> None:
    link, parent = socket.socket(fileno=int(arguments[0])), int(arguments[1])
    # The parent ends its requests first; it decides when this process is no longer needed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutValues("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    threading.Thread(target=_follow, args=(link, parent), name="parent", daemon=True).start()
    Worker(link).serve()
    _leave()


class _WithoutValues(logging.Formatter):
    """Writes where an exception was raised and its type. What it says may quote a request."""

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        kind, _, place = ei
        named = kind.__name__ if kind is not None else "no exception"
        return "".join(traceback.format_tb(place)) + named


def _follow(link: socket.socket, parent: int) -> None:
    """End this process, whatever it is doing, when the parent hung up or died."""
    ends = select.poll()
    ends.register(link, 0)  # a hang-up is told unasked
    while not ends.poll(_LOOK_S * 1000) and os.getppid() == parent:
        pass
    os._exit(0)


class Worker:
    """The worker's side of the socket ``link``."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._ready = select.poll()
        self._ready.register(link, select.POLLIN)
        self._frames = Frames()
        self._arrived: list[ToWorker] = []

    def serve(self) -> None:
        """Open what the first message asks for and compute until told otherwise."""
        first = self._next()
        assert isinstance(first, Open), "a worker is first told what to open"
        try:
            runner = open_spec(first.spec)
        except MemoryError:
            self._send(Unfit("there is not enough memory to load it"))
        except ModelUnavailable as unavailable:
            self._send(Unfit(unavailable.reason))
        except Exception as fault:
            log.exception("the model could not be opened")
            self._send(Unfit(f"loading it failed ({type(fault).__name__})"))
        else:
            self._send(Opened(runner.capacity, runner.traits))
            self._generate(runner)

    def _generate(self, runner: Runner) -> None:
        live: set[int] = set()
        steps, told = 0, time.monotonic()
        while True:
            for message in self._receive(wait=not live):
                self._change(runner, live, message)
            if not live:
                continue
            try:
                produced = runner.step(0.0)
            except RunnerLost as lost:
                return self._send(Lost(lost.reason))
            except Exception as fault:
                log.exception("a step failed")
                return self._send(Lost(f"a step failed ({type(fault).__name__})"))
            steps += 1
            live.difference_update(part.key for part in produced if part.finish is not None)
            if produced or time.monotonic() - told > BEAT_S:
                self._send(Stepped(steps, tuple(produced)))
                told = time.monotonic()

    def _change(self, runner: Runner, live: set[int], message: ToWorker) -> None:
        if isinstance(message, Drop):
            live.discard(message.key)
            runner.drop(message.key)
            return
        assert isinstance(message, Add)
        key = message.sequence.key
        try:
            runner.add(message.sequence)
        except LocalError as refused:
            if refused.status >= 500:
                self._fail(key, refused.message)
            else:
                self._send(Refused(key, refused.code, refused.message, refused.param))
        except RunnerLost:
            live.add(key)  # the next step says so too
        except Exception as fault:
            log.exception("a sequence could not be begun")
            runner.drop(key)
            self._fail(key, type(fault).__name__)
        else:
            live.add(key)

    def _fail(self, key: int, error: str) -> None:
        self._send(Stepped(0, (Produced(key, finish="failed", error=error),)))

    def _next(self) -> ToWorker:
        while not self._arrived:
            self._arrived = self._receive(wait=True)
        return self._arrived.pop(0)

    def _receive(self, *, wait: bool) -> list[ToWorker]:
        found: list[ToWorker] = []
        while self._ready.poll(None if wait and not found else 0):
            data = self._link.recv(_CHUNK)
            if not data:
                _leave()
            found += map(read_to_worker, self._frames.feed(data))
        return found

    def _send(self, message: FromWorker) -> None:
        try:
            self._link.sendall(pack(message))
        except OSError:
            _leave()


def _leave() -> NoReturn:
    """End without the clean-up of libraries, which can hang and has nothing to save."""
    os._exit(0)


def open_spec(spec: WorkerSpec) -> Runner:
    """Return the runner that ``spec`` describes.

    Raises:
        ModelUnavailable: it cannot be opened.
    """
    if spec.device.kind == "cuda":
        spec = replace(spec, device=replace(spec.device, index=0))  # the only one it sees
    module, _, name = spec.adapter.partition(":")
    if name:
        opener: Callable[[WorkerSpec], Runner] = getattr(importlib.import_module(module), name)
        return opener(spec)
    assert spec.folder is not None
    return open_adapter(
        spec.adapter,
        spec.folder,
        spec.device,
        slots=spec.slots,
        context=spec.context,
        cache_tokens=spec.cache_tokens,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
