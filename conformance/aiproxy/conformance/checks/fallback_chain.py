"""What follows a failure: order, number and spacing of attempts, their cost (aiproxy §4.1, §6)."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from aiproxy.conformance.bills import is_usd, reported
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.worlds import CHAIN, ORDERED, RETRY_DELAY_S
from aiproxy.conformance.sightings import served

CHATS: Final = ("AIP-API-001",)
FAILS_OVER: Final = ("AIP-API-001", "AIP-FAIL-001")
_MOST_ATTEMPTS: Final = 4
# A switch that takes this long has waited for something; one that takes less than the shorter
# time has not. Between the two a busy machine may be to blame.
_SWITCH_S: Final = 0.1
_WAITED_S: Final = RETRY_DELAY_S * 0.8
_TRIES: Final = 3


@check(
    "AIP-FAIL-001",
    level=2,
    keyword="MUST",
    title="a failure moves the request to a backup provider without the client",
    clause="aiproxy §2",
    depends_on=CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), e=Fake(priority=1), f=Fake(priority=2))
def a_failure_moves_on(probe: Probe) -> Iterator[Finding]:
    """A stock client: no header of ours, one model that several providers serve."""
    me = "AIP-FAIL-001"
    for fault in (Act(status=500), Act(fault="reset"), Act(status=503)):
        case = probe.case()
        first = case.chat()
        busy = case.served(first)
        if not busy:
            yield tell(
                me, "a healthy request", False, first, expected="an answer of a provider",
                blocks=True,
            )  # fmt: skip
            return
        case = probe.case()
        case.script(busy, always=fault)
        reply = case.chat()
        role = case.served(reply) if reply.status == 200 else ""
        what = fault.fault or f"status {fault.status}"
        if role == busy or busy not in case.order():
            yield say(me, Status.INCONCLUSIVE, f"{what}: {busy} was not asked", reply)
            continue
        yield tell(
            me, f"{what} of {busy}", bool(role), reply,
            expected="200 from another provider", blocks=True,
        )  # fmt: skip


@check(
    "AIP-FAIL-002",
    level=2,
    keyword="MUST",
    title="after the selected provider the order follows fallback_chain",
    clause="aiproxy §4.1 fallback_chain",
    depends_on=FAILS_OVER,
)
@check(
    "UNI-ROUTE-007",
    level=2,
    keyword="MUST",
    title="the alternatives in the record are those that are asked, in that order",
    clause="universal providerSelection.fallback",
    depends_on=FAILS_OVER,
)
@behind(
    world=ORDERED,
    first=Fake(priority=1),
    b=Fake(priority=4),
    c=Fake(priority=3),
    d=Fake(priority=5),
    missing=Fake(priority=2),
)
def the_chain_orders_the_rest(probe: Probe) -> Iterator[Finding]:
    """The chain names the providers in another order than their priorities, and one not at all."""
    chain, record = "AIP-FAIL-002", "UNI-ROUTE-007"
    case = probe.case()
    for role in case.roles:
        case.script(role, always=Act(status=503))
    reply = case.chat({"X-AI-Failover-Policy": "automatic"})
    order = case.order()
    rest = [role for role in order[1:] if role in CHAIN]
    wanted = [role for role in CHAIN if role != order[0]] if order else []
    if len(order) < 2:
        for me in (chain, record):
            yield say(me, Status.INCONCLUSIVE, "no second provider was asked", reply)
        return
    yield tell(
        chain, f"the order after {case.who(order[0])}", rest == wanted[: len(rest)] and bool(rest),
        reply, expected=", ".join(wanted), found=", ".join(rest) or "none of the chain",
    )  # fmt: skip
    early = "missing" in order[1:] and len(rest) < len(wanted)
    yield tell(
        chain, "a provider that the chain leaves out", not early, reply,
        expected="not asked before those in it", found=", ".join(order),
    )  # fmt: skip
    told = _told_order(case.decision(reply), reply)
    asked = [case.cast[role].id for role in order]
    if not told:
        yield say(record, Status.INCONCLUSIVE, "the target shows no record of attempts", reply)
        return
    yield tell(
        record, "the order in the record", told == asked, reply,
        expected=", ".join(asked), found=", ".join(told),
    )  # fmt: skip


def _told_order(record: Any, reply: Any) -> list[str]:
    """Return the providers in the order a target says it asked them; empty when it does not."""
    try:
        selection = json.loads(reply.header("x-ai-auto-selection") or "{}")
    except ValueError:
        selection = {}
    for source in (record, selection):
        rows = source.get("attempts") if isinstance(source, dict) else None
        names = [row.get("provider") for row in rows if isinstance(row, dict)] if rows else []
        if names:
            return list(dict.fromkeys(map(str, names)))
    return []


@check(
    "AIP-FAIL-004",
    level=2,
    keyword="MUST",
    title="a request is tried at most max_retries + 1 times",
    clause="aiproxy §4.1 max_retries",
    depends_on=FAILS_OVER,
)
@behind(
    world=ORDERED,
    a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3), d=Fake(priority=4),
    e=Fake(priority=5), f=Fake(priority=6), g=Fake(priority=7),
)  # fmt: skip
def attempts_are_bounded(probe: Probe) -> Iterator[Finding]:
    me = "AIP-FAIL-004"
    for act in (Act(status=503), Act(status=500), Act(fault="reset")):
        case = probe.case()
        for role in case.roles:
            case.script(role, always=act)
        reply = case.chat()
        attempts = case.attempts()
        what = f"seven providers with {act.fault or act.status}"
        if reply.status == 200 or not attempts:
            yield say(me, Status.INCONCLUSIVE, f"{what}: they did not all fail", reply)
            continue
        resent = _resent(attempts, probe.upstreams.everything())
        yield tell(
            me, what, len(attempts) <= _MOST_ATTEMPTS, reply,
            expected=f"at most {_MOST_ATTEMPTS} attempts",
            found=f"{len(attempts)}, {resent} of them after a connection that was kept broke",
            otherwise=Status.WARN if len(attempts) - resent <= _MOST_ATTEMPTS else Status.FAIL,
        )  # fmt: skip
        tried = [attempt.role for attempt in attempts]
        if act.status == 503:
            yield tell(
                me, "providers asked within the bound", len(set(tried)) > 1, reply,
                expected="more than one", found=", ".join(tried),
            )  # fmt: skip


def _resent(attempts: Sequence[Attempt], everything: Sequence[Attempt]) -> int:
    """Return how many attempts repeat one whose connection had been used before and broke.

    To a client that looks like a connection the server had given up while it was idle; most HTTP
    clients send such a request again, below everything that counts attempts.
    """
    uses = Counter(attempt.connection for attempt in everything)
    return sum(
        later.role == before.role and before.fault == "reset" and uses[before.connection] > 1
        for before, later in pairwise(attempts)
    )


@check(
    "AIP-FAIL-005",
    level=2,
    keyword="MUST",
    title="retry_delay separates attempts at the same provider only",
    clause="aiproxy §4.1 retry_delay",
    depends_on=FAILS_OVER,
)
@check(
    "UNI-BENCH-004",
    level=2,
    keyword="SHOULD",
    title="the next provider is asked within 100 ms of the failure",
    clause="universal Benchmarks: Fallback Speed",
    depends_on=FAILS_OVER,
)
@behind(
    world=ORDERED,
    alone=Fake(alone=True),
    a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3),
)  # fmt: skip
def the_delay_is_for_the_same_provider(probe: Probe) -> Iterator[Finding]:
    """One quick second try at the same provider is legal; any further one has to wait."""
    me, speed = "AIP-FAIL-005", "UNI-BENCH-004"
    shortest, gaps = RETRY_DELAY_S, list[float]()
    for _ in range(_TRIES):
        case = probe.case()
        for role in "abc":
            case.script(role, always=Act(status=503))
        case.chat()
        gaps = _switches(case.attempts())
        if not gaps:
            break
        shortest = min(shortest, max(gaps))
        if shortest < _SWITCH_S:
            break
    if not gaps:
        for row in (me, speed):
            yield say(row, Status.INCONCLUSIVE, "no switch to another provider was seen")
    elif _SWITCH_S <= shortest < _WAITED_S:
        reason = f"a switch took {shortest * 1000:.0f} ms: neither at once nor the delay"
        for row in (me, speed):
            yield say(row, Status.INCONCLUSIVE, reason)
    else:
        for row in (me, speed):
            yield tell(
                row, "the switch to another provider", shortest < _SWITCH_S,
                expected=f"within {_SWITCH_S * 1000:.0f} ms",
                found=f"after {shortest * 1000:.0f} ms",
            )  # fmt: skip
    case = probe.case()
    case.script("alone", always=Act(status=500))
    reply = case.chat(model=case.cast["alone"].model)
    attempts = case.attempts(settle_s=_MOST_ATTEMPTS * RETRY_DELAY_S)
    waits = [later.at - before.at for before, later in pairwise(attempts)]
    hasty = [wait for wait in waits[1:] if wait < _WAITED_S]
    yield tell(
        me, "further tries at the same provider", not hasty, reply,
        expected=f"{RETRY_DELAY_S:g} s apart", found=", ".join(f"{w * 1000:.0f} ms" for w in hasty),
    )  # fmt: skip


def _switches(attempts: Sequence[Attempt]) -> list[float]:
    """Return the seconds between the end of a failed answer and the next provider's request."""
    return [
        later.at - (before.finished_at or before.answered_at or before.at)
        for before, later in pairwise(attempts)
        if later.role != before.role
    ]


@check(
    "AIP-FAIL-010",
    level=2,
    keyword="MUST",
    title="the cost of a failed attempt that used tokens is recorded",
    clause="aiproxy §6",
    depends_on=(*FAILS_OVER, "AIP-API-004"),
)
@behind(a=Fake(priority=1, price=0.0043), b=Fake(priority=2, price=0.0012))
def failed_attempts_cost_too(probe: Probe) -> Iterator[Finding]:
    """An answer that was generated, and paid for, and cannot be used."""
    me = "AIP-FAIL-010"
    case = probe.case()
    usage = {"prompt_tokens": 300 + probe.chance.randrange(100), "completion_tokens": 57}
    usage["total_tokens"] = sum(usage.values())
    error = {"message": "failed", "type": "server_error", "param": None, "code": None}
    failed = json.dumps({"error": error, "usage": usage})
    case.script("a", always=Act(status=500, body=failed))
    reply = case.chat()
    if case.served(reply) != "b" or "a" not in case.order():
        yield say(me, Status.INCONCLUSIVE, "no failover from a to b took place", reply)
        return
    tries = case.tried().count("a")
    own = reported(case, "b").get("total_tokens", 0) * 0.0012 / 1000
    lost = usage["total_tokens"] * 0.0043 / 1000
    total = x_aiproxy(reply).get("cost")
    summed = any(is_usd(total, own + lost * n) for n in range(1, tries + 1))
    rows = case.decision(reply).get("attempts") or []
    costs = [row.get("cost_usd") for row in rows if row.get("provider") == case.cast["a"].id]
    recorded = any(is_usd(cost, lost) for cost in costs)
    if not rows and not summed:
        yield say(me, Status.INCONCLUSIVE, "the target shows no record of attempts", reply)
        return
    yield tell(
        me, f"a failed attempt with {usage['total_tokens']} tokens", summed or recorded, reply,
        expected=f"{lost:.9f} in its record, or in the sum",
        found=f"sum {total!r}, record {costs!r}",
    )  # fmt: skip


@check(
    "AIP-PROB-003",
    level=2,
    keyword="MUST",
    title="no provider is a single point of failure",
    clause="aiproxy §1.3",
    depends_on=FAILS_OVER,
)
@behind(dead=Fake(priority=1, reach="refused"), a=Fake(priority=2), b=Fake(priority=3))
def nobody_is_indispensable(probe: Probe) -> Iterator[Finding]:
    """One provider is gone for good; each of the others falls silent in its turn."""
    me = "AIP-PROB-003"
    case = probe.case()
    yield served(me, "without the dead one", case, case.chat(), "a", "b")
    for gone, stays in (("a", "b"), ("b", "a")):
        case = probe.case()
        case.script(gone, always=Act(fault="close"))
        yield served(me, f"without {gone} as well", case, case.chat(), stays)


derive(
    "ASC-CAP-001", level=2, keyword="MUST", title="failover needs no change in the application",
    clause="asc Why Naive Proxying 1", of=("AIP-FAIL-001",),
)  # fmt: skip
derive(
    "AIP-CHK-015", level=2, keyword="MUST", title="there is failover logic",
    clause="aiproxy §8 Phase 3", of=("AIP-FAIL-001",),
)  # fmt: skip
derive(
    "AIP-BEN-004", level=2, keyword="MUST", title="failover is built in",
    clause="aiproxy §9 Developers Reliability", of=("AIP-FAIL-001",),
)  # fmt: skip
derive(
    "AIP-LEVEL-002", level=2, keyword="MUST", title="several providers, basic routing, failover",
    clause="aiproxy §11", of=("AIP-API-021", "AIP-ROUTE-006", "AIP-FAIL-001"),
)  # fmt: skip
derive(
    "AIP-CHK-010", level=2, keyword="MUST", title="there is cost tracking",
    clause="aiproxy §8 Phase 2", of=("AIP-BUDGET-001",),
)  # fmt: skip
