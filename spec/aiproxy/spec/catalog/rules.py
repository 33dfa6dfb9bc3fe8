"""What a provider's chat surface wants done to a body, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules about top-level parameters and message roles; ``providers.yaml`` says what each does.

    ``models`` maps a glob of upstream model names to rules that hold for those as well. False when
    there is nothing to do.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, "Rules"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.rename
            or self.drop
            or self.values
            or self.only
            or self.limits
            or self.roles
            or self.models
        )


def rules(row: Mapping[str, Any]) -> Rules:
    """Return the rules of a ``quirks`` mapping.

    Raises:
        ValueError: it holds a key that no rule has.
    """
    unknown = set(row) - set(Rules.__dataclass_fields__)
    if unknown:
        raise ValueError(f"found {', '.join(sorted(unknown))} in quirks, expected rules only")
    return Rules(
        rename=MappingProxyType(dict(row.get("rename", _NOTHING))),
        drop=tuple(row.get("drop", ())),
        values=MappingProxyType(
            {name: MappingProxyType(dict(to)) for name, to in row.get("values", {}).items()}
        ),
        only=MappingProxyType({name: tuple(kept) for name, kept in row.get("only", {}).items()}),
        limits=MappingProxyType(
            {name: (low, high) for name, (low, high) in row.get("limits", {}).items()}
        ),
        roles=MappingProxyType(dict(row.get("roles", _NOTHING))),
        models=MappingProxyType({glob: rules(to) for glob, to in row.get("models", {}).items()}),
    )
