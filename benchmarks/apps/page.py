"""A tiny ASGI application, and the same one with the middleware around it.

``bare`` answers everything with a page; ``mounted`` is ``bare`` inside AIProxyMiddleware, scope
opt_in, with the configuration of BENCH_CONFIG: requests without X-AI headers pass untouched, those
with them are routed.
"""

import gc
import os
from typing import Any

HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"2")],
}
BODY = {"type": "http.response.body", "body": b"ok"}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(HEAD)
    await send(BODY)


def __getattr__(name: str) -> Any:
    """``mounted``, made when a server asks for it: ``bare`` alone must not pay for the import."""
    if name != "mounted":
        raise AttributeError(name)
    from aiproxy.middleware import AIProxyMiddleware

    app = AIProxyMiddleware(bare, os.environ["BENCH_CONFIG"])
    gc.collect()
    gc.freeze()
    return app
