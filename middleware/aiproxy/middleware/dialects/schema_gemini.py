"""JSON Schema brought to what Gemini takes, in either of its two fields.

``responseJsonSchema`` and ``parametersJsonSchema`` take a subset of JSON Schema,
``responseSchema`` and ``parameters`` one of OpenAPI 3.0. What neither has is left out so that
every answer the schema allowed is still allowed, and declared.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import orjson

from aiproxy.middleware.dialects.canonical import Json, Loss
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.schema_refs import (
    ANNOTATIONS,
    Inliner,
    SchemaRefused,
    merge,
)

#: Keywords of each field, for those who check the result.
JSON_KEYWORDS: Final = words(
    "type format title description enum items prefixItems minItems maxItems minimum maximum anyOf "
    "properties additionalProperties required propertyOrdering"
)
OPENAPI_KEYWORDS: Final = words(
    "type format title description nullable enum items minItems maxItems minimum maximum anyOf "
    "properties required propertyOrdering minLength maxLength pattern minProperties maxProperties"
)

_OF_TYPE: Final[dict[str, frozenset[str]]] = {
    "string": words("minLength maxLength pattern format"),
    "number": words("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf format"),
    "integer": words("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf format"),
    "array": words(
        "items prefixItems additionalItems minItems maxItems uniqueItems contains minContains "
        "maxContains unevaluatedItems"
    ),
    "object": words(
        "properties required additionalProperties propertyOrdering minProperties maxProperties "
        "patternProperties propertyNames dependentRequired dependentSchemas dependencies "
        "unevaluatedProperties"
    ),
    "boolean": frozenset(),
    "null": frozenset(),
}
_TYPED: Final = frozenset().union(*_OF_TYPE.values())
_ANY_TYPE: Final = words("not if then else")
_KNOWN: Final = _TYPED | _ANY_TYPE | words("type enum const anyOf oneOf allOf nullable")
_FORMATS: Final[dict[str, frozenset[str]]] = {
    "string": words("date-time"),
    "number": words("float double"),
    "integer": words("int32 int64"),
}
_DATES: Final = words("date time")
_NOTE_LIMIT: Final = 160
_EXACT: Final = 2**53


def for_gemini(schema: Json) -> tuple[dict[str, Any], list[Loss]]:
    """Return ``schema`` in the OpenAPI subset (``responseSchema``, ``parameters``) and what it
    no longer says.

    Raises:
        SchemaRefused: references lead nowhere or outside, or the schema is too large.
    """
    return _convert(schema, openapi=True)


def for_gemini_json(schema: Json) -> tuple[dict[str, Any], list[Loss]]:
    """Return ``schema`` in the JSON Schema subset (``responseJsonSchema``,
    ``parametersJsonSchema``) and what it no longer says.

    Raises:
        SchemaRefused: see ``for_gemini``.
    """
    return _convert(schema, openapi=False)


def _convert(schema: Json, openapi: bool) -> tuple[dict[str, Any], list[Loss]]:
    try:
        inliner = Inliner(schema, 1)
        plain = inliner.whole()
    except SchemaRefused:
        inliner = Inliner(schema, 0)
        plain = inliner.whole()
    subset = _Subset(openapi)
    made = subset.schema(plain)
    if inliner.opened:
        subset.lose("recursion below the first levels is not enforced")
    return made, subset.losses


class _Subset:
    def __init__(self, openapi: bool) -> None:
        self._openapi = openapi
        self.losses: list[Loss] = []

    def lose(self, detail: str) -> None:
        note(self.losses, [Loss("schema", detail)])

    def schema(self, node: Any) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            if node is False:
                self.lose("a schema that nothing meets is not enforced")
            return self._any()
        plain = self._folded(node)
        made = self._restricted(plain)
        return self._described(made, plain)

    def _folded(self, node: Json) -> dict[str, Any]:
        """Return a node without ``allOf``, ``oneOf``, ``const`` and ``nullable``."""
        made = {k: v for k, v in node.items() if k not in ("allOf", "oneOf", "const", "nullable")}
        for branch in _list(node.get("allOf")):
            if branch is True:
                continue
            joined = merge(made, self._folded(branch)) if isinstance(branch, Mapping) else None
            if joined is None:
                self.lose("allOf is not enforced in full")
            else:
                made = joined
        if "const" in node:
            const = [node["const"]]
            if "enum" in made and not any(_same(const[0], v) for v in _list(made["enum"])):
                self.lose("const is not enforced")
            else:
                made["enum"] = const
        branches = _list(node.get("oneOf"))
        if branches:
            if "anyOf" in made:
                self.lose("oneOf is not enforced")
            else:
                made["anyOf"] = branches
                if not _disjoint(branches):
                    self.lose("oneOf is read as anyOf")
        if node.get("nullable") is True and "type" in made and "null" not in _types(made):
            made["type"] = [*_types(made), "null"]
            if isinstance(made.get("enum"), list) and None not in made["enum"]:
                made["enum"] = [*made["enum"], None]
        return made

    def _restricted(self, node: dict[str, Any]) -> dict[str, Any]:
        for name in node:
            if name in _KNOWN - _ANY_TYPE or name in ANNOTATIONS:
                continue
            self.lose(f"{name if name in _ANY_TYPE else 'an unknown keyword'} is not enforced")
        branches = _list(node.get("anyOf"))
        if branches:
            return self._any_of(node, branches)
        if "enum" in node:
            return self._enum(node)
        kinds = self._kinds(node)
        if not kinds:
            return self._any()
        if len(kinds) == 1:
            return self._typed(kinds[0], node)
        if len(kinds) == 2 and "null" in kinds:
            kind = kinds[0] if kinds[1] == "null" else kinds[1]
            return self._nullable(self._typed(kind, node))
        return {"anyOf": [self._typed(kind, node) for kind in kinds]}

    def _kinds(self, node: dict[str, Any]) -> list[str]:
        kinds = [k for k in dict.fromkeys(_types(node)) if isinstance(k, str) and k in _OF_TYPE]
        if "number" in kinds and "integer" in kinds:
            kinds.remove("integer")
        if kinds:
            return kinds
        if "type" in node:
            self.lose("an unknown type is not enforced")
        for kind in ("object", "array", "string", "number"):
            if _OF_TYPE[kind] - {"format"} & node.keys():
                self.lose(f"a schema without a type is read as one of {kind}s")
                return [kind]
        return []

    def _any_of(self, node: dict[str, Any], branches: list[Any]) -> dict[str, Any]:
        beside = {k: v for k, v in node.items() if k != "anyOf" and k not in ANNOTATIONS}
        made: list[dict[str, Any]] = []
        for branch in branches:
            if branch is False:
                continue
            plain = self._folded(branch) if isinstance(branch, Mapping) else {}
            joined = merge(beside, plain) if beside else plain
            if joined is None:
                self.lose("keywords beside anyOf are not enforced in full")
                joined = plain
            made.append(self._described(self._restricted(joined), joined))
        flat: list[dict[str, Any]] = []
        for one in made:
            inner = one.get("anyOf")
            flat += inner if isinstance(inner, list) and len(one) == 1 else [one]
        if not flat:
            self.lose("a schema that nothing meets is not enforced")
            return self._any()
        nulls = [one for one in flat if one.get("type") == self._word("null")]
        if len(flat) == 2 and len(nulls) == 1 and "type" in flat[0] and "type" in flat[1]:
            return self._nullable(flat[0] if flat[1] is nulls[0] else flat[1])
        return flat[0] if len(flat) == 1 else {"anyOf": flat}

    def _enum(self, node: dict[str, Any]) -> dict[str, Any]:
        kinds = [k for k in _types(node) if k in _OF_TYPE]
        values = [v for v in _list(node["enum"]) if not kinds or _fits(v, kinds)]
        if _TYPED - {"format"} & node.keys():
            self.lose("keywords beside enum are not enforced")
        groups: dict[str, list[Any]] = {}
        for value in values:
            groups.setdefault(_kind(value), []).append(value)
        made = [self._one_of(kind, group) for kind, group in groups.items() if kind != "null"]
        if not made:
            if "null" not in groups:
                self.lose("enum is not enforced")
                return self._any()
            return {"type": self._word("null")}
        if "null" not in groups:
            return made[0] if len(made) == 1 else {"anyOf": made}
        if len(made) == 1:
            return self._nullable(made[0])
        return {"anyOf": [*made, {"type": self._word("null")}]}

    def _one_of(self, kind: str, values: list[Any]) -> dict[str, Any]:
        """Return a schema of values that all have one type."""
        shape: dict[str, Any] = {"type": self._word(kind)}
        if kind == "boolean":
            if len(values) < 2:
                self.lose("a fixed boolean is not enforced")
        elif kind in ("object", "array"):
            self.lose("enum of objects or arrays is not enforced")
            return self._typed(kind, {})
        elif "" in values:
            self.lose("enum with an empty text is not enforced")
        elif kind != "string" and self._openapi:
            self.lose("enum of numbers is not enforced")
        else:
            shape["enum"] = values
        return shape

    def _typed(self, kind: str, node: dict[str, Any]) -> dict[str, Any]:
        shape: dict[str, Any] = {"type": self._word(kind)}
        left = _OF_TYPE[kind] & node.keys()
        form = node.get("format")
        formats = _FORMATS.get(kind, frozenset())
        if not self._openapi and kind == "string":
            formats |= _DATES
        if isinstance(form, str) and form in formats:
            shape["format"] = form
        if kind == "object":
            self._object(node, shape)
        elif kind == "array":
            self._array(node, shape)
        elif kind in ("number", "integer"):
            self._bounds(kind == "integer", node, shape)
        elif kind == "string" and self._openapi:
            _copy(node, shape, "minLength", "maxLength", "pattern")
        for name in sorted(left - shape.keys()):
            if not _says_nothing(name, node[name]):
                self.lose(f"{name} is not enforced")
        return shape

    def _object(self, node: dict[str, Any], shape: dict[str, Any]) -> None:
        given = node.get("properties")
        properties = {}
        if isinstance(given, Mapping):
            for name, value in given.items():
                if value is False:
                    self.lose("a property that must be absent is not enforced")
                else:
                    properties[name] = self.schema(value)
            shape["properties"] = properties
        required = [n for n in _list(node.get("required")) if isinstance(n, str)]
        if required:
            known = [n for n in required if n in properties]
            if len(known) < len(required):
                self.lose("required names that are no properties are not enforced")
            shape["required"] = known
            if not known:
                del shape["required"]
                node = {k: v for k, v in node.items() if k != "required"}
        order = _list(node.get("propertyOrdering"))
        if order and all(isinstance(name, str) and name in properties for name in order):
            shape["propertyOrdering"] = order
        if self._openapi:
            _copy(node, shape, "minProperties", "maxProperties")
            return
        more = node.get("additionalProperties")
        if isinstance(more, bool):
            # Names that only a pattern allowed would be refused by a closed object.
            if more or not node.get("patternProperties"):
                shape["additionalProperties"] = more
        elif isinstance(more, Mapping) and not node.get("patternProperties"):
            shape["additionalProperties"] = self.schema(more)

    def _array(self, node: dict[str, Any], shape: dict[str, Any]) -> None:
        items, prefix = node.get("items"), _list(node.get("prefixItems"))
        if isinstance(items, list):  # tuples as they were written before draft 2020-12
            prefix, items = items, node.get("additionalItems")
            shape["items"] = None
        _copy(node, shape, "minItems", "maxItems")
        if prefix and items is False:
            shape["maxItems"] = min(len(prefix), shape.get("maxItems", len(prefix)))
            items = None
        shape.pop("items", None)
        if not self._openapi:
            if prefix:
                shape["prefixItems"] = [self.schema(v) for v in prefix]
            if isinstance(items, Mapping):
                shape["items"] = self.schema(items)
            elif items is False:
                shape["maxItems"] = 0
            return
        if prefix:
            self.lose("the order of prefixItems is not enforced")
        elif items is False:
            shape["maxItems"] = 0
        branches = [*prefix, *([items] if isinstance(items, Mapping) or not prefix else [])]
        if prefix and items is None and "maxItems" not in shape:
            branches.append(True)
        made = [self.schema(True if branch in (None, False) else branch) for branch in branches]
        unique = [one for i, one in enumerate(made) if one not in made[:i]]
        shape["items"] = unique[0] if len(unique) == 1 else {"anyOf": _flat(unique)}

    def _bounds(self, whole: bool, node: dict[str, Any], shape: dict[str, Any]) -> None:
        for name, other, pick, step in (
            ("minimum", "exclusiveMinimum", max, 1),
            ("maximum", "exclusiveMaximum", min, -1),
        ):
            limit, beyond = node.get(name), node.get(other)
            if beyond is True:  # draft 4: a flag beside the limit
                beyond, limit = limit, None
            limits: list[int | float] = []
            if _is_number(limit):
                exact = whole and abs(limit) < _EXACT
                limits.append(_round(limit, step) if exact else limit)
            if _is_number(beyond):
                if whole and abs(beyond) < _EXACT:
                    edge = math.floor(beyond) if step == 1 else math.ceil(beyond)
                    limits.append(edge + step)
                else:
                    self.lose(f"{other} is read as {name}")
                    limits.append(beyond)
            if limits:
                shape[name] = pick(limits)

    def _nullable(self, shape: dict[str, Any]) -> dict[str, Any]:
        if self._openapi:
            if "type" in shape:
                return {**shape, "nullable": True}
        elif isinstance(shape.get("type"), str) and "enum" not in shape:
            return {**shape, "type": [shape["type"], "null"]}
        return {"anyOf": [shape, {"type": self._word("null")}]}

    def _any(self) -> dict[str, Any]:
        if not self._openapi:
            return {}
        self.lose("a value of any type may not hold nested arrays")
        kinds = ("STRING", "NUMBER", "BOOLEAN", "OBJECT", "NULL")
        plain = {"type": "ARRAY", "items": {"type": "STRING"}}
        return {"anyOf": [*({"type": kind} for kind in kinds), plain]}

    def _described(self, shape: dict[str, Any], node: Json) -> dict[str, Any]:
        """Write title and description; what else describes becomes part of the latter."""
        said = []
        for name in ("format", "default", "example", "examples"):
            value = node.get(name)
            if name not in node or (name in shape and name == "format"):
                continue
            try:
                text = value if isinstance(value, str) else orjson.dumps(value).decode()
            except (TypeError, ValueError, RecursionError):
                text = ""
            if 0 < len(text) <= _NOTE_LIMIT:
                said.append(f"{name}: {text}")
            elif text:
                self.lose(f"{name} is too long to be told")
        told = node.get("description")
        told = told if isinstance(told, str) else ""
        if said:
            told = f"{told} ({'; '.join(said)})" if told else "; ".join(said)
        title = node.get("title")
        extra = {"title": title} if isinstance(title, str) and title else {}
        if told:
            extra["description"] = told
        if not extra:
            return shape
        if self._openapi and "anyOf" in shape:
            # Nothing may stand beside anyOf there.
            shape["anyOf"] = [
                one if one.get("type") == "NULL" else {**extra, **one} for one in shape["anyOf"]
            ]
            return shape
        return {**extra, **shape}

    def _word(self, kind: str) -> str:
        return kind.upper() if self._openapi else kind


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _types(node: Json) -> list[str]:
    kinds = node.get("type")
    return [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if type(kind) is str]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _round(limit: float, step: int) -> int:
    return math.ceil(limit) if step == 1 else math.floor(limit)


def _copy(node: dict[str, Any], shape: dict[str, Any], *names: str) -> None:
    for name in names:
        value = node.get(name)
        if isinstance(value, str) if name == "pattern" else _is_number(value):
            shape[name] = value


def _flat(branches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for branch in branches:
        made += branch["anyOf"] if set(branch) == {"anyOf"} else [branch]
    return made


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "object" if isinstance(value, Mapping) else "array"


def _fits(value: Any, kinds: list[Any]) -> bool:
    kind = _kind(value)
    if kind in kinds or (kind == "integer" and "number" in kinds):
        return True
    return kind == "number" and "integer" in kinds and bool(float(value).is_integer())


def _same(one: Any, other: Any) -> bool:
    return _kind(one) == _kind(other) and bool(one == other)


def _says_nothing(name: str, value: Any) -> bool:
    """Tell whether a keyword restricts nothing, or was told otherwise."""
    if name == "format":
        return True  # told in the description
    if name in ("exclusiveMinimum", "exclusiveMaximum"):
        return isinstance(value, bool) or _is_number(value)
    if name in ("minLength", "minItems", "minProperties"):
        return bool(value == 0)
    if name in ("items", "additionalItems", "prefixItems", "required"):
        return True  # read together with their neighbours
    if name in ("properties", "patternProperties", "dependentRequired", "dependentSchemas"):
        return bool(value == {})
    if name == "additionalProperties":
        return bool(value is True or value == {})
    return value is False if name == "uniqueItems" else False


def _disjoint(branches: list[Any]) -> bool:
    """Tell whether no value can meet two of the branches: their types or a tag differ."""
    if not all(isinstance(branch, Mapping) for branch in branches):
        return False
    kinds = [k for branch in branches for k in _types(branch) or [""]]
    if "" not in kinds and len(set(kinds)) == len(kinds):
        return not {"number", "integer"} <= set(kinds)
    tags: dict[str, list[Any]] = {}
    for branch in branches:
        properties = branch.get("properties")
        if "object" not in _types(branch) or not isinstance(properties, Mapping):
            return False
        for name in _list(branch.get("required")):
            inner = properties.get(name) if isinstance(name, str) else None
            if isinstance(inner, Mapping):
                held = [inner["const"]] if "const" in inner else _list(inner.get("enum"))
                tags.setdefault(name, []).append([str(v) for v in held])
    for held in tags.values():
        flat = [v for values in held for v in values]
        if len(held) == len(branches) and all(held) and len(set(flat)) == len(flat):
            return True
    return False
