"""A plan: candidates in the order they would be tried, and what a record says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.preferences import Ignored
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.faults import worst_cost
from aiproxy.middleware.routing.refusing import Rejected
from aiproxy.middleware.routing.strategies import Figures

_UNKNOWN: Final = float("inf")


class Ranked(NamedTuple):
    """An eligible candidate. ``cost`` is the worst case in picodollars, ``None`` when unknown."""

    model: Model
    score: float
    cost: int | None
    latency_ms: float | None
    quality: float | None


#: A row from its five members, as ``Ranked._make`` but without a call of Python code.
_ranked: Final = partial(tuple.__new__, Ranked)


@dataclass(slots=True)
class Plan:
    """Candidates in the order they would be tried; the first is the choice.

    ``eligible`` is how many may serve, as far as was looked: more than are ranked where there are
    more. ``rejected`` may be worked out when it is read. ``slow`` are those ranked last for their
    pace, ``canary`` names the canary the request belongs to, ``success`` is how likely the first is
    to answer, ``rules`` are the rules of policies that held, where they changed the order.
    """

    ranked: tuple[Ranked, ...]
    rejected: Sequence[Rejected]
    strategy: str
    confidence: float
    reason: str
    eligible: int
    ignored: tuple[Ignored, ...] = ()
    policies: tuple[str, ...] = ()
    slow: frozenset[Model] = frozenset()
    canary: str | None = None
    success: float = 1.0
    rules: tuple[str, ...] = ()


def rows(
    intent: Intent, figures: Figures, places: Sequence[int], scores: Sequence[float]
) -> list[Ranked]:
    """The models at these places of the figures, with a score each."""
    models, worst, waits = figures.models, figures.worst, figures.latencies
    qualities = figures.qualities
    costs: list[Any] = [worst[i] for i in places]
    latencies: list[Any] = [waits[i] for i in places]
    if _UNKNOWN in costs:
        costs = [None if cost == _UNKNOWN else cost for cost in costs]
    if _UNKNOWN in latencies:
        latencies = [None if ms == _UNKNOWN else ms for ms in latencies]
    columns = zip(
        [models[i] for i in places],
        scores,
        costs,
        latencies,
        [qualities[i] for i in places],
        strict=True,
    )
    return list(map(_ranked, columns))


def cheapest(intent: Intent, rejected: Sequence[Rejected]) -> int:
    """The least (picodollars) that one of those would have cost whom the budget does not cover."""
    costs = [worst_cost(intent, row.model) for row in rejected if row.reason == "over_budget"]
    return min((cost for cost in costs if cost is not None), default=0)


def by_chain(ranked: list[Ranked], chain: tuple[str, ...]) -> list[Ranked]:
    """The chain orders what comes after the first choice; providers it leaves out come last."""
    place = {name: index for index, name in enumerate(chain)}
    return sorted(ranked, key=lambda r: place.get(r.model.provider.id, len(place)))


def confidence(scores: Sequence[float]) -> float:
    """Normalised margin of the best over the second score; 1.0 when alone (XAI-RESP-013)."""
    if len(scores) < 2:
        return 1.0
    best, second = scores[0], scores[1]
    if best <= 0 or best == second:
        return 0.0
    return round(min(1.0, max(0.0, (best - second) / best)), 4)
