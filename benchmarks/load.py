"""The load generator: a closed loop over keep-alive connections, as JSON on stdout.

    python load.py JOB.json

The job: ``url``, ``method``, ``headers`` (pairs), ``body`` (a file or null), ``connections``,
``seconds`` for whole answers; ``streams`` (a connection runs that many) for event streams. Times
are in milliseconds. Everything that is not a 2xx, or a stream without all its events, is ``bad``.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit


class Plug(asyncio.Protocol):
    """One connection; ``ask`` sends a request and returns (status, body) when it is whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass
        self.waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self.streaming = False

    def ask(self, request: bytes, *, streaming: bool = False) -> asyncio.Future[tuple[int, bytes]]:
        self.kept = bytearray()
        self.need = 0
        self.chunked = False
        self.status = 0
        self.streaming = streaming
        self.arrivals: list[float] = []
        self.first_at = 0.0
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.waiter

    def data_received(self, data: bytes) -> None:
        kept = self.kept
        kept += data
        if not self.status:
            end = kept.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(kept[:end]).lower()
            self.status = int(head[9:12])
            self.body_at = end + 4
            at = head.find(b"content-length:")
            if at >= 0:
                self.need = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
            else:
                self.chunked = True
        if self.streaming and len(kept) > self.body_at:
            now = time.perf_counter()
            if not self.first_at:
                self.first_at = now
            self.arrivals.append(now)
        whole = kept.endswith(b"0\r\n\r\n") if self.chunked else len(kept) >= self.need
        if whole:
            self.finish()

    def finish(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result((self.status, bytes(self.kept[self.body_at :])))

    def connection_lost(self, exc: Exception | None) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(exc or ConnectionResetError("closed before the answer"))


async def connect(host: str, port: int) -> Plug:
    _, plug = await asyncio.get_running_loop().create_connection(Plug, host, port)
    return plug


def encode(job: dict[str, Any]) -> tuple[str, int, bytes]:
    """Host, port and the octets of the request."""
    url = urlsplit(job["url"])
    body = Path(job["body"]).read_bytes() if job.get("body") else b""
    head = [f"{job['method']} {url.path or '/'} HTTP/1.1", f"Host: {url.netloc}"]
    head += [f"{name}: {value}" for name, value in job["headers"]]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    assert url.hostname is not None
    assert url.port is not None
    return url.hostname, url.port, "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def answers(job: dict[str, Any]) -> dict[str, float]:
    host, port, request = encode(job)
    took: list[float] = []
    bad = 0
    until = time.perf_counter() + job["seconds"]

    async def worker() -> None:
        nonlocal bad
        plug = await connect(host, port)
        while (began := time.perf_counter()) < until:
            try:
                status, _ = await plug.ask(request)
            except OSError:
                bad += 1
                plug = await connect(host, port)
                continue
            took.append(time.perf_counter() - began)
            bad += not 200 <= status < 300
        plug.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(job["connections"])))
    lasted = time.perf_counter() - began
    return {
        "requests": len(took),
        "rps": len(took) / lasted,
        "p50": quantile(took, 0.5) * 1e3,
        "p99": quantile(took, 0.99) * 1e3,
        "bad": bad,
    }


async def streams(job: dict[str, Any]) -> dict[str, float]:
    host, port, request = encode(job)
    first: list[float] = []
    gaps: list[float] = []
    events = bad = 0

    async def worker() -> None:
        nonlocal events, bad
        plug = await connect(host, port)
        for _ in range(job["streams"]):
            began = time.perf_counter()
            status, body = await plug.ask(request, streaming=True)
            found = body.count(b"data: ")
            events += found
            bad += status != 200 or found < job["events"] or b"data: [DONE]" not in body
            first.append(plug.first_at - began)
            gaps.extend(b - a for a, b in zip(plug.arrivals, plug.arrivals[1:], strict=False))
        plug.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(job["connections"])))
    lasted = time.perf_counter() - began
    return {
        "requests": len(first),
        "events": events,
        "events_s": events / lasted,
        "ttfb": quantile(first, 0.5) * 1e3,
        "ttfb_p99": quantile(first, 0.99) * 1e3,
        "gap_p99": quantile(gaps, 0.99) * 1e3,
        "bad": bad,
    }


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    task = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(run(streams(task) if "streams" in task else answers(task))))
