"""Reads HTTP/1 requests from a stream, keeping every byte a check may want to see."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

MOST_BYTES: Final = 16 * 1024 * 1024  # of a body; the rest is read and thrown away
_MOST_HEAD: Final = 256 * 1024
_PIECE: Final = 65536


class Malformed(Exception):
    """No HTTP/1 request. ``seen`` are the bytes read so far."""

    def __init__(self, reason: str, seen: bytes = b"") -> None:
        super().__init__(reason)
        self.seen = seen


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``headers`` keep order and repetition; names are in lower case.

    ``target`` is the request target as received; ``at`` the time of its first byte.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)
    version: str = "HTTP/1.1"
    at: float = 0.0

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; of a repeated one the last."""
        pairs = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in pairs.items()}

    def header(self, name: str) -> str:
        """Return the first field ``name`` (lower case), or an empty string."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def fields(self) -> dict[str, str]:
        """The headers as a mapping; values of a repeated field are joined by a comma."""
        joined: dict[str, str] = {}
        for name, value in self.headers:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined

    @property
    def stays(self) -> bool:
        """Whether the connection is kept after the answer."""
        wish = self.header("connection").lower()
        return "close" not in wish and (self.version != "HTTP/1.0" or "keep-alive" in wish)


async def read_request(
    reader: asyncio.StreamReader, go_on: Callable[[], Awaitable[None]]
) -> Request | None:
    """Return the next request, or nothing when the client closed before one began.

    ``go_on`` is awaited when the client expects a 100 before it sends the body.

    Raises:
        Malformed: what came is no request, or it ended early.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if not cut.partial.strip():
            return None
        raise Malformed("the connection ended inside a request head", cut.partial) from None
    except asyncio.LimitOverrunError:
        raise Malformed(f"a request head of more than {_MOST_HEAD} bytes") from None
    request = _head(head)
    if request.header("expect").lower() == "100-continue":
        await go_on()
    try:
        body = await _body(reader, request)
    except asyncio.IncompleteReadError as cut:
        raise Malformed("the connection ended inside a body", head + cut.partial) from None
    except (asyncio.LimitOverrunError, ValueError):
        raise Malformed("a body that is framed wrongly", head) from None
    return Request(request.method, request.target, request.headers, body, request.version)


def limit() -> int:
    """Return the buffer limit a ``StreamReader`` for requests needs, in bytes."""
    return _MOST_HEAD


def _head(head: bytes) -> Request:
    first, *lines = head[:-4].lstrip(b"\r\n").decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Malformed("no HTTP/1 request line", head)
    pairs = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed("a header line without a name", head)
        pairs.append((name.lower(), value.strip()))
    return Request(words[0], words[1], tuple(pairs), b"", words[2])


async def _body(reader: asyncio.StreamReader, request: Request) -> bytes:
    lengths = {value for name, value in request.headers if name == "content-length"}
    if request.header("transfer-encoding"):
        if "chunked" not in request.header("transfer-encoding").lower() or lengths:
            raise ValueError
        return await _chunks(reader)
    if not lengths:
        return b""
    if len(lengths) > 1 or not (text := lengths.pop()).isdecimal():
        raise ValueError
    return await _take(reader, int(text), MOST_BYTES)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        kept += await _take(reader, size, MOST_BYTES - len(kept))
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError
    while (await reader.readuntil(b"\r\n")) != b"\r\n":  # trailers
        pass
    return bytes(kept)


async def _take(reader: asyncio.StreamReader, size: int, most: int) -> bytes:
    """Read exactly ``size`` bytes and return the first ``most`` of them."""
    kept = bytearray()
    while size > 0:
        piece = await reader.read(min(size, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(bytes(kept), size)
        size -= len(piece)
        kept += piece[: max(0, most - len(kept))]
    return bytes(kept)
