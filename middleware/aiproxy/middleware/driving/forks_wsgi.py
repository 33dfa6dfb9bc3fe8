"""Effects under WSGI, with branches that run side by side on threads of their own."""

import time
from collections.abc import Generator, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from aiproxy.middleware.effects import (
    Call,
    Close,
    Consult,
    Effect,
    Ending,
    Failure,
    Fork,
    Outcome,
    Read,
    Told,
    Wait,
)
from aiproxy.middleware.providers.interrupts import Interrupt
from aiproxy.middleware.providers.progress import UNFINISHED
from aiproxy.middleware.providers.sync import SyncAppCaller, SyncTransports


def perform(
    effect: Effect,
    transports: SyncTransports,
    app: SyncAppCaller,
    opened: list[object],
    interrupt: Interrupt | None = None,
) -> Outcome:
    """Perform any effect but ``Start`` and ``Send``. ``opened`` holds the streams still open;
    ``interrupt`` can end whatever waits here, from another thread."""
    if isinstance(effect, Read):
        return transports.read(effect, interrupt)
    if isinstance(effect, Call):
        if interrupt is not None and interrupt.fired:
            return UNFINISHED
        answer = transports.call(effect, app, interrupt)
        stream = getattr(answer, "stream", None)
        if stream is not None:
            opened.append(stream)
        return answer
    if isinstance(effect, Close):
        transports.close_stream(effect.stream)
        opened[:] = [one for one in opened if one is not effect.stream]
    elif isinstance(effect, Wait):
        if interrupt is None:
            time.sleep(effect.seconds)
        else:
            interrupt.sleep(effect.seconds)
    elif isinstance(effect, Consult):
        try:
            return Told(effect.ask())
        except OSError as error:
            return Failure("store_unavailable", type(error).__name__)
    elif isinstance(effect, Fork):
        return _Threads(effect, transports, app, opened, interrupt).run()
    return None


class _Threads:
    """One thread a branch. The lock is held wherever a branch's own code runs."""

    def __init__(
        self,
        fork: Fork,
        transports: SyncTransports,
        app: SyncAppCaller,
        opened: list[object],
        outer: Interrupt | None,
    ) -> None:
        self._fork = fork
        self._transports = transports
        self._app = app
        self._opened = opened
        self._outer = outer
        # Branches of a branch take turns with everybody else's.
        self._lock = Lock() if outer is None else outer.turn
        self._over: SimpleQueue[int] = SimpleQueue()
        self._interrupts = [Interrupt(self._lock) for _ in fork.branches]

    def run(self) -> list[Ending]:
        fork = self._fork
        if self._outer is not None:
            self._outer.also(self._interrupts)
        threads = [
            Thread(target=self._branch, args=(place, flow), daemon=True, name="aiproxy-branch")
            for place, flow in enumerate(fork.branches)
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                self._over.get()
                left -= 1
                with self._lock:
                    if fork.enough(fork.endings):
                        break
        finally:
            self._stop()
        return fork.endings

    def _stop(self) -> None:
        """Leave what still runs: its thread ends by itself as soon as its call gives way."""
        with self._lock:
            for flow, ending in zip(self._fork.branches, self._fork.endings, strict=True):
                if ending.state == "running":
                    ending.state = "stopped"
                    flow.close()
        _fire(self._interrupts)

    def _branch(self, place: int, flow: Generator[Any, Any, Any]) -> None:
        ending, interrupt = self._fork.endings[place], self._interrupts[place]
        own: list[object] = []
        outcome: Outcome = None
        first = True
        try:
            while True:
                with self._lock:
                    if ending.state != "running":
                        return
                    if interrupt.fired:  # with the branch that these are branches of
                        ending.state = "stopped"
                        flow.close()
                        return
                    effect = next(flow) if first else flow.send(outcome)
                first = False
                outcome = perform(effect, self._transports, self._app, own, interrupt)
        except StopIteration as stop:
            with self._lock:
                if ending.state == "running":
                    ending.state, ending.value = "done", stop.value
                    self._opened += own
                    own = []
        except Exception as fault:  # noqa: BLE001 - whoever forked looks at it
            with self._lock:
                if ending.state == "running":
                    ending.state, ending.fault = "raised", fault
        finally:
            for stream in own:
                self._transports.close_stream(stream)
            self._over.put(place)


def _fire(interrupts: Sequence[Interrupt]) -> None:
    for interrupt in interrupts:
        interrupt.fire()
