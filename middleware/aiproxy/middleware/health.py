"""What is known of a provider's condition, learned from the calls themselves.

A ``Track`` holds one model at one provider, or a whole provider. Two kinds of unavailability:
*blocked* (the provider named a time with Retry-After, or the circuit is open) keeps a candidate
out; *cooling* (our own back-off after a failure) only ranks it last, so that a lone provider is
still asked. Times are seconds of a monotonic clock handed in by the caller.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

#: Latencies older than this do not count for estimates (XAI-HDR-061).
LATENCY_WINDOW_S: Final = 300.0
_KEEP_LATENCIES: Final = 64
#: Up to so many samples an estimate is always fresh, above it as old as ``_ESTIMATE_FOR_S``.
_FEW_LATENCIES: Final = 16
_ESTIMATE_FOR_S: Final = 0.1
#: A longer Retry-After is looked at again after this: a wrong date would block for ever.
_LONGEST_BLOCKED_S: Final = 3600.0
_FIRST_COOLING_S: Final = 0.5
_LONGEST_COOLING_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a circuit opens and for how long (``routing.load_balancing``, ``routing.health``).

    It opens above ``error_rate`` among at least ``min_samples`` outcomes of the last ``window_s``
    seconds, is probed after ``probe_after_s``, doubling up to ``probe_max_s``. ``enabled`` is
    ``health_aware``.
    """

    enabled: bool = True
    error_rate: float = 0.5
    window_s: float = 60.0
    min_samples: int = 10
    probe_after_s: float = 5.0
    probe_max_s: float = 60.0


class Track:
    """Outcomes and latencies of one target. Not locked: every change is a few bytecode steps and
    a lost update under threads costs one sample."""

    __slots__ = (
        "_changed",
        "_estimated_at",
        "_estimates",
        "_failed_at",
        "_latencies",
        "_open_for",
        "_outcomes",
        "_probing_until",
        "blocked_until",
        "cooling_until",
        "failures_in_row",
        "in_flight",
        "open_until",
        "thresholds",
    )

    def __init__(self, thresholds: Thresholds = Thresholds()) -> None:
        self.thresholds = thresholds
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=256)
        self._latencies: deque[tuple[float, float, float]] = deque(maxlen=_KEEP_LATENCIES)
        self._estimates: tuple[float | None, float | None, float | None] | None = None
        self._estimated_at = 0.0
        self._changed = False
        self._failed_at = -inf
        self.failures_in_row = 0
        self.in_flight = 0
        self.cooling_until = 0.0
        self.blocked_until = 0.0
        self.open_until = 0.0
        self._open_for = self.thresholds.probe_after_s
        self._probing_until = 0.0

    def succeeded(self, now: float, total_ms: float, first_byte_ms: float) -> None:
        self._outcomes.append((now, True))
        self._latencies.append((now, total_ms, first_byte_ms))
        self._changed = True
        self._forgive()

    def recovered(self, now: float) -> None:
        """A model of this provider answered: its failures weigh against that, and end in a row.

        Free while the provider has no failures on record.
        """
        if self._outcomes:
            self._outcomes.append((now, True))
            self._forgive()

    def _forgive(self) -> None:
        self.failures_in_row = 0
        self.cooling_until = 0.0
        if self.open_until:
            # the probe of a half-open circuit came back: close it and forget the bad window
            self.open_until = 0.0
            self._open_for = self.thresholds.probe_after_s
            self._outcomes.clear()

    def failed(
        self, now: float, jitter: Callable[[], float], *, retry_after_s: float | None = None
    ) -> None:
        """Count a failure; ``jitter`` returns a number in 0..1."""
        self._outcomes.append((now, False))
        self._failed_at = now
        self.failures_in_row += 1
        pause = min(_LONGEST_COOLING_S, _FIRST_COOLING_S * 2 ** min(self.failures_in_row - 1, 10))
        self.cooling_until = max(self.cooling_until, now + pause * (0.75 + 0.5 * jitter()))
        if retry_after_s is not None:
            self.blocked_until = max(
                self.blocked_until, now + min(retry_after_s, _LONGEST_BLOCKED_S)
            )
        if self.open_until:
            self._open_for = min(self.thresholds.probe_max_s, self._open_for * 2)
            self.open_until = now + self._open_for * (0.9 + 0.2 * jitter())
        elif self.thresholds.enabled and self._too_many_errors(now):
            self.open_until = now + self._open_for * (0.9 + 0.2 * jitter())

    def _too_many_errors(self, now: float) -> bool:
        while self._outcomes and self._outcomes[0][0] < now - self.thresholds.window_s:
            self._outcomes.popleft()
        if len(self._outcomes) < self.thresholds.min_samples:
            return False
        return self.error_rate(now) > self.thresholds.error_rate

    def error_rate(self, now: float) -> float:
        """Share of failures in the window, 0 without samples."""
        since = now - self.thresholds.window_s
        if self._failed_at < since:
            return 0.0
        recent = [ok for at, ok in self._outcomes if at >= since]
        return recent.count(False) / len(recent) if recent else 0.0

    def blocked_for(self, now: float) -> float:
        """Seconds until this target may be asked again; 0 when it may.

        A circuit past its time lets one request through as a probe: call ``begin_probe`` when
        that request is sent.
        """
        until = self.blocked_until
        if self.thresholds.enabled and self.open_until:
            until = max(until, self.open_until, self._probing_until)
        return max(0.0, until - now)

    def begin_probe(self, now: float, patience_s: float = 30.0) -> bool:
        """A request is on its way; while a circuit is half open no second one joins it.

        Return whether it is a probe: then call ``end_probe`` when it is over.
        """
        if not self.open_until:
            return False
        self._probing_until = now + patience_s
        return True

    def end_probe(self) -> None:
        self._probing_until = 0.0

    def cooling(self, now: float) -> bool:
        return self.cooling_until > now

    def latency_p95_ms(self, now: float, *, first_byte: bool) -> float | None:
        """95th percentile of the last five minutes; ``None`` without a sample."""
        estimates = self._current(now)
        return estimates[1] if first_byte else estimates[0]

    def latency_mean_ms(self, now: float) -> float | None:
        return self._current(now)[2]

    def _current(self, now: float) -> tuple[float | None, float | None, float | None]:
        """95th percentiles (total, first byte) and mean (total).

        While samples are many a new one changes little: then they are worked out again only after
        a moment, because sorting for every request would cost more than the rest of its ranking.
        """
        latencies = self._latencies
        expired = bool(latencies) and latencies[0][0] < now - LATENCY_WINDOW_S
        if self._estimates is not None and not expired:
            few = len(latencies) < _FEW_LATENCIES
            if not self._changed or not (few or now - self._estimated_at >= _ESTIMATE_FOR_S):
                return self._estimates
        while latencies and latencies[0][0] < now - LATENCY_WINDOW_S:
            latencies.popleft()
        self._changed = False
        self._estimated_at = now
        self._estimates = _estimates(list(latencies))
        return self._estimates


def _estimates(
    samples: list[tuple[float, float, float]],
) -> tuple[float | None, float | None, float | None]:
    if not samples:
        return None, None, None
    totals = sorted(total for _, total, _ in samples)
    firsts = sorted(first for _, _, first in samples)
    rank = ceil(0.95 * len(totals)) - 1
    return totals[rank], firsts[rank], sum(totals) / len(totals)
