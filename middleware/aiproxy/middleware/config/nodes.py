"""A configuration as a tree in which every value knows where it was written.

The readers (``config_yaml``, ``config_json``) and ``from_mapping`` build the same tree; from there
on nothing depends on the format.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aiproxy.spec.faults import dotted

Path: TypeAlias = tuple[str | int, ...]
Scalar: TypeAlias = str | int | float | bool | None

DEEPEST: Final = 32  # levels; the schema itself needs eight
MOST_NODES: Final = 250_000  # after aliases are written out; 200 providers of 50 models fit
_LARGEST_INTEGER: Final = 2**63 - 1


NO_KEYS: Final[dict[str, tuple[int, int]]] = {}  # shared by all nodes without keys; stays empty


@dataclass(slots=True)
class Node:
    """One value: a scalar, a list of nodes or a map of nodes, with its place (from 1; 0: none).

    ``keys`` has the place of each key of a map. ``raw`` is the text before ``${NAME}`` was
    replaced, where there was one; with ``unset`` it could not be, below a section switched off.
    """

    value: "Scalar | list[Node] | dict[str, Node]"
    line: int = 0
    column: int = 0
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    raw: str | None = None
    unset: bool = False

    def at(self, path: Path) -> "Node | None":
        """Return the node at ``path`` below this one, or nothing."""
        node = self
        for step in path:
            inner: Any = node.value
            if isinstance(inner, dict):
                found = inner.get(step)
            elif isinstance(inner, list) and isinstance(step, int) and step < len(inner):
                found = inner[step]
            else:
                return None
            if found is None:
                return None
            node = found
        return node

    def place(self, path: Path) -> tuple[int, int]:
        """Return line and column of ``path``, or of its nearest ancestor."""
        while path:
            parent = self.at(path[:-1])
            if parent is not None:
                last = path[-1]
                if isinstance(last, str) and last in parent.keys:
                    return parent.keys[last]
                node = parent.at((last,))
                if node is not None:
                    return node.line, node.column
            path = path[:-1]
        return self.line, self.column

    def plain(self) -> object:
        """Return the value as dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


@dataclass(frozen=True, slots=True)
class Located:
    """A tree that was read before, as part of ``file``."""

    file: str
    root: Node


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration. ``line`` and ``column`` start at 1; 0 is unknown."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigInvalid(ValueError):
    """A configuration that cannot be used; ``problems`` in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Unreadable(ValueError):
    """Text that is not the format it should be, with the place of the fault."""

    def __init__(self, message: str, line: int = 0, column: int = 0, key: str = "") -> None:
        super().__init__(message)
        self.line, self.column, self.key = line, column, key


def from_mapping(source: Mapping[Any, Any]) -> Node:
    """Return the tree of an ordinary mapping; its nodes have no place.

    Raises:
        Unreadable: a value that a configuration file could not hold, or nesting without end.
    """
    return _node(source, (), [0])


def _node(value: object, path: Path, count: list[int]) -> Node:
    count[0] += 1
    if len(path) > DEEPEST or count[0] > MOST_NODES:
        raise Unreadable(
            f"found more than {DEEPEST} levels or {MOST_NODES} values, expected a configuration",
            key=dotted(path[:4]),
        )
    if isinstance(value, Mapping):
        return Node({_key(k, path): _node(v, (*path, str(k)), count) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return Node([_node(item, (*path, index), count) for index, item in enumerate(value)])
    return Node(_scalar(value, path), keys=NO_KEYS)


def _key(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise Unreadable(
            f"found a key of type {type(key).__name__}, expected text", key=dotted(path)
        )
    return key


def _scalar(value: object, path: Path) -> Scalar:
    if value is None or isinstance(value, bool | int | float):
        fault = number_fault(value)
        if fault is None:
            return value
        raise Unreadable(fault, key=dotted(path))
    if isinstance(value, str):
        return str(value)
    raise Unreadable(
        f"found a value of type {type(value).__name__}, expected text, a number, true, false, "
        "null, a list or a mapping",
        key=dotted(path),
    )


def number_fault(value: Scalar) -> str | None:
    """Return what is wrong with a number no key could mean: infinite, not a number, huge."""
    if isinstance(value, float) and not math.isfinite(value):
        return "found a number that is not finite, expected an ordinary number"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return "found an integer of more than 63 bits, expected an ordinary number"
    return None
