"""The conversations of one gateway: how a request becomes a turn of one.

Everything that may be asked of a store is asked here; what waits is told by ``Consult``.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from logging import getLogger
from re import compile as compile_pattern
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiproxy.middleware.conversations import shapes
from aiproxy.middleware.conversations.ledger import (
    BRANCH,
    CONVERSATION,
    MERGE,
    PARENT,
    Begin,
    Ledger,
    Opened,
    unknown,
)
from aiproxy.middleware.conversations.record import Run, answers, line
from aiproxy.middleware.conversations.stores import StoreDown
from aiproxy.middleware.conversations.turns import Steps, Turn
from aiproxy.middleware.decision import Decision
from aiproxy.middleware.dialects.canonical import Untranslatable
from aiproxy.middleware.effects import Consult, Failure, Told
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.intake.members import patch
from aiproxy.middleware.intake.view import read as read_foreign
from aiproxy.middleware.preferences import Preferences
from aiproxy.middleware.workflow import Workflow

if TYPE_CHECKING:
    from aiproxy.middleware.answering.serving import Asked

log = getLogger("aiproxy")

_Result = TypeVar("_Result")

_OURS: Final = compile_pattern(r"conv-[0-9a-f]{24,64}")
#: Longer than any request may take: by then a turn whose process died is over.
_GRACE_S: Final = 60.0
#: How long a store that did not answer is not asked by requests that can do without it.
_REST_S: Final = 1.0
_RETRY_S: Final = 2.0


class Conversations:
    """Conversations of one gateway. Without a ledger nothing is kept: ids are given and echoed.

    ``guarded``: some provider is attested, so a conversation may be bound to it.
    """

    def __init__(
        self,
        ledger: Ledger | None,
        *,
        new_id: Callable[[], str],
        generate: bool,
        guarded: bool,
        timeout_s: float,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._new_id = new_id
        self._generate = generate
        self._guarded = guarded
        self._timeout_s = timeout_s
        self._now, self._wall = now, wall
        self._rests_until = 0.0
        self._worker: ThreadPoolExecutor | None = None

    @property
    def enabled(self) -> bool:
        return self._ledger is not None

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    def about(self) -> dict[str, Any]:
        """What a listing of capabilities says: whether ids are given, histories kept, and where."""
        kept = None if self._ledger is None else self._ledger.store.kind
        return {"ids": self._generate, "history": self.enabled, "store": kept}

    def close(self) -> None:
        """Let go of the store's connections."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()
        if self._ledger is not None:
            self._ledger.store.close()

    # --- the store -------------------------------------------------------------------------------

    def ask(self, question: Callable[[], _Result]) -> Steps:
        """Return what the store answers; it is never waited for on an event loop.

        Raises:
            StoreDown: it did not answer.
            ProxyError: what ``question`` raised.
        """
        if not self.ledger.store.blocking:
            return question()

        def asked() -> _Result | ProxyError:
            try:
                return question()
            except ProxyError as refusal:
                return refusal

        outcome = yield Consult(asked)
        if isinstance(outcome, Failure):
            self._rests_until = self._now() + _REST_S
            raise StoreDown(outcome.detail)
        assert isinstance(outcome, Told)
        if isinstance(outcome.value, ProxyError):
            raise outcome.value
        return outcome.value

    def later(self, work: Callable[[], object]) -> None:
        """Do something that nobody waits for."""
        if not self.ledger.store.blocking:
            work()
            return
        self._worker = self._worker or ThreadPoolExecutor(1, "aiproxy-conversations")
        self._worker.submit(_quietly, work)

    # --- a turn begins ---------------------------------------------------------------------------

    def begin(
        self, decision: Decision, preferences: Preferences, asked: "Asked", *, looking: bool
    ) -> Steps:
        """Return the ``Turn`` of a request with X-AI headers, or ``None`` when it is none.

        ``looking``: what it would build on is read, and nothing is written.

        Raises:
            ProxyError: 400, 404 or 409 for what its headers name; 503 where the store is needed
                and does not answer.
        """
        endpoint = asked.endpoint
        if preferences.disabled:
            return (yield from self._bound(decision, preferences, asked))
        _check(preferences)
        if endpoint not in shapes.MEMBERS or asked.native is not None:
            if preferences.parent_conversation or preferences.merge_branches:
                raise ProxyError(
                    "invalid_header_combination",
                    "Only requests with messages belong to workflows; send them to another path.",
                    param=PARENT if preferences.parent_conversation else MERGE,
                )
            decision.step = preferences.workflow_step
            return None
        given = asked.body if asked.original is None else asked.original
        told = shapes.brings_history(endpoint, given)
        if self._ledger is None:
            return self._stateless(decision, preferences, told)
        found = (
            preferences.conversation_id is not None or preferences.parent_conversation is not None
        )
        if not (found or preferences.merge_branches or self._generate):
            decision.step = preferences.workflow_step
            return None
        return (yield from self._begun(decision, preferences, asked, told, looking=looking))

    def _stateless(
        self,
        decision: Decision,
        preferences: Preferences,
        told: bool,
    ) -> Turn | None:
        """A request where nothing is kept: it has what it brings."""
        if preferences.merge_branches:
            raise ProxyError(
                "workflow_branch_not_found",
                "This router keeps no conversation state, so there are no branches to merge; "
                "send the whole history in the request.",
                param=MERGE,
            )
        name = preferences.conversation_id
        if preferences.parent_conversation is not None and not told:
            raise unknown(PARENT)
        if name is not None and not told and _OURS.fullmatch(name):
            raise unknown(CONVERSATION)  # we gave it: there were turns before
        if name is None and self._generate:
            name = f"conv-{self._new_id()}"
        decision.conversation = name
        decision.step = preferences.workflow_step
        return None

    def _begun(
        self,
        decision: Decision,
        preferences: Preferences,
        asked: "Asked",
        told: bool,
        *,
        looking: bool,
    ) -> Steps:
        endpoint = asked.endpoint
        given = asked.body if asked.original is None else asked.original
        messages = shapes.messages_of(endpoint, given)
        said = shapes.newest(endpoint, messages)
        before = messages[: len(messages) - len(said)] if told else []
        dialect = shapes.KEPT_AS[endpoint]
        count = shapes.runs(dialect, before)
        owner = _owner(decision.owner)
        name = preferences.conversation_id
        workflow = Workflow(branch=preferences.workflow_branch)
        turn = Turn(self, owner, asked, endpoint, workflow, token=None if looking else token_hex(8))
        begin = Begin(
            owner,
            f"conv-{self._new_id()}" if name is None else name,
            turn.token,
            self._wall() + self._timeout_s + _GRACE_S,
            count,
        )
        try:
            opened: Opened = yield from self._opened(preferences, begin, told)
        except StoreDown as fault:
            if self._needs(preferences, told) or (name is not None and self._guarded):
                raise _unavailable() from None
            log.warning("conversations cannot be reached: %s", fault)
            opened = Opened(begin.id, step=count + 1)
            workflow.kept = "not_kept"
        else:
            if name is not None and not opened.kept and not told:
                raise unknown(CONVERSATION)
            if opened.kept or name is None or _OURS.fullmatch(name):
                turn.opened = opened
                workflow.kept = "pending"
        turn.labels, turn.classes = opened.labels, opened.classes
        try:
            self._integrate(turn, opened, said, told)
        except Exception:
            yield from turn.drop()
            raise
        if told and not shapes.kept_elsewhere(endpoint, given):
            turn.account = line(dialect, before) if before else b""
            turn.base = count
        elif opened.parent is not None and opened.history:
            turn.base = answers(opened.history)
        workflow.parent, workflow.branch = opened.parent, opened.branch
        workflow.step = preferences.workflow_step or f"step-{opened.step}"
        decision.conversation, decision.step, decision.workflow = opened.id, workflow.step, workflow
        return turn

    def _opened(self, preferences: Preferences, begin: Begin, told: bool) -> Steps:
        """Begin the turn in the store, where there is something to be asked for."""
        ledger, names = self.ledger, preferences.merge_branches
        parent, name = preferences.parent_conversation, preferences.workflow_branch
        given = preferences.conversation_id
        if not (names or parent or given):
            return Opened(begin.id, step=begin.told + 1)
        if not self._needs(preferences, told) and self._now() < self._rests_until:
            raise StoreDown("it did not answer a moment ago")

        def carried() -> Opened:
            found = ledger.carry_on(begin)
            if names and not found.kept:
                raise unknown(CONVERSATION)
            return found

        def branched() -> Opened:
            assert parent is not None
            return ledger.branch(begin, parent, name, told=told)

        if names:
            into = branched if name is not None else carried if given is not None else None
            above = parent or given
            return (yield from self.ask(lambda: ledger.merge(begin, names, above, into=into)))
        return (yield from self.ask(branched if parent is not None else carried))

    def _integrate(
        self, turn: Turn, opened: Opened, said: list[shapes.Message], told: bool
    ) -> None:
        """Put what is kept before the client's turns, and branches that are merged between."""
        asked, workflow = turn.asked, turn.workflow
        history: list[Run] = [] if told else opened.history
        between = ""
        if opened.merged:
            between, whole = shapes.as_data(opened.merged)
            workflow.merged = tuple(name for name, _ in opened.merged)
            workflow.integrated = whole
        workflow.history = answers(history)
        workflow.trimmed = opened.trimmed and not told
        turn.said = _without_instructions(said) if history else list(said)
        if between:
            turn.said = shapes.with_between(turn.endpoint, turn.said, between)
        if not (history or between):
            return
        given = asked.body if asked.original is None else asked.original
        try:
            changes = shapes.with_history(turn.endpoint, given, history, between)
        except Untranslatable:
            raise ProxyError(
                "unsupported_capability",
                f"{CONVERSATION}: its history cannot be said in this API; "
                "go on in the one it was held in.",
                param=CONVERSATION,
            ) from None
        raw = patch(asked.raw, changes)
        if asked.original is None:
            turn.asked = replace(asked, body={**asked.body, **changes}, raw=raw, decoded=None)
            return
        original = {**asked.original, **changes}
        view, decoded = read_foreign(turn.endpoint, original)
        turn.asked = replace(asked, body=view, raw=raw, original=original, decoded=decoded)

    def _bound(self, decision: Decision, preferences: Preferences, asked: "Asked") -> Steps:
        """The switch is off: of a conversation that is named, only its security counts (T-40)."""
        name = preferences.conversation_id
        if self._ledger is None or name is None or not self._guarded:
            return None
        owner = _owner(decision.owner)
        try:
            opened: Opened = yield from self.ask(
                lambda: self.ledger.carry_on(Begin(owner, name, None, 0.0))
            )
        except StoreDown:
            raise _unavailable() from None
        turn = Turn(self, owner, asked, asked.endpoint, Workflow())
        turn.labels, turn.classes = opened.labels, opened.classes
        return turn

    def _needs(self, preferences: Preferences, told: bool) -> bool:
        """Whether the request has no meaning without the store."""
        if preferences.parent_conversation is not None or preferences.merge_branches:
            return True
        return preferences.conversation_id is not None and not told


def _check(preferences: Preferences) -> None:
    if preferences.workflow_branch is not None and preferences.parent_conversation is None:
        raise ProxyError(
            "invalid_header_combination",
            f"{BRANCH} needs {PARENT}: the conversation that the branch continues.",
            param=PARENT,
        )
    if preferences.conversation_id is not None and preferences.parent_conversation is not None:
        raise ProxyError(
            "invalid_header_combination",
            f"{CONVERSATION} goes on with a conversation and {PARENT} opens one below; send one.",
            param=PARENT,
        )


def _without_instructions(said: Iterable[shapes.Message]) -> list[shapes.Message]:
    """Instructions that come with a later turn hold for that turn."""
    found = list(said)
    while found and shapes.is_instruction(found[0]):
        del found[0]
    return found


def _owner(name: str | None) -> str:
    return "" if name is None else f"key:{name}"


def _unavailable() -> ProxyError:
    return ProxyError(
        "conversation_store_unavailable",
        "Conversations cannot be reached at the moment; ask again, or send the whole history.",
        param=CONVERSATION,
        retry_after_s=_RETRY_S,
        should_retry=True,
    )


def _quietly(work: Callable[[], object]) -> None:
    try:
        work()
    except StoreDown as fault:
        log.warning("the end of a turn could not be noted: %s", fault)
