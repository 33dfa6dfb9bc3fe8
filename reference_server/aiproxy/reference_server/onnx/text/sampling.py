"""Choosing the next token of each sequence from its row of scores, and log probabilities.

Logits that are not numbers count as impossible, infinite ones as the largest number there is, so a
model that overflows ends an answer and not the process.
"""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aiproxy.reference_server.onnx.errors import RequestRefused
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.runner import TokenLogprob

Logits: TypeAlias = NDArray[np.float32]
Allowed: TypeAlias = NDArray[np.bool_]

#: What the wire has instead of minus infinity, which JSON cannot write.
IMPOSSIBLE: Final = -9999.0
_LARGEST: Final = float(np.finfo(np.float32).max)
#: Largest temperature, penalty or bias that still adds and divides without overflow.
_LIMIT: Final = 1e6
#: Smallest temperature that single precision divides by.
_COLDEST: Final = 1e-30
_BLOCK: Final = 512


class Sampler:
    """Draws the tokens of one answer; holds its random state and what it has said so far.

    Its draws depend on nothing but its own seed and the scores it is given: one draw a token.
    """

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        """Raises:
        RequestRefused: a value that no arithmetic bears, a bias for a token that is not there.
        """
        _check(sampling, vocabulary)
        self._sampling = sampling
        # A generator takes no negative seed; every other number keeps its own.
        seed = None if sampling.seed is None else sampling.seed % 2**64
        self._source = np.random.default_rng(seed)
        self._said: dict[int, int] = {}
        self._biased = np.fromiter(sampling.logit_bias.keys(), np.int64)
        self._bias = np.fromiter(sampling.logit_bias.values(), np.float32)
        self._penalises = bool(sampling.presence_penalty or sampling.frequency_penalty)
        #: Whether the likeliest token of the untouched scores is always the choice.
        self.plain = not (sampling.temperature or self._penalises or len(self._bias))

    def choose(self, logits: Logits, allowed: Allowed | None = None) -> int | None:
        """Return the next token for ``logits [vocabulary]``, which are not changed; None if no
        token is possible. ``allowed [vocabulary]`` rules out the others."""
        scores = _clean(logits)
        if allowed is not None:
            scores[~allowed] = -np.inf
        if len(self._bias):
            scores[self._biased] += self._bias
        if self._penalises and self._said:
            said = np.fromiter(self._said.keys(), np.int64)
            counts = np.fromiter(self._said.values(), np.float32)
            frequency = self._sampling.frequency_penalty * counts
            scores[said] -= self._sampling.presence_penalty + frequency
        best = int(scores.argmax())
        if scores[best] == -np.inf:
            return None
        token = self._draw(scores, best) if self._sampling.temperature else best
        if self._penalises:
            self._said[token] = self._said.get(token, 0) + 1
        return token

    def _draw(self, scores: Logits, best: int) -> int:
        # Subtracting the best first keeps a tiny temperature from overflowing the exponential.
        temperature = np.float32(max(self._sampling.temperature, _COLDEST))
        with np.errstate(over="ignore", under="ignore"):
            weights = np.exp((scores - scores[best]) / temperature)
        kept = _kept(weights, self._sampling.top_k, self._sampling.top_p)
        at = _pick(weights if kept is None else weights[kept], self._source.random())
        return at if kept is None else int(kept[at])


def choose_all(
    logits: Logits, samplers: Sequence[Sampler], allowed: Sequence[Allowed | None]
) -> list[int | None]:
    """Return a token for each row of ``logits [rows, vocabulary]``, None where none is possible."""
    quick = [
        sampler.plain and mask is None for sampler, mask in zip(samplers, allowed, strict=True)
    ]
    best: list[int] = []
    highest: Sequence[float] = ()
    if any(quick):
        places = logits.argmax(axis=1)
        best = places.tolist()
        highest = logits[np.arange(len(logits)), places].tolist()
    # argmax stops at the first that is no number; such a row is cleaned and looked at again.
    return [
        best[row]
        if quick[row] and math.isfinite(highest[row])
        else samplers[row].choose(logits[row], allowed[row])
        for row in range(len(samplers))
    ]


def log_probability(logits: Logits, token: int, top: int) -> TokenLogprob:
    """Return the log probability of ``token`` and of the ``top`` likeliest at its place."""
    scores = _clean(logits)
    highest = scores.max()
    if highest == -np.inf:
        return TokenLogprob(token, IMPOSSIBLE)
    with np.errstate(over="ignore", under="ignore"):
        scores -= highest
        total = math.log(np.exp(scores).sum(dtype=np.float64))
    likeliest = _likeliest(scores, top) if top else np.empty(0, np.int64)
    ranked = [(int(at), float(scores[at]) - total) for at in likeliest]
    possible = tuple(pair for pair in ranked if pair[1] > IMPOSSIBLE)
    return TokenLogprob(token, max(IMPOSSIBLE, float(scores[token]) - total), possible)


def _clean(logits: Logits) -> Logits:
    """Return a copy of numbers and minus infinity only."""
    scores = logits.astype(np.float32)
    # If there is any NaN, argmax finds it; if there is any infinity, it is the largest.
    if not math.isfinite(scores[scores.argmax()]):
        np.nan_to_num(scores, copy=False, nan=-np.inf, posinf=_LARGEST, neginf=-np.inf)
    return scores


def _kept(weights: Logits, top_k: int, top_p: float) -> NDArray[np.int64] | None:
    """Return the tokens left by ``top_k``, then ``top_p``, of equals the first; None: all."""
    if not 0 < top_k < len(weights):
        if top_p >= 1:
            return None
        total = weights.sum(dtype=np.float64)
        # All that are lighter than this are together lighter than what top_p leaves out, so only
        # the others need sorting: hundreds of a hundred thousand. A little less, for rounding.
        many = np.flatnonzero(weights >= 0.999 * (1 - top_p) * total / len(weights))
    else:
        many = _likeliest(weights, top_k)
        if top_p >= 1:
            return many
        total = weights[many].sum(dtype=np.float64)
    # The smallest set of likeliest tokens that reaches top_p; at least the likeliest one.
    falling = np.sort(weights[many])[::-1]
    sums = falling.astype(np.float64).cumsum()
    keep = min(int(np.searchsorted(sums, top_p * total)) + 1, len(many))
    lightest = falling[keep - 1]
    heavier = many[weights[many] > lightest]
    return np.concatenate([heavier, many[weights[many] == lightest][: keep - len(heavier)]])


def _pick(weights: Logits, share: float) -> int:
    """Return the place where the running sum of ``weights`` passes ``share`` of the whole.

    Summed in blocks, and only the block in question place by place: twenty times as fast.
    """
    sums = np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)).astype(np.float64).cumsum()
    target = share * sums[-1]
    block = _first_beyond(sums, target)
    before = float(sums[block - 1]) if block else 0.0
    inside = weights[block * _BLOCK : (block + 1) * _BLOCK].astype(np.float64).cumsum()
    return block * _BLOCK + _first_beyond(inside, target - before)


def _first_beyond(sums: NDArray[np.float64], target: float) -> int:
    # Rounding may reach the sum itself: then it is the last one with any weight.
    at = np.searchsorted(sums, target, side="right")
    return int(min(at, np.searchsorted(sums, sums[-1])))


def _likeliest(weights: Logits, many: int) -> NDArray[np.int64]:
    """Return the places of the ``many`` largest weights, largest first, of equals the first."""
    if many >= len(weights):
        return np.argsort(-weights, kind="stable")
    threshold = np.partition(weights, len(weights) - many)[len(weights) - many]
    at_least = np.flatnonzero(weights >= threshold)
    return at_least[np.argsort(-weights[at_least], kind="stable")][:many]


def _check(sampling: Sampling, vocabulary: int) -> None:
    for name, lowest in (
        ("temperature", 0.0),
        ("top_p", 0.0),
        ("presence_penalty", -_LIMIT),
        ("frequency_penalty", -_LIMIT),
    ):
        value = getattr(sampling, name)
        if not lowest <= value <= _LIMIT:  # also refuses what is no number
            raise RequestRefused("invalid_value", f"{name} is out of range", name)
    if sampling.top_k < 0:
        raise RequestRefused("invalid_value", "top_k is negative", "top_k")
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocabulary:
            message = f"logit_bias names the token {token}; this model has 0 to {vocabulary - 1}"
            raise RequestRefused("invalid_value", message, "logit_bias")
        if not -_LIMIT <= bias <= _LIMIT:
            raise RequestRefused("invalid_value", "a logit_bias is out of range", "logit_bias")
