"""What becomes of requests that are still being served when the drain time is over."""

import asyncio
from secrets import token_hex

from aiproxy.middleware.asgi import App, Message, Receive, Scope, Sender
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.admission import request_id
from aiproxy.middleware.intake.front import lower


class Ending:
    """Answers for requests that are cut off because the drain time is over.

    uvicorn cancels them: one that has no answer yet gets 503, a begun one ends without its last
    chunk, which every client can tell from a whole answer.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Sender) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            if not started:
                await _unavailable(scope, send)


async def _unavailable(scope: Scope, send: Sender) -> None:
    error = ProxyError("provider_overloaded", "The server is shutting down.", retry_after_s=1)
    body = error.encode()
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
        ("x-request-id", request_id(lower(scope["headers"]), lambda: token_hex(12))),
        *error.response_headers(),
    ]
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
