"""Training: batches of question-answer pairs, loss on the answers only, Muon beside AdamW.

Everything random comes from one seed. Two runs on the same machine with the same number of threads
and the same torch build give the same weights; elsewhere the weights differ in their last bits.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from demo_model.muon import Muon
from demo_model.network import Decoder, Shape

Example = tuple[list[int], int]  # token ids of the whole turn, index of the first answer token


@dataclass(frozen=True, slots=True)
class Plan:
    """``tokens`` a batch (padded), ``batches`` in all, peak rates of the two optimisers."""

    batches: int
    tokens: int = 2560
    muon_rate: float = 0.02
    adam_rate: float = 4e-3
    warmup: int = 20
    seed: int = 20260101


def batches(
    examples: Iterator[Example], tokens: int, pad: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ``(ids [rows, length], is_answer [rows, length])`` of similar lengths, forever."""
    while True:
        pool = sorted((next(examples) for _ in range(1024)), key=lambda example: len(example[0]))
        groups: list[list[Example]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example[0]) > tokens and groups[-1]:
                groups.append([])
            groups[-1].append(example)
        order = random.Random(len(pool) * 7919 + sum(len(e[0]) for e in pool))
        order.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            rows = torch.full((len(group), length), pad)
            answer = torch.zeros((len(group), length), dtype=torch.bool)
            for row, (ids, first) in enumerate(group):
                rows[row, : len(ids)] = torch.tensor(ids)
                answer[row, first : len(ids)] = True
            yield rows, answer


def train(
    shape: Shape, plan: Plan, examples: Iterator[Example], pad: int, report: Callable[[str], None]
) -> Decoder:
    """Return a trained decoder."""
    torch.manual_seed(plan.seed)
    model = Decoder(shape)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.0)
    stream = batches(examples, plan.tokens, pad)
    started, seen, recent = time.monotonic(), 0, 0.0
    for step in range(plan.batches):
        factor = rate_factor(step, plan)
        muon.rate = plan.muon_rate * factor
        for group in adam.param_groups:
            group["lr"] = plan.adam_rate * factor
        ids, answer = next(stream)
        logits = model(ids[:, :-1], answer[:, 1:])
        loss = F.cross_entropy(logits, ids[:, 1:][answer[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser in (muon, adam):
            optimiser.step()
            optimiser.zero_grad()
        seen += ids.numel()
        recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
        if step % 25 == 24:
            spent = time.monotonic() - started
            report(
                f"batch {step + 1}/{plan.batches} loss {recent:.4f} {seen / spent:.0f} tok/s {spent:.0f} s"
            )
    return model


def rate_factor(step: int, plan: Plan) -> float:
    """Return the share of the peak rate: linear warm-up, constant, linear decay over the last half."""
    if step < plan.warmup:
        return (step + 1) / plan.warmup
    left = (plan.batches - step) / plan.batches
    return min(1.0, left / 0.5)


def endless(make: Callable[[random.Random], Sequence[Example]], seed: int) -> Iterator[Example]:
    """Yield examples of one fresh epoch after another."""
    source = random.Random(seed)
    while True:
        epoch = list(make(source))
        source.shuffle(epoch)
        yield from epoch
