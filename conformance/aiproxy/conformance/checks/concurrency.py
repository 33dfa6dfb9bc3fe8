"""Many requests at once: each gets its own answer, and the truth about who gave it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.failing import among
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import USED

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CALLS: Final = 50


@check(
    "XAI-RESP-005",
    level=2,
    keyword="MUST",
    title="X-AI-Provider-Used is the provider that produced the answer, also among many at once",
    clause="draft §6 Table 3",
    depends_on=("AIP-API-001",),
)
@behind(a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3))
def each_gets_its_own(probe: Probe) -> Iterator[Finding]:
    """Fifty requests at once, half of them streams, every fourth after a failover."""
    cases = [(number, probe.case()) for number in range(_CALLS)]
    for number, case in cases:
        if number % 4 == 0:
            case.script("a", always=Act(status=503))
        slow = Act(wait_s=0.02 * (number % 5), gap_s=0.01, pieces=6)
        for role in ("b", "c") if number % 4 == 0 else case.roles:
            case.script(role, always=slow)

    def ask(item: "tuple[int, Case]") -> Reply:
        number, case = item
        roles = (("a", "b"), ("a", "c"), ("b",), ("c", "b"))[number % 4]
        headers = among(case, *roles)
        return (case.stream if number % 2 else case.chat)(headers)

    replies = probe.together(cases, ask)
    yield from _own_answers(cases, replies)


def _own_answers(cases: "list[tuple[int, Case]]", replies: list[Reply]) -> Iterator[Finding]:
    me, answered = "XAI-RESP-005", 0
    for (_, case), reply in zip(cases, replies, strict=True):
        if reply.status != 200:
            continue
        answered += 1
        role = case.served(reply)
        yield tell(
            me, "the answer", bool(role) and reply.text.count("proof-") == 1, reply,
            expected="this request's own, once", found=f"{reply.text[:80]!r}",
        )  # fmt: skip
        if not role:
            return
        used = [value for name, value in reply.headers if name == USED]
        wanted = case.actor(role).id
        if used != [wanted]:
            yield tell(
                me, "X-AI-Provider-Used", False, reply, expected=f"{case.who(role)}, once",
                found=", ".join(used) or "no such header",
            )  # fmt: skip
            return
        also = x_aiproxy(reply).get("provider", wanted)
        if also != wanted:
            yield tell(
                me, "x-aiproxy.provider", False, reply, expected=case.who(role), found=str(also)
            )
            return
    yield tell(
        me, f"{answered} answers at once", answered == len(replies), expected=str(len(replies)),
        found=str(answered), otherwise=Status.INCONCLUSIVE,
    )  # fmt: skip
    moved = sum(len(case.order()) > 1 for _, case in cases)
    if not moved:
        yield say(me, Status.INCONCLUSIVE, "no request met a failing provider")
