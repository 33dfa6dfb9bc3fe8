"""A Django application in one file that answers chat completions itself, with AIProxy around it.

    AIPROXY_CONFIG=aiproxy.yaml gunicorn --chdir examples --preload \
        --worker-class gthread --workers 2 --threads 4 django_app:application
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.urls import path

from aiproxy.middleware import AIProxyWSGIMiddleware

ANSWER = "answered by the Django app"

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only-for-this-example"),
)


def chat(request: HttpRequest) -> HttpResponseBase:
    body = json.loads(request.body)
    if body.get("stream"):
        return StreamingHttpResponse(events(body["model"]), content_type="text/event-stream")
    message = {"role": "assistant", "content": ANSWER}
    return JsonResponse(completion(body["model"], "chat.completion", message=message))


def events(model: str) -> Iterator[str]:
    for delta, reason in (({"role": "assistant", "content": ANSWER}, None), ({}, "stop")):
        chunk = completion(model, "chat.completion.chunk", reason, delta=delta)
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def completion(model: str, kind: str, reason: str | None = "stop", **part: Any) -> dict[str, Any]:
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": model, "choices": [choice]}


urlpatterns = [path("v1/chat/completions", chat)]
application = AIProxyWSGIMiddleware(get_wsgi_application(), os.environ["AIPROXY_CONFIG"])
