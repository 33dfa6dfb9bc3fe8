"""Puts a plan on a connection, with every fault done for real."""

import asyncio
import gzip
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from typing import Final

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.answers import Plan
from aiproxy.conformance.rig.shapes.speech import Frames

_MIB: Final = 1024 * 1024
_HUGE_MIB, _BOMB_MIB = 65, 257
_ENDLESS_S: Final = 0.002  # between the events of an endless stream, at least
_CUT_SHORT: Final = 64  # bytes promised and never sent


class Wire:
    """One answer on one connection. ``began`` is called just before its first byte."""

    def __init__(
        self,
        writer: asyncio.StreamWriter,
        began: Callable[[], None],
        *,
        version: str = "HTTP/1.1",
        stays: bool = True,
        head_only: bool = False,
    ) -> None:
        self._writer, self._began = writer, began
        self._chunked = version != "HTTP/1.0"
        self._head_only = head_only
        self.stays = stays

    async def send(self, plan: Plan, act: Act) -> None:
        """Answer with ``plan`` as ``act`` says; afterwards ``stays`` tells whether to go on."""
        if act.wait_s:
            await asyncio.sleep(act.wait_s)
        match act.fault:
            case "reset":
                self.reset()
            case "close":
                self.stays = False
            case "silence":
                await asyncio.Event().wait()
            case "half-head":
                await self._bytes(b"HTTP/1.1 200 OK\r\nContent-Ty")
                self.stays = False
            case "huge":
                await self._pour(plan, act, _huge(plan.frames is not None))
            case "bomb":
                await self._bomb(plan, act)
            case "short-body":
                await self._short(plan, act)
            case "no-length":
                await self._unframed(plan, act)
            case _ if plan.frames is not None:
                await self._stream(plan, plan.frames, act)
            case _:
                await self._whole(plan, act)

    def reset(self) -> None:
        """Reset the connection: RST in place of FIN."""
        self.stays = False
        plug: socket.socket | None = self._writer.get_extra_info("socket")
        if plug is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def _framing(self) -> tuple[tuple[str, str], ...]:
        return (("transfer-encoding", "chunked"),) if self._chunked else ()

    async def _whole(self, plan: Plan, act: Act) -> None:
        """Send a body that is no stream; faults of streams strike in its middle."""
        if act.fault in ("cut", "stall", "cut-clean", "endless", "split"):
            await self._head(plan, act, self._framing)
            await self._broken(plan.body, act)
            return
        if plan.status in (204, 304):  # these have no body
            await self._head(plan, act, ())
            return
        length = (("content-length", str(len(plan.body))),)
        await self._head(plan, act, length, b"" if self._head_only else plan.body)

    async def _broken(self, body: bytes, act: Act) -> None:
        if act.fault == "split":
            for piece in _split(body):
                await self._chunk(piece)
            await self._last_chunk()
            return
        await self._chunk(body[: len(body) // 2])
        while act.fault == "endless":
            await asyncio.sleep(max(act.gap_s, _ENDLESS_S))
            await self._chunk(b" " * 64)
        await self._end("clean" if act.fault == "cut-clean" else act.fault)

    async def _stream(self, plan: Plan, frames: Frames, act: Act) -> None:
        await self._head(plan, act, self._framing)
        if act.fault == "split":
            for piece in _split("".join(frame for _, frame in course(frames, act)).encode()):
                await self._chunk(piece)
        else:
            for pause, frame in course(frames, act):
                if pause:
                    await asyncio.sleep(pause)
                await self._chunk(frame.encode())
        await self._end(act.fault)

    async def _end(self, fault: str) -> None:
        if fault == "stall":
            await asyncio.Event().wait()
        if fault != "cut":
            await self._last_chunk()
            return
        self.stays = False
        if self._chunked:
            await self._bytes(f"{_CUT_SHORT:x}\r\ndata: ".encode())

    async def _short(self, plan: Plan, act: Act) -> None:
        body = _joined(plan, act)
        await self._head(plan, act, (("content-length", str(len(body) + _CUT_SHORT)),), body)
        self.stays = False

    async def _unframed(self, plan: Plan, act: Act) -> None:
        self.stays = False
        await self._head(plan, act, (), _joined(plan, act))

    async def _pour(self, plan: Plan, act: Act, pieces: Iterator[bytes]) -> None:
        self.stays = False
        await self._head(plan, act, self._framing)
        for piece in pieces:
            await self._chunk(piece)
        await self._last_chunk()

    async def _bomb(self, plan: Plan, act: Act) -> None:
        packed = await asyncio.to_thread(_bomb, plan.frames is not None)
        length = ("content-length", str(len(packed)))
        await self._head(plan, act, (("content-encoding", "gzip"), length), packed)

    async def _head(
        self, plan: Plan, act: Act, framing: tuple[tuple[str, str], ...], body: bytes = b""
    ) -> None:
        """Send the head and, in the same write, ``body``."""
        own = {name.lower() for name, _ in act.headers}
        fields = [pair for pair in (*plan.headers, *framing) if pair[0] not in own]
        fields += act.headers
        if not self.stays:
            fields.append(("connection", "close"))
        lines = [f"HTTP/1.1 {plan.status} {_phrase(plan.status)}"]
        lines += [f"{name}: {value}" for name, value in fields]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        await self._bytes(head + body)

    async def _chunk(self, data: bytes) -> None:
        if not data:
            return
        await self._bytes(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def _last_chunk(self) -> None:
        if self._chunked:
            await self._bytes(b"0\r\n\r\n")
        else:
            self.stays = False

    async def _bytes(self, data: bytes) -> None:
        self._began()
        self._writer.write(data)
        await self._writer.drain()


def course(frames: Frames, act: Act) -> Iterator[tuple[float, str]]:
    """Yield the frames of a stream as ``act`` wants it, each with the seconds before it."""
    ends = "\r\n" if act.fault == "crlf" else "\n"
    for pause, frame in _course(frames, act):
        yield pause, frame.replace("\n", ends)


def _course(frames: Frames, act: Act) -> Iterator[tuple[float, str]]:
    fault, content = act.fault, frames.content
    yield from _together(frames.opening)
    if fault in ("cut", "cut-clean", "stall", "error-event"):
        yield from _spaced(content[: act.after], act)
        if fault == "error-event":
            yield from _together(frames.error(act.message, act.code, act.after))
        return
    if fault == "garbage-event":
        yield from _spaced(content[: act.after], act)
        yield act.gap_s, frames.garbage
        content = content[act.after :]
    if fault == "comments":
        yield 0.0, ": OPENROUTER PROCESSING\n\n"
    for pause, frame in _spaced(content, act):
        yield pause, frame
        if fault == "comments":
            yield 0.0, ": keep-alive\n\n:\n\n"
    while fault == "endless":
        for _, frame in _spaced(content, act):
            yield max(act.gap_s, _ENDLESS_S), frame
    if fault != "no-finish":
        yield from _together(frames.finish)
    yield from _together(frames.usage)
    if fault != "no-done":
        yield from _together(frames.done)


def _together(frames: list[str]) -> Iterator[tuple[float, str]]:
    return ((0.0, frame) for frame in frames)


def _spaced(frames: list[str], act: Act) -> Iterator[tuple[float, str]]:
    return ((act.gap_s if place else 0.0, frame) for place, frame in enumerate(frames))


def _split(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces of one to seven bytes."""
    start, size = 0, 1
    while start < len(data):
        yield data[start : start + size]
        start, size = start + size, size % 7 + 1


def _joined(plan: Plan, act: Act) -> bytes:
    if plan.frames is None:
        return plan.body
    return "".join(frame for _, frame in course(plan.frames, act)).encode()


def _long(stream: bool) -> tuple[bytes, bytes]:
    """Return what stands before and after the letters of an answer that is far too long."""
    start = b'{"id":"chatcmpl-1","object":"chat.completion%b","created":1,"model":"m","choices":'
    if stream:
        return b"data: " + start % b".chunk" + b'[{"index":0,"delta":{"content":"', (
            b'"},"finish_reason":null}]}\n\ndata: [DONE]\n\n'
        )
    return start % b"" + b'[{"index":0,"message":{"role":"assistant","content":"', (
        b'"},"finish_reason":"stop"}]}'
    )


def _huge(stream: bool) -> Iterator[bytes]:
    before, after = _long(stream)
    yield before
    block = b"x" * (_MIB // 4)
    for _ in range(_HUGE_MIB * 4):
        yield block
    yield after


@cache
def _bomb(stream: bool) -> bytes:
    """Return a gzip member of some 300 KB: one packed block, said again and again."""
    before, after = _long(stream)
    block = b"x" * _MIB
    check = zlib.crc32(before)
    for _ in range(_BOMB_MIB):
        check = zlib.crc32(block, check)
    check = zlib.crc32(after, check)
    size = len(before) + len(after) + _BOMB_MIB * _MIB
    head = gzip.compress(b"", mtime=0)[:10]
    packed = [head, _raw(before), _raw(block) * _BOMB_MIB, _raw(after, last=True)]
    return b"".join(packed) + struct.pack("<II", check, size & 0xFFFFFFFF)


def _raw(data: bytes, *, last: bool = False) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
