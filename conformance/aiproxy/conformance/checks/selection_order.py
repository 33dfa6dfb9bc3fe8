"""Who is a candidate and who is asked first, for requests that name a model (aiproxy §6)."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import CHAT
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import ORDERED, TURNS
from aiproxy.conformance.sightings import COST, LATENCY, only_asked, served

CHATS: Final = ("AIP-API-001",)
FAILS_OVER: Final = ("AIP-API-001", "AIP-FAIL-001")
_HEDGE_S: Final = 0.5
_ROUNDS: Final = 10
_PINNED: Final = 12
_PIXEL: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
    "hgGAWjR9awAAAABJRU5ErkJggg=="
)


@check(
    "AIP-ROUTE-001",
    level=2,
    keyword="MUST",
    title="a request is read and checked before any provider is contacted",
    clause="aiproxy §6",
    depends_on=CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def a_request_is_read_first(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-001"
    wrong: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "stream that is text": ({"stream": "yes"}, {}),
        "temperature that is text": ({"temperature": "warm"}, {}),
        "a turn of an unknown role after a good one": ({"role": "robot"}, {}),
        "a model nobody has": ({"model": f"no-such-{probe.word()}"}, {}),
        "a latency limit in words": ({}, {LATENCY: "soon"}),
        "a cost limit below zero": ({"model": "auto"}, {COST: "-1"}),
    }
    for what, (fields, headers) in wrong.items():
        case = probe.case()
        body = case.body(**fields)
        if "role" in body:
            body["messages"].append({"role": body.pop("role"), "content": "hi"})
        reply = case.post(CHAT, body, headers)
        wanted = (404,) if "model" in fields and not headers else (400, 422)
        yield refused(me, what, reply, *wanted)
        yield only_asked(me, f"a request with {what}", case, reply)
    case = probe.case()
    yield served(me, "the same request without a fault", case, case.chat(), "a", "b")


@check(
    "AIP-ROUTE-002",
    level=2,
    keyword="MUST",
    title="cost limits, latency requirements and capabilities apply before the selection",
    clause="aiproxy §6",
    depends_on=CHATS,
)
@behind(
    dear=Fake(priority=1, price=900.0, model={"latency_prior": "10ms"}),
    slow=Fake(priority=2, price=0.001, model={"latency_prior": "30s"}),
    fit=Fake(
        priority=3, price=0.001, capabilities=("text-generation", "vision"),
        model={"latency_prior": "10ms"},
    ),
)  # fmt: skip
def limits_apply_before_the_choice(probe: Probe) -> Iterator[Finding]:
    """Who is over a limit has the better priority, and is not asked even when the other fails."""
    me = "AIP-ROUTE-002"
    image: list[dict[str, Any]] = [
        {"type": "text", "text": ""},
        {"type": "image_url", "image_url": {"url": _PIXEL}},
    ]
    limits: dict[str, tuple[tuple[str, ...], dict[str, str], bool]] = {
        "a cost limit": (("dear", "fit"), {COST: "0.5"}, False),
        "a latency limit": (("slow", "fit"), {LATENCY: "5000"}, False),
        "an image": (("slow", "fit"), {}, True),
    }
    reasons: list[set[str]] = []
    for what, (pool, headers, seen) in limits.items():
        for failing in (False, True):
            case = probe.case()
            if failing:
                case.script("fit", always=Act(status=503))
            fields: dict[str, Any] = {}
            if seen:
                parts = [{**image[0], "text": case.prompt("What is this?")}, image[1]]
                fields = {"messages": [{"role": "user", "content": parts}]}
            chosen = {"X-AI-Provider-Pool": case.pool(*pool), **headers}
            reply = case.chat(chosen, model="auto", **fields)
            if failing:
                refusing = reply.status >= 400
                yield tell(
                    me, f"{what} that only a failing provider meets", refusing, reply,
                    expected="an error",
                )  # fmt: skip
            else:
                yield served(me, what, case, reply, "fit")
                reasons.append(_reasons(case.decision(reply), case.cast[pool[0]].id))
            yield only_asked(me, f"who meets {what}", case, reply, "fit")
    if all(reasons):
        told = set().union(*reasons)
        yield tell(
            me, "the reasons in the decision records", len(told) >= len(limits),
            expected="one of its own for each limit", found=", ".join(sorted(told)),
        )  # fmt: skip


def _reasons(record: Any, provider: str) -> set[str]:
    rows = record.get("candidates")
    return {
        str(row.get("reason"))
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and row.get("provider") == provider and not row.get("eligible")
    }


@check(
    "AIP-ROUTE-004",
    level=2,
    keyword="MUST",
    title="the first candidate's success is returned at once",
    clause="aiproxy §6",
    depends_on=CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3))
def a_success_is_final(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-004"
    for wait_s in (0.0, _HEDGE_S):
        case = probe.case()
        case.script("a", always=Act(wait_s=wait_s))
        reply = case.chat()
        what = f"an answer after {wait_s:g} s"
        yield served(me, what, case, reply, "a")
        yield only_asked(me, what, case, reply, "a")
        again = [role for role in case.tried() if role == "a"]
        yield tell(
            me, what, len(again) == 1, reply,
            expected="asked once", found=f"asked {len(again)} times",
        )  # fmt: skip


@check(
    "AIP-ROUTE-005",
    level=2,
    keyword="MUST",
    title="on failure the next candidate is tried, until one succeeds or none is left",
    clause="aiproxy §6",
    depends_on=FAILS_OVER,
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3), d=Fake(priority=4))
def candidates_are_tried_in_turn(probe: Probe) -> Iterator[Finding]:
    """Four candidates are as many as the default of three retries allows for."""
    me = "AIP-ROUTE-005"
    for last in (Act(), Act(status=503)):
        case = probe.case()
        for role in "abc":
            case.script(role, always=Act(status=503))
        case.script("d", always=last)
        reply = case.chat()
        asked = set(case.order())
        everyone = asked == set("abcd")
        if last.status == 200:
            everyone = everyone or case.served(reply) == "d"  # a healthier one may come first
            yield served(me, "three failures", case, reply, "d")
        else:
            code = reply.error.get("code")
            right = reply.status in (502, 503) and code in ("all_providers_failed",)
            yield tell(
                me, "four failures", right, reply, expected="502 or 503 all_providers_failed"
            )
        yield tell(
            me, "the candidates asked", everyone, reply,
            expected="all four", found=", ".join(map(case.who, case.order())) or "none",
        )  # fmt: skip


@check(
    "AIP-ROUTE-006",
    level=2,
    keyword="MUST",
    title="only providers that serve the requested model are candidates",
    clause="aiproxy §2",
    depends_on=CHATS,
)
@behind(a=Fake(priority=9, alone=True), b=Fake(priority=1), c=Fake(priority=2))
def the_model_decides_who_may_serve(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-006"
    model = probe.cast["a"].model
    case = probe.case()
    yield served(me, "a model of one provider", case, case.chat(model=model), "a")
    case = probe.case()
    case.script("a", always=Act(status=503))
    reply = case.chat(model=model)
    refusing = reply.status >= 400
    yield tell(me, "its answer when that provider fails", refusing, reply, expected="an error")
    yield only_asked(me, "a model of one provider that fails", case, reply, "a")
    case = probe.case()
    reply = case.chat()
    yield served(me, "a model of two other providers", case, reply, "b", "c")
    yield only_asked(me, "a model of two other providers", case, reply, "b", "c")


@check(
    "AIP-ROUTE-013",
    level=2,
    keyword="MUST",
    title="strategy round_robin cycles over the eligible providers",
    clause="aiproxy §4.1 strategy",
    depends_on=FAILS_OVER,
)
@behind(
    world=TURNS,
    a=Fake(priority=1, price=0.001),
    b=Fake(priority=2, price=0.004),
    c=Fake(priority=3, price=0.002),
)
def providers_take_turns(probe: Probe) -> Iterator[Finding]:
    me = "AIP-ROUTE-013"
    turns = []
    for _ in range(3 * _ROUNDS):
        case = probe.case()
        turns.append(case.served(case.chat()))
    counts = Counter(turns)
    even = all(abs(counts[role] - _ROUNDS) <= 1 for role in "abc")
    shown = ", ".join(f"{role or 'nobody'} {count}" for role, count in sorted(counts.items()))
    yield tell(
        me, f"{3 * _ROUNDS} requests over three providers", even,
        expected=f"{_ROUNDS} each, give or take one", found=shown,
    )  # fmt: skip
    left = []
    for _ in range(_ROUNDS):
        case = probe.case()
        case.script("b", always=Act(status=503))
        left.append(case.served(case.chat()))
    shown = ", ".join(
        f"{role or 'nobody'} {count}" for role, count in sorted(Counter(left).items())
    )
    yield tell(
        me, "while one of them fails", set(left) == {"a", "c"},
        expected="the other two share", found=shown,
    )  # fmt: skip


@check(
    "ASC-RULE-001",
    level=2,
    keyword="MUST",
    title="a static rule always sends a model to the provider it names",
    clause="asc rules Static",
    depends_on=CHATS,
)
@behind(world=ORDERED, better=Fake(priority=1), named=Fake(priority=90), other=Fake(priority=50))
def a_rule_pins_a_model(probe: Probe) -> Iterator[Finding]:
    """The rule is ``require``: nobody else may serve, and nobody else is asked when that fails."""
    me = "ASC-RULE-001"
    strays = []
    for _ in range(_PINNED):
        case = probe.case()
        reply = case.chat()
        if case.served(reply) != "named" or case.order() != ("named",):
            strays.append((case, reply))
    found = "-"
    if strays:
        case, reply = strays[0]
        found = f"{len(strays)} elsewhere, such as at {', '.join(case.order()) or reply.outcome}"
    yield tell(
        me, f"{_PINNED} requests for the model of the rule", not strays,
        expected="all at the named provider", found=found,
    )  # fmt: skip
    case = probe.case()
    case.script("named", always=Act(status=503))
    reply = case.chat()
    if "named" not in case.order():
        yield say(me, Status.INCONCLUSIVE, "the named provider was not asked", reply)
        return
    yield tell(me, "while that provider fails", reply.status >= 500, reply, expected="an error")
    yield only_asked(me, "while that provider fails", case, reply, "named")
