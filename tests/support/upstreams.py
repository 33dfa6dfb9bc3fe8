"""A scripted OpenAI-compatible upstream on a real socket, for tests.

It records every request (path, headers, body) and answers as told: a status, a body, a delay, a
stream cut at will. One instance is one provider; its text says which one answered.
"""

import asyncio
import itertools
import json
import os
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    aborted: bool = False


@dataclass
class Script:
    """What the upstream does. ``chunks`` are stream deltas; ``cut_after`` ends the stream early. It
    answers after ``delay_s``, and not before ``released`` is set."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    released: threading.Event | None = None
    text: str | None = None
    chunks: list[str] = field(default_factory=list)
    gap_s: float = 0.0
    cut_after: int | None = None
    done: bool = True
    finish: bool = True
    error_after: int | None = None
    usage: dict[str, int] | None = field(
        default_factory=lambda: {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
    )
    raw: bytes | None = None
    content_type: str = "application/json"
    message: dict[str, Any] | None = None


class Upstream:
    """Use as a context manager; ``url`` is the base URL with ``/v1``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.script = Script()
        self.queue: list[Script] = []
        self.seen: list[Seen] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server, self._thread = serve_asgi(self._app, self.port)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._server.force_exit = True
            self._thread.join(10)
            self._server = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        seen = Seen(
            scope["path"],
            {k.decode(): v.decode("latin-1") for k, v in scope["headers"]},
            json.loads(body) if body else {},
            time.monotonic(),
        )
        self.seen.append(seen)
        script = self.queue.pop(0) if self.queue else self.script
        waiter = asyncio.ensure_future(self._gone(receive, seen))
        try:
            await self._answer(scope, seen, script, send)
        finally:
            waiter.cancel()

    @staticmethod
    async def _gone(receive: Any, seen: Seen) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.aborted = True

    async def _answer(self, scope: Any, seen: Seen, script: Script, send: Any) -> None:
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        while script.released is not None and not script.released.is_set():
            await asyncio.sleep(0.005)
        streaming = seen.body.get("stream") is True and script.status == 200
        if streaming and script.raw is None and script.body is None:
            await self._stream(seen, script, send)
            return
        if script.raw is not None:
            payload, kind = script.raw, script.content_type
        else:
            document = script.body
            if document is None:
                document = (
                    self._error(script) if script.status >= 400 else self._reply(seen, script)
                )
            payload, kind = json.dumps(document, ensure_ascii=False).encode(), "application/json"
        headers = [(b"content-type", kind.encode())]
        headers += [(k.encode(), v.encode("latin-1")) for k, v in script.headers.items()]
        await send({"type": "http.response.start", "status": script.status, "headers": headers})
        await send({"type": "http.response.body", "body": payload})

    def _error(self, script: Script) -> dict[str, Any]:
        return {
            "error": {
                "message": f"SECRET-TEXT of {self.name} key=sk-upstream-{self.name}",
                "type": "server_error" if script.status >= 500 else "invalid_request_error",
                "param": None,
                "code": None,
            }
        }

    def text(self, script: Script) -> str:
        return script.text if script.text is not None else f"served by {self.name}"

    def _reply(self, seen: Seen, script: Script) -> dict[str, Any]:
        model = seen.body.get("model")
        if seen.path.endswith("/embeddings"):
            given = seen.body["input"]
            count = len(given) if isinstance(given, list) else 1
            rows = [
                {"object": "embedding", "index": i, "embedding": [0.25, -0.5, float(i)]}
                for i in range(count)
            ]
            usage = {"prompt_tokens": 4, "total_tokens": 4}
            return {"object": "list", "data": rows, "model": model, "usage": usage}
        text = self.text(script)
        if seen.path.endswith("/responses"):
            return response_object(self.name, str(model), text)
        if seen.path.endswith("/chat/completions"):
            message = script.message or {"role": "assistant", "content": text}
            reason = "tool_calls" if message.get("tool_calls") else "stop"
            choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
            kind = "chat.completion"
        else:
            choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
            kind = "text_completion"
        reply = {
            "id": f"chatcmpl-{self.name}-{len(self.seen)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "choices": [choice],
        }
        if script.usage is not None:
            reply["usage"] = script.usage
        return reply

    async def _stream(self, seen: Seen, script: Script, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        headers += [(k.encode(), v.encode("latin-1")) for k, v in script.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        frames = self._frames(seen, script)
        for number, frame in enumerate(frames):
            if script.cut_after is not None and number > script.cut_after:
                raise ConnectionResetError("cut on purpose")
            if number and script.gap_s:
                await asyncio.sleep(script.gap_s)
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _frames(self, seen: Seen, script: Script) -> list[bytes]:
        pieces = script.chunks or [word + " " for word in self.text(script).split()]
        if seen.path.endswith("/responses"):
            return responses_frames(self.name, str(seen.body.get("model")), pieces)
        base = {
            "id": f"chatcmpl-{self.name}-{len(self.seen)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": seen.body.get("model"),
        }

        def frame(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
            return b"data: " + json.dumps({**base, "choices": [choice], **more}).encode() + b"\n\n"

        frames = [frame({"role": "assistant", "content": ""})]
        for number, piece in enumerate(pieces):
            if script.error_after is not None and number == script.error_after:
                frames.append(
                    b'data: {"error":{"message":"SECRET-TEXT overloaded","code":null}}\n\n'
                )
                return frames
            frames.append(frame({"content": piece}))
        if script.finish:
            frames.append(frame({}, "stop"))
        options = seen.body.get("stream_options") or {}
        if options.get("include_usage") and script.usage:
            usage = {**base, "choices": [], "usage": script.usage}
            frames.append(b"data: " + json.dumps(usage).encode() + b"\n\n")
        if script.done:
            frames.append(b"data: [DONE]\n\n")
        return frames


def response_object(name: str, model: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": model,
        "output": [item],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 12,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 21,
        },
    }


def responses_frames(name: str, model: str, pieces: list[str]) -> list[bytes]:
    text = "".join(pieces)
    whole = response_object(name, model, text)
    started = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = whole["output"][0]
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**item, "status": "in_progress", "content": []},
        },
        {
            "type": "response.content_part.added",
            **at,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        *(
            {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
            for piece in pieces
        ),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": item["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(events)
    ]


#: Above what the conformance suite's targets take, below where the system takes the ports of
#: outgoing connections from: a port from there may be gone before its server is up.
#: Each worker of pytest-xdist has a part of its own.
_WORKERS, _LOWEST, _EACH = 8, 20_000, 1_500
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_ports = list(range(_LOWEST + _worker * _EACH, _LOWEST + (_worker + 1) * _EACH))
random.SystemRandom().shuffle(_ports)  # hypothesis makes the common generator repeat itself
_turns = itertools.cycle(_ports)


def free_port() -> int:
    """Return a port nobody listens on, and which is not given out again soon."""
    while True:
        port = next(_turns)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def serve_asgi(app: Any, port: int) -> tuple[uvicorn.Server, threading.Thread]:
    """Serve an ASGI app in a thread; returns once it accepts connections."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="auto",
        interface="asgi3",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the test server did not start")
        time.sleep(0.01)
    return server, thread
