"""JSON Schemas as this API enforces them: closed objects, few keywords, no recursion.

A keyword it cannot enforce moves into the description, so that the model still reads it.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.dialects.anthropic.vocabulary import json_text
from aiproxy.middleware.dialects.canonical import Json
from aiproxy.middleware.dialects.reading import words

_KEPT: Final = words("type enum const $ref title description default required")
_FORMATS: Final = words("date-time time date duration email hostname uri ipv4 ipv6 uuid")
#: Says nothing about an instance.
_QUIET: Final = words("$schema $id $comment additionalProperties examples deprecated")
_DEPTH: Final = 64


def object_schema(schema: Json | None) -> dict[str, Any]:
    """Return a tool's input schema; the API wants ``type: object`` at its root."""
    if not schema:
        return {"type": "object", "properties": {}}
    return dict(schema) if schema.get("type") == "object" else {**schema, "type": "object"}


def is_object(schema: Json) -> bool:
    """Tell whether a schema describes an object, as far as its root says."""
    return schema.get("type") == "object" or (
        schema.get("type") is None and isinstance(schema.get("properties"), Mapping)
    )


def closed(schema: Json) -> tuple[dict[str, Any] | None, set[str]]:
    """Return the schema in the form that is enforced and the keywords that are only told.

    The first is ``None`` when the schema is recursive, open on purpose (a map of free keys), or
    too deep.
    """
    told: set[str] = set()
    if _recursive(schema):
        return None, told
    try:
        return _close(schema, told, 0), told
    except _Unenforceable:
        return None, told


class _Unenforceable(Exception):
    pass


def _close(schema: Json, told: set[str], depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        raise _Unenforceable
    made: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _KEPT:
            made[name] = value
        elif name in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            made[name] = {k: _inner(v, told, depth) for k, v in value.items()}
        elif name == "items" and isinstance(value, Mapping):
            made[name] = _close(value, told, depth + 1)
        elif name in ("anyOf", "oneOf", "allOf") and isinstance(value, list | tuple):
            target = "anyOf" if name == "oneOf" else name
            made[target] = [_inner(v, told, depth) for v in value]
        elif (name == "minItems" and value in (0, 1)) or (
            name == "format" and isinstance(value, str) and value in _FORMATS
        ):
            made[name] = value
        elif name not in _QUIET:
            rest[name] = value
    kind = schema.get("type")
    if kind == "object" or "properties" in made or (isinstance(kind, list) and "object" in kind):
        if not made.get("properties") and schema.get("additionalProperties") not in (False, None):
            raise _Unenforceable  # a map: closing it would forbid every member
        if "allOf" in made:
            raise _Unenforceable  # each branch would be closed against the other's members
        made["additionalProperties"] = False
        if isinstance(schema.get("additionalProperties"), Mapping):
            rest["additionalProperties"] = schema["additionalProperties"]
    if rest:
        told.update(rest)
        before = made.get("description")
        rules = json_text(rest)
        made["description"] = f"{before}\n\n{rules}" if isinstance(before, str) else rules
    return made


def _inner(value: object, told: set[str], depth: int) -> Any:
    if isinstance(value, Mapping):
        return _close(value, told, depth + 1)
    if value is True:
        raise _Unenforceable
    return value


def _recursive(schema: Json) -> bool:
    """Tell whether a ``$ref`` leads back to itself (or anywhere but into this document)."""
    if not _references(schema):
        return False
    definitions: dict[str, object] = {"#": schema}
    for holder in ("$defs", "definitions"):
        inner = schema.get(holder)
        if isinstance(inner, Mapping):
            definitions.update({f"#/{holder}/{name}": value for name, value in inner.items()})
    links = {
        name: _references(value, definitions=name == "#") for name, value in definitions.items()
    }
    done: set[str] = set()
    for start, targets in links.items():
        path: list[tuple[str, list[str]]] = [(start, list(targets))]
        open_names = {start}
        while path:
            name, pending = path[-1]
            if not pending:
                path.pop()
                open_names.discard(name)
                done.add(name)
                continue
            following = pending.pop()
            if following in open_names or following not in links:
                return True
            if following not in done:
                open_names.add(following)
                path.append((following, list(links[following])))
    return False


def _references(value: object, definitions: bool = False) -> set[str]:
    """Return the targets of the ``$ref`` inside; those of the definitions are looked at apart."""
    found: set[str] = set()
    stack = [value]
    first = True
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            target = item.get("$ref")
            if isinstance(target, str):
                found.add(target)
            for name, inner in item.items():
                if not (first and definitions and name in ("$defs", "definitions")):
                    stack.append(inner)
        elif isinstance(item, list | tuple):
            stack.extend(item)
        first = False
    return found
