"""Whether this machine stood still: what happened meanwhile says little about the target."""

import threading
import time
from typing import Final

_BEAT_S: Final = 0.01
#: A beat that comes this much late is a standstill; a busy machine is seldom so late.
STILL_S: Final = 0.06


class Pulse:
    """Beats on a thread of its own from ``start`` to ``stop``, and notices when it could not."""

    def __init__(self) -> None:
        self._still_s = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def start(self) -> None:
        """Begin; again is no harm."""
        if not self._thread.is_alive() and not self._ended.is_set():
            self._thread.start()

    def take(self) -> float:
        """Return the seconds that the machine stood still since the last call."""
        with self._lock:
            found, self._still_s = self._still_s, 0.0
        return found

    def stop(self) -> None:
        """End; ``take`` still tells the rest."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_BEAT_S):
            now = time.monotonic()
            late = now - last - _BEAT_S
            if late > STILL_S:
                with self._lock:
                    self._still_s += late
            last = now
