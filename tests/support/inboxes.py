"""What the jobs of a scheduler deliver, collected for tests."""

import threading
import time
from collections.abc import Callable
from typing import Any

from aiproxy.reference_server.onnx.errors import LocalError
from aiproxy.reference_server.onnx.text.engine import Job
from aiproxy.reference_server.onnx.text.generation import Event, Failed, Finished, Token, Usage

PATIENCE_S = 20


class Inbox:
    """Collects the events of jobs; ``wait`` returns a job's once it is over."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[Job, Event]]] = []
        self._events: dict[Job, list[Event]] = {}
        self._changed = threading.Condition()

    def __call__(self, batch: list[tuple[Job, Event]]) -> None:
        with self._changed:
            self.batches.append(batch)
            for job, event in batch:
                self._events.setdefault(job, []).append(event)
            self._changed.notify_all()

    def of(self, job: Job) -> list[Event]:
        with self._changed:
            return list(self._events.get(job, ()))

    def wait(self, job: Job) -> list[Event]:
        with self._changed:
            assert self._changed.wait_for(lambda: self._is_over(job), PATIENCE_S), self.batches
        return self.of(job)

    def _is_over(self, job: Job) -> bool:
        events = self._events.get(job)
        return bool(events) and not isinstance(events[-1], Token)  # type: ignore[index]

    def error(self, job: Job) -> LocalError:
        last = self.wait(job)[-1]
        assert isinstance(last, Failed)
        return last.error


def said(text: str, reason: Any = "stop") -> list[Event]:
    """The events of an undisturbed answer of one token a character."""
    return [*map(Token, text), Finished(reason, Usage(len(text), len(text)))]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)
