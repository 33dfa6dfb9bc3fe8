"""A Falcon application that answers chat completions itself, with AIProxy mounted around it.

AIPROXY_CONFIG=aiproxy.yaml uvicorn --app-dir examples falcon_app:app
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import falcon.asgi

from aiproxy.middleware import AIProxyMiddleware

ANSWER = "answered by the Falcon app"


class Chat:
    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        body = await req.get_media()
        if body.get("stream"):
            resp.content_type = "text/event-stream"
            resp.stream = events(body["model"])
            return
        message = {"role": "assistant", "content": ANSWER}
        resp.media = completion(body["model"], "chat.completion", message=message)


async def events(model: str) -> AsyncIterator[bytes]:
    for delta, reason in (({"role": "assistant", "content": ANSWER}, None), ({}, "stop")):
        chunk = completion(model, "chat.completion.chunk", reason, delta=delta)
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def completion(model: str, kind: str, reason: str | None = "stop", **part: Any) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}


host = falcon.asgi.App()
host.add_route("/v1/chat/completions", Chat())
app = AIProxyMiddleware(host, config=os.environ["AIPROXY_CONFIG"])
