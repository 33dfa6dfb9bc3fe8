"""What calls teach about a provider's condition, under a clock of the test's own."""

import itertools
import threading
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aiproxy.middleware.health import Thresholds, Track, claim
from aiproxy.middleware.watching.windows import KEPT, STEPS, Counts, Latencies, percentiles

USUAL = Thresholds()


def middle() -> float:
    return 0.5


def test_back_off_doubles_up_to_its_bound() -> None:
    track = Track()
    pauses = []
    for n in range(9):
        track.failed(1000.0 * n, middle)
        pauses.append(track.cooling_until - 1000.0 * n)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    track.succeeded(9000.0, 10, 10)
    assert not track.cooling(9000.0)
    track.failed(9001.0, middle)
    assert track.cooling_until == 9001.5


def test_a_second_failure_never_shortens_a_wait() -> None:
    track = Track()
    track.failed(0.0, middle, retry_after_s=30.0)
    track.failed(1.0, middle, retry_after_s=2.0)
    assert track.blocked_for(10.0) == 20.0


def test_a_retry_after_is_bounded() -> None:
    """A date in another century would keep the provider out for ever."""
    track = Track()
    track.failed(0.0, middle, retry_after_s=1e12)
    assert track.blocked_for(0.0) == 3600.0


def test_a_circuit_needs_ten_samples() -> None:
    track = Track(Thresholds(error_rate=0.5))
    for n in range(9):
        track.failed(float(n), middle)
    assert track.open_until == 0.0
    track.failed(9.0, middle)
    assert track.blocked_for(9.0) == 5.0


def test_the_window_forgets() -> None:
    track = Track()
    for _ in range(9):
        track.failed(0.0, middle)
    track.failed(61.0, middle)
    assert track.open_until == 0.0
    assert track.error_rate(61.0) == 1.0


def test_one_probe_at_a_time_and_a_longer_pause_after_it_fails() -> None:
    track = Track()
    for _ in range(10):
        track.failed(0.0, middle)
    assert track.blocked_for(5.0) == 0.0
    assert track.begin_probe(5.0)
    assert track.blocked_for(6.0) > 0
    track.failed(7.0, middle)
    track.end_probe()
    assert track.blocked_for(7.0) == 10.0
    assert track.begin_probe(17.0)
    track.succeeded(18.0, 10, 10)
    track.end_probe()
    assert track.blocked_for(18.0) == 0.0
    assert track.error_rate(18.0) == 0.0
    assert not track.begin_probe(18.0)


def test_a_provider_is_weighed_by_its_answers_too() -> None:
    provider = Track()
    for n in range(40):
        if n % 4 == 0:
            provider.failed(float(n), middle)
        provider.recovered(float(n))
    assert provider.open_until == 0.0
    assert provider.error_rate(40.0) == pytest.approx(0.2)


def test_an_open_provider_closes_when_it_answers() -> None:
    provider = Track()
    for _ in range(10):
        provider.failed(0.0, middle)
    assert provider.blocked_for(1.0) > 0
    provider.recovered(6.0)
    assert provider.blocked_for(6.0) == 0.0


def test_estimates_are_of_the_last_five_minutes() -> None:
    track = Track()
    assert track.latency_p95_ms(0.0, first_byte=False) is None
    track.succeeded(0.0, 9000.0, 4000.0)
    assert track.latency_p95_ms(1.0, first_byte=False) == 9000.0
    assert track.latency_p95_ms(1.0, first_byte=True) == 4000.0
    track.succeeded(0.0, 9000.0, 4000.0)
    for n in range(10):
        track.succeeded(200.0, 100.0 + n, 50.0)
    assert track.latency_p95_ms(200.0, first_byte=False) == 9000.0
    assert track.latency_p95_ms(301.0, first_byte=False) == 108.0
    assert track.latency_mean_ms(301.0) == pytest.approx(104.5)
    assert track.latency_p95_ms(600.0, first_byte=False) is None


def test_estimates_of_many_samples_are_a_moment_old_at_most() -> None:
    track = Track()
    for _ in range(40):
        track.succeeded(0.0, 100.0, 100.0)
    assert track.latency_p95_ms(0.0, first_byte=False) == 100.0
    for _ in range(10):
        track.succeeded(0.05, 900.0, 900.0)
    assert track.latency_p95_ms(0.1, first_byte=False) == 900.0


def test_one_outlier_is_no_estimate() -> None:
    """XAI-PERF-001: of five latencies or more, one alone moves nothing."""
    track = Track()
    for n in range(4):
        track.succeeded(float(n), 20.0, 20.0)
    track.succeeded(5.0, 8000.0, 8000.0)
    assert track.latency_p95_ms(5.0, first_byte=False) == 20.0
    track.succeeded(6.0, 8000.0, 8000.0)
    assert track.latency_p95_ms(6.0, first_byte=False) == 8000.0


def test_failed_calls_are_no_latencies() -> None:
    """XAI-PERF-007."""
    track = Track()
    track.succeeded(0.0, 700.0, 700.0)
    for _ in range(9):
        track.failed(0.0, middle)
    assert track.latency_p95_ms(1.0, first_byte=False) == 700.0


# --- the circuit (ASC-CB-001 to 005) -------------------------------------------------------------


def opened(limits: Thresholds = USUAL) -> Track:
    track = Track(limits)
    for _ in range(limits.min_samples):
        track.failed(0.0, middle)
    return track


def test_calls_on_their_way_when_it_opened_move_nothing() -> None:
    track = opened()
    for _ in range(20):
        track.failed(1.0, middle)
    assert track.blocked_for(1.0) == 4.0, "they were no probes"
    track.succeeded(1.0, 10.0, 10.0)
    assert track.state(1.0) == "open"


def test_an_open_circuit_says_when_it_is_tried_again_and_no_back_off_beside_it() -> None:
    """AIP-LB-005: ten failures in a row are a back-off of half a minute."""
    track = opened()
    assert track.cooling(4.9)
    assert not track.cooling(5.0)


def test_pauses_double_up_to_the_longest_with_jitter() -> None:
    track, now, pauses = opened(), 0.0, []
    for chance in (0.0, 1.0, 0.5, 0.5, 0.5, 0.5):
        now = track.open_until
        assert track.begin_probe(now)
        track.failed(now, lambda chance=chance: chance)
        track.end_probe()
        pauses.append(track.open_until - now)
    assert pauses == pytest.approx([9.0, 22.0, 40.0, 60.0, 60.0, 60.0])


def test_every_step_is_told_with_its_reason() -> None:
    track = opened()
    track.begin_probe(5.0)
    track.failed(6.0, middle)
    track.end_probe()
    track.begin_probe(16.0)
    track.succeeded(17.0, 10.0, 10.0)
    track.end_probe()
    assert [step.as_dict() for step in track.timeline] == [
        {"at": 0.0, "from": "closed", "to": "open", "why": "10 of 10 calls failed"},
        {"at": 5.0, "from": "open", "to": "half_open", "why": "a probe was sent"},
        {"at": 6.0, "from": "half_open", "to": "open", "why": "the probe failed"},
        {"at": 16.0, "from": "open", "to": "half_open", "why": "a probe was sent"},
        {"at": 17.0, "from": "half_open", "to": "closed", "why": "answered"},
    ]


def test_the_timeline_is_bounded() -> None:
    track, now = opened(), 0.0
    for _ in range(200):
        now = track.open_until
        track.begin_probe(now)
        track.failed(now, middle)
        track.end_probe()
    assert len(track.timeline) == 64


def test_a_hundred_threads_get_one_probe() -> None:
    """ASC-CB-005."""
    track, provider = opened(), Track()
    start, won = threading.Barrier(100), []

    def run() -> None:
        start.wait()
        found = claim((track, provider), 5.0)
        if found is not None:
            won.append(found)

    threads = [threading.Thread(target=run) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [[track]]
    track.end_probe()
    assert claim((track, provider), 5.0) == [track]


def test_a_probe_whose_end_nobody_told_blocks_for_a_while_only() -> None:
    track = opened()
    assert claim((track,), 5.0) == [track]
    assert claim((track,), 500.0) is None
    assert track.blocked_for(500.0) <= 5.0, "what a client is told to wait stays short"
    assert claim((track,), 606.0) == [track]


def test_a_circuit_that_is_switched_off_keeps_nobody_out() -> None:
    track = opened(Thresholds(enabled=False))
    assert claim((track,), 1.0) == []
    assert track.blocked_for(1.0) == 0.0


# --- pace (XAI-FAIL-014) -------------------------------------------------------------------------

PACED = Thresholds(degraded_ms=1000.0)


def answers(track: Track, now: float, *milliseconds: float) -> None:
    for ms in milliseconds:
        track.succeeded(now, ms * 3, ms)


def test_one_slow_answer_is_no_degradation() -> None:
    track = Track(PACED)
    answers(track, 0.0, 100, 100, 100, 9000, 100, 9000)
    assert not track.degraded(0.0)


def test_answers_mostly_too_slow_rank_a_target_last_but_never_keep_it_out() -> None:
    track = Track(PACED)
    answers(track, 0.0, 100, 9000, 9000, 9000)
    assert track.degraded(0.0)
    assert track.cooling(4.9)
    assert track.blocked_for(0.0) == 0.0
    assert track.error_rate(0.0) == 0.0


def test_after_its_pause_one_answer_decides_whether_it_is_still_slow() -> None:
    track = Track(PACED)
    answers(track, 0.0, 9000, 9000, 9000)
    answers(track, 1.0, 100)
    assert track.degraded(1.0), "that call was on its way before"
    assert not track.degraded(5.0)
    answers(track, 6.0, 9000)
    assert track.degraded(15.9)
    assert not track.degraded(16.0)
    answers(track, 17.0, 100)
    answers(track, 17.0, 9000, 9000)
    assert not track.degraded(17.0), "what was forgotten stays forgotten"


def test_slow_answers_of_another_day_do_not_add_up() -> None:
    track = Track(PACED)
    for now in (0.0, 100.0, 200.0, 300.0):
        answers(track, now, 9000)
    assert not track.degraded(300.0)


# --- clocks --------------------------------------------------------------------------------------


@given(back=st.floats(2.0, 1e9), pause=st.floats(0.0, 3600.0))
def test_a_clock_that_goes_back_lengthens_no_wait(back: float, pause: float) -> None:
    track = Track(PACED)
    at = 1e9 + 50.0
    answers(track, at, 9000, 9000, 9000)
    for _ in range(12):
        track.failed(at, middle, retry_after_s=pause)
    before = track.blocked_for(at)
    after = track.blocked_for(at - back)
    assert after <= before + 1e-3
    assert not track.cooling(at - back + 31.0)
    assert track.state(at - back + 5.1) == "half_open"
    assert track.error_rate(at - back) > 0.5
    assert len(track.latencies.recent(at - back)[0]) == 3


@given(ahead=st.floats(1.0, 1e12))
def test_a_clock_far_ahead_and_back_again_blocks_nobody(ahead: float) -> None:
    track = Track()
    for _ in range(10):
        track.failed(1000.0, middle, retry_after_s=3600.0)
    track.blocked_for(1000.0 + ahead)
    track.error_rate(1000.0 + ahead)
    assert track.blocked_for(1001.0) <= 3600.0
    track.succeeded(1002.0, 10.0, 10.0)
    track.failed(1003.0, middle)
    assert track.counts.failures <= 11
    assert track.error_rate(1003.0) <= 1.0


# --- windows -------------------------------------------------------------------------------------

events = st.lists(
    st.tuples(st.floats(0.0, 20.0, allow_nan=False), st.booleans()), min_size=1, max_size=120
)


@given(gaps=events, window=st.floats(1.0, 120.0), later=st.floats(0.0, 200.0))
def test_a_count_is_kept_for_the_window_and_not_longer(
    gaps: list[tuple[float, bool]], window: float, later: float
) -> None:
    counts, now, told = Counts(window), 5000.0, []
    for gap, ok in gaps:
        now += gap
        (counts.answered if ok else counts.failed)(now)
        told.append((now, ok))
    now += later
    counts.turn(now)
    step = window / STEPS
    for ok, found in ((True, counts.answers), (False, counts.failures)):
        surely = sum(1 for at, was in told if was is ok and now - at < window - step - 1e-6)
        at_most = sum(1 for at, was in told if was is ok and now - at <= window + 1e-6)
        assert surely <= found <= at_most
    rows = counts.rows(now)
    assert sum(ok for _, ok, _ in rows) == counts.answers
    assert sum(bad for _, _, bad in rows) == counts.failures
    assert all(0 <= age <= window + 1e-6 for age, _, _ in rows)
    assert (counts.total_answers, counts.total_failures) == (
        sum(ok for _, ok in told),
        sum(not ok for _, ok in told),
    )


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=300))
def test_percentiles_are_those_of_the_newest(samples: list[float]) -> None:
    """ASC-HEALTH-001: by nearest rank, in any order."""
    latencies = Latencies(300.0)
    for n, ms in enumerate(samples):
        latencies.add(n / 10, ms, ms / 2)
    totals, firsts = latencies.recent(len(samples) / 10)
    assert totals == samples[-KEPT:]
    assert firsts == [ms / 2 for ms in samples[-KEPT:]]
    ordered = sorted(totals)
    found = percentiles(totals)
    assert found is not None
    for share, value in zip((0.5, 0.95, 0.99), found, strict=True):
        assert value == ordered[ceil(share * len(ordered)) - 1]


# --- against a model -----------------------------------------------------------------------------


class Breaker(RuleBasedStateMachine):
    """A track does what a few plain lists say a circuit does."""

    LIMITS = Thresholds(
        error_rate=0.4, window_s=60.0, min_samples=4, probe_after_s=5.0, probe_max_s=20.0
    )

    def __init__(self) -> None:
        super().__init__()
        self.track = Track(self.LIMITS)
        self.now = 1000.0
        self.outcomes: list[tuple[float, bool]] = []
        self.state = "closed"
        self.until = 0.0
        self.pause = 5.0
        self.probing = False

    @rule(steps=st.integers(0, 40))
    def pass_time(self, steps: int) -> None:
        self.now += 2.0 * steps  # whole steps of the window: the model knows no others

    @rule()
    def answer(self) -> None:
        self.track.succeeded(self.now, 100.0, 50.0)
        self.outcomes.append((self.now, True))
        if self.state == "open" and (self.probing or self.now >= self.until):
            self.state, self.pause, self.probing = "closed", 5.0, False
            self.outcomes.clear()
        self.track.end_probe()
        self.probing = False

    @rule()
    def fail(self) -> None:
        self.track.failed(self.now, middle)
        self.outcomes.append((self.now, False))
        if self.state == "closed":
            kept = [ok for at, ok in self.outcomes if self.now - at < 60.0]
            if len(kept) >= 4 and kept.count(False) > 0.4 * len(kept):
                self.state, self.until = "open", self.now + self.pause
        elif self.probing or self.now >= self.until:
            self.pause = min(20.0, self.pause * 2)
            self.until = self.now + self.pause
        self.track.end_probe()
        self.probing = False

    @precondition(lambda self: not self.probing)
    @rule()
    def ask(self) -> None:
        found = claim((self.track,), self.now)
        if self.state == "closed":
            assert found == []
        elif self.now < self.until:
            assert found is None
        else:
            assert found == [self.track]
            self.probing = True

    @precondition(lambda self: self.probing)
    @rule()
    def ask_beside_a_probe(self) -> None:
        assert claim((self.track,), self.now) is None

    @precondition(lambda self: self.probing)
    @rule()
    def give_up(self) -> None:
        self.track.end_probe()
        self.probing = False

    @invariant()
    def agrees(self) -> None:
        expected = self.state
        if self.state == "open" and (self.probing or self.now >= self.until):
            expected = "half_open"
        assert self.track.state(self.now) == expected
        blocked = self.track.blocked_for(self.now)
        assert (blocked > 0) == (self.state == "open" and (self.probing or self.now < self.until))
        assert blocked <= 20.0
        steps = self.track.timeline
        assert all(a.after == b.before for a, b in itertools.pairwise(steps))


def test_a_track_does_what_a_plain_model_of_a_circuit_does() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Breaker, settings=settings(max_examples=150, stateful_step_count=50, deadline=None)
    )
