"""An upstream that speaks every dialect: it calls the tool it is offered, else it answers in text.

The shapes are those of ``tests/dialects/fidelity``, written from the providers' references.
"""

import json
import sys
from pathlib import Path
from typing import Any, Self

from upstreams import free_port, serve_asgi

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "dialects"))

from fidelity.answers import Answer, Called
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import wire_of
from fidelity.request_readers import understood

#: The end of a path -> the dialect that is spoken there.
PATHS = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/messages": "anthropic",
    ":generateContent": "gemini",
    ":streamGenerateContent": "gemini",
}


#: What a provider of the Responses API says of every response: it is passed on as it came.
COMPLETE: dict[str, Any] = {
    "background": False,
    "completed_at": 2,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": False,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}


def completed(payload: dict[str, Any]) -> dict[str, Any]:
    """A response, or an event that holds one, with all its members."""
    if payload.get("object") == "response":
        done = payload["status"] != "in_progress"
        return {**payload, **COMPLETE, "completed_at": COMPLETE["completed_at"] if done else None}
    if "response" in payload:
        return {**payload, "response": completed(payload["response"])}
    return payload


class Speaker:
    """Use as a context manager. ``seen`` are pairs of a dialect and a body."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.port = free_port()

    def __enter__(self) -> Self:
        self._server, self._thread = serve_asgi(self._app, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    def url(self, base: str) -> str:
        return f"http://127.0.0.1:{self.port}{base}"

    def answer(self, dialect: str, body: dict[str, Any]) -> Answer:
        facts = understood(dialect, body)
        tools = [fact[1] for fact in facts if fact[0] == "tool"]
        answered = any(fact[0] == "answered" for fact in facts)
        if tools and not answered:
            calls = tuple(
                Called(f"call_{n}", name, '{"location":"San Francisco, CA"}')
                for n, name in enumerate(tools)
            )
            return Answer("calls", calls=calls, finish="tool_calls")
        return Answer("text", "Ahoy there, matey!")

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        path = scope["path"]
        dialect = next((d for end, d in PATHS.items() if path.endswith(end)), None)
        if dialect is None:
            await self._send(
                send, 404, b'{"error":{"message":"no such path"}}', b"application/json"
            )
            return
        body = json.loads(raw)
        self.seen.append((dialect, body))
        answer = self.answer(dialect, body)
        if body.get("stream") is True or path.endswith(":streamGenerateContent"):
            stream = PROVIDERS[dialect].stream(answer)
            if dialect == "responses":
                stream = [(event, completed(payload)) for event, payload in stream]
            wire = wire_of(stream)
            wire += b"data: [DONE]\n\n" if dialect == "chat" else b""
            await self._send(send, 200, wire, b"text/event-stream")
        else:
            whole = PROVIDERS[dialect].whole(answer)
            whole = completed(whole) if dialect == "responses" else whole
            await self._send(send, 200, json.dumps(whole).encode(), b"application/json")

    @staticmethod
    async def _send(send: Any, status: int, body: bytes, kind: bytes) -> None:
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
