"""The scheduler: one owner thread computes every answer of a model, a token of each in turn.

``submit`` never waits: it takes a place, queues, or refuses with ``LocalBusy``. Events reach the
caller through its ``deliver`` callback, on the owner thread; an event loop passes
``loop.call_soon_threadsafe``. onnxruntime releases the interpreter lock while it computes, so an
event loop beside it keeps turning.

A job is waiting, running or over. Nothing is delivered after ``Finished``, ``Failed`` or ``cancel``.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from aiproxy.reference_server.onnx.errors import (
    EngineClosed,
    GenerationFailed,
    LocalBusy,
    LocalError,
)
from aiproxy.reference_server.onnx.generation import (
    Event,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    Token,
    Usage,
)

log = logging.getLogger(__name__)

Deliver = Callable[[Event], None]


class AnswerInTheMaking(Protocol):
    """What the scheduler needs of an answer; ``text_model.Answer`` is one."""

    finish: FinishReason | None

    @property
    def usage(self) -> Usage: ...

    def step(self) -> str: ...


class Generator(Protocol):
    """What the scheduler needs of a model; ``text_model.TextModel`` is one."""

    def start(self, request: GenerationRequest) -> AnswerInTheMaking: ...


class Job:
    """A submitted request; ``cancel`` gives its place back at the next token at the latest."""

    def __init__(
        self,
        request: GenerationRequest,
        deliver: Deliver,
        since: float,
        wake: Callable[["Job"], None],
    ) -> None:
        self.request: Final = request
        self.deliver: Final = deliver
        self.since: Final = since
        self.cancelled = False
        self.answer: AnswerInTheMaking | None = None
        self._wake = wake

    def cancel(self) -> None:
        """Stop computing and deliver nothing more; harmless when the job is over."""
        self.cancelled = True
        self._wake(self)


class TextEngine:
    """Runs at most ``max_concurrency`` answers of ``model`` at once, and lets ``max_queue`` wait."""

    def __init__(
        self,
        model: Generator,
        *,
        max_concurrency: int = 1,
        max_queue: int = 64,
        max_queue_wait_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._places = max_concurrency
        self._queue_places = max_queue
        self._longest_wait_s = max_queue_wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def load(self) -> tuple[int, int]:
        """How many jobs are running and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    def submit(self, request: GenerationRequest, deliver: Deliver) -> Job:
        """Queue ``request``; its events go to ``deliver``, which must not block.

        Raises:
            LocalBusy: every place and queue place is taken.
            EngineClosed: after ``close``.
        """
        with self._changed:
            if self._closed:
                raise EngineClosed
            if len(self._running) + len(self._waiting) >= self._places + self._queue_places:
                raise LocalBusy(len(self._running), len(self._waiting))
            job = Job(request, deliver, self._clock(), self._forget)
            self._waiting.append(job)
            # Started late, so that a forking server inherits no dead thread.
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="text-engine", daemon=True)
                self._thread.start()
            self._changed.notify()
        return job

    def close(self, timeout_s: float = 5.0) -> None:
        """End every job with ``EngineClosed`` and stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _forget(self, job: Job) -> None:
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            self._changed.notify()

    def _work(self) -> None:
        while self._next_round():
            for job in tuple(self._running):
                self._advance(job)

    def _next_round(self) -> bool:
        """Sleep while there is nothing to do; then say who waited too long; False at the end."""
        with self._changed:
            late = self._settle()
            while not (late or self._running or self._closed):
                self._changed.wait()
                late = self._settle()
            busy = LocalBusy(len(self._running), len(self._waiting))
            ended = self._drain() if self._closed else []
        for job in late:
            _deliver(job, Failed(busy))
        for job in ended:
            _deliver(job, Failed(EngineClosed()))
        return not self._closed

    def _drain(self) -> list[Job]:
        ended = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return ended

    def _settle(self) -> list[Job]:
        """Drop the cancelled, admit the waiting; return those who have waited too long."""
        self._running[:] = [job for job in self._running if not job.cancelled]
        oldest = self._clock() - self._longest_wait_s
        late: list[Job] = []
        while self._waiting and self._waiting[0].since < oldest:
            late.append(self._waiting.popleft())
        while self._waiting and len(self._running) < self._places:
            self._running.append(self._waiting.popleft())
        return late

    def _advance(self, job: Job) -> None:
        """Compute one token of ``job`` and deliver what came of it."""
        if job.cancelled:
            return
        try:
            if job.answer is None:
                job.answer = self._model.start(job.request)
            text = job.answer.step()
        except LocalError as refused:
            self._finish(job, Failed(refused))
            return
        except Exception:
            # One broken answer must not end the thread that all others need.
            log.exception("a local generation failed")
            self._finish(job, Failed(GenerationFailed()))
            return
        if text:
            _deliver(job, Token(text))
        if job.answer.finish is not None:
            self._finish(job, Finished(job.answer.finish, job.answer.usage))

    def _finish(self, job: Job, event: Event) -> None:
        with self._changed:
            self._running.remove(job)
        _deliver(job, event)


def _deliver(job: Job, event: Event) -> None:
    if job.cancelled:
        return
    try:
        job.deliver(event)
    except RuntimeError:
        # The event loop that asked is closed: nobody waits for this answer any more.
        job.cancelled = True
