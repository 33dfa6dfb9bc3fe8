"""The complete server: a Falcon application that serves local ONNX models over the OpenAI API,
with the public middleware mounted on top for every other provider.

``create_app(config)`` returns the ASGI application; ``aiproxy serve`` runs it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiproxy.reference_server.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from aiproxy.reference_server.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
