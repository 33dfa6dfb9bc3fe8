"""Ending a blocking call from another thread."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Lock


class Interrupt:
    """Ends the waiting of one thread: its sleep at once, its call by shutting the socket down.

    A connection that is still being made is not cut short; its limit holds. ``turn`` is held by
    whoever runs a branch's own code.
    """

    def __init__(self, turn: "Lock | None" = None) -> None:
        self.turn = Lock() if turn is None else turn
        self._fired = Event()
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._inner: Sequence[Interrupt] = ()

    @property
    def fired(self) -> bool:
        return self._fired.is_set()

    def sleep(self, seconds: float) -> None:
        """Sleep, or return early when fired."""
        self._fired.wait(seconds)

    def watch(self, sock: socket.socket | None) -> None:
        """From now on ``fire`` shuts this socket down; ``None`` for no socket."""
        with self._lock:
            self._socket = sock
            if sock is not None and self._fired.is_set():
                _shut(sock)

    def also(self, inner: Sequence["Interrupt"]) -> None:
        """Fire these, too."""
        with self._lock:
            self._inner = inner
        if self._fired.is_set():
            self.fire()

    def fire(self) -> None:
        self._fired.set()
        with self._lock:
            inner, sock = self._inner, self._socket
            if sock is not None:
                _shut(sock)
        for one in inner:
            one.fire()


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
