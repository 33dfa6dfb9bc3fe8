"""The ``x-aiproxy`` object of an answer: who served, where, at what cost, how fast (aiproxy §5.1).

What it says is compared with what the fake providers did: the proof of origin in the text, the
token counts they made up, and the time they took.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.bills import billed, is_number
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply, x_aiproxy
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake

CHATS: Final = ("AIP-API-001",)
_SLOW_S: Final = 0.4
# What our own clock and the target's may differ by, each way.
_CLOCKS_MS: Final = 25.0


@check(
    "AIP-API-004",
    level=2,
    keyword="MUST",
    title="the answer carries x-aiproxy with provider, node, cost and latency_ms",
    clause="aiproxy §5.1",
    depends_on=CHATS,
)
@check(
    "AIP-API-005",
    level=2,
    keyword="MUST",
    title="x-aiproxy.cost is the tokens times the configured price, divided by 1000",
    clause="aiproxy §5.1",
    depends_on=CHATS,
)
@behind(
    a=Fake(alone=True, price=0.0037),
    b=Fake(alone=True, price=0.00113),
    free=Fake(alone=True, price=0.0),
)
def the_answer_says_who_and_how_much(probe: Probe) -> Iterator[Finding]:
    shape, price = "AIP-API-004", "AIP-API-005"
    nodes = set()
    for role in ("a", "b", "free"):
        case = probe.case()
        reply = case.chat(model=case.cast[role].model)
        told = x_aiproxy(reply)
        if case.served(reply) != role:
            reason = f"{case.who(role)} did not serve its own model: {reply.outcome}"
            yield say(shape, Status.NOT_TESTABLE, reason, reply)
            yield say(price, Status.NOT_TESTABLE, reason, reply)
            return
        yield tell(shape, "x-aiproxy", bool(told), reply, expected="an object", found="none")
        if not told:
            yield say(price, Status.NOT_TESTABLE, "there is no x-aiproxy", reply)
            return
        provider = told.get("provider")
        yield tell(
            shape, "provider", provider == case.cast[role].id, reply,
            expected=case.who(role), found=repr(provider),
        )  # fmt: skip
        nodes.add(told.get("node"))
        yield from _shapes(shape, told, reply)
        yield billed(price, case, role, told.get("cost"), reply)
    yield tell(
        shape, "node", len(nodes) == 1, expected="the same node three times", found=repr(nodes)
    )


def _shapes(me: str, told: Mapping[str, Any], reply: Reply) -> Iterator[Finding]:
    node = told.get("node")
    right = isinstance(node, str) and bool(node)
    yield tell(me, "node", right, reply, expected="the node's id", found=repr(node))
    for name in ("cost", "latency_ms"):
        value = told.get(name)
        yield tell(
            me, name, is_number(value) and value >= 0, reply,
            expected="a number of 0 or more", found=repr(value),
        )  # fmt: skip


@check(
    "AIP-API-006",
    level=2,
    keyword="MUST",
    title="x-aiproxy.latency_ms is the measured time of the request",
    clause="aiproxy §5.1",
    depends_on=("AIP-API-004",),
)
@behind(a=Fake())
def latency_is_measured(probe: Probe) -> Iterator[Finding]:
    """Never more than the client waited, never less than the provider took."""
    me = "AIP-API-006"
    for wait_s in (_SLOW_S, 0.0):
        case = probe.case()
        case.script("a", Act(wait_s=wait_s))
        reply = case.chat()
        latency = x_aiproxy(reply).get("latency_ms")
        longest = reply.answer.seconds * 1000 + _CLOCKS_MS
        least = max(0.0, wait_s * 1000 - _CLOCKS_MS)
        yield tell(
            me, f"an answer after {wait_s:g} s", is_number(latency) and least <= latency <= longest,
            reply, expected=f"{least:.0f} to {longest:.0f} ms", found=repr(latency),
        )  # fmt: skip


@check(
    "AIP-BUDGET-013",
    level=2,
    keyword="MUST",
    title="every answer of a priced provider names its cost",
    clause="aiproxy §4.1 track_costs",
    depends_on=("AIP-API-004",),
)
@behind(a=Fake(price=0.0019))
def every_answer_names_its_cost(probe: Probe) -> Iterator[Finding]:
    me = "AIP-BUDGET-013"
    case = probe.case()
    replies = {
        "a chat": case.chat(),
        "a streamed chat": case.stream(),
        "the draft's Responses": case.draft(),
        "Responses": case.responses(),
        "completions": case.completion(),
    }
    for what, reply in replies.items():
        if reply.status != 200:
            continue  # whether that endpoint serves is another check's question
        cost = x_aiproxy(reply).get("cost")
        yield tell(
            me, what, is_number(cost), reply, expected="a number", found=repr(cost),
        )  # fmt: skip
    if all(reply.status != 200 for reply in replies.values()):
        yield say(me, Status.NOT_TESTABLE, "nothing was answered", replies["a chat"])


@check(
    "AIP-API-008",
    level=2,
    keyword="SHOULD",
    title="a stream carries x-aiproxy in its last data chunk before [DONE]",
    clause="aiproxy §5.1",
    depends_on=("AIP-API-004", "XAI-STREAM-006"),
)
@behind(a=Fake(price=0.0041))
def a_stream_ends_with_x_aiproxy(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-008"
    case = probe.case()
    reply = case.stream(stream_options={"include_usage": True})
    chunks = [event.json for event in reply.events if isinstance(event.json, dict)]
    if not chunks:
        yield say(me, Status.NOT_TESTABLE, "no stream came", reply)
        return
    early = [place for place, chunk in enumerate(chunks[:-1]) if "x-aiproxy" in chunk]
    yield tell(
        me, "earlier chunks", not early, reply,
        expected="none with x-aiproxy", found=f"it is in chunk {early and early[0]}",
    )  # fmt: skip
    told = chunks[-1].get("x-aiproxy")
    yield tell(
        me, "the last chunk", isinstance(told, dict), reply,
        expected="x-aiproxy", found=repr(told),
    )  # fmt: skip
    if isinstance(told, dict):
        yield billed(me, case, "a", told.get("cost"), reply)
