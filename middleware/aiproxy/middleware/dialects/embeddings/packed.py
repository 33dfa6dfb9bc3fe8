"""Vectors as base64 of little-endian 32-bit floats, the form OpenAI's SDK asks for."""

import sys
from array import array
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Sequence
from math import isfinite

from aiproxy.middleware.dialects.canonical import MalformedReply


def pack(vector: Sequence[float]) -> str:
    """Return the base64 text of ``vector``.

    Raises:
        MalformedReply: a number has no place in 32 bits.
    """
    try:
        floats = array("f", vector)
    except (OverflowError, TypeError):
        raise MalformedReply("a number of a vector is too large") from None
    if not all(map(isfinite, floats)):
        raise MalformedReply("a number of a vector is too large")
    if sys.byteorder == "big":
        floats.byteswap()
    return b64encode(floats.tobytes()).decode("ascii")


def unpack(text: str, path: str) -> Sequence[float]:
    """Return the vector of a base64 text or raise ``MalformedReply`` naming ``path``."""
    floats = array("f")
    try:
        floats.frombytes(b64decode(text, validate=True))
    except (Error, ValueError):
        raise MalformedReply(f"{path} is no base64 of 32-bit numbers") from None
    if not floats:
        raise MalformedReply(f"{path} is empty")
    if sys.byteorder == "big":
        floats.byteswap()
    if not all(map(isfinite, floats)):
        raise MalformedReply(f"{path} holds something that is no number")
    return floats.tolist()
