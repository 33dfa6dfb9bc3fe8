"""The draft's figures, the golden exchanges and the broken originals, as data.

A name is the path below ``vectors/`` without ``.json``: ``figures/fig-01``, ``golden/chat``,
``broken/fig-01-closers``. Their shape is the schema ``vectors``.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from aiproxy.spec.loading import suggest

_FOLDER: Final = Path(__file__).parent / "vectors"


@cache
def vectors(prefix: str = "") -> tuple[str, ...]:
    """Return the names of all vectors that start with ``prefix``, sorted."""
    files = _FOLDER.rglob("*.json")
    found = (file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files)
    return tuple(sorted(name for name in found if name.startswith(prefix)))


@cache
def vector(name: str) -> dict[str, Any]:
    """Return the vector ``name``; the same object each time, not to be changed.

    Raises:
        KeyError: no such vector; the message names close matches.
    """
    if name not in vectors():
        raise KeyError(f"no vector {name!r}{suggest(name, vectors())}")
    document: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_bytes())
    return document
