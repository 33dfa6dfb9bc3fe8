"""A provider that costs next to nothing: `python fake_upstream.py PORT`.

The first segment of the path says what it does: /small, /large, /bad (500), /sse, /paced;
a number is a small answer after so many milliseconds: /0, /300.
"""

import asyncio
import sys
from typing import cast

import payloads

_HEAD = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_ERROR = b'{"error":{"message":"broken on purpose","type":"server_error","code":null}}'


def _whole(status: bytes, body: bytes) -> bytes:
    return _HEAD % (status, len(body), body)


ANSWERS = {
    b"small": _whole(b"200 OK", payloads.answer("small")),
    b"large": _whole(b"200 OK", payloads.answer("large")),
    b"bad": _whole(b"500 Internal Server Error", _ERROR),
}
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in payloads.events()]


class Provider(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass
        self.kept = b""
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        kept = self.kept + data
        while (end := kept.find(b"\r\n\r\n")) >= 0:
            head = kept[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(kept) < end + 4 + length:
                break
            kept = kept[end + 4 + length :]
            kind = head.split(b" ", 2)[1].split(b"/", 2)[1]
            if kind in (b"sse", b"paced"):
                self.task = asyncio.ensure_future(self.stream(kind == b"paced"))
            elif kind.isdigit():
                asyncio.get_running_loop().call_later(int(kind) / 1000, self.answer_late)
            else:
                self.transport.write(ANSWERS[kind])
        self.kept = kept

    def answer_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWERS[b"small"])

    async def stream(self, paced: bool) -> None:
        self.transport.write(_STREAM)
        for number, chunk in enumerate(CHUNKS):
            if paced and number:
                await asyncio.sleep(payloads.PACE_S)
            if self.transport.is_closing():
                return
            await self.writable.wait()
            self.transport.write(chunk)
        self.transport.write(b"0\r\n\r\n")


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(serve(int(sys.argv[1])))
