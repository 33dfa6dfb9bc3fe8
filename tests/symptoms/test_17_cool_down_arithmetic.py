"""Waits add up rightly: a later failure never shortens one, a full pool cools nobody who did
nothing, and a 429 stays a 429."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from upstreams import Script

from aiproxy.middleware.health import Track


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.none() | st.floats(0, 5000), st.floats(0, 1)),
        min_size=1,
        max_size=30,
    )
)
def test_a_failure_never_brings_a_deadline_forward(
    failures: list[tuple[float, float | None, float]],
) -> None:
    """Under a clock of the test's own."""
    track, now = Track(), 100.0
    waits = []
    for pause, retry_after, chance in failures:
        now += pause
        track.failed(now, lambda chance=chance: chance, retry_after_s=retry_after)
        waits.append((now, track.blocked_until, track.cooling_until))
        if retry_after is not None:
            assert track.blocked_until >= now + min(retry_after, 3600.0) - 1e-6
    for earlier, later in pairwise(waits):
        assert later[1] >= earlier[1]
        assert later[2] >= earlier[2]


def test_a_busy_provider_cools_no_innocent_one(mount: Any, duo: Any, best: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=429, headers={"retry-after": "30"})
    served = mount(duo())
    for _ in range(5):
        got = served.chat(best)
        assert (got.status, got.provider) == (200, "b")
    assert fakes.called() == {"a": 1, "b": 5}, "a provider that named a time was asked again"
    rows = {model.provider.id: model.track for model in served.gateway.registry.models}
    assert rows["b"].failures_in_row == 0
    assert not rows["b"].cooling(0.0)


def test_when_all_are_busy_the_client_hears_so_and_the_soonest_time(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    fakes.a.script = Script(status=429, headers={"retry-after": "30"})
    fakes.b.script = Script(status=429, headers={"retry-after": "7"})
    served = mount(duo())
    first, second = served.chat(best), served.chat(best)
    assert (first.status, first.error["code"]) == (502, "all_providers_failed")
    assert [row["error"] for row in served.record(first)["attempts"]] == ["rate_limited"] * 2
    assert (second.status, second.error["code"]) == (503, "no_healthy_provider")
    for got in (first, second):
        assert 1 <= int(got.header("retry-after") or 0) <= 7
    assert fakes.called() == {"a": 1, "b": 1}, "a blocked provider was asked again"


def test_attempts_move_on_instead_of_hitting_the_same_pool(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    fakes.a.script = Script(status=503)
    served = mount(duo())
    got = served.chat(best)
    assert got.provider == "b"
    assert [row["provider"] for row in served.record(got)["attempts"]] == ["a", "b"]
