"""Mirrored requests under WSGI: each has a thread of its own, beside those that clients wait for."""

from collections.abc import Sequence
from threading import Lock, Thread

from aiproxy.middleware.answering.mirrors import Mirrored
from aiproxy.middleware.driving.forks_wsgi import perform
from aiproxy.middleware.effects import Fork
from aiproxy.middleware.providers.interrupts import Interrupt
from aiproxy.middleware.providers.sync import SyncAppCaller, SyncTransports

#: How long shutting down waits for a mirrored request that was told to give way.
_GIVE_WAY_S = 1.0


class MirrorThreads:
    """The mirrored requests under way of one mount."""

    __slots__ = ("_lock", "_running")

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[Thread, Interrupt] = {}

    def start(
        self, flows: Sequence[Mirrored], transports: SyncTransports, app: SyncAppCaller
    ) -> None:
        for flow in flows:
            interrupt = Interrupt()
            thread = Thread(
                target=self._run,
                args=(flow, transports, app, interrupt),
                daemon=True,
                name="aiproxy-mirror",
            )
            with self._lock:
                self._running[thread] = interrupt
            thread.start()

    def _run(
        self,
        flow: Mirrored,
        transports: SyncTransports,
        app: SyncAppCaller,
        interrupt: Interrupt,
    ) -> None:
        opened: list[object] = []
        try:
            perform(Fork([flow]), transports, app, opened, interrupt)
        finally:
            for stream in opened:
                transports.close_stream(stream)
            with self._lock:
                for thread, one in list(self._running.items()):
                    if one is interrupt:
                        del self._running[thread]

    def close(self) -> None:
        """Close what is under way, connections too."""
        with self._lock:
            running = dict(self._running)
        for interrupt in running.values():
            interrupt.fire()
        for thread in running:
            thread.join(_GIVE_WAY_S)
