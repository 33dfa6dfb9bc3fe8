"""Any headers together, and the same headers again (draft §6).

The values are drawn from the header schemas of ``aiproxy.spec``.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import AUTO, CHATS, ask, choose
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import HINT, POLICY, POOL, QUALITY, STRATEGY, served
from aiproxy.conformance.transport import Unanswered
from aiproxy.spec import HEADERS, HeaderField, Invalid, schema, validate

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_REQUESTS: Final = 60
_AGAIN: Final = 6
# Statuses that an error of the request, or of the providers, may have.
_DOCUMENTED: Final = frozenset({
    status for row in schema("error")["x-aiproxy-errors"].values() for status in row["statuses"]
}) - {500}  # fmt: skip


@check(
    "XAI-HDR-078",
    level=3,
    keyword="MUST",
    title="any combination of valid headers: an answer, or a documented error",
    clause="draft §6",
    depends_on=CHATS,
)
@behind(
    a=Fake(quality=0.9, price=0.0), b=Fake(quality=0.6, price=0.01), c=Fake(price=None),
)  # fmt: skip
def any_headers_together(probe: Probe) -> Iterator[Finding]:
    """One in six finds its first providers failing, so that errors of theirs are seen too."""
    me = "XAI-HDR-078"
    fields = [field for field in HEADERS.values() if "request" in field.directions]
    for number in range(_REQUESTS):
        case = probe.case()
        headers = _draw(probe.chance, case, fields)
        for role in case.roles if number % 6 == 5 else ():
            case.script(role, Act(status=503), Act(status=500))
        model = AUTO if number % 3 else probe.cast.model
        shown = ", ".join(f"{name}: {value}" for name, value in sorted(headers.items()))
        try:
            send = case.draft if number % 4 == 3 else case.chat
            reply = send(headers, model=model)
        except Unanswered as silence:
            yield tell(me, shown, False, expected="an answer", found=silence.reason)
            continue
        fault = _fault(reply)
        yield tell(me, shown, not fault, reply, expected="200 or a documented error", found=fault)


def _draw(chance: random.Random, case: "Case", fields: list[HeaderField]) -> Mapping[str, str]:
    """Return a valid value for about half of the headers; the pool is always this case's own."""
    chosen = {f.name: chance.choice(_valid(f)) for f in fields if chance.random() < 0.4}
    roles = tuple(role for role in case.roles if chance.random() < 0.7) or case.roles
    return {**chosen, POOL: case.pool(*roles)}


def _valid(field: HeaderField) -> tuple[str, ...]:
    """Return values in wire form: the examples, each known word, the aliases."""
    return (*field.accepted, *field.values, *field.aliases)


def _fault(reply: Reply) -> str:
    """Return what is wrong with an answer, or nothing."""
    if reply.status == 200:
        return "" if reply.object else f"200 with {reply.json_fault or 'no object'}"
    if reply.status not in _DOCUMENTED:
        return f"status {reply.status}, which is not documented"
    try:
        validate(reply.json, "error")
    except Invalid as invalid:
        return f"status {reply.status} and {invalid.errors[0].message}"
    return ""


@check(
    "XAI-HDR-079",
    level=3,
    keyword="MUST",
    title="the same request chooses the same provider",
    clause="draft §6",
    depends_on=CHATS,
)
@behind(
    a=Fake(priority=1, price=0.004, quality=0.8),
    b=Fake(priority=2, price=0.003, quality=0.9),
    c=Fake(
        priority=3, price=0.002, quality=0.7, capabilities=("text-generation", "code-generation")
    ),
    d=Fake(priority=4, price=0.005, quality=0.6),
)
def the_same_choice_again(probe: Probe) -> Iterator[Finding]:
    """No two candidates are equal, so nothing that is measured on the way breaks a tie."""
    me, pool = "XAI-HDR-079", ("a", "b", "c", "d")
    for headers in (
        {STRATEGY: "cost"},
        {STRATEGY: "quality"},
        {STRATEGY: "capability-first", HINT: "coding"},
        {STRATEGY: "cost", QUALITY: "0.75"},
        {HINT: "coding"},
    ):
        chosen = Counter[str]()
        asked = [choose(probe, pool, headers) for _ in range(_AGAIN)]
        chosen.update(case.served(reply) for case, reply in asked)
        reply = asked[-1][1]
        shown = ", ".join(f"{name}: {value}" for name, value in headers.items())
        if "" in chosen:
            yield say(me, Status.NOT_TESTABLE, f"{shown}: not every request was served", reply)
            continue
        yield tell(
            me, f"{_AGAIN} times {shown}", len(chosen) == 1, reply, expected="one provider",
            found=", ".join(f"{role} {count} times" for role, count in chosen.items()),
        )  # fmt: skip


@check(
    "XAI-HDR-072",
    level=3,
    keyword="MUST",
    title="cascading walks down to lower ranks, and never below a constraint",
    clause="draft Fig 19",
    depends_on=CHATS,
)
@behind(
    a=Fake(priority=1, quality=0.95), b=Fake(priority=2, quality=0.9),
    c=Fake(priority=3, quality=0.82), d=Fake(priority=4, quality=0.79),
    e=Fake(priority=1, quality=0.95), f=Fake(priority=2, quality=0.9),
)  # fmt: skip
def cascades_keep_the_constraints(probe: Probe) -> Iterator[Finding]:
    me = "XAI-HDR-072"
    headers = {POLICY: "cascading", QUALITY: "0.8", STRATEGY: "quality"}
    for pool, right in ((("a", "b", "c", "d"), "c"), (("e", "f", "d"), "")):
        case = probe.case()
        case.script(pool[0], always=Act(status=503))
        case.script(pool[1], always=Act(status=529))
        reply = ask(case, pool, headers)
        fact = f"{pool[0]} and {pool[1]} fail, {pool[-1]} is below the threshold"
        if right:
            yield served(me, fact, case, reply, right)
            occurred = (reply.header("x-ai-failover-occurred") or "").lower()
            yield tell(
                me, "the cascade is told", reply.status != 200 or occurred == "true", reply,
                expected="X-AI-Failover-Occurred: true", found=occurred or "absent",
            )  # fmt: skip
        else:
            refusal = reply.status in (422, 502, 503)
            yield tell(me, fact, refusal, reply, expected="status 422, 502 or 503")
        asked = case.order()
        yield tell(
            me, f"who was asked: {fact}", "d" not in asked, reply, expected="nobody below 0.8",
            found=" then ".join(map(case.who, asked)),
        )  # fmt: skip
