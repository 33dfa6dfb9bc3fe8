"""Muon for the weight matrices: momentum, then the nearest semi-orthogonal step, in float32.

``torch.optim.Muon`` does its Newton-Schulz iterations in bfloat16, which CPUs without bfloat16
units emulate: it took nine tenths of a training step here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Return ``matrix`` with its singular values pushed towards 1."""
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon:
    """The two methods of an optimiser that the training loop uses, and ``rate``."""

    def __init__(self, matrices: Sequence[Tensor], momentum: float = 0.95) -> None:
        self.matrices = tuple(matrices)
        self.momentum = momentum
        self.rate = 0.0
        self._moving = [torch.zeros_like(matrix) for matrix in self.matrices]

    @torch.no_grad()
    def step(self) -> None:
        for matrix, moving in zip(self.matrices, self._moving, strict=True):
            if matrix.grad is None:
                continue
            moving.lerp_(matrix.grad, 1 - self.momentum)
            push = orthogonal(matrix.grad.lerp(moving, self.momentum))
            matrix.add_(push, alpha=-self.rate * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5)

    def zero_grad(self) -> None:
        for matrix in self.matrices:
            matrix.grad = None
