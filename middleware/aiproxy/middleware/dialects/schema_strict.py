"""JSON Schema brought to strict mode: every object closed, every property required."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Json, Loss
from aiproxy.middleware.dialects.losses import note
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.schema_refs import (
    ANNOTATIONS,
    MAX_DEPTH,
    SchemaRefused,
    merge,
)

#: What strict mode takes.
STRICT_KEYWORDS: Final = words(
    "type title description enum const anyOf $ref $defs properties required additionalProperties "
    "items minItems maxItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf pattern "
    "format"
)
_SILENT: Final = words("$schema $id $comment $anchor deprecated readOnly writeOnly examples")
_OPTIONAL: Final = "optional properties come as null"


def closed(schema: Json) -> tuple[dict[str, Any], list[Loss]]:
    """Return ``schema`` for strict mode and what it no longer says.

    Objects take no further properties, every property is required, and an optional one may be
    null instead of absent (declared). References stay; definitions move to ``$defs``.

    Raises:
        SchemaRefused: the schema is nested too deeply.
    """
    closing = _Closing()
    made = closing.schema(schema, 0)
    return made, closing.losses


class _Closing:
    def __init__(self) -> None:
        self.losses: list[Loss] = []

    def _lose(self, detail: str) -> None:
        note(self.losses, [Loss("schema", detail)])

    def schema(self, node: Any, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise SchemaRefused("the schema is nested too deeply")
        if not isinstance(node, Mapping):
            if node is False:
                self._lose("a schema that nothing meets is not enforced")
            return {}
        plain = self._folded(node, depth)
        made: dict[str, Any] = {}
        for name, value in plain.items():
            if name in ("properties", "required", "additionalProperties"):
                continue
            if name == "items" and isinstance(value, Mapping | bool):
                made[name] = self.schema(value, depth + 1)
            elif name == "anyOf" and isinstance(value, list):
                made[name] = [self.schema(branch, depth + 1) for branch in value]
            elif name in ("$defs", "definitions") and isinstance(value, Mapping):
                held = {k: self.schema(v, depth + 1) for k, v in value.items()}
                made["$defs"] = {**made.get("$defs", {}), **held}
            elif name == "$ref" and isinstance(value, str):
                made[name] = value.replace("#/definitions/", "#/$defs/", 1)
            elif name in STRICT_KEYWORDS:
                made[name] = value
            elif name == "default":
                self._lose("default is not told")
            elif name not in _SILENT:
                known = name.isascii() and name.isalpha() and len(name) < 24
                self._lose(f"{name if known else 'an unknown keyword'} is not enforced")
        if self._is_object(plain):
            self._close(plain, made, depth)
        return made

    def _folded(self, node: Json, depth: int) -> dict[str, Any]:
        made = {k: v for k, v in node.items() if k not in ("allOf", "oneOf")}
        for branch in node["allOf"] if isinstance(node.get("allOf"), list) else ():
            if depth > MAX_DEPTH:
                raise SchemaRefused("the schema is nested too deeply")
            inner = self._folded(branch, depth + 1) if isinstance(branch, Mapping) else {}
            joined = None if "$ref" in inner and made.keys() - ANNOTATIONS else merge(made, inner)
            if joined is None:
                self._lose("allOf is not enforced in full")
            else:
                made = joined
        if isinstance(node.get("oneOf"), list):
            if "anyOf" in made:
                self._lose("oneOf is not enforced")
            else:
                self._lose("oneOf is read as anyOf")
                made["anyOf"] = node["oneOf"]
        return made

    @staticmethod
    def _is_object(node: Json) -> bool:
        kinds = node.get("type")
        if "properties" in node or "additionalProperties" in node:
            return True
        return kinds == "object" or (isinstance(kinds, list) and "object" in kinds)

    def _close(self, node: Json, made: dict[str, Any], depth: int) -> None:
        if node.get("additionalProperties") is not False:
            self._lose("objects take no further properties")
        given = node.get("properties")
        given = given if isinstance(given, Mapping) else {}
        required = node.get("required")
        required = [n for n in required if type(n) is str] if isinstance(required, list) else []
        properties = {}
        for name, value in given.items():
            inner = self.schema(value, depth + 1)
            if name not in required:
                inner = self._or_null(inner)
                self._lose(_OPTIONAL)
            properties[name] = inner
        if any(name not in given for name in required):
            self._lose("required names that are no properties are not enforced")
        made["properties"] = properties
        made["required"] = list(properties)
        made["additionalProperties"] = False

    @staticmethod
    def _or_null(inner: dict[str, Any]) -> dict[str, Any]:
        """Return a schema that takes null as well."""
        kinds = inner.get("type")
        if not ({"enum", "const", "$ref", "anyOf"} & inner.keys()):
            if isinstance(kinds, str):
                return inner if kinds == "null" else {**inner, "type": [kinds, "null"]}
            if isinstance(kinds, list):
                return inner if "null" in kinds else {**inner, "type": [*kinds, "null"]}
            if not inner.keys() - {"title", "description"}:
                return inner
        branches = inner.get("anyOf")
        if isinstance(branches, list) and not (inner.keys() - {"anyOf", "title", "description"}):
            if any(b.get("type") == "null" for b in branches):
                return inner
            return {**inner, "anyOf": [*branches, {"type": "null"}]}
        return {"anyOf": [inner, {"type": "null"}]}
