"""``aiproxy explain``: the decision a request would get, with no provider called."""

from asyncio import run
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from aiproxy.middleware import Gateway
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.intake.front import Front
from aiproxy.middleware.intake.ingress import Routes
from aiproxy.reference_server.configuration import load_local_models, read_config

_CHAT: Final = "/v1/chat/completions"
#: Members of a body with ``messages`` that only Anthropic's clients send.
_ANTHROPIC_ONLY: Final = frozenset({"system", "stop_sequences", "thinking", "anthropic_version"})
#: Members of a body with ``input`` that only a request for vectors has.
_EMBEDDINGS_ONLY: Final = frozenset({"encoding_format", "dimensions"})


class Unusable(ValueError):
    """The command line does not describe a request."""


def explain_request(
    path: str | None, headers: Sequence[str], endpoint: str | None, raw: bytes
) -> dict[str, Any]:
    """Return the decision record (schema ``decision``) without attempts.

    The request is taken as authenticated: explain is the operator's own question. Local models are
    looked at and not loaded: one whose files are not in order is no candidate.

    Raises:
        ConfigInvalid: a bad configuration file.
        Unusable: a header that is not ``Name: value``, or an endpoint that is not served.
    """
    local, usable = load_local_models(read_config(path), load=False)
    run(local.close())
    gateway = Gateway(usable, wrapped_app=False, scope="all", allow_unenforced=True)
    gateway.settings = replace(gateway.settings, keys=None)
    front = Front(gateway)
    where = endpoint or endpoint_of(raw, gateway)
    route = front.route(where)
    if route is None or route.counting:
        served = ", ".join(Routes(gateway.settings).labels(counting=False))
        raise Unusable(f"--endpoint {where}: not served here; expected one of {served}")
    exchange = Exchange(gateway, front.inbound(route, tuple(map(_pair, headers)), "", raw))
    return exchange.explain().record()


def _pair(header: str) -> tuple[str, str]:
    name, colon, value = header.partition(":")
    if not colon or not name.strip():
        raise Unusable(f"--header {header!r}: expected 'Name: value'")
    return name.strip().lower(), value.strip()


def endpoint_of(raw: bytes, gateway: Gateway) -> str:
    """Return where a body would be sent, by its shape and the kind of the model it names."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return _CHAT
    if "contents" in body:
        folders = gateway.settings.model_folders
        return f"{folders[0]}{body.get('model', 'auto')}:generateContent" if folders else _CHAT
    if "messages" in body:
        return "/v1/messages" if not _ANTHROPIC_ONLY.isdisjoint(body) else _CHAT
    if "prompt" in body:
        return "/v1/completions"
    if "input" not in body:
        return _CHAT
    if isinstance(body.get("routing"), dict):
        return "/aiproxy/predict"
    model = body.get("model")
    models = gateway.registry.by_name.get(model, ()) if isinstance(model, str) else ()
    if models and all("text-generation" not in row.capabilities for row in models):
        return "/v1/embeddings"
    if not _EMBEDDINGS_ONLY.isdisjoint(body):
        return "/v1/embeddings"
    return "/v1/responses"
