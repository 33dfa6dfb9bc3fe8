"""Many small inputs computed together: a queue, and one thread that computes for a session.

A call brings inputs and waits for all of them. Each batch is built around the next input of the call
whose turn it is, filled with those of like length from every call, and costs its padded size: longest
times number. So a call of one input waits for a batch or two, not for the thousands before it, and
little is computed on padding.

Inputs of a call whose client left are dropped. A call that is refused, or waits too long to begin,
is told that the model is busy.
"""

import asyncio
import logging
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from aiproxy.reference_server.onnx.errors import EngineClosed, LocalBusy, LocalError
from aiproxy.reference_server.onnx.vectors.session import ComputationFailed

log = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")

MAX_WAITING: Final = 512
#: Padded tokens of a batch.
MAX_BATCH_TOKENS: Final = 16384
#: Inputs that wait at most, of all calls together; a single call always fits into an empty queue.
_MOST_INPUTS: Final = 16384


class _Entry(Generic[Input, Output]):
    """One input of a call. ``place`` is its number there; ``length`` in tokens. Gone from the queue
    once ``taken``."""

    __slots__ = ("call", "key", "length", "place", "taken", "value")

    def __init__(
        self, call: "_Call[Input, Output]", place: int, value: Input, length: int, key: int
    ) -> None:
        self.call, self.place, self.value = call, place, value
        self.length, self.key = length, (length, key)
        self.taken = False


class _Call(Generic[Input, Output]):
    """The inputs of one client call, and where its outputs go."""

    __slots__ = ("began", "entries", "future", "late", "left", "loop", "outputs", "over")

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.loop = loop
        self.future: asyncio.Future[list[Output]] = loop.create_future()
        self.outputs: list[Output | None] = [None] * size
        self.entries: deque[_Entry[Input, Output]] = deque()
        self.left = size
        self.began = self.over = False
        self.late: asyncio.TimerHandle | None = None

    def finish(self, error: LocalError | None) -> None:
        """Resolve the future; on its loop."""
        if self.late is not None:
            self.late.cancel()
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.outputs)  # type: ignore[arg-type]


class Batcher(Generic[Input, Output]):
    """Computes inputs in batches on a thread of its own, which starts with the first call.

    ``compute`` gets the inputs of a batch in order of length and gives one output for each; a batch
    that fails is halved until the input at fault is alone, but for a ``LocalError`` other than
    ``ComputationFailed``: what computes is gone then. ``max_waiting`` is calls.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Input]], Sequence[Output]],
        length: Callable[[Input], int],
        *,
        max_batch: int,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
        max_waiting: int = MAX_WAITING,
        max_wait_s: float = 10.0,
        name: str = "batcher",
    ) -> None:
        self._compute = compute
        self._length = length
        self._most, self._budget = max(1, max_batch), max_batch_tokens
        self._max_waiting, self._max_wait_s = max_waiting, max_wait_s
        self._name = name
        self._changed = threading.Condition()
        self._calls: deque[_Call[Input, Output]] = deque()  # whose turn is next, first
        self._sorted: list[_Entry[Input, Output]] = []  # every waiting entry, shortest first
        self._number = 0
        self._running = 0
        self._batches = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def load(self) -> tuple[int, int]:
        """How many inputs are being computed and how many wait."""
        with self._changed:
            return self._running, len(self._sorted)

    @property
    def batches(self) -> int:
        """How many batches were computed."""
        return self._batches

    async def map(
        self, inputs: Sequence[Input], *, max_wait_s: float | None = None
    ) -> list[Output]:
        """Return the output of each input, in order; ``max_wait_s`` None is the batcher's.

        Raises:
            LocalBusy: too many wait, or these waited too long.
            ComputationFailed: the runtime failed on one of them.
            EngineClosed: after ``close``.
        """
        call: _Call[Input, Output] = _Call(asyncio.get_running_loop(), len(inputs))
        if not inputs:
            return []
        wait_s = self._max_wait_s if max_wait_s is None else max_wait_s
        call.late = call.loop.call_later(wait_s, self._too_late, call)
        try:
            self._enter(call, inputs)
            return await call.future
        finally:  # answered, refused, or the client left
            call.late.cancel()
            self._forget(call)

    def close(self, timeout_s: float = 5.0) -> None:
        """End every waiting call with ``EngineClosed`` and stop the thread."""
        with self._changed:
            self._closed = True
            ended = list(self._calls)
            self._calls.clear()
            self._sorted.clear()
            self._changed.notify()
            thread = self._thread
        for call in ended:
            call.over = True
            _tell(call.loop, [(call, EngineClosed())])
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    # --- the queue -------------------------------------------------------------------------------

    def _enter(self, call: _Call[Input, Output], inputs: Sequence[Input]) -> None:
        lengths = [self._length(value) for value in inputs]
        with self._changed:
            if self._closed:
                raise EngineClosed
            full = len(self._sorted) + len(inputs) > _MOST_INPUTS and self._sorted
            if len(self._calls) >= self._max_waiting or full:
                raise LocalBusy(self._running, len(self._sorted))
            for place, (value, length) in enumerate(zip(inputs, lengths, strict=True)):
                self._number += 1
                call.entries.append(_Entry(call, place, value, length, self._number))
            self._calls.append(call)
            self._sorted += call.entries
            self._sorted.sort(key=lambda entry: entry.key)
            # Started late, so that a forking server inherits no dead thread.
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _too_late(self, call: _Call[Input, Output]) -> None:
        """The call's time to begin is over; on its loop."""
        with self._changed:
            if call.began or call.over:
                return
            busy = LocalBusy(self._running, len(self._sorted))
        self._forget(call)
        call.finish(busy)

    def _forget(self, call: _Call[Input, Output]) -> None:
        """Drop what is left of a call."""
        with self._changed:
            call.over = True
            if call in self._calls:
                self._calls.remove(call)
            if any(not entry.taken for entry in call.entries):
                for entry in call.entries:
                    entry.taken = True
                self._sorted = [entry for entry in self._sorted if not entry.taken]

    def _take(self) -> list[_Entry[Input, Output]]:
        """Return the next batch, shortest first: around the entry whose turn it is."""
        call = self._calls.popleft()
        while call.entries[0].taken:
            call.entries.popleft()
        first = call.entries.popleft()
        waiting = self._sorted
        low = bisect_left(waiting, first.key, key=lambda entry: entry.key)
        high = low + 1
        while high - low < self._most:
            # A shorter one costs its own padding, a longer one everybody else's.
            number = high - low
            longest = waiting[high - 1].length
            below = longest - waiting[low - 1].length if low else None
            above = (waiting[high].length - longest) * number if high < len(waiting) else None
            if above is not None and (waiting[high].length * (number + 1)) > self._budget:
                above = None
            if below is not None and longest * (number + 1) > self._budget:
                below = None
            if above is not None and (below is None or above <= below):
                high += 1
            elif below is not None:
                low -= 1
            else:
                break
        batch = waiting[low:high]
        del waiting[low:high]
        for entry in batch:
            entry.taken = entry.call.began = True
        self._calls.append(call)
        if len({id(entry.call) for entry in batch}) > 1 or not any(
            not entry.taken for entry in call.entries
        ):
            self._calls = deque(
                other for other in self._calls if any(not entry.taken for entry in other.entries)
            )
        return batch

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = 0
                while not (self._calls or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                batch = self._take()
                self._running = len(batch)
                self._batches += 1
            self._deliver(batch, self._outputs(batch))

    def _outputs(self, batch: list[_Entry[Input, Output]]) -> list[Output | LocalError]:
        try:
            outputs = self._compute([entry.value for entry in batch])
            if len(outputs) != len(batch):
                raise RuntimeError(f"{len(outputs)} outputs came of {len(batch)} inputs")
            return list(outputs)
        except Exception as fault:
            if isinstance(fault, LocalError) and not isinstance(fault, ComputationFailed):
                return [fault] * len(batch)
            if len(batch) == 1:
                # One broken input must not end the thread that all others need.
                log.exception("a local computation failed")
                return [ComputationFailed()]
            log.warning("a batch of %d failed; its halves are tried", len(batch))
            half = len(batch) // 2
            return [*self._outputs(batch[:half]), *self._outputs(batch[half:])]

    def _deliver(
        self, batch: list[_Entry[Input, Output]], outputs: list[Output | LocalError]
    ) -> None:
        done: dict[asyncio.AbstractEventLoop, list[tuple[_Call[Input, Output], LocalError | None]]]
        done = {}
        for entry, output in zip(batch, outputs, strict=True):
            call = entry.call
            if call.over:
                continue
            if isinstance(output, LocalError):
                self._forget(call)
                done.setdefault(call.loop, []).append((call, output))
                continue
            call.outputs[entry.place] = output
            call.left -= 1
            if not call.left:
                call.over = True
                done.setdefault(call.loop, []).append((call, None))
        for loop, calls in done.items():
            _tell(loop, calls)


def _tell(
    loop: asyncio.AbstractEventLoop,
    calls: "Sequence[tuple[_Call[Input, Output], LocalError | None]]",
) -> None:
    def finish() -> None:
        for call, error in calls:
            call.finish(error)

    try:
        loop.call_soon_threadsafe(finish)
    except RuntimeError:
        pass  # the event loop that asked is closed: nobody waits for this any more
