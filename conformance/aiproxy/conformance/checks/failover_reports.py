"""What the target says about a failover, held against what the fake providers saw (draft Fig 14)."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.failover_causes import PATIENCE
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.failing import AUTO, among, header_object, seen, told_of_failover
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_MOVES: Final = ("XAI-HDR-070",)
_OCCURRED: Final = "x-ai-failover-occurred"


@check(
    "XAI-RESP-014",
    level=2,
    keyword="MUST",
    title="X-AI-Failover-Occurred is true exactly when another than the first tried served",
    clause="draft §17, Fig 14",
    depends_on=_MOVES,
)
@behind(a=Fake(priority=1), down=Fake(priority=1), once=Fake(priority=1), b=Fake(priority=90))
def failover_is_told_truly(probe: Probe) -> Iterator[Finding]:
    healthy = probe.case()
    reply = healthy.chat(among(healthy, "a", "b"), model=AUTO)
    yield from _told(healthy, reply, "a healthy provider")

    for stream in (False, True):
        case = probe.case()
        case.script("down", always=Act(status=503))
        headers = among(case, "down", "b")
        reply = case.stream(headers, model=AUTO) if stream else case.chat(headers, model=AUTO)
        yield from _told(case, reply, "a streamed failover" if stream else "a failover")

    # The same provider may be asked again after a lone 500: then nobody took over.
    case = probe.case()
    case.script("once", Act(status=500))
    reply = case.chat(among(case, "once", "b"), model=AUTO)
    yield from _told(case, reply, "a failure that passes")


def _told(case: "Case", reply: Reply, fact: str) -> Iterator[Finding]:
    me, role, asked = "XAI-RESP-014", case.served(reply), case.order()
    if reply.status != 200 or not role or not asked:
        yield say(me, Status.INCONCLUSIVE, f"{fact}: not answered ({reply.outcome})", reply)
        return
    value = (reply.header(_OCCURRED) or "").lower()
    if asked[0] != role:
        yield tell(me, fact, value == "true", reply, expected="true", found=value or "no header")
    else:
        yield tell(
            me, fact, value in ("", "false"), reply, expected="no header, or false", found=value
        )


# The words by which a report may name each kind of failure: the register's, Fig 14's, plain ones.
_KINDS: Final = {
    "down": ("5xx", "503", "server_error", "unavailable", "overloaded"),
    "busy": ("rate", "429", "throttl", "overloaded"),
    "slow": ("timeout", "timed_out", "deadline"),
    "gone": ("connect", "refused", "unreachable", "network"),
    "babbling": ("invalid_response", "invalid", "unparsable", "malformed"),
}
_ACTS: Final = {
    "down": Act(status=503),
    "busy": Act(status=429),
    "slow": Act(wait_s=8),
    "babbling": Act(fault="html"),
}


@check(
    "XAI-FAIL-011",
    level=2,
    keyword="MUST",
    title="the reason of a failover names the failed provider and the kind of failure",
    clause="draft Fig 14",
    depends_on=_MOVES,
)
@behind(
    down=Fake(priority=1),
    busy=Fake(priority=1),
    slow=Fake(priority=1, provider=PATIENCE),
    gone=Fake(priority=1, reach="refused"),
    babbling=Fake(priority=1),
    b=Fake(priority=90),
)
def a_failover_is_explained(probe: Probe) -> Iterator[Finding]:
    me = "XAI-FAIL-011"
    for role, words in _KINDS.items():
        case = probe.case()
        if role in _ACTS:
            case.script(role, always=_ACTS[role])
        reply = case.chat(among(case, role, "b"), model=AUTO)
        if case.served(reply) != "b":
            yield say(
                me, Status.INCONCLUSIVE, f"{case.who(role)} failed and nobody took over", reply
            )
            continue
        reason, reports = told_of_failover(case, reply)
        yield tell(
            me, f"the kind of failure of {case.who(role)}", any(w in reason.lower() for w in words),
            reply, expected=f"a failover_reason such as {words[0]}", found=reason or "no reason",
        )  # fmt: skip
        named = probe.cast[role].id in f"{reason} {json.dumps(reports, default=str)}"
        yield tell(
            me, "who failed", named, reply, found="not named",
            expected=f"{case.who(role)} in the header or the record",
        )  # fmt: skip


# What the fakes' clocks may differ from the target's: both run on this machine.
_NEAR_S: Final = 0.15
_LOST_S: Final = 0.4


@check(
    "XAI-FAIL-012",
    level=2,
    keyword="SHOULD",
    title="failover_time_ms is the time lost before the attempt that served",
    clause="draft Fig 14",
    depends_on=_MOVES,
)
@behind(a=Fake(priority=1), b=Fake(priority=90))
def the_time_lost_is_told(probe: Probe) -> Iterator[Finding]:
    me, case = "XAI-FAIL-012", probe.case()
    case.script("a", always=Act(status=503, wait_s=_LOST_S))
    case.script("b", Act(wait_s=_LOST_S))
    reply = case.chat(among(case, "a", "b"), model=AUTO)
    begun = {role: attempt.at for role, attempt in reversed(seen(case))}
    if case.served(reply) != "b" or "a" not in begun:
        yield say(me, Status.INCONCLUSIVE, "no failover took place", reply)
        return
    told = header_object(reply, "x-ai-auto-selection").get("failover_time_ms")
    if told is None:
        told = told_of_failover(case, reply)[1]["failover"].get("time_ms")
    lost = begun["b"] - begun["a"]
    right = isinstance(told, int | float) and abs(told / 1000 - lost) <= _NEAR_S
    yield tell(
        me, "failover_time_ms", right, reply, found=f"{told!r}",
        expected=f"about {lost * 1000:.0f} (whole request: {reply.answer.seconds * 1000:.0f})",
    )  # fmt: skip
