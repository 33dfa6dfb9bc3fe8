"""The first places of an order, among which the best of every request are.

What a place is worth lies between two bounds until a request's lengths are known. Whoever cannot be
among the best whatever they turn out to be is left out once, and not anew for every request.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappushpop

from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.walking import ROUNDING, Order, Places


@dataclass(frozen=True, slots=True)
class Head:
    """Places in slate order, and those of their columns that are the same for every request."""

    places: Places
    models: list[Model]
    latencies: list[float]
    qualities: list[float | None]
    matches: list[float]


def reach(order: Order, most: Callable[[int], float], keep: int) -> Places:
    """The places that may be among the best ``keep``, best bound first; no value is less than the
    order's bound, nor above the ``most`` of its place."""
    places, group, bound = order.places, order.group, order.bound
    found = places[:keep]
    edge = group[found[-1]]
    # of those whose group decides nothing, as many of the least as have room: the largest is on top
    room = [-most(i) for i in found if group[i] == edge]
    heapify(room)
    for i in places[keep:]:
        if group[i] != edge or bound[i] > ROUNDING - room[0]:
            break
        found.append(i)
        heappushpop(room, -most(i))
    return found


def few_alike(places: Places, kinds: Mapping[int, Hashable], keep: int) -> Places:
    """The first ``keep`` of every kind; ``kinds`` by place."""
    seen: dict[Hashable, int] = {}
    found = []
    for i in places:
        count = seen[kinds[i]] = seen.get(kinds[i], 0) + 1
        if count <= keep:
            found.append(i)
    return found
