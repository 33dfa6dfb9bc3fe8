"""The Falcon application and how it is put together with the middleware.

The Falcon part is a plain single-provider server: the local models over the OpenAI API, health
and facts about itself. The middleware around it sees every request (scope ``all``) and reaches the
local models the way it reaches any provider, through the wrapped application.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import falcon
import falcon.asgi
import orjson

from aiproxy.middleware import AIProxyMiddleware, Gateway, load_config
from aiproxy.middleware.admission import request_id
from aiproxy.middleware.config import Config
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Runtime
from aiproxy.reference_server.embedded import embedded_config
from aiproxy.reference_server.onnx.errors import LocalError
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.resources import about, health, openai

#: What stands where a configuration file says nothing: this server looks at every request.
BASE: Final[Mapping[str, Any]] = {"routing": {"scope": "all"}}

#: Served by a later release; answered with an honest 501 until then, and not advertised.
LATER: Final = ("/v1/analytics", "/v1/performance", "/dashboard", "/v1/images/generations")


def create_app(
    config: Any = None,
    *,
    on_decision: Callable[[Decision], None] | None = None,
    runtime: Runtime | None = None,
) -> AIProxyMiddleware:
    """Return the server as an ASGI application.

    ``config`` is a path, a mapping, a loaded ``Config``, or ``None`` for the embedded default
    (the demo model, cloud providers whose keys are in the environment, local servers that answer).

    Raises:
        ConfigInvalid: a bad configuration.
    """
    if config is None:
        config = embedded_config()
    loaded = config if isinstance(config, Config) else load_config(config, base=BASE)
    local, usable = load_local_models(loaded)
    gateway = Gateway(
        usable, wrapped_app=False, scope="all", runtime=runtime, on_decision=on_decision
    )
    return AIProxyMiddleware(falcon_app(gateway, local), gateway)


def load_local_models(config: Config) -> tuple[LocalModels, Config]:
    """Load what providers of type ``local`` list; return it with the configuration that remains.

    A model that cannot run (missing file, runtime not available) is not offered: it is taken out
    of the configuration and stays in ``LocalModels`` with its reason.
    """
    values = dict(config.values)
    providers: dict[str, Any] = {}
    loaded = []
    for name, entry in values["providers"].items():
        if not entry["enabled"] or (entry["type"] or name) != "local":
            providers[name] = entry
            continue
        models = LocalModels.from_config(entry)
        running = {model.name for model in models.models if model.available}
        rows = [_with_context(row, models) for row in entry["models"] if row["name"] in running]
        providers[name] = {**entry, "models": rows, "enabled": bool(rows)}
        loaded += models.models
    values["providers"] = providers
    return LocalModels(tuple(loaded)), replace(config, values=values)


def _with_context(row: Mapping[str, Any], models: LocalModels) -> dict[str, Any]:
    window = next(m.context_window for m in models.models if m.name == row["name"])
    return {**row, "context_window": row.get("context_window") or window}


def falcon_app(gateway: Gateway, local: LocalModels) -> falcon.asgi.App:
    """The Falcon application by itself: level 1, one provider."""
    app = falcon.asgi.App(middleware=[_RequestId(gateway), _Closing(local)])
    app.req_options.strip_url_path_trailing_slash = True
    app.add_error_handler(ProxyError, _proxy_error)
    app.add_error_handler(LocalError, _local_error)
    app.add_error_handler(Exception, _bug)
    app.set_error_serializer(_serialize)
    app.add_route("/v1/chat/completions", openai.Chat(local))
    app.add_route("/v1/completions", openai.Completions(local))
    app.add_route("/v1/embeddings", openai.Embeddings(local))
    app.add_route("/v1/responses", openai.NotLocal())
    app.add_route("/v1/models", openai.Models(local))
    app.add_route("/v1/models/{name:path}", openai.Model(local))
    app.add_route("/healthz", health.Live())
    app.add_route("/readyz", health.Ready(gateway))
    app.add_route("/aiproxy/predict", openai.NotLocal())
    app.add_route("/aiproxy/mesh/status", about.MeshStatus(gateway))
    app.add_route("/v1/extensions", about.Extensions(gateway))
    app.add_route("/v1/capabilities", about.Capabilities(gateway))
    app.add_route("/v1/providers", about.Providers(gateway))
    app.add_route("/v1/routing", about.Routing(gateway))
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


async def _proxy_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: ProxyError, params: Any
) -> None:
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = error.encode()
    for name, value in error.response_headers():
        resp.set_header(name, value)


async def _local_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: LocalError, params: Any
) -> None:
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    # `reason` tells the router of this process why (local_gpu_busy); it is not a public code.
    code = getattr(error, "reason", None) if error.code == "provider_overloaded" else error.code
    body = {"message": error.message, "type": error.kind, "param": error.param, "code": code}
    resp.data = orjson.dumps({"error": body})


async def _bug(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: Any
) -> None:
    if isinstance(error, falcon.HTTPStatus | falcon.HTTPError):
        raise error
    from logging import getLogger

    identity = getattr(req.context, "request_id", "unknown")
    getLogger("aiproxy").error("request %s failed", identity, exc_info=error)
    await _proxy_error(
        req,
        resp,
        ProxyError("internal_error", f"The server failed on this request; quote {identity}."),
        params,
    )


_FALCON_CODES: Final = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method; see Allow."),
    413: ("request_too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body must be JSON."),
}


def _serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Falcon's own refusals in the OpenAI shape."""
    code, message = _FALCON_CODES.get(
        error.status_code, ("invalid_value", "The request is malformed.")
    )
    resp.content_type = falcon.MEDIA_JSON
    resp.data = ProxyError(code, message).encode()
