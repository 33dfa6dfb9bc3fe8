"""The checks: rows of data, and functions that look.

``@check`` puts one requirement above a function; several may stand above the same function when
one request shows several things. A function takes a ``Probe`` and yields findings; it never
asserts and never decides a level. ``catalogue()`` imports every module of this folder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeVar

from aiproxy.conformance.results import Finding

if TYPE_CHECKING:
    from aiproxy.conformance.probe import Probe

    Look = Callable[[Probe], Iterator[Finding]]

F = TypeVar("F", bound="Look")

_MODULES: Final = (
    "models",
    "chat",
    "streaming",
    "errors",
    "routes",
    "transfer",
    "authentication",
    "every_answer",
    "beyond",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement that can be looked at: its row, in words for people.

    ``depends_on`` are ids without which nothing can be said here.
    """

    id: str
    level: int
    keyword: str
    title: str
    clause: str
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One function and the checks it speaks about, in the order they are written."""

    name: str
    look: "Look"
    checks: tuple[Check, ...]

    @property
    def depends_on(self) -> tuple[str, ...]:
        """What all of its checks need."""
        own = {check.id for check in self.checks}
        needed = (needs for check in self.checks for needs in check.depends_on)
        return tuple(dict.fromkeys(needs for needs in needed if needs not in own))


@dataclass(frozen=True, slots=True)
class Derived:
    """A requirement that holds exactly when others do; reported, never scored."""

    id: str
    level: int
    keyword: str
    title: str
    clause: str
    of: tuple[str, ...]


_SCENARIOS: Final[dict[str, Scenario]] = {}


def check(
    identifier: str,
    *,
    level: int,
    keyword: str,
    title: str,
    clause: str,
    depends_on: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Register the function below as the one that looks at requirement ``identifier``."""
    row = Check(identifier, level, keyword, title, clause, depends_on)

    def register(look: F) -> F:
        name = f"{look.__module__.rpartition('.')[2]}.{look.__name__}"
        known = _SCENARIOS.get(name)
        _SCENARIOS[name] = (
            replace(known, checks=(row, *known.checks)) if known else Scenario(name, look, (row,))
        )
        return look

    return register


@cache
def catalogue() -> tuple[Scenario, ...]:
    """Return every scenario, in the order they run.

    Raises:
        ValueError: two scenarios claim the same requirement.
    """
    for name in _MODULES:
        import_module(f"aiproxy.conformance.checks.{name}")
    scenarios = tuple(_SCENARIOS.values())
    ids = [row.id for scenario in scenarios for row in scenario.checks]
    twice = {identifier for identifier in ids if ids.count(identifier) > 1}
    if twice:
        raise ValueError(f"checked in two places: {', '.join(sorted(twice))}")
    return scenarios


DERIVED: Final = (
    Derived(
        "XAI-COMPAT-001", 1, "MUST", "the standard endpoints and formats are unchanged",
        "draft §15.1", ("AIP-API-001", "AIP-API-019", "XAI-STREAM-006"),
    ),
    Derived(
        "AIP-CHK-002", 1, "MUST", "there is an HTTP server with OpenAI endpoints",
        "aiproxy §8 Phase 1", ("AIP-API-001", "AIP-API-019"),
    ),
    Derived(
        "UNI-API-001", 1, "MUST", "/v1/chat/completions exists",
        "universal endpoints chat", ("AIP-API-001",),
    ),
    Derived(
        "UNI-API-003", 1, "MUST", "/v1/models exists",
        "universal endpoints models", ("AIP-API-019",),
    ),
)  # fmt: skip
