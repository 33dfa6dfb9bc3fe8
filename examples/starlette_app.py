"""A Starlette application that answers chat completions itself, with AIProxy mounted around it.

AIPROXY_CONFIG=aiproxy.yaml uvicorn --app-dir examples starlette_app:app
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aiproxy.middleware import AIProxyMiddleware

ANSWER = "answered by the Starlette app"


async def chat(request: Request) -> Response:
    body = await request.json()
    if body.get("stream"):
        return StreamingResponse(events(body["model"]), media_type="text/event-stream")
    message = {"role": "assistant", "content": ANSWER}
    return JSONResponse(completion(body["model"], "chat.completion", message=message))


async def events(model: str) -> AsyncIterator[str]:
    for delta, reason in (({"role": "assistant", "content": ANSWER}, None), ({}, "stop")):
        chunk = completion(model, "chat.completion.chunk", reason, delta=delta)
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(model: str, kind: str, reason: str | None = "stop", **part: Any) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}


app = Starlette(
    routes=[Route("/v1/chat/completions", chat, methods=["POST"])],
    middleware=[Middleware(AIProxyMiddleware, config=os.environ["AIPROXY_CONFIG"])],
)
