"""The Falcon application and how it is put together with the middleware.

The Falcon part is a plain single-provider server: the local models over the OpenAI API, health
and facts about itself. The middleware around it sees every request (scope ``all``) and reaches the
local models the way it reaches any provider, through the wrapped application.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, cast

import falcon.asgi

from aiproxy.middleware import AIProxyMiddleware, Gateway
from aiproxy.middleware.asgi import App, Receive, Scope, Sender
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.gateway import Runtime
from aiproxy.middleware.intake.admission import request_id
from aiproxy.middleware.settings import MODEL_FOLDER
from aiproxy.reference_server.configuration import load_local_models, read_config
from aiproxy.reference_server.falcon_errors import handle_errors
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.resources import about, classification, health, openai
from aiproxy.reference_server.resources.documents import Document

#: Served by a later release; answered with an honest 501 until then, and not advertised.
LATER: Final = ("/v1/analytics", "/v1/performance", "/dashboard", "/v1/images/generations")
#: Endpoints a given ``server.endpoints`` list leaves out by not naming them. The facts about the
#: node are no part of the Standard's list: they go only where an entry says ``enabled: false``.
_LISTED: Final = frozenset({"/v1/models", "/aiproxy/mesh/status"})
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_NOWHERE: Final = "/switched-off"


def create_app(
    config: Any = None,
    *,
    on_decision: Callable[[Decision], None] | None = None,
    runtime: Runtime | None = None,
    allow_unenforced: bool = False,
) -> "Server":
    """Return the server as an ASGI application.

    ``config`` is a path, a mapping, a loaded ``Config``, or ``None`` for the embedded default
    (the demo model, cloud providers whose keys are in the environment, local servers that answer).

    Raises:
        ConfigInvalid: a bad configuration, or one that asks for protections this release does not
            enforce (``allow_unenforced`` runs without them).
    """
    local, usable = load_local_models(read_config(config))
    gateway = Gateway(
        usable,
        wrapped_app=False,
        scope="all",
        runtime=runtime,
        on_decision=on_decision,
        allow_unenforced=allow_unenforced,
    )
    return Server(cast(App, falcon_app(gateway, local)), gateway, local)


class Server(AIProxyMiddleware):
    """The middleware around the Falcon application, with the paths of this server made plain.

    A trailing slash is dropped before anything looks at the path, and an endpoint that
    ``server.endpoints`` switches off is answered like any path that does not exist (AIP-API-035).
    """

    def __init__(self, app: App, gateway: Gateway, local: LocalModels) -> None:
        super().__init__(app, gateway)
        self.local = local
        self._off = switched_off(gateway.config.values["server"]["endpoints"])

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path[-1:] == "/":
                path = path.rstrip("/") or "/"
                scope = {**scope, "path": path}
            if self._is_off(path):
                scope = {**scope, "path": _NOWHERE}
        await super().__call__(scope, receive, send)

    def _is_off(self, path: str) -> bool:
        # Images are classified by way of predict; the middleware asks below here.
        if path == classification.PATH:
            return True
        return any(path == off or path.startswith(off + "/") for off in self._off)


def switched_off(rows: list[dict[str, Any]] | None) -> frozenset[str]:
    """The paths, beside the inference ones, that a ``server.endpoints`` list does not serve."""
    if rows is None:
        return frozenset()
    on = {row["path"].rstrip("/") for row in rows if row["enabled"]}
    named = {row["path"].rstrip("/") for row in rows}
    return (_LISTED | named) - on - _HEALTH


def falcon_app(gateway: Gateway, local: LocalModels) -> "falcon.asgi.App[Any, Any]":
    """The Falcon application by itself: level 1, one provider."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_middleware(_RequestId(gateway))
    app.add_middleware(_Closing(local))
    handle_errors(app)
    app.add_route("/v1/chat/completions", openai.Chat(local))
    app.add_route("/v1/completions", openai.Completions(local))
    app.add_route("/v1/embeddings", openai.Embeddings(local))
    app.add_route(classification.PATH, classification.Classifications(local))
    app.add_route("/v1/responses", openai.NotLocal())
    app.add_route("/aiproxy/predict", openai.NotLocal())
    app.add_route("/v1/messages", openai.NotLocal())
    app.add_route("/v1/messages/count_tokens", openai.NotLocal())
    app.add_route(MODEL_FOLDER, openai.NotLocalModels())
    app.add_route(MODEL_FOLDER + "/{name:path}", openai.NotLocalModel())
    app.add_route("/v1/models", openai.Models(local))
    app.add_route("/v1/models/{name:path}", openai.Model(local))
    app.add_route("/healthz", health.Live())
    app.add_route("/readyz", health.Ready(gateway, local))
    app.add_route(
        "/aiproxy/mesh/status", Document(partial(about.mesh_status, gateway, monotonic()))
    )
    app.add_route("/v1/extensions", Document(about.extensions))
    app.add_route("/v1/capabilities", Document(partial(about.capabilities, gateway)))
    app.add_route("/v1/providers", Document(partial(about.providers, gateway, local)))
    app.add_route("/v1/routing", Document(partial(about.routing, gateway)))
    app.add_route("/v1/routing/decisions/{request_id}", about.Decisions(gateway))
    for path in LATER:
        app.add_route(path, about.Later())
    return app


class _RequestId:
    """``x-request-id`` on every response of the Falcon part."""

    def __init__(self, gateway: Gateway) -> None:
        self._new_id = gateway.runtime.new_id

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        given = req.get_header("x-request-id")
        pairs = (("x-request-id", given),) if given else ()
        req.context.request_id = request_id(pairs, self._new_id)
        resp.set_header("x-request-id", req.context.request_id)


class _Closing:
    """Ends the local models' threads at shutdown."""

    def __init__(self, local: LocalModels) -> None:
        self._local = local

    async def process_shutdown(self, scope: Any, event: Any) -> None:
        await self._local.close()
