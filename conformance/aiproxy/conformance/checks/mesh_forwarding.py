"""Requests that reach peers: when, whom, for how long, and with what (AIProxy Standard §3.3, §4.1).

The suite plays the peers. A forward is any request with the nonce that reaches one of them; what
else nodes tell each other is not looked into.
"""

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS, SECURITY
from aiproxy.conformance.claims import mentions
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.rawsocket import talk
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.peers import PEER, listener_of
from aiproxy.conformance.rig.worlds import FEDERATED, PEER_TIMEOUT_S
from aiproxy.conformance.sightings import only_asked, served
from aiproxy.conformance.transport import Unanswered

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_FAILS: Final = Act(status=503)
_PEERS: Final = ("near", "far")
_LABEL: Final = "mesh-label"
_MET_S: Final = 5.0
# A stream through a hop keeps at least this share of the time that its peer took for it.
_GAP_S: Final = 0.25
_PIECES: Final = 4
_KEPT: Final = 0.5
_TRIES: Final = 2
# What abandoning a peer may take beyond its timeout.
_OVERHEAD_S: Final = 1.0
_REPLAY_S: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_UNSIGNED: Final = frozenset({"host", "content-type", "content-length"})


@check(
    "AIP-FAIL-003", level=4, keyword="MUST", clause="aiproxy §4.1 fallback_chain",
    depends_on=CHATS, title="mesh_peer in the fallback chain stands for the best eligible peer",
)  # fmt: skip
@check(
    "AIP-PROV-009", level=4, keyword="MUST", clause="aiproxy §3.1 Mesh Peer", depends_on=CHATS,
    title="a peer serves like a provider, and is told by its id",
)  # fmt: skip
@check(
    "AIP-MESH-010", level=4, keyword="MUST", clause="aiproxy §4.1 peers[].priority",
    depends_on=CHATS, title="peers come after local candidates, the lower priority first",
)  # fmt: skip
@check(
    "AIP-MESH-026", level=4, keyword="MUST", clause="aiproxy (implied)", depends_on=CHATS,
    title="a stream passes a mesh hop as it comes",
)  # fmt: skip
@check(
    "AIP-MESH-015", level=4, keyword="MUST", clause="aiproxy §4 (implied, safety)",
    depends_on=CHATS, title="peers get no client's and no provider's key",
)  # fmt: skip
@check(
    "AIP-MESH-013", level=4, keyword="MUST", clause="aiproxy §4 (implied, safety)",
    depends_on=CHATS, title="mesh messages that are not signed rightly are refused",
)  # fmt: skip
@check(
    "AIP-MESH-014", level=4, keyword="MUST", clause="aiproxy §4 (implied, safety)",
    depends_on=CHATS, title="a request does not go round in the mesh",
)  # fmt: skip
@check(
    "AIP-MESH-008", level=4, keyword="MUST", clause="aiproxy §4.1 peer_timeout",
    depends_on=CHATS, title="a peer that does not answer is abandoned after peer_timeout",
)  # fmt: skip
@check(
    "AIP-MESH-016", level=5, keyword="MUST", clause="aiproxy §4 (implied, safety)",
    depends_on=CHATS, title="a security requirement binds peers as well",
)  # fmt: skip
@behind(
    world=FEDERATED,
    local=Fake(priority=900, provider={"security": {"labels": [_LABEL]}}),
    far=Fake(dialect=PEER, priority=3),
    near=Fake(dialect=PEER, priority=2),
)
def peers_are_asked(probe: Probe) -> Iterator[Finding]:
    """Failures of peers come last: whoever failed may well be left alone for a while."""
    chain, provider, order = "AIP-FAIL-003", "AIP-PROV-009", "AIP-MESH-010"
    others = (
        "AIP-MESH-026", "AIP-MESH-015", "AIP-MESH-013", "AIP-MESH-014", "AIP-MESH-008",
        "AIP-MESH-016",
    )  # fmt: skip
    probe.poll(lambda: _met(probe), _MET_S)
    case = probe.case()
    reply = case.chat()
    yield only_asked(order, "who is asked while a provider is healthy", case, reply, "local")
    client = f"sk-client-{probe.word()}{probe.word()}"
    case, reply = _forwarded(probe, client)
    role = case.served(reply) if reply.status == 200 else ""
    for me in (chain, provider):
        yield served(me, "every provider fails, two peers are well", case, reply, *_PEERS)
    if role not in _PEERS:
        for me in (order, *others):
            yield say(me, Status.INCONCLUSIVE, "nothing was forwarded to a peer", reply)
        return
    yield tell(
        order, "the peer that was asked first", case.order()[:2] == ("local", "near"), reply,
        expected=f"{case.who('local')}, then {case.who('near')}",
        found=", ".join(map(case.who, case.order())),
    )  # fmt: skip
    peer = case.actor(role).id
    yield tell(
        provider, "who is told to have served", mentions(case, reply, peer), reply,
        expected=f"{peer} in a header, in x-aiproxy or in the record", found="not named",
    )  # fmt: skip
    yield _streamed(probe)
    yield _bound(probe)
    yield from _keyless(probe, client)
    forward = next(a for a in case.attempts() if a.role in _PEERS)
    yield from _replayed(probe, case, forward)
    yield from _abandoned(probe, role)
    yield from _exhausted(probe)


def _met(probe: Probe) -> bool:
    """Return whether the target has spoken to both peers, if it ever does unasked."""
    seen = {attempt.provider for attempt in probe.upstreams.everything()}
    return all(probe.cast[role].id in seen for role in _PEERS)


def _forwarded(
    probe: Probe, key: str = "", acts: Mapping[str, Act] = MappingProxyType({})
) -> "tuple[Case, Reply]":
    """Send a request that no provider of ours serves; return its case and its answer.

    ``acts`` are the fates of its attempts at peers.
    """
    case = probe.case()
    case.script("local", always=_FAILS)
    for role, act in acts.items():
        case.script(role, always=act)
    return case, case.chat(key=key)


def _streamed(probe: Probe) -> Finding:
    me, whole, spread = "AIP-MESH-026", _GAP_S * (_PIECES - 1), 0.0
    reply: Reply | None = None
    for _ in range(_TRIES):
        case = probe.case()
        case.script("local", always=_FAILS)
        for role in _PEERS:
            case.script(role, always=Act(gap_s=_GAP_S, pieces=_PIECES))
        reply = case.stream()
        if reply.status != 200 or case.served(reply) not in _PEERS:
            return served(me, "a stream", case, reply, *_PEERS)
        times = [event.at for event in reply.events if '"content"' in event.data]
        spread = times[-1] - times[0] if times else 0.0
        if spread >= _KEPT * whole:
            break
    return tell(
        me, "time from the first to the last content", spread >= _KEPT * whole, reply,
        expected=f"about {whole:.2f} s, as the peer sent it", found=f"{spread:.2f} s",
    )  # fmt: skip


def _bound(probe: Probe) -> Finding:
    """A requirement that no peer is attested for keeps the request here."""
    case = probe.case()
    case.script("local", always=_FAILS)
    reply = case.chat({SECURITY: _LABEL})
    fact = "who is asked under a requirement that only the failing provider meets"
    return only_asked("AIP-MESH-016", fact, case, reply, "local")


def _keyless(probe: Probe, client: str) -> Iterator[Finding]:
    """Look for keys in all that has reached the peers so far, heartbeats among it."""
    me = "AIP-MESH-015"
    keys = {"the client's key": client} | {
        f"the key of {role}": actor.key for role, actor in probe.cast.actors.items()
    }
    for role in _PEERS:
        got = [a for a in probe.upstreams.everything() if a.provider == probe.cast[role].id]
        text = b"\n".join(f"{a.path} {dict(a.headers)}".encode() + a.body for a in got)
        found = [name for name, key in keys.items() if key and key.encode() in text]
        yield tell(me, f"what {role} got", not found, expected="no key", found=", ".join(found))


def _replayed(probe: Probe, case: "Case", forward: Attempt) -> Iterator[Finding]:
    """Send what a peer got to the target's own mesh listener: without its signature, and as it is.

    Every provider still fails for its nonce, so whoever takes it in can only forward it again.
    """
    signed, loops = "AIP-MESH-013", "AIP-MESH-014"
    listener = listener_of(probe.endpoint.url)
    if not listener:
        for me in (signed, loops):
            yield say(me, Status.INCONCLUSIVE, "the target's mesh listener is not known")
        return
    plain = {n: v for n, v in forward.headers.items() if n in _UNSIGNED}
    changed = forward.body.replace(b"Say ok.", b"Say no.")
    for me, fact, headers, body in (
        (signed, "a forwarded request without its signature", plain, forward.body),
        (signed, "a forwarded request that was changed", forward.headers, changed),
        (loops, "its own forwarded request", forward.headers, forward.body),
    ):
        before = len(case.attempts())
        status = _told(listener, forward, headers, body)
        more = [a for a in case.attempts()[before:] if a.role in _PEERS]
        right = (status >= 400 or not status) and not more
        yield tell(
            me, fact, right, expected="refused, and forwarded to nobody",
            found=f"status {status}, {len(more)} further requests to peers",
        )  # fmt: skip


def _told(listener: str, forward: Attempt, headers: Mapping[str, str], body: bytes) -> int:
    """Return the status with which the mesh listener answers; 0 when it does not."""
    skipped = ("host", "content-length", "connection", "transfer-encoding")
    lines = [f"{forward.method} {forward.path} HTTP/1.1", f"Host: {listener}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in skipped]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n"
    try:
        answers = talk(
            f"http://{listener}", head.encode("latin-1") + body, replies=1, timeout_s=_REPLAY_S,
            most_bytes=_MOST_BYTES,
        )  # fmt: skip
    except Unanswered:
        return 0
    return answers[0].status


def _abandoned(probe: Probe, first: str) -> Iterator[Finding]:
    """``first`` is the peer that is asked before the other one."""
    me, other = "AIP-MESH-008", "near" if first == "far" else "far"
    slow = Act(wait_s=PEER_TIMEOUT_S / 2)
    case, reply = _forwarded(probe, acts={first: slow})
    yield served(me, "a peer that takes half of the timeout", case, reply, first)
    case, reply = _forwarded(probe, acts={first: Act(fault="silence")})
    held = [a for a in case.attempts() if a.role == first]
    if not held:
        yield say(me, Status.INCONCLUSIVE, f"{case.who(first)} was not asked", reply)
        return
    yield served(me, "a peer that never answers", case, reply, other)
    ended = held[0].closed_at
    seconds = ended - held[0].at if ended is not None else None
    most = PEER_TIMEOUT_S + _OVERHEAD_S
    yield tell(
        me, "how long it was waited for", seconds is not None and seconds < most, reply,
        expected=f"about {PEER_TIMEOUT_S:g} s",
        found=f"{seconds:.2f} s" if seconds is not None else "still waiting",
    )  # fmt: skip


def _exhausted(probe: Probe) -> Iterator[Finding]:
    """Everybody fails: that is one error, not a peer's."""
    case, reply = _forwarded(probe, acts=dict.fromkeys(_PEERS, _FAILS))
    right = reply.status in (502, 503, 504) and isinstance(reply.error.get("message"), str)
    yield tell(
        "AIP-FAIL-003", "every peer fails too", right, reply,
        expected="502, 503 or 504 with an error object",
        found=f"{reply.outcome}, asked: {json.dumps(case.order())}",
    )  # fmt: skip
