"""How many requests of the last minute were hedged (``routing.hedging.max_percent``)."""

from threading import Lock
from typing import Final

_WINDOW_S: Final = 60


class Hedges:
    """How many requests of the last minute there were, and how many were hedged; safe under
    threads. ``share`` is the most of them that may be, 0..1."""

    __slots__ = ("_hedged", "_lock", "_requests", "_second", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._requests = [0] * _WINDOW_S
        self._hedged = [0] * _WINDOW_S
        self._second = 0
        self._lock = Lock()

    def request(self, now: float) -> bool:
        """Count a request; return whether one more could be hedged."""
        with self._lock:
            self._advance(int(now))
            self._requests[self._second % _WINDOW_S] += 1
            return self._room()

    def take(self, now: float) -> bool:
        """Count a hedge, if there is room for one."""
        with self._lock:
            self._advance(int(now))
            if not self._room():
                return False
            self._hedged[self._second % _WINDOW_S] += 1
            return True

    def _room(self) -> bool:
        return sum(self._hedged) + 1 <= self.share * sum(self._requests)

    def _advance(self, second: int) -> None:
        for passed in range(self._second + 1, min(second, self._second + _WINDOW_S) + 1):
            self._requests[passed % _WINDOW_S] = self._hedged[passed % _WINDOW_S] = 0
        self._second = max(self._second, second)
