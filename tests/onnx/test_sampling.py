"""Choosing tokens from given logits."""

from collections import Counter

import numpy as np

from aiproxy.reference_server.onnx.generation import Sampling
from aiproxy.reference_server.onnx.sampling import Sampler

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))


def drawn(sampling: Sampling, times: int, forbidden: tuple[int, ...] = ()) -> list[int]:
    sampler = Sampler(sampling, forbidden)
    return [sampler.choose(LOGITS) for _ in range(times)]


def test_temperature_zero_takes_the_likeliest_allowed_token() -> None:
    assert drawn(Sampling(), 3) == [0, 0, 0]
    assert drawn(Sampling(), 3, forbidden=(0,)) == [1, 1, 1]


def test_temperature_one_draws_by_probability() -> None:
    counts = Counter(drawn(Sampling(temperature=1.0, seed=1), 4000))
    shares = [counts[token] / 4000 for token in range(4)]
    assert np.allclose(shares, [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_a_low_temperature_sharpens_and_a_forbidden_token_never_comes() -> None:
    counts = Counter(drawn(Sampling(temperature=0.2, seed=1), 1000))
    assert counts[0] > 900
    assert 0 not in drawn(Sampling(temperature=2.0, seed=1), 1000, forbidden=(0,))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    assert set(drawn(Sampling(temperature=1.0, top_p=0.6, seed=1), 500)) == {0, 1}
    assert set(drawn(Sampling(temperature=1.0, top_p=0.4, seed=1), 500)) == {0}
    assert set(drawn(Sampling(temperature=1.0, top_p=1.0, seed=1), 500)) == {0, 1, 2, 3}


def test_top_k_keeps_so_many_tokens() -> None:
    assert set(drawn(Sampling(temperature=2.0, top_k=3, seed=1), 500)) == {0, 1, 2}


def test_presence_counts_once_and_frequency_each_time() -> None:
    # log(0.5 / 0.3) = 0.51: one penalty of 0.6 passes the gap, a second one passes it again.
    assert drawn(Sampling(presence_penalty=0.6), 3) == [0, 1, 0]
    assert drawn(Sampling(frequency_penalty=0.6), 4) == [0, 1, 0, 1]
    assert drawn(Sampling(frequency_penalty=-1.0), 3) == [0, 0, 0]


def test_the_same_seed_draws_the_same_and_the_logits_stay_untouched() -> None:
    before = LOGITS.copy()
    sampling = Sampling(temperature=1.0, seed=7, presence_penalty=1.0)
    assert drawn(sampling, 50) == drawn(sampling, 50)
    assert drawn(sampling, 50) != drawn(Sampling(temperature=1.0, seed=8), 50)
    assert np.array_equal(before, LOGITS)
