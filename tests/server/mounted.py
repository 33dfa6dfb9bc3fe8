"""A small application with the middleware around it: ``python mounted.py asgi CONFIG PORT``.

The application, which is a provider too, has no models and no paths of its own, and says so as any
OpenAI-compatible server does.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from aiproxy.middleware import AIProxyMiddleware, AIProxyWSGIMiddleware

_ERROR = {
    "message": "There is nothing of that name here.",
    "type": "invalid_request_error",
    "param": "model",
    "code": "model_not_found",
}
BODY = json.dumps({"error": _ERROR}).encode()
FIELDS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]


async def asynchronous(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answer everything with 404, as an ASGI application."""
    while scope["type"] == "lifespan":
        told = (await receive())["type"]
        await send({"type": f"{told}.complete"})
        if told == "lifespan.shutdown":
            return
    headers = [(name.encode(), value.encode()) for name, value in FIELDS]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def threaded(environ: Any, start_response: Callable[..., Any]) -> list[bytes]:
    """Answer everything with 404, as a WSGI application."""
    start_response("404 Not Found", FIELDS)
    return [BODY]


def serve_asgi(config: str, port: str) -> None:
    """Serve under uvicorn until a signal."""
    import uvicorn

    app: Any = AIProxyMiddleware(asynchronous, config=config)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error")


def serve_wsgi(config: str, port: str) -> None:
    """Serve under gunicorn until a signal."""
    os.environ["HOME"] = os.path.dirname(config)  # recent gunicorn leaves a control socket there
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("bind", f"127.0.0.1:{port}")
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("threads", 32)
            self.cfg.set("loglevel", "error")

        def load(self) -> Any:
            return AIProxyWSGIMiddleware(threaded, config=config)

    Server().run()


if __name__ == "__main__":
    {"asgi": serve_asgi, "wsgi": serve_wsgi}[sys.argv[1]](*sys.argv[2:])
