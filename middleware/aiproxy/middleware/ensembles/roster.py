"""Ensembles as their operator wrote them (``routing.ensembles``), built once."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

#: What the public name of an ensemble begins with.
PREFIX: Final = "ensemble/"
#: Methods for which one answer is enough unless the operator says otherwise.
_ONE_IS_ENOUGH: Final = frozenset({"cascade", "best_of"})


@dataclass(frozen=True, slots=True)
class Member:
    """Who takes part: a public model name at one provider, or at whoever serves it best."""

    model: str
    provider: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class Ensemble:
    """``name`` is the public one, with the prefix. ``quorum`` counts answers, ``agreement`` is a
    likeness (0..1), ``timeout_s`` is ``None`` for the request's own deadline."""

    name: str
    method: str
    members: tuple[Member, ...]
    quorum: int
    agreement: float
    judge: str | None
    timeout_s: float | None
    show_members: bool


def build_ensembles(rows: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Ensemble]:
    """Return the ensembles of ``routing.ensembles`` by public name."""
    return MappingProxyType({PREFIX + name: _ensemble(name, row) for name, row in rows.items()})


def usual_quorum(method: str, members: int) -> int:
    """Return the least answers where the operator names no number (UNI-ENS-007)."""
    return 1 if method in _ONE_IS_ENOUGH else members // 2 + 1


def _ensemble(name: str, row: Mapping[str, Any]) -> Ensemble:
    members = tuple(
        Member(one["model"], one["provider"], float(one["weight"])) for one in row["members"]
    )
    quorum = row["quorum"]
    return Ensemble(
        name=PREFIX + name,
        method=row["method"],
        members=members,
        quorum=usual_quorum(row["method"], len(members)) if quorum is None else quorum,
        agreement=float(row["agreement"]),
        judge=row["judge"],
        timeout_s=row["timeout"],
        show_members=row["show_members"],
    )
