"""What rules are made of once compiled: the names of the language, tests and steps.

A test or reader is a function of the request, one candidate and that candidate's priority (which
policies may change while they act). A missing value, ``None``, fails every comparison.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts

Kind: TypeAlias = Literal["text", "number", "flag"]
Reader: TypeAlias = Callable[[RequestFacts, CandidateFacts, float | None], Any]
Test: TypeAlias = Callable[[RequestFacts, CandidateFacts, float | None], bool]
SortKey: TypeAlias = tuple[bool, float]


@dataclass(frozen=True, slots=True)
class Field:
    kind: Kind
    read: Reader


def _of_request(attribute: str) -> Reader:
    get = attrgetter(attribute)
    return lambda request, candidate, priority: get(request)


def _of_candidate(attribute: str) -> Reader:
    get = attrgetter(attribute)
    return lambda request, candidate, priority: get(candidate)


#: Every name of the language; ``rules.ebnf`` lists them with units.
FIELDS: Final[Mapping[str, Field]] = {
    "request.model": Field("text", _of_request("model")),
    "request.tokens": Field("number", _of_request("tokens")),
    "request.task": Field("text", _of_request("task")),
    "request.stream": Field("flag", _of_request("stream")),
    "request.endpoint": Field("text", _of_request("endpoint")),
    "request.max_cost": Field("number", _of_request("max_cost")),
    "provider.id": Field("text", _of_candidate("id")),
    "provider.name": Field("text", _of_candidate("id")),
    "provider.type": Field("text", _of_candidate("type")),
    "provider.model": Field("text", _of_candidate("model")),
    "provider.region": Field("text", _of_candidate("region")),
    "provider.priority": Field("number", lambda request, candidate, priority: priority),
    "provider.weight": Field("number", _of_candidate("weight")),
    "provider.cost_per_1k_tokens": Field("number", _of_candidate("cost_per_1k_tokens")),
    "provider.latency_ms": Field("number", _of_candidate("latency_ms")),
    "provider.error_rate": Field("number", _of_candidate("error_rate")),
    "provider.quality": Field("number", _of_candidate("quality")),
    "provider.load": Field("number", _of_candidate("load")),
}
TESTS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """``priority = N``."""

    priority: float
    text: str = "priority"


@dataclass(frozen=True, slots=True)
class Sorted:
    """``key`` puts a missing value last whatever the direction; Python's sort is stable."""

    key: Callable[[RequestFacts, CandidateFacts, float | None], SortKey]
    text: str


@dataclass(frozen=True, slots=True)
class Preferred:
    """``rank`` has a place for each provider named."""

    rank: Mapping[str, int]
    text: str


@dataclass(frozen=True, slots=True)
class Required:
    holds: Test
    text: str = "require"


Step: TypeAlias = Assigned | Sorted | Preferred | Required


def against(read: Reader, test: Callable[[Any, Any], bool], value: object) -> Test:
    def holds(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> bool:
        found = read(request, candidate, priority)
        return found is not None and test(found, value)

    return holds


def between(left: Reader, test: Callable[[Any, Any], bool], right: Reader) -> Test:
    def holds(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> bool:
        first = left(request, candidate, priority)
        second = right(request, candidate, priority)
        return first is not None and second is not None and test(first, second)

    return holds


def matching(read: Reader, fits: Callable[[str], bool], *, wanted: bool) -> Test:
    def holds(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> bool:
        found = read(request, candidate, priority)
        return found is not None and fits(found) is wanted

    return holds


def all_of(tests: list[Test]) -> Test:
    def holds(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> bool:
        for test in tests:  # noqa: SIM110 - a generator takes twice as long
            if not test(request, candidate, priority):
                return False
        return True

    return holds


def any_of(tests: list[Test]) -> Test:
    def holds(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> bool:
        for test in tests:  # noqa: SIM110
            if test(request, candidate, priority):
                return True
        return False

    return holds


def none_of(test: Test) -> Test:
    return lambda request, candidate, priority: not test(request, candidate, priority)


def sort_key(
    read: Reader, descending: bool
) -> Callable[[RequestFacts, CandidateFacts, float | None], SortKey]:
    def key(request: RequestFacts, candidate: CandidateFacts, priority: float | None) -> SortKey:
        return ordering(read(request, candidate, priority), descending)

    return key


def ordering(value: float | None, descending: bool = False) -> SortKey:
    """Return a key that puts missing values, and NaN, last."""
    if value is None or isnan(value):
        return True, 0.0
    return False, -value if descending else value
