"""Turns of conversations that the target keeps, each with a word of its own in and out.

A prompt carries the word ``asked`` and the fake's answer the word ``said``, so that the body a
fake was sent later shows whose history is in it, in which order and how often.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.probe import Probe, refused, tell
from aiproxy.conformance.results import Finding
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.sightings import POOL, only_asked

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

CONVERSATION: Final = "X-AI-Conversation-ID"
PARENT: Final = "X-AI-Parent-Conversation"
BRANCH: Final = "X-AI-Workflow-Branch"
MERGE: Final = "X-AI-Merge-Branches"


@dataclass(frozen=True, slots=True)
class Turn:
    """One request with its answer; nothing of the history is sent by the client."""

    case: "Case"
    reply: Reply
    asked: str
    said: str

    @property
    def id(self) -> str:
        """The conversation that the answer names, or nothing."""
        return self.reply.header(CONVERSATION) or ""

    @property
    def sent(self) -> str:
        """What the last provider asked was given to read, as text; empty when nobody was asked."""
        return messages_text(self.messages)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that the last provider asked was given."""
        return sent_messages(self.case)

    def inside(self, text: str) -> bool:
        """Return whether both words of this turn stand in ``text``."""
        return self.asked in text and self.said in text


def take(
    probe: Probe, role: str, headers: Mapping[str, str] | None = None, *, act: Act | None = None,
    key: str = "", **fields: Any,
) -> Turn:  # fmt: skip
    """Send one turn that only ``role`` may answer and return it.

    ``act`` gives the times of its attempts; the text of the answer is ours.
    """
    case, asked, said = probe.case(), f"asked-{probe.word()}", f"said-{probe.word()}"
    text = f"{{proof}} and a few words more, the last of which is {said}"
    case.script(role, always=replace(act or Act(), text=text))
    reply = case.chat(
        {POOL: case.pool(role), **(headers or {})},
        prompt=f"Take note of {asked}.", key=key, **fields,
    )  # fmt: skip
    return Turn(case, reply, asked, said)


def sent_messages(case: "Case") -> list[dict[str, Any]]:
    """Return the messages in the body of the last attempt of ``case``."""
    seen = case.attempts()
    body = seen[-1].json if seen else None
    found = body.get("messages") if isinstance(body, dict) else None
    return [one for one in found or () if isinstance(one, dict)]


def messages_text(messages: list[dict[str, Any]]) -> str:
    """Return messages as text in which every word can be found."""
    return json.dumps(messages, ensure_ascii=False)


def named(probe: Probe, number: int) -> list[str]:
    """Return names of branches that nobody has."""
    return [f"branch-{probe.word()}" for _ in range(number)]


def branch(
    probe: Probe, role: str, base: Turn, name: str, headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Turn:  # fmt: skip
    """Open a branch of ``base``; the rest is as for ``take``."""
    return take(probe, role, {PARENT: base.id, BRANCH: name, **(headers or {})}, **more)


def merge(
    probe: Probe, role: str, base: Turn | None, *names: str,
    headers: Mapping[str, str] | None = None, **more: Any,
) -> Turn:  # fmt: skip
    """Merge branches of ``base``, or of a parent that is not named."""
    parent = {PARENT: base.id} if base is not None else {}
    return take(probe, role, {**parent, MERGE: ",".join(names), **(headers or {})}, **more)


def answered(me: str, fact: str, turn: Turn) -> Finding:
    """Return whether a turn was answered."""
    return tell(me, fact, turn.reply.status == 200, turn.reply, expected="200")


def holds(me: str, fact: str, turn: Turn, *others: Turn, answers: bool = False) -> Finding:
    """Return whether ``turn`` was sent with ``others``; of them the ``answers`` alone may do."""
    sent = turn.sent
    missing = [one for one in others if not (one.said in sent if answers else one.inside(sent))]
    return tell(
        me, fact, not missing, turn.reply, expected="it was sent upstream",
        found=f"{len(missing)} of {len(others)} missing in {sent[:200] or 'nothing'}",
    )  # fmt: skip


def lacks(me: str, fact: str, turn: Turn, *others: Turn) -> Finding:
    """Return whether nothing of ``others`` was sent with ``turn``."""
    sent = turn.sent
    strays = [one for one in others if one.asked in sent or one.said in sent]
    return tell(me, fact, not strays, turn.reply, expected="not sent upstream", found=sent[:200])


def refusal(
    me: str, fact: str, turn: Turn, status: int, code: str, param: str = ""
) -> Iterator[Finding]:
    """Yield whether a turn is refused with this status, code and parameter, and nobody asked."""
    yield refused(me, fact, turn.reply, status)
    yield only_asked(me, f"who was asked: {fact}", turn.case, turn.reply)
    if turn.reply.status != status:
        return
    error = turn.reply.error
    right = error.get("code") == code and (
        not param or str(error.get("param")).lower() == param.lower()
    )
    yield tell(
        me, f"what is told: {fact}", right, turn.reply,
        expected=f"code {code}" + (f", param {param}" if param else ""),
        found=f"code {error.get('code')}, param {error.get('param')}",
    )  # fmt: skip
