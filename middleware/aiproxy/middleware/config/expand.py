"""Replaces ``${NAME}`` and ``${NAME:-default}`` in the text values of a configuration.

It happens once, after parsing: what a variable holds is text, never configuration, and is not
looked at again (AIP-CFG-006, AIP-CFG-008). ``$${`` stands for a literal ``${``. A variable that is
unset or empty is a problem, except below a section with ``enabled: false``, where the text stays
as it is, or gives way to the default where text cannot stand (AIP-CFG-007).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiproxy.middleware.config.nodes import Node, Path

Lookup: TypeAlias = Callable[[str], str | None]
Fault: TypeAlias = tuple[Path, str]

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCHEMES: Final = ("", "Bearer", "Basic", "Token")  # words before a credential in a header
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class _Unset(Exception):
    """A variable without a value; ``args[0]`` is its name."""


def expand(root: Node, lookup: Lookup) -> list[Fault]:
    """Replace every reference below ``root`` in place and return what went wrong, with its path."""
    missing: dict[int, str] = {}  # a node shared through an alias is expanded once
    return list(_walk(root, (), lookup, missing, off=False))


def _walk(
    node: Node, path: Path, lookup: Lookup, missing: dict[int, str], *, off: bool
) -> Iterator[Fault]:
    inner = node.value
    if isinstance(inner, str):
        if node.raw is None and "${" in inner:
            yield from _expand_node(node, inner, path, lookup, missing)
        name = missing.get(id(node))
        if name is not None and not off:
            yield path, f"found ${{{name}}}, expected the variable {name} to be set and not empty"
        node.unset = name is not None and off
    elif isinstance(inner, dict):
        switch = inner.get("enabled")
        off = off or (bool(path) and switch is not None and switch.value is False)
        for key, child in inner.items():
            yield from _walk(child, (*path, key), lookup, missing, off=off)
    elif isinstance(inner, list):
        for index, child in enumerate(inner):
            yield from _walk(child, (*path, index), lookup, missing, off=off)


def _expand_node(
    node: Node, text: str, path: Path, lookup: Lookup, missing: dict[int, str]
) -> Iterator[Fault]:
    node.raw = text
    try:
        value = _REFERENCE.sub(lambda found: _replacement(found, lookup), text)
    except _Unset as variable:
        missing[id(node)] = str(variable)
        return
    except ValueError as fault:
        yield path, str(fault)
        return
    if _SURROGATE.search(value):
        yield path, "found a variable that is not valid UTF-8, expected text"
        return
    node.value = value


def _replacement(found: re.Match[str], lookup: Lookup) -> str:
    if found.group() == "$${":
        return "${"
    name, separator, default = found[1].partition(":-")
    if not found[2]:
        raise ValueError("found ${ without }, expected ${NAME}; write $${ for a literal ${")
    if not _NAME.fullmatch(name):
        raise ValueError(
            "found ${...} with an illegal name, expected letters, digits and _; "
            "write $${ for a literal ${"
        )
    value = lookup(name)
    if value:
        return value
    if separator:
        return default
    raise _Unset(name)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a text value was written as, for printing it without its secrets."""

    raw: str

    def references_only(self) -> bool:
        """Return whether showing it tells no secret: references, and at most a scheme's name."""
        return ":-" not in self.raw and _REFERENCE.sub("", self.raw).strip() in _SCHEMES
