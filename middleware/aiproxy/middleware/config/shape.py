"""The configuration schema, compiled into the form in which a configuration is filled from it.

Every default, unit and secret mark comes from ``schemas/config.json``; this module only knows how
to read them. Validation itself is ``aiproxy.spec``'s.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from aiproxy.middleware.config.expand import Provenance
from aiproxy.middleware.config.nodes import Node, Path
from aiproxy.middleware.config.quantities import parse_duration, parse_size
from aiproxy.spec import schema

_READ: Final[Mapping[str, Callable[[str], object]]] = {
    "duration": parse_duration,
    "size": parse_size,
}
_PASSWORD: Final = re.compile(r"(?<=://)[^/@]*:[^/@]*@")
MASK: Final = "***"


@dataclass(slots=True)
class Shape:
    """One schema node. ``filled`` says whether an absent value gets one: its default, or a map."""

    types: tuple[str, ...]
    rules: Mapping[str, Any]
    unit: str | None
    secret: object
    filled: bool
    has_default: bool
    default: object
    keys: "dict[str, Shape]" = field(default_factory=dict)
    forms: "list[tuple[re.Pattern[str], Shape]]" = field(default_factory=list)
    extra: "Shape | None" = None
    items: "Shape | None" = None

    def child(self, key: str) -> "Shape | None":
        """Return the shape of ``key``, or nothing for an unknown key."""
        if key in self.keys:
            return self.keys[key]
        for form, shape in self.forms:
            if form.search(key):
                return shape
        return self.extra


@cache
def config_shape() -> Shape:
    """Return the shape of the whole configuration; built once."""
    return shape_of("config")


def shape_of(name: str) -> Shape:
    """Return the shape of a document whose schema is written like the configuration's."""
    document = schema(name)
    return _shape(document, document["$defs"])


def _shape(rules: Mapping[str, Any], definitions: Mapping[str, Any]) -> Shape:
    if "$ref" in rules:
        rules = definitions[rules["$ref"].rpartition("/")[2]]
    kinds = rules["type"]
    shape = Shape(
        types=(kinds,) if isinstance(kinds, str) else tuple(kinds),
        rules=rules,
        unit=rules.get("x-unit"),
        secret=rules.get("x-secret", False),
        filled="default" in rules or ("object" in kinds and "x-alias-of" not in rules),
        has_default="default" in rules,
        default=rules.get("default"),
    )
    for key, inner in rules.get("properties", {}).items():
        shape.keys[key] = _shape(inner, definitions)
    for form, inner in rules.get("patternProperties", {}).items():
        shape.forms.append((re.compile(form), _shape(inner, definitions)))
    if isinstance(rules.get("additionalProperties"), Mapping):
        shape.extra = _shape(rules["additionalProperties"], definitions)
    if "items" in rules:
        shape.items = _shape(rules["items"], definitions)
    return shape


def literal_secrets(shape: Shape, node: Node, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every secret below ``node`` that is written out rather than named.

    Fixed headers are covered when shown, but seldom secret, and so not reported.
    """
    inner = node.value
    if isinstance(inner, dict):
        for key, child in inner.items():
            below = shape.child(key)
            if below is not None and key != "headers":
                yield from literal_secrets(below, child, (*path, key))
    elif isinstance(inner, list) and shape.items is not None:
        for index, child in enumerate(inner):
            yield from literal_secrets(shape.items, child, (*path, index))
    elif inner and isinstance(inner, str) and node.raw is None:
        open_url = shape.secret == "url" and not _PASSWORD.search(inner)  # noqa: S105
        if shape.secret and not open_url:
            yield path


def fill(shape: Shape, node: Node | None) -> Any:
    """Return the value of ``node`` with every default, durations in seconds, sizes in bytes."""
    return _build(shape, node, _read)


def masked(shape: Shape, node: Node | None) -> Any:
    """Return the value of ``node`` with every default, as text that may be shown and read again."""
    return _build(shape, node, _shown)


_Leaf = Callable[[Shape, object, Node | None], Any]


def _build(shape: Shape, node: Node | None, leaf: _Leaf) -> Any:
    if node is None:
        return _default(shape, leaf)
    inner = node.value
    if shape.rules.get("x-free"):
        return _free(shape, node, leaf)
    if isinstance(inner, dict):
        return _object(shape, inner, leaf)
    if isinstance(inner, list):
        if shape.items is None:
            return [item.plain() for item in inner]
        return [_build(shape.items, item, leaf) for item in inner]
    return leaf(shape, inner, node)


def _free(shape: Shape, node: Node, leaf: _Leaf) -> Any:
    """Everything below ``node``: what stands there is for somebody else to know."""
    inner = node.value
    if isinstance(inner, dict):
        return {key: _free(shape, child, leaf) for key, child in inner.items()}
    if isinstance(inner, list):
        return [_free(shape, child, leaf) for child in inner]
    return leaf(shape, inner, node)


def _object(shape: Shape, given: Mapping[str, Node], leaf: _Leaf) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, inner in shape.keys.items():
        node = given.get(key)
        if node is not None:
            built[key] = _build(inner, node, leaf)
        elif inner.filled:
            built[key] = _default(inner, leaf)
    if len(given) > len(built) or shape.extra or shape.forms:
        for key, node in given.items():
            if key not in built:
                below = shape.child(key)
                if below is not None:
                    built[key] = _build(below, node, leaf)
    return built


def _default(shape: Shape, leaf: _Leaf) -> Any:
    if shape.has_default:
        value = shape.default
        if value is None:
            return None
        if isinstance(value, list):
            return list(value)
        if isinstance(value, dict):
            return dict(value)
        return leaf(shape, value, None)
    return _object(shape, {}, leaf)


def _read(shape: Shape, value: object, node: Node | None) -> Any:
    if isinstance(value, str) and shape.unit is not None and shape.unit in _READ:
        return _READ[shape.unit](value)
    if isinstance(value, float) and "integer" in shape.types and "number" not in shape.types:
        return int(value)
    return value


def _shown(shape: Shape, value: object, node: Node | None) -> Any:
    if not isinstance(value, str):
        return _read(shape, value, node)
    if node is None:
        return value.replace("${", "$${")
    written = value if node.raw is None else node.raw
    if shape.secret == "url":  # noqa: S105 - a schema annotation
        return _PASSWORD.sub(_covered, written)
    if shape.secret and not (node.raw and Provenance(node.raw).references_only()):
        return MASK
    return written


def _covered(found: re.Match[str]) -> str:
    """Return user and password of a URL, covered unless the password is only referred to."""
    password = found.group().partition(":")[2].removesuffix("@")
    shown = "${" in password and Provenance(password).references_only()
    return found.group() if shown else f"{MASK}@"
