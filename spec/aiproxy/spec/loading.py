"""Finds and reads the JSON Schema documents below ``schemas/``.

A document's name is its path below that folder without ``.json`` (``headers/x-ai-max-latency``);
its ``$id`` is ``urn:aiproxy:schema:<name>``. Compiling them is left to ``validation``.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

URN: Final = "urn:aiproxy:schema:"
_FOLDER: Final = Path(__file__).parent / "schemas"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all schemas, sorted."""
    files = _FOLDER.rglob("*.json")
    return tuple(sorted(file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files))


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the parsed schema ``name``; the same object each time, not to be changed.

    Raises:
        KeyError: no such schema; the message names close matches.
    """
    if name not in names():
        raise KeyError(f"no schema {name!r}{suggest(name, names())}")
    document: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_bytes())
    return document


def by_uri(uri: str) -> dict[str, Any]:
    """Return the schema whose ``$id`` is ``uri`` (``urn:aiproxy:schema:<name>``).

    Raises:
        KeyError: not one of our identifiers, or no such schema.
    """
    bare = uri.partition("#")[0]
    if not bare.startswith(URN):
        raise KeyError(f"{uri!r} is not below {URN}")
    return schema(bare.removeprefix(URN))


def suggest(name: str, known: tuple[str, ...]) -> str:
    """Return ``; did you mean a, b?`` for the members of ``known`` close to ``name``, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else ""
