"""Sockets and routes: one thread a connection, every path in ``ROUTES``.

The head of a request is read by hand, so that folded lines, control octets and repeated fields
reach ``preferences`` as they came.
"""

import json
import socket
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Self
from uuid import uuid4

from right_server import Handler, Refusal, RightServer

from right_router import (
    aside,
    attempts,
    ensembles,
    mesh,
    monitor,
    native,
    pictures,
    security,
    shapes,
    streams,
    unfaithful,
    workflow,
)
from right_router import preferences as headers_of
from right_router.answers import error_body, headers, record
from right_router.asking import LIMITS, Ask
from right_router.candidates import Turns, with_fallbacks
from right_router.health import Health
from right_router.local import Places
from right_router.money import Ledger
from right_router.settings import Settings
from right_router.wire import ClientLeft, Connection, Connections

INFERENCE = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings")
POST_ONLY = (*INFERENCE, "/aiproxy/predict")
READABLE = (
    "/v1/models", "/v1/providers", "/v1/routing", "/v1/extensions", "/v1/capabilities",
    "/v1/analytics", "/aiproxy",
)  # fmt: skip
KEPT_DECISIONS = 4096


class RightRouter(RightServer):
    """Serves ``config`` until the ``with`` block ends; the named defects make it wrong."""

    def __init__(self, config: Mapping[str, Any], *defects: str, port: int = 0) -> None:
        self.settings = Settings(config)
        super().__init__(*defects, handler=Exchange, port=port)
        self.health = Health(self.settings.health, self.settings.balancing, self.has)
        self.ledger = Ledger(self.settings.budget, self.has)
        self.connections = Connections(reuse=not self.has("connection-per-call"))
        self.limits = security.Limits()
        Connection.trusting = self.has("certificates-unchecked")
        self.turns = Turns(threading.Lock())
        self.places = Places(self.has)
        self.decisions: OrderedDict[str, Any] = OrderedDict()
        self.conversations: dict[str, Any] = {}
        self.repeats: dict[Any, Any] = {}
        self.seeded: dict[str, Any] = {}  # answers by request, which a right router never keeps
        self.stopped, self.heard_at = threading.Event(), 0.0
        self.mesh = mesh.Mesh(self)
        if self.has("probes-by-chat"):
            threading.Thread(target=aside.probe, args=(self, self.stopped), daemon=True).start()

    request_queue_size = 128

    def __enter__(self) -> Self:
        super().__enter__()
        if not self.has("no-monitor"):
            threading.Thread(target=monitor.watch, args=(self, self.stopped), daemon=True).start()
        self.mesh.start()
        return self

    def has(self, defect: str) -> bool:
        """Return whether the router is wrong in this way."""
        return defect in self.defects

    def __exit__(self, *fault: object) -> None:
        self.stopped.set()
        self.mesh.stop()
        super().__exit__(*fault)
        self.connections.close()

    def remember(self, ask: Ask) -> None:
        """Keep the decision record of a request."""
        self.decisions[ask.id] = record(ask)
        while len(self.decisions) > KEPT_DECISIONS:
            self.decisions.popitem(last=False)


class Fields:
    """The fields of a request, as they came."""

    def __init__(self, lines: list[tuple[str, bytes]]) -> None:
        self.lines = lines

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a field."""
        return next(iter(self.get_all(name)), default)

    def get_all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [v.decode("latin-1").strip() for n, v in self.lines if n.lower() == name.lower()]

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.lines)


class Exchange(Handler):
    """One request and its answer."""

    server: RightRouter
    headers: Any

    @property
    def router(self) -> RightRouter:
        """The router that serves."""
        return self.server

    def has(self, defect: str) -> bool:
        return defect in self.server.defects

    def parse_request(self) -> bool:
        """Read the head; answer 400 at once when it is broken."""
        self.close_connection = True
        self.ask: Ask | None = None
        self.extra: list[tuple[str, str]] = []
        self.query, self.failing = "", False
        self.request_id = f"req_{uuid4().hex}"
        words = self.raw_requestline.rstrip(b"\r\n").split(b" ")
        self.command, self.path, self.request_version = "", "", "HTTP/1.1"
        lines: list[tuple[str, bytes]] = []
        broken = len(words) != 3 or not words[2].startswith(b"HTTP/1.")
        while (line := self.rfile.readline(65537)) not in (b"\r\n", b"\n", b""):
            name, colon, value = line.rstrip(b"\r\n").partition(b":")
            folded = line[:1] in (b" ", b"\t")
            if folded and lines and self.has("folding-accepted"):
                lines[-1] = (lines[-1][0], lines[-1][1] + b" " + line.strip())
                continue
            spaced = name != name.strip() and not self.has("spaces-before-colons")
            broken = broken or folded or spaced or not colon or not name.strip() or len(lines) > 200
            broken = broken or len(line) > 65536
            lines.append((name.decode("latin-1"), value))
        self.headers = Fields(lines)
        framed = bool(self.headers.get("content-length")) and bool(
            self.headers.get("transfer-encoding")
        )
        if broken or (framed and not self.has("two-framings")):
            self.command, self.path = "GET", "/"
            self.refuse(Refusal(400, "invalid_header_value", "the head is malformed"))
            return False
        self.command, self.path = words[0].decode("latin-1"), words[1].decode("latin-1")
        self.path, _, self.query = self.path.partition("?")
        kept = words[2] == b"HTTP/1.1" and "close" not in self.headers.get("connection").lower()
        self.close_connection = not kept
        if self.headers.get("expect").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def serve(self) -> None:
        try:
            super().serve()
        except (ClientLeft, ConnectionError):
            self.close_connection = True
        except Exception:  # noqa: BLE001
            traceback.print_exc()  # a fault of ours: whoever runs the tests has to see it
            self.close_connection = True
            self.refuse(Refusal(500, "internal_error", "a fault of the router"))
        finally:
            if self.ask is not None:
                self.router.remember(self.ask)
            self.server.log.clear()

    def route(self) -> None:
        """Answer one request by its path."""
        self.router.heard_at = time.monotonic()
        path = self.path.rstrip("/") or "/"
        if path in ("/healthz", "/readyz"):
            return self.send_json(200, {"status": "ok"})
        if self.has("preflights-need-keys"):
            security.authenticate(self)
        if self.command == "OPTIONS" and "access-control-request-method" in self.headers:
            return self.send(204, b"", "text/plain")
        self.owner = security.authenticate(self)
        security.admit(self, self.owner)
        if path in POST_ONLY:
            if self.command != "POST":
                self.extra.append(("Allow", "POST"))
                raise Refusal(405, "method_not_allowed", "use POST")
            if path == "/aiproxy/predict":
                return self.predict()
            return self.infer(path)
        if self.command not in ("GET", "HEAD"):
            known = path.startswith(READABLE)
            raise Refusal(405 if known else 404, "method_not_allowed", "use GET")
        silent = self.command == "HEAD"
        return self.send_json(200, self.look_up(path), silent=silent)

    def look_up(self, path: str) -> dict[str, Any]:
        """Return what a GET shows."""
        router = self.router
        if path == "/v1/models":
            if self.has("models-read-headers"):
                self.preferences()
            return native.models(router)
        if path.startswith("/v1/models/"):
            return native.entry(router, path.removeprefix("/v1/models/"))
        if path == "/v1/providers":
            return native.providers(router)
        if path.startswith("/v1/routing/decisions/"):
            return native.decision(router, path.rpartition("/")[2])
        if path == "/v1/extensions":
            return {} if self.has("extensions-empty") else native.extensions()
        if path == "/v1/capabilities":
            return {} if self.has("capabilities-empty") else native.capabilities(router)
        if path == "/v1/analytics":
            return native.costs(router)
        if path == "/aiproxy/mesh/status":
            return mesh.status(self)
        raise Refusal(404, "not_found", f"no route {path}")

    def parsed(self) -> dict[str, Any]:
        """Return the JSON body.

        Raises:
            Refusal: the media type or the JSON is wrong.
        """
        media = self.headers.get("content-type").partition(";")[0].strip().lower()
        if media != "application/json":
            raise Refusal(415, "unsupported_media_type", "send application/json")
        if len(self.content) > self.router.settings.max_body and not self.has("bodies-unbounded"):
            raise Refusal(413, "request_too_large", "the body is too large")
        return self.parse()

    def infer(self, path: str) -> None:
        """Serve one of the OpenAI endpoints."""
        body = self.parsed()
        said = self.preferences()
        if (earlier := self.repeated()) is not None:
            self.extra += earlier[0]
            return self.send_json(200, earlier[1])
        endpoint = shapes.endpoint_of(path, body, self.has)
        if endpoint == "draft" and self.has("draft-ignores-headers"):
            said = headers_of.Preferences()
        try:
            shapes.check(endpoint, body, self.has)
        except Refusal as refusal:
            if self.has("asks-before-reading") and refusal.param == "messages[1].role":
                aside.send(self.router, self.router.settings.models[0], body)
            raise
        ensemble = ensembles.named(self, body.get("model"))
        if ensemble is not None:
            self.ask, answer, _ = ensembles.answered(self, ensemble, body, said)
            self.extra += headers(self.ask)
            return self.send_json(200, {**answer, "model": body["model"]})
        ask = self.ask = self.asked(endpoint, body, said)
        if (
            self.has("figure-5-fails")
            and endpoint == "draft"
            and ask.mode == "disabled"
            and said.said.keys() == {"X-AI-Multi-Provider", "X-AI-Task-Hint"}
        ):
            self.answered(ask)
            raise Refusal(500, "internal_error", "lost on the way back")
        bare = endpoint == "chat" and ask.selects and not set(LIMITS) & set(body)
        if self.has("auto-needs-a-limit") and bare:
            raise Refusal(404, "model_not_found", "no such model", "model")
        bare = said.said.keys() == {"X-AI-Multi-Provider", "X-AI-Provider-Pool"}
        four = bare and len(said.pool or ()) == 4
        if self.has("auto-not-in-drafts") and endpoint == "draft" and four:
            raise Refusal(404, "model_not_found", "no such model", "model")
        if self.has("no-auto-tools-with-reasoning") and ask.autos == ("tools", "reasoning"):
            raise Refusal(400, "invalid_type", "one auto parameter at a time", "reasoning")
        found = self.answered(ask)
        if isinstance(found, attempts.Answered):
            answer = shapes.answer(ask, found)
            workflow.after(ask, workflow.said_of(answer))
            self.extra += headers(ask)
            self.keep(answer)
            return self.send_json(200, answer)
        self.extra += headers(ask)
        return self.send_stream(found)

    def repeated(self) -> Any:
        """Return the headers and the body given before under the same Idempotency-Key.

        Raises:
            Refusal: the key came with another request before.
        """
        key = self.headers.get("idempotency-key")
        known = self.router.repeats.get((self.owner, key)) if key else None
        if known is None or self.has("no-idempotency"):
            return None
        if known[0] != (self.path, self.content):
            self.extra.append(("x-should-retry", "false"))
            raise Refusal(409, "idempotency_conflict", "that key came with another request")
        return known[1:]

    def keep(self, answer: dict[str, Any]) -> None:
        """Remember an answer under its Idempotency-Key."""
        key = self.headers.get("idempotency-key")
        if key:
            told = [(name, value) for name, value in self.extra if name.startswith("X-AI-")]
            self.router.repeats[self.owner, key] = ((self.path, self.content), told, answer)

    def predict(self) -> None:
        """Serve the native endpoint."""
        if self.has("no-predict"):
            raise Refusal(404, "not_found", "no predict")
        body = self.parsed()
        said = self.preferences()
        if body.get("model") == pictures.NAME:
            return self.send_json(200, pictures.answer(self, body.get("input")))
        endpoint, inner, routing = native.predict_body(self.router, body)
        shapes.check(endpoint, inner, self.has)
        ask = self.ask = self.asked(endpoint, inner, said, routing)
        found = self.answered(ask)
        assert isinstance(found, attempts.Answered)
        answer = native.predicted(ask, found.body)
        self.extra += headers(ask)
        return self.send_json(200, answer)

    def preferences(self) -> headers_of.Preferences:
        """Return what the X-AI headers say."""
        routing, most = self.router.settings.routing, self.router.settings.request_field
        lenient = routing.get("header_validation") == "lenient"
        return headers_of.read(self.headers.lines, self.has, most, lenient)

    def asked(
        self,
        endpoint: str,
        body: dict[str, Any],
        said: headers_of.Preferences,
        routing: dict[str, Any] | None = None,
    ) -> Ask:
        ask = Ask(self.router, endpoint, body, said, native=routing, owner=self.owner)
        ask.client_key = self.headers.get("authorization")  # type: ignore[attr-defined]
        if not self.has("request-id-unrelated"):
            self.request_id = ask.id
        return ask

    def answered(self, ask: Ask) -> "attempts.Answered | streams.Opened":
        """Return what a provider said; a refusal carries the decision headers."""
        try:
            workflow.before(ask)
            ask.plan = with_fallbacks(ask)
            return attempts.serve(ask, self.connection)
        except Refusal as refusal:
            ask.error = {"status": refusal.status, "code": refusal.code, "param": refusal.param}
            self.extra += headers(ask)
            raise

    def send_stream(self, opened: "streams.Opened") -> None:
        """Relay a stream in chunked transfer coding."""

        def begin() -> None:
            media = "application/json" if self.has("stream-media-type") else "text/event-stream"
            media = unfaithful.media(self.ask, media)
            self.send_response_only(200)
            for name, value in self.common(media):
                if name != "Cache-Control":
                    self.send_header(name, value)
            if not self.has("streams-cacheable"):
                self.send_header("Cache-Control", "no-cache, no-store")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def send(piece: bytes) -> None:
            if piece:
                self.connection.settimeout(20)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

        try:
            streams.relay(opened, begin, send)
        finally:
            workflow.after(opened.ask, "".join(opened.said) if opened.finished else None)
        self.wfile.write(b"0\r\n\r\n")

    def common(self, media: str) -> list[tuple[str, str]]:
        """Return the fields of every answer, having kept the record that a client may ask for."""
        if self.ask is not None:
            self.router.remember(self.ask)
        found = [("Content-Type", media)]
        if not self.has("no-request-id"):
            found.append(("x-request-id", self.request_id))
        found += self.extra
        found += security.hardened(self)
        found += security.cors_fields(self)
        if not any(name.lower() == "cache-control" for name, _ in found):
            found.append(("Cache-Control", "no-store"))
        if self.close_connection:
            found.append(("Connection", "close"))
        return unfaithful.answer_fields(self.ask, found, self.router)

    def refuse(self, refusal: Refusal) -> None:
        self.failing = True
        if refusal.status == 401:
            self.extra.append(("WWW-Authenticate", "Bearer"))
        self.extra += getattr(refusal, "fields", [])
        body = error_body(refusal)
        body = unfaithful.error(self.ask, refusal.code, body)
        if self.has("errors-as-events") and self.ask is not None and self.ask.stream:
            event = f"data: {json.dumps(body)}\n\n".encode()
            return self.send(refusal.status, event, "text/event-stream")
        missing = refusal.code == "missing_required_parameter"
        if self.has("predict-own-errors") and missing and self.path == "/aiproxy/predict":
            body = {"detail": refusal.message}
        if self.has("vendor-error-type") and "provider refuses" in refusal.message:
            body["error"]["type"] = "vendor_specific_trouble"
        policy = refusal.param == "X-AI-Multi-Provider"
        if self.has("header-error-as-text") and refusal.code == "invalid_header_value" and policy:
            return self.send(refusal.status, b"bad header", "text/plain")
        if self.has("header-error-unnamed") and refusal.code == "invalid_header_value" and policy:
            body["error"]["param"] = None
        if self.has("header-error-code") and refusal.param == "X-AI-Multi-Provider":
            body["error"]["code"] = "bad_request"
        return self.send_json(refusal.status, body, silent=self.command == "HEAD")

    def send_json(self, status: int, value: Any, *, silent: bool = False) -> None:
        content = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self.send(status, b"" if silent else content, "application/json")

    def send(self, status: int, content: bytes, media: str) -> None:
        self.send_response_only(status)
        for name, value in self.common(media):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self._headers_buffer.append(b"\r\n")  # type: ignore[attr-defined]
        self._headers_buffer.append(content)  # type: ignore[attr-defined]
        self.flush_headers()

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class MeshExchange(Exchange):
    """One message of a peer and its answer."""

    @property
    def router(self) -> RightRouter:
        found: RightRouter = self.server.router  # type: ignore[attr-defined]
        return found

    def route(self) -> None:
        """Answer a heartbeat, or serve what a peer forwards."""
        self.visited = mesh.received(self)
        if self.path == mesh.HEARTBEAT:
            return self.send_json(200, self.router.mesh.about())
        if self.path not in POST_ONLY:
            raise Refusal(404, "not_found", "nothing of the mesh")
        return super().route()

    def asked(self, *given: Any) -> Ask:
        """Return the request with the nodes it came through."""
        ask = super().asked(*given)
        ask.visited = self.visited  # type: ignore[attr-defined]
        return ask
