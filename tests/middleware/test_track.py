"""What calls teach about a provider's condition, under a clock of the test's own."""

import pytest

from aiproxy.middleware.health import Thresholds, Track


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
    for n in range(10):
        track.succeeded(200.0, 100.0 + n, 50.0)
    assert track.latency_p95_ms(200.0, first_byte=False) == 9000.0
    assert track.latency_p95_ms(301.0, first_byte=False) == 109.0
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
