"""One request as a turn of its conversation: watched while it is answered, kept when it is whole."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from aiproxy.middleware.conversations import shapes
from aiproxy.middleware.conversations.ledger import Opened
from aiproxy.middleware.conversations.record import line
from aiproxy.middleware.conversations.stores import StoreDown
from aiproxy.middleware.conversations.watching import Watcher
from aiproxy.middleware.effects import Effect, Flow, Outcome, Reply, Send
from aiproxy.middleware.preferences import Preferences
from aiproxy.middleware.workflow import Workflow

if TYPE_CHECKING:
    from aiproxy.middleware.answering.serving import Asked
    from aiproxy.middleware.conversations.desk import Conversations

log = getLogger("aiproxy")

#: Part of an exchange: yields effects, is told outcomes.
Steps: TypeAlias = Generator[Effect, Outcome, Any]


@dataclass(slots=True)
class Turn:
    """A request inside a conversation. ``asked`` has the history before its own turns; ``labels``
    and ``classes`` are what the conversation binds it to."""

    desk: "Conversations"
    owner: str
    asked: "Asked"
    endpoint: str
    workflow: Workflow
    opened: Opened | None = None
    token: str | None = None
    said: list[shapes.Message] = field(default_factory=list)
    account: bytes | None = None
    base: int = 0
    labels: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    _over: bool = False

    def bound(self, preferences: Preferences) -> Preferences:
        """The preferences of the request with what its conversation adds to them."""
        if self.labels <= frozenset(preferences.security):
            return preferences
        return replace(preferences, security=tuple(sorted({*preferences.security, *self.labels})))

    def binds(self, preferences: Preferences, classes: Iterable[str]) -> None:
        """The turn was understood: what holds for it will hold for every later one (T-35)."""
        self.labels = self.labels.union(preferences.security)
        self.classes = self.classes.union(classes)

    def watch(self, steps: Flow) -> Steps:
        """Take the steps that serve the request, and keep the turn before its end is sent."""
        if self.opened is None:
            return (yield from steps)
        try:
            reply = yield from self._watched(steps)
        except GeneratorExit:
            self._abandon()
            raise
        except Exception:
            yield from self.drop()
            raise
        finally:
            steps.close()
        yield from self.drop()
        return reply

    def _watched(self, steps: Flow) -> Steps:
        watcher: Watcher | None = Watcher(self.endpoint)
        outcome: Any = None
        while True:
            try:
                effect = steps.send(outcome)
            except StopIteration as stop:
                reply: Reply | None = stop.value
                if reply is not None and reply.status == 200:
                    yield from self._keep(_document(self.endpoint, reply.body))
                return reply
            if watcher is not None and type(effect) is Send:
                watcher.feed(effect.data)
                if watcher.whole:
                    yield from self._keep(watcher.answer())
                    watcher = None
            outcome = yield effect

    def _keep(self, answer: Sequence[shapes.Message]) -> Steps:
        opened = self.opened
        if self._over or opened is None or self.token is None or not answer:
            return  # nothing a later turn could build on is dropped in the end
        self._over = True
        turn = line(shapes.KEPT_AS[self.endpoint], [*self.said, *answer])
        try:
            self.workflow.kept = yield from self.desk.ask(
                lambda: self.desk.ledger.keep(
                    opened,
                    self.owner,
                    turn,
                    token=self.token,
                    account=self.account,
                    base=self.base,
                    labels=self.labels,
                    classes=self.classes,
                )
            )
        except StoreDown as fault:
            log.warning("a turn of a conversation could not be kept: %s", fault)
            self.workflow.kept = "not_kept"

    def drop(self) -> Steps:
        """The turn came to nothing, unless it was kept: it is under way no longer."""
        opened, token = self.opened, self.token
        if self._over or opened is None:
            return
        self._over = True
        self.workflow.kept = "dropped"
        if token is None or not opened.kept:
            return
        try:
            yield from self.desk.ask(lambda: self.desk.ledger.drop(self.owner, opened.id, token))
        except StoreDown as fault:
            log.warning("the end of a turn could not be noted: %s", fault)

    def _abandon(self) -> None:
        """The client left: the store is told without anybody waiting for it."""
        opened, token = self.opened, self.token
        if self._over or opened is None:
            return
        self._over = True
        self.workflow.kept = "dropped"
        if token is not None and opened.kept:
            self.desk.later(lambda: self.desk.ledger.drop(self.owner, opened.id, token))


def _document(endpoint: str, raw: bytes) -> list[shapes.Message]:
    try:
        reply = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return []
    return shapes.answer_of(endpoint, reply) if isinstance(reply, dict) else []
