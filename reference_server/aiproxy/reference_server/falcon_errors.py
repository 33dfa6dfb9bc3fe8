"""Whatever goes wrong in the Falcon application, as the error object of the path's API."""

from logging import getLogger
from typing import Any, Final

import falcon
import falcon.asgi
import orjson

from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.ingress import refusal, speaks
from aiproxy.reference_server.onnx.errors import LocalError

log = getLogger("aiproxy")

#: What Falcon itself refuses; any other refusal of its own is a malformed request.
_FALCON_CODES: Final = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method; see Allow."),
    413: ("request_too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body must be JSON."),
}


def handle_errors(app: "falcon.asgi.App[Any, Any]") -> None:
    """Install the handlers."""
    app.add_error_handler(Exception, _bug)
    app.add_error_handler(ProxyError, _proxy_error)
    app.add_error_handler(LocalError, _local_error)
    app.add_error_handler(falcon.HTTPError, _falcon_error)


async def _proxy_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: ProxyError, params: Any
) -> None:
    identity = getattr(req.context, "request_id", "")
    resp.status, resp.data = refusal(error, speaks(req.path), identity)
    resp.content_type = falcon.MEDIA_JSON
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


async def _falcon_error(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError, params: Any
) -> None:
    code, message = _FALCON_CODES.get(
        error.status_code, ("invalid_value", "The request is malformed.")
    )
    given: Any = dict(error.headers or {})
    headers = (("allow", given["Allow"]),) if "Allow" in given else ()
    refusal = ProxyError(code, message, status=error.status_code, headers=headers)
    await _proxy_error(req, resp, refusal, params)


async def _bug(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: Exception, params: Any
) -> None:
    identity = getattr(req.context, "request_id", "unknown")
    log.error("request %s failed", identity, exc_info=error)
    refusal = ProxyError("internal_error", f"The server failed on this request; quote {identity}.")
    await _proxy_error(req, resp, refusal, params)
