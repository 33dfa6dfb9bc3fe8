"""Conversations: ids, stored turns, branches and merges (draft sections 10 and 13).

The client's own history counts; what is kept is added only where an id comes with new turns
alone. Without server-side history an id is given and echoed, and what needs history is a 404.
Hook points: ``before`` once a request is understood, ``after`` once it was answered.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from right_server import Refusal

from right_router.answers import Declined
from right_router.asking import estimate

if TYPE_CHECKING:
    from right_router.asking import Ask

Turns = list[dict[str, Any]]
PARENT, BRANCH, MERGE = "X-AI-Parent-Conversation", "X-AI-Workflow-Branch", "X-AI-Merge-Branches"
LOCK = threading.RLock()
# Where a branch waits for the one before it, which none does that is right.
TURNSTILE = threading.Semaphore()


@dataclass
class Conversation:
    """What is kept of one conversation. ``branches`` are the ids of its own, by name."""

    owner: str | None
    turns: Turns = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    labels: frozenset[str] = frozenset()
    done: bool = False
    steps: int = 0


def before(ask: "Ask") -> None:
    """Give the request its conversation, with the turns it builds on.

    Raises:
        Refusal: 400 headers that do not go together, 404 nothing of that id or name, 409 a branch
            that is not finished.
    """
    said = ask.preferences
    if ask.mode != "assisted" or ask.endpoint not in ("chat", "draft", "responses"):
        return
    if said.branch and not said.parent and not ask.has("branch-without-parent-ok"):
        raise Refusal(400, "invalid_header_combination", "a branch needs a parent", PARENT)
    with LOCK:
        if said.merge:
            merge(ask)
        elif said.parent:
            branch(ask)
        elif said.conversation:
            carry_on(ask)
        else:
            begin(ask)
        ask.step = step(ask)
    if said.branch and ask.has("branches-one-at-a-time"):
        TURNSTILE.acquire(timeout=5)


def enabled(ask: "Ask") -> bool:
    """Return whether histories are kept."""
    told = ask.settings.raw.get("conversations") or {}
    return bool(told.get("enabled")) and not ask.has("history-never-kept")


def begin(
    ask: "Ask", turns: Turns | None = None, labels: frozenset[str] = frozenset()
) -> Conversation:
    """Start a conversation under a fresh id."""
    ask.conversation = "conv-1" if ask.has("guessable-ids") else f"conv-{uuid4().hex}"
    found = Conversation(ask.owner, list(turns or ()), labels=labels | ask.labels)
    if enabled(ask):
        ask.router.conversations[ask.conversation] = found
    return found


def carry_on(ask: "Ask") -> None:
    """Continue the conversation whose id came, adding what is kept to new turns alone."""
    name = ask.preferences.conversation
    assert name is not None
    ask.conversation = name
    if not enabled(ask):
        return
    known = find(ask, name, "X-AI-Conversation-ID")
    ask.turns_then = known.turns  # type: ignore[attr-defined]
    inherit(ask, known.labels)
    if not has_history(ask.body.get("messages") or []) or ask.has("stored-history-mixed-in"):
        put_before(ask, known.turns)


def branch(ask: "Ask") -> None:
    """Start a conversation that continues its parent's."""
    said = ask.preferences
    assert said.parent is not None
    if ask.has("branches-refused") and not ask.stream:
        raise Refusal(501, "not_implemented", "no branches here", PARENT)
    known = find(ask, said.parent, PARENT)
    inherit(ask, known.labels)
    turns = list(known.turns)
    if ask.has("branch-sees-sibling"):
        for other in known.branches.values():
            turns += ask.router.conversations[other].turns[len(known.turns) :]
    if not has_history(ask.body.get("messages") or []) and not ask.has("branch-without-base"):
        put_before(ask, turns)
    begin(ask, turns, known.labels)
    if ask.has("branch-keeps-parent-id"):
        ask.conversation = said.parent
    if said.branch:
        known.branches[said.branch] = ask.conversation or ""


def merge(ask: "Ask") -> None:
    """Put what the named branches came to before the client's turns, as labelled data."""
    names = ask.preferences.merge
    parent = parent_of(ask, names)
    if ask.has("merge-skips-unknown"):
        names = tuple(name for name in names if name in parent.branches)
    parts = {name: ask.router.conversations[parent.branches[name]] for name in names}
    if not all(part.done for part in parts.values()) and not ask.has("unfinished-branch-merged"):
        raise Declined(
            409, "workflow_branch_incomplete", "a branch is not finished", MERGE, wait_s=1
        )
    listed = list(reversed(names)) if ask.has("merge-reordered") else list(names)
    if ask.has("merge-first-only"):
        listed = listed[:1]
    text = "\n\n".join(f"[branch {name}]\n{last_word(parts[name])}" for name in listed)
    for part in parts.values():
        inherit(ask, part.labels)
    turns: Turns = [{"role": "user", "content": f"Results of earlier branches, as data:\n{text}"}]
    put_before(ask, turns * 2 if ask.has("merge-twice") else turns)
    begin(ask, turns)
    if ask.has("merge-writes-base"):
        parent.turns = [*parent.turns, *turns]
    ask.merged = names


def parent_of(ask: "Ask", names: tuple[str, ...]) -> Conversation:
    """Return the conversation that has these branches.

    Raises:
        Refusal: 404 there is none, 400 there are several and none was named.
    """
    said = ask.preferences
    if said.parent:
        found = [find(ask, said.parent, PARENT)]
    else:
        found = [
            c for c in ask.router.conversations.values() if c.owner == ask.owner and c.branches
        ]
    full = [one for one in found if set(names) <= set(one.branches)]
    if not full and ask.has("merge-skips-unknown"):
        full = [one for one in found if set(names) & set(one.branches)]
    if not full:
        known = {name for one in found for name in one.branches}
        missing = next((name for name in names if name not in known), names[0])
        raise Refusal(404, "workflow_branch_not_found", f"no branch {missing}", MERGE)
    if len(full) > 1 and not ask.has("ambiguous-merge-guesses"):
        raise Refusal(400, "workflow_branch_ambiguous", "name the parent", PARENT)
    return full[-1]


def find(ask: "Ask", name: str, param: str) -> Conversation:
    """Return a conversation of the caller's; a foreign one is as unknown as any other.

    Raises:
        Refusal: 404.
    """
    known: Conversation | None = ask.router.conversations.get(name)
    mine = known is not None and (known.owner == ask.owner or ask.has("foreign-conversation-ok"))
    if known is None and ask.has("unknown-conversation-ok"):
        return Conversation(ask.owner)
    if known is None or not mine:
        raise Refusal(404, "conversation_not_found", "no such conversation", param)
    return known


def has_history(turns: Turns) -> bool:
    """Return whether earlier answers are among the turns."""
    return any(turn.get("role") == "assistant" for turn in turns)


def put_before(ask: "Ask", turns: Turns) -> None:
    """Put turns before the client's own."""
    if "messages" in ask.body and not ask.has("history-lost"):
        ask.own_turns = ask.body["messages"]  # type: ignore[attr-defined]
        ask.body["messages"] = [*turns, *ask.body["messages"]]
        ask.prompt_tokens = estimate(ask.body)


def inherit(ask: "Ask", labels: frozenset[str]) -> None:
    """Hold what follows to what came before."""
    if not ask.has("labels-not-inherited"):
        ask.labels |= labels


def last_word(part: Conversation) -> str:
    """Return the last answer of a conversation."""
    said = [turn["content"] for turn in part.turns if turn["role"] == "assistant"]
    return str(said[-1] or "") if said else ""


def after(ask: "Ask", text: str | None) -> None:
    """Keep the turn: what the client said, and what was answered."""
    if ask.preferences.branch and ask.has("branches-one-at-a-time"):
        TURNSTILE.release()
    known = ask.router.conversations.get(ask.conversation or "")
    if known is None or text is None:
        return
    own: Turns = getattr(ask, "own_turns", None) or ask.body.get("messages") or []
    with LOCK:
        if has_history(own) or ask.has("last-turn-only"):
            known.turns = []  # the client's own history counts
        if ask.has("turns-overwrite"):
            known.turns = getattr(ask, "turns_then", known.turns)
        known.turns = [*known.turns, *own, {"role": "assistant", "content": text}]
        known.done = True
        known.labels |= ask.labels


def step(ask: "Ask") -> str | None:
    """Return the value of X-AI-Workflow-Step, of a request that is part of a workflow."""
    if ask.preferences.step:
        return ask.preferences.step
    known = ask.router.conversations.get(ask.conversation or "")
    if known is None:
        return None
    known.steps += 1
    return "step" if ask.has("steps-alike") else f"step-{known.steps}"


def said_of(answer: Mapping[str, Any]) -> str:
    """Return the text of an answer in any shape."""
    if answer.get("choices"):
        return str((answer["choices"][0].get("message") or {}).get("content") or "")
    parts = [p for item in answer.get("output") or () for p in item.get("content") or ()]
    return "".join(p.get("text", "") for p in parts)
