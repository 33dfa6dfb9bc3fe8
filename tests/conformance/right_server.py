"""A small right server on a real socket, and the switches that make it wrong.

It knows nothing of AIProxy: one model behind the plain OpenAI API. ``RightServer(defects)`` breaks
exactly what the named defects say; ``Liar`` answers everything the same way.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Self
from uuid import uuid4

MODEL = "small-right-model"
KEY = "right-key-0123456789"
ROLES = {"system", "developer", "user", "assistant", "tool"}


class Refusal(Exception):
    """A request the server will not serve."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


class RightServer(ThreadingHTTPServer):
    """Serves until the ``with`` block ends. ``key`` is asked of clients when given."""

    daemon_threads = True

    def __init__(
        self,
        *defects: str,
        key: str | None = None,
        handler: "type[Handler] | None" = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), handler or Handler)
        self.defects, self.key, self.numbers = frozenset(defects), key, count(1)
        self.log: list[tuple[str, str, bytes]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 20
    server: RightServer

    def has(self, defect: str) -> bool:
        return defect in self.server.defects

    def log_message(self, *words: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self.serve()

    do_POST = do_PUT = do_HEAD = do_OPTIONS = do_GET

    def serve(self) -> None:
        try:
            self.content = self.take_body()
            self.server.log.append((self.command, self.path, self.content))
            self.route()
        except Refusal as refusal:
            self.refuse(refusal)

    def take_body(self) -> bytes:
        lengths = self.headers.get_all("content-length") or []
        if len(set(lengths)) > 1 and not self.has("two-lengths"):
            self.close_connection = True
            raise Refusal(400, "invalid_request", "two lengths")
        if "chunked" in self.headers.get("transfer-encoding", ""):
            if self.has("no-chunked-requests"):
                self.close_connection = True
                raise Refusal(411, "length_required", "Content-Length is required")
            return b"".join(iter(self.take_chunk, b""))
        return self.rfile.read(int(lengths[0])) if lengths else b""

    def take_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def route(self) -> None:
        if self.has("close-each-connection"):
            self.close_connection = True
        if self.has("crash-on-head") and self.command == "HEAD":
            raise Refusal(500, "internal_error", "no HEAD here")
        if self.path in ("/healthz", "/readyz"):
            if self.has("no-health"):
                raise Refusal(404, "not_found", "no health here")
            status = 503 if self.has("health-500") else 200
            return self.send_json(status, {"status": "ok"})
        if self.has("needs-user-agent") and "user-agent" not in self.headers:
            raise Refusal(403, "forbidden", "who are you?")
        self.authenticate()
        if self.path.rstrip("/") == "/v1/models":
            return self.send_models()
        if self.path.startswith("/v1/models/"):
            known = self.path.rpartition("/")[2] == MODEL
            if known and not self.has("model-entry-missing"):
                return self.send_json(200, self.entry())
            raise Refusal(404, "model_not_found", "no such model", "model")
        if self.path == "/v1/chat/completions":
            return self.chat()
        if self.path == "/v1/completions" and not self.has("no-completions"):
            return self.completions()
        if self.has("unknown-path-500"):
            raise Refusal(500, "internal_error", "lost")
        raise Refusal(404, "not_found", f"no route {self.path}")

    def authenticate(self) -> None:
        if self.server.key is None:
            return
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        if self.has("scheme-case") and scheme != "Bearer":
            raise Refusal(401, "invalid_api_key", "not a bearer key")
        right = scheme.lower() == "bearer" and key == self.server.key
        if right or (self.has("any-key") and key):
            return
        if self.has("key-403"):
            raise Refusal(403, "forbidden", "no")
        if self.has("echo-keys"):
            raise Refusal(401, "invalid_api_key", f"the key is {self.server.key}")
        raise Refusal(401, "invalid_api_key", "the key is missing or wrong")

    def entry(self) -> dict[str, Any]:
        entry = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "tests"}
        if self.has("models-no-created"):
            del entry["created"]
        return entry

    def send_models(self) -> None:
        if self.command in ("HEAD", "OPTIONS"):
            return self.send_json(200, {}, silent=self.command == "HEAD")
        listed = [self.entry()]
        if self.has("models-twice"):
            listed *= 2
        if self.has("lists-a-ghost"):
            listed.insert(0, {**self.entry(), "id": "ghost-model"})
        shape: Any = {"object": "models" if self.has("models-object") else "list", "data": listed}
        return self.send_json(200, listed if self.has("models-bare-list") else shape)

    def chat(self) -> None:
        if self.command != "POST":
            if self.has("any-method"):
                return self.send_json(200, {})
            raise Refusal(405, "method_not_allowed", "use POST")
        media = self.headers.get("content-type", "").partition(";")[0]
        if media != "application/json":
            status = 500 if self.has("media-type-500") else 415
            raise Refusal(status, "unsupported_media_type", "send application/json")
        if self.has("needs-x-ai") and "x-ai-multi-provider" not in self.headers:
            raise Refusal(400, "invalid_header", "X-AI-Multi-Provider missing")
        if self.has("unknown-x-ai-400") and any(n.startswith("X-AI-Unk") for n in self.headers):
            raise Refusal(400, "invalid_header", "unknown header")
        body = self.parse()
        self.check_body(body)
        if body.get("stream"):
            return self.stream(body)
        self.send_json(500 if self.has("chat-500") else 200, self.completion(body))

    def parse(self) -> dict[str, Any]:
        if self.has("no-utf8") and not self.content.isascii():
            raise Refusal(400, "invalid_json", "ASCII only")
        encoding = "latin-1" if self.has("latin-1") else "utf-8"
        try:
            body = json.loads(self.content.decode(encoding))
        except RecursionError:
            status = 500 if self.has("deep-500") else 400
            if self.has("deep-drops"):
                self.close_connection = True
                raise BrokenPipeError from None
            raise Refusal(status, "invalid_json", "nested too deeply") from None
        except ValueError:
            status = 422 if self.has("bad-json-422") else 400
            raise Refusal(status, "invalid_json", "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refusal(400, "invalid_type", "the body must be an object")
        return body

    def check_body(self, body: dict[str, Any]) -> None:
        for field in ("messages", "model"):
            if field not in body and not self.has(f"no-{field}-ok"):
                named = None if self.has("unnamed-field") else field
                what = "something" if self.has("unnamed-field") else field
                raise Refusal(400, "missing_required_parameter", f"{what} is missing", named)
        if body.get("model", MODEL) != MODEL and not self.has("any-model"):
            status = 400 if self.has("unknown-model-400") else 404
            raise Refusal(status, "model_not_found", "no such model", "model")
        known = {
            "model", "messages", "max_tokens", "temperature", "stream", "response_format", "metadata",
        }  # fmt: skip
        if self.has("unknown-field-500") and set(body) - known:
            raise Refusal(500, "internal_error", "surprise")
        if self.has("no-response-format") and "response_format" in body:
            raise Refusal(400, "unsupported_parameter", "response_format", "response_format")
        temperature = body.get("temperature", 1)
        if not isinstance(temperature, int | float) and not self.has("temperature-any"):
            raise Refusal(400, "invalid_type", "temperature is a number", "temperature")
        if temperature == float("inf"):
            raise Refusal(400, "invalid_value", "temperature is too large", "temperature")
        if not isinstance(body.get("stream", False), bool) and not self.has("stream-any"):
            raise Refusal(400, "invalid_type", "stream is a boolean", "stream")
        self.check_messages(body.get("messages", [{"role": "user", "content": ""}]))

    def check_messages(self, messages: Any) -> None:
        if not isinstance(messages, list):
            if self.has("messages-text-ok"):
                return
            raise Refusal(400, "invalid_type", "messages is a list", "messages")
        if not messages and not self.has("no-turns-ok"):
            raise Refusal(400, "invalid_value", "messages is empty", "messages")
        for message in messages:
            role, content = message.get("role"), message.get("content")
            if isinstance(role, str) and role not in ROLES and self.has("any-role"):
                role = "user"
            if role not in ROLES:
                raise Refusal(400, "invalid_value", "no such role", "messages[0].role")
            if not isinstance(content, str | list):
                raise Refusal(400, "invalid_type", "content is text", "messages[0].content")

    def fresh_id(self) -> str:
        return "chatcmpl-constant" if self.has("same-id") else f"chatcmpl-{uuid4().hex}"

    def created(self) -> int:
        return int(time.time() * 1000) if self.has("milliseconds") else int(time.time())

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        said = json.dumps(body.get("messages"), ensure_ascii=False)
        prompt, completion = len(said), 1
        usage: Any = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion + self.has("wrong-total"),
        }
        if self.has("usage-text"):
            usage = {name: str(number) for name, number in usage.items()}
        message = {"role": "bot" if self.has("role-bot") else "assistant", "content": "ok"}
        answer = {
            "id": self.fresh_id(),
            "object": "chat.completion",
            "created": self.created(),
            "model": MODEL,
            "choices": [
                {
                    "index": 1 if self.has("index-1") else 0,
                    "message": message,
                    "finish_reason": "end_turn" if self.has("end-turn") else "stop",
                }
            ],
            "usage": usage,
        }
        if self.has("no-id"):
            del answer["id"]
        if self.has("no-usage"):
            del answer["usage"]
        return answer

    def completions(self) -> None:
        kind = "chat.completion" if self.has("completions-object") else "text_completion"
        self.send_json(200, {"id": f"cmpl-{uuid4().hex}", "object": kind, "choices": []})

    def stream(self, body: dict[str, Any]) -> None:
        kind = "chat.completion" if self.has("chunk-object") else "chat.completion.chunk"
        name, created = self.fresh_id(), self.created()

        def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
            key = "message" if self.has("no-delta") else "delta"
            identifier = self.fresh_id() if self.has("chunk-ids") else name
            choice = {"index": 0, key: delta, "finish_reason": reason}
            head = {"id": identifier, "object": kind, "created": created, "model": MODEL}
            return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

        text = (
            ": hello\n\n" + chunk({"role": "assistant", "content": ""}) + chunk({"content": "ok"})
        )
        text += "" if self.has("no-finish") else chunk({}, "stop")
        text += "" if self.has("no-done") else "data: [DONE]\n\n"
        media = "application/json" if self.has("stream-media-type") else "text/event-stream"
        self.send(200, text.encode(), media)

    def refuse(self, refusal: Refusal) -> None:
        error = {
            "message": refusal.message,
            "type": "invalid_request_error",
            "param": refusal.param,
            "code": refusal.code,
        }
        shape: Any = {"error": error}
        if self.path == "/v1/chat/completions" and refusal.status != 401:
            if self.has("error-detail"):
                shape = {"detail": refusal.message}
            if self.has("error-no-param"):
                del error["param"]
            if self.has("error-html"):
                return self.send(refusal.status, b"<h1>Bad</h1>", "text/html")
        self.send_json(refusal.status, shape, silent=self.command == "HEAD")

    def send_json(self, status: int, value: Any, *, silent: bool = False) -> None:
        content = json.dumps(value).encode()
        if self.has("chat-html") and self.path == "/v1/chat/completions" and status == 200:
            content = b"<html>ok</html>"
        media = (
            "text/plain" if self.has("chat-text-plain") and status == 200 else "application/json"
        )
        media = media if self.path == "/v1/chat/completions" else "application/json"
        self.send(status, b"" if silent else content, media)

    def send(self, status: int, content: bytes, media: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(content)))
        if not self.has("no-request-id"):
            same = self.has("same-request-id")
            self.send_header("X-Request-Id", "req-1" if same else f"req-{uuid4().hex}")
        if self.has("decision-headers"):
            self.send_header("X-AI-Provider-Used", "somebody")
        if status == 405 and not self.has("no-allow"):
            self.send_header("Allow", "POST")
        if status == 401 and not self.has("no-challenge"):
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def liar(status: int, content: bytes, media: str) -> type[Handler]:
    """Return a handler that gives this one answer to everything."""

    class Liar(Handler):
        def route(self) -> None:
            self.send(status, content, media)

    return Liar
