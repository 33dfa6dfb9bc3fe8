"""Facts: what a reader understood of a body, as tuples of words in the order of the wire.

Readers are written from the providers' public references, not from our dialect modules, so that
a mistake made twice there is not made a third time here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Fact: TypeAlias = tuple[str, ...]
Facts: TypeAlias = Iterator[Fact]
Json: TypeAlias = Mapping[str, Any]


def plain(value: Any) -> str:
    """One spelling for a JSON value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def arguments(value: Any) -> str:
    """Arguments, a JSON string or an object, in one spelling."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, sort_keys=True)


def rows(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def members(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def scalars(body: Json, names: Mapping[str, str]) -> Facts:
    """A fact for each member of ``body`` that ``names`` gives a name."""
    for name, fact in names.items():
        if body.get(name) is not None:
            yield (fact, plain(body[name]))


def stops(value: Any) -> Facts:
    for one in [value] if isinstance(value, str) else rows(value):
        yield ("stop", one)


def picture(url: str) -> Fact:
    """An image by URL or as a data URL."""
    if url.startswith("data:"):
        media, _, data = url.removeprefix("data:").partition(";base64,")
        return ("image", media, data)
    return ("image", url)


def document(data: str) -> Fact:
    """A file's base64, without the data URL around it."""
    return ("file", data.rpartition(";base64,")[2])


def schema_facts(kind: str, name: str, schema: Any) -> Facts:
    """The properties of an object schema and what they are told to be, ``$ref`` followed."""
    top = members(schema)
    definitions = members(top.get("$defs"))

    def followed(node: Any) -> Json:
        reference = members(node).get("$ref", "")
        return (
            members(definitions.get(reference.rpartition("/")[2])) if reference else members(node)
        )

    for prop, node in members(followed(top).get("properties")).items():
        inner = followed(node)
        told = inner.get("type")
        yield (kind, name, prop, plain(told).lower() if isinstance(told, str) else "?")
        if "enum" in inner:
            yield (f"{kind}_enum", name, prop, plain(inner["enum"]))
    if top.get("required"):
        yield (f"{kind}_required", name, plain(sorted(rows(top["required"]))))
