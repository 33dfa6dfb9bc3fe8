"""Auto parameters and headers together: which of two wishes wins (draft §5 rules 1-4, §6 Figs 3-5).

The order: security, then pool and cost limit, explicit parameters, quality and latency, strategy,
hints, and the configuration last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.tool_categories import function
from aiproxy.conformance.choices import (
    AUTO,
    CATEGORIES,
    CHATS,
    PREFERENCE,
    SECURITY,
    choose,
    no_candidate,
)
from aiproxy.conformance.claims import DECISIONS, mentions, record
from aiproxy.conformance.claims import field as told_in
from aiproxy.conformance.orders import additions, reasons
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import (
    COST,
    HINT,
    LATENCY,
    POLICY,
    POOL,
    QUALITY,
    STRATEGY,
    SWITCH,
    only_asked,
    served,
)

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CODES: Final = ("text-generation", "code-generation")
_LABEL: Final = "sync-label"


@check(
    "XAI-SYNC-010",
    level=3,
    keyword="MUST",
    title="example 1: a native model of quality 0.9 or more",
    clause="draft §6, Fig 3",
    depends_on=CHATS,
)
@behind(
    lesser=Fake(priority=1, price=0.0005, quality=0.85, model={"reasoning": "native"}),
    right=Fake(priority=9, price=0.03, quality=0.93, model={"reasoning": "native"}),
    plain=Fake(priority=2, price=0.0005, quality=0.99),
)
def example_one(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-010"
    for pool, right in (
        (("lesser", "right", "plain"), ("right",)),
        (("lesser", "plain"), ("plain",)),
        (("lesser",), ()),
    ):
        case = probe.case()
        headers = {
            SWITCH: "enabled", HINT: "reasoning", PREFERENCE: "native", QUALITY: "0.9",
            POOL: case.pool(*pool),
        }  # fmt: skip
        reply = case.draft(headers, prompt="Solve complex math", model=AUTO, reasoning=AUTO)
        fact = f"Fig 3 among {' and '.join(pool)}"
        if not right or reply.status == 422:
            unmet = right != ("right",)
            yield tell(me, fact, unmet and reply.status == 422, reply, expected="status 422")
        else:
            yield served(me, fact, case, reply, *right)
        yield only_asked(me, f"who was asked: {fact}", case, reply, *right)


@check(
    "XAI-SYNC-011",
    level=3,
    keyword="MUST",
    title="example 2: the explicit model stays, its reasoning alone is resolved",
    clause="draft §6, Fig 4",
    depends_on=CHATS,
)
@behind(
    gpt=Fake(alone=True, priority=9, price=0.02),
    thinker=Fake(
        alone=True, priority=1, price=0.0005, model={"reasoning": "native"},
        capabilities=("text-generation", "reasoning"),
    ),
)  # fmt: skip
def example_two(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-011"
    case = probe.case()
    headers = {SWITCH: "enabled", HINT: "reasoning"}
    reply = case.draft(
        headers, prompt="Solve complex math", model=probe.cast["gpt"].model, reasoning=AUTO
    )
    yield served(me, "Fig 4", case, reply, "gpt")
    yield only_asked(me, "who was asked: Fig 4", case, reply, "gpt")
    for attempt in case.attempts():
        named = (attempt.json or {}).get("model")
        wanted = probe.cast["gpt"].upstream_model
        yield tell(me, "the model sent", named == wanted, reply, expected=wanted, found=repr(named))
        resolved = bool(additions(case.messages("Solve complex math"), attempt.json))
        yield tell(
            me, "the reasoning sent", resolved or reasons(attempt.json), reply,
            expected="an instruction or a setting", found="neither",
        )  # fmt: skip
    yield _reasoning_alone(me, case, reply)


def _reasoning_alone(me: str, case: "Case", reply: Reply) -> Finding:
    """Look for one entry, and none for the model, where the decisions are told."""
    told = told_in(reply, DECISIONS)
    if isinstance(told, dict):
        names = set(told) & {"reasoning", "model_selection"}
    else:
        auto = record(case, reply).get("auto")
        names = set(auto) & {"reasoning", "model"} if isinstance(auto, dict) else set()
    return tell(
        me, "the decisions told", names == {"reasoning"}, reply,
        expected="reasoning, and no choice of a model", found=", ".join(sorted(names)) or "none",
    )  # fmt: skip


@check(
    "XAI-SYNC-013",
    level=3,
    keyword="MUST",
    title="headers never change content that is not auto",
    clause="draft §5 'Decision Assistance'",
    depends_on=CHATS,
)
@behind(
    a=Fake(
        quality=0.9, capabilities=_CODES, model={"tools": {"web-search": "find_7q"}},
    )
)  # fmt: skip
def headers_change_no_content(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-013"
    case = probe.case()
    body: dict[str, Any] = {
        "temperature": 0.3, "top_p": 0.9, "seed": 7, "stop": ["END"], "tool_choice": "auto",
        "tools": [function("mine")], "response_format": {"type": "text"}, "user": "u-1",
        "messages": [{"role": "system", "content": "Be brief."}, *case.messages()],
    }  # fmt: skip
    headers = {
        SWITCH: "enabled", POOL: case.pool("a"), STRATEGY: "cost", HINT: "reasoning",
        CATEGORIES: "web-search,weather", PREFERENCE: "simulated", QUALITY: "0.5",
        LATENCY: "60000", COST: "1", POLICY: "automatic",
    }  # fmt: skip
    replies = [case.chat(None, **body), case.chat(headers, **body)]
    replies += [case.chat({name: value}, **body) for name, value in headers.items()]
    attempts = case.attempts()
    if len(attempts) != len(replies):
        reason = f"{len(attempts)} of {len(replies)} requests reached the provider"
        yield say(me, Status.NOT_TESTABLE, reason, replies[-1])
        return
    plain = attempts[0].json
    names = ("no header", "all headers", *headers)
    for name, reply, attempt in zip(names[1:], replies[1:], attempts[1:], strict=True):
        differing = _differing(plain, attempt.json)
        yield tell(
            me, f"what arrives with {name}", not differing, reply,
            expected="what arrives without", found=f"another {', '.join(differing)}",
        )  # fmt: skip


def _differing(one: Any, other: Any) -> list[str]:
    """Return the members that are not the same in both bodies."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else ["body"]
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@dataclass(frozen=True)
class Conflict:
    """Two wishes that cannot both come true, and who is right.

    ``explicit`` names the role whose model the body asks for; empty is auto. ``right`` is the role
    that has to serve, empty when the request has to be refused.
    """

    fact: str
    right: str
    headers: Mapping[str, str] = field(default_factory=dict)
    explicit: str = ""
    pool: tuple[str, ...] = ("top", "coder", "safe")
    warns: bool = False


_SAFE: Final = {SECURITY: _LABEL}
# Of the three, top is first in priority, coder cheapest and made for code, safe alone attested and
# best. Every pair of the seven ranks, in the order of the rule.
_CONFLICTS: Final = (
    Conflict("security over pool", "", _SAFE, pool=("top", "coder")),
    Conflict("security over cost limit", "", {**_SAFE, COST: "0.002"}),
    Conflict("security over explicit model", "", _SAFE, explicit="coder"),
    Conflict("security over quality", "safe", {**_SAFE, QUALITY: "0.5"}),
    Conflict("security over strategy", "safe", {**_SAFE, STRATEGY: "cost"}),
    Conflict("security over hint", "safe", {**_SAFE, HINT: "coding"}),
    Conflict("security over configuration", "safe", _SAFE),
    Conflict("pool over explicit model", "", {}, "coder", ("top", "safe"), warns=True),
    Conflict("pool over quality", "", {QUALITY: "0.9"}, pool=("top", "coder")),
    Conflict("pool over strategy", "top", {STRATEGY: "cost"}, pool=("top", "safe")),
    Conflict("pool over hint", "top", {HINT: "coding"}, pool=("top", "safe")),
    Conflict("pool over configuration", "safe", {}, pool=("safe",)),
    Conflict("cost limit over explicit model", "", {COST: "0.002"}, "safe", warns=True),
    Conflict("cost limit over quality", "", {COST: "0.002", QUALITY: "0.9"}),
    Conflict("cost limit over strategy", "coder", {COST: "0.002", STRATEGY: "quality"}),
    Conflict("cost limit over configuration", "coder", {COST: "0.002"}),
    Conflict("explicit model over quality", "coder", {QUALITY: "0.9"}, "coder"),
    Conflict("explicit model over strategy", "safe", {STRATEGY: "cost"}, "safe"),
    Conflict("explicit model over hint", "safe", {HINT: "coding"}, "safe"),
    Conflict("explicit model over configuration", "coder", {}, "coder"),
    Conflict("quality over strategy", "safe", {QUALITY: "0.9", STRATEGY: "cost"}),
    Conflict("quality over hint", "safe", {QUALITY: "0.9", HINT: "coding"}),
    Conflict("quality over configuration", "safe", {QUALITY: "0.9"}),
    Conflict("strategy over hint", "safe", {STRATEGY: "quality", HINT: "coding"}),
    Conflict("strategy over configuration", "coder", {STRATEGY: "cost"}),
    Conflict("hint over configuration", "coder", {HINT: "coding"}),
)


@check(
    "XAI-SYNC-014",
    level=3,
    keyword="MUST",
    title="the order of precedence among wishes that conflict",
    clause="draft §5 rules 1-4",
    depends_on=CHATS,
)
@behind(
    top=Fake(alone=True, priority=1, price=0.9, quality=0.6),
    coder=Fake(alone=True, priority=5, price=0.001, quality=0.5, capabilities=_CODES),
    safe=Fake(
        alone=True, priority=9, price=0.95, quality=0.95,
        provider={"security": {"labels": [{"label": _LABEL}]}},
    ),
)  # fmt: skip
def the_higher_rank_wins(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-014"
    for conflict in _CONFLICTS:
        case = probe.case()
        model = probe.cast[conflict.explicit].model if conflict.explicit else AUTO
        headers = {POOL: case.pool(*conflict.pool), **conflict.headers}
        limit: dict[str, Any] = {probe.facts.limit_field: 1000}
        reply = case.chat(headers, model=model, **limit)
        if conflict.right:
            yield served(me, conflict.fact, case, reply, conflict.right)
            yield only_asked(me, f"who was asked: {conflict.fact}", case, reply, conflict.right)
        else:
            yield from _not_served(me, conflict, case, reply)


def _not_served(me: str, conflict: Conflict, case: "Case", reply: Reply) -> Iterator[Finding]:
    """A pool or cost limit may also give way to an explicit model where that is told (rule 1)."""
    told = conflict.warns and reply.status == 200 and mentions(case, reply, POOL, COST)
    yield tell(
        me, conflict.fact, reply.status == 422, reply, expected="status 422",
        otherwise=Status.WARN if told else Status.FAIL,
    )  # fmt: skip
    if not told:
        yield only_asked(me, f"who was asked: {conflict.fact}", case, reply)


@check(
    "XAI-SYNC-016",
    level=3,
    keyword="MUST",
    title="contradictory limits are refused, and one of them is named",
    clause="draft §5",
    depends_on=CHATS,
)
@behind(
    free=Fake(priority=1, price=0.0, quality=0.6),
    best=Fake(priority=2, price=0.02, quality=0.995),
)
def contradictions_are_named(probe: Probe) -> Iterator[Finding]:
    me, pool = "XAI-SYNC-016", ("free", "best")
    case, reply = choose(probe, pool, {COST: "0", QUALITY: "0.99"})
    yield from no_candidate(me, f"{COST}: 0 and {QUALITY}: 0.99", case, reply, COST, QUALITY)
    for headers, right in (({COST: "0"}, "free"), ({QUALITY: "0.99"}, "best")):
        case, reply = choose(probe, pool, headers)
        yield served(me, " and ".join(headers), case, reply, right)
