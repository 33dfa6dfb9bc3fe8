"""The head of an order holds the best of every request it is for."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.health import Track
from aiproxy.middleware.routing.heads import few_alike, reach
from aiproxy.middleware.routing.walking import Order


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_lies_between_the_bounds_the_best_are_in_reach(seed: int) -> None:
    chance = Random(seed)
    keep, count = chance.randint(1, 8), chance.randint(8, 60)
    group = [chance.randint(0, 2) for _ in range(count)]
    bound = [chance.choice([float("inf"), chance.randint(0, 20)]) for _ in range(count)]
    most = [low + chance.randint(0, 4) for low in bound]
    places = sorted(range(count), key=lambda i: (group[i], bound[i]))
    found = reach(Order(places, group, bound), most.__getitem__, keep)
    assert found == places[: len(found)]
    spans = list(zip(bound, most, strict=True))
    for _ in range(20):
        values = [chance.uniform(low, top) if low < top else low for low, top in spans]
        ties = [chance.random() for _ in range(count)]
        best = sorted(range(count), key=lambda i: (group[i], values[i], ties[i]))[:keep]
        assert set(best) <= set(found)


def test_a_head_is_no_longer_than_it_must_be() -> None:
    bound = [float(i) for i in range(100)]
    order = Order(list(range(100)), bytes(100), bound)
    assert reach(order, bound.__getitem__, 16) == list(range(16))
    assert reach(order, lambda i: bound[i] + 3, 16) == list(range(19))


def test_of_those_who_cost_the_same_the_first_are_enough() -> None:
    assert few_alike([5, 1, 4, 2, 3], {1: 7, 2: 8, 3: 7, 4: 7, 5: 7}, 2) == [5, 1, 2]


@pytest.mark.parametrize("seed", range(40))
def test_an_estimate_that_stands_is_the_one_that_is_asked_for(seed: int) -> None:
    chance = Random(seed)
    track, other = Track(), Track()
    now = 1_000.0
    for _ in range(300):
        now += chance.choice([0.0, 0.01, 0.3, 40.0, 400.0])
        if chance.random() < 0.02:
            now = max(10.0, now - 50.0)
        if chance.random() < 0.5:
            ms = chance.uniform(10, 900)
            for one in (track, other):
                one.succeeded(now, ms, ms / 3)
        if chance.random() < 0.05:
            for one in (track, other):
                one.failed(now, lambda: 0.5)
        standing = track.standing if now <= track.stands_until else track.estimate(now)
        assert standing == other.estimate(now)
