"""X-AI-Max-Latency: how long an answer may be expected to take (draft §6, Table 2).

The fakes are called first, each with a scripted wait, so that the target has something to know.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS, ask, bad_header, choose, no_candidate
from aiproxy.conformance.claims import rejections, shortened
from aiproxy.conformance.pacing import Pace, paced
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import COST, LATENCY, QUALITY, STRATEGY, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_BAD: Final = ("0", "-5", "1.5", "200ms", "2s", "1e3", "12345678901234567890")


@check(
    "XAI-HDR-060",
    level=3,
    keyword="MUST",
    title="X-AI-Max-Latency is a positive whole number",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(a=Fake())
def limits_are_whole_milliseconds(probe: Probe) -> Iterator[Finding]:
    """Nobody has been measured here, so no limit stands in the way."""
    me = "XAI-HDR-060"
    for value in _BAD:
        case, reply = choose(probe, ("a",), {LATENCY: value})
        yield from bad_header(me, LATENCY, value, case, reply)
    for value in ("20000", "60000"):
        _, reply = choose(probe, ("a",), {LATENCY: value})
        yield tell(me, f"{LATENCY}: {value}", reply.status == 200, reply, expected="status 200")


@check(
    "XAI-HDR-061",
    level=3,
    keyword="MUST",
    title="providers known to be slower than the limit are excluded and listed",
    clause="draft §6, Table 2, Fig 11",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-062",
    level=3,
    keyword="SHOULD",
    title="who was never measured ranks after those known to meet the limit",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-063",
    level=3,
    keyword="MUST",
    title="a limit that everybody is known to exceed is refused",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-AUTO-013",
    level=3,
    keyword="MUST",
    title="latency, cost and quality limits bind together",
    clause="draft §5 criterion 3",
    depends_on=CHATS,
)
@behind(
    slow=Fake(priority=1, price=0.001, quality=0.9),
    dear=Fake(priority=2, price=0.9, quality=0.9),
    poor=Fake(priority=3, price=0.001, quality=0.3),
    right=Fake(priority=9, price=0.003, quality=0.9),
    fresh=Fake(priority=4, price=0.001, quality=0.9),
)
def the_limit_binds(probe: Probe) -> Iterator[Finding]:
    """Each of the first three breaks one limit; whoever leads when that limit goes has priority."""
    pace = paced(probe, {"slow": 0.5, "dear": 0.03, "poor": 0.03, "right": 0.03})
    limit = str(round(1000 * (pace.waits["slow"] + pace.waits["right"]) / 2))
    if pace.steady:
        yield from _slow_is_excluded(probe, pace, limit)
        yield from _all_limits_at_once(probe, pace, limit)
    else:
        for me in ("XAI-HDR-061", "XAI-AUTO-013"):
            yield say(me, Status.INCONCLUSIVE, pace.reason)
    for pool in (("slow",), ("slow", "right")):
        # A wait is a floor: half of the quickest one cannot be met, however noisy the machine.
        impossible = str(round(500 * min(pace.waits[role] for role in pool)))
        case, reply = choose(probe, pool, {LATENCY: impossible})
        fact = f"{impossible} ms among {' and '.join(pool)}"
        yield from no_candidate("XAI-HDR-063", fact, case, reply, LATENCY)


def _slow_is_excluded(probe: Probe, pace: Pace, limit: str) -> Iterator[Finding]:
    me = "XAI-HDR-061"
    for fields in ({}, {STRATEGY: "cost"}):
        case = _again(probe, pace)
        reply = ask(case, ("slow", "right"), {LATENCY: limit, **fields})
        fact = f"{LATENCY}: {limit}{', strategy cost' if fields else ''}"
        yield served(me, fact, case, reply, "right")
        contacted = case.order()
        yield tell(
            me, f"who was asked: {fact}", "slow" not in contacted, reply,
            expected="not the slow one", found=" then ".join(map(case.who, contacted)),
        )  # fmt: skip
    yield _listed(me, case, reply)
    case = _again(probe, pace)
    yield served(me, "without the limit", case, ask(case, ("slow", "right")), "slow")
    case = _again(probe, pace)
    reply = ask(case, ("fresh", "right"), {LATENCY: limit})
    yield served("XAI-HDR-062", "one measured, one not", case, reply, "right")
    case = _again(probe, pace)
    reply = ask(case, ("fresh", "slow"), {LATENCY: limit})
    yield served("XAI-HDR-062", "only one never measured", case, reply, "fresh")


def _again(probe: Probe, pace: Pace) -> "Case":
    """Return a fresh case under which the waits hold as before."""
    case = probe.case()
    for role, wait in pace.waits.items():
        case.script(role, always=Act(wait_s=wait))
    return case


def _listed(me: str, case: "Case", reply: Reply) -> Finding:
    reasons = rejections(case, reply, "slow")
    if not reasons and shortened(reply):
        return say(me, Status.INCONCLUSIVE, "the headers are shortened and there is no record")
    named = any(
        word in reason.lower() for reason in reasons for word in ("latency", "slow", "limit")
    )
    return tell(
        me, "the slow one among the rejected", named, reply,
        expected="a reason that speaks of latency", found=", ".join(reasons) or "not listed",
    )  # fmt: skip


def _all_limits_at_once(probe: Probe, pace: Pace, limit: str) -> Iterator[Finding]:
    me = "XAI-AUTO-013"
    tokens: dict[str, Any] = {probe.facts.limit_field: 1000}
    limits = {LATENCY: limit, COST: "0.005", QUALITY: "0.8"}
    for lifted, right in ((None, "right"), (LATENCY, "slow"), (COST, "dear"), (QUALITY, "poor")):
        held = {name: value for name, value in limits.items() if name != lifted}
        case = _again(probe, pace)
        reply = ask(case, ("slow", "dear", "poor", "right"), held, **tokens)
        yield served(me, f"without {lifted}" if lifted else "all three", case, reply, right)
