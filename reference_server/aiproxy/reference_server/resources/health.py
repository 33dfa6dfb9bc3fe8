"""Liveness and readiness; neither needs a key nor tells anything about the configuration."""

import falcon
import falcon.asgi

from aiproxy.middleware import Gateway
from aiproxy.reference_server.resources.documents import send


class Live:
    """``GET /healthz``: the process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"status":"ok"}'

    on_head = on_get


class Ready:
    """``GET /readyz``: at least one provider may be asked right now (AIP-API-036). A shared state
    store that is lost is told and changes nothing: each process goes by what it sees."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        now = self._gateway.runtime.now()
        ready = any(
            model.track.blocked_for(now) == 0 and model.provider.track.blocked_for(now) == 0
            for model in self._gateway.registry.models
        )
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        status = "ready" if ready else "no provider is usable"
        sharing = self._gateway.background.sharing
        store = {}
        if sharing is not None:
            store["state_store"] = "connected" if sharing.connected else "lost"
        send(resp, {"status": status, **store})

    on_head = on_get
