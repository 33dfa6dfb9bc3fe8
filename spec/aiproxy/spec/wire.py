"""The reference reading of one X-AI field value.

Slow and plain, for tests, the conformance suite and documentation; whoever serves requests has a
reader of their own and is held equal to this one.
"""

import json
from typing import Any, Final

from aiproxy.spec.faults import Fault, Invalid
from aiproxy.spec.headers import HEADERS, HeaderField
from aiproxy.spec.validation import matches, validate

_OWS: Final = " \t"


def read_field(name: str, raw: str) -> Any:
    """Return the value of the field ``name`` whose value on the wire is ``raw``.

    Enumerated members come back in their canonical spelling, lists without empty and repeated
    members, decimals as floats, JSON parsed. Several lines of a list field are joined with commas
    before this.

    Raises:
        Invalid: malformed, out of bounds, or not a member of a closed set; the path is the name.
        KeyError: no such field.
    """
    field = HEADERS[name]
    text = raw.strip(_OWS)
    if len(raw.encode()) > field.max_octets:
        raise _refused(field, f"expected at most {field.max_octets} octets", "maxLength")
    if not matches(field.pattern, text):
        raise _refused(field, "expected a value of another form", "pattern")
    value = _parse(field, text)
    try:
        validate(value, field.schema_name)
    except Invalid as error:
        first = error.errors[0]
        raise _refused(field, first.message, first.keyword) from None
    return value


def _parse(field: HeaderField, text: str) -> Any:
    match field.wire:
        case "token":
            return _canonical(field, text)
        case "csv":
            items = (item.strip(_OWS) for item in text.split(","))
            return list(dict.fromkeys(_canonical(field, item) for item in items if item))
        case "decimal":
            return float(text)
        case "integer":
            return int(text)
        case "boolean":
            return text == "true"
    try:
        return json.loads(text)
    except ValueError:
        raise _refused(field, "expected JSON", "type") from None


def _canonical(field: HeaderField, item: str) -> str:
    """Return ``item`` as the registry spells it, or unchanged when the registry does not know it."""
    folded = item.lower()
    spelt = {value.lower(): value for value in field.values}
    also = {alias.lower(): value for alias, value in field.aliases.items()}
    return spelt.get(folded) or also.get(folded) or item


def _refused(field: HeaderField, message: str, keyword: str) -> Invalid:
    return Invalid(field.schema_name, (Fault(field.name, message, keyword),))
