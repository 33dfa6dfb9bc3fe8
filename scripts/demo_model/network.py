"""The decoder in torch: a Llama block (RMSNorm, rotary positions, grouped queries, SwiGLU).

Used for training only. ``graph.py`` writes the same arithmetic as an ONNX graph; the build script
compares the two on real prompts before it keeps the result.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the decoder; ``head`` is the width of one attention head."""

    vocab: int
    hidden: int = 192
    layers: int = 3
    heads: int = 6
    kv_heads: int = 2
    head: int = 32
    inner: int = 512
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5


def rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Return cosines and sines ``[context, head / 2]`` of the rotary positions."""
    steps = torch.arange(0, shape.head, 2, dtype=torch.float64) / shape.head
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.rope_base**-steps)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x [batch, heads, length, head]`` by its positions, halves paired as in Llama."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        wide, narrow = shape.heads * shape.head, shape.kv_heads * shape.head
        self.before_attention = Norm(shape.hidden, shape.eps)
        self.before_inner = Norm(shape.hidden, shape.eps)
        self.query = nn.Linear(shape.hidden, wide, bias=False)
        self.key = nn.Linear(shape.hidden, narrow, bias=False)
        self.value = nn.Linear(shape.hidden, narrow, bias=False)
        self.out = nn.Linear(wide, shape.hidden, bias=False)
        self.gate = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.up = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._attend(self.before_attention(x), cos, sin)
        y = self.before_inner(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            part(x).view(batch, length, -1, self.shape.head).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        share = self.shape.heads // self.shape.kv_heads
        mixed = F.scaled_dot_product_attention(
            rotate(query, cos, sin),
            rotate(key, cos, sin).repeat_interleave(share, dim=1),
            value.repeat_interleave(share, dim=1),
            is_causal=True,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, length, -1))


class Decoder(nn.Module):
    """``forward(ids, keep)`` gives logits for the positions ``keep`` marks, ``[kept, vocab]``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.hidden)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.last = Norm(shape.hidden, shape.eps)
        cos, sin = rotary_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=scale * 0.02 if "embed" in name else scale * 0.05)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return F.linear(self.last(x[keep]), self.embedding.weight)
