"""A Flask application that answers chat completions itself, with AIProxy mounted around it.

    AIPROXY_CONFIG=aiproxy.yaml gunicorn --chdir examples --preload \
        --worker-class gthread --workers 2 --threads 4 flask_app:app
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, jsonify, request

from aiproxy.middleware import AIProxyWSGIMiddleware

ANSWER = "answered by the Flask app"

app = Flask(__name__)
app.wsgi_app = AIProxyWSGIMiddleware(app.wsgi_app, config=os.environ["AIPROXY_CONFIG"])


@app.post("/v1/chat/completions")
def chat() -> Response:
    body = request.get_json()
    if body.get("stream"):
        return Response(events(body["model"]), mimetype="text/event-stream")
    message = {"role": "assistant", "content": ANSWER}
    return jsonify(completion(body["model"], "chat.completion", message=message))


def events(model: str) -> Iterator[str]:
    for delta, reason in (({"role": "assistant", "content": ANSWER}, None), ({}, "stop")):
        chunk = completion(model, "chat.completion.chunk", reason, delta=delta)
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(model: str, kind: str, reason: str | None = "stop", **part: Any) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}
