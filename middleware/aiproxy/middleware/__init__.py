"""Multi-provider AI inference as middleware: the draft's X-AI headers and ``auto`` parameters
around any ASGI or WSGI application that speaks the OpenAI API.

``AIProxyMiddleware(app, config)`` mounts it under ASGI, ``AIProxyWSGIMiddleware(app, config)``
under WSGI. A request without an X-AI header is the application's, untouched.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiproxy.middleware.asgi import AIProxyMiddleware
    from aiproxy.middleware.config import ConfigInvalid, load_config
    from aiproxy.middleware.gateway import Gateway
    from aiproxy.middleware.wsgi import AIProxyWSGIMiddleware

__all__ = [
    "AIProxyMiddleware",
    "AIProxyWSGIMiddleware",
    "ConfigInvalid",
    "Gateway",
    "load_config",
]

_HOMES = {
    "AIProxyMiddleware": "asgi",
    "AIProxyWSGIMiddleware": "wsgi",
    "ConfigInvalid": "config",
    "Gateway": "gateway",
    "load_config": "config",
}


def __getattr__(name: str) -> Any:
    """Load a mount when it is asked for: WSGI users never import aiohttp, ASGI users never urllib3."""
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"aiproxy.middleware.{home}"), name)
