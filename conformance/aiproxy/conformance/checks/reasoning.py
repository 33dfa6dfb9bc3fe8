"""Reasoning: the ladder native, enhanced, simulated, and X-AI-Reasoning-Preference (draft §5, §6).

Plain is first in priority and cheapest, native last and dearest, so only the ladder leads there.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import AUTO, CHATS, PREFERENCE, ask, bad_field, bad_header, choose
from aiproxy.conformance.claims import capability, mentions
from aiproxy.conformance.orders import additions, reasons
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import HINT, POLICY, POOL, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_NATIVE: Final = Fake(priority=9, price=0.03, model={"reasoning": "native"})
_ENHANCED: Final = Fake(priority=5, price=0.01, model={"reasoning": "enhanced"})
_PLAIN: Final = Fake(priority=1, price=0.001)
_ALL: Final = ("native", "enhanced", "plain")
_TOLD: Final = {"native": "native", "enhanced": "enhanced", "plain": "simulated"}


def _rung(me: str, fact: str, case: "Case", reply: Reply) -> Finding:
    """Return whether the capability told is that of whoever really served."""
    role = case.served(reply)
    told = capability(case, reply)
    wanted = _TOLD.get(role.rstrip("2"), "")
    return tell(
        me, f"the capability told: {fact}", told == wanted, reply,
        expected=wanted or "an answer", found=told or "nothing",
    )  # fmt: skip


@check(
    "XAI-REASON-001",
    level=3,
    keyword="MUST",
    title='reasoning:"auto" goes to a native reasoning model',
    clause="draft §5 reasoning 1",
    depends_on=CHATS,
)
@check(
    "XAI-REASON-002",
    level=3,
    keyword="MUST",
    title="without a native model, to an enhanced one",
    clause="draft §5 reasoning 2",
    depends_on=CHATS,
)
@check(
    "XAI-REASON-004",
    level=3,
    keyword="MUST",
    title="missing native reasoning degrades and does not fail",
    clause="draft §5 reasoning 4",
    depends_on=CHATS,
)
@behind(native=_NATIVE, enhanced=_ENHANCED, plain=_PLAIN)
def the_ladder_is_climbed(probe: Probe) -> Iterator[Finding]:
    for me, pool, right in (
        ("XAI-REASON-001", _ALL, "native"),
        ("XAI-REASON-001", ("native", "plain"), "native"),
        ("XAI-REASON-002", ("enhanced", "plain"), "enhanced"),
        ("XAI-REASON-004", ("plain",), "plain"),
    ):
        case, reply = choose(probe, pool, reasoning=AUTO)
        fact = f"among {' and '.join(pool)}"
        yield served(me, fact, case, reply, right)
        if reply.status == 200 and me != "XAI-REASON-004":
            yield _rung(me, fact, case, reply)
    case, reply = choose(probe, ("plain",), {PREFERENCE: "native"}, reasoning=AUTO)
    yield served("XAI-REASON-004", "native preferred, and nobody has it", case, reply, "plain")


@check(
    "XAI-REASON-003",
    level=3,
    keyword="MUST",
    title="without both, reasoning is simulated by one added instruction",
    clause="draft §5 reasoning 3",
    depends_on=CHATS,
)
@check(
    "XAI-REASON-005",
    level=3,
    keyword="MUST",
    title="simulation only adds to the client's messages, and is told",
    clause="draft §5 (safety)",
    depends_on=CHATS,
)
@behind(
    plain=Fake(priority=1),
    plain2=Fake(priority=2),
    native=Fake(priority=3, model={"reasoning": "native"}),
)
def simulation_adds_one_instruction(probe: Probe) -> Iterator[Finding]:
    """The first provider fails, so that an instruction added anew for each attempt shows."""
    me = "XAI-REASON-003"
    case = probe.case()
    case.script("plain", always=Act(status=503))
    turns = _turns(case)
    reply = ask(case, ("plain", "plain2"), {POLICY: "automatic"}, reasoning=AUTO, messages=turns)
    yield served(me, "two plain ones, the first fails", case, reply, "plain2")
    if not case.attempts():
        yield say("XAI-REASON-005", Status.INCONCLUSIVE, "no provider was asked", reply)
    for attempt in case.attempts():
        added = additions(turns, attempt.json)
        who = f"what {case.who(attempt.role)} received"
        yield tell(
            "XAI-REASON-005", who, added is not None, reply,
            expected="the client's messages, whole and in order", found=_shown(attempt.json),
        )  # fmt: skip
        yield tell(
            me, who, added is None or len(added) == 1, reply, expected="one added instruction",
            found=f"{len(added or ())} added",
        )  # fmt: skip
    if reply.status == 200:
        yield _rung(me, "two plain ones", case, reply)
        told = mentions(case, reply, "prompt_enhancement", "technique")
        yield tell(
            "XAI-REASON-005", "what is told of it", told, reply,
            expected="fallback_strategy.prompt_enhancement or a technique", found="neither",
        )  # fmt: skip
    native = probe.case()
    turns = _turns(native)
    reply = ask(native, ("native",), reasoning=AUTO, messages=turns)
    for attempt in native.attempts():
        added = additions(turns, attempt.json)
        yield tell(
            me, "nothing is added for a native model", added == (), reply,
            expected="the client's messages alone", found=_shown(attempt.json),
        )  # fmt: skip


def _turns(case: "Case") -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": "Be brief. Ünïcode  stays."},
        {"role": "user", "content": "If 3x+7=22, what is x?"},
        {"role": "assistant", "content": "x = 5"},
        {"role": "user", "content": case.prompt("And why?")},
    ]


def _shown(body: Any) -> str:
    return repr((body or {}).get("messages") if isinstance(body, dict) else body)[:300]


@check(
    "XAI-REASON-006",
    level=3,
    keyword="MUST",
    title="an explicit model stays; only its reasoning is resolved",
    clause="draft Fig 4",
    depends_on=CHATS,
)
@behind(
    plain=Fake(alone=True, priority=9),
    native=Fake(alone=True, priority=1, price=0.0005, model={"reasoning": "native"}),
)
def an_explicit_model_stays(probe: Probe) -> Iterator[Finding]:
    me = "XAI-REASON-006"
    for model, right in ((probe.cast["plain"].model, "plain"), (AUTO, "native")):
        case = probe.case()
        turns = _turns(case)
        reply = case.chat({POOL: case.pool()}, model=model, reasoning=AUTO, messages=turns)
        what = "auto" if model == AUTO else "explicit"
        yield served(me, f"model {what}", case, reply, right)
        yield only_asked(me, f"who was asked: model {what}", case, reply, right)
        for attempt in case.attempts():
            named = (attempt.json or {}).get("model")
            wanted = probe.cast[attempt.role].upstream_model
            yield tell(
                me, f"the model sent: {what}", named == wanted, reply, expected=wanted,
                found=repr(named),
            )  # fmt: skip
            if right == "plain":
                added = additions(turns, attempt.json)
                yield tell(
                    me, "reasoning of the explicit model", added is None or bool(added), reply,
                    expected="an instruction added", found=_shown(attempt.json),
                )  # fmt: skip


@check(
    "XAI-HDR-051",
    level=3,
    keyword="MUST",
    title="preference native selects a native model, and degrades when there is none",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-052",
    level=3,
    keyword="MUST",
    title="preference enhanced selects an enhanced model",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-053",
    level=3,
    keyword="MUST",
    title="preference simulated structures the prompt of a model without native reasoning",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@behind(native=_NATIVE, enhanced=_ENHANCED, plain=_PLAIN)
def the_preference_selects(probe: Probe) -> Iterator[Finding]:
    for me, preference, pool, right in (
        ("XAI-HDR-051", "native", _ALL, ("native",)),
        ("XAI-HDR-052", "enhanced", _ALL, ("enhanced",)),
        ("XAI-HDR-052", "enhanced", ("native", "plain"), ("native", "plain")),
    ):
        case, reply = choose(probe, pool, {PREFERENCE: preference}, reasoning=AUTO)
        fact = f"{preference} among {' and '.join(pool)}"
        yield served(me, fact, case, reply, *right)
        if reply.status == 200:
            yield _rung(me, fact, case, reply)
    yield from _simulated(probe)
    case = probe.case()
    case.script("native", always=Act(status=503))
    headers = {PREFERENCE: "native", POLICY: "automatic"}
    reply = ask(case, ("native", "plain"), headers, reasoning=AUTO)
    yield served("XAI-HDR-051", "native preferred, and it fails", case, reply, "plain")
    if reply.status == 200:
        yield _rung("XAI-HDR-051", "native preferred, and it fails", case, reply)


def _simulated(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-053"
    for preference, right in (("simulated", ("plain", "enhanced")), ("native", ("native",))):
        case = probe.case()
        turns = _turns(case)
        reply = ask(case, _ALL, {PREFERENCE: preference}, reasoning=AUTO, messages=turns)
        yield served(me, f"{preference} among all", case, reply, *right)
        instructed = preference == "simulated"
        for attempt in case.attempts():
            added = additions(turns, attempt.json)
            yield tell(
                me, f"the instruction with {preference}",
                added is None or bool(added) == instructed, reply,
                expected="one added" if instructed else "none added", found=_shown(attempt.json),
            )  # fmt: skip
        if instructed and reply.status == 200:
            told = capability(case, reply)
            yield tell(
                me, "the capability told", told == "simulated", reply, expected="simulated",
                found=told or "nothing",
            )  # fmt: skip


@check(
    "XAI-HDR-054",
    level=3,
    keyword="MUST",
    title="an unknown reasoning preference is refused",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-HDR-055",
    level=3,
    keyword="MUST",
    title="without anything auto the preference changes nothing",
    clause="draft §6, Table 2",
    depends_on=CHATS,
)
@check(
    "XAI-REASON-011",
    level=3,
    keyword="MUST",
    title='reasoning is an object or "auto"',
    clause="draft §5",
    depends_on=CHATS,
)
@behind(a=Fake())
def the_preference_is_bounded(probe: Probe) -> Iterator[Finding]:
    for value in ("deep", "auto", probe.word()):
        case, reply = choose(probe, ("a",), {PREFERENCE: value}, reasoning=AUTO)
        yield from bad_header("XAI-HDR-054", PREFERENCE, value, case, reply)
    for value in ("high", "AUTO"):
        for model in (AUTO, probe.cast.model):
            case = probe.case()
            reply = case.draft({POOL: case.pool("a")}, model=model, reasoning=value)
            fact = f"reasoning: {value!r}, model {model}"
            yield from bad_field("XAI-REASON-011", fact, case, reply, "reasoning")
    me = "XAI-HDR-055"
    for preference in ("simulated", "native"):
        case = probe.case()
        turns = _turns(case)
        headers = {PREFERENCE: preference, HINT: "reasoning", POOL: case.pool()}
        reply = case.chat(headers, messages=turns)
        attempts = case.attempts()
        if not attempts:
            yield say(me, Status.NOT_TESTABLE, f"no provider was asked: {reply.outcome}", reply)
        for attempt in attempts:
            body = attempt.json if isinstance(attempt.json, dict) else {}
            same = body.get("messages") == turns and not reasons(body)
            yield tell(
                me, f"an explicit model and {preference}", same, reply,
                expected="the client's messages and no reasoning setting", found=_shown(body),
            )  # fmt: skip
