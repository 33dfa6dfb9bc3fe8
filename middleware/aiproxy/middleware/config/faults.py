"""Turns faults of the schema into problems a person can act on: place, what was found, what is due.

A message never shows a value that is a secret, came out of the environment, or might be either.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.middleware.config.nodes import Node, Path
from aiproxy.middleware.config.shape import Shape
from aiproxy.spec import Fault, Invalid, checker, validate
from aiproxy.spec.faults import dotted, either

_LIKE_A_SECRET: Final = re.compile(
    r"(?i)(sk|pk|rk|gsk|ghp|hf|xai|key|token|bearer|eyj)[-_ .a-z0-9]"
)
_LONGEST_SHOWN: Final = 40
_SHOWN_MEMBERS: Final = 20
_REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Broken:
    """One breach of the schema. ``unknown`` marks a key that nothing knows."""

    path: Path
    message: str
    unknown: bool = False


def breaches(root: Node, shape: Shape, name: str = "config") -> list[Broken]:
    """Return every breach of the schema ``name``, whose shape is given, below ``root``, one a path."""
    plain = root.plain()
    if checker(name).ok(plain):
        return []
    try:
        validate(plain, name)
    except Invalid as invalid:
        index = dict(_index(root, ()))
        found: dict[Path, Broken] = {}
        for fault in invalid.errors:
            for broken in _broken(fault, index, root, shape):
                found.setdefault(broken.path, broken)
        return list(found.values())
    return [Broken((), "found text that is not Unicode, expected UTF-8")]


def shape_at(shape: Shape, path: Path) -> Shape | None:
    """Return the shape of the value at ``path``, or nothing below an unknown key."""
    current: Shape | None = shape
    for step in path:
        if current is None:
            return None
        current = current.items if isinstance(step, int) else current.child(step)
    return current


def suggestion(word: str, known: list[str]) -> str:
    """Return `` (did you mean x?)`` for the member of ``known`` close to ``word``, or nothing."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def found(node: Node | None, shape: Shape | None) -> str:
    """Return what stands in the file, in words that give no secret away."""
    if node is None:
        return "nothing"
    value = node.value
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "null"
    if node.raw is not None and (name := _REFERENCE.search(node.raw)):
        return f"text from ${{{name[1]}}}" if value else f"empty text from ${{{name[1]}}}"
    if value == "":
        return "empty text"
    hidden = shape is None or _guarded(shape)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return "a number" if hidden else f"{value} (a number)"
    if hidden or len(value) > _LONGEST_SHOWN or _LIKE_A_SECRET.match(value):
        return f"text of {len(value)} characters"
    return json.dumps(value, ensure_ascii=False)


def expected(shape: Shape) -> str:
    """Return what the schema asks for, in words."""
    rules = shape.rules
    if "x-aiproxy-expected" in rules:
        return str(rules["x-aiproxy-expected"])
    if "enum" in rules:
        words = [json.dumps(word) for word in rules["enum"] if word is not None]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    return either([_kind(kind, rules) for kind in shape.types if kind != "null"])


_KINDS: Final = {"array": "a list", "boolean": "true or false", "object": "a mapping"}


def _kind(kind: str, rules: Mapping[str, Any]) -> str:
    if kind in _KINDS:
        return _KINDS[kind]
    if kind == "string":
        limit = rules.get("maxLength")
        return f"text of 1 to {limit} characters" if limit and limit <= 512 else "text"
    word = "an integer" if kind == "integer" else "a number"
    low, above, high = (rules.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if above is not None:
        return f"{word} above {above}"
    if low is not None and high is not None:
        return f"{word} from {low} to {high}"
    return word if low is None else f"{word} of at least {low}"


def _guarded(shape: Shape) -> bool:
    """Whether a secret could stand here, be it by a slip of indentation."""
    if shape.secret:
        return True
    below = [*shape.keys.values(), *filter(None, (shape.extra, shape.items))]
    return any(_guarded(inner) for inner in below)


def _index(node: Node, path: Path) -> Iterator[tuple[str, Path]]:
    yield dotted(path), path
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _index(child, (*path, key))
    elif isinstance(node.value, list):
        for position, child in enumerate(node.value):
            yield from _index(child, (*path, position))


def _broken(fault: Fault, index: Mapping[str, Path], root: Node, top: Shape) -> Iterator[Broken]:
    if fault.keyword == "required":
        yield _missing(fault.path, index, top)
        return
    path = index.get(fault.path, ())
    node, shape = root.at(path), shape_at(top, path)
    if fault.keyword == "additionalProperties":
        parent = shape_at(top, path[:-1])
        known = list(parent.keys) if parent else []
        listed = "" if len(known) > _SHOWN_MEMBERS else f" of {', '.join(known)}"
        hint = suggestion(str(path[-1]), known) if path else ""
        yield Broken(
            path, f"found an unknown key, expected one{listed or ' of this section'}{hint}", True
        )
    elif (
        "/propertyNames/" in fault.schema_path and node is not None and isinstance(node.value, dict)
    ):
        form = re.compile(str((shape.rules if shape else {})["propertyNames"]["pattern"]))
        for key in node.value:
            if not form.fullmatch(key):
                yield Broken((*path, key), f"found an id of this form, expected {form.pattern}")
    elif fault.keyword == "uniqueItems":
        yield Broken(path, "found the same entry twice, expected entries that differ")
    elif fault.keyword == "minProperties":
        yield Broken(path, f"found {found(node, shape)}, expected at least one key")
    elif shape is not None:
        yield Broken(path, _mismatch(node, shape, fault))


def _mismatch(node: Node | None, shape: Shape, fault: Fault) -> str:
    due = expected(shape)
    value = node.value if node is not None else None
    if fault.keyword == "minItems":
        due = f"at least {shape.rules['minItems']} entry"
    hint = ""
    if "enum" in shape.rules and isinstance(value, str):
        hint = suggestion(value, [word for word in shape.rules["enum"] if word])
    elif shape.types[0] == "string" and isinstance(value, int | float):
        if shape.unit in ("duration", "size"):
            hint = "; a bare number does not say its unit"
        else:
            hint = "; put it in quotes"
    elif node is not None and node.raw is not None and "string" not in shape.types:
        hint = "; a variable always gives text, so this key cannot come from one"
    return f"found {found(node, shape)}, expected {due}{hint}"


def _missing(path: str, index: Mapping[str, Path], top: Shape) -> Broken:
    parent, _, key = path.rpartition(".")
    full = (*index.get(parent, ()), key)
    shape = shape_at(top, full)
    return Broken(full, f"found nothing, expected {expected(shape) if shape else 'a value'}")
