"""The requirement register and the decisions behind it. What a level scores is in ``freezing``.

The files are YAML for people; reading the register takes a moment, so it happens on first use.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from aiproxy.spec.loading import suggest

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row of ``requirements.yaml``; the file's header explains the fields."""

    id: str
    source: str
    keyword: str
    origin: str
    adopt: str
    level: int
    observable: str
    statement: str
    test: str
    stretch: bool = False
    tensions: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The id without its number, such as ``XAI-HDR``."""
        return self.id.rpartition("-")[0]


def requirement(identifier: str) -> Requirement:
    """Return the requirement ``identifier``.

    Raises:
        KeyError: no such row; the message names close matches.
    """
    row = _rows().get(identifier)
    if row is None:
        raise KeyError(f"no requirement {identifier!r}{suggest(identifier, tuple(_rows()))}")
    return row


def requirements() -> tuple[Requirement, ...]:
    """Return every requirement, in register order."""
    return tuple(_rows().values())


@cache
def resolutions() -> Mapping[str, Mapping[str, Any]]:
    """Return our decisions by id (``T-01``): ``decision``, and ``superseded`` where one was."""
    return {entry["id"]: entry for entry in read_yaml("resolutions.yaml")}


@cache
def _rows() -> dict[str, Requirement]:
    return {row.id: row for row in map(_row, read_yaml("requirements.yaml"))}


def _row(fields: dict[str, Any]) -> Requirement:
    values: dict[str, Any] = dict(fields)
    for key in ("tensions", "refs"):
        values[key] = tuple(values.get(key, ()))
    return Requirement(**values)


def rows_as_written() -> Iterator[dict[str, Any]]:
    """Yield the rows of the register as the file has them, for those who validate it."""
    yield from read_yaml("requirements.yaml")


def read_yaml(name: str) -> Any:
    """Return what the file ``name`` beside this module holds."""
    import yaml

    # Ten times faster than the pure Python loader where libyaml was there to build against.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((_FOLDER / name).read_bytes(), Loader=loader)  # noqa: S506 (a safe loader)
