"""Sharing traffic: among candidates nothing else tells apart, and among a provider's endpoints.

Turns are kept apart for every group of equals, so that requests of another kind do not take them
(AIP-LB-001 to 007, ASC-LB-001 to 004).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, TypeAlias

from aiproxy.middleware.health import Track
from aiproxy.middleware.registry import Endpoint, Model, Provider
from aiproxy.middleware.watching.windows import percentiles

_MOST_GROUPS: Final = 1024
#: Places in their cycle at which new groups begin.
_PHASES: Final = 60
#: Latency in milliseconds below which endpoints count as equally fast.
_LEAST_MS: Final = 1.0
#: Seconds for which the median latency of an endpoint stands.
_FRESH_S: Final = 0.1


class Turns:
    """Whose turn it is in groups of equals, by weight.

    Smooth weighted round robin: over as many turns as the weights add up to, everybody gets exactly
    its share, and the turns of one are spread evenly. A new group begins where the one before it
    would have gone on, so that groups of one request each are shared as well. Bounded: the groups
    longest unused are forgotten. Not locked: two threads may take the same turn.
    """

    def __init__(self) -> None:
        self._credits: OrderedDict[Hashable, list[float]] = OrderedDict()
        self._begun = 0

    def take(self, group: Hashable, weights: Sequence[float]) -> int:
        """Return the place in ``weights`` whose turn it is; all of them are above 0."""
        held = self._credits.get(group)
        if held is None or len(held) != len(weights):
            held = self._credits[group] = [0.0] * len(weights)
            for _ in range(self._begun % _PHASES):
                _step(held, weights)
            self._begun += 1
            if len(self._credits) > _MOST_GROUPS:
                self._credits.popitem(last=False)
        else:
            self._credits.move_to_end(group)
        return _step(held, weights)


def _step(held: list[float], weights: Sequence[float]) -> int:
    best = 0
    for place, weight in enumerate(weights):
        held[place] += weight
        if held[place] > held[best] + 1e-9:
            best = place
    held[best] -= sum(weights)
    return best


#: Puts models that are equal for a request in the order in which they share it; the group is its
#: kind, whose turns are its own.
Spread: TypeAlias = Callable[[Sequence[Model], Hashable], Sequence[int]]


def spreader(kind: str | None) -> Spread | None:
    """How traffic is shared among equals (``routing.load_balancing.strategy``); ``None``: not."""
    if kind is None:
        return None
    if kind == "least_loaded":
        return _least_loaded
    turns = Turns()
    even = kind == "round_robin"

    def spread(models: Sequence[Model], group: Hashable) -> Sequence[int]:
        weights = [1.0 if even else model.provider.weight for model in models]
        places = range(len(models))
        taking = [i for i in places if weights[i] > 0]
        if not taking:
            return places
        first = taking[turns.take((group, *map(id, models)), [weights[i] for i in taking])]
        return [*places[first:], *places[:first]] if even else [first, *_without(places, first)]

    return spread


def _without(places: Sequence[int], first: int) -> list[int]:
    return [i for i in places if i != first]


def _least_loaded(models: Sequence[Model], _: Hashable) -> Sequence[int]:
    def load(i: int) -> float:
        weight = models[i].provider.weight
        return models[i].track.in_flight / weight if weight > 0 else float("inf")

    return sorted(range(len(models)), key=load)


class EndpointChoice:
    """Which of a provider's endpoints is asked next (``providers.<id>.load_balancing``).

    *round_robin*: in turn, by weight. *least_connections*: the one with the fewest calls on their
    way, by weight. *latency_weighted*: in turn, in proportion to weight over the median time to the
    first byte of the last answers; one without an answer yet counts as the fastest, so that it
    gets one. An endpoint that fails is left out while another works. ``now`` is the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._turns = Turns()
        self._medians: dict[int, tuple[float, float | None]] = {}

    def next(self, provider: Provider, tried: Iterable[Track | None] = ()) -> Endpoint:
        """The endpoint to ask; ``tried`` are the tracks of those that failed this request."""
        endpoints = provider.endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        now = self._now()
        fit = self._fit(endpoints, set(map(id, tried)), now)
        if len(fit) == 1:
            return endpoints[fit[0]]
        weights = [endpoints[i].weight for i in fit]
        if provider.balancing == "latency_weighted":
            weights = self._by_latency([endpoints[i] for i in fit], now)
        elif provider.balancing == "least_connections":
            loads = [_calls(endpoints[i]) / endpoints[i].weight for i in fit]
            least = min(loads)
            fit = [i for i, load in zip(fit, loads, strict=True) if load == least]
            weights = [endpoints[i].weight for i in fit]
        return endpoints[fit[self._turns.take((provider.id, *fit), weights)]]

    def another(self, provider: Provider, tried: Iterable[Track | None]) -> bool:
        """Whether an endpoint is well that has not failed this request."""
        if len(provider.endpoints) == 1:
            return False
        now, gone = self._now(), set(map(id, tried))
        return any(
            e.track is not None and id(e.track) not in gone and _well(e.track, now)
            for e in provider.endpoints
        )

    @staticmethod
    def _fit(endpoints: Sequence[Endpoint], gone: set[int], now: float) -> list[int]:
        """The places of those that are well, else of those that are at least not blocked."""
        tracks = [endpoint.track for endpoint in endpoints]
        places = range(len(endpoints))
        left = [i for i in places if id(tracks[i]) not in gone] or list(places)
        open_ = [i for i in left if (t := tracks[i]) is None or t.blocked_for(now) == 0] or left
        return [i for i in open_ if (t := tracks[i]) is None or not t.cooling(now)] or open_

    def _by_latency(self, endpoints: Sequence[Endpoint], now: float) -> list[float]:
        medians = [self._median(endpoint.track, now) for endpoint in endpoints]
        fastest = min((ms for ms in medians if ms is not None), default=_LEAST_MS)
        return [
            endpoint.weight / max(_LEAST_MS, fastest if ms is None else ms)
            for endpoint, ms in zip(endpoints, medians, strict=True)
        ]

    def _median(self, track: Track | None, now: float) -> float | None:
        if track is None:
            return None
        kept = self._medians.get(id(track))
        if kept is not None and kept[1] is not None and 0 <= now - kept[0] < _FRESH_S:
            return kept[1]
        found = percentiles(track.latencies.recent(now)[1])
        ms = None if found is None else found.p50
        self._medians[id(track)] = now, ms
        return ms


def _calls(endpoint: Endpoint) -> int:
    return 0 if endpoint.track is None else endpoint.track.in_flight


def _well(track: Track, now: float) -> bool:
    return track.blocked_for(now) == 0 and not track.cooling(now)
