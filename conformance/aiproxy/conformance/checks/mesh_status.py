"""GET /aiproxy/mesh/status and heartbeats, seen by peers that the suite plays (AIProxy Standard
§4.1, §5.4).

A heartbeat is any request below /aiproxy/mesh/ that no client caused.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from statistics import median
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import MODELS
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.peers import PEER, address
from aiproxy.conformance.rig.rendering import NODE
from aiproxy.conformance.rig.shapes.peer import MESH
from aiproxy.conformance.rig.worlds import FEDERATED, HEARTBEAT_S, NODE_REGION, NODE_TYPE

_STATUS: Final = "/aiproxy/mesh/status"
_SHOWN: Final = ("AIP-API-025",)
_WORDS: Final = ("healthy", "degraded", "unhealthy", "unknown")
_EVERY_S: Final = 0.1
_MET_S: Final = 6.0
_LATER_S: Final = 3.0
# Three beats have to be missed; with all of the jitter at its least the third is due after this.
_SOONEST_S: Final = 2 * 0.8 * HEARTBEAT_S
_LATEST_S: Final = 4 * 1.2 * HEARTBEAT_S + 2.0
_BACK_S: Final = 3.0
_DELAY_S: Final = 0.3
_MEASURED_S: Final = 8.0
_BEATS: Final = 9
_FIRST_S: Final = 6 * HEARTBEAT_S
_COUNTED_S: Final = 12.0
# Between the middle gap and the configured interval: a fifth of jitter, and a slow machine.
_AWAY: Final = 0.25


@check(
    "AIP-API-025", level=4, keyword="MUST", clause="aiproxy §5.4",
    title="GET /aiproxy/mesh/status shows node, peers and providers",
)  # fmt: skip
@check(
    "AIP-API-026", level=4, keyword="MUST", clause="aiproxy §5.4",
    title="every configured peer has an entry, with all of its members",
)  # fmt: skip
@check(
    "AIP-API-027", level=4, keyword="MUST", clause="aiproxy §5.4",
    title="every provider has a status and the number of its models",
)  # fmt: skip
@behind(
    world=FEDERATED,
    one=Fake(priority=901),
    three=Fake(
        priority=902,
        provider={"models": [{"name": f"status-{n}", "model": f"up-{n}"} for n in range(3)]},
    ),
    off=Fake(priority=903, provider={"enabled": False}),
    near=Fake(dialect=PEER, priority=50),
    gone=Fake(dialect=PEER, priority=51, reach="refused"),
)
def the_status_is_shown(probe: Probe) -> Iterator[Finding]:
    status, peers, providers = "AIP-API-025", "AIP-API-026", "AIP-API-027"
    reply = probe.endpoint.get(_STATUS)
    yield from _node(status, probe, reply)
    if reply.status != 200:
        for me in (peers, providers):
            yield say(me, Status.INCONCLUSIVE, "no status to look at", reply)
        return
    rows = _peers(reply)
    for role in ("near", "gone"):
        actor = probe.cast[role]
        row = rows.get(actor.id, {})
        yield tell(
            peers, f"addr of {role}", row.get("addr") == address(actor), reply,
            expected=address(actor), found=repr(row.get("addr")),
        )  # fmt: skip
        wrong = [name for name, right in _MEMBERS.items() if not right(row.get(name, "missing"))]
        yield tell(
            peers, f"the members of {role}", not wrong, reply,
            expected="numbers, or null where nothing is known",
            found=", ".join(f"{name}: {row.get(name, 'missing')!r}" for name in wrong),
        )  # fmt: skip
    yield from _providers(providers, probe, reply)


def _number(value: object, most: float = float("inf")) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value <= most)  # type: ignore[operator]


_MEMBERS: Final[Mapping[str, Callable[[object], bool]]] = {
    "status": lambda value: isinstance(value, str) and value != "missing",
    "latency_ms": _number,
    "load": lambda value: _number(value, 1),
    "models_available": lambda value: is_count(value) and value >= 0,
}


def _node(me: str, probe: Probe, reply: Reply) -> Iterator[Finding]:
    """Yield whether the document has its three parts, and its node is the configured one."""
    yield tell(me, _STATUS, reply.status == 200, reply, expected="200", blocks=True)
    if reply.status != 200:
        return
    node = reply.object.get("node")
    node = node if isinstance(node, dict) else {}
    parts = {"node": dict, "peers": list, "providers": dict}
    wrong = [name for name, kind in parts.items() if not isinstance(reply.object.get(name), kind)]
    yield tell(
        me, "its parts", not wrong, reply, expected=", ".join(parts),
        found=f"wrong or missing: {', '.join(wrong)}",
    )  # fmt: skip
    for name, right in (("id", NODE), ("type", NODE_TYPE), ("region", NODE_REGION)):
        found = node.get(name)
        yield tell(
            me, f"node.{name}", found == right, reply, expected=right, found=repr(found),
            otherwise=Status.WARN if name == "region" else Status.FAIL,
        )  # fmt: skip
    before, times = node.get("uptime_seconds"), [node.get("uptime_seconds")]
    real = isinstance(before, int | float) and not isinstance(before, bool)

    def grows() -> bool:
        node = probe.endpoint.get(_STATUS).object.get("node")
        times.append(node.get("uptime_seconds") if isinstance(node, dict) else None)
        later = times[-1]
        return isinstance(later, int | float) and later > before  # type: ignore[operator]

    yield tell(
        me, "node.uptime_seconds", real and probe.poll(grows, _LATER_S, 0.2), reply,
        expected=f"a number that has grown within {_LATER_S:g} s",
        found=f"{before!r}, then {times[-1]!r}",
    )  # fmt: skip


def _peers(reply: Reply) -> dict[str, Mapping[str, Any]]:
    """Return the entries of peers by id."""
    rows = reply.object.get("peers")
    given = rows if isinstance(rows, list) else []
    return {str(row.get("id")): row for row in given if isinstance(row, dict)}


def _providers(me: str, probe: Probe, reply: Reply) -> Iterator[Finding]:
    """Counts are as configured; what is disabled says so or is absent."""
    rows = reply.object.get("providers")
    shown = rows if isinstance(rows, dict) else {}
    for role, count in (("one", 1), ("three", 3)):
        row = shown.get(probe.cast[role].id)
        row = row if isinstance(row, dict) else {}
        right = row.get("models") == count and isinstance(row.get("status"), str)
        yield tell(
            me, f"a provider of {count}", right, reply,
            expected=f"a status, and {count} models", found=repr(row),
        )  # fmt: skip
    off = shown.get(probe.cast["off"].id)
    right = off is None or (isinstance(off, dict) and off.get("status") == "disabled")
    yield tell(
        me, "a disabled provider", right, reply, expected="disabled, or absent", found=repr(off)
    )
    listed = probe.endpoint.get(MODELS).object.get("data")
    entries = [one for one in listed or () if isinstance(one, dict)] if listed else []
    three = probe.cast["three"].id
    count = sum(
        any(row.get("name") == three for row in one.get("providers") or ()) for one in entries
    )
    yield tell(
        me, f"the models that {MODELS} lists for a provider of 3", count == 3, reply,
        expected="3", found=str(count),
    )  # fmt: skip


@check(
    "AIP-MESH-009", level=4, keyword="MUST", clause="aiproxy §4.1 (implied)", depends_on=_SHOWN,
    title="a peer is unhealthy after three missed heartbeats, and healthy again after one",
)  # fmt: skip
@check(
    "AIP-MESH-018", level=4, keyword="MUST", clause="aiproxy §5.4", depends_on=_SHOWN,
    title="the status of a peer is one of four words",
)  # fmt: skip
@check(
    "AIP-MESH-019", level=4, keyword="MUST", clause="aiproxy §5.4", depends_on=_SHOWN,
    title="latency_ms of a peer is its measured round trip",
)  # fmt: skip
@behind(
    world=FEDERATED,
    ill=Fake(dialect=PEER, priority=60),
    slow=Fake(dialect=PEER, priority=61),
    gone=Fake(dialect=PEER, priority=62, reach="refused"),
)
def peers_are_followed(probe: Probe) -> Iterator[Finding]:
    health, words, latency = "AIP-MESH-009", "AIP-MESH-018", "AIP-MESH-019"
    probe.upstreams.habit(probe.cast["slow"].id, Act(wait_s=_DELAY_S))
    watch = _Watch(probe)
    if not watch.row("ill"):
        for me in (health, words, latency):
            yield tell(me, "a configured peer", False, watch.reply, expected="has an entry")
        return
    met = probe.poll(lambda: watch.status("ill") == "healthy", _MET_S, _EVERY_S)
    for me in (health, words):
        yield tell(
            me, "a peer that answers", met, watch.reply,
            expected=f"healthy within {_MET_S:g} s", found=str(watch.status("ill")),
        )  # fmt: skip
    if met:
        yield from _falls_ill(health, probe, watch)
        yield from _measured(latency, probe, watch)
    else:
        yield say(latency, Status.INCONCLUSIVE, "a peer that answers is not shown as healthy")
    strange = sorted(watch.seen - set(_WORDS))
    yield tell(
        words, "every status seen", not strange, watch.reply, expected=", ".join(_WORDS),
        found=", ".join(strange),
    )  # fmt: skip


class _Watch:
    """The status document, looked at again and again; ``seen`` are the words for all peers."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.seen: set[str] = set()
        self.reply: Reply | None = None

    def row(self, role: str) -> Mapping[str, Any]:
        """Return the present entry of a peer."""
        self.reply = self.probe.endpoint.get(_STATUS)
        rows = _peers(self.reply)
        self.seen |= {str(row.get("status")) for row in rows.values()}
        return rows.get(self.probe.cast[role].id, {})

    def status(self, role: str) -> Any:
        """Return the present word for a peer."""
        return self.row(role).get("status")


def _falls_ill(me: str, probe: Probe, watch: _Watch) -> Iterator[Finding]:
    ill = probe.cast["ill"].id
    probe.upstreams.shut(ill)
    begun = time.monotonic()
    noticed = probe.poll(lambda: watch.status("ill") == "unhealthy", _LATEST_S, _EVERY_S)
    seconds = time.monotonic() - begun
    probe.upstreams.reopen(ill)
    yield tell(
        me, "a peer that went away", noticed and seconds >= _SOONEST_S, watch.reply,
        expected=f"unhealthy after {_SOONEST_S:g} to {_LATEST_S:g} s, three beats of {HEARTBEAT_S:g} s",
        found=f"after {seconds:.2f} s" if noticed else f"not within {_LATEST_S:g} s",
    )  # fmt: skip
    well = probe.poll(lambda: watch.status("ill") == "healthy", _BACK_S, _EVERY_S)
    yield tell(
        me, "the same peer, back again", well, watch.reply,
        expected=f"healthy within {_BACK_S:g} s", found=str(watch.status("ill")),
    )  # fmt: skip


def _measured(me: str, probe: Probe, watch: _Watch) -> Iterator[Finding]:
    """Averages take a while, so half of the delay is enough; a quick peer is clearly quicker."""
    told: list[object] = [None]
    least, most = _DELAY_S * 1000 / 2, _DELAY_S * 1000 * 3

    def follows() -> bool:
        told[0] = watch.row("slow").get("latency_ms")
        value = told[0]
        return isinstance(value, int | float) and least <= value <= most

    follow = probe.poll(follows, _MEASURED_S, _EVERY_S)
    yield tell(
        me, f"a peer that takes {_DELAY_S * 1000:g} ms to answer", follow, watch.reply,
        expected=f"{least:g} to {most:g} within {_MEASURED_S:g} s", found=repr(told[0]),
    )  # fmt: skip
    probe.upstreams.habit(probe.cast["slow"].id, None)
    quick = watch.row("ill").get("latency_ms")
    right = isinstance(quick, int | float) and quick < least
    yield tell(
        me, "a peer that answers at once", right, watch.reply, expected=f"less than {least:g}",
        found=repr(quick),
    )  # fmt: skip
    never = watch.row("gone").get("latency_ms")
    yield tell(
        me, "a peer that was never reached", never is None, watch.reply, expected="null",
        found=repr(never),
    )  # fmt: skip


@check(
    "AIP-MESH-007", level=4, keyword="MUST", clause="aiproxy §4.1 heartbeat_interval",
    title="heartbeats come at the configured interval",
)  # fmt: skip
@check(
    "AIP-MESH-011", level=4, keyword="MUST", clause="aiproxy §4.1 share_load",
    title="without share_load no load figure leaves the node",
)  # fmt: skip
@behind(world=FEDERATED, near=Fake(dialect=PEER, priority=70))
def heartbeats_are_sent(probe: Probe) -> Iterator[Finding]:
    """The peer's log goes back to the start of the target, so that little is left to wait for."""
    often, secret = "AIP-MESH-007", "AIP-MESH-011"
    if probe.poll(lambda: bool(_beats(probe)), _FIRST_S):
        probe.poll(lambda: len(_times(_beats(probe))) >= _BEATS, _COUNTED_S, 0.2)
    beats = _beats(probe)
    gaps = [after - before for before, after in pairwise(_times(beats))]
    if len(gaps) < 2:
        yield tell(
            often, "heartbeats", False, expected=f"one every {HEARTBEAT_S:g} s",
            found=f"{len(beats)} in {_COUNTED_S if beats else _FIRST_S:g} s and more",
        )  # fmt: skip
        yield say(secret, Status.INCONCLUSIVE, "no heartbeats to look at")
        return
    middle = median(gaps)
    yield tell(
        often, f"the middle one of {len(gaps)} gaps", abs(middle / HEARTBEAT_S - 1) <= _AWAY,
        expected=f"{HEARTBEAT_S:g} s, a fifth of jitter either way", found=f"{middle:.3f} s",
    )  # fmt: skip
    shown = sorted({name for beat in beats for name in _load_names(beat)})
    yield tell(
        secret, f"what {len(beats)} heartbeats hold", not shown, expected="no load figure",
        found=", ".join(shown),
    )  # fmt: skip


def _beats(probe: Probe) -> list[Attempt]:
    own = probe.cast["near"].id
    return [
        a for a in probe.upstreams.everything()
        if a.provider == own and not a.nonce and a.path.startswith(MESH)
    ]  # fmt: skip


def _times(beats: list[Attempt]) -> list[float]:
    """Return when the most frequent kind of message came, in seconds."""
    kinds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for beat in beats:
        kinds[beat.method, beat.path.partition("?")[0]].append(beat.at)
    return max(kinds.values(), key=len, default=[])


def _load_names(beat: Attempt) -> Iterator[str]:
    """Yield the names in a message that speak of load."""
    for name in (*_names(beat.json), *beat.headers, *re.findall(r"[?&]([^=&]+)", beat.path)):
        if "load" in re.split(r"[^a-z]+", str(name).lower()):
            yield str(name)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)
