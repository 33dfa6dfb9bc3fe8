"""Merges that name unknown, ambiguous or unfinished branches (draft §13)."""

from collections.abc import Iterator
from typing import Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.flows import Turn, answered, branch, merge, named, refusal, take
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import CALLERS, STATEFUL

_MERGES: Final = ("XAI-WF-001",)
# A branch that speaks this long, in pieces, is merged in the middle of it.
_SPEAKS: Final = Act(gap_s=0.3, pieces=5)
_SEEN_S: Final = 5.0
_WAITS_S: Final = 10.0


@check(
    "XAI-WF-010", level=4, keyword="MUST", clause="draft Fig 21 (implied)", depends_on=_MERGES,
    title="merging an unknown branch is refused by its name",
)  # fmt: skip
@check(
    "XAI-WF-011", level=4, keyword="MUST", clause="draft Fig 21 (implied)", depends_on=_MERGES,
    title="a merge without a parent is resolved only when one conversation of the caller fits",
)  # fmt: skip
@behind(world=STATEFUL, a=Fake(priority=1))
def merges_name_what_they_mean(probe: Probe) -> Iterator[Finding]:
    unknown, orphans = "XAI-WF-010", "XAI-WF-011"
    one, two = take(probe, "a"), take(probe, "a")
    shared, single, nowhere = named(probe, 3)
    first, second = branch(probe, "a", one, shared), branch(probe, "a", two, shared)
    alone = branch(probe, "a", one, single)
    for me in (unknown, orphans):
        for turn in (first, second, alone):
            yield answered(me, "a branch", turn)
    turn = merge(probe, "a", one, shared, nowhere)
    yield from refusal(unknown, "an unknown branch", turn, 404, "workflow_branch_not_found")
    if turn.reply.status == 404:
        message = str(turn.reply.error.get("message"))
        yield tell(
            unknown, "the message", nowhere in message, turn.reply,
            expected=f"names {nowhere}", found=message,
        )  # fmt: skip
    turn = merge(probe, "a", None, shared)
    fact = "a name in two workflows, without a parent"
    yield from refusal(orphans, fact, turn, 400, "workflow_branch_ambiguous")
    yield _one(orphans, "the same with a parent", merge(probe, "a", two, shared), second, first)
    yield _one(orphans, "a name in one workflow", merge(probe, "a", None, single), alone, first)
    turn = merge(probe, "a", None, single, key=CALLERS[1])
    fact = "a name in another caller's workflow"
    yield from refusal(orphans, fact, turn, 404, "workflow_branch_not_found")


def _one(me: str, fact: str, turn: Turn, meant: Turn, other: Turn | None = None) -> Finding:
    """Return whether the result of ``meant`` is merged and that of ``other`` is not.

    What the parent itself said may be there or not: no source says which.
    """
    right = meant.said in turn.sent and (other is None or other.said not in turn.sent)
    return tell(
        me, fact, turn.reply.status == 200 and right, turn.reply,
        expected="200, with the result of that branch alone",
        found=f"{turn.reply.outcome[:80]}, sent {turn.sent[:160]}",
    )  # fmt: skip


@check(
    "XAI-WF-012", level=4, keyword="MUST", clause="draft Fig 21 (implied)", depends_on=_MERGES,
    title="a branch in progress is not merged in part",
)  # fmt: skip
@behind(world=STATEFUL, a=Fake(priority=1), b=Fake(priority=2))
def unfinished_branches_wait(probe: Probe) -> Iterator[Finding]:
    """A branch speaks while a merge of it is asked for; refusing it and waiting are both right."""
    me, base, name = "XAI-WF-012", take(probe, "a"), named(probe, 1)[0]
    speaker = probe.cast["b"].id

    def spoken() -> bool:
        return any(
            attempt.provider == speaker and attempt.answered_at is not None
            for attempt in probe.upstreams.everything()
        )

    def work(what: str) -> Turn | None:
        if what == "branch":
            return branch(probe, "b", base, name, act=_SPEAKS, stream=True)
        if not probe.poll(spoken, _SEEN_S, 0.05):
            return None
        return merge(probe, "a", base, name)

    speaking, early = probe.together(("branch", "merge"), work)
    if speaking is None or early is None or speaking.reply.status != 200:
        yield say(me, Status.INCONCLUSIVE, "no branch was in progress")
        return
    reply = early.reply
    if reply.status == 200:
        yield tell(
            me, "a merge in the middle", speaking.said in early.sent, reply,
            expected="409, or the branch's whole result", found=f"sent {early.sent[:200]}",
        )  # fmt: skip
    else:
        yield tell(
            me, "a merge in the middle", 400 <= reply.status < 500, reply, expected="409, or a wait"
        )
        right = reply.error.get("code") == "workflow_branch_incomplete" and reply.status == 409
        yield tell(
            me, "the refusal of a merge in the middle", right, reply,
            expected="409 workflow_branch_incomplete", otherwise=Status.WARN,
        )  # fmt: skip
    yield tell(
        me, "the time it took", reply.answer.seconds < _WAITS_S, reply,
        expected=f"less than {_WAITS_S:g} s", found=f"{reply.answer.seconds:.1f} s",
    )  # fmt: skip
    later = merge(probe, "a", base, name)
    yield _one(me, "a merge afterwards", later, speaking)
