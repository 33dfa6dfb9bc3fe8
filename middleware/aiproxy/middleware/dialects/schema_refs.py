"""References of a JSON Schema replaced by what they mean; schemas merged into one."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from aiproxy.middleware.dialects.canonical import Json
from aiproxy.middleware.dialects.reading import words

#: Schemas larger than this once references are replaced, or nested deeper, are refused.
MAX_NODES: Final = 10_000
MAX_DEPTH: Final = 120

#: Keywords that describe and do not restrict.
ANNOTATIONS: Final = words(
    "title description default examples example deprecated readOnly writeOnly $comment $id $schema "
    "$anchor $vocabulary contentEncoding contentMediaType contentSchema"
)
#: Keywords that hold one schema, a list of them, or a map of them.
ONE: Final = words(
    "items additionalItems additionalProperties contains propertyNames not if then else "
    "unevaluatedItems unevaluatedProperties"
)
MANY: Final = words("anyOf oneOf allOf prefixItems")
NAMED: Final = words("properties patternProperties dependentSchemas")
_DEFINITIONS: Final = ("$defs", "definitions")


class SchemaRefused(ValueError):
    """A schema that cannot be converted. ``reason`` says why and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def inline_refs(schema: Json) -> dict[str, Any]:
    """Return ``schema`` without ``$ref`` and definitions.

    Raises:
        SchemaRefused: a reference is recursive, leads nowhere or outside the schema, or the
            result would have more than ``MAX_NODES`` schemas.
    """
    return Inliner(schema, None).whole()


class Inliner:
    """Replaces references. ``unroll`` says how often a definition may hold itself before it is
    left open (``opened``); ``None`` refuses recursion."""

    def __init__(self, root: Json, unroll: int | None) -> None:
        self._root = root
        self._unroll = unroll
        self._nodes = 0
        self._anchors: dict[str, Any] | None = None
        self.opened = False

    def whole(self) -> dict[str, Any]:
        """Return the root without references.

        Raises:
            SchemaRefused: see ``inline_refs``.
        """
        found = self._schema(self._root, (), 0)
        return found if isinstance(found, dict) else {}

    def _schema(self, node: Any, inside: tuple[str, ...], depth: int) -> Any:
        if not isinstance(node, Mapping):
            return node
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SchemaRefused("the schema is too large once its references are replaced")
        if depth > MAX_DEPTH:
            raise SchemaRefused("the schema is nested too deeply")
        made: dict[str, Any] = {}
        for name, value in node.items():
            if name in _DEFINITIONS or name == "$ref":
                continue
            if name in ONE:
                made[name] = (
                    [self._schema(v, inside, depth + 1) for v in value]
                    if isinstance(value, list)
                    else self._schema(value, inside, depth + 1)
                )
            elif name in MANY and isinstance(value, list):
                made[name] = [self._schema(v, inside, depth + 1) for v in value]
            elif name in NAMED and isinstance(value, Mapping):
                made[name] = {k: self._schema(v, inside, depth + 1) for k, v in value.items()}
            else:
                made[name] = value
        reference = node.get("$ref")
        return self._with_target(reference, made, inside, depth) if "$ref" in node else made

    def _with_target(
        self, reference: Any, beside: dict[str, Any], inside: tuple[str, ...], depth: int
    ) -> Any:
        if not isinstance(reference, str):
            raise SchemaRefused("a reference is not a string")
        held = inside.count(reference)
        if held and self._unroll is None:
            raise SchemaRefused("the schema is recursive")
        target = self._find(reference)
        if held and self._unroll is not None and held > self._unroll:
            self.opened = True
            kind = target.get("type") if isinstance(target, Mapping) else None
            return {**({"type": kind} if isinstance(kind, str) else {}), **beside}
        found = self._schema(target, (*inside, reference), depth + 1)
        if not beside:
            return found
        if beside.keys() <= ANNOTATIONS and isinstance(found, Mapping):
            return {**found, **beside}
        return {**beside, "allOf": [*beside.get("allOf", ()), found]}

    def _find(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise SchemaRefused("a reference leads outside the schema")
        pointer = reference[1:]
        if pointer and not pointer.startswith("/"):
            return self._anchor(pointer)
        found: Any = self._root
        for step in pointer.split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isascii() and name.isdigit():
                if len(name) > 6 or int(name) >= len(found):
                    raise SchemaRefused("a reference leads nowhere")
                found = found[int(name)]
            else:
                raise SchemaRefused("a reference leads nowhere")
        return found

    def _anchor(self, name: str) -> Any:
        if self._anchors is None:
            self._anchors = {}
            waiting: list[Any] = [self._root]
            while waiting:
                node = waiting.pop()
                if isinstance(node, Mapping):
                    anchor = node.get("$anchor")
                    if isinstance(anchor, str):
                        self._anchors.setdefault(anchor, node)
                    waiting += node.values()
                elif isinstance(node, list):
                    waiting += node
        if name not in self._anchors:
            raise SchemaRefused("a reference leads nowhere")
        return self._anchors[name]


# --- one schema out of two -----------------------------------------------------------------------

_LOWER: Final = words("minimum exclusiveMinimum minLength minItems minProperties")
_UPPER: Final = words("maximum exclusiveMaximum maxLength maxItems maxProperties")


def merge(one: Json, other: Json) -> dict[str, Any] | None:
    """Return a schema that takes what both take, or ``None`` where no single schema says so."""
    made = dict(one)
    for name, value in other.items():
        held = made.get(name)
        if name not in made or held == value or name in ANNOTATIONS:
            made[name] = value
            continue
        joined = _join(name, held, value)
        if joined is None:
            return None
        made[name] = joined
    return made


def _join(name: str, held: Any, value: Any) -> Any:
    """Return one value of a keyword that means both, or ``None``."""
    if name == "properties" and isinstance(held, Mapping) and isinstance(value, Mapping):
        made = dict(held)
        for key, schema in value.items():
            if key not in made:
                made[key] = schema
                continue
            if not (isinstance(made[key], Mapping) and isinstance(schema, Mapping)):
                return None
            both = merge(made[key], schema)
            if both is None:
                return None
            made[key] = both
        return made
    if name == "required" and isinstance(held, list) and isinstance(value, list):
        return [*held, *(v for v in value if v not in held)]
    if name == "enum" and isinstance(held, list) and isinstance(value, list):
        return [v for v in held if v in value] or None
    if name == "type":
        kinds = [k for k in _types(held) if k in _types(value)]
        if "integer" in _types(held) + _types(value) and "integer" not in kinds:
            kinds += ["integer"] if "number" in _types(held) + _types(value) else []
        return (kinds[0] if len(kinds) == 1 else kinds) or None
    if name in _LOWER and _number(held) and _number(value):
        return max(held, value)
    if name in _UPPER and _number(held) and _number(value):
        return min(held, value)
    if name in ("items", "additionalProperties"):
        if held is True or held == {}:
            return value
        if value is True or value == {}:
            return held
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            return merge(held, value)
    return None


def _types(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
