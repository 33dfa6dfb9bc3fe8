"""X-AI-Provider-Pool: who may be asked at all (draft §6, Table 2)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.claims import mentions, record
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import POLICY, POOL, USED, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)
_MOVES_ON: Final = ("XAI-HDR-070",)
_FAILING: Final = Act(status=503)
# Enough that a router which chooses blindly between three is found out: 3^-8 is 0.02 %.
_ENOUGH: Final = 8


@check(
    "XAI-HDR-016",
    level=2,
    keyword="MUST",
    title="providers outside the pool are never contacted",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@check(
    "XAI-HDR-017",
    level=2,
    keyword="MUST",
    title="X-AI-Provider-Used is a member of the pool",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1, price=0.0001), b=Fake(priority=9, price=0.01), c=Fake(priority=5))
def the_pool_is_the_limit(probe: Probe) -> Iterator[Finding]:
    """The pool holds the dearest provider and the last in priority, so nothing else leads there."""
    cases, succeeded = [probe.case() for _ in range(_ENOUGH)], False
    for turn, case in enumerate(cases):
        model = "auto" if turn % 4 == 3 else case.model
        reply = case.chat({POOL: case.pool("b")}, model=model)
        if model != "auto":  # whether auto is known at all is another check's matter
            yield served("XAI-HDR-016", "a pool of b", case, reply, "b")
        yield only_asked("XAI-HDR-016", f"who was asked for {model}", case, reply, "b")
        if reply.status == 200:
            succeeded = True
            yield _used("XAI-HDR-017", case, reply, "b")
    for roles in (("a", "c"), ("b", "c")):
        case = probe.case()
        reply = case.chat({POOL: case.pool(*roles)})
        yield served("XAI-HDR-016", f"a pool of {' and '.join(roles)}", case, reply, *roles)
        if reply.status == 200:
            succeeded = True
            yield _used("XAI-HDR-017", case, reply, *roles)
    failing = probe.case()
    failing.script("b", always=_FAILING)
    reply = failing.chat({POOL: failing.pool("b"), POLICY: "automatic"})
    yield only_asked("XAI-HDR-016", "who was asked when b fails", failing, reply, "b")
    if not succeeded:
        yield say("XAI-HDR-017", Status.NOT_TESTABLE, "no request with a pool was answered", reply)


def _used(me: str, case: "Case", reply: Reply, *roles: str) -> Finding:
    """Return whether the header is byte for byte a member, and the one that wrote the answer."""
    claimed = reply.header(USED)
    wrote = case.served(reply)
    allowed = {case.pool(role) for role in roles if not wrote or role == wrote}
    return tell(
        me, f"with a pool of {' and '.join(roles)}", claimed in allowed, reply,
        expected=" or ".join(sorted(allowed)) or "a member", found=repr(claimed),
    )  # fmt: skip


@check(
    "XAI-HDR-018",
    level=2,
    keyword="MUST",
    title="members are separated by commas and white space; duplicates count once",
    clause="draft §6, Table 2",
    depends_on=_MOVES_ON,
)
@behind(a=Fake(), b=Fake(), c=Fake(), d=Fake(), e=Fake(), f=Fake())
def members_may_be_spaced_and_repeated(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-018"
    for spaced, repeated, failing in (("a", "b", "a"), ("c", "d", "d")):
        case = probe.case()
        case.script(failing, always=_FAILING)
        one, other = case.pool(spaced), case.pool(repeated)
        healthy = repeated if failing == spaced else spaced
        reply = case.chat({POOL: f"{one} , {other},{one}", POLICY: "automatic"})
        yield served(me, f"spaces and a duplicate, {failing} fails", case, reply, healthy)

    attempts = {}
    for role, times in (("e", 3), ("f", 1)):
        case = probe.case()
        case.script(role, always=_FAILING)
        reply = case.chat({POOL: ",".join([case.pool(role)] * times), POLICY: "automatic"})
        attempts[role] = case.tried().count(role)
    if not attempts["f"]:
        yield say(me, Status.INCONCLUSIVE, "a pool of one was not asked at all", reply)
    yield tell(
        me, "attempts at a member named three times", attempts["e"] == attempts["f"], reply,
        expected=f"{attempts['f']}, as when named once", found=str(attempts["e"]),
    )  # fmt: skip

    case = probe.case()
    one = case.pool("b")
    reply = case.chat({POOL: f",{one},,{one}"})
    if reply.status == 400:
        yield tell(me, "empty members", True, reply)
    else:
        yield served(me, "empty members (dropped, or refused with 400)", case, reply, "b")


@check(
    "XAI-HDR-019",
    level=2,
    keyword="MUST",
    title="unknown members are ignored while a known one remains, and reported",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(), b=Fake())
def unknown_members_are_ignored(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-019"
    for role in ("a", "b"):
        case, stranger = probe.case(), probe.word()
        reply = case.chat({POOL: f"{stranger},{case.pool(role)}"})
        yield served(me, f"an unknown member and {role}", case, reply, role)
        if reply.status == 200:
            yield _reported(me, case, reply, stranger)


def _reported(me: str, case: "Case", reply: Reply, word: str) -> Finding:
    told = mentions(case, reply, word)
    kept = bool(record(case, reply))
    return tell(
        me, "the unknown member in the decision record", told, reply,
        expected=f"{word!r} named", found="not there" if kept else "no decision record",
        otherwise=Status.FAIL if kept else Status.WARN,
    )  # fmt: skip


@check(
    "XAI-HDR-020",
    level=2,
    keyword="MUST",
    title="a pool without a known member is refused",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake())
def a_pool_of_strangers_is_refused(probe: Probe) -> Iterator[Finding]:
    """422 is the status of a request nobody may serve; another clear refusal only warns."""
    me = "XAI-HDR-020"
    for model in (probe.cast.model, "auto"):
        case = probe.case()
        reply = case.chat({POOL: f"{probe.word()},{probe.word()}"}, model=model)
        clear = reply.status in (400, 403, 404, 409)
        if model == "auto" and clear:
            continue  # whether auto is known at all is another check's matter
        yield tell(
            me, f"two unknown members, model {model}", reply.status == 422, reply,
            expected="status 422", otherwise=Status.WARN if clear else Status.FAIL,
        )  # fmt: skip
        yield only_asked(me, "who was asked", case, reply)


@check(
    "XAI-HDR-021",
    level=2,
    keyword="SHOULD",
    title="the order inside the pool carries no preference",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=9))
def the_order_of_the_pool_is_no_preference(probe: Probe) -> Iterator[Finding]:
    me, choices = "XAI-HDR-021", []
    for roles in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")):
        case = probe.case()
        reply = case.chat({POOL: case.pool(*roles)})
        choices.append(case.served(reply))
    if choices[:2] != choices[2:]:
        yield say(me, Status.INCONCLUSIVE, f"the choice varies by itself: {choices}", reply)
        return
    yield tell(
        me, "the pools a,b and b,a", choices[0] == choices[1], reply,
        expected="the same provider", found=f"{choices[0] or 'nobody'} and {choices[1] or 'nobody'}",
    )  # fmt: skip


@check(
    "XAI-HDR-022",
    level=2,
    keyword="SHOULD",
    title="an explicit model that no pool member has is refused",
    clause="draft §6, Table 2",
    depends_on=_CHATS,
)
@behind(a=Fake(alone=True), b=Fake(alone=True))
def a_model_outside_the_pool_is_refused(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-022"
    case = probe.case()
    reply = case.chat({POOL: case.pool("b")}, model=probe.cast["a"].model)
    yield tell(
        me,
        "a's model, a pool of b",
        reply.status in (404, 422),
        reply,
        expected="status 422 or 404",
    )
    yield only_asked(me, "who was asked", case, reply)
    inside = probe.case()
    reply = inside.chat({POOL: inside.pool("b")}, model=probe.cast["b"].model)
    yield served(me, "b's model, a pool of b", inside, reply, "b")
