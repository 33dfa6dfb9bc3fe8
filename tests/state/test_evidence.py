"""What another process's word is worth, as a rule on figures (T-90)."""

from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.health import Thresholds, Track
from aiproxy.middleware.state.evidence import (
    Report,
    Seen,
    decode,
    encode,
    judge,
    pooled,
    report_of,
    seen_in,
)

LIMITS = Thresholds(error_rate=0.5, min_samples=10)
NOTHING = Seen(0, 0, 0.0)
OPEN = Seen(0, 12, 4.0)
WELL = Seen(50, 0, 0.0)

seens = st.builds(
    Seen,
    st.integers(0, 200),
    st.integers(0, 200),
    st.one_of(st.just(0.0), st.floats(0.1, 60, allow_nan=False)),
)


def middle() -> float:
    return 0.5


def test_a_lone_open_circuit_elsewhere_is_only_doubted() -> None:
    assert judge(NOTHING, [OPEN, WELL, NOTHING], LIMITS) == (4.0, 0.0, False)


def test_two_open_circuits_elsewhere_keep_a_target_out_as_long_as_both_are() -> None:
    assert judge(NOTHING, [OPEN, Seen(0, 20, 9.0)], LIMITS) == (9.0, 4.0, False)


def test_a_lone_circuit_and_own_failures_open_the_own_circuit() -> None:
    assert judge(Seen(0, 1, 0.0), [OPEN], LIMITS).trips
    assert not judge(Seen(5, 1, 0.0), [OPEN], LIMITS).trips


def test_few_failures_at_each_of_several_processes_add_up() -> None:
    few = Seen(0, 4, 0.0)
    assert judge(few, [few, few], LIMITS).trips
    assert not judge(few, [few], LIMITS).trips, "eight calls are too few"
    assert not judge(few, [Seen(0, 0, 0.0), Seen(90, 0, 0.0)], LIMITS).trips, "nobody else agrees"


def test_failures_among_many_answers_are_outvoted() -> None:
    assert not judge(Seen(0, 3, 0.0), [Seen(100, 0, 0.0), Seen(0, 3, 0.0)], LIMITS).trips


@given(own=seens, other=seens)
def test_one_reporter_alone_never_keeps_anybody_out(own: Seen, other: Seen) -> None:
    verdict = judge(own, [other], LIMITS)
    assert verdict.shunned_s == 0.0
    if own.failures == 0:
        assert not verdict.trips


@given(own=seens, others=st.lists(seens, max_size=5))
def test_all_of_it_ends_with_the_open_circuits_it_is_founded_on(
    own: Seen, others: list[Seen]
) -> None:
    verdict = judge(own, others, LIMITS)
    opened = sorted((seen.open_s for seen in others if seen.open_s), reverse=True)
    assert verdict.doubted_s == (opened[0] if opened else 0.0)
    assert verdict.shunned_s == (opened[1] if len(opened) > 1 else 0.0)


def test_a_report_says_what_the_track_knows_and_survives_the_wire() -> None:
    track = Track(LIMITS)
    for n in range(4):
        track.succeeded(100.0 + n, 20.0 + n, 10.0)
    for _ in range(12):
        track.failed(104.0, middle)
    report = decode(encode(report_of(track, 104.0)))
    assert report is not None
    assert seen_in(report, 0.0, 60.0) == Seen(4, 12, 5.0)
    assert report.latencies == [(20.0, 10.0), (21.0, 10.0), (22.0, 10.0), (23.0, 10.0)]
    assert report.bad


def test_what_was_told_grows_old_with_its_receiver() -> None:
    report = Report([(0, 3, 5), (50_000, 7, 1)], 4000, [])
    assert seen_in(report, 0.0, 60.0) == Seen(10, 6, 4.0)
    assert seen_in(report, 20.0, 60.0) == Seen(3, 5, 0.0)
    assert seen_in(report, 61.0, 60.0) == NOTHING


def test_a_half_open_circuit_accuses_nobody() -> None:
    """Its process may have no traffic to try with; the others must not wait for it."""
    track = Track(LIMITS)
    for _ in range(10):
        track.failed(0.0, middle)
    assert report_of(track, 4.0).open_ms == 1000
    assert report_of(track, 6.0).open_ms == 0


@given(st.binary(max_size=60))
def test_what_is_no_report_is_none(raw: bytes) -> None:
    found = decode(raw)
    assert found is None or isinstance(found, Report)


def test_latencies_of_several_are_one_estimate() -> None:
    reports = [Report([], 0, [(10.0, 5.0)] * 10), Report([], 0, [(90.0, 50.0)] * 10)]
    assert pooled(reports) == (90.0, 50.0, 50.0)
