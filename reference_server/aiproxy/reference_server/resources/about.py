"""Read-only facts about this node: what it supports, whom it can ask, how it routes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import monotonic
from typing import Any

import falcon.asgi

from aiproxy.middleware import Gateway
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.ingress import Routes
from aiproxy.middleware.registry import Model, Provider
from aiproxy.middleware.watching.condition import provider_condition
from aiproxy.reference_server.onnx.condition import condition
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.spec import HEADERS


class Later:
    """A documented endpoint of a later release: 501, never an invented answer."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        raise ProxyError(
            "unsupported_capability", "This release does not serve this endpoint.", status=501
        )

    on_head = on_get
    on_post = on_get


class Decisions:
    """``GET /v1/routing/decisions/{request_id}``; the middleware answers it with the caller's key
    in mind, and this route is there for 405 and its Allow header."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, request_id: str
    ) -> None:
        raise ProxyError("not_found", "No decision with this request id is kept here.")

    on_head = on_get


def mesh_status(gateway: Gateway, started: float) -> dict[str, Any]:
    """``GET /aiproxy/mesh/status`` (AIProxy Standard 5.4); without a mesh the peers are empty.

    ``started`` is the monotonic time of the start, in seconds.
    """
    node = gateway.config.values["node"]
    return {
        "node": {
            "id": node["id"],
            "type": node["type"],
            "region": node["region"],
            "uptime_seconds": int(monotonic() - started),
        },
        "peers": [],
        "providers": {
            provider.id: {
                "status": "healthy" if available(gateway, provider) else "unhealthy",
                "models": len(gateway.registry.by_provider[provider.id]),
            }
            for provider in gateway.registry.providers.values()
        },
    }


def extensions() -> dict[str, Any]:
    """``GET /v1/extensions``: the header registry as this server supports it."""
    return {
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
    }


def capabilities(gateway: Gateway) -> dict[str, Any]:
    """``GET /v1/capabilities``: protocols, endpoints and what the models can do."""
    words: dict[str, list[str]] = {}
    for name, rows in gateway.registry.by_name.items():
        for word in sorted({word for row in rows for word in row.capabilities}):
            words.setdefault(word, []).append(name)
    return {
        "object": "capabilities",
        "protocols": ["openai", "native", "anthropic", "google"],
        "not_supported": ["grpc", "mesh"],
        "ensembles": list(gateway.ensembles),
        "conversations": gateway.conversations.about(),
        "endpoints": Routes(gateway.settings).labels(),
        "capabilities": words,
    }


def providers(gateway: Gateway, local: LocalModels) -> dict[str, Any]:
    """``GET /v1/providers``: ids, condition and models; no addresses, no credentials (ASC-HEALTH-001).

    ``local_models`` are all that are configured, those that cannot run with the reason.
    """
    registry = gateway.registry
    told = gateway.config.values["providers"]
    return {
        "object": "list",
        "data": [
            {
                "id": provider.id,
                "object": "provider",
                "name": provider.id,
                "displayName": _told(told, provider, "display_name") or provider.id,
                "description": _told(told, provider, "description") or f"{provider.type} provider",
                "type": provider.type,
                "priority": provider.priority,
                "default": provider is registry.default,
                "available": available(gateway, provider),
                "labels": sorted(provider.labels),
                "regions": sorted(provider.regions),
                "models": _names(registry.by_provider[provider.id]),
                "health": provider_condition(gateway, provider),
            }
            for provider in registry.providers.values()
        ],
        "local_models": [asdict(condition(model)) for model in local.models],
        **shared_state(gateway),
    }


def _told(providers: Mapping[str, Any], provider: Provider, key: str) -> str | None:
    """What the operator wrote; a provider that nobody configured has none of it."""
    value: str | None = providers.get(provider.id, {}).get(key)
    return value


def routing(gateway: Gateway) -> dict[str, Any]:
    """``GET /v1/routing``: the strategy, failover settings and policies in force."""
    settings = gateway.settings
    return {
        "object": "routing",
        "strategy": settings.strategy,
        "default_provider": gateway.registry.default.id,
        "timeout_ms": int(settings.timeout_s * 1000),
        "failover": {
            "enabled": settings.failover.enabled,
            "max_retries": settings.failover.max_retries,
            "fallback_chain": list(settings.failover.chain),
        },
        "policies": [row.get("name") for row in gateway.config.values["routing"]["policies"]],
    }


def shared_state(gateway: Gateway) -> dict[str, Any]:
    """Whether health is shared with other processes at this moment; nothing where it never is."""
    sharing = gateway.background.sharing
    return {} if sharing is None else {"state": sharing.status()}


def available(gateway: Gateway, provider: Provider) -> bool:
    """Whether the provider may be asked now."""
    return provider.track.blocked_for(gateway.runtime.now()) == 0


def _names(models: Sequence[Model]) -> list[str]:
    return [model.name for model in models]
