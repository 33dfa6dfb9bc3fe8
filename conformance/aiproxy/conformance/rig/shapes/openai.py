"""The OpenAI API: which shape a path asks for, credentials, errors."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import chat, completions, embeddings, responses
from aiproxy.conformance.rig.shapes.requests import bearer, json_object, model_of
from aiproxy.conformance.rig.shapes.speech import Ask, Frames, Refusal, Said

_KINDS: Final = {
    403: ("permission_error", "permission_denied"),
    404: ("invalid_request_error", None),
    408: ("timeout", "timeout"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "service_unavailable"),
}
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Ask]]] = {
    "chat/completions": chat.read,
    "responses": responses.read,
    "embeddings": embeddings.read,
    "completions": completions.read,
}


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    permitted(request, actor)
    path = route(request)
    if path == "models" or path.startswith("models/"):
        return models(request, actor, path)
    reader = _READERS.get(path)
    if reader is None:
        raise Refusal(404, f"invalid URL ({request.method} {request.path})")
    if request.method != "POST":
        raise Refusal(405, f"{request.method} is not allowed here")
    body = json_object(request)
    model_of(body, actor.upstream_model)
    return reader(body)


def permitted(request: Request, actor: Actor) -> None:
    """Refuse a request without the actor's key as a bearer token."""
    given = bearer(request)
    if not given:
        raise Refusal(401, "you didn't provide an API key in the Authorization header")
    if given != actor.key:
        raise Refusal(401, "incorrect API key provided", code="invalid_api_key")


def route(request: Request) -> str:
    """Return the path below the base URL, which may be any that ends in ``/v1`` or ``/openai``."""
    return re.sub(r"^(?:.*/)?(?:v1|openai)/", "", request.path.strip("/"))


def meant(request: Request, shapes: Collection[str]) -> bool:
    """Return whether a request to another provider is for its surface of OpenAI's ``shapes``.

    Paths of models count when the key comes as a bearer token.
    """
    path = route(request)
    listed = path == "models" or (path.startswith("models/") and ":" not in path)
    return path in shapes or (listed and bool(bearer(request)))


def models(request: Request, actor: Actor, path: str) -> Ask:
    """Return the question for all models or one.

    Raises:
        Refusal: no such model, or no GET.
    """
    if request.method != "GET":
        raise Refusal(405, f"{request.method} is not allowed here")
    if path == "models":
        return Ask("models")
    if path != f"models/{actor.upstream_model}":
        raise Refusal(404, "the model does not exist", code="model_not_found", param="model")
    return Ask("model")


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object."""
    status = refusal.status
    otherwise = ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    kind, code = _KINDS.get(status, otherwise)
    return {
        "error": {
            "message": refusal.message,
            "type": kind,
            "param": refusal.param,
            "code": refusal.code or code,
        }
    }


def whole(ask: Ask, said: Said) -> Any:
    """Return the body for any of the shapes."""
    match ask.shape:
        case "responses":
            return responses.whole(ask, said)
        case "embeddings":
            return embeddings.whole(ask, said)
        case "completions":
            return completions.whole(ask, said)
        case "models":
            return {"object": "list", "data": [_model(said)]}
        case "model":
            return _model(said)
    return chat.whole(ask, said)


def frames(ask: Ask, said: Said) -> Frames:
    """Return the stream for any of the shapes."""
    match ask.shape:
        case "responses":
            return responses.frames(ask, said)
        case "completions":
            return completions.frames(ask, said)
    return chat.frames(ask, said)


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields OpenAI puts on every answer."""
    return (
        ("x-request-id", f"req_{said_id}"),
        ("openai-processing-ms", "7"),
        ("openai-version", "2020-10-01"),
    )


def _model(said: Said) -> dict[str, Any]:
    return {"id": said.model, "object": "model", "created": 1700000000, "owned_by": "fake"}
