"""How one answer comes out of several: pure functions of what was answered.

Answers are given in the members' order. No function depends on that order except to break the last
tie: permuting the members permutes the result, and the same answers always give the same verdict.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Final

from aiproxy.middleware.ensembles.likeness import Form, likeness

#: A member whose price is unknown counts as the dearest of a tie.
_UNKNOWN_COST: Final = 1 << 80


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer with what speaks for it. ``cost`` is in picodollars; ``place`` is the member's."""

    form: Form
    weight: float = 1.0
    cost: int | None = None
    place: int = 0
    quality: float = 1.0

    @property
    def price(self) -> int:
        return _UNKNOWN_COST if self.cost is None else self.cost


@dataclass(frozen=True, slots=True)
class Verdict:
    """``winner`` indexes the votes. ``agreeing`` are those that say what it says, itself included;
    ``agreement`` is their share of all (by weight where weights count). ``each`` is the same share
    for every vote, ``alike`` the mean likeness of each to the others (1 when alone), ``table`` the
    likeness of every two."""

    winner: int
    agreement: float
    agreeing: tuple[int, ...]
    each: tuple[float, ...]
    alike: tuple[float, ...]
    table: list[list[float]] = field(default_factory=list, compare=False, repr=False)

    @property
    def consensus(self) -> bool:
        """Whether more than half say the same."""
        return self.agreement > 0.5


@dataclass(frozen=True, slots=True)
class Figures:
    """What the answers of an ensemble say about each other (UNI-ENS-008, UNI-ENS-011).

    ``diversity`` is one less the mean likeness of all pairs, ``consistency`` the share of pairs that
    say the same (both ``None`` for a single answer). ``outliers`` are answers that say the same as
    nobody while others agree.
    """

    diversity: float | None
    consistency: float | None
    outliers: tuple[int, ...]


def consensus(votes: Sequence[Vote], agreement: float) -> Verdict:
    """Return the answer that most others say, too: two say the same when their likeness is at
    least ``agreement``. Ties: the higher mean likeness to all, weight, lower cost, order
    (UNI-ENS-001)."""
    table = likenesses(votes)
    same = [_same(table, i, agreement) for i in range(len(votes))]
    alike = _alike(table)
    return _verdict(
        votes, same, table, lambda i: (len(same[i]), alike[i], votes[i].weight), weighed=False
    )


def plurality(votes: Sequence[Vote], *, weighed: bool = False) -> Verdict:
    """Return the answer that most members gave, equal answers counting together; ``weighed``: each
    by its weight. Ties: more weight (or more members), lower cost, order (UNI-ENS-002, 003)."""
    groups: dict[Hashable, list[int]] = {}
    for i, vote in enumerate(votes):
        groups.setdefault(vote.form.key, []).append(i)
    same = [tuple(groups[vote.form.key]) for vote in votes]
    weights = {key: fsum(votes[i].weight for i in group) for key, group in groups.items()}
    cheapest = {key: min(votes[i].price for i in group) for key, group in groups.items()}

    def rank(i: int) -> tuple[Any, ...]:
        key = votes[i].form.key
        count, weight = len(groups[key]), weights[key]
        first = (weight, count) if weighed else (count, weight)
        return (*first, -cheapest[key], -min(votes[j].place for j in groups[key]))

    return _verdict(votes, same, likenesses(votes), rank, weighed=weighed)


def chosen(votes: Sequence[Vote], winner: int, agreement: float) -> Verdict:
    """Return the verdict on a winner that was found in another way: by a judge, or first in turn."""
    table = likenesses(votes)
    same = [_same(table, i, agreement) for i in range(len(votes))]
    return _verdict(votes, same, table, lambda i: (i == winner,), weighed=False)


def figures(table: list[list[float]], agreement: float) -> Figures:
    """Return how answers compare by their likenesses; two say the same from ``agreement`` on."""
    count = len(table)
    pairs = [table[i][j] for i in range(count) for j in range(i)]
    if not pairs:
        return Figures(None, None, ())
    same = [_same(table, i, agreement) for i in range(count)]
    agreeing = any(len(group) > 1 for group in same)
    alone = [i for i in range(count) if len(same[i]) == 1] if agreeing else []
    agreed = sum(value >= agreement for value in pairs)
    return Figures(1 - fsum(pairs) / len(pairs), agreed / len(pairs), tuple(alone))


def likenesses(votes: Sequence[Vote]) -> list[list[float]]:
    """Return the likeness of every two answers."""
    count = len(votes)
    table = [[1.0] * count for _ in range(count)]
    for i in range(count):
        for j in range(i):
            table[i][j] = table[j][i] = likeness(votes[i].form, votes[j].form)
    return table


def _same(table: list[list[float]], i: int, agreement: float) -> tuple[int, ...]:
    return tuple(j for j, value in enumerate(table[i]) if j == i or value >= agreement)


def _alike(table: list[list[float]]) -> tuple[float, ...]:
    others = len(table) - 1
    if not others:
        return (1.0,)
    return tuple((fsum(row) - 1.0) / others for row in table)


def _verdict(
    votes: Sequence[Vote],
    same: Sequence[tuple[int, ...]],
    table: list[list[float]],
    rank: Callable[[int], tuple[Any, ...]],
    *,
    weighed: bool,
) -> Verdict:
    """The best by ``rank``; then the more complete answer, weight, lower cost, order."""
    winner = max(
        range(len(votes)),
        key=lambda i: (
            rank(i),
            votes[i].quality,
            votes[i].weight,
            -votes[i].price,
            -votes[i].place,
        ),
    )
    shares = [vote.weight if weighed else 1.0 for vote in votes]
    whole = fsum(shares)
    each = tuple(fsum(shares[j] for j in group) / whole for group in same)
    return Verdict(winner, each[winner], same[winner], each, _alike(table), table)
