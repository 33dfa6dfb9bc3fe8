"""Strategies that come with somebody else's package (UNI-ROUTE-005).

A strategy is a function of what a rule may ask of a request and of a candidate; it returns a number,
larger first. It is known by a name of its own in ``routing.strategy``, in the native body and in
``X-AI-Routing-Strategy``. It is registered by the entry point group ``aiproxy.strategies`` of an
installed package, or by ``register`` before a configuration is loaded.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from logging import getLogger
from math import isfinite
from re import compile as compile_pattern
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts
from aiproxy.spec import HEADERS

if TYPE_CHECKING:
    from aiproxy.middleware.intent import Intent
    from aiproxy.middleware.routing.strategies import Figures

log = getLogger("aiproxy")

GROUP: Final = "aiproxy.strategies"
Strategy: TypeAlias = Callable[[RequestFacts, CandidateFacts], float]
#: A number for each column of figures.
Numbers: TypeAlias = Callable[["Intent", "Figures"], Sequence[float]]

_HEADER: Final = HEADERS["X-AI-Routing-Strategy"]
_NAME: Final = compile_pattern(_HEADER.pattern)
_TAKEN: Final = frozenset(
    name.lower() for name in (*_HEADER.values, *_HEADER.aliases, "model_specific")
)
_EVERYTHING: Final = frozenset({"provider.latency_ms", "provider.error_rate"})
_registered: dict[str, Strategy] = {}
#: Called when names come or go; whoever remembers what a name means adds itself.
on_change: Final[list[Callable[[], None]]] = []


def register(name: str, strategy: Strategy) -> None:
    """Make a strategy known by a name; names compare without regard to case.

    Raises:
        ValueError: the name is no token, or a built-in strategy has it.
    """
    folded = name.lower()
    if not _NAME.fullmatch(name) or folded in _TAKEN:
        raise ValueError(
            f"found the strategy name {name!r}, expected a token that no built-in strategy has"
        )
    _registered[folded] = strategy
    for tell in on_change:
        tell()


def forget(name: str) -> None:
    """Take back a ``register``."""
    _registered.pop(name.lower(), None)
    for tell in on_change:
        tell()


@cache
def _installed() -> Mapping[str, Any]:
    """The entry points by name; none of them is loaded before its name is used."""
    found: dict[str, Any] = {}
    for point in entry_points(group=GROUP):
        if not _NAME.fullmatch(point.name) or point.name.lower() in _TAKEN:
            log.warning("the strategy %r of %s has no usable name", point.name, point.value)
            continue
        found[point.name.lower()] = point
    return found


def canonical(name: str) -> str | None:
    """The name under which a plug-in is known; ``None`` when there is none."""
    folded = name.lower()
    return folded if folded in _registered or folded in _installed() else None


def names() -> tuple[str, ...]:
    """All of them."""
    return tuple(sorted({*_registered, *_installed()}))


def load(name: str) -> Strategy:
    """The function of a canonical name.

    Raises:
        KeyError: unknown.
        TypeError: what its package gives is not callable.
    """
    found = _registered.get(name)
    if found is None:
        found = _registered[name] = _checked(name, _installed()[name].load())
    return found


def _checked(name: str, found: Any) -> Strategy:
    if not callable(found):
        raise TypeError(f"the strategy {name!r} is a {type(found).__name__}, expected a function")
    return cast(Strategy, found)


def numbers(strategy: str, now: float) -> Numbers | None:
    """How a plug-in ranks candidates at a time; ``None`` for a built-in strategy."""
    if strategy in _BUILT_IN:
        return None
    function = load(strategy)

    def rank(intent: "Intent", figures: "Figures") -> Sequence[float]:
        from aiproxy.middleware.routing.verdicts import candidate_facts, request_facts

        request = request_facts(intent)
        found = []
        for model in figures.models:
            number = float(function(request, candidate_facts(intent, model, now, _EVERYTHING)))
            # what is no number says nothing for a candidate
            found.append(number if isfinite(number) else float("-inf"))
        return found

    return rank


_BUILT_IN: Final = frozenset(_HEADER.values)
