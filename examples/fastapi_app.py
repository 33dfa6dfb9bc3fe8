"""A FastAPI application that answers chat completions itself, with AIProxy mounted around it.

AIPROXY_CONFIG=aiproxy.yaml uvicorn --app-dir examples fastapi_app:app
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from aiproxy.middleware import AIProxyMiddleware

ANSWER = "answered by the FastAPI app"

app = FastAPI()
app.add_middleware(AIProxyMiddleware, config=os.environ["AIPROXY_CONFIG"])


@app.post("/v1/chat/completions", response_model=None)
def chat(body: dict[str, Any]) -> dict[str, Any] | StreamingResponse:
    if body.get("stream"):
        return StreamingResponse(events(body["model"]), media_type="text/event-stream")
    message = {"role": "assistant", "content": ANSWER}
    return completion(body["model"], "chat.completion", message=message)


def events(model: str) -> Iterator[str]:
    for delta, reason in (({"role": "assistant", "content": ANSWER}, None), ({}, "stop")):
        chunk = completion(model, "chat.completion.chunk", reason, delta=delta)
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(model: str, kind: str, reason: str | None = "stop", **part: Any) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}
