"""The local models over the OpenAI API: what a plain single-provider server has.

These routes are reached through the middleware, which sends them what is routed to a local model.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import falcon
import falcon.asgi
import orjson

from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import MODEL_CREATED
from aiproxy.middleware.intake.admission import read_json
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.resources.documents import send


class _Events:
    """A stream of chunks as server-sent events; Falcon calls ``close`` however it ends."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks
        self._done = False

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> bytes:
        if self._done:
            raise StopAsyncIteration
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._done = True
            return b"data: [DONE]\n\n"
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    async def close(self) -> None:
        closing = getattr(self._chunks, "aclose", None)
        if closing is not None:
            await closing()


class _Generating:
    """A POST that a local model answers whole or as a stream."""

    def __init__(self, answer: Callable[[Any], Awaitable[Any]]) -> None:
        self._answer = answer

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        answer = await self._answer(read_json(await req.stream.read()))
        if isinstance(answer, dict):
            send(resp, answer)
        else:
            resp.content_type = "text/event-stream"
            resp.set_header("cache-control", "no-cache")
            resp.stream = _Events(answer)


class Chat(_Generating):
    """``POST /v1/chat/completions``."""

    def __init__(self, local: LocalModels) -> None:
        super().__init__(local.chat)


class Completions(_Generating):
    """``POST /v1/completions``."""

    def __init__(self, local: LocalModels) -> None:
        super().__init__(local.complete)


class Embeddings(_Generating):
    """``POST /v1/embeddings``."""

    def __init__(self, local: LocalModels) -> None:
        super().__init__(local.embed)


class NotLocal:
    """An endpoint only the middleware serves; the route exists for 405 and its Allow header."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        raise ProxyError("not_found", "This endpoint is switched off here.")


class NotLocalModels:
    """A model list only the middleware tells."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        raise ProxyError("not_found", "This endpoint is switched off here.")

    on_head = on_get


class NotLocalModel:
    """A model of Google's folder: read by its name, asked by ``NAME:ACTION``. The middleware
    serves both, so what gets here is the wrong method, an unknown action, or switched off."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        if ":" in name:
            raise falcon.HTTPMethodNotAllowed(["POST", "OPTIONS"])
        raise ProxyError("not_found", "This endpoint is switched off here.")

    on_head = on_get

    async def on_post(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str
    ) -> None:
        if ":" not in name:
            raise falcon.HTTPMethodNotAllowed(["GET", "HEAD", "OPTIONS"])
        raise ProxyError(
            "not_found",
            "Of a model's actions generateContent, streamGenerateContent and countTokens are "
            "served, unless they are switched off here.",
        )


class Models:
    """``GET /v1/models`` of the local models alone."""

    def __init__(self, local: LocalModels) -> None:
        self._local = local

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        rows = [entry(m.name) for m in self._local.models if m.available]
        send(resp, {"object": "list", "data": rows})

    on_head = on_get


class Model:
    """``GET /v1/models/{id}`` of the local models alone."""

    def __init__(self, local: LocalModels) -> None:
        self._local = local

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        if not any(m.name == name and m.available for m in self._local.models):
            raise ProxyError("model_not_found", "No local model has this name.", param="model")
        send(resp, entry(name))

    on_head = on_get


def entry(name: str) -> dict[str, Any]:
    """The model object of a local model."""
    return {"id": name, "object": "model", "created": MODEL_CREATED, "owned_by": "local"}
