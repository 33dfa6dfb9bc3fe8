"""What is known of a provider's condition, learned from the calls themselves.

A ``Track`` holds one model at one provider, a whole provider, or one of several endpoints of a
provider. Two kinds of unavailability: *blocked* (the provider named a time with Retry-After, or the
circuit is open) keeps a candidate out; *cooling* (our own back-off after a failure, answers slower
than ``degraded_latency``, another process's word) only ranks it last, so that a lone provider is
still asked. Times are seconds of a monotonic clock handed in by the caller; one that goes back takes
everything with it, so that nothing is kept out for longer than was meant.

The circuit (ASC-CB-001 to 005) opens above an error rate over enough calls of a window. Once its
pause is over it is half open: one request at a time goes through as a probe. An answer closes it, a
failure opens it again for twice as long. Answers and failures of calls that were on their way when
it opened count in the window and move nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import Final, Literal, TypeAlias

from aiproxy.middleware.watching.windows import Counts, Estimate, Latencies

#: Latencies older than this do not count for estimates (XAI-HDR-061).
LATENCY_WINDOW_S: Final = 300.0
#: Up to so many samples an estimate is always fresh, above it as old as ``_ESTIMATE_FOR_S``.
_FEW_LATENCIES: Final = 16
_ESTIMATE_FOR_S: Final = 0.1
#: A longer Retry-After is looked at again after this: a wrong date would block for ever.
_LONGEST_BLOCKED_S: Final = 3600.0
_FIRST_COOLING_S: Final = 0.5
_LONGEST_COOLING_S: Final = 30.0
#: Threads may read the clock in another order than they tell us.
_CLOCK_SLACK_S: Final = 1.0
#: Somebody who takes a probe and never says how it went holds it no longer than this.
_PROBE_S: Final = 600.0
#: The last answers whose pace is judged, and how many of them must be slow.
_PACE_BITS: Final = 8
_SLOW_ENOUGH: Final = 3
_TIMELINE: Final = 64

State: TypeAlias = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a circuit opens and for how long (``routing.load_balancing``, ``routing.health``).

    It opens above ``error_rate`` among at least ``min_samples`` outcomes of the last ``window_s``
    seconds, is probed after ``probe_after_s``, doubling up to ``probe_max_s``. ``enabled`` is
    ``health_aware``. ``degraded_ms`` is the provider's ``degraded_latency``.
    """

    enabled: bool = True
    error_rate: float = 0.5
    window_s: float = 60.0
    min_samples: int = 10
    probe_after_s: float = 5.0
    probe_max_s: float = 60.0
    degraded_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a circuit; ``at`` is a time of the clock that the track is told."""

    at: float
    before: State
    after: State
    why: str

    def as_dict(self) -> dict[str, float | str]:
        return {"at": self.at, "from": self.before, "to": self.after, "why": self.why}


class Track:
    """Outcomes and latencies of one target. Not locked, but for the handing out of probes: every
    change is a few bytecode steps and a lost update under threads costs one sample.

    ``standing`` is what ``estimate`` returns up to ``stands_until``, if no call ends before.
    """

    __slots__ = (
        "_changed",
        "_estimate",
        "_estimated_at",
        "_expires_at",
        "_latest",
        "_open_for",
        "_pace",
        "_paced",
        "_paced_at",
        "_probing_until",
        "_retry_until",
        "_slow_for",
        "_told",
        "_told_until",
        "_transitions",
        "blocked_until",
        "cooling_until",
        "counts",
        "doubted_until",
        "failures_in_row",
        "in_flight",
        "latencies",
        "open_until",
        "shunned_until",
        "slow_until",
        "standing",
        "stands_until",
        "thresholds",
    )

    def __init__(self, thresholds: Thresholds = Thresholds()) -> None:
        self.thresholds = thresholds
        self.counts = Counts(thresholds.window_s)
        self.latencies = Latencies(LATENCY_WINDOW_S)
        self._estimate: Estimate | None = None
        self.standing = _NOTHING
        self.stands_until = -inf
        self._estimated_at = 0.0
        self._expires_at = 0.0
        self._changed = False
        self._latest = -inf
        self.failures_in_row = 0
        self.in_flight = 0
        self.cooling_until = 0.0
        self.blocked_until = 0.0
        self._retry_until = 0.0
        self.open_until = 0.0
        self._open_for = thresholds.probe_after_s
        self._probing_until = 0.0
        self._transitions: deque[Transition] | None = None
        self.slow_until = 0.0
        self._slow_for = thresholds.probe_after_s
        self._pace = self._paced = 0
        self._paced_at = -inf
        self.doubted_until = 0.0
        self.shunned_until = 0.0
        self._told = Estimate()
        self._told_until = 0.0

    # --- what calls teach ------------------------------------------------------------------------

    def succeeded(self, now: float, total_ms: float, first_byte_ms: float) -> None:
        if now < self._latest - _CLOCK_SLACK_S:
            self._rewind(now)
        self._latest = now
        self.counts.answered(now)
        self.latencies.add(now, total_ms, first_byte_ms)
        self._changed = True
        self.stands_until = -inf
        if self.thresholds.degraded_ms is not None:
            self._judge_pace(now, first_byte_ms > self.thresholds.degraded_ms)
        if self.failures_in_row or self.open_until:
            self._forgive(now)

    def recovered(self, now: float) -> None:
        """A model of this provider answered: its failures weigh against that, and end in a row."""
        if now < self._latest - _CLOCK_SLACK_S:
            self._rewind(now)
        self._latest = now
        self.counts.answered(now)
        if self.failures_in_row or self.open_until:
            self._forgive(now)

    def wrote(self, tokens: int) -> None:
        """The answer of this moment had so many output tokens."""
        self.counts.wrote(tokens)

    def failed(
        self, now: float, jitter: Callable[[], float], *, retry_after_s: float | None = None
    ) -> None:
        """Count a failure; ``jitter`` returns a number in 0..1."""
        self._look(now)
        self.counts.failed(now)
        self.failures_in_row += 1
        pause = min(_LONGEST_COOLING_S, _FIRST_COOLING_S * 2 ** min(self.failures_in_row - 1, 10))
        self.cooling_until = max(self.cooling_until, now + pause * (0.75 + 0.5 * jitter()))
        if retry_after_s is not None:
            asked = now + min(retry_after_s, _LONGEST_BLOCKED_S)
            self._retry_until = max(self._retry_until, asked)
            self.blocked_until = max(self.blocked_until, asked)
        if not self.open_until:
            if self.thresholds.enabled and self._too_many_errors(now):
                found = self.counts
                share = f"{found.failures} of {found.failures + found.answers} calls failed"
                self._open(now, jitter, share)
        elif self._half_open(now):
            self._open_for = min(self.thresholds.probe_max_s, self._open_for * 2)
            self._open(now, jitter, "the probe failed")

    def _forgive(self, now: float) -> None:
        self.failures_in_row = 0
        self.cooling_until = 0.0
        if self.open_until and self._half_open(now):
            # forget the bad window: the next failure is the first of a new one
            self._note(now, "closed", "answered")
            self.open_until = 0.0
            self._probing_until = 0.0
            self._open_for = self.thresholds.probe_after_s
            self.counts.clear()

    def _too_many_errors(self, now: float) -> bool:
        samples = self.counts.answers + self.counts.failures
        if samples < self.thresholds.min_samples:
            return False
        return self.counts.error_rate(now) > self.thresholds.error_rate

    def _open(self, now: float, jitter: Callable[[], float], why: str) -> None:
        self.open_until = now + self._open_for * (0.9 + 0.2 * jitter())
        self._probing_until = 0.0
        self._note(now, "open", why)

    def _judge_pace(self, now: float, slow: bool) -> None:
        """Rank last whoever answered too slowly more often than not (XAI-FAIL-014); after a pause,
        which doubles, one answer decides whether it is still slow."""
        if self.slow_until:
            if now < self.slow_until:
                return
            self._slow_for = min(self.thresholds.probe_max_s, self._slow_for * 2)
            self.slow_until = now + self._slow_for if slow else 0.0
            if not slow:
                self._slow_for = self.thresholds.probe_after_s
                self._pace = self._paced = 0
            return
        if now - self._paced_at > self.thresholds.window_s:
            self._pace = self._paced = 0
        self._paced_at = now
        self._pace = (self._pace << 1 | slow) & (1 << _PACE_BITS) - 1
        self._paced = min(_PACE_BITS, self._paced + 1)
        if slow:
            found = self._pace.bit_count()
            if found >= _SLOW_ENOUGH and 2 * found > self._paced:
                self.slow_until = now + self._slow_for

    # --- whether it may be asked -----------------------------------------------------------------

    def state(self, now: float) -> State:
        if not self.open_until:
            return "closed"
        return "half_open" if self._half_open(now) else "open"

    def _half_open(self, now: float) -> bool:
        return now >= self.open_until or self._probing_until > 0.0

    def blocked_for(self, now: float) -> float:
        """Seconds until this target may be asked again; 0 when it may.

        A circuit past its time lets one request through as a probe: ``claim`` it when that request
        is sent.
        """
        self._look(now)
        until = self.blocked_until
        if self.open_until and self.thresholds.enabled:
            until = max(until, self.open_until)
            if self._probing_until > now:
                # how the probe went is known long before its patience ends
                pause = min(self._probing_until - now, self.thresholds.probe_after_s)
                until = max(until, now + pause)
        return max(0.0, until - now)

    def begin_probe(self, now: float, patience_s: float = _PROBE_S) -> bool:
        """A request is on its way; while a circuit is half open no second one joins it.

        Return whether it is a probe: then call ``end_probe`` when it is over.
        """
        if not self.open_until:
            return False
        if not self._probing_until:
            self._note(now, "half_open", "a probe was sent")
        self._probing_until = now + patience_s
        return True

    def end_probe(self) -> None:
        self._probing_until = 0.0

    def cooling(self, now: float) -> bool:
        """Whether it is ranked last for now. Once a circuit has opened it says when the target is
        tried again, and no longer back-off beside it."""
        if self.slow_until > now or self.doubted_until > now:
            return True
        return self.cooling_until > now and not 0.0 < self.open_until <= now

    def degraded(self, now: float) -> bool:
        """Whether it is ranked last for being too slow."""
        return self.slow_until > now

    # --- what others say -------------------------------------------------------------------------

    def postpone(self, now: float, until: float) -> None:
        """The monitor cannot reach it: a circuit that is open stays so until then."""
        if self.open_until and not self._probing_until and until > self.open_until:
            self._note(now, "open", "not reachable")
            self.open_until = until

    def admit(self, now: float) -> None:
        """The monitor reaches it again: an open circuit may be probed at once."""
        if self.open_until > now and not self._probing_until:
            self.open_until = now
            self.cooling_until = min(self.cooling_until, now)
            self._note(now, "half_open", "reachable again")

    def trip(self, now: float, jitter: Callable[[], float], why: str) -> None:
        """Open a closed circuit for what others saw as well."""
        if not self.open_until and self.thresholds.enabled:
            self._open(now, jitter, why)

    def hear(
        self, now: float, *, doubted_for: float, shunned_for: float, told: Estimate, lease_s: float
    ) -> None:
        """What other processes saw (``state``): rank it last, keep it out, for so many seconds;
        latencies for ``lease_s`` where this process has none."""
        self.doubted_until = now + doubted_for if doubted_for > 0 else 0.0
        self.shunned_until = now + shunned_for if shunned_for > 0 else 0.0
        self.blocked_until = max(self._retry_until, self.shunned_until)
        self._told, self._told_until = told, now + lease_s

    def keep_told(self, now: float, lease_s: float) -> None:
        """The latencies that others told stand."""
        self._told_until = now + lease_s

    # --- figures ---------------------------------------------------------------------------------

    @property
    def timeline(self) -> tuple[Transition, ...]:
        """The last steps of the circuit, oldest first."""
        return tuple(self._transitions or ())

    def error_rate(self, now: float) -> float:
        """Share of failures in the window, 0 without samples."""
        return self.counts.error_rate(now)

    def latency_p95_ms(self, now: float, *, first_byte: bool) -> float | None:
        """95th percentile of the last five minutes; ``None`` without a sample."""
        estimate = self.estimate(now)
        return estimate.first_p95 if first_byte else estimate.total_p95

    def latency_mean_ms(self, now: float) -> float | None:
        return self.estimate(now).mean

    def estimate(self, now: float) -> Estimate:
        """Latencies as they count for limits and ranking.

        While samples are many a new one changes little: then they are worked out again only after
        a moment, because sorting for every request would cost more than the rest of its ranking."""
        found = self._estimate
        if found is None:
            if not self.latencies.taken:
                return self._or_told(_NOTHING, now)
        else:
            if not self._changed:
                if now <= self._expires_at:
                    return self._or_told(found, now)
            elif (
                self.latencies.taken >= _FEW_LATENCIES
                and 0 <= now - self._estimated_at < _ESTIMATE_FOR_S
            ):
                return found
        self._changed = False
        self._estimated_at = now
        oldest = self.latencies.oldest(now)
        self._expires_at = inf if oldest is None else oldest + LATENCY_WINDOW_S
        found = self._estimate = self.latencies.estimate(now)
        if found.total_p95 is not None:
            self.standing, self.stands_until = found, self._expires_at
            if self._changed:  # another thread has learned something meanwhile
                self.stands_until = -inf
        return self._or_told(found, now)

    def _or_told(self, found: Estimate, now: float) -> Estimate:
        return self._told if found.total_p95 is None and self._told_until > now else found

    # --- inner -----------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        if now < self._latest - _CLOCK_SLACK_S:
            self._rewind(now)
        self._latest = now

    def _rewind(self, now: float) -> None:
        """The clock went back: what was to end in so many seconds still does."""
        back = self._latest - now
        self.counts.rewind(back)
        self.latencies.rewind(back)
        for name in _TIMES:
            setattr(self, name, max(0.0, getattr(self, name) - back))
        self._paced_at -= back
        self.stands_until = -inf
        if self.open_until:
            self.open_until = max(self.open_until, 1e-9)

    def _note(self, at: float, after: State, why: str) -> None:
        if self._transitions is None:
            self._transitions = deque(maxlen=_TIMELINE)
        before = self._transitions[-1].after if self._transitions else "closed"
        if after != before:
            self._transitions.append(Transition(at, before, after, why))


_NOTHING: Final = Estimate()
#: What ends at some time; 0 says that it does not hold.
_TIMES: Final = (
    "blocked_until",
    "cooling_until",
    "doubted_until",
    "open_until",
    "shunned_until",
    "slow_until",
    "_estimated_at",
    "_expires_at",
    "_probing_until",
    "_retry_until",
    "_told_until",
)
_claims = Lock()


def _new_lock() -> None:
    global _claims
    _claims = Lock()


os.register_at_fork(after_in_child=_new_lock)


def claim(tracks: Iterable[Track], now: float) -> list[Track] | None:
    """Take leave to ask a target that these tracks speak of, all of them or none.

    Return those whose probe this request is: call ``end_probe`` of each when it is over. ``None``:
    somebody else's probe is on its way, or a circuit has opened meanwhile.
    """
    opened = [track for track in tracks if track.open_until and track.thresholds.enabled]
    if not opened:
        return []
    with _claims:
        if any(track.blocked_for(now) > 0 for track in opened):
            return None
        return [track for track in opened if track.begin_probe(now)]
