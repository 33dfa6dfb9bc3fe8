"""Conversations over several turns: their id, their stored state, and failover (draft §10)."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.flows import CONVERSATION, Turn, sent_messages, take
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import STATEFUL
from aiproxy.conformance.sightings import POOL, served
from aiproxy.spec import schema

_TOKEN: Final = re.compile(
    schema("headers/x-ai-conversation-id")["x-aiproxy-header"]["pattern"].removesuffix("$")
)
_FAILOVER: Final = "x-ai-failover-occurred"
_PATIENCE_S: Final = 0.5
_AT_ONCE: Final = 10


@check(
    "XAI-FAIL-002",
    level=3,
    keyword="MUST",
    title="a conversation keeps the id that its first turn was given, also after a failover",
    clause="draft §10 Fig 13",
    depends_on=CHATS,
)
@behind(a=Fake(priority=1), b=Fake(priority=2))
def an_id_stays(probe: Probe) -> Iterator[Finding]:
    """The client sends the whole history, so that nothing has to be kept for it."""
    me, case = "XAI-FAIL-002", probe.case()
    reply = case.chat({POOL: case.pool()}, model="auto")
    name = reply.header(CONVERSATION) or ""
    yield tell(
        me, f"{CONVERSATION} of a first turn", _TOKEN.fullmatch(name) is not None, reply,
        expected="a token", found=repr(name) if name else "no such header", blocks=True,
    )  # fmt: skip
    if not name:
        return
    other = probe.case()
    reply = other.chat({POOL: other.pool()}, model="auto")
    found = reply.header(CONVERSATION)
    yield tell(
        me, "another first turn", found not in (None, name), reply, expected="an id of its own",
        found=str(found),
    )  # fmt: skip
    for fails, role in ((None, "a"), (Act(status=503), "b"), (None, "a")):
        case = probe.case()
        case.script("a", always=fails)
        turns = [*other.messages(), {"role": "assistant", "content": "ok"}, *case.messages("And?")]
        reply = case.chat({POOL: case.pool(), CONVERSATION: name}, model="auto", messages=turns)
        how = "a later turn" + (", the first provider fails" if fails else "")
        if fails:
            yield served(me, how, case, reply, role)
        found = reply.header(CONVERSATION)
        yield tell(me, f"the id of {how}", found == name, reply, expected=name, found=str(found))


@check(
    "XAI-FIG-013",
    level=3,
    keyword="MUST",
    title="Fig 13: the provider times out, the next one gets the stored conversation",
    clause="draft Fig 13",
    depends_on=("XAI-FAIL-002",),
)
@behind(
    world=STATEFUL,
    a=Fake(priority=1, provider={"timeouts": {"first_byte": f"{_PATIENCE_S * 1000:g}ms"}}),
    b=Fake(priority=2),
)
def a_stored_conversation_moves(probe: Probe) -> Iterator[Finding]:
    me, first = "XAI-FIG-013", take(probe, "a")
    yield served(me, "turn 1", first.case, first.reply, "a")
    if not first.id:
        yield say(me, Status.INCONCLUSIVE, "turn 1 was given no conversation id", first.reply)
        return
    case, word = probe.case(), f"asked-{probe.word()}"
    case.script("a", always=Act(fault="silence"))
    case.script("b", always=Act(text=f"{{proof}} said-{word}"))
    headers = {POOL: case.pool(), CONVERSATION: first.id}
    reply = case.chat(headers, prompt=f"Go on with {word}.")
    yield served(me, "turn 2, its first provider is silent", case, reply, "b")
    yield _in_order(me, "what the second provider was sent", case, reply, first, (word,))
    name, flag = reply.header(CONVERSATION), reply.header(_FAILOVER)
    yield tell(me, "the id of turn 2", name == first.id, reply, expected=first.id, found=str(name))
    yield tell(
        me, "X-AI-Failover-Occurred", flag == "true", reply, expected="true", found=str(flag)
    )
    third = take(probe, "b", {CONVERSATION: first.id})
    yield _in_order(
        me, "what turn 3 was sent", third.case, third.reply, first,
        (word, f"said-{word}", third.asked),
    )  # fmt: skip


def _in_order(
    me: str, fact: str, case: Any, reply: Reply, first: Turn, then: tuple[str, ...]
) -> Finding:
    """Return whether the words of ``first`` and then ``then`` stand in what was sent, in order."""
    text = json.dumps(sent_messages(case))
    places = [text.find(word) for word in (first.asked, first.said, *then)]
    whole = -1 not in places and places == sorted(places)
    return tell(
        me, fact, whole, reply, expected="every earlier turn, then the new one",
        found=text[:200] or "nothing",
    )  # fmt: skip


@check(
    "XAI-FAIL-026",
    level=3,
    keyword="MUST",
    title="concurrent turns on one conversation are stored whole, one after the other",
    clause="draft §10 'State Store' (implied)",
    depends_on=("XAI-FAIL-002",),
)
@behind(world=STATEFUL, a=Fake(priority=1))
def concurrent_turns_are_kept(probe: Probe) -> Iterator[Finding]:
    """Whoever lets only one turn at a time in refuses the others, and keeps nothing of them."""
    me, first = "XAI-FAIL-026", take(probe, "a")
    if not first.id:
        yield say(me, Status.INCONCLUSIVE, "turn 1 was given no conversation id", first.reply)
        return
    slow = Act(wait_s=0.2)
    headers = {CONVERSATION: first.id}
    turns = probe.together(_AT_ONCE, lambda _: take(probe, "a", headers, act=slow))
    kept = [turn for turn in turns if turn.reply.status == 200]
    broken = [turn for turn in turns if turn.reply.status >= 500]
    yield tell(
        me, f"{_AT_ONCE} turns at once", not broken, broken[0].reply if broken else None,
        expected="answers, or refusals such as 409",
    )  # fmt: skip
    if len(kept) < 2:
        yield say(me, Status.INCONCLUSIVE, f"{len(kept)} of {_AT_ONCE} turns were answered")
        return
    last = take(probe, "a", headers)
    messages = last.messages
    for turn in (first, *kept):
        places = [n for n, one in enumerate(messages) if turn.asked in json.dumps(one)]
        after = messages[places[0] + 1] if len(places) == 1 and messages[places[0] + 1 :] else {}
        whole = after.get("role") == "assistant" and turn.said in json.dumps(after)
        if not whole:
            yield tell(
                me, "the history that the next turn was sent", False, last.reply,
                expected="each answered turn once, its answer right behind it",
                found=f"{turn.asked} {len(places)} times, then {json.dumps(after)[:80]}",
            )  # fmt: skip
            return
    yield tell(me, f"the history of {len(kept)} turns", True, last.reply)
