"""Walking down an order of places, best bound first, to the best few of those who pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from aiproxy.middleware.registry import Model

#: Places that are checked at first, for the best few and for the best one.
CHUNK: Final = 24
FEW: Final = 4
#: Bounds are compared with sums taken in another order; they may differ by rounding.
ROUNDING: Final = 1e-9

Places = list[int]
Passes = Callable[[Places], Places]
Values = Callable[[Places], list[float]]


class Check(NamedTuple):
    """One limit of a request: which of some places pass, and why a model does not."""

    passes: Passes
    why: Callable[[Model], str]


@dataclass(slots=True)
class Order:
    """All places, best first: by ``group``, then ``bound`` (no value is less), then match, place."""

    places: Places
    group: Sequence[int]
    bound: Sequence[float]
    _rank: list[int] = field(default_factory=list)

    def rank(self) -> list[int]:
        """The position of each place."""
        if not self._rank:
            found = [0] * len(self.places)
            for position, place in enumerate(self.places):
                found[place] = position
            self._rank = found
        return self._rank


def passing(places: Places, checks: Sequence[Check]) -> Places:
    for check in checks:
        if not places:
            break
        places = check.passes(places)
    return places


class Steps:
    """The places of a list that pass all checks, some at a time."""

    __slots__ = ("_at", "_checks", "_places", "_size")

    def __init__(self, places: Places, checks: Sequence[Check], size: int = CHUNK) -> None:
        self._places = places
        self._checks = checks
        self._at = 0
        self._size = size

    def next(self) -> Places | None:
        """The next ones, perhaps none of a part; ``None`` at the end."""
        if self._at >= len(self._places):
            return None
        part = self._places[self._at : self._at + self._size]
        self._at += self._size
        self._size *= 2  # what is far down takes fewer and longer steps
        return passing(part, self._checks)

    def rest(self) -> Places:
        part, self._at = self._places[self._at :], len(self._places)
        return passing(part, self._checks)

    def first(self) -> int | None:
        while (part := self.next()) is not None:
            if part:
                return part[0]
        return None


class Walk:
    """Looks for the best ``keep`` places of an order; ``scale`` loosens its bounds."""

    __slots__ = ("_bound", "_group", "_keep", "_matches", "_scale", "_spread")

    def __init__(
        self,
        order: Order,
        matches: Sequence[float],
        keep: int,
        *,
        spread: bool,
        scale: float = 1.0,
    ) -> None:
        self._bound = order.bound
        self._group = order.group
        self._matches = matches
        self._keep = keep
        self._spread = spread
        self._scale = scale

    def run(self, steps: Steps, exact: Values | None) -> tuple[Places, bool]:
        """Return places among which the best are, and whether there are more."""
        bounds, group, ties, keep = self._bound, self._group, self._matches, self._keep
        scale, slack = self._scale, (ROUNDING if exact else 0.0)
        tied = exact is None  # else who has the same bound need not have the same value
        found: Places = []
        while len(found) <= keep:
            part = steps.next()
            if part is None:
                return found, len(found) > keep
            found += part
        # Whoever is to displace one of the first has to beat the worst of the last one's group.
        edge = group[found[keep - 1]]
        first = next(at for at, i in enumerate(found) if group[i] == edge)
        rivals = found[first:keep]
        values = [bounds[i] for i in rivals] if exact is None else exact(rivals)
        most, tie, place = max(zip(values, [ties[i] for i in rivals], rivals, strict=True))
        # To share among equals, all who may be equal to the best are wanted.
        least = min(values) if self._spread and first == 0 else -inf
        more: Places | None = found[keep:]
        del found[keep:]
        while more is not None:
            for i in more:
                bound = bounds[i] * scale - slack
                if group[i] != edge or (
                    bound > least
                    and (bound > most or (tied and bound == most and (ties[i], i) > (tie, place)))
                ):
                    return found, True
                found.append(i)
            more = steps.next()
        return found, True
