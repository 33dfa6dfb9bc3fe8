"""Virtual time: a queue of things to do, each at its moment."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Stuck(RuntimeError):
    """More happened than a run of this size can have in it: something asks for ever."""


class Timer:
    """Something to do later. ``cancel`` makes it nothing."""

    __slots__ = ("do", "told")

    def __init__(self, do: Callable[[Any], None], told: Any) -> None:
        self.do: Callable[[Any], None] | None = do
        self.told = told

    def cancel(self) -> None:
        self.do = None


class Clock:
    """Seconds since the start of the run. What is due at the same moment happens in the order in
    which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._queue: list[tuple[float, int, Timer]] = []
        self._asked = 0

    def at(self, moment: float, do: Callable[[Any], None], told: Any = None) -> Timer:
        """Call ``do(told)`` at ``moment``, or at once when that has passed."""
        timer = Timer(do, told)
        self._asked += 1
        heappush(self._queue, (max(moment, self.now), self._asked, timer))
        return timer

    def after(self, seconds: float, do: Callable[[Any], None], told: Any = None) -> Timer:
        return self.at(self.now + seconds, do, told)

    def run(self, until: float, most: int) -> None:
        """Do what is due up to ``until``; afterwards it is then, if anything was left to do.

        Raises:
            Stuck: more than ``most`` steps.
        """
        queue = self._queue
        while queue and queue[0][0] <= until:
            moment, _, timer = heappop(queue)
            do = timer.do
            if do is None:
                continue
            self.now = moment
            self.steps += 1
            if self.steps > most:
                raise Stuck(f"more than {most} steps by second {moment:.3f}")
            do(timer.told)
        if queue:
            self.now = max(self.now, until)
