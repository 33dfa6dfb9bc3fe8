"""Health under load: leaving a failing provider, trying it again, taking it back.

Everything is read from the fakes' logs: who was asked, when, and how many at once. Cooling down
after a single failure is legal, so "not left out" means asked again within a moment, and "left
out" means not asked for much longer than any such moment.
"""

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.sightings import POOL, served

_FAILS: Final = Act(status=500)
_PROBE_AFTER_S: Final = 4.0
# Left out: not asked for this long. Kept: asked again within it.
_QUIET_S: Final = 2.0
_BACK_S: Final = 15.0
_IN_A_ROW: Final = 3
# Calls over which an error rate counts, in the worlds below.
_ENOUGH: Final = 5
_EJECTING: Final = World(
    "ejecting",
    {
        "routing": {
            "strategy": "cost_optimized",
            "failover": {"same_provider_retries": 0},
            "load_balancing": {"health_aware": True, "unhealthy_threshold": 0.5},
            "health": {
                "window": "30s", "min_samples": _ENOUGH,
                "probe_after": f"{_PROBE_AFTER_S:g}s", "probe_max": f"{_PROBE_AFTER_S:g}s",
            },
        }
    },
)  # fmt: skip
_FIRST_PAUSE_S: Final = 0.4
_PROBING: Final = World(
    "probing",
    {
        "routing": {
            "strategy": "cost_optimized",
            "failover": {"same_provider_retries": 0},
            "load_balancing": {"health_aware": True, "unhealthy_threshold": 0.5},
            "health": {
                "window": "30s", "min_samples": _ENOUGH,
                "probe_after": f"{_FIRST_PAUSE_S:g}s", "probe_max": "20s",
            },
        }
    },
)  # fmt: skip
_STRICT: Final = World(
    "five-percent",
    {
        "routing": {
            "strategy": "cost_optimized",
            "failover": {"same_provider_retries": 0},
            "load_balancing": {"health_aware": True, "unhealthy_threshold": 0.05},
            "health": {
                "window": "60s", "min_samples": 20, "probe_after": "4s", "probe_max": "4s",
            },
        }
    },
)  # fmt: skip


def _ask(probe: Probe, **fates: Act) -> Any:
    """Send one request with these fates of its first attempts; return its case and reply."""
    case = probe.case()
    for role, act in fates.items():
        case.script(role, always=act)
    return case, case.chat()


def _asks(probe: Probe, role: str) -> bool:
    case, _ = _ask(probe)
    return role in case.order()


def _left_out(probe: Probe, role: str, pause_s: float = 0.05) -> tuple[bool, int]:
    """Return whether ``role`` got nothing for the quiet time, and how many others were served."""
    until, others = time.monotonic() + _QUIET_S, 0
    while time.monotonic() < until:
        if _asks(probe, role):
            return False, others
        others += 1
        time.sleep(pause_s)
    return True, others


def _fill(probe: Probe, role: str, pattern: str) -> int:
    """Let ``role`` succeed (``+``) and fail (``-``) in turn; return how often it was asked.

    It is alone in the pool, so that cooling down does not keep requests from it.
    """
    asked = 0
    for fate in pattern:
        case = probe.case()
        case.script(role, always=_FAILS if fate == "-" else Act())
        case.chat({POOL: case.pool(role)}, model="auto")
        asked += role in case.order()
    return asked


@check(
    "AIP-LB-004",
    level=3,
    keyword="MUST",
    title="traffic leaves a provider whose error rate exceeds the threshold, and no other",
    clause="aiproxy §4.1",
    depends_on=CHATS,
)
@check(
    "ASC-CB-001",
    level=3,
    keyword="MUST",
    title="a circuit opens above the threshold, and only over enough calls",
    clause="asc circuit breaker",
    depends_on=CHATS,
)
@check(
    "ASC-CB-002",
    level=3,
    keyword="MUST",
    title="with an open circuit requests go to the next candidate at once",
    clause="asc circuit breaker",
    depends_on=CHATS,
)
@check(
    "AIP-LB-005",
    level=3,
    keyword="MUST",
    title="a recovered provider gets traffic again",
    clause="aiproxy §4.1 (implied)",
    depends_on=CHATS,
)
@check(
    "ASC-CB-004",
    level=3,
    keyword="MUST",
    title="a successful probe closes the circuit",
    clause="asc circuit breaker",
    depends_on=CHATS,
)
@behind(world=_EJECTING, bad=Fake(priority=1, price=0.001), good=Fake(priority=2))
def a_failing_provider_is_left_and_taken_back(probe: Probe) -> Iterator[Finding]:
    few, opens, next_at_once, back, closes = (
        "ASC-CB-001", "AIP-LB-004", "ASC-CB-002", "AIP-LB-005", "ASC-CB-004",
    )  # fmt: skip
    case, reply = _ask(probe)
    yield served(opens, "while both are healthy", case, reply, "bad")
    if case.order() != ("bad",):
        return
    _fill(probe, "bad", "--")
    kept = probe.poll(lambda: _asks(probe, "bad"), _QUIET_S)
    yield tell(
        few, "after two failures in three calls, of at least five", kept,
        expected=f"asked again within {_QUIET_S:g} s", found="left out",
    )  # fmt: skip
    if not kept:
        probe.poll(lambda: _asks(probe, "bad"), _BACK_S, every_s=0.2)
    _fill(probe, "bad", "--------")
    asked = len(_visits(probe, "bad", 0.0))
    if asked < _ENOUGH:
        reason = f"the failing provider got {asked} requests: too few to judge it"
        for me in (opens, next_at_once, back, closes):
            yield say(me, Status.INCONCLUSIVE, reason)
        return
    slow = Act(wait_s=1.0)
    probe.upstreams.habit(probe.cast["bad"].id, slow)
    begun = time.monotonic()
    case, reply = _ask(probe)
    seconds = time.monotonic() - begun
    yield tell(
        next_at_once, "a request while the left-out provider answers slowly",
        case.served(reply) == "good" and seconds < slow.wait_s, reply,
        expected=f"served by {case.who('good')} in less than {slow.wait_s:g} s",
        found=f"{case.who(case.served(reply))} after {seconds:.2f} s",
    )  # fmt: skip
    probe.upstreams.habit(probe.cast["bad"].id, None)
    out, others = _left_out(probe, "bad")
    share = f"after {asked} calls of which most failed"
    for me in (opens, few):
        yield tell(
            me, share, out, expected=f"nothing for it in {_QUIET_S:g} s",
            found=f"asked after {others} other requests",
        )  # fmt: skip
    taken = probe.poll(lambda: _asks(probe, "bad"), _BACK_S, every_s=0.2, times=_IN_A_ROW)
    for me in (back, closes):
        yield tell(
            me, "once it is healthy again", taken,
            expected=f"{_IN_A_ROW} requests in a row go to it within {_BACK_S:g} s",
            found="still left out",
        )  # fmt: skip


@check(
    "ASC-CB-005",
    level=3,
    keyword="MUST",
    title="circuits are independent of each other and safe under concurrency",
    clause="asc circuit breaker (implied)",
    depends_on=CHATS,
)
@behind(
    world=_EJECTING,
    bad=Fake(priority=1, price=0.0005),
    fine=Fake(priority=2, price=0.001),
    third=Fake(priority=3),
)
def circuits_do_not_spread(probe: Probe) -> Iterator[Finding]:
    """A crowd meets a closed circuit; then the probe of an open one is watched for company."""
    me = "ASC-CB-005"
    asked = _fill(probe, "bad", "--------")
    if not asked:
        yield say(me, Status.INCONCLUSIVE, f"the failing provider got {asked} requests")
        return
    crowd = probe.together(20, lambda _: _ask(probe))
    strays = [case for case, reply in crowd if case.served(reply) != "fine"]
    yield tell(
        me, "twenty requests at once beside an open circuit", not strays,
        expected="all served by the next provider",
        found=f"{len(strays)} elsewhere, such as {', '.join(strays[0].order()) if strays else ''}",
    )  # fmt: skip
    probe.upstreams.habit(probe.cast["bad"].id, Act(status=500, wait_s=0.5))
    since, until = time.monotonic(), time.monotonic() + _PROBE_AFTER_S + 3.0
    while time.monotonic() < until and not _visits(probe, "bad", since):
        probe.together(4, lambda _: _ask(probe))
        time.sleep(0.15)
    visits = _visits(probe, "bad", since)
    probe.upstreams.habit(probe.cast["bad"].id, None)
    if not visits:
        yield say(me, Status.INCONCLUSIVE, "no probe came in time")
        return
    most = max(sum(v.at <= visit.at < v.at + 0.45 for v in visits) for visit in visits)
    yield tell(
        me, "probes of an open circuit at the same time", most == 1,
        expected="one", found=str(most),
    )  # fmt: skip


def _visits(probe: Probe, role: str, since: float) -> list[Attempt]:
    """Return the requests of clients that reached ``role`` since a monotonic time, in seconds."""
    own = probe.cast[role].id
    return [
        a for a in probe.upstreams.everything()
        if a.provider == own and a.at >= since and a.method == "POST"
    ]  # fmt: skip


@check(
    "ASC-CB-003",
    level=3,
    keyword="MUST",
    title="an open circuit lets through occasional probes, and only those",
    clause="asc circuit breaker",
    depends_on=CHATS,
)
@check(
    "ASC-HEALTH-003",
    level=3,
    keyword="MUST",
    title="the probes of a failing provider back off exponentially",
    clause="asc health tracker backoff",
    depends_on=CHATS,
)
@behind(world=_PROBING, bad=Fake(priority=1, price=0.001), good=Fake(priority=2))
def probes_are_few_and_fewer(probe: Probe) -> Iterator[Finding]:
    """Seven seconds of traffic at a provider that goes on failing; its log tells the gaps."""
    few, rarer = "ASC-CB-003", "ASC-HEALTH-003"
    probe.upstreams.habit(probe.cast["bad"].id, _FAILS)
    asked = _fill(probe, "bad", "--------")
    if not asked:
        for me in (few, rarer):
            yield say(me, Status.INCONCLUSIVE, f"the failing provider got {asked} requests")
        return
    since, sent = time.monotonic(), 0
    while time.monotonic() < since + _WATCHED_S:
        _ask(probe)
        sent += 1
        time.sleep(0.06)
    times = [visit.at for visit in _visits(probe, "bad", since)]
    probe.upstreams.habit(probe.cast["bad"].id, None)
    share = f"{len(times)} of {sent} requests in {_WATCHED_S:g} s"
    yield tell(
        few, "what a provider that goes on failing gets", 1 <= len(times) <= _MOST_PROBES,
        expected=f"1 to {_MOST_PROBES} requests", found=share,
    )  # fmt: skip
    gaps = [after - before for before, after in pairwise(times)]
    if len(gaps) < 2:
        yield tell(
            rarer, "gaps between probes", bool(gaps) or bool(times),
            expected="growing", found=f"no probe in {_WATCHED_S:g} s",
        )  # fmt: skip
        return
    grows = gaps[-1] >= 1.5 * gaps[0]
    shown = ", ".join(f"{gap:.2f}" for gap in gaps)
    yield tell(rarer, "gaps between probes", grows, expected="growing", found=f"{shown} s")


_WATCHED_S: Final = 7.0
# One probe in each first pause is the most that can be called occasional.
_MOST_PROBES: Final = int(_WATCHED_S / _FIRST_PAUSE_S) + 2


@check(
    "ASC-RULE-002",
    level=3,
    keyword="MUST",
    title="a configured error rate such as 5% moves traffic",
    clause="asc rules Failover 5%",
    depends_on=CHATS,
)
@behind(
    world=_STRICT,
    bad=Fake(priority=1, price=0.001), good=Fake(priority=2),
)  # fmt: skip
def a_small_error_rate_counts(probe: Probe) -> Iterator[Finding]:
    """One failure in forty calls stays; five in forty-five move the traffic."""
    me = "ASC-RULE-002"
    asked = _fill(probe, "bad", "+" * 20 + "-" + "+" * 19)
    if asked < 40:
        yield say(me, Status.INCONCLUSIVE, f"the first provider got {asked} of 40 requests")
        return
    kept = probe.poll(lambda: _asks(probe, "bad"), _QUIET_S)
    yield tell(
        me, "2.5 % of errors under a limit of 5 %", kept, expected="it stays", found="left out"
    )
    asked = _fill(probe, "bad", "-----")
    out, others = _left_out(probe, "bad")
    yield tell(
        me, "more than 5 % of errors", out, expected=f"nothing for it in {_QUIET_S:g} s",
        found=f"asked after {others} other requests",
    )  # fmt: skip
    back = probe.poll(lambda: _asks(probe, "bad"), _BACK_S, every_s=0.2)
    yield tell(me, "later, healthy", back, expected="it is asked again", found="left out")


derive(
    "UNI-ROUTE-009", level=3, keyword="MUST", title="a circuit breaker per provider exists",
    clause="universal providerSelection.circuitBreaker",
    of=("ASC-CB-001", "ASC-CB-002", "ASC-CB-003", "ASC-CB-004", "ASC-CB-005"),
)  # fmt: skip
