"""The few candidates of a long list that can be among the best, without weighing all of them.

A slate of hundreds of models is the same for every request of its kind; what differs is the length
of the prompt and what the last calls taught. ``Shortlist.of`` returns models among which a strategy
finds the same best ones, in the same order, as among all of them:

* prices do not change: a model that sixteen others undercut at every length is out for good;
* quality does not change either;
* latencies and error rates are looked at for the whole list every 100 ms, and for the
  shortlist on every request;
* ``balanced`` walks down a bound of the score that no prompt can lift, until nobody left can
  overtake the best found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappush, heappushpop
from operator import le
from typing import Any, Final

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing import strategies

#: Shorter slates are weighed whole: it costs no more.
SHORTEST: Final = 32
#: Seconds for which the latencies and error rates of a whole slate stand.
_FRESH_S: Final = 0.1
_UNLIMITED: Final = 1 << 62
#: Picodollars a token from which on ``strategies.EPSILON`` does not move a quotient of costs.
_EPSILON_COUNTS: Final = 1000
#: Bounds are compared with sums taken in another order; they may differ by rounding.
_ROUNDING: Final = 1e-9

Places = list[int]


@dataclass(slots=True)
class _Kept:
    """Places worked out at some time."""

    at: float
    places: Places


@dataclass(slots=True)
class _Bounds:
    """Per group of a slate: places by falling bound, with that bound."""

    at: float
    groups: list[list[tuple[float, int]]]
    rest: list[float]
    fastest: int


class Shortlist:
    """``models`` are in the order that breaks ties; ``keep`` is how many of the best are wanted."""

    def __init__(self, models: Sequence[Model], task: str, keep: int) -> None:
        self._models = models
        self._keep = keep
        self._task = task
        self._matches = [strategies.task_match(model, task) for model in models]
        self._static: dict[tuple[Any, ...], list[Model]] = {}
        self._live: dict[tuple[Any, ...], _Kept] = {}
        self._bounds: dict[tuple[Any, ...], _Bounds] = {}
        self._cheapest: Places = []

    def of(
        self, intent: Intent, now: float, weights: tuple[float, float, float]
    ) -> Sequence[Model]:
        """The models to weigh for this request, in slate order."""
        strategy = intent.strategy
        hinted = intent.task_source == "hint" and intent.strategy_source != "header"
        variant = (strategy, hinted, intent.ladder, intent.reasoning)
        if strategy in ("latency", "availability"):
            return self._recent(variant, intent, now, weights)
        if strategy == "balanced":
            return self._bounded(variant, intent, now, weights)
        found = self._static.get(variant)
        if found is None:
            found = self._static[variant] = self._pick(sorted(self._unchanging(intent, weights)))
        return found

    def _pick(self, places: Sequence[int]) -> list[Model]:
        return [self._models[i] for i in places]

    # --- what never changes ----------------------------------------------------------------------

    def _unchanging(self, intent: Intent, weights: tuple[float, float, float]) -> set[int]:
        strategy = intent.strategy
        if strategy == "round_robin":
            return self._ring(intent)
        if strategy == "quality":
            return set(self._best(intent, 0.0, weights))
        by_match = strategy == "capability-first"
        return set(self._first_of(self._groups(intent, by_match), self._undercut_by_few))

    def _ring(self, intent: Intent) -> set[int]:
        """Every provider's first model, and the first of the others."""
        if intent.ladder:
            return set(range(len(self._models)))
        firsts: dict[str, int] = {}
        for i, model in enumerate(self._models):
            firsts.setdefault(model.provider.id, i)
        ring = set(firsts.values())
        others = [i for i in range(len(self._models)) if i not in ring]
        return ring | set(others[: self._keep])

    def _groups(self, intent: Intent, by_match: bool) -> list[Places]:
        """Places by what ranks before the strategy's number, best first."""
        leads = strategies.leads_of(intent, self._models) or [0.0] * len(self._models)
        groups: dict[tuple[float, float], Places] = {}
        for i, lead in enumerate(leads):
            match = self._matches[i] if by_match else 0.0
            groups.setdefault((-lead, -match), []).append(i)
        return [groups[key] for key in sorted(groups)]

    def _first_of(self, groups: list[Places], pick: Callable[[Places], Places]) -> Places:
        """The picks of the first groups, until they hold enough."""
        found: Places = []
        taken = 0
        for group in groups:
            found += pick(group)
            taken += len(group)
            if taken >= self._keep:
                break
        return found

    def _undercut_by_few(self, group: Places) -> Places:
        """The places of a group that fewer than ``keep`` others undercut at every length."""
        rows = sorted((_price_row(self._models[i]), i) for i in group)
        found: list[tuple[tuple[int, ...], int]] = []
        for row, i in rows:
            cheaper = 0
            for other, _ in found:
                if other[0] < row[0] and all(map(le, other, row)):
                    cheaper += 1
                    if cheaper == self._keep:
                        break
            else:
                found.append((row, i))
        return [i for _, i in found]

    # --- what is looked at every moment ----------------------------------------------------------

    def _best(self, intent: Intent, now: float, weights: tuple[float, float, float]) -> Places:
        values = strategies.values_of(intent.strategy, intent, self._models, now, weights)
        key = strategies.sort_key(intent, self._models, values)
        return strategies.best_places(len(self._models), key, self._keep)

    def _recent(
        self,
        variant: tuple[Any, ...],
        intent: Intent,
        now: float,
        weights: tuple[float, float, float],
    ) -> list[Model]:
        key = (*variant, intent.stream)
        kept = self._live.get(key)
        if kept is None or not 0 <= now - kept.at < _FRESH_S:
            kept = self._live[key] = _Kept(now, sorted(self._best(intent, now, weights)))
        return self._pick(kept.places)

    def _bounded(
        self,
        variant: tuple[Any, ...],
        intent: Intent,
        now: float,
        weights: tuple[float, float, float],
    ) -> list[Model]:
        key = (*variant, intent.stream)
        bounds = self._bounds.get(key)
        if bounds is None or not 0 <= now - bounds.at < _FRESH_S:
            bounds = self._bounds[key] = self._bound(intent, now, weights)
        cheap = self._cheap()
        cost_of = strategies.usual_cost(intent)
        models = self._models
        cheapest = min(cost_of(models[i]) for i in cheap) + strategies.EPSILON
        share = weights[0] / (sum(weights) or 1.0)
        # the cheapest and the fastest one set the scale of all scores
        found = {*cheap, bounds.fastest}
        taken = 0
        for group in bounds.groups:
            best: list[float] = []
            for bound, i in group:
                if len(best) >= self._keep and bound < best[0] - _ROUNDING:
                    break
                found.add(i)
                cost = cost_of(models[i])
                score = bounds.rest[i] + share * cheapest / (cost + strategies.EPSILON)
                if len(best) < self._keep:
                    heappush(best, score)
                else:
                    heappushpop(best, score)
            taken += len(group)
            if taken >= self._keep:
                break
        return self._pick(sorted(found))

    def _cheap(self) -> Places:
        """Places among which the cheapest of all is, whatever the length."""
        if not self._cheapest:
            models = self._models
            found: list[tuple[int, ...]] = []
            for i in sorted(range(len(models)), key=lambda i: _price_row(models[i])):
                row = _price_row(models[i])
                price = models[i].price
                if price is not None and price.tiers:
                    self._cheapest.append(i)  # whom it beats depends on the prompt's length
                    continue
                if not any(all(map(le, other, row)) for other in found):
                    found.append(row)
                    self._cheapest.append(i)
        return self._cheapest

    def _bound(self, intent: Intent, now: float, weights: tuple[float, float, float]) -> _Bounds:
        total = sum(weights) or 1.0
        models = self._models
        latencies = strategies.latencies_of(intent, models, now)
        fastest = min(latencies)
        anchor = models[self._cheap()[0]]
        bounds, rest = [], []
        for model, latency in zip(models, latencies, strict=True):
            quality = model.quality_for(intent.task) or 0.0
            speed = strategies.speed(fastest, latency)
            rest.append((weights[1] * speed + weights[2] * quality) / total)
            bounds.append(rest[-1] + weights[0] * _most_of_cheapest(anchor, model) / total)
        groups = [
            sorted(((bounds[i], i) for i in group), reverse=True)
            for group in self._groups(intent, by_match=False)
        ]
        return _Bounds(now, groups, rest, latencies.index(fastest))


def _price_row(model: Model) -> tuple[int, ...]:
    """What decides a cost: of two models the one with no larger number anywhere costs no more."""
    price = model.price
    if price is None:
        return (_UNLIMITED,) * 4
    return price.reading, price.writing, price.per_item + price.per_request, _cap(model)


def _cap(model: Model) -> int:
    return model.max_output_tokens or _UNLIMITED


def _most_of_cheapest(anchor: Model, model: Model) -> float:
    """The most that the cheapest cost over this model's can be for any request, 0..1.

    The cheapest costs no more than the anchor, and a quotient of sums is at most the largest
    quotient of their parts.
    """
    theirs, ours = anchor.price, model.price
    if ours is None:
        return 0.0
    if theirs is None or theirs.per_item or theirs.per_request or ours.reading < _EPSILON_COUNTS:
        return 1.0
    theirs = theirs.top
    longer = max(1.0, _cap(anchor) / _cap(model))
    prompt = theirs.reading / ours.reading
    answer = longer * theirs.writing / ours.writing if ours.writing else float(theirs.writing > 0)
    return min(1.0, max(prompt, answer) + 1 / _EPSILON_COUNTS)
