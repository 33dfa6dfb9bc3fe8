"""Choosing tokens from given scores."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.reference_server.onnx.errors import RequestRefused
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.sampling import (
    IMPOSSIBLE,
    Logits,
    Sampler,
    choose_all,
    log_probability,
)

SHARES = np.array([0.5, 0.3, 0.15, 0.05])
LOGITS: Logits = np.log(SHARES).astype(np.float32)


def drawn(sampling: Sampling, times: int, logits: Logits = LOGITS) -> list[int | None]:
    sampler = Sampler(sampling, len(logits))
    return [sampler.choose(logits) for _ in range(times)]


def shares(sampling: Sampling, times: int = 4000) -> list[float]:
    counts = Counter(drawn(sampling, times))
    return [counts[token] / times for token in range(4)]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert drawn(Sampling(), 3) == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    expected = SHARES ** (1 / temperature)
    found = shares(Sampling(temperature=temperature, seed=1))
    assert np.allclose(found, expected / expected.sum(), atol=0.025)


def test_draws_follow_the_distribution_that_top_k_and_top_p_leave() -> None:
    found = shares(Sampling(temperature=1.0, top_k=3, top_p=0.8, seed=1))
    assert np.allclose(found, [0.5 / 0.8, 0.3 / 0.8, 0, 0], atol=0.025)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    assert set(drawn(Sampling(temperature=1.0, top_p=0.6, seed=1), 500)) == {0, 1}
    assert set(drawn(Sampling(temperature=1.0, top_p=0.4, seed=1), 500)) == {0}
    assert set(drawn(Sampling(temperature=1.0, top_p=0.0, seed=1), 500)) == {0}
    assert set(drawn(Sampling(temperature=1.0, top_p=1.0, seed=1), 500)) == {0, 1, 2, 3}


def test_top_k_keeps_so_many_tokens_and_of_equals_the_first() -> None:
    assert set(drawn(Sampling(temperature=2.0, top_k=3, seed=1), 500)) == {0, 1, 2}
    equal = np.zeros(9, np.float32)
    assert set(drawn(Sampling(temperature=1.0, top_k=2, seed=1), 200, equal)) == {0, 1}
    assert len(set(drawn(Sampling(temperature=1.0, top_k=99, seed=1), 500, equal))) == 9
    assert drawn(Sampling(temperature=1.0, top_p=0.0, seed=1), 9, equal) == [0] * 9
    assert set(drawn(Sampling(temperature=1.0, top_p=0.5, seed=1), 500, equal)) == {0, 1, 2, 3, 4}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([1, 2, 65, 700, 3000]),
    top_k=st.sampled_from([0, 1, 5, 100, 10_000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 0.999, 1.0]),
    temperature=st.sampled_from([1e-300, 0.1, 1.0, 2.0, 1e6]),
)
def test_only_tokens_are_drawn_that_a_sort_of_everything_would_leave(
    seed: int, vocabulary: int, top_k: int, top_p: float, temperature: float
) -> None:
    logits = np.random.RandomState(seed).randn(vocabulary).astype(np.float32) * 4
    with np.errstate(all="ignore"):
        weights = np.exp((logits - logits.max()) / np.float32(max(temperature, 1e-30)))
    order = np.argsort(-weights, kind="stable")[: top_k or None]
    sums = weights[order].cumsum(dtype=np.float64)
    many = int(np.searchsorted(sums, top_p * sums[-1] * (1 + 1e-9))) + 1
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    assert set(drawn(sampling, 20, logits)) <= set(order[:many].tolist())


def test_presence_counts_once_and_frequency_each_time() -> None:
    # log(0.5 / 0.3) = 0.51: one penalty of 0.6 passes the gap, a second one passes it again.
    assert drawn(Sampling(presence_penalty=0.6), 3) == [0, 1, 0]
    assert drawn(Sampling(frequency_penalty=0.6), 4) == [0, 1, 0, 1]
    assert drawn(Sampling(frequency_penalty=-1.0), 3) == [0, 0, 0]


def test_a_bias_lifts_and_bans_tokens() -> None:
    assert drawn(Sampling(logit_bias={3: 100.0}), 2) == [3, 3]
    banned = Sampling(temperature=1.0, seed=1, logit_bias={0: -100.0, 1: -100.0})
    assert set(drawn(banned, 300)) == {2, 3}


def test_the_same_seed_draws_the_same_and_the_scores_stay_untouched() -> None:
    before = LOGITS.copy()
    sampling = Sampling(temperature=1.0, seed=7, presence_penalty=1.0, logit_bias={1: 0.5})
    assert drawn(sampling, 50) == drawn(sampling, 50)
    assert drawn(sampling, 50) != drawn(Sampling(temperature=1.0, seed=8), 50)
    assert drawn(Sampling(temperature=1.0), 50) != drawn(Sampling(temperature=1.0), 50)
    assert np.array_equal(before, LOGITS)


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63, 2**200])
def test_every_whole_number_is_a_seed(seed: int) -> None:
    sampling = Sampling(temperature=1.0, seed=seed)
    assert drawn(sampling, 30) == drawn(sampling, 30)


def test_a_batch_gives_each_row_what_it_gives_alone() -> None:
    logits = np.random.RandomState(3).randn(6, 500).astype(np.float32)
    several = [
        Sampling(),
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=0.7, top_p=0.9, seed=2),
        Sampling(presence_penalty=2.0),
        Sampling(logit_bias={5: 3.0}),
        Sampling(),
    ]
    samplers = [Sampler(sampling, 500) for sampling in several]
    together = [choose_all(logits, samplers, [None] * 6) for _ in range(8)]
    alone = [Sampler(sampling, 500) for sampling in several]
    assert together == [
        [sampler.choose(row) for sampler, row in zip(alone, logits, strict=True)] for _ in range(8)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("row", "possible"),
    [
        ([math.nan, 1.0, 2.0, math.nan], {1, 2}),
        ([math.inf, 1.0, math.inf, -math.inf], {0, 2}),
        ([-math.inf, -math.inf, -5.0, -math.inf], {2}),
        ([3e38, -3e38, 0.0, 1.0], {0}),
        ([math.nan] * 4, {None}),
        ([-math.inf] * 4, {None}),
    ],
)
def test_scores_that_are_no_numbers_are_never_chosen(
    row: list[float], possible: set[int | None], temperature: float
) -> None:
    """Bad input: a model that overflows ends an answer and not the process."""
    logits = np.array([row], np.float32)
    sampler = Sampler(Sampling(temperature=temperature, seed=1), 4)
    assert {choose_all(logits, [sampler], [None])[0] for _ in range(40)} <= possible


def test_a_mask_rules_tokens_out_also_for_the_quick_way() -> None:
    mask = np.array([False, True, True, False])
    chosen = choose_all(np.stack([LOGITS, LOGITS]), [Sampler(Sampling(), 4)] * 2, [mask, None])
    assert chosen == [1, 0]
    assert Sampler(Sampling(), 4).choose(LOGITS, np.zeros(4, np.bool_)) is None


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(temperature=math.inf), "temperature"),
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(top_p=math.nan), "top_p"),
        (Sampling(top_p=-1.0), "top_p"),
        (Sampling(top_k=-1), "top_k"),
        (Sampling(presence_penalty=math.inf), "presence_penalty"),
        (Sampling(frequency_penalty=math.nan), "frequency_penalty"),
        (Sampling(logit_bias={4: 1.0}), "logit_bias"),
        (Sampling(logit_bias={-1: 1.0}), "logit_bias"),
        (Sampling(logit_bias={0: math.nan}), "logit_bias"),
    ],
)
def test_absurd_values_are_refused_by_name(sampling: Sampling, field: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        Sampler(sampling, 4)
    assert (refused.value.status, refused.value.param) == (400, field)


def test_log_probabilities_are_those_of_the_scores_likeliest_first() -> None:
    found = log_probability(LOGITS, 2, 3)
    assert found.token == 2
    assert math.isclose(found.logprob, math.log(0.15), abs_tol=1e-6)
    assert [token for token, _ in found.top] == [0, 1, 2]
    assert np.allclose([value for _, value in found.top], np.log(SHARES[:3]), atol=1e-6)
    assert log_probability(LOGITS, 2, 0).top == ()


def test_all_log_probabilities_together_are_certain() -> None:
    logits = (np.random.RandomState(1).randn(300) * 20).astype(np.float32)
    logits[7] = -np.inf
    logits[8] = np.nan
    found = log_probability(logits, 0, 300)
    assert math.isclose(sum(math.exp(value) for _, value in found.top), 1.0, abs_tol=1e-6)
    assert not {7, 8} & {token for token, _ in found.top}
    # Minus infinity is no JSON.
    assert log_probability(logits, 7, 0).logprob == IMPOSSIBLE
    assert log_probability(np.full(3, -np.inf, np.float32), 0, 2).logprob == IMPOSSIBLE
