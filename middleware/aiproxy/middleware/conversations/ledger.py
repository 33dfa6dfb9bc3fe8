"""Conversations in a store: turns begin, are kept or come to nothing; branches open and merge.

Everything here reads, decides, and writes on condition that nothing changed in between; else it
does so again. It blocks where its store does, and knows nothing of requests.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from random import random
from time import sleep
from typing import Final, TypeVar

from aiproxy.middleware.conversations.record import (
    Head,
    Run,
    answers,
    line,
    own_part,
    read_head,
    read_turns,
    trimmed,
    write_head,
)
from aiproxy.middleware.conversations.stores import Change, Key, Row, Store, StoreDown
from aiproxy.middleware.errors import ProxyError

_Result = TypeVar("_Result")

CONVERSATION: Final = "X-AI-Conversation-ID"
PARENT: Final = "X-AI-Parent-Conversation"
BRANCH: Final = "X-AI-Workflow-Branch"
MERGE: Final = "X-AI-Merge-Branches"

#: Branches of one conversation; a name can be merged only while its parent knows it.
MOST_BRANCHES: Final = 256
#: How often a change is tried that others keep overtaking. Each time somebody else got on.
_TRIES: Final = 200
_PAUSE_S: Final = 0.004
#: When a client that is told to wait for a branch may ask again.
_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class Opened:
    """A turn that began. ``history`` is what stands before it; ``edits`` the state of the turns it
    began with; ``step`` its number in the workflow; ``kept``: the store has the conversation."""

    id: str
    kept: bool = False
    history: list[Run] = field(default_factory=list)
    labels: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    root: str = ""
    parent: str | None = None
    branch: str | None = None
    step: int = 1
    edits: int = 0
    trimmed: bool = False
    merged: list[tuple[str, list[Run]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Begin:
    """A turn about to begin. ``id`` is the conversation's, or the one a new one would get.

    ``token`` names the turn and ``until`` (Unix time) is when it is over at the latest; without a
    token nothing is written. ``told`` is how many answers the client's own account holds.
    """

    owner: str
    id: str
    token: str | None
    until: float
    told: int = 0


class Ledger:
    """The conversations of one store. ``clock`` is Unix time; sizes in bytes."""

    def __init__(self, store: Store, *, most_bytes: int, clock: Callable[[], float]) -> None:
        self.store = store
        self._most_bytes = most_bytes
        self._clock = clock

    # --- a turn begins ---------------------------------------------------------------------------

    def carry_on(self, begin: Begin) -> Opened:
        """Begin a turn of the conversation ``begin.id``; ``kept`` is false where there is none."""

        def step() -> tuple[Opened, list[Change]]:
            row = self._row(begin.owner, begin.id)
            if row is None:
                return Opened(begin.id, step=begin.told + 1), []
            return self._begun(begin, begin.id, row)

        return self._settled(step, write=begin.token is not None)

    def branch(self, begin: Begin, parent: str, name: str | None, *, told: bool = False) -> Opened:
        """Begin a turn of a branch: of the one of that name, or of a new one.

        ``told``: the client brings the history itself, so the parent's is not copied.

        Raises:
            ProxyError: 404 ``conversation_not_found``; 400 too many branches.
        """

        def step() -> tuple[Opened, list[Change]]:
            above = self._row(begin.owner, parent)
            if above is None:
                raise unknown(PARENT)
            head = read_head(above.head)
            known = None if name is None else head.branches.get(name)
            if known is not None:
                row = self._row(begin.owner, known)
                if row is not None:
                    return self._begun(begin, known, row)
            return self._new_branch(begin, parent, name, above, head, told)

        return self._settled(step, write=begin.token is not None)

    def merge(
        self,
        begin: Begin,
        names: Sequence[str],
        parent: str | None,
        *,
        into: Callable[[], Opened] | None = None,
    ) -> Opened:
        """Begin a turn that is told what branches came to, in the order of ``names``.

        It is one of a new conversation, unless ``into`` begins it. Without a ``parent`` it is the
        only conversation of the owner's that has all the names.

        Raises:
            ProxyError: 404 ``conversation_not_found`` or ``workflow_branch_not_found``, 400
                ``workflow_branch_ambiguous``, 409 ``workflow_branch_incomplete``.
        """
        found = self._parent_of(begin.owner, names, parent)
        row = self._row(begin.owner, found)
        if row is None:
            raise unknown(PARENT)
        above = read_head(row.head)
        parts = self._parts(begin.owner, above, names)
        opened = into() if into is not None else self._beside(begin, found, above)
        opened.merged = [(name, own_part(read_turns(r.turns), h.base)) for name, r, h in parts]
        heads = [above, *(head for _, _, head in parts)]
        opened.labels = opened.labels.union(*(head.labels for head in heads))
        opened.classes = opened.classes.union(*(head.classes for head in heads))
        opened.trimmed = opened.trimmed or any(head.trimmed for head in heads[1:])
        return opened

    # --- a turn ends -----------------------------------------------------------------------------

    def keep(
        self,
        opened: Opened,
        owner: str,
        turn: bytes,
        *,
        token: str | None,
        account: bytes | None = None,
        base: int = 0,
        labels: Collection[str] = (),
        classes: Collection[str] = (),
    ) -> str:
        """Add a whole turn; return *kept*, *trimmed*, or *too_large* where it is not even alone
        within bounds: then nothing is kept, so that no later turn builds on a gap.

        ``account`` is what the client itself told of the turns before, which replaces ours unless
        another turn was kept meanwhile. ``base``: see ``Head``, for a conversation that is new.
        """

        def step() -> tuple[str, list[Change]]:
            row = self._row(owner, opened.id)
            if row is None:
                head = Head(opened.root or opened.id, opened.parent, opened.branch, base=base)
                head.steps, head.trimmed = opened.step, opened.trimmed and account is None
                before = account
                if before is None:
                    before = _lines_of(opened.history)
            else:
                head, before = read_head(row.head), row.turns
                if account is not None and head.edits == opened.edits:
                    before, head.trimmed = account, False
                    head.base = min(head.base, answers(read_turns(account)))
            now = self._clock()
            if token is not None:
                head.end(token, now)
            head.bind(labels, classes)
            version = 0 if row is None else row.version
            fitting = trimmed(before + turn, self._most_bytes)
            if fitting is None:
                gone = [Change((owner, opened.id), version, None)] if row is not None else []
                return "too_large", gone
            turns, lost = fitting
            head.edits += 1
            head.base = max(0, head.base - lost)
            head.trimmed = head.trimmed or turns != before + turn
            name = head.branch
            change = Change((owner, opened.id), version, write_head(head), turns, name)
            return "trimmed" if head.trimmed else "kept", [change]

        return self._settled(step)

    def drop(self, owner: str, name: str, token: str) -> None:
        """A turn came to nothing; a branch that has no other is gone."""

        def step() -> tuple[None, list[Change]]:
            row = self._row(owner, name)
            if row is None:
                return None, []
            head = read_head(row.head)
            head.end(token, self._clock())
            if head.parent is not None and head.edits == 0 and not head.running:
                return None, [Change((owner, name), row.version, None)]
            return None, [Change((owner, name), row.version, write_head(head))]

        self._settled(step)

    # --- inside ----------------------------------------------------------------------------------

    def _row(self, owner: str, name: str) -> Row | None:
        return self.store.get([(owner, name)])[0]

    def _settled(
        self, step: Callable[[], tuple[_Result, list[Change]]], *, write: bool = True
    ) -> _Result:
        """Take a step until nobody was faster; its changes are made at once or not at all."""
        for turn in range(_TRIES):
            result, changes = step()
            if not (write and changes) or self.store.put(changes):
                return result
            if turn:
                sleep(_PAUSE_S * random() * min(turn, 8))  # noqa: S311 - spreads the tries
        raise StoreDown("others changed the same conversation all the time")

    def _begun(self, begin: Begin, name: str, row: Row) -> tuple[Opened, list[Change]]:
        """Begin a turn of a conversation there is."""
        head = read_head(row.head)
        number, changes = self._numbered(begin, name, row, head)
        opened = Opened(
            name,
            kept=True,
            history=read_turns(row.turns),
            labels=frozenset(head.labels),
            classes=frozenset(head.classes),
            root=head.root,
            parent=head.parent,
            branch=head.branch,
            step=number,
            edits=head.edits,
            trimmed=head.trimmed,
        )
        return opened, changes

    def _numbered(self, begin: Begin, name: str, row: Row, head: Head) -> tuple[int, list[Change]]:
        """The number of the next step of a workflow, and the changes that take it."""
        key: Key = (begin.owner, name)
        if begin.token is not None:
            head.end("", self._clock())
            head.running[begin.token] = begin.until
        root = None if head.root == name else self._row(begin.owner, head.root)
        if root is None:
            head.steps += 1
            return head.steps, [Change(key, row.version, write_head(head))]
        top = read_head(root.head)
        top.steps += 1
        return top.steps, [
            Change(key, row.version, write_head(head)),
            Change((begin.owner, head.root), root.version, write_head(top)),
        ]

    def _new_branch(
        self,
        begin: Begin,
        parent: str,
        name: str | None,
        above: Row,
        head: Head,
        told: bool,
    ) -> tuple[Opened, list[Change]]:
        history = read_turns(above.turns)
        base = begin.told if told else answers(history)
        new = Head(head.root, parent, name, base=base, trimmed=head.trimmed and not told)
        new.bind(head.labels, head.classes)
        if begin.token is not None:
            new.running[begin.token] = begin.until
        if name is not None:
            self._make_room(begin.owner, head)
            head.branches[name] = begin.id
        changes = []
        root = None if head.root == parent else self._row(begin.owner, head.root)
        if root is None:
            head.steps += 1
            number = head.steps
        else:
            top = read_head(root.head)
            top.steps += 1
            number = top.steps
            changes.append(Change((begin.owner, head.root), root.version, write_head(top)))
        new.steps = number
        turns = b"" if told else above.turns
        changes += [
            Change((begin.owner, parent), above.version, write_head(head)),
            Change((begin.owner, begin.id), 0, write_head(new), turns, name),
        ]
        opened = Opened(
            begin.id,
            kept=True,
            history=[] if told else history,
            labels=frozenset(head.labels),
            classes=frozenset(head.classes),
            root=head.root,
            parent=parent,
            branch=name,
            step=number,
            trimmed=new.trimmed,
        )
        return opened, changes

    def _make_room(self, owner: str, head: Head) -> None:
        """Forget branches that are gone where there are many.

        Raises:
            ProxyError: all of them are there.
        """
        if len(head.branches) < MOST_BRANCHES:
            return
        ids = list(head.branches.items())
        rows = self.store.get([(owner, one) for _, one in ids])
        head.branches = {n: one for (n, one), row in zip(ids, rows, strict=True) if row is not None}
        if len(head.branches) >= MOST_BRANCHES:
            raise ProxyError(
                "invalid_header_value",
                f"{BRANCH}: this conversation has {MOST_BRANCHES} branches, and no more are kept.",
                param=BRANCH,
            )

    def _beside(self, begin: Begin, parent: str, above: Head) -> Opened:
        """Begin a conversation that is made when its first turn is kept."""

        def step() -> tuple[int, list[Change]]:
            row = self._row(begin.owner, above.root)
            if row is None:
                return above.steps + 1, []
            head = read_head(row.head)
            head.steps += 1
            return head.steps, [Change((begin.owner, above.root), row.version, write_head(head))]

        number = self._settled(step, write=begin.token is not None)
        return Opened(begin.id, root=above.root, parent=parent, step=number)

    def _parent_of(self, owner: str, names: Sequence[str], parent: str | None) -> str:
        if parent is not None:
            return parent
        candidates: set[str] | None = None
        for name in names:
            having = set()
            ids = self.store.named(owner, name)
            for one, row in zip(
                ids, self.store.get([(owner, i) for i in ids]) if ids else [], strict=True
            ):
                head = None if row is None else read_head(row.head)
                if head is not None and head.parent is not None and head.branch == name:
                    having.add((head.parent, one))
            live = {above for above, one in having if self._leads_to(owner, above, name, one)}
            if not live:
                raise no_branch(name)
            candidates = live if candidates is None else candidates & live
        if not candidates:
            raise no_branch(names[-1])
        if len(candidates) > 1:
            raise ProxyError(
                "workflow_branch_ambiguous",
                f"Several conversations have branches of these names; send {PARENT}.",
                param=PARENT,
            )
        return candidates.pop()

    def _leads_to(self, owner: str, parent: str, name: str, branch: str) -> bool:
        row = self._row(owner, parent)
        return row is not None and read_head(row.head).branches.get(name) == branch

    def _parts(self, owner: str, above: Head, names: Sequence[str]) -> list[tuple[str, Row, Head]]:
        """The branches to be merged, all of them finished."""
        ids = [above.branches.get(name, "") for name in names]
        rows = self.store.get([(owner, one) for one in ids])
        found: list[tuple[str, Row, Head]] = []
        for name, row in zip(names, rows, strict=True):
            if row is None:
                raise no_branch(name)
            head = read_head(row.head)
            if head.busy(self._clock()):
                raise ProxyError(
                    "workflow_branch_incomplete",
                    f"The branch {name} is not finished; ask again when it is.",
                    param=MERGE,
                    retry_after_s=_AGAIN_S,
                    should_retry=True,
                )
            if head.edits == 0:
                raise no_branch(name)  # its only turn was lost with the process that served it
            found.append((name, row, head))
        return found


def unknown(header: str) -> ProxyError:
    """The same for an id that never was, that is over, and that is somebody else's (T-35)."""
    return ProxyError(
        "conversation_not_found",
        f"{header} names no conversation that is kept here for this caller; "
        "send the whole history in the request.",
        param=header,
    )


def no_branch(name: str) -> ProxyError:
    """A name no branch of the caller's has."""
    return ProxyError(
        "workflow_branch_not_found",
        f"There is no branch {name} to merge.",
        param=MERGE,
    )


def _lines_of(history: Sequence[Run]) -> bytes:
    return b"".join(line(dialect, messages) for dialect, messages in history)
