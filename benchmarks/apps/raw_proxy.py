"""The least an asyncio proxy can do: bare ASGI, aiohttp, no decision. What ours is compared with.

It parses the body, looks the model up, sets the upstream's name, forwards, and passes the answer or
the stream on. A 5xx or a refused connection goes to the next base URL. BENCH_ROUTES names a JSON
file: model -> base URLs.
"""

import os
from pathlib import Path
from typing import Any

import aiohttp
import orjson

ROUTES = orjson.loads(Path(os.environ["BENCH_ROUTES"]).read_bytes())
SENT = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
JSON = [(b"content-type", b"application/json")]
SSE = [(b"content-type", b"text/event-stream")]
_sessions: list[aiohttp.ClientSession] = []


def session() -> aiohttp.ClientSession:
    if not _sessions:
        _sessions.append(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=SENT,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=60),
            )
        )
    return _sessions[0]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = orjson.loads(b"".join(parts))
    bases = ROUTES[body["model"]]
    body["model"] = "mock-model"
    encoded = orjson.dumps(body)
    for left, base in enumerate(bases, 1 - len(bases)):
        try:
            response = await session().post(base + "/chat/completions", data=encoded)
        except aiohttp.ClientError:
            continue
        if response.status < 500 or not left:
            break
        response.release()
    if body.get("stream"):
        await send({"type": "http.response.start", "status": response.status, "headers": SSE})
        async for data in response.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        response.release()
        await send({"type": "http.response.body", "body": b""})
        return
    answer = await response.read()
    head = [*JSON, (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": response.status, "headers": head})
    await send({"type": "http.response.body", "body": answer})
