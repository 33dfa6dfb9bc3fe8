"""The best few of a long list of candidates, without weighing all of them.

A board holds a slate's figures as columns by place. What never changes is sorted once, latencies
and error rates are read for all places every 100 ms (less often beyond a thousand models), and
costs are bounded for prompts and answers of about one length (``boxes``). A request then walks down
an order, best bound first, drops whom its limits turn away, and stops where nobody left can be
among the best; where its limits turn nobody away, that walk is the same for all requests of about
one length and is taken once (``heads``). It finds the same models in the same order as weighing
everybody would.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Any, Final, NamedTuple

from aiproxy.middleware.intent import Intent
from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing import strategies
from aiproxy.middleware.routing.boxes import Box, Boxes
from aiproxy.middleware.routing.faults import cost_fault, worst_cost
from aiproxy.middleware.routing.heads import Head, few_alike, reach
from aiproxy.middleware.routing.rings import Rings
from aiproxy.middleware.routing.strategies import Figures
from aiproxy.middleware.routing.walking import (
    CHUNK,
    FEW,
    Check,
    Order,
    Places,
    Steps,
    Values,
    Walk,
)

#: Shorter slates are weighed whole: it costs no more.
SHORTEST: Final = 32
#: Strategies that hang on what a request costs.
_BY_COST: Final = frozenset({"cost", "capability-first", "balanced"})
#: Seconds for which the latencies and error rates of up to a thousand places stand.
_FRESH_S: Final = 0.1


@dataclass(slots=True)
class Live:
    """What the last calls taught, at one time, counted by ``number``; latencies are infinite where
    nobody measured. What only some strategies and limits ask for is worked out when it is."""

    number: int
    at: float
    latencies: list[float]
    orders: dict[tuple[Any, ...], Order] = field(default_factory=dict)
    rings: Rings | None = None
    merits: tuple[tuple[float, float, float], list[float]] | None = None
    _by_latency: Places | None = None
    _measured: list[float] | None = None
    _judged: list[float] | None = None

    @property
    def by_latency(self) -> Places:
        """The measured places, fastest first."""
        if self._by_latency is None:
            latencies = self.latencies
            known = [i for i, ms in enumerate(latencies) if ms < inf]
            self._by_latency = sorted(known, key=latencies.__getitem__)
        return self._by_latency

    @property
    def measured(self) -> list[float]:
        """The latencies of ``by_latency``."""
        if self._measured is None:
            self._measured = [self.latencies[i] for i in self.by_latency]
        return self._measured

    @property
    def judged(self) -> list[float]:
        """Latencies for a limit: 0 where nobody measured."""
        if self._judged is None:
            self._judged = [0.0 if ms == inf else ms for ms in self.latencies]
        return self._judged

    @property
    def complete(self) -> bool:
        """Whether everybody is measured."""
        return len(self.by_latency) == len(self.latencies)


class Picked(NamedTuple):
    """Columns of the models to weigh, ``more``: others may serve as well. ``checks`` are what the
    rest was held to."""

    figures: Figures
    more: bool


class Board:
    """``models`` are in the order that breaks ties; ``keep`` is how many of the best are wanted."""

    def __init__(self, models: Sequence[Model], intent: Intent, keep: int) -> None:
        self.models = tuple(models)
        self._keep = keep
        self._task = intent.task
        self._matches = [-strategies.task_match(model, intent.task) for model in models]
        self._qualities = [model.quality_for(intent.task) for model in models]
        self._priorities = [model.provider.priority for model in models]
        self._windows = [inf if m.context_window is None else m.context_window for m in models]
        self._boxes = Boxes(self.models, embeds=not intent.writes_text)
        self._fresh_s = _FRESH_S * max(1.0, len(models) / 1000) ** 1.5
        self._orders: dict[tuple[Any, ...], Order] = {}
        self._live: dict[bool, Live] = {}
        self._numbers = count()
        self._heads: dict[tuple[Any, ...], tuple[int, Head]] = {}
        self._whole = list(range(len(models)))
        self._rings: Rings | None = None

    # --- limits ----------------------------------------------------------------------------------

    def context(self, prompt_tokens: int) -> Check:
        windows = self._windows
        return Check(
            lambda places: [i for i in places if windows[i] > prompt_tokens],
            lambda _: "context_too_small",
        )

    def cost(self, intent: Intent, limit: int) -> Check:
        box = self._boxes.of(intent)
        low, high = box.worst()
        exact = self._boxes.worst_of(intent)

        def passes(places: Places) -> Places:
            unsure = [i for i in places if low[i] <= limit < high[i]]
            if not unsure:
                return [i for i in places if high[i] <= limit]
            fit = {i for i, cost in zip(unsure, exact(unsure), strict=True) if cost <= limit}
            return [i for i in places if high[i] <= limit or i in fit]

        def why(model: Model) -> str:
            return cost_fault(intent, worst_cost(intent, model)) or "over_cost_limit"

        return Check(passes, why)

    def latency(self, intent: Intent, limit_ms: float, now: float) -> Check | None:
        """Whoever is slower; ``None`` when nobody is."""
        live = self.live(intent, now)
        if not live.measured or live.measured[-1] <= limit_ms:
            return None
        judged = live.judged
        return Check(
            lambda places: [i for i in places if judged[i] <= limit_ms],
            lambda _: "over_max_latency",
        )

    def health(self, now: float) -> Check | None:
        """Whoever is blocked; ``None`` when nobody is."""
        # most are well: their two times are looked at before anything is called
        blocked = {
            i
            for i, model in enumerate(self.models)
            if (
                (track := model.track).blocked_until > now
                or track.open_until
                or (theirs := model.provider.track).blocked_until > now
                or theirs.open_until
            )
            and (track.blocked_for(now) > 0 or model.provider.track.blocked_for(now) > 0)
        }
        if not blocked:
            return None
        return Check(
            lambda places: [i for i in places if i not in blocked],
            lambda _: "unhealthy",
        )

    def rejected(self, checks: Sequence[Check]) -> list[tuple[Model, str]]:
        """Everybody the checks turn away, with the reason of the first that does."""
        found: list[tuple[int, str]] = []
        left = self._whole
        for check in checks:
            kept = check.passes(left)
            if len(kept) < len(left):
                stay = set(kept)
                found += [(i, check.why(self.models[i])) for i in left if i not in stay]
                left = kept
        return [(self.models[i], reason) for i, reason in sorted(found)]

    # --- picking ---------------------------------------------------------------------------------

    def pick(
        self,
        intent: Intent,
        now: float,
        weights: tuple[float, float, float],
        checks: Sequence[Check],
        *,
        timed: bool,
        spread: bool,
    ) -> Picked:
        """The models to weigh for this request, in slate order; nobody when all are turned away.

        ``timed``: those nobody has measured come last. ``spread``: all who are equal to the best
        are wanted, however many.
        """
        strategy = intent.strategy
        live = self.live(intent, now)
        timed = timed and not live.complete
        if not (checks or spread or (timed and strategy == "balanced")):
            return Picked(
                self._figures(intent, self._head(intent, live, weights, timed=timed)), True
            )
        if strategy == "round_robin":
            found, more = self._turns(intent, live, checks, timed=timed)
        elif strategy == "balanced":
            found, more = self._bounded(intent, live, weights, checks, timed=timed, spread=spread)
        else:
            order, exact = self._order(intent, live, timed=timed)
            walk = Walk(order, self._ties(intent, live), self._keep, spread=spread)
            found, more = walk.run(self._steps(intent, order, live, checks), exact)
        return Picked(self._figures(intent, self._headed(found, live)), more)

    def _figures(self, intent: Intent, head: Head) -> Figures:
        usual = self._boxes.usual_of(intent)(head.places)
        worst = usual
        if intent.output_limit is None:
            worst = self._boxes.worst_of(intent)(head.places)
        return Figures(head.models, usual, worst, head.latencies, head.qualities, head.matches)

    def _head(
        self, intent: Intent, live: Live, weights: tuple[float, float, float], *, timed: bool
    ) -> Head:
        """Whom a request without a limit that turns somebody away chooses among."""
        strategy, boxes = intent.strategy, self._boxes
        box = boxes.of(intent) if strategy in _BY_COST else None
        ladder = intent.reasoning if intent.ladder else ""
        key = (strategy, _hinted(intent), ladder, timed, intent.stream, weights)
        heads = self._heads if box is None else box.heads
        held = heads.get(key)
        if held is not None and held[0] == live.number:
            return held[1]
        if strategy == "round_robin":
            found, _ = self._turns(intent, live, (), timed=timed)
        elif box is None:
            found = self._order(intent, live, timed=timed)[0].places[: self._keep]
        elif strategy == "balanced":
            order, _ = self._by_score(intent, box, live, weights)
            found = reach(order, self._least_score(box, live, weights), self._keep)
            prices, latencies, qualities = boxes.kinds, live.latencies, self._qualities
            alike = {i: (prices[i], latencies[i], qualities[i] or 0.0) for i in found}
            found = self._first_alike(intent, live, order, alike)
            ends = {*box.nearest, *live.by_latency[:1]}
            found += ends.difference(found)
        else:
            order, _ = self._order(intent, live, timed=timed)
            found = reach(order, box.high.__getitem__, self._keep)
            found = self._first_alike(intent, live, order, {i: boxes.kinds[i] for i in found})
        head = self._headed(found, live)
        heads[key] = live.number, head
        return head

    def _first_alike(
        self, intent: Intent, live: Live, order: Order, kinds: Mapping[int, Hashable]
    ) -> Places:
        """Those of the places in ``kinds`` that may be among the best: group, ties and place alone
        tell places of one kind apart."""
        ties = self._ties(intent, live)
        found = sorted(kinds, key=lambda i: (order.group[i], ties[i], i))
        return few_alike(found, kinds, self._keep)

    def _headed(self, places: Places, live: Live) -> Head:
        models, latencies, qualities = self.models, live.latencies, self._qualities
        matches = self._matches
        places = sorted(places)
        return Head(
            places,
            [models[i] for i in places],
            [latencies[i] for i in places],
            [qualities[i] for i in places],
            [matches[i] for i in places],
        )

    def live(self, intent: Intent, now: float) -> Live:
        found = self._live.get(intent.stream)
        if found is None or not 0 <= now - found.at < self._fresh_s:
            latencies = strategies.latencies_of(intent, self.models, now)
            found = self._live[intent.stream] = Live(next(self._numbers), now, latencies)
        return found

    # --- orders ----------------------------------------------------------------------------------

    def _order(self, intent: Intent, live: Live, *, timed: bool) -> tuple[Order, Values | None]:
        """The order of a strategy, and what a place's value really is where the order bounds it."""
        strategy = intent.strategy
        variant = (strategy, _hinted(intent), intent.ladder, intent.reasoning, timed)
        if strategy in ("cost", "capability-first"):
            box = self._boxes.of(intent)
            key = (*variant, box.key)
            orders = live.orders if timed else box.orders
            found = orders.get(key)
            if found is None:
                found = orders[key] = self._sorted(intent, live, box.low, timed=timed)
            return found, self._boxes.usual_of(intent)
        orders = self._orders if strategy == "quality" and not timed else live.orders
        found = orders.get(variant)
        if found is None:
            found = orders[variant] = self._sorted(
                intent, live, self._values(strategy, live), timed=timed
            )
        return found, None

    def _values(self, strategy: str, live: Live) -> Sequence[float]:
        if strategy == "quality":
            return [-(quality or 0.0) for quality in self._qualities]
        if strategy == "latency":
            return live.latencies
        # availability: an error rate decides before any priority does
        counts = [model.track.counts for model in self.models]
        errors = [held.error_rate(live.at) if held.failures else 0.0 for held in counts]
        if not any(errors):
            return self._priorities
        pairs = list(zip(errors, self._priorities, strict=True))
        dense = {pair: float(rank) for rank, pair in enumerate(sorted(set(pairs)))}
        return [dense[pair] for pair in pairs]

    def _sorted(self, intent: Intent, live: Live, bound: Sequence[float], *, timed: bool) -> Order:
        group = self._group(intent, live, timed=timed)
        columns: list[Sequence[float]] = [bound]
        if any(group):
            columns.insert(0, group)
        # the ties of capability-first go by latency, which an order that is kept does not know
        if intent.strategy != "capability-first" and any(self._matches):
            columns.append(self._matches)
        keys: Sequence[Any] = bound
        if len(columns) > 1:
            keys = list(zip(*columns, strict=True))
        return Order(sorted(self._whole, key=keys.__getitem__), group, bound)

    def _ties(self, intent: Intent, live: Live) -> Sequence[float]:
        """By place, what decides between equal values, before the place does."""
        return live.latencies if intent.strategy == "capability-first" else self._matches

    def _group(self, intent: Intent, live: Live, *, timed: bool) -> Sequence[int]:
        """By place, what ranks before the strategy's number; 0 is best."""
        leads = strategies.leads_of(intent, self.models)
        by_match = intent.strategy == "capability-first"
        if leads is None and not by_match and not timed:
            return bytes(len(self._whole))
        latencies, matches = live.latencies, self._matches
        keys = [
            (
                timed and latencies[i] == inf,
                0.0 if leads is None else -leads[i],
                matches[i] if by_match else 0.0,
            )
            for i in self._whole
        ]
        dense = {key: rank for rank, key in enumerate(sorted(set(keys)))}
        return [dense[key] for key in keys]

    # --- walking ---------------------------------------------------------------------------------

    def _steps(
        self,
        intent: Intent,
        order: Order,
        live: Live,
        checks: Sequence[Check],
        size: int = CHUNK,
    ) -> Steps:
        """The places of an order that pass; where a limit leaves few, only those are looked at."""
        places = order.places
        few = len(places) // 8
        limits = intent.constraints
        if checks and limits.spendable is not None:
            lows, by_low = self._boxes.of(intent).by_worst()
            count = bisect_right(lows, limits.spendable)
            if count < few:
                places, few = sorted(by_low[:count], key=order.rank().__getitem__), count
        if checks and limits.max_latency_ms is not None and intent.binding:
            quick = bisect_right(live.measured, limits.max_latency_ms)
            count = quick + len(self._whole) - len(live.measured)
            if count < few:
                latencies = live.latencies
                unknown = [i for i in self._whole if latencies[i] == inf]
                near = live.by_latency[:quick] + unknown
                places = sorted(near, key=order.rank().__getitem__)
        return Steps(places, checks, size)

    def _bounded(
        self,
        intent: Intent,
        live: Live,
        weights: tuple[float, float, float],
        checks: Sequence[Check],
        *,
        timed: bool,
        spread: bool,
    ) -> tuple[Places, bool]:
        """``balanced``; ``timed``: the measured and the rest are scored apart."""
        if not timed:
            return self._scored(intent, live, weights, checks, spread=spread)
        latencies = live.latencies
        known = Check(lambda places: [i for i in places if latencies[i] < inf], _never)
        found, more = self._scored(intent, live, weights, [*checks, known], spread=spread)
        if len(found) <= self._keep and not more:
            unknown = Check(lambda places: [i for i in places if latencies[i] == inf], _never)
            rest, more = self._scored(intent, live, weights, [*checks, unknown], spread=spread)
            found += rest
        return found, more or len(found) > self._keep

    def _scored(
        self,
        intent: Intent,
        live: Live,
        weights: tuple[float, float, float],
        checks: Sequence[Check],
        *,
        spread: bool,
    ) -> tuple[Places, bool]:
        """Scores hang on the cheapest and the fastest of those who may serve."""
        box = self._boxes.of(intent)
        cost_of = self._boxes.usual_of(intent)
        cheap: Places = box.nearest
        if checks:
            by_cost = self._by_cost(box)
            nearest = Walk(by_cost, self._matches, 1, spread=False)
            cheap, _ = nearest.run(self._steps(intent, by_cost, live, checks, FEW), cost_of)
            if not cheap:
                return [], False
        costs = cost_of(cheap)
        least = min(costs)
        cheapest_place = cheap[costs.index(least)]
        quick = Steps(live.by_latency, checks, FEW).first()
        cheapest = least + strategies.EPSILON
        fastest = inf if quick is None else live.latencies[quick]
        order, least_cost = self._by_score(intent, box, live, weights)
        price, scale = 0.0, 1.0
        if cheapest < inf:
            price = weights[0] * cheapest / (sum(weights) or 1.0)
            scale = max(1.0, cheapest / least_cost)
        merits: list[float] | None = self._merits(live, weights)
        if fastest < inf and fastest > live.measured[0]:
            scale = max(scale, fastest / max(live.measured[0], 1e-9))
            merits = None
        epsilon = strategies.EPSILON

        def values(places: Places) -> list[float]:
            given = (
                [merits[i] for i in places]
                if merits is not None
                else self._merits_of(places, live, weights, fastest)
            )
            # a price that nobody knows is infinite and gives nothing
            return [
                -(price / (cost + epsilon) + merit)
                for cost, merit in zip(cost_of(places), given, strict=True)
            ]

        walk = Walk(order, self._matches, self._keep, spread=spread, scale=scale)
        found, more = walk.run(self._steps(intent, order, live, checks), values)
        ends = {cheapest_place} if quick is None else {cheapest_place, quick}
        return [*found, *ends.difference(found)], more

    def _by_cost(self, box: Box) -> Order:
        found = box.orders.get(())
        if found is None:
            low = box.low
            places = sorted(self._whole, key=low.__getitem__)
            found = box.orders[()] = Order(places, bytes(len(low)), low)
        return found

    def _by_score(
        self, intent: Intent, box: Box, live: Live, weights: tuple[float, float, float]
    ) -> tuple[Order, float]:
        """Places by the most they can score while the cheapest costs no more than the second
        figure and the fastest of all may serve."""
        key = ("balanced", _hinted(intent), intent.ladder, intent.reasoning, box.key)
        cheapest = box.cheapest + strategies.EPSILON
        order = live.orders.get(key)
        if order is None:
            share, epsilon = weights[0] / (sum(weights) or 1.0), strategies.EPSILON
            least, price = box.cheapest, share * cheapest
            if least == inf:
                share = price = 0.0
            # nobody is cheaper than the cheapest
            bound = [
                -((price / (low + epsilon) if low > least else share) + merit)
                for low, merit in zip(box.low, self._merits(live, weights), strict=True)
            ]
            order = live.orders[key] = self._sorted(intent, live, bound, timed=False)
        return order, cheapest

    def _least_score(
        self, box: Box, live: Live, weights: tuple[float, float, float]
    ) -> Callable[[int], float]:
        """The least that a place scores while the cheapest and the fastest of all may serve, below
        0 as a bound of an order."""
        merits, highs, epsilon = self._merits(live, weights), box.high, strategies.EPSILON
        price = 0.0
        if box.cheapest < inf:
            price = weights[0] * (min(box.low) + epsilon) / (sum(weights) or 1.0)
        return lambda i: -(price / (highs[i] + epsilon) + merits[i])

    def _merits(self, live: Live, weights: tuple[float, float, float]) -> list[float]:
        """What latency and quality give each place while the fastest of all may serve."""
        if live.merits is None or live.merits[0] != weights:
            fastest = live.measured[0] if live.measured else inf
            live.merits = weights, self._merits_of(self._whole, live, weights, fastest)
        return live.merits[1]

    def _merits_of(
        self, places: Places, live: Live, weights: tuple[float, float, float], fastest: float
    ) -> list[float]:
        latencies, qualities = live.latencies, self._qualities
        total = sum(weights) or 1.0
        pace, share = weights[1] / total, weights[2] / total
        speeds = strategies.speeds(fastest, [latencies[i] for i in places])
        return [
            pace * speed + share * (qualities[i] or 0.0)
            for i, speed in zip(places, speeds, strict=True)
        ]

    def _turns(
        self, intent: Intent, live: Live, checks: Sequence[Check], *, timed: bool
    ) -> tuple[Places, bool]:
        """``round_robin``; ``timed``: the measured take turns first."""
        if intent.ladder:
            found = Steps(self._whole, checks).rest()
            return found, len(found) > self._keep
        rings = live.rings if timed else self._rings
        if rings is None:
            parts = [self._whole]
            if timed:
                latencies = live.latencies
                parts = [
                    [i for i in self._whole if latencies[i] < inf],
                    [i for i in self._whole if latencies[i] == inf],
                ]
            rings = Rings(self.models, parts)
            if timed:
                live.rings = rings
            else:
                self._rings = rings
        return rings.first(self._keep, checks)


def _never(_: Model) -> str:
    raise AssertionError("nobody is rejected by it")


def _hinted(intent: Intent) -> bool:
    return intent.task_source == "hint" and intent.strategy_source != "header"
