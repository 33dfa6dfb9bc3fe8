"""Choosing the next token from a row of logits."""

import numpy as np
from numpy.typing import NDArray

from aiproxy.reference_server.onnx.generation import Sampling

Logits = NDArray[np.float32]


class Sampler:
    """Draws the tokens of one answer; holds its random state and what it has said so far."""

    def __init__(self, sampling: Sampling, forbidden: tuple[int, ...]) -> None:
        self._sampling = sampling
        self._forbidden = list(forbidden)
        self._source = np.random.default_rng(sampling.seed)
        self._said: dict[int, int] = {}

    def choose(self, logits: Logits) -> int:
        """Return the next token id for ``logits [vocabulary]``, which are not changed."""
        scores = logits.astype(np.float64)
        scores[self._forbidden] = -np.inf
        self._penalise(scores)
        greedy = self._sampling.temperature == 0
        token = int(scores.argmax()) if greedy else self._draw(scores)
        self._said[token] = self._said.get(token, 0) + 1
        return token

    def _penalise(self, scores: NDArray[np.float64]) -> None:
        presence, frequency = self._sampling.presence_penalty, self._sampling.frequency_penalty
        if presence or frequency:
            for token, count in self._said.items():
                scores[token] -= presence + frequency * count

    def _draw(self, scores: NDArray[np.float64]) -> int:
        order = np.argsort(-scores, kind="stable")
        if self._sampling.top_k:
            order = order[: self._sampling.top_k]
        # Subtracting the best first keeps a tiny temperature from overflowing the exponential.
        weights = np.exp((scores[order] - scores[order[0]]) / self._sampling.temperature)
        weights /= weights.sum()
        # The smallest set of likeliest tokens that reaches top_p; at least the likeliest one.
        keep = int(np.searchsorted(weights.cumsum(), self._sampling.top_p)) + 1
        shares = weights[:keep] / weights[:keep].sum()
        at = int(np.searchsorted(shares.cumsum(), self._source.random(), side="right"))
        return int(order[min(at, len(shares) - 1)])
