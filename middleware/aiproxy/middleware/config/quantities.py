"""Durations and sizes as configurations write them: ``5s``, ``500ms``, ``10MB``, ``1.5GiB``.

A bare number is refused, because nothing says whether ``30`` means seconds or milliseconds.
"""

import math
import re
from decimal import Decimal
from typing import Final

_SECONDS: Final = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_BYTES: Final = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_QUANTITY: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([A-Za-z]+)")


def parse_duration(text: str) -> float:
    """Return the duration ``text`` in seconds: digits, at most one point, then ms, s, m or h.

    Raises:
        ValueError: any other form; the message says what was expected.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in _SECONDS:
        raise ValueError("expected a duration with a unit, such as 500ms, 5s, 2m or 1h")
    return float(Decimal(found[1]) * _SECONDS[found[2]])


def parse_size(text: str) -> int:
    """Return the size ``text`` in bytes, a fraction of a byte dropped.

    KB, MB and GB are decimal; KiB, MiB and GiB are binary.

    Raises:
        ValueError: any other form; the message says what was expected.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in _BYTES:
        raise ValueError("expected a size with a unit, such as 512B, 10MB or 1GiB")
    return math.floor(Decimal(found[1]) * _BYTES[found[2]])
