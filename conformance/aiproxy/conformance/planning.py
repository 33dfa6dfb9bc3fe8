"""What is run where, and in which order: the scenarios of each world and what they build on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Final

from aiproxy.conformance.checks import Check, Scenario, catalogue
from aiproxy.conformance.instruments import PROOFS
from aiproxy.conformance.options import Options
from aiproxy.conformance.rig.fleet import BASE, PLAIN, World
from aiproxy.conformance.scoring import OBSERVE, rows, visible

# A run that controls nothing knows one world: the target as it is.
AS_IT_IS: Final = World("")
_FIRST: Final = (PLAIN.name, BASE.name)


class UnknownCheck(ValueError):
    """A check id was asked for that this suite does not have."""


@cache
def home() -> Mapping[str, Scenario]:
    """Return the scenario of each check."""
    return {row.id: scenario for scenario in catalogue() for row in scenario.checks}


def chosen(options: Options) -> tuple[Check, ...]:
    """Return the checks that ``options`` ask for, in the order they run.

    Raises:
        UnknownCheck: an id is not among the suite's; the message names close ones.
    """
    mode = options.resolved_mode
    if not options.checks:
        found = rows(options.level, mode)
        if options.profile:
            found = _with_profile(found, options.profile, mode)
    else:
        every = {row.id: row for scenario in catalogue() for row in scenario.checks}
        for name in options.checks:
            if name not in every:
                close = get_close_matches(name, every, 3)
                hint = f"; did you mean {', '.join(close)}?" if close else ""
                raise UnknownCheck(f"no check {name!r}{hint}")
            if not visible(home()[name], mode):
                raise UnknownCheck(f"{name} needs upstreams that the suite controls, see --launch")
        found = tuple(row for name, row in every.items() if name in options.checks)
    ranks = {row.id: _rank(world_of(home()[row.id], mode)) for row in found}
    return tuple(sorted(found, key=lambda row: ranks[row.id]))


def _with_profile(found: tuple[Check, ...], profile: str, mode: str) -> tuple[Check, ...]:
    from aiproxy.conformance.profiles import profile_rows

    wanted = {*found, *(row for row in profile_rows(profile) if visible(home()[row.id], mode))}
    every = (row for scenario in catalogue() for row in scenario.checks)
    return tuple(row for row in every if row in wanted)


def world_of(scenario: Scenario, mode: str) -> World:
    """Return where ``scenario`` is run."""
    if mode == OBSERVE:
        return AS_IT_IS
    if scenario.fleet is not None:
        return scenario.fleet.world
    return PLAIN if min(row.level for row in scenario.checks) == 1 else BASE


def with_needed(scenarios: Iterable[Scenario]) -> tuple[Scenario, ...]:
    """Return ``scenarios`` and all they depend on, each once, after what it depends on.

    Raises:
        ValueError: two depend on one another.
    """
    found: dict[str, Scenario] = {}
    for scenario in scenarios:
        _collect(scenario, found, ())
    return tuple(found.values())


def _collect(scenario: Scenario, found: dict[str, Scenario], above: tuple[str, ...]) -> None:
    if scenario.name in above:
        raise ValueError(f"depends on itself: {' > '.join((*above, scenario.name))}")
    if scenario.name in found:
        return
    for needed in scenario.depends_on:
        _collect(home()[needed], found, (*above, scenario.name))
    found[scenario.name] = scenario


@dataclass(frozen=True, slots=True)
class Plan:
    """The worlds of a run in order, and the scenarios of each.

    ``lent`` are those of them that scenarios of other worlds depend on.
    """

    worlds: Mapping[str, World]
    scenarios: Mapping[str, tuple[Scenario, ...]]
    lent: Mapping[str, tuple[Scenario, ...]]


def plan(asked: Iterable[Check], mode: str) -> Plan:
    """Return the plan of a run of the checks ``asked``.

    Raises:
        ValueError: two worlds of one name.
    """
    wanted = [home()[row.id] for row in asked]
    if mode != OBSERVE and any(row.level > 1 for one in wanted for row in one.checks):
        wanted += [home()[proof] for proof in PROOFS]  # some may have to be run for the others
    needed = with_needed(wanted)
    worlds: dict[str, World] = {}
    for scenario in needed:
        world = world_of(scenario, mode)
        if worlds.setdefault(world.name, world) is not world:
            raise ValueError(f"two worlds are called {world.name!r}")
    ordered = dict(sorted(worlds.items(), key=lambda item: _rank(item[1])))
    at = {s.name: world_of(s, mode).name for s in needed}
    lent: dict[str, Scenario] = {
        below.name: below
        for scenario in needed
        for below in with_needed((scenario,))
        if at[below.name] != at[scenario.name]
    }
    return Plan(
        ordered,
        {name: tuple(s for s in needed if at[s.name] == name) for name in ordered},
        {name: tuple(s for s in lent.values() if at[s.name] == name) for name in ordered},
    )


def every_scenario(world: World, mode: str) -> tuple[Scenario, ...]:
    """Return all scenarios of ``world``, of whatever level."""
    return tuple(s for s in catalogue() if visible(s, mode) and world_of(s, mode) is world)


def _rank(world: World) -> tuple[int, str]:
    place = _FIRST.index(world.name) if world.name in _FIRST else len(_FIRST)
    return place, world.name
