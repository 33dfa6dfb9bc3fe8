"""From the owner threads to an event loop: one bridge a loop carries the events of all its readers.

An engine hands over all events of a step for one bridge together, so a loop is woken once a step
however many answers it waits for.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from aiproxy.reference_server.onnx.text.engine import Deliver, Job
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Token,
)


class Engine(Protocol):
    """What a bridge needs of ``TextEngine``."""

    def submit(self, request: GenerationRequest, deliver: Deliver) -> Job: ...


class Bridge:
    """Carries events to the event loop it is made on."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._readers: dict[Job, tuple[Reader, int]] = {}

    def submit(self, engine: Engine, requests: Sequence[GenerationRequest]) -> "Reader":
        """Return the reader of ``requests``' answers, all submitted; call it on the loop.

        Raises:
            LocalError: one of them was not taken; then none is.
        """
        reader = Reader(self)
        try:
            for index, request in enumerate(requests):
                # The events of a job reach ``_arrived`` by way of this very loop: not before the
                # job is entered here.
                job = engine.submit(request, self.deliver)
                self._readers[job] = (reader, index)
                reader.jobs.append(job)
        except Exception:
            reader.close()
            raise
        return reader

    def deliver(self, batch: "list[tuple[Job, Event]]") -> None:
        """Take the events of one step, on the thread of an engine."""
        try:
            self.loop.call_soon_threadsafe(self._arrived, batch)
        except RuntimeError:
            # The event loop is closed: nobody waits for these answers any more.
            for job, _ in batch:
                job.cancel()

    def forget(self, jobs: "Sequence[Job]") -> None:
        for job in jobs:
            self._readers.pop(job, None)

    def _arrived(self, batch: "list[tuple[Job, Event]]") -> None:
        for job, event in batch:
            found = self._readers.get(job)
            if found is None:
                continue
            reader, index = found
            if not isinstance(event, Token):
                del self._readers[job]
            reader.put(index, event)


class Reader:
    """The events of one request's answers, by the answer's index, as its client comes for them."""

    def __init__(self, bridge: Bridge) -> None:
        self.jobs: list[Job] = []
        self._bridge = bridge
        self._waiting: deque[tuple[int, Event]] = deque()
        self._ended = 0
        self._failed = False
        self._waiter: asyncio.Future[None] | None = None
        self._wants_all = False

    def put(self, index: int, event: Event) -> None:
        self._waiting.append((index, event))
        if not isinstance(event, Token):
            self._ended += 1
            self._failed = self._failed or isinstance(event, Failed)
        if self._waiter is not None and not self._waiter.done() and self._enough():
            self._waiter.set_result(None)

    async def next(self) -> list[tuple[int, Token | Finished]]:
        """Wait for events; return all that are there. A failure is raised, and given up are then,
        or when the caller is cancelled, all answers."""
        try:
            while not self._enough():
                self._waiter = self._bridge.loop.create_future()
                await self._waiter
        except asyncio.CancelledError:
            self.close()
            raise
        events: list[tuple[int, Token | Finished]] = []
        while self._waiting:
            index, event = self._waiting.popleft()
            if isinstance(event, Failed):
                if events:  # what came before it is given out first
                    self._waiting.appendleft((index, event))
                    break
                self.close()
                raise event.error
            events.append((index, event))
        return events

    async def whole(self) -> tuple[list[list[Token]], list[Finished]]:
        """Wait for the end; return each answer's tokens and end, by index. Fails as ``next``."""
        self._wants_all = True
        tokens: list[list[Token]] = [[] for _ in self.jobs]
        ends: dict[int, Finished] = {}
        while len(ends) < len(tokens):
            for index, event in await self.next():
                if isinstance(event, Finished):
                    ends[index] = event
                else:
                    tokens[index].append(event)
        return tokens, [ends[index] for index in range(len(tokens))]

    def close(self) -> None:
        """Give up what is not finished; harmless afterwards."""
        self._bridge.forget(self.jobs)
        for job in self.jobs:
            job.cancel()
        self._waiting.clear()

    def _enough(self) -> bool:
        if self._wants_all:
            return self._failed or self._ended == len(self.jobs)
        return bool(self._waiting)


_bridges: dict[asyncio.AbstractEventLoop, Bridge] = {}


def bridge() -> Bridge:
    """Return the running loop's bridge."""
    loop = asyncio.get_running_loop()
    found = _bridges.get(loop)
    if found is None:
        for other in list(_bridges):
            if other.is_closed():
                _bridges.pop(other, None)
        found = _bridges[loop] = Bridge()
    return found
