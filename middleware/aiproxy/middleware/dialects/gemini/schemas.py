"""Schemas out, in the field that says most of them, and in, as plain JSON Schema."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects.canonical import Json, Loss, Untranslatable
from aiproxy.middleware.dialects.reading import words
from aiproxy.middleware.dialects.schema_gemini import for_gemini, for_gemini_json
from aiproxy.middleware.dialects.schema_refs import MAX_DEPTH, SchemaRefused

_CACHED_BYTES: Final = 16_384
_NUMBERS: Final = words("minItems maxItems minLength maxLength minProperties maxProperties")
_KEPT: Final = words("title description format pattern default enum required minimum maximum")


def schema_out(schema: Json) -> tuple[bool, Json, tuple[Loss, ...]]:
    """Return whether the JSON Schema field takes ``schema`` (else the OpenAPI one), the schema
    for it and what that no longer says. The result is shared and must not be changed.

    Raises:
        Untranslatable: no field can carry it.
    """
    try:
        written = orjson.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        raise Untranslatable("schema", "the schema is no JSON") from None
    try:
        if len(written) <= _CACHED_BYTES:
            return _remembered(written)
        return _chosen(schema)
    except SchemaRefused as refused:
        raise Untranslatable("schema", refused.reason) from None


@lru_cache(maxsize=256)
def _remembered(written: bytes) -> tuple[bool, Json, tuple[Loss, ...]]:
    return _chosen(orjson.loads(written))


def _chosen(schema: Json) -> tuple[bool, Json, tuple[Loss, ...]]:
    made, losses = for_gemini_json(schema)
    if losses:
        other, fewer = for_gemini(schema)
        if len(fewer) < len(losses):
            return False, other, tuple(fewer)
    return True, made, tuple(losses)


def schema_in(schema: Any, depth: int = 0) -> dict[str, Any]:
    """Return JSON Schema for one of Google's OpenAPI schemas."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return {}
    made: dict[str, Any] = {}
    kind = schema.get("type")
    if isinstance(kind, str) and kind.upper() != "TYPE_UNSPECIFIED":
        made["type"] = kind.lower()
    for name, value in schema.items():
        if name in _NUMBERS and isinstance(value, str) and value.isdecimal():
            made[name] = int(value)  # 64-bit numbers are strings in Google's JSON
        elif name in _KEPT or name in _NUMBERS:
            made[name] = value
    if made.get("format") == "enum":
        del made["format"]
    if made.get("type") in ("integer", "number") and isinstance(made.get("enum"), list):
        made["enum"] = [_numbered(v) for v in made["enum"]]
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        made["properties"] = {k: schema_in(v, depth + 1) for k, v in properties.items()}
    if "items" in schema:
        made["items"] = schema_in(schema["items"], depth + 1)
    branches = schema.get("anyOf") or schema.get("any_of")
    if isinstance(branches, list):
        made["anyOf"] = [schema_in(branch, depth + 1) for branch in branches]
    if schema.get("nullable") is True:
        if "enum" in made and isinstance(made["enum"], list):
            made["enum"] = [*made["enum"], None]
        if "type" in made:
            made["type"] = [made["type"], "null"]
        elif "anyOf" in made:
            made["anyOf"].append({"type": "null"})
    return made


def _numbered(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if number.is_integer() else number
