"""Models the router runs itself: a few at once, a few that wait, and no more."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from right_router import dialects
from right_router.settings import Provider
from right_router.wire import Failure

INFERENCE_S = 0.06


class Places:
    """The places of each local provider: those at work, and those in the queue."""

    def __init__(self, has: Any) -> None:
        self.has = has
        self.turn = threading.Condition()
        self.running: dict[str, int] = {}
        self.waiting: dict[str, int] = {}

    @contextmanager
    def place(self, provider: Provider) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            Failure: all are taken, and so is the queue.
        """
        name, raw = provider.id, provider.raw
        most, queue = raw.get("max_concurrency") or 1, raw.get("max_queue", 64)
        if queue and self.has("local-queue-unbounded"):
            queue = 10_000
        with self.turn:
            if self.running.get(name, 0) >= most:
                if self.waiting.get(name, 0) >= queue:
                    told = "overloaded" if self.has("busy-told-as-overloaded") else "local_gpu_busy"
                    raise Failure(told, status=503)
                self.waiting[name] = self.waiting.get(name, 0) + 1
                self.turn.wait_for(lambda: self.running.get(name, 0) < most)
                self.waiting[name] -= 1
            self.running[name] = self.running.get(name, 0) + 1
        try:
            yield
        finally:
            with self.turn:
                self.running[name] -= 1
                self.turn.notify_all()


def complete() -> dict[str, Any]:
    """Return the answer of a very small model."""
    time.sleep(INFERENCE_S)
    return dialects.completion("I am a small model.", [], "stop", dialects.tokens(7, 5))
