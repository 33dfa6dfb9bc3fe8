"""Read-only facts about this node: what it supports, whom it can ask, how it routes."""

from time import monotonic
from typing import Any

import falcon
import falcon.asgi
import orjson

from aiproxy.middleware import Gateway
from aiproxy.middleware.errors import ProxyError
from aiproxy.spec import HEADERS


def _send(resp: falcon.asgi.Response, document: Any) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = orjson.dumps(document)


class Later:
    """A documented endpoint of a later release: 501, never an invented answer."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        raise ProxyError(
            "unsupported_capability", "This release does not serve this endpoint.", status=501
        )

    on_post = on_get


class MeshStatus:
    """``GET /aiproxy/mesh/status`` (AIProxy Standard 5.4); without a mesh the peers are empty."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._started = monotonic()

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        gateway = self._gateway
        node = gateway.config.values["node"]
        now = gateway.runtime.now()
        providers = {
            provider.id: {
                "status": "healthy" if provider.track.blocked_for(now) == 0 else "unhealthy",
                "models": len(gateway.registry.by_provider[provider.id]),
            }
            for provider in gateway.registry.providers.values()
        }
        _send(
            resp,
            {
                "node": {
                    "id": node["id"],
                    "type": node["type"],
                    "region": node["region"],
                    "uptime_seconds": int(monotonic() - self._started),
                },
                "peers": [],
                "providers": providers,
            },
        )


class Extensions:
    """``GET /v1/extensions``: the header registry as this server supports it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        _send(
            resp,
            {
                "object": "list",
                "data": [
                    {
                        "name": field.name,
                        "directions": sorted(field.directions),
                        "role": field.role,
                        "values": list(field.values),
                        "closed": field.closed,
                        "max_octets": field.max_octets,
                        "description": field.description,
                    }
                    for field in HEADERS.values()
                ],
            },
        )


class Capabilities:
    """``GET /v1/capabilities``: protocols, endpoints and what the models can do."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        gateway = self._gateway
        words: dict[str, list[str]] = {}
        for name, rows in gateway.registry.by_name.items():
            for word in sorted({word for row in rows for word in row.capabilities}):
                words.setdefault(word, []).append(name)
        _send(
            resp,
            {
                "object": "capabilities",
                "protocols": ["openai", "native"],
                "not_supported": ["grpc", "mesh", "ensemble", "conversations"],
                "endpoints": sorted(gateway.settings.endpoints),
                "capabilities": words,
            },
        )


class Providers:
    """``GET /v1/providers``: ids, condition and models; no addresses, no credentials."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        gateway = self._gateway
        now = gateway.runtime.now()
        _send(
            resp,
            {
                "object": "list",
                "data": [
                    {
                        "id": provider.id,
                        "object": "provider",
                        "type": provider.type,
                        "priority": provider.priority,
                        "default": provider is gateway.registry.default,
                        "available": provider.track.blocked_for(now) == 0,
                        "labels": sorted(provider.labels),
                        "regions": sorted(provider.regions),
                        "models": [m.name for m in gateway.registry.by_provider[provider.id]],
                    }
                    for provider in gateway.registry.providers.values()
                ],
            },
        )


class Routing:
    """``GET /v1/routing``: the strategy, failover settings and policies in force."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        settings = self._gateway.settings
        _send(
            resp,
            {
                "object": "routing",
                "strategy": settings.strategy,
                "default_provider": self._gateway.registry.default.id,
                "timeout_ms": int(settings.timeout_s * 1000),
                "failover": {
                    "enabled": settings.failover.enabled,
                    "max_retries": settings.failover.max_retries,
                    "fallback_chain": list(settings.failover.chain),
                },
                "policies": [
                    row.get("name")
                    for row in self._gateway.config.values["routing"]["policies"]
                ],
            },
        )
