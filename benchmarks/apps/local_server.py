"""The reference server with a look at its event loop, for ``local.py``.

    python local_server.py CONFIG PORT

``GET /lag`` tells how late the loop came back to a task that wanted to run every 2 ms, since the last
time it was asked: milliseconds, p50, p99 and the worst.
"""

import asyncio
import json
import sys
from typing import Any

import uvicorn

from aiproxy.reference_server import create_app

_EVERY_S = 0.002


class Watched:
    """``app`` with the probe running beside it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._late_ms: list[float] = []
        self._probe: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._probe is None:
            self._probe = asyncio.create_task(self._look())
        if scope["type"] == "http" and scope["path"] == "/lag":
            found, self._late_ms = sorted(self._late_ms), []
            await _answer(send, found)
            return
        await self._app(scope, receive, send)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_EVERY_S)
            self._late_ms.append(1e3 * (loop.time() - before - _EVERY_S))


async def _answer(send: Any, late_ms: list[float]) -> None:
    count = len(late_ms)
    told = {
        "count": count,
        "p50": late_ms[count // 2] if count else None,
        "p99": late_ms[min(count - 1, int(count * 0.99))] if count else None,
        "worst": late_ms[-1] if count else None,
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


if __name__ == "__main__":
    uvicorn.run(
        Watched(create_app(sys.argv[1])),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
    )
