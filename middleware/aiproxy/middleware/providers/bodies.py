"""Answer bodies: when one is streamed, and undoing a content coding nobody asked for.

We ask for ``identity``. A provider that compresses all the same is read, within the bound of the
call, for gzip and deflate; any other coding is a protocol error.
"""

import zlib
from typing import Final

from ..effects import Call, Headers

_EVENT_STREAM: Final = "text/event-stream"
_PLAIN: Final = frozenset({"", "identity"})
_ZLIB: Final = frozenset({"gzip", "x-gzip", "deflate"})
#: Most that one piece of a compressed stream may grow to before it is handed on.
_PIECE_BYTES: Final = 1 << 20


class BodyUnreadable(Exception):
    """The body is in a coding that is unknown, or is not what its coding says."""


class BodyTooLarge(Exception):
    """The body, decompressed, is above its bound."""


def opens_stream(call: Call, status: int, headers: Headers) -> bool:
    """Tell whether this head starts a stream that is handed on as it arrives."""
    if not call.stream or not 200 <= status < 300:
        return False
    content_type = field(headers, "content-type")
    return content_type.partition(";")[0].strip().lower() == _EVENT_STREAM


def field(headers: Headers, name: str) -> str:
    """Return the first value of a header (lower-case ``name``), or ``""``."""
    for key, value in headers:
        if key == name:
            return value
    return ""


def inflater(headers: Headers) -> "Inflater | None":
    """Return what decodes this answer's body, ``None`` when it is sent as it is.

    Raises:
        BodyUnreadable: a content coding other than identity, gzip or deflate.
    """
    coding = field(headers, "content-encoding").strip().lower()
    if coding in _PLAIN:
        return None
    if coding in _ZLIB:
        return Inflater()
    raise BodyUnreadable("a content coding that was not asked for")


def without_coding(headers: Headers) -> Headers:
    """Return the headers that still hold once the body is decompressed."""
    return tuple(pair for pair in headers if pair[0] not in ("content-encoding", "content-length"))


class Inflater:
    """Decompresses gzip or zlib (``deflate``; raw deflate too) in bounded pieces."""

    __slots__ = ("_head", "_inflate", "_tail")

    def __init__(self) -> None:
        self._inflate: zlib._Decompress | None = None
        self._head = b""
        self._tail = b""

    @property
    def pending(self) -> bool:
        """Whether ``feed(b"")`` would give more."""
        return bool(self._tail)

    def feed(self, data: bytes, limit: int = _PIECE_BYTES) -> bytes:
        """Return at most ``limit`` bytes; what is left over stays for the next call.

        Raises:
            BodyUnreadable: not gzip, zlib or deflate data.
        """
        data = self._tail + data
        self._tail = b""
        if self._inflate is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return b""
            self._head = b""
            self._inflate = zlib.decompressobj(_window(data))
        try:
            plain = self._inflate.decompress(data, limit)
        except zlib.error as error:
            raise BodyUnreadable("the body is not what its content coding says") from error
        self._tail = self._inflate.unconsumed_tail
        return plain

    def finish(self) -> None:
        """Check that the compressed data is complete.

        Raises:
            BodyUnreadable: it ended early.
        """
        if self._head or (self._inflate is not None and not self._inflate.eof):
            raise BodyUnreadable("the compressed body ended early")

    def whole(self, body: bytes, limit: int) -> bytes:
        """Return a complete body decompressed.

        Raises:
            BodyTooLarge: above ``limit`` bytes.
            BodyUnreadable: bad or incomplete data.
        """
        plain = self.feed(body, limit + 1)
        if len(plain) > limit:
            raise BodyTooLarge
        self.finish()
        return plain


def _window(start: bytes) -> int:
    """Return zlib's ``wbits`` for gzip, zlib or raw deflate, told apart by the first two bytes."""
    if start[:2] == b"\x1f\x8b":
        return 16 + zlib.MAX_WBITS
    zlib_head = start[0] & 0x0F == 8 and (start[0] << 8 | start[1]) % 31 == 0
    return zlib.MAX_WBITS if zlib_head else -zlib.MAX_WBITS
