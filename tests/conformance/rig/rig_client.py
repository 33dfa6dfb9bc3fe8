"""A client that shows the bytes of fake providers."""

import json
import random
import socket
import time
from dataclasses import dataclass, field
from typing import Any

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor, Cast
from aiproxy.conformance.rig.remote import RemoteUpstreams
from aiproxy.conformance.rig.upstreams import Upstreams

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def new_nonce() -> str:
    return "ref-" + "".join(random.choices(_LETTERS, k=12))


@dataclass
class Heard:
    """What came back on one connection, byte for byte. ``end``: "closed", "reset" or "open"."""

    data: bytes
    end: str
    times: list[float] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        return int(self.head.split(" ")[1])

    @property
    def rest(self) -> bytes:
        return self.data.partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of the body as they were framed; an unfinished one is left out."""
        found, rest = [], self.rest
        while rest:
            size_text, _, rest = rest.partition(b"\r\n")
            size = int(size_text, 16)
            if size == 0 or len(rest) < size:
                break
            found.append(rest[:size])
            rest = rest[size + 2 :]
        return found

    @property
    def whole(self) -> bool:
        """Whether a chunked body ended in good form."""
        return self.data.endswith(b"0\r\n\r\n")

    @property
    def body(self) -> bytes:
        chunked = self.header("transfer-encoding") == "chunked"
        return b"".join(self.chunks) if chunked else self.rest

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event; ``[DONE]`` stays text."""
        lines = self.body.decode().replace("\r\n", "\n").split("\n")
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in data]

    @property
    def text(self) -> str:
        """The text of the chat chunks."""
        chunks = [one for one in self.events if one != "[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


def port_of(actor: Actor) -> int:
    return int(actor.endpoint.rpartition(":")[2].partition("/")[0])


def request_bytes(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> bytes:
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **(headers or {})}
    if body:
        fields = {"Content-Type": "application/json", **fields}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def listen(plug: socket.socket, quiet_s: float) -> Heard:
    """Read until the other side ends, or says nothing for ``quiet_s``."""
    plug.settimeout(quiet_s)
    heard = Heard(b"", "open")
    while True:
        try:
            data = plug.recv(65536)
        except TimeoutError:
            return heard
        except ConnectionResetError:
            heard.end = "reset"
            return heard
        if not data:
            heard.end = "closed"
            return heard
        heard.data += data
        heard.times.append(time.monotonic())


@dataclass
class Stage:
    """Upstreams with one cast, and a client to talk to it."""

    upstreams: Upstreams | RemoteUpstreams
    cast: Cast
    actors: dict[str, Actor]

    def __getitem__(self, role: str) -> Actor:
        return self.actors[self.cast[role].id]

    def script(self, nonce: str, role: str, *acts: Act, always: Act | None = None) -> None:
        self.upstreams.script(nonce, self[role].id, acts, always)

    def chat(self, role: str, nonce: str, **members: Any) -> dict[str, Any]:
        body = {
            "model": self[role].upstream_model,
            "messages": [{"role": "user", "content": f"Reference {nonce}. Say ok."}],
        }
        return {**body, **members}

    def post(
        self,
        role: str,
        path: str,
        body: Any,
        headers: dict[str, str] | None = None,
        quiet_s: float = 5.0,
    ) -> Heard:
        """One request on a connection of its own, closed by the fake when it is done."""
        actor = self[role]
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Authorization": f"Bearer {actor.key}", "Connection": "close", **(headers or {})}
        with socket.create_connection(("127.0.0.1", port_of(actor)), 5) as plug:
            plug.sendall(request_bytes("POST", path, content, fields))
            return listen(plug, quiet_s)

    def begin(self, role: str, body: Any, path: str = "/v1/chat/completions") -> socket.socket:
        """Send a request and return the connection; what comes back is the caller's to read."""
        content = json.dumps(body).encode()
        fields = {"Authorization": f"Bearer {self[role].key}"}
        plug = socket.create_connection(("127.0.0.1", port_of(self[role])), 5)
        plug.sendall(request_bytes("POST", path, content, fields))
        return plug

    def get(self, role: str, path: str, headers: dict[str, str] | None = None) -> Heard:
        actor = self[role]
        fields = {"Authorization": f"Bearer {actor.key}", "Connection": "close", **(headers or {})}
        with socket.create_connection(("127.0.0.1", port_of(actor)), 5) as plug:
            plug.sendall(request_bytes("GET", path, b"", fields))
            return listen(plug, 5.0)

    def asked(self, act: Act, *, quiet_s: float = 5.0, **members: Any) -> tuple[Heard, str]:
        """Chat with ``a``, whose only attempt is ``act``."""
        nonce = new_nonce()
        self.script(nonce, "a", act)
        body = self.chat("a", nonce, **members)
        return self.post("a", "/v1/chat/completions", body, quiet_s=quiet_s), nonce
