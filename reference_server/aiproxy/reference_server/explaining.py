"""``aiproxy explain``: the decision a request would get, with no provider called."""

from asyncio import run
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from aiproxy.middleware import Gateway
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.front import Front
from aiproxy.middleware.ingress import Routes
from aiproxy.reference_server.configuration import load_local_models, read_config


class Unusable(ValueError):
    """The command line does not describe a request."""


def explain_request(
    path: str | None, headers: Sequence[str], endpoint: str | None, raw: bytes
) -> dict[str, Any]:
    """Return the decision record (schema ``decision``) without attempts.

    The request is taken as authenticated: explain is the operator's own question. Local models are
    loaded as the server loads them, since one that cannot run is no candidate there.

    Raises:
        ConfigInvalid: a bad configuration file.
        Unusable: a header that is not ``Name: value``, or an endpoint that is not served.
    """
    local, usable = load_local_models(read_config(path))
    run(local.close())
    gateway = Gateway(usable, wrapped_app=False, scope="all", allow_unenforced=True)
    gateway.settings = replace(gateway.settings, keys=None)
    where = endpoint or _endpoint_of(raw)
    front = Front(gateway)
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


def _endpoint_of(raw: bytes) -> str:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return "/v1/chat/completions"
    if isinstance(body, dict):
        if "messages" in body:
            return "/v1/chat/completions"
        if "prompt" in body:
            return "/v1/completions"
        if "input" in body:
            return "/v1/responses"
    return "/v1/chat/completions"
