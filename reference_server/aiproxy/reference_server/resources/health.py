"""Liveness and readiness; neither needs a key nor tells anything about the configuration."""

import falcon
import falcon.asgi

from aiproxy.middleware import Gateway
from aiproxy.reference_server.onnx.condition import condition
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.resources.documents import send


class Live:
    """``GET /healthz``: the process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = falcon.MEDIA_JSON
        resp.data = b'{"status":"ok"}'

    on_head = on_get


class Ready:
    """``GET /readyz``: at least one provider may be asked right now (AIP-API-036). A shared state
    store that is lost is told and changes nothing: each process goes by what it sees. Of local
    models the devices and states are told, not the names."""

    def __init__(self, gateway: Gateway, local: LocalModels) -> None:
        self._gateway = gateway
        self._local = local

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        now = self._gateway.runtime.now()
        ready = any(
            model.track.blocked_for(now) == 0 and model.provider.track.blocked_for(now) == 0
            for model in self._gateway.registry.models
        )
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        status = "ready" if ready else "no provider is usable"
        sharing = self._gateway.background.sharing
        store: dict[str, object] = {}
        if sharing is not None:
            store["state_store"] = "connected" if sharing.connected else "lost"
        if self._local.models:
            told = [condition(model) for model in self._local.models]
            store["local"] = [{"device": one.device, "state": one.state} for one in told]
        send(resp, {"status": status, **store})

    on_head = on_get
