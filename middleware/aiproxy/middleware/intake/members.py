"""Changing single top-level members of a JSON object without re-serialising the rest.

Every value that is not changed keeps its exact bytes: number spelling, escapes, order inside
objects. Only the white space between top-level members is lost.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

_DECODE: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_ENCODE: Final = msgspec.json.Encoder().encode


def patch(raw: bytes, changes: Mapping[str, Any], *, remove: frozenset[str] = frozenset()) -> bytes:
    """Return the object ``raw`` with members replaced where they stand, added or removed."""
    members = _DECODE(raw)
    gone = [name for name in remove if members.pop(name, None) is not None] if remove else ()
    for name, value in changes.items():
        if name not in gone:
            members[name] = msgspec.Raw(orjson.dumps(value))
    return _ENCODE(members)


def too_deep(fault: Exception) -> bool:
    """Tell whether a document could be read, but is nested too deeply to be written again."""
    if isinstance(fault, RecursionError):
        return True
    return isinstance(fault, TypeError) and str(fault).startswith("Recursion limit")


def append(raw: bytes, name: str, value: Any) -> bytes:
    """Return a non-empty object with one member added at its end, without parsing it."""
    end = raw.rindex(b"}")
    return b"%b,%b:%b}" % (raw[:end].rstrip(), orjson.dumps(name), orjson.dumps(value))
