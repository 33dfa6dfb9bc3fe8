"""What a mount does besides serving requests: the monitor's looks and the exchange of health with
other processes. One daemon thread a process, started when there is something to do.

A mount calls ``begin`` with its first request (or at start-up). Until a circuit opens there is no
thread, unless a shared store or ``monitor.interval`` is configured. Nothing here is on the path of a
request: a failure wakes the thread, which does the rest. ``explain`` and the simulator never call
``begin``. After a fork the child begins anew.
"""

import os
import threading
import weakref
from collections.abc import Callable
from logging import getLogger
from typing import TYPE_CHECKING

from aiproxy.middleware.providers.link import links_of
from aiproxy.middleware.registry import Model, Provider
from aiproxy.middleware.state import Sharing, open_sharing
from aiproxy.middleware.watching.monitor import Monitor, build_monitor

if TYPE_CHECKING:
    from aiproxy.middleware.gateway import Gateway

log = getLogger("aiproxy")

_everyone: "weakref.WeakSet[Background]" = weakref.WeakSet()


class Background:
    """``begun`` says whether ``begin`` was called in this process."""

    def __init__(self, gateway: "Gateway") -> None:
        self.begun = False
        self.monitor: Monitor = build_monitor(
            gateway, links_of(gateway.registry.providers.values())
        )
        self.sharing: Sharing | None = open_sharing(
            gateway.config, gateway.registry, gateway.runtime.jitter
        )
        self._registry = gateway.registry
        self._now: Callable[[], float] = gateway.runtime.now
        self._reset()
        _everyone.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Be ready for trouble; start what does not wait for it."""
        with self._lock:
            if self.begun:
                return
            self.begun = True
        reference = weakref.ref(self)

        def failed(model: Model) -> None:
            background = reference()
            if background is not None and background.begun:
                background._failed(model)

        self._registry.on_failure = failed
        if self.sharing is not None or self.monitor.always:
            self._start()

    def close(self) -> None:
        """End the thread, which gives the store's connection back; a later ``begin`` starts over."""
        with self._lock:
            self.begun = False
            self._thread = None
            self._wake.set()

    def forked(self) -> None:
        """Called in a child: it has none of the parent's threads."""
        self.begun = False
        self._reset()
        self.monitor.forget_looks()
        if self.sharing is not None:
            self.sharing.forked()

    def _failed(self, model: Model) -> None:
        idle = self.sharing is None and not self.monitor.enabled
        if not idle and (model.track.open_until or model.provider.track.open_until):
            if self._thread is None:
                self._start()
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or not self.begun:
                return
            wake = self._wake = threading.Event()
            reference = weakref.ref(self, lambda _: wake.set())
            self._thread = threading.Thread(
                target=_run, args=(reference, wake), name="aiproxy", daemon=True
            )
            self._thread.start()

    def step(self) -> float | None:
        """Do what is due; return the seconds until there is more, ``None`` when there is nothing."""
        waits: list[float] = []
        if self.sharing is not None:
            waits.append(self.sharing.step(self._now()))
        for provider in self.monitor.due(self._now()):
            self._look(provider)
        wait = self.monitor.next_in(self._now())
        if wait is not None:
            waits.append(wait)
        return min(waits) if waits else None

    def _look(self, provider: Provider) -> None:
        """Look from a thread of its own: a provider that does not answer holds up nobody."""
        look = threading.Thread(target=self._looked, args=(provider,), daemon=True)
        look.start()

    def _looked(self, provider: Provider) -> None:
        try:
            self.monitor.conclude(provider, self.monitor.look(provider, self._now))
        except Exception:
            self.monitor.give_up(provider)
            log.exception("the look at %s failed", provider.id)
        self._wake.set()

    def _over(self, wake: threading.Event) -> bool:
        """Whether the thread may end for want of work."""
        with self._lock:
            if wake.is_set() and self.begun:
                return False
            if self._thread is threading.current_thread():
                self._thread = None
            return True


def _run(reference: "weakref.ref[Background]", wake: threading.Event) -> None:
    while True:
        background = reference()
        if background is None:
            return
        if background._thread is not threading.current_thread():
            if background.sharing is not None:
                background.sharing.close()
            return
        wake.clear()
        try:
            wait = background.step()
        except Exception:
            log.exception("the background work of aiproxy failed; it goes on")
            wait = 1.0
        if wait is None:
            if background._over(wake):
                return
            continue
        background = None
        wake.wait(wait)


def _after_fork() -> None:
    for background in list(_everyone):
        background.forked()


os.register_at_fork(after_in_child=_after_fork)
