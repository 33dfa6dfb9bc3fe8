"""Another node of a mesh, as far as the Standard describes one.

That is GET /aiproxy/mesh/status (section 5.4) and being asked like a provider. What nodes tell
each other beside it is everyone's own: whatever else comes below /aiproxy/mesh/ is answered with
the status too, and a forwarded request is found wherever in its body it stands. No credential is
asked for.
"""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.shapes import chat, completions, embeddings, openai, responses
from aiproxy.conformance.rig.shapes.speech import Ask, Frames, Refusal, Said

MESH: Final = "/aiproxy/mesh/"
_PREDICT: Final = "/aiproxy/predict"
_STARTED: Final = time.monotonic()
_LOAD: Final = 0.25
_DEEPEST: Final = 4


def read(request: Request, actor: Actor) -> Ask:
    """Return what was asked; see ``speech.Dialect``."""
    path = request.path.rstrip("/")
    if openai.route(request) == "models" and request.method == "GET":
        return Ask("mesh", {"object": "list", "data": [_entry(actor)]})
    body = _parsed(request)
    forwarded = next(_inference(body), None)
    if forwarded is None and path.startswith(MESH.rstrip("/")):
        return Ask("mesh", _status(actor))
    if forwarded is None or request.method != "POST":
        raise Refusal(404, f"invalid URL ({request.method} {request.path})")
    if forwarded["model"] not in (actor.model, actor.upstream_model, "auto"):
        raise Refusal(404, "no such model here", code="model_not_found", param="model")
    if path == _PREDICT:
        return Ask("predict", forwarded)
    if "messages" in forwarded:
        return chat.read(forwarded)
    if "prompt" in forwarded:
        return completions.read(forwarded)
    if path.endswith("embeddings"):
        return embeddings.read(forwarded)
    return responses.read(forwarded)


def refused(request: Request, refusal: Refusal) -> Any:
    """Return an error object."""
    return openai.refused(request, refusal)


def whole(ask: Ask, said: Said) -> Any:
    """Return the status, a prediction, or the body of any of OpenAI's shapes."""
    if ask.shape == "mesh":
        return dict(ask.body)
    if ask.shape == "predict":
        return _prediction(ask, said)
    return openai.whole(ask, said)


def frames(ask: Ask, said: Said) -> Frames:
    """Return the stream for any of OpenAI's shapes."""
    return openai.frames(ask, said)


def headers(request: Request, said_id: str) -> tuple[tuple[str, str], ...]:
    """Return the fields a node puts on every answer."""
    return (("x-request-id", f"req_{said_id}"),)


def _parsed(request: Request) -> Any:
    try:
        return json.loads(request.body) if request.body else None
    except (ValueError, RecursionError):
        return None


def _inference(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yield what asks a model for something, the outermost first; JSON in text counts too."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return
    if not isinstance(value, dict):
        return
    if isinstance(value.get("model"), str) and {"messages", "input", "prompt"} & set(value):
        yield value
    for inner in value.values():
        yield from _inference(inner, depth + 1)


def _status(actor: Actor) -> dict[str, Any]:
    return {
        "node": {
            "id": actor.id,
            "type": "standalone",
            "region": None,
            "uptime_seconds": round(time.monotonic() - _STARTED, 3),
        },
        "peers": [],
        "providers": {"local": {"status": "healthy", "models": 1}},
        "status": "healthy",
        "load": _LOAD,
        "models": [actor.model],
    }


def _entry(actor: Actor) -> Mapping[str, Any]:
    return {"id": actor.model, "object": "model", "created": 1700000000, "owned_by": actor.id}


def _prediction(ask: Ask, said: Said) -> dict[str, Any]:
    made, prompt = said.count("completion_tokens"), said.count("prompt_tokens")
    return {
        "request_id": f"req_{said.id}",
        "model": ask.body["model"],
        "output": said.text,
        "metadata": {
            "provider": "local",
            "node_id": "peer",
            "latency_ms": 1.0,
            "tokens": {"input": prompt, "output": made, "total": prompt + made},
            "cost": {"amount": 0.0, "currency": "USD"},
            "routing": {
                "strategy_used": "availability", "providers_tried": ["local"], "failovers": 0,
                "reason": "best_availability",
            },
        },
    }  # fmt: skip
