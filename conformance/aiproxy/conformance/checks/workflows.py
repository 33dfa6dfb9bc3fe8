"""Workflows: branches of a stored conversation, and merges of branches (draft §13).

The turns here send nothing but their own message; what a provider was given beside it is what the
target kept. Branch names are drawn, but for the figure's, whose caller has no other workflow.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import SECURITY, bad_header
from aiproxy.conformance.claims import SELECTION, record
from aiproxy.conformance.claims import field as told_in
from aiproxy.conformance.flows import (
    BRANCH,
    CONVERSATION,
    MERGE,
    PARENT,
    Turn,
    answered,
    branch,
    holds,
    lacks,
    merge,
    named,
    refusal,
    take,
)
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import CALLERS, STATEFUL
from aiproxy.conformance.sightings import POOL, only_asked, served
from aiproxy.spec.vectors import vector

_STARTED: Final = ("XAI-WF-002",)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SLOW: Final = Act(wait_s=0.6)
_TRIES: Final = 2
_LABEL: Final = "workflow-label"


@check(
    "XAI-WF-002", level=4, keyword="MUST", clause="draft Fig 21", depends_on=("XAI-FAIL-002",),
    title="a request that starts a workflow is given an id that can be a parent",
)  # fmt: skip
@check(
    "XAI-WF-001", level=4, keyword="MUST", clause="draft §13",
    title="branches of a stored conversation are merged with what they came to",
)  # fmt: skip
@check(
    "XAI-WF-006", level=4, keyword="MUST", clause="draft Fig 20",
    title="a branch inherits the base and changes neither it nor other branches",
)  # fmt: skip
@check(
    "XAI-WF-009", level=4, keyword="MUST", clause="draft Fig 21",
    title="a merge joins the results of the named branches, once each, in their order",
)  # fmt: skip
@check(
    "XAI-FIG-020", level=4, keyword="MUST", clause="draft Fig 20",
    title="Fig 20: two branches inherit the base, a final step merges both",
)  # fmt: skip
@behind(
    world=STATEFUL,
    a=Fake(priority=1), b=Fake(priority=2), c=Fake(priority=3), d=Fake(priority=4),
)  # fmt: skip
def branches_and_a_merge(probe: Probe) -> Iterator[Finding]:
    start, whole, state, joins, figure = (
        "XAI-WF-002", "XAI-WF-001", "XAI-WF-006", "XAI-WF-009", "XAI-FIG-020",
    )  # fmt: skip
    rest = (whole, state, joins, figure)
    base = take(probe, "a")
    yield tell(
        start, CONVERSATION, _TOKEN.fullmatch(base.id) is not None, base.reply, expected="a token",
        found=base.id or "no such header", blocks=True,
    )  # fmt: skip
    one, two = named(probe, 2)
    first = branch(probe, "b", base, one)
    yield tell(
        start, "that id as a parent", first.reply.status == 200, first.reply, expected="200",
        blocks=True,
    )  # fmt: skip
    if first.reply.status != 200:
        for me in rest:
            yield say(me, Status.INCONCLUSIVE, "no branch could be opened", first.reply)
        return
    second = branch(probe, "c", base, two)
    for me in rest:
        yield answered(me, "the second branch", second)
    for me in (state, figure):
        yield holds(me, "the base in the first branch", first, base)
        yield holds(me, "the base in the second branch", second, base)
        yield lacks(me, "the first branch in the second", second, first)
    final = merge(probe, "d", base, two, one)
    for me in (whole, figure):
        yield holds(me, "both results in the merge", final, first, second, answers=True)
    yield _joined(joins, "the results in the merge", final, second, first)
    yield _joined(joins, "a merge of one branch", merge(probe, "d", base, one), first)
    later = take(probe, "a", {CONVERSATION: base.id})
    yield holds(state, "the base, continued", later, base)
    yield lacks(state, "the branches in the continued base", later, first, second)


def _joined(me: str, fact: str, turn: Turn, *branches: Turn) -> Finding:
    """Return whether the results of ``branches`` stand in what was sent, once, in this order."""
    sent = turn.sent
    counts = [sent.count(one.said) for one in branches]
    places = [sent.find(one.said) for one in branches]
    right = set(counts) == {1} and places == sorted(places)
    return tell(
        me, fact, right, turn.reply, expected="each once, in the order of the header",
        found=f"{counts} times at {places}" if sent else "nothing was sent",
    )  # fmt: skip


@check(
    "XAI-FIG-021", level=4, keyword="MUST", clause="draft Fig 21", depends_on=_STARTED,
    title="Fig 21: base, two branches and their merge, which reports the branches merged",
)  # fmt: skip
@behind(world=STATEFUL, a=Fake(priority=1), b=Fake(priority=2))
def the_figure_is_replayed(probe: Probe) -> Iterator[Finding]:
    """The merge names no parent: its caller has no other branches of these names.

    It may have some of an earlier run, at a target that was not started for this one; then the
    parent is named.
    """
    me, parent = "XAI-FIG-021", ""
    *before, last = vector("figures/fig-21")["exchanges"]
    for exchange in before:
        reply = _replayed(probe, exchange["request"], parent)
        yield tell(me, exchange["label"], reply.status == 200, reply, expected="200")
        parent = parent or reply.header(CONVERSATION) or ""
    reply = _replayed(probe, last["request"], parent)
    if reply.error.get("code") == "workflow_branch_ambiguous":
        reply = _replayed(probe, last["request"], parent, {PARENT: parent})
    yield tell(me, last["label"], reply.status == 200, reply, expected="200")
    merged = _merged(probe, reply)
    yield tell(
        me, "branches_merged", merged == ["marketing", "product"], reply,
        expected="marketing, product", found=repr(merged),
    )  # fmt: skip
    unknown = {PARENT: parent, MERGE: f"marketing,{named(probe, 1)[0]}"}
    reply = _replayed(probe, last["request"], parent, unknown)
    yield refused(me, "a merge with an unknown branch", reply, 404)


def _replayed(probe: Probe, request: Any, parent: str, more: dict[str, str] | None = None) -> Reply:
    """Send a request of the figure with the id that its base got, and our pool."""
    case, skipped = probe.case(), ("Host", "Authorization", "Content-Type")
    headers = {name: text for name, text in request["headers"].items() if name not in skipped}
    if PARENT in headers:
        headers[PARENT] = parent
    *turns, last = request["body"]["messages"]
    messages = [*turns, {**last, "content": case.prompt(last["content"])}]
    return case.post(
        request["path"], {**request["body"], "messages": messages},
        {**headers, POOL: case.pool(), **(more or {})}, key=CALLERS[2],
    )  # fmt: skip


def _merged(probe: Probe, reply: Reply) -> Any:
    """Return ``branches_merged`` wherever it is told."""
    for told in (told_in(reply, SELECTION), record(probe.case(), reply)):
        found = told.get("branches_merged") if isinstance(told, dict) else None
        if found is not None:
            return found
    return None


@check(
    "XAI-WF-003", level=4, keyword="MUST", clause="draft Fig 21", depends_on=_STARTED,
    title="a parent is a conversation of the caller's own",
)  # fmt: skip
@check(
    "XAI-WF-004", level=4, keyword="MUST", clause="draft Fig 21", depends_on=_STARTED,
    title="a branch has a short token for a name",
)  # fmt: skip
@check(
    "XAI-WF-005", level=4, keyword="MUST", clause="draft Fig 21 (implied)", depends_on=_STARTED,
    title="a branch without a parent is refused",
)  # fmt: skip
@behind(world=STATEFUL, a=Fake(priority=1))
def branches_have_names_and_parents(probe: Probe) -> Iterator[Finding]:
    owned, names, orphans = "XAI-WF-003", "XAI-WF-004", "XAI-WF-005"
    base = take(probe, "a")
    yield answered(owned, "a branch of one's own", branch(probe, "a", base, named(probe, 1)[0]))
    unknown = {PARENT: f"conv-{probe.word()}{probe.word()}", BRANCH: named(probe, 1)[0]}
    foreign = {PARENT: base.id, BRANCH: named(probe, 1)[0]}
    for fact, headers, key in (
        ("an unknown parent", unknown, ""),
        ("another caller's conversation", foreign, CALLERS[1]),
    ):
        turn = take(probe, "a", headers, key=key)
        yield from refusal(owned, fact, turn, 404, "conversation_not_found")
    for name in (f"marketing-{probe.word()}", f"V1.{probe.word()}_b"):
        yield answered(names, f"a branch called {name}", branch(probe, "a", base, name))
    for name in ("a/b c", "m" * 200, ""):
        turn = branch(probe, "a", base, name)
        yield from bad_header(names, BRANCH, name, turn.case, turn.reply)
    turn = take(probe, "a", {BRANCH: named(probe, 1)[0]})
    fact = f"{BRANCH} alone"
    yield from refusal(orphans, fact, turn, 400, "invalid_header_combination", PARENT)


@check(
    "XAI-WF-007", level=4, keyword="MUST", clause="draft Fig 21", depends_on=_STARTED,
    title="branches may run in parallel",
)  # fmt: skip
@behind(world=STATEFUL, a=Fake(priority=1), b=Fake(priority=2))
def branches_run_in_parallel(probe: Probe) -> Iterator[Finding]:
    """The fakes tell: one branch reaches its provider before the other was answered."""
    me, apart = "XAI-WF-007", True
    base, names, branches = _side_by_side(probe)
    for _ in range(_TRIES):
        seen = [attempt for turn in branches for attempt in turn.case.attempts()]
        ends = [attempt.answered_at for attempt in seen if attempt.answered_at is not None]
        apart = len(ends) < len(branches) or max(one.at for one in seen) > min(ends)
        if not apart:
            break
        base, names, branches = _side_by_side(probe)
    for turn in branches:
        yield answered(me, "a branch", turn)
    yield tell(
        me, f"two branches that take {_SLOW.wait_s:g} s each, sent at once", not apart,
        branches[-1].reply, expected="both at their providers at the same time",
        found="one after the other",
    )  # fmt: skip
    for name, turn in zip(names, branches, strict=True):
        final = merge(probe, "a", base, name)
        yield holds(me, "its result in a merge", final, turn, answers=True)


def _side_by_side(probe: Probe) -> tuple[Turn, list[str], list[Turn]]:
    """Open two branches at once; return their base, their names and themselves."""
    base, names = take(probe, "a"), named(probe, 2)

    def opened(pair: tuple[str, str]) -> Turn:
        return branch(probe, pair[0], base, pair[1], act=_SLOW)

    return base, names, probe.together(list(zip("ab", names, strict=True)), opened)


@check(
    "XAI-WF-015", level=5, keyword="MUST", clause="draft §13 (implied, safety)",
    depends_on=_STARTED, title="branches and merges inherit the strictest security requirement",
)  # fmt: skip
@behind(
    world=STATEFUL, plain=Fake(priority=1),
    attested=Fake(priority=2, provider={"security": {"labels": [_LABEL]}}),
)  # fmt: skip
def labels_are_inherited(probe: Probe) -> Iterator[Finding]:
    me, name = "XAI-WF-015", named(probe, 1)[0]
    base = take(probe, "attested", {SECURITY: _LABEL})
    yield answered(me, "a base with a security requirement", base)
    anyone = {POOL: base.case.pool()}
    opened = branch(probe, "attested", base, name, headers=anyone)
    joined = merge(probe, "attested", base, name, headers=anyone)
    for fact, turn in (("a branch of it", opened), ("a merge of that", joined)):
        yield served(me, f"{fact}, without the header", turn.case, turn.reply, "attested")
        yield only_asked(me, f"who was asked for {fact}", turn.case, turn.reply, "attested")
