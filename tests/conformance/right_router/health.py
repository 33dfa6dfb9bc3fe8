"""What is known of a model at a provider, learned from the calls themselves.

A blocked track (it said Retry-After, or its circuit is open) keeps a candidate out; a cooling one
only ranks it last. Times are seconds of the monotonic clock.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from right_router.settings import seconds

LATENCY_WINDOW_S = 300.0


class Track:
    """Outcomes, latencies and the circuit of one model at one provider."""

    def __init__(self, health: "Health", *, free: bool = False) -> None:
        self.health, self.free = health, free
        self.outcomes: deque[tuple[float, bool]] = deque(maxlen=512)
        self.latencies: deque[tuple[float, float, float]] = deque(maxlen=64)
        self.in_flight = 0
        self.in_row = 0
        self.blocked_until = self.cooling_until = self.open_until = self.probing_until = 0.0
        self.pause_s = health.probe_after_s
        self.refused = False

    def succeeded(self, total_ms: float, first_ms: float) -> None:
        """Count an answer; a probe that succeeds closes the circuit."""
        now = time.monotonic()
        self.outcomes.append((now, True))
        self.latencies.append((now, total_ms, first_ms))
        self.in_row, self.cooling_until, self.probing_until = 0, 0.0, 0.0
        if self.open_until and self.health.has("circuit-never-closes"):
            self.open_until = now + self.pause_s
        elif self.open_until:
            self.open_until, self.pause_s = 0.0, self.health.probe_after_s
            self.outcomes.clear()

    def failed(
        self, wait_s: float | None = None, *, total_ms: float | None = None, busy: bool = False
    ) -> None:
        """Count a failure; ``wait_s`` is what the provider asked for, ``busy`` that it said so."""
        now, health = time.monotonic(), self.health
        self.outcomes.append((now, False))
        self.in_row += 1
        self.probing_until = 0.0
        if total_ms is not None and health.has("failures-count-as-latency"):
            self.latencies.append((now, total_ms, total_ms))
        if busy and not health.has("no-cooling"):
            pause_s = 0.5 * 2 ** min(self.in_row - 1, 6)
            self.cooling_until = now + min(health.probe_after_s, pause_s)
        if wait_s is not None and health.has("hasty"):
            self.cooling_until = 0.0
        elif wait_s is not None and not health.has("retry-after-ignored"):
            self.blocked_until = now + min(wait_s, 3600.0)
        if self.open_until:
            self.pause_s = min(health.probe_max_s, self.pause_s * 2)
            if health.has("no-back-off"):
                self.pause_s = health.probe_after_s
            if health.has("pauses-shrink"):
                self.pause_s = 0.02
            self.open_until = now + self.pause_s
        elif health.aware and self.too_many_errors(now):
            self.open_until = now + self.pause_s

    def too_many_errors(self, now: float) -> bool:
        """Return whether the window holds enough calls, and too many failures among them."""
        recent = [ok for at, ok in self.outcomes if at >= now - self.health.window_s]
        least = self.health.min_samples
        if self.health.has("circuit-opens-at-once") and least == 5:
            least = 1
        return len(recent) >= least and recent.count(False) / len(recent) > self.health.threshold

    def error_rate(self) -> float:
        """Return the share of failures in the window; 0 without calls."""
        since = time.monotonic() - self.health.window_s
        recent = [ok for at, ok in self.outcomes if at >= since]
        return recent.count(False) / len(recent) if recent else 0.0

    def blocked_for(self) -> float:
        """Return the seconds until it may be asked; a due probe may go at once, but only one."""
        if self.refused and self.free and self.health.has("down-for-good"):
            return 3600.0
        until = self.blocked_until
        if self.health.aware and self.open_until and not self.health.has("circuit-never-opens"):
            until = max(until, self.open_until, self.probing_until)
        return max(0.0, until - time.monotonic())

    def begin(self) -> None:
        """A call starts; with an open circuit it is the probe nobody may join."""
        self.in_flight += 1
        if self.open_until and not self.health.has("probes-in-crowds"):
            self.probing_until = time.monotonic() + 30.0

    def end(self) -> None:
        """A call is over."""
        self.in_flight -= 1

    def cooling(self) -> bool:
        """Return whether it failed a moment ago."""
        return self.cooling_until > time.monotonic()

    def latency_ms(self, *, first: bool) -> float | None:
        """Return the 95th percentile of the last five minutes, None without a sample."""
        since = time.monotonic() - LATENCY_WINDOW_S
        samples = sorted(row[2 if first else 1] for row in self.latencies if row[0] >= since)
        if not samples:
            return None
        if self.health.has("latency-mean"):
            return sum(samples) / len(samples)
        return samples[ceil(0.95 * len(samples)) - 1]

    def mean_ms(self) -> float | None:
        """Return the mean latency of the window, None without a sample."""
        samples = [row[1] for row in self.latencies]
        return round(sum(samples) / len(samples), 3) if samples else None


class Health:
    """The tracks of a router, by model, and its thresholds."""

    def __init__(
        self, told: Mapping[str, Any], balancing: Mapping[str, Any], has: Callable[[str], bool]
    ) -> None:
        self.has = has
        self.aware = balancing.get("health_aware", True) and not has("health-ignored")
        self.threshold = balancing.get("unhealthy_threshold", 0.5)
        if has("threshold-fixed"):
            self.threshold = 0.5
        self.window_s = seconds(told.get("window"), 60.0)
        self.min_samples = told.get("min_samples", 10)
        self.probe_after_s = seconds(told.get("probe_after"), 5.0)
        self.probe_max_s = seconds(told.get("probe_max"), 60.0)
        self._tracks: dict[Any, Track] = {}
        self._lock = threading.Lock()

    def track(self, model: Any) -> Track:
        """Return the track of a model at its provider."""
        with self._lock:
            free = model.price is not None and not any(model.price)
            return self._tracks.setdefault(model, Track(self, free=free))
