"""How many calls a provider is sent at once, and who is next when one of them is over.

``max_concurrency`` calls run; ``max_queue`` requests may wait for a free place, ``max_queue_wait``
at most. A place that becomes free belongs to whoever has waited longest, so nobody is overtaken.
"""

from collections import deque
from dataclasses import dataclass
from threading import Lock


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the queue; ``called``: it has a place now."""

    called: bool = False


class Places:
    """The places of one provider; safe under threads. ``wait_s`` is the longest wait for one."""

    __slots__ = ("_lock", "_queue", "_taken", "limit", "most_waiting", "wait_s")

    def __init__(self, limit: int, most_waiting: int, wait_s: float) -> None:
        self.limit = limit
        self.most_waiting = most_waiting
        self.wait_s = wait_s
        self._taken = 0
        self._queue: deque[Ticket] = deque()
        self._lock = Lock()

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def take(self) -> bool:
        """Take a place if one is free and nobody waits for it; give it back with ``release``."""
        with self._lock:
            if self._queue or self._taken >= self.limit:
                return False
            self._taken += 1
            return True

    def queue(self) -> Ticket | None:
        """Join the queue, or return ``None`` when it is full. Every ticket is given to ``leave``,
        unless its place was taken over and is given back with ``release``."""
        with self._lock:
            if self._taken < self.limit and not self._queue:
                self._taken += 1
                return Ticket(called=True)
            if len(self._queue) >= self.most_waiting:
                return None
            ticket = Ticket()
            self._queue.append(ticket)
            return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give a ticket back, with the place it may have by now."""
        with self._lock:
            if ticket.called:
                self._pass_on()
            elif ticket in self._queue:
                self._queue.remove(ticket)

    def release(self) -> None:
        """A call is over."""
        with self._lock:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._queue:
            self._queue.popleft().called = True
        else:
            self._taken -= 1
