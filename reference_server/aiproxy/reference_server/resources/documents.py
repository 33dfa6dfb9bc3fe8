"""The one way a resource answers with JSON."""

from collections.abc import Callable
from typing import Any

import falcon
import falcon.asgi
import orjson


def send(resp: falcon.asgi.Response, document: Any) -> None:
    """Make ``document`` the body of a response."""
    resp.content_type = falcon.MEDIA_JSON
    resp.data = orjson.dumps(document)


class Document:
    """A read-only resource (GET, HEAD) whose document is made anew for each request."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        send(resp, self._make())

    on_head = on_get
