"""Budgets: no cent over a limit, free providers go on, nothing leaks (aiproxy §4.1, §7.3).

Every limit has a world of its own, because spending in one scenario must not be another's. Each
call costs the same scripted amount, less than any sound worst case for it.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.bills import is_number, reported
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.probe import Probe, say, tell, x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.rig.rendering import FOLDER
from aiproxy.conformance.rig.worlds import CHEAPEST
from aiproxy.conformance.sightings import only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case
    from aiproxy.conformance.reply import Reply

# One call: fourteen tokens at a dollar a thousand. The request allows sixteen more tokens, so that
# a worst case made beforehand is above it however the prompt is estimated.
_USAGE: Final = {"prompt_tokens": 4, "completion_tokens": 10, "total_tokens": 14}
_CALL: Final = Act(usage=_USAGE)
_CALL_USD: Final = 0.014
_PAID: Final = Fake(priority=1, price=1.0)
_FREE: Final = Fake(priority=2, price=0.0)
_LIMIT_USD: Final = 0.2
_FITS: Final = int(_LIMIT_USD / _CALL_USD)
# A prompt estimate may be generous; four calls of room under the limit are demanded at least.
_LEAST: Final = 4
# By then a target has noticed that a client left.
_NOTICED_S: Final = 5.0
_REFUSED: Final = "budget_exceeded"


def _world(name: str, **budget: Any) -> World:
    config: Mapping[str, Any] = {
        "routing": {"strategy": "availability"},
        "budget": {
            "enabled": True,
            "track_costs": True,
            "cost_db": f"sqlite:///{FOLDER}/budget.db",
            **budget,
        },
    }
    return World(name, config, default=Fake(priority=50, price=0.0))


def _spend(probe: Probe, **options: Any) -> tuple["Case", "Reply"]:
    case = probe.case()
    for role in case.roles:
        case.script(role, always=_CALL)
    return case, case.chat(**options)


def _until_refused(probe: Probe, **options: Any) -> tuple[int, "Case | None", "Reply | None"]:
    """Spend until an answer is no longer from ``paid``; return how often it was."""
    for paid in range(_FITS + 4):
        case, reply = _spend(probe, **options)
        if case.served(reply) != "paid":
            return paid, case, reply
    return _FITS + 4, None, None


def _limit_holds(me: str, paid: int) -> Iterator[Finding]:
    spent = paid * _CALL_USD
    yield tell(
        me, f"spent under a limit of {_LIMIT_USD:g} USD", spent <= _LIMIT_USD,
        expected=f"at most {_LIMIT_USD:g}", found=f"{spent:.3f} in {paid} calls",
    )  # fmt: skip
    yield tell(
        me, "calls that the limit has room for", paid >= _LEAST,
        expected=f"{_LEAST} at least", found=str(paid),
    )  # fmt: skip


def _refusal(me: str, case: "Case | None", reply: "Reply | None") -> Iterator[Finding]:
    if case is None or reply is None:
        return
    right = reply.status == 429 and reply.error.get("code") == _REFUSED
    yield tell(me, "the next call", right, reply, expected=f"429 {_REFUSED}")
    yield only_asked(me, "who was asked by then", case, reply)


@check(
    "AIP-BUDGET-003",
    level=3,
    keyword="MUST",
    title="spending in a day never exceeds daily_limit",
    clause="aiproxy §4.1 daily_limit",
    depends_on=CHATS,
)
@check(
    "AIP-BUDGET-008",
    level=3,
    keyword="MUST",
    title="after exhaustion free providers keep serving",
    clause="aiproxy §7.3",
    depends_on=CHATS,
)
@behind(world=_world("budget-daily", daily_limit=_LIMIT_USD), paid=_PAID,
        free=Fake(priority=2, price=0.0, alone=True))  # fmt: skip
def a_day_has_its_limit(probe: Probe) -> Iterator[Finding]:
    day, free = "AIP-BUDGET-003", "AIP-BUDGET-008"
    case, reply = _spend(probe, model=probe.cast["free"].model)
    yield served(free, "a free model before", case, reply, "free")
    paid, case_, reply_ = _until_refused(probe)
    yield from _limit_holds(day, paid)
    yield from _refusal(day, case_, reply_)
    if reply_ is None:
        yield say(free, Status.INCONCLUSIVE, "the budget was never exhausted")
        return
    yield tell(free, "a paid model after", reply_.status == 429, reply_, expected=f"429 {_REFUSED}")
    for _ in range(2):
        case, reply = _spend(probe, model=probe.cast["free"].model)
        yield served(free, "a free model after", case, reply, "free")


@check(
    "AIP-BUDGET-004",
    level=3,
    keyword="MUST",
    title="spending in a calendar month never exceeds monthly_limit",
    clause="aiproxy §4.1 monthly_limit",
    depends_on=CHATS,
)
@behind(world=_world("budget-monthly", daily_limit=50.0, monthly_limit=_LIMIT_USD), paid=_PAID)
def a_month_has_its_limit(probe: Probe) -> Iterator[Finding]:
    me = "AIP-BUDGET-004"
    paid, case, reply = _until_refused(probe)
    yield from _limit_holds(me, paid)
    yield from _refusal(me, case, reply)


@check(
    "AIP-BUDGET-007",
    level=3,
    keyword="MUST",
    title="a threshold with disable_paid_providers takes paid providers out",
    clause="aiproxy §4.1 alerts disable_paid_providers",
    depends_on=CHATS,
)
@check(
    "AIP-USE-003",
    level=3,
    keyword="MUST",
    title="budget-constrained start-up: paid ones blocked at the threshold, free ones go on",
    clause="aiproxy §7.3",
    depends_on=CHATS,
)
@behind(
    world=_world(
        "budget-alert", daily_limit=1.0,
        alerts=[{"threshold": 10, "action": "disable_paid_providers"}],
    ),
    paid=_PAID, free=_FREE,
)  # fmt: skip
def a_threshold_takes_paid_providers_out(probe: Probe) -> Iterator[Finding]:
    """A tenth of a dollar is eight calls; the whole dollar, which nobody should reach, is 71."""
    out, use = "AIP-BUDGET-007", "AIP-USE-003"
    paid, case, reply = _until_refused(probe)
    # The call that crosses the threshold was begun below it.
    most = int(0.1 / _CALL_USD) + 1
    for me in (out, use):
        yield tell(
            me, "paid calls until the threshold of 10 % of a dollar", _LEAST <= paid <= most,
            expected=f"{_LEAST} to {most}", found=str(paid),
        )  # fmt: skip
        if case is not None and reply is not None:
            yield served(me, "the next call", case, reply, "free")
    case, reply = _spend(probe)
    yield served(use, "one more", case, reply, "free")
    yield only_asked(out, "who was asked for one more", case, reply, "free")


@check(
    "AIP-BUDGET-009",
    level=3,
    keyword="MUST",
    title="concurrent requests cannot jointly exceed the limit",
    clause="aiproxy §4.1 (implied)",
    depends_on=CHATS,
)
@behind(world=_world("budget-crowd", daily_limit=_LIMIT_USD), paid=_PAID)
def a_crowd_stays_within(probe: Probe) -> Iterator[Finding]:
    me = "AIP-BUDGET-009"

    def one(_: int) -> str:
        case = probe.case()
        case.script("paid", always=Act(usage=_USAGE, wait_s=0.3))
        return case.served(case.chat())

    paid = probe.together(40, one).count("paid")
    yield tell(
        me, f"40 requests at once, room for {_FITS}", 1 <= paid <= _FITS,
        expected=f"1 to {_FITS} served", found=str(paid),
    )  # fmt: skip


@check(
    "AIP-BUDGET-010",
    level=3,
    keyword="MUST",
    title="what was reserved is settled on failure, on cancel and in streams",
    clause="aiproxy §4.1 (implied)",
    depends_on=CHATS,
)
@behind(world=_world("budget-release", daily_limit=_LIMIT_USD), paid=_PAID)
def reservations_do_not_leak(probe: Probe) -> Iterator[Finding]:
    """Failures cost nothing here, so sixteen of them leave all the room there was.

    A client that leaves early may be charged for what it got, never more than the worst case.
    """
    me = "AIP-BUDGET-010"
    for _ in range(16):
        case = probe.case()
        case.script("paid", always=Act(status=400, message="refused"))
        case.chat()
    for _ in range(2):
        case = probe.case()
        case.script("paid", always=Act(usage=_USAGE, gap_s=0.2))
        case.stream({}, leave_after=1, stream_options={"include_usage": True})
        case.attempts(_NOTICED_S)
    streamed = 0
    for _ in range(2):
        case = probe.case()
        case.script("paid", always=_CALL)
        reply = case.stream({}, stream_options={"include_usage": True})
        streamed += case.served(reply) == "paid"
    yield tell(
        me, "streams after sixteen failures and two clients that left", streamed == 2,
        expected="served: nothing is held back for what is over", found=f"{streamed} of 2 served",
    )  # fmt: skip
    paid, _, _ = _until_refused(probe)
    spent = (paid + streamed) * _CALL_USD
    yield tell(
        me, "spent in all", spent <= _LIMIT_USD,
        expected=f"at most {_LIMIT_USD:g}", found=f"{spent:.3f} in {paid + streamed} calls",
    )  # fmt: skip
    yield tell(me, "calls that still fit", paid >= 2, expected="2 at least", found=str(paid))


@check(
    "AIP-BUDGET-001",
    level=3,
    keyword="MUST",
    title="the cost of every request is tracked: whole, streamed, failed over",
    clause="aiproxy §4.1",
    depends_on=CHATS,
)
@check(
    "ASC-STREAM-002",
    level=3,
    keyword="MUST",
    title="the chunks of a stream are inspected for token counts",
    clause="asc Streaming",
    depends_on=CHATS,
)
@behind(world=CHEAPEST, a=Fake(priority=1, price=0.007), b=Fake(priority=2, price=0.013))
def every_request_has_its_cost(probe: Probe) -> Iterator[Finding]:
    """The counts are the fakes' own inventions; told is the answer's x-aiproxy or the record."""
    all_, streams = "AIP-BUDGET-001", "ASC-STREAM-002"
    whole: dict[str, Any] = {}
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    for me, what, role, fails, fields in (
        (all_, "a whole answer", "a", False, whole),
        (streams, "a stream", "a", False, options),
        (all_, "an answer after a failover", "b", True, whole),
        (streams, "a stream after a failover", "b", True, options),
    ):
        case = probe.case()
        if fails:
            case.script("a", always=Act(status=503))
        reply = case.chat(**fields)
        if case.served(reply) != role:
            yield say(me, Status.INCONCLUSIVE, f"{what} did not come from {role}", reply)
            continue
        tokens = reported(case, role).get("total_tokens", 0)
        expected = tokens * (probe.cast[role].fake.price or 0) / 1000
        cost = x_aiproxy(reply).get("cost")
        if not is_number(cost):
            cost = case.decision(reply).get("cost_usd")
        if cost is None and not x_aiproxy(reply):
            yield say(me, Status.NOT_TESTABLE, f"{what}: neither x-aiproxy nor a record", reply)
            continue
        right = is_number(cost) and abs(cost - expected) <= 1e-9
        for name in (me, all_) if me != all_ else (me,):
            yield tell(
                name, f"{what}: {tokens} tokens", right, reply,
                expected=f"{expected:.9f}", found=repr(cost),
            )  # fmt: skip


derive(
    "UNI-GOV-005", level=3, keyword="MUST", title="cost is tracked across providers",
    clause="universal costTracking", of=("AIP-BUDGET-001",),
)  # fmt: skip
derive(
    "ASC-OPS-004", level=3, keyword="MUST", title="tokens used by a failed attempt are attributed",
    clause="asc Operational: cost attribution", of=("AIP-FAIL-010",),
)  # fmt: skip
