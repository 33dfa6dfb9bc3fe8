"""The registry of X-AI header fields, read from ``schemas/headers/``.

Each file describes the parsed value and carries, under ``x-aiproxy-header``, what the value looks
like on the wire. Reading a field value is in ``wire``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from aiproxy.spec.loading import names, schema, suggest

_FOLDER: Final = "headers/"


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One header field.

    ``wire`` is one of token, csv, decimal, integer, boolean, json; ``role`` one of control,
    constraint, preference, hint, workflow, transparency. ``values`` lists the canonical members:
    all of them when ``closed``, otherwise the known ones. ``aliases`` maps other spellings to them;
    both compare without regard to letter case. ``pattern`` is what the field value must match once
    the white space around it is gone, ``max_octets`` its bound before that. ``occurs`` says where
    the draft has the field: table2, table3, iana, figures. ``accepted`` and ``refused`` are
    examples in wire form.
    """

    name: str
    directions: frozenset[str]
    wire: str
    role: str
    values: tuple[str, ...]
    closed: bool
    aliases: Mapping[str, str]
    max_octets: int
    default: Any
    source: str
    requirements: tuple[str, ...]
    schema_name: str
    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    description: str
    pattern: str
    occurs: tuple[str, ...]


class HeaderRegistry(Mapping[str, HeaderField]):
    """All header fields by name; iteration gives the canonical spellings, look-up takes any case."""

    @cached_property
    def _fields(self) -> dict[str, HeaderField]:
        return {field.name: field for field in map(_read, names()) if field is not None}

    @cached_property
    def _folded(self) -> dict[str, HeaderField]:
        return {name.lower(): field for name, field in self._fields.items()}

    def __getitem__(self, name: str) -> HeaderField:
        field = self._folded.get(name.lower())
        if field is None:
            raise KeyError(f"no X-AI header {name!r}{suggest(name, tuple(self._fields))}")
        return field

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._folded

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


HEADERS: Final = HeaderRegistry()


def _read(name: str) -> HeaderField | None:
    if not name.startswith(_FOLDER):
        return None
    document = schema(name)
    wire = document["x-aiproxy-header"]
    item = document.get("items", document)
    return HeaderField(
        name=wire["name"],
        directions=frozenset(wire["directions"]),
        wire=wire["wire"],
        role=wire["role"],
        values=tuple(item.get("enum", wire.get("known", ()))),
        closed=wire["closed"],
        aliases=MappingProxyType(wire["aliases"]),
        max_octets=wire["max_octets"],
        default=wire["default"],
        source=wire["source"],
        requirements=tuple(wire["requirements"]),
        schema_name=name,
        accepted=tuple(wire["accepted"]),
        refused=tuple(wire["refused"]),
        description=document["description"],
        pattern=wire["pattern"],
        occurs=tuple(wire["occurs"]),
    )
