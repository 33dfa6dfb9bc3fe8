"""The checks: rows of data, and functions that look.

``@check`` puts one requirement above a function; several may stand above the same function when
one request shows several things. A function takes a ``Probe`` and yields findings; it never
asserts and never decides a level. ``catalogue()`` imports every module of this folder.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Final, TypeVar

from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.fleet import BASE, Fake, Fleet, World

if TYPE_CHECKING:
    from aiproxy.conformance.probe import Probe

    Look = Callable[[Probe], Iterator[Finding]]

F = TypeVar("F", bound="Look")

# Level 1, in the order that tells most; the modules of higher levels follow by name.
_FIRST: Final = (
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

    ``depends_on`` are ids without which nothing can be said here. ``feature`` names something
    optional: a target whose manifest says it lacks it is not asked (see ``docs/grade.md``).
    """

    id: str
    level: int
    keyword: str
    title: str
    clause: str
    depends_on: tuple[str, ...] = ()
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One function and the checks it speaks about, in the order they are written.

    ``fleet`` is what it needs behind the target; without one a URL is enough.
    """

    name: str
    look: "Look"
    checks: tuple[Check, ...]
    fleet: Fleet | None = None

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
_DERIVED: Final[dict[str, Derived]] = {}


def check(
    identifier: str,
    *,
    level: int,
    keyword: str,
    title: str,
    clause: str,
    depends_on: tuple[str, ...] = (),
    feature: str = "",
) -> Callable[[F], F]:
    """Register the function below as the one that looks at requirement ``identifier``."""
    row = Check(identifier, level, keyword, title, clause, depends_on, feature)

    def register(look: F) -> F:
        name = f"{look.__module__.rpartition('.')[2]}.{look.__name__}"
        known = _SCENARIOS.get(name)
        _SCENARIOS[name] = (
            replace(known, checks=(row, *known.checks))
            if known
            else Scenario(name, look, (row,), getattr(look, "_fleet", None))
        )
        return look

    return register


def behind(*, world: World = BASE, shuffled: bool = True, **fakes: Fake) -> Callable[[F], F]:
    """Give the function below these fakes behind the target; stands under its ``@check`` lines."""

    def register(look: F) -> F:
        look._fleet = Fleet(fakes, world, shuffled)  # type: ignore[attr-defined]
        return look

    return register


@cache
def catalogue() -> tuple[Scenario, ...]:
    """Return every scenario, in the order they run.

    Raises:
        ValueError: two scenarios claim the same requirement.
    """
    others = sorted({module.name for module in iter_modules(__path__)} - set(_FIRST))
    for name in (*_FIRST, *others):
        import_module(f"aiproxy.conformance.checks.{name}")
    scenarios = tuple(_SCENARIOS.values())
    ids = [row.id for scenario in scenarios for row in scenario.checks]
    twice = {identifier for identifier in ids if ids.count(identifier) > 1}
    if twice:
        raise ValueError(f"checked in two places: {', '.join(sorted(twice))}")
    return scenarios


def derive(
    identifier: str, *, level: int, keyword: str, title: str, clause: str, of: tuple[str, ...]
) -> None:
    """Register a requirement that holds exactly when the checks ``of`` hold."""
    _DERIVED[identifier] = Derived(identifier, level, keyword, title, clause, of)


def derived_rows() -> tuple[Derived, ...]:
    """Return every derived requirement."""
    catalogue()
    return tuple(_DERIVED.values())


derive(
    "XAI-COMPAT-001", level=1, keyword="MUST", title="the standard endpoints and formats are unchanged",
    clause="draft §15.1", of=("AIP-API-001", "AIP-API-019", "XAI-STREAM-006"),
)  # fmt: skip
derive(
    "AIP-CHK-002", level=1, keyword="MUST", title="there is an HTTP server with OpenAI endpoints",
    clause="aiproxy §8 Phase 1", of=("AIP-API-001", "AIP-API-019"),
)  # fmt: skip
derive(
    "UNI-API-001", level=1, keyword="MUST", title="/v1/chat/completions exists",
    clause="universal endpoints chat", of=("AIP-API-001",),
)  # fmt: skip
derive(
    "UNI-API-003", level=1, keyword="MUST", title="/v1/models exists",
    clause="universal endpoints models", of=("AIP-API-019",),
)  # fmt: skip
