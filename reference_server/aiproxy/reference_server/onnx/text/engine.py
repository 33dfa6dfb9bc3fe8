"""The scheduler of a text model: who computes now, who waits, who is refused, and what each gets.

``submit`` answers at once, whatever is being computed: a job gets its place and cache blocks, or
queues, or is refused with ``LocalBusy``. All else happens on the owner thread, the only one that
calls the runner. A round of it drops who left, adds who was admitted, lets the runner take a step,
and hands each ``deliver`` all events of its jobs in one call.

A job waits, runs or is over. Its place and blocks are reserved from admission until the runner has
given them back. When the runner is lost every job fails, so that a router can go elsewhere, and the
thread tries to restart it, ever less often; new jobs are refused meanwhile.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, runtime_checkable

from aiproxy.reference_server.onnx.errors import (
    ContextOverflow,
    EngineClosed,
    GenerationFailed,
    LocalBusy,
    LocalError,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.text.admission import Claim, Ledger, Pace, wait_s
from aiproxy.reference_server.onnx.text.detokenising import Decode, TextMaker
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Failed,
    Finished,
    FinishReason,
    GenerationRequest,
    Token,
    Usage,
)
from aiproxy.reference_server.onnx.text.runner import Produced, Runner, RunnerLost, TokenLogprob
from aiproxy.reference_server.onnx.text.runner import Sequence as TokenSequence

log = logging.getLogger(__name__)

#: What to call with a step's events, on the owner thread; it must not block, and be hashable. Jobs
#: whose ``deliver`` are equal share a call.
Deliver: TypeAlias = "Callable[[list[tuple[Job, Event]]], None]"

#: Steps without any token after which the youngest job is given up, beside those that prompts take.
STALL_STEPS: Final = 400
#: Prompt tokens that a step reads at least.
_PROMPT_STEP: Final = 64
#: Seconds without any token after which it is given up too, once prompts had the steps they take.
STALL_S: Final = 60.0
#: Seconds until a lost runner is restarted: at first, and at most.
RESTART_S: Final = (0.5, 30.0)
#: Seconds a step may wait for another process, when nobody wakes it.
_PATIENCE_S: Final = 0.5
_IDLE_S: Final = 3600.0


@runtime_checkable
class RemoteRunner(Protocol):
    """What a runner has beside ``Runner`` when another process computes. Its ``step`` waits, also
    while it has no sequence, so that a process that ends is noticed at once."""

    @property
    def steps(self) -> int:
        """Steps the other process has taken."""
        ...

    def wake(self) -> None:
        """End a waiting ``step`` or ``restart``, or the next one; from any thread."""

    def refusal(self, key: int) -> RequestRefused | ContextOverflow | None:
        """Why a sequence that failed was refused, told once."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """``free_blocks`` is None without a paged cache. ``lost`` is why nothing can be computed now.
    ``tokens`` and ``steps`` count since the start."""

    running: int
    waiting: int
    free_blocks: int | None
    lost: str | None
    restarts: int
    tokens: int
    steps: int


class Job:
    """A submitted request. ``cancel`` may be called from any thread."""

    __slots__ = (
        "_engine",
        "admitted",
        "began",
        "blocks",
        "deliver",
        "given",
        "key",
        "made",
        "most",
        "over",
        "request",
        "silent",
        "since",
        "text",
    )

    def __init__(
        self,
        engine: "TextEngine",
        key: int,
        request: GenerationRequest,
        deliver: Deliver,
        most: int,
        blocks: int,
        since: float,
    ) -> None:
        self._engine = engine
        self.key: Final = key
        self.request: Final = request
        self.deliver: Final = deliver
        self.most: Final = most  # new tokens
        self.blocks: Final = blocks
        self.since: Final = since
        self.began = since  # when it got its place
        self.admitted = False
        self.made = 0
        self.given = False  # something was delivered
        self.silent = False  # nothing is delivered any more
        self.over = False
        self.text: TextMaker | None = None  # from when the runner has it

    def cancel(self) -> None:
        """Stop computing and deliver nothing more, but for a delivery that is under way; harmless
        when the job is over."""
        self._engine._leave(self)


class TextEngine:
    """Answers many requests at once by ``runner``, with text by ``decode``.

    ``max_concurrency`` None is as many as the runner has slots. ``max_queue`` jobs may wait, each
    for ``max_queue_wait_s`` at most; one that is expected to wait longer is refused at once.
    """

    def __init__(
        self,
        runner: Runner,
        decode: Decode,
        *,
        max_concurrency: int | None = None,
        max_queue: int = 64,
        max_queue_wait_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner: Final = runner
        self._remote = runner if isinstance(runner, RemoteRunner) else None
        self._decode = decode
        self._max_concurrency = max_concurrency
        self._max_queue = max_queue
        self._longest_wait_s = max_queue_wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lost: str | None = None
        self._restarts = self._tokens = self._steps = self._keys = 0
        self._ledger = Ledger(runner.capacity, max_concurrency)
        self._context = self._ledger.longest(runner.capacity.context)
        self._pace = Pace()
        self._waiting: OrderedDict[int, Job] = OrderedDict()
        self._running: dict[int, Job] = {}  # those with a place, oldest first
        self._fresh: list[Job] = []  # of these, those the runner has not got yet
        self._leaving: list[Job] = []  # and those that were cancelled
        self._late: list[Job] = []  # waited too long, not told yet
        # The owner thread's own:
        self._outbox: dict[Deliver, list[tuple[Job, Event]]] = {}
        self._backoff_s = RESTART_S[0]
        self._last_token = (0, 0.0)  # steps and clock

    @property
    def load(self) -> tuple[int, int]:
        """How many jobs are running and how many wait."""
        with self._changed:
            return len(self._running), len(self._waiting)

    @property
    def state(self) -> EngineState:
        with self._changed:
            return EngineState(
                running=len(self._running),
                waiting=len(self._waiting),
                free_blocks=self._ledger.free_blocks,
                lost=self._lost,
                restarts=self._restarts,
                tokens=self._tokens,
                steps=self._steps,
            )

    def submit(self, request: GenerationRequest, deliver: Deliver) -> Job:
        """Take ``request``; its events go to ``deliver``.

        Raises:
            ContextOverflow: the prompt leaves no room for an answer.
            LocalBusy: every place and queue place is taken, or it would wait too long.
            ModelUnavailable: the runner is lost and not back yet.
            EngineClosed: after ``close``.
        """
        asked = len(request.prompt)
        with self._changed:
            if self._closed:
                raise EngineClosed
            if self._lost is not None:
                raise ModelUnavailable("it stopped and is being started again")
            room = self._context - asked
            if room < 1:
                raise ContextOverflow(self._context, asked)
            most = room if request.max_tokens is None else max(1, min(request.max_tokens, room))
            blocks = self._ledger.blocks_for(asked + most)
            now = self._clock()
            self._keys += 1
            job = Job(self, self._keys, request, deliver, most, blocks, now)
            if not self._waiting and self._ledger.fits(blocks):
                self._admit(job, now)
            else:
                self._refuse_if_busy(job)
                self._waiting[job.key] = job
            # Started late, so that a forking server inherits no dead thread.
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="text-engine", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        self._wake()
        return job

    def refuse_if_full(self) -> None:
        """Say what ``submit`` would say to any request now, before work goes into one.

        Raises:
            LocalBusy: every place and queue place is taken.
        """
        with self._changed:
            waiting = len(self._waiting)
            # A token of a prompt and one of an answer: there is no smaller request.
            free = not waiting and self._ledger.fits(self._ledger.blocks_for(2))
            if waiting >= self._max_queue and not free:
                raise LocalBusy(len(self._running), waiting)

    def close(self, timeout_s: float = 5.0) -> None:
        """End every job with ``EngineClosed``, stop the thread and close the runner."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        self._wake()
        if thread is None:
            self.runner.close()
        elif thread is not threading.current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                log.warning("a local model did not end its step within %g s", timeout_s)
                if self._remote is not None:  # its process can be ended from any thread
                    self.runner.close()

    # --- under the lock, from any thread ----------------------------------------------------------

    def _refuse_if_busy(self, job: Job) -> None:
        waiting = len(self._waiting)
        if waiting < self._max_queue:
            left_s = self._pace.left_s
            running = (
                Claim(left_s(one.made, one.most), one.blocks) for one in self._running.values()
            )
            others = [*self._waiting.values(), job]
            queued = (Claim(left_s(0, one.most), one.blocks) for one in others)
            if wait_s(self._ledger, running, queued) <= self._longest_wait_s:
                return
        raise LocalBusy(len(self._running), waiting)

    def _admit(self, job: Job, now: float) -> None:
        self._ledger.take(job.blocks)
        job.admitted, job.began = True, now
        self._running[job.key] = job
        self._fresh.append(job)

    def _admit_waiting(self) -> None:
        """Give what is free to those who wait, in turn; say who has waited too long."""
        now = self._clock()
        while self._waiting:
            job = next(iter(self._waiting.values()))
            if now - job.since > self._longest_wait_s:
                job.over = True
                self._late.append(job)
            elif self._ledger.fits(job.blocks):
                self._admit(job, now)
            else:
                return
            del self._waiting[job.key]

    def _release(self, job: Job) -> None:
        """Note the end of a job that had a place; what it held is free."""
        job.over = True
        del self._running[job.key]
        self._ledger.give(job.blocks)
        if job.made:
            self._pace.ended(job.made, self._clock() - job.began)
        self._admit_waiting()

    def _leave(self, job: Job) -> None:
        with self._changed:
            if job.over or job.silent:
                job.silent = True
                return
            job.silent = True
            if job.admitted:
                # Its place is free once the runner has dropped it.
                self._leaving.append(job)
            else:
                job.over = True
                del self._waiting[job.key]
                self._admit_waiting()
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        if self._remote is not None:
            self._remote.wake()

    # --- on the owner thread ----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closed:
                lost = self._lost_in_round()
                if lost is not None:
                    self._recover(lost)
        finally:
            # Whatever ended the loop: nobody is left waiting, and nobody joins.
            with self._changed:
                self._closed = True
            self._end_all(lambda _: EngineClosed())
            try:
                self.runner.close()
            except Exception:
                log.exception("a local model could not be closed")

    def _lost_in_round(self) -> str | None:
        """Do a round; return why the runner is lost, if it is. The exception is gone then: its
        traceback holds the runner's weights and cache, which are loaded again."""
        try:
            self._round()
        except RunnerLost as lost:
            return lost.reason
        except Exception as fault:
            # The runner's state is unknown now; whatever it was, the others must go on.
            log.exception("a local model failed")
            return f"it failed ({type(fault).__name__})"
        return None

    def _round(self) -> None:
        for job in self._wait_for_work():
            self._drop(job)
        while fresh := self._next_fresh():  # one that is refused makes way for another
            for job in fresh:
                if not job.over:
                    self._add(job)
        self._flush()
        if not (self._running or self._remote):
            return
        produced = self.runner.step(self._patience_s())
        moved = self._count_steps(produced)
        for part in produced:
            found = self._running.get(part.key)
            # Without it: it was dropped while another process computed it.
            if found is not None:
                self._take(found, part)
        if not moved:
            self._watch()
        self._flush()

    def _next_fresh(self) -> list[Job]:
        with self._changed:
            fresh, self._fresh = self._fresh, []
            if fresh and all(job.text is None for job in self._running.values()):
                # A stall is counted from where something began to run.
                self._last_token = (self._steps, self._clock())
            return fresh

    def _wait_for_work(self) -> list[Job]:
        """Sleep while nothing is to be done; return who is to be dropped."""
        with self._changed:
            while not (self._running or self._late or self._remote or self._closed):
                self._changed.wait()
            if self._waiting:
                self._admit_waiting()
            late, self._late = self._late, []
            leaving, self._leaving = self._leaving, []
            busy = LocalBusy(len(self._running), len(self._waiting))
        for job in late:
            self._post(job, Failed(busy))
        return leaving

    def _patience_s(self) -> float:
        with self._changed:
            if self._closed or self._fresh or self._leaving or self._late:
                return 0.0
            return _PATIENCE_S if self._running else _IDLE_S

    def _add(self, job: Job) -> None:
        request = job.request
        sequence = TokenSequence(
            job.key,
            request.prompt,
            job.most,
            request.sampling,
            request.grammar,
            request.top_logprobs,
        )
        try:
            self.runner.add(sequence)
        except LocalError as refused:
            self._end(job, Failed(refused))
        except RunnerLost:
            raise
        except Exception:
            log.exception("a local answer could not be begun")
            self.runner.drop(job.key)
            self._end(job, Failed(GenerationFailed()))
        else:
            job.text = TextMaker(self._decode, request.stop, show_special=request.show_special)

    def _drop(self, job: Job) -> None:
        """Take a job from the runner without an event."""
        if job.over:
            return
        if job.text is not None:
            self.runner.drop(job.key)
        with self._changed:
            self._release(job)

    def _count_steps(self, produced: Sequence[Produced]) -> bool:
        """Count the step and its tokens; return whether anything came of it."""
        tokens = sum(len(part.tokens) for part in produced)
        with self._changed:
            self._steps = self._remote.steps if self._remote is not None else self._steps + 1
            self._tokens += tokens
        if produced:
            self._last_token = (self._steps, self._clock())
        return bool(produced)

    def _take(self, job: Job, part: Produced) -> None:
        """Deliver what a step gave ``job``, and end it when that was the last."""
        assert job.text is not None
        try:
            event = self._say(job, job.text, part)
        except Exception:
            # One broken answer must not end the thread that all others need.
            log.exception("the text of a local answer could not be made")
            event = Failed(GenerationFailed())
        if event is None:
            return
        if part.finish is None:
            self.runner.drop(job.key)
        self._end(job, event)

    def _say(self, job: Job, text: TextMaker, part: Produced) -> Finished | Failed | None:
        """Post the text of ``part``; return the job's end if it is."""
        pieces: list[str] = []
        probabilities: list[TokenLogprob] = []
        for at, token in enumerate(part.tokens):
            piece, certain = text.push(token, part.logprobs[at] if part.logprobs else None)
            job.made += 1
            pieces.append(piece)
            probabilities += certain
            if text.stopped:
                break
        reason: FinishReason | None = None
        if text.stopped:
            reason = "stop"
        elif part.finish is not None and part.finish != "failed":
            reason = part.finish
            piece, certain = text.finish()
            pieces.append(piece)
            probabilities += certain
        said = "".join(pieces)
        if said or probabilities:
            self._post(job, Token(said, tuple(probabilities)))
        if reason is not None:
            return Finished(reason, Usage(len(job.request.prompt), job.made))
        return self._failure(job, part) if part.finish == "failed" else None

    def _failure(self, job: Job, part: Produced) -> Failed:
        refused = self._remote.refusal(job.key) if self._remote is not None else None
        if refused is not None:
            return Failed(refused)
        log.error("a local generation failed: %s", part.error or "the runner gave no reason")
        return Failed(GenerationFailed())

    def _watch(self) -> None:
        """Give up the youngest job when steps bring nothing: too much was taken on at once."""
        with self._changed:
            running = list(self._running.values())
            busy = LocalBusy(len(self._running), len(self._waiting))
        if not running:
            return
        steps = self._steps - self._last_token[0]
        unread = sum(len(job.request.prompt) for job in running if not job.made)
        waited_s = self._clock() - self._last_token[1]
        beyond = steps - unread // _PROMPT_STEP
        if beyond < STALL_STEPS and (beyond < 2 or waited_s < STALL_S):
            return
        begun = [job for job in running if job.text is not None]
        if not begun:
            return
        job = begun[-1]
        log.warning("a local model took %d steps without a token; the youngest job ends", steps)
        self._last_token = (self._steps, self._clock())
        self.runner.drop(job.key)
        self._end(job, Failed(GenerationFailed() if job.given else busy))

    def _end(self, job: Job, event: Event) -> None:
        if isinstance(event, Finished):
            self._backoff_s = RESTART_S[0]
        self._post(job, event)
        with self._changed:
            self._release(job)

    # --- a lost runner ----------------------------------------------------------------------------

    def _recover(self, reason: str) -> None:
        """Fail every job, then restart the runner, however often that takes."""
        log.error("a local model stopped: %s", reason)
        with self._changed:
            self._lost = reason
        gone = ModelUnavailable("it stopped and is being started again")
        self._end_all(lambda job: GenerationFailed() if job.given else gone)
        while not self._pause():
            try:
                self.runner.restart()
            except (RunnerLost, ModelUnavailable) as failed:
                self._still_lost(failed.reason)
            except Exception as fault:
                log.exception("a local model could not be restarted")
                self._still_lost(f"restarting it failed ({type(fault).__name__})")
            else:
                self._back()
                return

    def _pause(self) -> bool:
        """Wait before a restart, longer each time; return whether the engine is closed."""
        seconds, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, RESTART_S[1])
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, seconds)

    def _still_lost(self, reason: str) -> None:
        log.error("a local model could not be restarted: %s", reason)
        with self._changed:
            self._lost = reason

    def _back(self) -> None:
        capacity = self.runner.capacity
        with self._changed:
            self._ledger = Ledger(capacity, self._max_concurrency)
            self._context = self._ledger.longest(capacity.context)
            self._lost = None
            self._restarts += 1
        log.warning("a local model was restarted")

    def _end_all(self, error: Callable[[Job], LocalError]) -> None:
        with self._changed:
            jobs = [*self._running.values(), *self._waiting.values(), *self._late]
            for job in self._running.values():
                self._ledger.give(job.blocks)
            for job in jobs:
                job.over = True
            self._running.clear()
            self._waiting.clear()
            for left in (self._fresh, self._leaving, self._late):
                left.clear()
        for job in jobs:
            self._post(job, Failed(error(job)))
        self._flush()

    # --- events -----------------------------------------------------------------------------------

    def _post(self, job: Job, event: Event) -> None:
        self._outbox.setdefault(job.deliver, []).append((job, event))
        job.given = job.given or isinstance(event, Token)

    def _flush(self) -> None:
        """Hand over what was posted, one call for each ``deliver``."""
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, {}
        for deliver, batch in outbox.items():
            wanted = [(job, event) for job, event in batch if not job.silent]
            if not wanted:
                continue
            try:
                deliver(wanted)
            except Exception:
                # Nobody takes these answers; those of others must go on.
                log.exception("the events of local answers could not be delivered")
                for job, _ in wanted:
                    job.cancel()
