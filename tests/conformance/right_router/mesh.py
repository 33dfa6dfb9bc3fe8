"""Other nodes: status, heartbeats, forwarding, hop limits.

Messages are signed with the shared secret over path, node, time, nonce, visited nodes and body.
A heartbeat is POST /aiproxy/mesh/heartbeat on a peer's mesh listener; a forwarded request is the
client's own, on its usual path there, with the nodes it came through in X-Mesh-Visited. Peers see
neither a client's nor a provider's key.
"""

import hmac
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from right_server import Refusal, RightServer

from right_router.settings import Model, read_model, read_provider, seconds

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.serving import Exchange, RightRouter

HEARTBEAT = "/aiproxy/mesh/heartbeat"
MISSES = 3
WINDOW_S = 30.0
SAID = ("X-Mesh-Node", "X-Mesh-Time", "X-Mesh-Nonce", "X-Mesh-Visited")


class Peer:
    """One configured peer and what is known of it. ``latency_ms`` is the last round trip."""

    def __init__(self, entry: Mapping[str, Any], place: int, timeout_s: float) -> None:
        self.id, self.addr = str(entry["id"]), str(entry["addr"])
        self.priority, self.place, self.timeout_s = entry.get("priority", 100), place, timeout_s
        self.met = False
        self.misses = 0
        self.latency_ms: float | None = None
        self.load: float | None = None
        self.models: list[str] | None = None
        self._candidates: dict[str, Model] = {}

    def status(self, has: Callable[[str], bool]) -> str:
        """Return one of the four words for its health."""
        if self.misses >= (1 if has("peer-unhealthy-at-once") else MISSES):
            return "healthy" if has("peer-never-unhealthy") else "unhealthy"
        if not self.met:
            return "unknown"
        if self.misses:
            return "limping" if has("peer-status-words") else "degraded"
        return "healthy"

    def candidate(self, name: str, has: Callable[[str], bool]) -> Model:
        """Return the peer as a provider of the model ``name``."""
        if name not in self._candidates:
            times = dict.fromkeys(("connect", "first_byte", "first_token"), self.timeout_s)
            if has("peer-timeout-ignored"):
                times = dict.fromkeys(times, self.timeout_s * 4)
            raw = {
                "type": "mesh_peer", "endpoint": f"http://{self.addr}/v1",
                "priority": self.priority,
                "timeouts": {phase: f"{limit}s" for phase, limit in times.items()},
            }  # fmt: skip
            provider = read_provider(
                "mesh_peer" if has("peer-untold") else self.id, raw, self.place
            )
            self._candidates[name] = read_model({"name": name}, provider, 0)
        return self._candidates[name]


class Mesh:
    """This node's side of the mesh; without ``enabled`` nothing is sent and nothing listens."""

    def __init__(self, router: "RightRouter") -> None:
        self.router, self.has, self.started = router, router.has, time.monotonic()
        told = (router.settings.raw.get("node") or {}).get("mesh") or {}
        self.enabled = bool(told.get("enabled"))
        self.secret = str(told.get("secret") or "").encode()
        self.share_load = told.get("share_load", True) or self.has("load-shared-anyway")
        self.interval_s = seconds(told.get("heartbeat_interval"), 10.0)
        self.timeout_s = seconds(told.get("peer_timeout"), 5.0)
        self.max_hops = told.get("max_hops", 3)
        rows = told.get("peers", ()) if self.enabled else ()
        self.peers = [Peer(row, place, self.timeout_s) for place, row in enumerate(rows)]
        self.stopped = threading.Event()
        self.seen: dict[str, float] = {}
        self.listener: Listener | None = None
        if self.enabled:
            self.listener = Listener(router, int(told["listen_addr"].rpartition(":")[2]))

    def start(self) -> None:
        """Listen, and begin to speak to every peer."""
        if self.listener is not None:
            self.listener.__enter__()
        for peer in self.peers:
            threading.Thread(target=self.beat, args=(peer,), daemon=True).start()

    def stop(self) -> None:
        """Fall silent."""
        self.stopped.set()
        if self.listener is not None:
            self.listener.__exit__()

    def beat(self, peer: Peer) -> None:
        """Send heartbeats to ``peer`` until the end."""
        chance, due = random.Random(), time.monotonic()
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            due += (
                self.interval_s
                * chance.uniform(0.8, 1.2)
                * (2 if self.has("slow-heartbeats") else 1)
            )
            begun = time.monotonic()
            try:
                answer = self.send(peer, HEARTBEAT, self.about())
            except (OSError, HTTPException, ValueError):
                peer.misses += 1
                continue
            taken = time.monotonic() - begun
            peer.latency_ms = round(taken * (1 if self.has("latency-in-seconds") else 1000), 3)
            if self.has("latency-constant-peers"):
                peer.latency_ms = 12
            self.learn(peer, answer)

    def learn(self, peer: Peer, answer: Mapping[str, Any]) -> None:
        """Note what a peer says of itself, as far as it can be true."""
        if peer.misses >= MISSES and self.has("peer-never-recovers"):
            return
        peer.met, peer.misses = True, 0
        load, models = answer.get("load"), answer.get("models")
        peer.load = load if isinstance(load, int | float) and 0 <= load <= 1 else None
        peer.models = models if isinstance(models, list) else None

    def send(self, peer: Peer, path: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a peer's answer to one message.

        Raises:
            OSError, HTTPException, ValueError: there is none, or not a good one.
        """
        content = json.dumps(message).encode()
        fields = dict(line.split(": ", 1) for line in self.signed(path, content, ()))
        link = HTTPConnection(peer.addr, timeout=peer.timeout_s)
        try:
            link.request("POST", path, content, {"Content-Type": "application/json", **fields})
            answer = link.getresponse()
            found = json.loads(answer.read())
        finally:
            link.close()
        if answer.status != 200 or not isinstance(found, dict):
            raise ValueError
        return found

    def about(self) -> dict[str, Any]:
        """Return what this node tells of itself."""
        found: dict[str, Any] = {
            "version": 1,
            "node": self.router.settings.node,
            "models": sorted({model.name for model in self.router.settings.models}),
        }
        if self.share_load:
            found["load"] = 0.0
        return found

    def signed(self, path: str, content: bytes, visited: tuple[str, ...]) -> list[str]:
        """Return the header lines that prove where a message comes from."""
        node = self.router.settings.node
        values = (node, str(time.time()), uuid4().hex, ",".join((*visited, node)))
        lines = [f"{name}: {value}" for name, value in zip(SAID, values, strict=True)]
        return [*lines, f"X-Mesh-Signature: {self.mark(path, values, content)}"]

    def mark(self, path: str, values: tuple[str, ...], content: bytes) -> str:
        """Return the signature of a message."""
        text = "\n".join((path, *values, sha256(content).hexdigest()))
        return hmac.new(self.secret, text.encode(), "sha256").hexdigest()

    def verify(self, exchange: "Exchange") -> None:
        """Accept a message of another node.

        Raises:
            Refusal: 401, it is not signed, or not rightly; 403, it is old, known or our own.
        """
        values = tuple(exchange.headers.get(name) for name in SAID)
        right = self.mark(exchange.path, values, exchange.content)
        if not hmac.compare_digest(right, exchange.headers.get("X-Mesh-Signature")):
            raise Refusal(401, "invalid_signature", "the message is not signed")
        old = abs(time.time() - float(values[1])) > WINDOW_S
        if old or values[2] in self.seen:
            raise Refusal(403, "replayed", "the message is not fresh")
        self.seen[values[2]] = time.monotonic()

    def candidates(self, ask: "Ask") -> list[Model]:
        """Return the peers that may serve ``ask``, the best first.

        Nothing is known of what peers attest or charge, so nobody bound by that is sent there.
        """
        bound = ask.pool is not None or ask.labels or ask.regions or ask.local_only
        chain = ask.settings.failover.get("fallback_chain") or ()
        if self.has("labels-stop-at-peers"):
            bound = ask.pool is not None
        if bound or ask.cost_limit is not None or "mesh_peer" not in chain:
            return []
        if ask.quality or ask.mode == "disabled" or self.has("peers-left-out"):
            return []
        visited = getattr(ask, "visited", ())
        fit = [
            peer for peer in self.peers
            if peer.status(self.has) != "unhealthy"
            and (peer.models is None or ask.model in peer.models)
            and (peer.id not in visited or self.has("mesh-loops"))
        ]  # fmt: skip
        fit.sort(key=lambda peer: (peer.priority, peer.place), reverse=self.has("peers-backwards"))
        return [peer.candidate(ask.model, self.has) for peer in fit]


def status(exchange: "Exchange") -> dict[str, Any]:
    """Return what GET /aiproxy/mesh/status says."""
    router = exchange.router
    mesh, has, node = router.mesh, router.has, router.settings.raw.get("node") or {}
    uptime = 1.0 if has("uptime-constant") else round(time.monotonic() - mesh.started, 3)
    peers = [
        {
            "id": peer.id,
            "addr": peer.addr.partition(":")[0] if has("peer-addr-cut") else peer.addr,
            "status": peer.status(has),
            "latency_ms": peer.latency_ms,
            "load": peer.load,
            "models_available": len(peer.models or ()),
        }
        for peer in mesh.peers
    ]
    found = {
        "node": {
            "id": router.settings.node,
            "type": node.get("type") or "standalone",
            "region": node.get("region"),
            "uptime_seconds": uptime,
        },
        "peers": peers,
        "providers": {
            p.id: {
                "status": "healthy" if any(not router.health.track(m).blocked_for() for m in p.models)
                else "unhealthy",
                "models": 1 if has("models-miscounted") else len(p.models),
            }
            for p in router.settings.providers.values()
        },
    }  # fmt: skip
    if has("no-mesh-node"):
        del found["node"]
    return found


class Listener(RightServer):
    """Where peers reach this node."""

    def __init__(self, router: "RightRouter", port: int) -> None:
        from right_router.serving import MeshExchange

        self.router = router
        super().__init__(*router.defects, handler=MeshExchange, port=port)


def received(exchange: "Exchange") -> tuple[str, ...]:
    """Take a message of a peer; return the nodes it came through.

    Raises:
        Refusal: 401 or 403, it cannot be trusted; 508, it was here before or is too long on its way.
    """
    mesh = exchange.router.mesh
    if not mesh.has("mesh-unsigned-ok"):
        mesh.verify(exchange)
    visited = tuple(filter(None, exchange.headers.get("X-Mesh-Visited").split(",")))
    here = mesh.router.settings.node in visited or len(visited) >= mesh.max_hops
    if here and not mesh.has("mesh-loops") and exchange.path != HEARTBEAT:
        raise Refusal(508, "mesh_loop_detected", "the request was here before")
    return visited
