"""A provider that takes its time: `python delayed_upstream.py PORT`.

The first segment of the path says how long, in milliseconds: /0, /50, /300.
"""

import asyncio
import sys
from typing import cast

import payloads

_BODY = payloads.answer("small")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class Provider(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)
        self.kept = b""

    def data_received(self, data: bytes) -> None:
        kept = self.kept + data
        while (end := kept.find(b"\r\n\r\n")) >= 0:
            head = kept[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(kept) < end + 4 + length:
                break
            kept = kept[end + 4 + length :]
            delay_ms = int(head.split(b" ", 2)[1].split(b"/", 2)[1])
            asyncio.get_running_loop().call_later(delay_ms / 1000, self.answer)
        self.kept = kept

    def answer(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
