"""Prints what a transport costs beside the bare library: CPU microseconds of this process.

    python tests/transports/cost.py [calls of a round]

The provider runs in another process and answers 300 bytes, or 100 events of 145 bytes 1 ms apart.
"""

import asyncio
import multiprocessing
import sys
import time
from statistics import median

import aiohttp
import urllib3
import uvloop

from aiproxy.middleware.effects import Answer, Call, Read
from aiproxy.middleware.providers.aio import AsyncTransports
from aiproxy.middleware.providers.sync import SyncTransports

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n" + b"x" * 300
)
EVENT = b"91\r\n" + b"data: " + b"x" * 137 + b"\n\n" + b"\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADERS = (("content-type", "application/json"), ("authorization", "Bearer x"))
BODY = b"{" + b" " * 298 + b"}"


class Provider(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if b"/stream" in data[:20]:
            self.task = asyncio.ensure_future(self.stream())
        elif data.endswith(b"}"):
            self.transport.write(ANSWER)

    async def stream(self):
        self.transport.write(STREAM)
        for _ in range(100):
            await asyncio.sleep(0.001)
            self.transport.write(EVENT)
        self.transport.write(b"0\r\n\r\n")


def provide(port):
    async def serve():
        server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def a_call(url, stream=False):
    return Call(
        "http", "p", url, HEADERS, BODY, stream, connect_s=5.0, first_byte_s=60.0, total_s=120.0
    )


async def bare(session, url):
    async with session.post(url, data=BODY, headers=HEADERS) as response:
        assert len(await response.read()) == 300


async def ours(transports, url):
    answer = await transports.call(a_call(url))
    assert isinstance(answer, Answer)
    assert len(answer.body) == 300


async def bare_stream(session, url):
    async with session.post(url, data=BODY, headers=HEADERS) as response:
        async for data in response.content.iter_any():
            assert data


async def our_stream(transports, url):
    answer = await transports.call(a_call(url, True))
    while data := await transports.read(Read(answer.stream, 30.0)):
        assert isinstance(data, bytes), data


async def spent(work, client, url, calls, at_once):
    async def worker():
        for _ in range(calls // at_once):
            await work(client, url)

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.process_time() - began) / (calls // at_once * at_once) * 1e6


async def loop_rounds(base):
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )
    transports = AsyncTransports()
    cases = {
        "aiohttp, c=1": (bare, session, "/call", CALLS, 1),
        "AsyncTransports, c=1": (ours, transports, "/call", CALLS, 1),
        "aiohttp, c=16": (bare, session, "/call", CALLS, 16),
        "AsyncTransports, c=16": (ours, transports, "/call", CALLS, 16),
        "aiohttp, stream of 100, c=32": (bare_stream, session, "/stream", 96, 32),
        "AsyncTransports, stream of 100, c=32": (our_stream, transports, "/stream", 96, 32),
    }
    figures = {name: [] for name in cases}
    for _ in range(5):
        for name, (work, client, path, calls, at_once) in cases.items():
            figures[name].append(await spent(work, client, base + path, calls, at_once))
    await transports.aclose()
    await session.close()
    return figures


def thread_rounds(base):
    manager, transports = urllib3.PoolManager(), SyncTransports()
    figures = {"urllib3, c=1": [], "SyncTransports, c=1": []}
    for _ in range(5):
        for name, measured in figures.items():
            began = time.process_time()
            for _ in range(CALLS):
                if name.startswith("urllib3"):
                    manager.request("POST", base + "/call", body=BODY, headers=dict(HEADERS))
                else:
                    transports.call(a_call(base + "/call"))
            measured.append((time.process_time() - began) / CALLS * 1e6)
    transports.close()
    manager.clear()
    return figures


if __name__ == "__main__":
    receiver, sender = multiprocessing.Pipe(False)
    provider = multiprocessing.Process(target=provide, args=(sender,), daemon=True)
    provider.start()
    address = f"http://127.0.0.1:{receiver.recv()}"
    for name, values in (uvloop.run(loop_rounds(address)) | thread_rounds(address)).items():
        print(f"{name:40} {median(values):8.1f} us   (least {min(values):.1f})")
    provider.terminate()
