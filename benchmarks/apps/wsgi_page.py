"""A tiny WSGI application inside AIProxyWSGIMiddleware; BENCH_CONFIG names its configuration."""

import os
from collections.abc import Callable
from typing import Any

from aiproxy.middleware import AIProxyWSGIMiddleware


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        environ["wsgi.input"].read(length)
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "2")])
    return [b"ok"]


mounted = AIProxyWSGIMiddleware(bare, os.environ["BENCH_CONFIG"])
