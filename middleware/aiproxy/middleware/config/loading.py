"""Reads an AIProxy configuration: a YAML or JSON file, or a mapping.

The schema ``urn:aiproxy:schema:config`` says what may stand in it, holds every default, and
validates. This module puts the steps in order: parse with places, replace ``${NAME}`` once,
validate, write shorthands out, fill in defaults, check what needs more than one value. All
problems of a file are reported together, each with file, line and key, and none shows a secret.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final, TypeAlias

from aiproxy.middleware.config.canonical import resolve, rewrite
from aiproxy.middleware.config.checks import check, insecure_public_bind
from aiproxy.middleware.config.expand import Lookup, expand
from aiproxy.middleware.config.faults import Broken, breaches
from aiproxy.middleware.config.findings import Finding, Findings
from aiproxy.middleware.config.json_reader import read_json
from aiproxy.middleware.config.nodes import (
    ConfigInvalid,
    Located,
    Node,
    Path,
    Problem,
    Unreadable,
    from_mapping,
)
from aiproxy.middleware.config.shape import config_shape, fill, masked
from aiproxy.middleware.config.yaml_reader import read_yaml
from aiproxy.spec.faults import dotted

__all__ = [
    "Config",
    "ConfigInvalid",
    "Finding",
    "Problem",
    "Validator",
    "insecure_public_bind",
    "load_config",
]

Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Located | None"
Validator: TypeAlias = Callable[[Mapping[str, Any]], Iterable[Finding]]
"""A further check: filled values in, findings out. The rule compiler is one."""

_LARGEST_FILE: Final = 4 * 1024 * 1024  # bytes
_MAPPING: Final = "<mapping>"
_DEFAULTS: Final = "<defaults>"


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """A valid configuration.

    ``values`` is nested plain data with every default of the schema filled in; durations are
    seconds (float), sizes bytes (int). Treat it as read only. ``warnings`` are for the operator.
    ``problems`` is empty: a configuration with problems is never made.
    """

    values: dict[str, Any]
    file: str
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    _root: Node = field(default_factory=lambda: Node({}), compare=False)

    def __repr__(self) -> str:
        return f"Config({self.file!r}, {len(self.values['providers'])} providers)"

    def where(self, path: str | Path) -> tuple[str, int, int]:
        """Return file, line and column of ``path`` (``server.listen_addr``), or of what is nearest.

        Lines and columns start at 1; 0 when the configuration did not come from a file.
        """
        steps = _steps(self._root, path) if isinstance(path, str) else path
        return (self.file, *self._root.place(steps))

    def given(self, path: str | Path) -> bool:
        """Return whether the operator wrote something at ``path``, rather than the default."""
        if isinstance(path, str):
            path = _steps(self._root, path, exact=True)
        return bool(path) and self._root.at(path) is not None

    def masked(self) -> dict[str, Any]:
        """Return the configuration as it may be shown: ``${NAME}`` stays, literal secrets are ***.

        Without literal secrets it loads to an equal configuration in the same environment.
        """
        shown: dict[str, Any] = masked(config_shape(), self._root)
        if not shown["providers"]:
            del shown["providers"]
        return shown


def load_config(
    source: Source,
    *,
    env: Mapping[str, str] | None = None,
    lenient: bool = False,
    base: Mapping[str, Any] | None = None,
    validators: Sequence[Validator] = (),
) -> Config:
    """Return the configuration of ``source``: a path, a mapping, or ``None`` for all defaults; a
    tree of another file is changed on the way.

    A path that ends in ``.json`` is read as strict JSON, any other as YAML. ``env`` is the
    environment (default: the process's). ``lenient`` turns unknown keys and unknown providers in
    chains into warnings. ``base`` holds a host's own values, which stand where the source says
    nothing. ``validators`` run last, on a configuration that is otherwise sound.

    Raises:
        ConfigInvalid: with every problem found.
    """
    name, root = read_tree(source)
    if base is not None:
        try:
            _underlay(root, from_mapping(base))
        except Unreadable as fault:
            raise ConfigInvalid([Problem("<base>", 0, 0, fault.key, str(fault))]) from None
    findings = Findings(root, lenient)
    pruned = _Pruned(root)
    lookup = _lookup(root, os.environ if env is None else env)
    pruned.report([Broken(path, message) for path, message in expand(root, lookup)])
    _prune(pruned, findings)
    unwritten = [fault for fault in rewrite(root) if not pruned.caused(fault[0])]
    values: dict[str, Any] = fill(config_shape(), root)
    resolve(values)
    for path, message in unwritten:
        findings.refuse(path, message)
    further = Findings(root, lenient)
    check(values, further)
    findings.found += [one for one in further.found if not pruned.caused(one.path)]
    if not pruned.problems and all(one.warning for one in findings.found):
        findings.found += _policies(values, lenient)
        for validator in validators:
            findings.found += validator(values)
    problems = [Problem(name, *place, key, message) for place, key, message in pruned.problems]
    problems += [_problem(name, root, one) for one in findings.found if not one.warning]
    if problems:
        raise ConfigInvalid(sorted(problems, key=lambda one: (one.line, one.column)))
    warnings = tuple(_problem(name, root, one) for one in findings.found if one.warning)
    return Config(values, name, warnings, (), root)


def _policies(values: Mapping[str, Any], lenient: bool) -> list[Finding]:
    """Compile the routing policies to find their faults; without any, their parser is not loaded."""
    if not values["routing"]["policies"]:
        return []
    from aiproxy.middleware.routing.rules import policy_findings

    return policy_findings(values, lenient=lenient)


class _Pruned:
    """A tree from which broken parts are taken out, so that the rest can still be checked."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.problems: list[tuple[tuple[int, int], str, str]] = []
        self._out: list[Path] = []

    def report(self, found: Sequence[Broken]) -> None:
        """Note each of ``found`` that nothing noted before caused, then take all of them out."""
        for one in found:
            if not self.caused(one.path):
                place = self.root.place(one.path)
                self.problems.append((place, dotted(one.path), one.message))
        for one in found:
            self.take_out(one.path)

    def take_out(self, path: Path) -> None:
        """Remove what is at ``path``; whole lists only, so that indices keep their meaning."""
        while path:
            parent = self.root.at(path[:-1])
            last = path[-1]
            if isinstance(last, str) and parent is not None and isinstance(parent.value, dict):
                self._out.append(path)
                if parent.value.pop(last, None) is not None:
                    return
            path = path[:-1]
        self._out.append(())
        self.root.value = {}

    def caused(self, path: Path) -> bool:
        """Return whether a finding at ``path`` may only follow from what was taken out."""
        path = _unaliased(path)
        for out in map(_unaliased, self._out):
            short = min(len(out), len(path))
            if out[:short] == path[:short] or (
                out[0] == "providers" and len(out) <= 2 and path[0] == "routing"
            ):
                return True
        return False


def _prune(pruned: _Pruned, findings: Findings) -> None:
    """Report and take out every breach of the schema, until nothing breaks it."""
    while faults := breaches(pruned.root, config_shape()):
        ignored = [fault for fault in faults if fault.unknown and findings.lenient]
        for fault in ignored:
            findings.warn(fault.path, f"{fault.message}; ignored")
            _drop_key(pruned.root, fault.path)
        empty = [fault for fault in faults if _unset(pruned.root, fault.path)]
        for fault in empty:
            pruned.take_out(fault.path)
        pruned.report([fault for fault in faults if fault not in ignored and fault not in empty])


def _unset(root: Node, path: Path) -> bool:
    node = root.at(path)
    return node is not None and node.unset


def _drop_key(root: Node, path: Path) -> None:
    parent = root.at(path[:-1])
    if parent is not None and isinstance(parent.value, dict):
        parent.value.pop(str(path[-1]), None)


def _unaliased(path: Path) -> Path:
    """Return ``path`` as it reads after shorthands are written out, as far as that is sure."""
    if path[:2] == ("routing", "policies"):
        return path[:2]
    return ("node", *path) if path[:1] == ("mesh",) else path


def _problem(name: str, root: Node, finding: Finding) -> Problem:
    line, column = root.place(finding.path)
    node = root.at(finding.path)
    if node is not None and finding.offset and node.line:
        line, column = node.line, node.column + finding.offset
    return Problem(name, line, column, dotted(finding.path), finding.message)


def read_tree(source: Source) -> tuple[str, Node]:
    """Return the name for messages and the tree of ``source``.

    Raises:
        ConfigInvalid: it cannot be read, or is no mapping.
    """
    if source is None:
        return _DEFAULTS, Node({})
    if isinstance(source, Located):
        return source.file, source.root
    if isinstance(source, Mapping):
        try:
            return _MAPPING, from_mapping(source)
        except Unreadable as fault:
            raise ConfigInvalid([Problem(_MAPPING, 0, 0, fault.key, str(fault))]) from None
    name = os.fspath(source)
    text = _text(name)
    try:
        root = read_json(text) if name.lower().endswith(".json") else read_yaml(text)
    except Unreadable as fault:
        problem = Problem(name, fault.line, fault.column, fault.key, str(fault))
        raise ConfigInvalid([problem]) from None
    if not isinstance(root.value, dict):
        message = "found a single value or a list, expected a mapping such as server: {...}"
        raise ConfigInvalid([Problem(name, root.line, root.column, "", message)])
    return name, root


def _text(name: str) -> str:
    """Return the content of the file ``name``, which must be UTF-8 and of a sane size."""
    line = 0
    try:
        with FilePath(name).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) <= _LARGEST_FILE:
            return content.decode("utf-8-sig")
        message = f"found more than {_LARGEST_FILE} bytes, expected a configuration file"
    except UnicodeDecodeError as fault:
        line = fault.object.count(b"\n", 0, fault.start) + 1
        message = "found bytes that are not UTF-8, expected UTF-8 text"
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "not a usable path"
        message = f"found no readable file ({reason}), expected a configuration file"
    raise ConfigInvalid([Problem(name, line, 1 if line else 0, "", message)])


def _lookup(root: Node, env: Mapping[str, str]) -> Lookup:
    """Return how ``${NAME}`` is looked up: the environment, then ``credentials.directory``."""
    node = root.at(("credentials", "directory"))
    folder = FilePath(node.value) if node is not None and isinstance(node.value, str) else None

    def lookup(name: str) -> str | None:
        value = env.get(name)
        if value or folder is None:
            return value
        try:
            return (folder / name).read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError):
            return None

    return lookup


def _underlay(top: Node, base: Node) -> None:
    """Add to ``top`` what only ``base`` has, map by map."""
    if not isinstance(top.value, dict) or not isinstance(base.value, dict):
        return
    for key, node in base.value.items():
        if key in top.value:
            _underlay(top.value[key], node)
        else:
            top.value[key] = node


def _steps(root: Node, path: str, *, exact: bool = False) -> Path:
    """Return the written ``path`` as steps, as far as the tree has it (``exact``: or none)."""
    steps: Path = ()
    rest = path
    while rest:
        node = root.at(steps)
        children = node.value if node is not None else None
        keys: Iterable[str | int] = ()
        if isinstance(children, dict):
            keys = children
        elif isinstance(children, list):
            keys = range(len(children))
        fitting = [key for key in keys if _begins(path, (*steps, key))]
        if not fitting:
            return () if exact else steps
        steps = (*steps, max(fitting, key=lambda key: len(str(key))))
        rest = path[len(dotted(steps)) :]
    return steps


def _begins(path: str, steps: Path) -> bool:
    written = dotted(steps)
    return path.startswith(written) and path[len(written) : len(written) + 1] in ("", ".", "[")
