"""X-AI-Failover-Policy: what happens when a provider fails (draft §6, Table 2).

Which of two equal providers is asked first is the router's own business: a healthy request shows
it, and that one then fails.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import NO_FAILOVER
from aiproxy.conformance.sightings import POLICY, POOL, only_asked, preferred, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_FAILING: Final = Act(status=503)
_ALTERNATIVES: Final = "x-ai-alternatives-considered"


@check(
    "XAI-HDR-069",
    level=2,
    keyword="MUST",
    title="failover policy none: exactly one attempt",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=1), d=Fake(priority=2))
def none_is_one_attempt(probe: Probe) -> Iterator[Finding]:
    """Both of a pair fail, whoever is asked first.

    Nobody was asked before: a request that breaks on a connection used earlier may be sent again.
    """
    me = "XAI-HDR-069"
    for pair, act in ((("a", "b"), _FAILING), (("c", "d"), Act(fault="reset"))):
        case = probe.case()
        for role in pair:
            case.script(role, always=act)
        reply = case.chat({POLICY: "none", POOL: case.pool(*pair)})
        tried, how = case.tried(), f"all fail with {act.fault or act.status}"
        yield tell(
            me, f"attempts when {how}", len(tried) == 1, reply, expected="one",
            found=" then ".join(map(case.who, tried)) or "none",
        )  # fmt: skip
        yield tell(me, f"the answer when {how}", reply.status >= 400, reply, expected="an error")


@check(
    "XAI-HDR-070",
    level=2,
    keyword="MUST",
    title="failover policy automatic: the next provider is tried",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=1), d=Fake(priority=2))
def automatic_tries_the_next(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-070"
    for pair, act in ((("a", "b"), _FAILING), (("c", "d"), Act(fault="reset"))):
        case, first, other = _failing(probe, pair, act)
        reply = case.chat({POLICY: "automatic", POOL: case.pool(*pair)})
        if case.order() and case.order()[0] != first:
            yield _other_first(me, case, reply)
            continue
        how = f"{first} fails with {act.fault or act.status}"
        yield served(me, f"who answers when {how}", case, reply, other, blocks=True)


def _failing(probe: Probe, pair: tuple[str, str], act: Act) -> tuple["Case", str, str]:
    """Return a case in which whoever of ``pair`` is asked first fails, that role and the other."""
    first = preferred(probe, *pair)
    case = probe.case()
    case.script(first, always=act)
    return case, first, next(role for role in pair if role != first)


def _other_first(me: str, case: "Case", reply: Reply) -> Finding:
    reason = f"{case.who(case.order()[0])} was asked first, which is healthy here"
    return say(me, Status.INCONCLUSIVE, reason, reply)


@check(
    "XAI-HDR-071",
    level=2,
    keyword="SHOULD",
    title="failover policy manual: the client is told its alternatives",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def manual_leaves_it_to_the_client(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-071"
    case, first, other = _failing(probe, ("a", "b"), _FAILING)
    reply = case.chat({POLICY: "manual", POOL: case.pool("a", "b")})
    if case.order() and case.order()[0] != first:
        yield _other_first(me, case, reply)
        return
    yield only_asked(me, "who was asked", case, reply, first)
    yield refused(me, "the answer", reply, 503)
    code = reply.error.get("code")
    yield tell(
        me, "error.code", code == "failover_required", reply,
        expected="'failover_required'", found=repr(code),
    )  # fmt: skip
    told = f"{reply.header(_ALTERNATIVES)} {reply.body.decode('utf-8', 'replace')}"
    yield tell(
        me, "the alternatives", case.pool(other) in told, reply,
        expected=f"{case.who(other)} named", found=f"{_ALTERNATIVES}: {reply.header(_ALTERNATIVES)}",
    )  # fmt: skip
    again = probe.case()
    chosen = again.chat({POLICY: "manual", POOL: again.pool(other)})
    yield served(me, "the alternative, once asked for", again, chosen, other)


@check(
    "XAI-HDR-073",
    level=2,
    keyword="MUST",
    title="unknown failover policies are refused",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake())
def unknown_policies_are_refused(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-073"
    for value in ("retry", "automatic,none", probe.word()):
        case = probe.case()
        reply = case.chat({POLICY: value})
        yield refused(me, value, reply, 400)
        yield only_asked(me, f"who was asked with {value}", case, reply)
    for value in ("none", "manual", "automatic", "cascading"):
        reply = probe.case().chat({POLICY: value})
        yield tell(me, value, reply.status == 200, reply, expected="status 200")


@check(
    "XAI-HDR-074",
    level=2,
    keyword="SHOULD",
    title="without the header the configured failover setting applies",
    clause="draft §6, Table 2",
    depends_on=("XAI-HDR-070",),
)
@behind(
    world=NO_FAILOVER,
    a=Fake(priority=1),
    b=Fake(priority=2),
    c=Fake(priority=1),
    d=Fake(priority=2),
)
def the_configured_setting_applies(probe: Probe) -> Iterator[Finding]:
    """Failover is configured off here, so only a request that asks for it moves on."""
    me = "XAI-HDR-074"
    for pair, policy in ((("a", "b"), ""), (("c", "d"), "automatic")):
        case, first, other = _failing(probe, pair, _FAILING)
        asked = {POLICY: policy} if policy else {}
        reply = case.chat({**asked, POOL: case.pool(*pair)})
        if case.order() and case.order()[0] != first:
            yield _other_first(me, case, reply)
        elif policy:
            yield served(me, "asked for: automatic", case, reply, other)
        else:
            yield only_asked(me, "nothing asked for, failover configured off", case, reply, first)
            yield tell(me, "the answer then", reply.status >= 400, reply, expected="an error")
