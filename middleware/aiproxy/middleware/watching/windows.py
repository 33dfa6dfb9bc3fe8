"""What happened lately, in memory that does not grow: counts by steps of a window, and the last
latencies. Times are seconds of a monotonic clock; nothing here reads one."""

from array import array
from math import ceil
from typing import Final, NamedTuple

#: A window is forgotten in so many steps: a count is kept for the window less one step at least, and
#: never for longer than the window.
STEPS: Final = 30
#: Latencies kept of one target, and how many of the newest an estimate is made of.
KEPT: Final = 128
_ESTIMATED_OF: Final = 64
#: From so many latencies on the largest alone is never the estimate: one outlier moves nothing.
_ENOUGH: Final = 5


class Counts:
    """Answers, failures and output tokens of the last ``window_s`` seconds.

    ``answers`` and ``failures`` are sums as of the last ``turn``; ``total_answers`` and
    ``total_failures`` only ever grow.
    """

    __slots__ = (
        "_answers",
        "_at",
        "_began",
        "_failures",
        "_step_s",
        "_tokens",
        "answers",
        "failures",
        "tokens",
        "total_answers",
        "total_failures",
        "window_s",
    )

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._step_s = window_s / STEPS
        self.total_answers = self.total_failures = 0
        self._at = 0
        self.clear()

    def clear(self) -> None:
        """Forget the window."""
        self._answers = [0] * STEPS
        self._failures = [0] * STEPS
        self._tokens = [0] * STEPS
        self.answers = self.failures = self.tokens = 0
        self._began: float | None = None

    def answered(self, now: float) -> None:
        at = int(now // self._step_s)
        if at > self._at:
            self.turn(now)
        if self._began is None:
            self._began = now
        self._answers[self._at % STEPS] += 1
        self.answers += 1
        self.total_answers += 1

    def failed(self, now: float) -> None:
        self.turn(now)
        if self._began is None:
            self._began = now
        self._failures[self._at % STEPS] += 1
        self.failures += 1
        self.total_failures += 1

    def wrote(self, tokens: int) -> None:
        """Count output tokens in the step of the last answer."""
        self._tokens[self._at % STEPS] += tokens
        self.tokens += tokens

    def turn(self, now: float) -> None:
        """Forget what has become too old. A time before the newest step changes nothing."""
        at = int(now // self._step_s)
        passed = at - self._at
        if passed <= 0:
            return
        if passed >= STEPS:
            if self.answers or self.failures or self.tokens:
                self.clear()
        else:
            for step in range(self._at + 1, at + 1):
                place = step % STEPS
                self._answers[place] = self._failures[place] = self._tokens[place] = 0
            # summed anew: two threads here at once must not take the same step off twice
            self.answers = sum(self._answers)
            self.failures = sum(self._failures)
            self.tokens = sum(self._tokens)
        self._at = at

    def rewind(self, seconds: float) -> None:
        """The clock went back by so much: what is counted keeps its age."""
        back = round(seconds / self._step_s)
        self._at -= back
        for rows in (self._answers, self._failures, self._tokens):
            turned = back % STEPS
            rows[:] = rows[turned:] + rows[:turned]
        if self._began is not None:
            self._began -= seconds

    def error_rate(self, now: float) -> float:
        """Share of failures in the window, 0 without samples."""
        if not self.failures:
            return 0.0
        self.turn(now)
        samples = self.answers + self.failures
        return self.failures / samples if samples else 0.0

    def span_s(self, now: float) -> float:
        """How much of the window has been watched, at least one step."""
        if self._began is None:
            return self.window_s
        return max(self._step_s, min(self.window_s, now - self._began))

    def rows(self, now: float) -> list[tuple[float, int, int]]:
        """Age in seconds, answers and failures of each step that has any, oldest first."""
        self.turn(now)
        found = []
        for back in range(STEPS - 1, -1, -1):
            place = (self._at - back) % STEPS
            if self._answers[place] or self._failures[place]:
                age = max(0.0, now - (self._at - back) * self._step_s)
                found.append((age, self._answers[place], self._failures[place]))
        return found


class Estimate(NamedTuple):
    """Milliseconds: 95th percentiles and the mean of the newest latencies."""

    total_p95: float | None = None
    first_p95: float | None = None
    mean: float | None = None


class Percentiles(NamedTuple):
    """Milliseconds, by nearest rank."""

    p50: float
    p95: float
    p99: float


class Latencies:
    """The last latencies of answers: when, total and first byte in milliseconds.

    A ring that is filled from the first answer on: a target that nobody asks has none.
    """

    __slots__ = ("_next", "_ring", "keep_s", "taken")

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        self.taken = 0
        self._next = 0
        self._ring: array[float] = array("d")

    def add(self, now: float, total_ms: float, first_byte_ms: float) -> None:
        ring, place = self._ring, self._next
        if len(ring) < 3 * KEPT:
            ring.extend((now, total_ms, first_byte_ms))
            del ring[3 * KEPT :]  # two threads may both have found room for one
            self._next = len(ring) % (3 * KEPT)
        else:
            ring[place] = now
            ring[place + 1] = total_ms
            ring[place + 2] = first_byte_ms
            self._next = (place + 3) % (3 * KEPT)
        self.taken += 1

    def recent(self, now: float, most: int = KEPT) -> tuple[list[float], list[float]]:
        """The newest totals and first bytes, oldest first, of the time that counts."""
        ring, place = self._ring, self._next
        if len(ring) < 3 * KEPT:
            place = 0
        at = (ring[place::3] + ring[:place:3])[-most:]
        totals = (ring[place + 1 :: 3] + ring[1:place:3])[-most:].tolist()
        firsts = (ring[place + 2 :: 3] + ring[2:place:3])[-most:].tolist()
        since = now - self.keep_s
        if at and at[0] < since:
            old = sum(1 for when in at if when < since)
            return totals[old:], firsts[old:]
        return totals, firsts

    def oldest(self, now: float, most: int = _ESTIMATED_OF) -> float | None:
        """When the oldest latency that an estimate is made of was taken."""
        ring = self._ring
        place = 0 if len(ring) < 3 * KEPT else self._next
        since = now - self.keep_s
        return next((at for at in (ring[place::3] + ring[:place:3])[-most:] if at >= since), None)

    def rewind(self, seconds: float) -> None:
        """The clock went back by so much."""
        for place in range(0, len(self._ring), 3):
            self._ring[place] -= seconds

    def estimate(self, now: float) -> Estimate:
        """What limits and ranking go by."""
        totals, firsts = self.recent(now, _ESTIMATED_OF)
        if not totals:
            return Estimate()
        mean = sum(totals) / len(totals)
        totals.sort()
        firsts.sort()
        rank = ceil(0.95 * len(totals)) - 1
        if len(totals) >= _ENOUGH:
            rank = min(rank, len(totals) - 2)
        return Estimate(totals[rank], firsts[rank], mean)


def percentiles(samples: list[float]) -> Percentiles | None:
    """The percentiles of latencies in any order; ``None`` without one."""
    if not samples:
        return None
    ordered = sorted(samples)
    ranks = (max(0, ceil(share * len(ordered)) - 1) for share in (0.5, 0.95, 0.99))
    return Percentiles(*(ordered[rank] for rank in ranks))
