"""What one process tells another of a target, and what another's word is worth (T-90).

The rule, for one target (a model at a provider, or a whole provider):

* A process *accuses* a target while its own circuit is open (not half open), or while its own
  window holds failures at a rate above the threshold.
* A lone open circuit elsewhere makes a target *doubted* here: it is ranked last, so that it is
  avoided while anybody else can serve, and asked when nobody else can.
* Two open circuits elsewhere make it *shunned* here: it is kept out.
* Where this process accuses it too, its own circuit opens at once, without waiting for
  ``min_samples`` of its own: either because another circuit is open, or because all processes
  together have ``min_samples`` calls, more of them failed than the threshold allows, and another
  process accuses it.

All of it ends with the open circuits it is founded on: a circuit whose pause is over accuses
nobody, so that processes without traffic keep nobody from trying.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from aiproxy.middleware.health import Thresholds, Track
from aiproxy.middleware.watching.windows import Estimate, Latencies

#: Latencies told of one target: the newest.
_TOLD: Final = 32


class Report(msgspec.Struct, frozen=True, array_like=True):
    """One target as one process sees it when it tells. Times in milliseconds before that.

    ``steps`` are age, answers and failures of the steps of its window; ``open_ms`` is how long its
    circuit stays open, 0 when it is not; ``latencies`` are total and first byte.
    """

    steps: list[tuple[int, int, int]]
    open_ms: int
    latencies: list[tuple[float, float]]

    @property
    def bad(self) -> bool:
        """Whether it says anything against the target."""
        return self.open_ms > 0 or any(failures for _, _, failures in self.steps)


class Seen(NamedTuple):
    """What a process has seen of a target up to now; ``open_s`` is how long its circuit stays open."""

    answers: int
    failures: int
    open_s: float


class Verdict(NamedTuple):
    """What follows from the evidence; seconds from now, 0 where it does not hold."""

    doubted_s: float
    shunned_s: float
    trips: bool


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Report)


def report_of(track: Track, now: float) -> Report:
    """What this process tells of a target."""
    totals, firsts = track.latencies.recent(now, _TOLD)
    return Report(
        [(int(age * 1000), ok, bad) for age, ok, bad in track.counts.rows(now)],
        int(open_for(track, now) * 1000),
        [(round(t, 1), round(f, 1)) for t, f in zip(totals, firsts, strict=True)],
    )


def open_for(track: Track, now: float) -> float:
    """Seconds for which a track's own circuit is open yet."""
    return max(0.0, track.open_until - now) if track.state(now) == "open" else 0.0


def encode(report: Report) -> bytes:
    return _ENCODER.encode(report)


def decode(raw: bytes) -> Report | None:
    """The report, or ``None`` for what is none: another release may say it differently."""
    try:
        return _DECODER.decode(raw)
    except msgspec.MsgspecError:
        return None


def seen_of(track: Track, now: float) -> Seen:
    """What this process has seen itself."""
    track.counts.turn(now)
    return Seen(track.counts.answers, track.counts.failures, open_for(track, now))


def seen_in(report: Report, age_s: float, window_s: float) -> Seen:
    """What a report of ``age_s`` seconds ago still says."""
    left_ms = (window_s - age_s) * 1000
    kept = [(ok, bad) for age, ok, bad in report.steps if age <= left_ms]
    return Seen(
        sum(ok for ok, _ in kept),
        sum(bad for _, bad in kept),
        max(0.0, report.open_ms / 1000 - age_s),
    )


def accuses(seen: Seen, limits: Thresholds) -> bool:
    samples = seen.answers + seen.failures
    return seen.open_s > 0 or (seen.failures > 0 and seen.failures > limits.error_rate * samples)


def judge(own: Seen, others: Sequence[Seen], limits: Thresholds) -> Verdict:
    """Apply the rule of this module."""
    opened = sorted((seen.open_s for seen in others if seen.open_s > 0), reverse=True)
    doubted = opened[0] if opened else 0.0
    shunned = opened[1] if len(opened) > 1 else 0.0
    trips = False
    if own.open_s == 0 and accuses(own, limits):
        trips = bool(opened) or (
            any(accuses(seen, limits) for seen in others) and _too_many(own, others, limits)
        )
    return Verdict(doubted, shunned, trips)


def _too_many(own: Seen, others: Sequence[Seen], limits: Thresholds) -> bool:
    failures = own.failures + sum(seen.failures for seen in others)
    samples = failures + own.answers + sum(seen.answers for seen in others)
    return samples >= limits.min_samples and failures > limits.error_rate * samples


def pooled(reports: Sequence[Report]) -> Estimate:
    """The latencies of several processes as one estimate."""
    found = Latencies(1.0)
    for report in reports:
        for total, first in report.latencies:
            found.add(0.0, total, first)
    return found.estimate(0.0)
