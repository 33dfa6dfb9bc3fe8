"""What a release of the suite holds a target to: the frozen levels and the profiles beside them.

``levels.yaml`` and ``profiles.yaml`` explain their own members; the schemas ``levels`` and
``profiles`` bound them. Which of the rows has a check is the suite's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from aiproxy.spec.register import read_yaml, requirements


@dataclass(frozen=True, slots=True)
class Freeze:
    """The frozen lists of one release.

    ``levels`` are the ids each level adds. ``not_scored`` rows are looked at and shown but decide
    nothing. ``may_refuse`` rows may be declined in good form. ``features`` are what a target may
    lack altogether. The last three map a name to its reason in one line.
    """

    suite: str
    levels: Mapping[int, tuple[str, ...]]
    not_scored: Mapping[str, str]
    may_refuse: Mapping[str, str]
    features: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """A part of the register that is graded beside the levels.

    ``families`` is what it covers, ``members`` their rows; ``demands`` are softer rows it decides by.
    """

    name: str
    title: str
    families: tuple[str, ...]
    members: tuple[str, ...]
    demands: tuple[str, ...] = ()


@cache
def freeze() -> Freeze:
    """Return what this release froze."""
    data = read_yaml("levels.yaml")
    return Freeze(
        data["suite"],
        {int(level): tuple(ids) for level, ids in data["levels"].items()},
        data["not_scored"],
        data["may_refuse"],
        data["features"],
    )


def levels() -> Mapping[int, tuple[str, ...]]:
    """Return the ids each compliance level adds to the ones below it, as frozen for this release."""
    return freeze().levels


@cache
def profiles() -> Mapping[str, Profile]:
    """Return the profiles by name; ``members`` are the rows of its families, in register order."""
    return {
        name: Profile(
            name,
            entry["title"],
            tuple(entry["families"]),
            tuple(row.id for row in requirements() if row.family in entry["families"]),
            tuple(entry.get("demands", ())),
        )
        for name, entry in read_yaml("profiles.yaml")["profiles"].items()
    }
