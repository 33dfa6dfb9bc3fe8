"""A small picture, written as PNG without a library (W3C PNG, third edition)."""

import struct
import zlib
from base64 import b64encode
from typing import Final

_SIDE: Final = 64
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RED, _GREY = bytes((220, 30, 30)), bytes((128, 128, 128))
_EIGHT_BITS, _RGB = 8, 2


def square(width: int) -> bytes:
    """Return the PNG of a red square, ``width`` pixels wide, in the middle of a grey page."""
    first = (_SIDE - width) // 2
    inside = range(first, first + width)
    lines = [
        b"\0" + b"".join(_RED if y in inside and x in inside else _GREY for x in range(_SIDE))
        for y in range(_SIDE)
    ]
    head = struct.pack(">IIBBBBB", _SIDE, _SIDE, _EIGHT_BITS, _RGB, 0, 0, 0)
    pixels = zlib.compress(b"".join(lines))
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def data_url(png: bytes) -> str:
    """Return a PNG as an address that holds it whole."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
