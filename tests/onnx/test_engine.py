"""Scheduling: places, queue, turns, cancel, failures. The model is scripted."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from aiproxy.reference_server.onnx import (
    ContextOverflow,
    EngineClosed,
    Event,
    Failed,
    Finished,
    GenerationFailed,
    GenerationRequest,
    LocalBusy,
    Message,
    TextEngine,
    Token,
    Usage,
)

PATIENCE_S = 10


class ScriptedAnswer:
    """Says ``words`` one a step; before each it waits for ``gate`` when there is one."""

    def __init__(self, model: "ScriptedModel", words: list[str]) -> None:
        self.finish: Any = None
        self._model = model
        self._words = words
        self._said = 0

    @property
    def usage(self) -> Usage:
        return Usage(1, self._said)

    def step(self) -> str:
        if self._model.gate is not None:
            assert self._model.gate.acquire(timeout=PATIENCE_S)
        word = self._words[self._said]
        self._said += 1
        self._model.said.append(word)
        if word == "broken":
            raise ZeroDivisionError("scripted")
        if self._said == len(self._words):
            self.finish = "stop"
        return word


@dataclass
class ScriptedModel:
    """A model that answers with the words of the question; ``gate`` lets single steps happen."""

    gate: threading.Semaphore | None = None
    said: list[str] = field(default_factory=list)

    def start(self, request: GenerationRequest) -> ScriptedAnswer:
        text = request.messages[0].text
        if text == "too long":
            raise ContextOverflow(10, 20)
        return ScriptedAnswer(self, text.split())


class Inbox:
    """Collects the events of one job; ``wait`` returns them once it is over."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._over = threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if not isinstance(event, Token):
            self._over.set()

    def wait(self) -> list[Event]:
        assert self._over.wait(PATIENCE_S), f"the job did not end: {self.events}"
        return self.events

    def error(self) -> Exception:
        last = self.wait()[-1]
        assert isinstance(last, Failed)
        return last.error


def asking(words: str) -> GenerationRequest:
    return GenerationRequest((Message("user", words),))


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


@pytest.fixture
def engine_of() -> Iterator[Callable[..., TextEngine]]:
    made: list[TextEngine] = []

    def make(model: Any, **limits: Any) -> TextEngine:
        made.append(TextEngine(model, **limits))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_a_job_delivers_its_tokens_and_then_its_end(engine_of: Any) -> None:
    inbox = Inbox()
    engine_of(ScriptedModel()).submit(asking("a b c"), inbox)
    assert inbox.wait() == [Token("a"), Token("b"), Token("c"), Finished("stop", Usage(1, 3))]


def test_two_jobs_take_turns_token_by_token(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=2)
    first, second = Inbox(), Inbox()
    engine.submit(asking("a1 a2 a3 a4"), first)
    engine.submit(asking("b1 b2 b3"), second)
    model.gate.release(7)
    first.wait(), second.wait()
    # The second may join one step later, depending on when the owner thread saw it.
    assert "".join(model.said).startswith(("a1b1a2b2a3b3", "a1a2b1a3b2a4b3"))


def test_no_more_jobs_run_than_there_are_places(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=2, max_queue=9)
    inboxes = [Inbox() for _ in range(4)]
    for inbox in inboxes:
        engine.submit(asking("x y"), inbox)
    # One step, so that the owner thread looks again at who waits.
    model.gate.release(1)
    until(lambda: engine.load == (2, 2))
    model.gate.release(7)
    assert [len(inbox.wait()) for inbox in inboxes] == [3, 3, 3, 3]
    assert engine.load == (0, 0)


def test_a_full_queue_is_refused_at_once(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=1, max_queue=1)
    kept = [Inbox(), Inbox()]
    for inbox in kept:
        engine.submit(asking("x"), inbox)
    started = time.monotonic()
    with pytest.raises(LocalBusy) as busy:
        engine.submit(asking("x"), Inbox())
    assert time.monotonic() - started < 0.05
    assert (busy.value.status, busy.value.code, busy.value.reason) == (
        503,
        "provider_overloaded",
        "local_gpu_busy",
    )
    model.gate.release(2)
    assert [inbox.wait()[-1] for inbox in kept] == [Finished("stop", Usage(1, 1))] * 2


def test_who_waited_too_long_is_refused_as_busy(engine_of: Any) -> None:
    now = [0.0]
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=1, max_queue_wait_s=5.0, clock=lambda: now[0])
    first, second = Inbox(), Inbox()
    engine.submit(asking("a b"), first)
    until(lambda: engine.load == (1, 0))
    engine.submit(asking("c"), second)
    now[0] = 5.1
    model.gate.release(1)
    assert isinstance(second.error(), LocalBusy)
    model.gate.release(1)
    assert first.wait()[-1] == Finished("stop", Usage(1, 2))
    assert "c" not in model.said


def test_cancelling_a_running_job_frees_its_place_and_silences_it(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=1)
    first, second = Inbox(), Inbox()
    job = engine.submit(asking("a b c d e"), first)
    engine.submit(asking("z"), second)
    model.gate.release(1)
    until(lambda: first.events == [Token("a")])
    job.cancel()
    model.gate.release(2)
    second.wait()
    assert first.events == [Token("a")]
    assert engine.load == (0, 0)


def test_cancelling_a_waiting_job_frees_its_queue_place_at_once(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=1, max_queue=1)
    engine.submit(asking("a"), Inbox())
    until(lambda: engine.load == (1, 0))
    waiting = engine.submit(asking("b"), Inbox())
    waiting.cancel()
    assert engine.load == (1, 0)
    waiting.cancel()
    model.gate.release(1)
    until(lambda: engine.load == (0, 0))
    assert model.said == ["a"]


def test_a_prompt_that_does_not_fit_fails_its_job_only(engine_of: Any) -> None:
    engine = engine_of(ScriptedModel())
    refused, fine = Inbox(), Inbox()
    engine.submit(asking("too long"), refused)
    engine.submit(asking("ok"), fine)
    assert isinstance(refused.error(), ContextOverflow)
    assert fine.wait()[0] == Token("ok")


def test_a_runtime_failure_is_logged_and_ends_its_job_only(
    engine_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of(ScriptedModel(), max_concurrency=2)
    bad, good = Inbox(), Inbox()
    with caplog.at_level(logging.ERROR):
        engine.submit(asking("a broken b"), bad)
        engine.submit(asking("x y z"), good)
        assert isinstance(bad.error(), GenerationFailed)
        good.wait()
    assert "scripted" not in str(bad.error())
    assert "ZeroDivisionError" in caplog.text
    assert good.events[-1] == Finished("stop", Usage(1, 3))


def test_a_caller_that_is_gone_is_treated_as_cancelled(engine_of: Any) -> None:
    def gone(event: Event) -> None:
        raise RuntimeError("Event loop is closed")

    engine = engine_of(ScriptedModel())
    engine.submit(asking("a b c"), gone)
    inbox = Inbox()
    engine.submit(asking("x"), inbox)
    assert inbox.wait()[0] == Token("x")


def test_close_ends_every_job_and_refuses_new_ones(engine_of: Any) -> None:
    model = ScriptedModel(gate=threading.Semaphore(0))
    engine = engine_of(model, max_concurrency=1)
    running, waiting = Inbox(), Inbox()
    engine.submit(asking("a b c"), running)
    engine.submit(asking("d"), waiting)
    closer = threading.Thread(target=engine.close)
    closer.start()
    until(lambda: engine._closed)
    model.gate.release(1)
    closer.join(PATIENCE_S)
    assert isinstance(running.error(), EngineClosed)
    assert isinstance(waiting.error(), EngineClosed)
    with pytest.raises(EngineClosed):
        engine.submit(asking("e"), Inbox())


def test_a_storm_of_cancels_loses_and_doubles_nothing(engine_of: Any) -> None:
    engine = engine_of(ScriptedModel(), max_concurrency=4, max_queue=500)
    inboxes = [Inbox() for _ in range(300)]
    jobs = [engine.submit(asking("a b c d"), inbox) for inbox in inboxes]
    for job in jobs[::3]:
        job.cancel()
    kept = [inbox for at, inbox in enumerate(inboxes) if at % 3]
    whole = [Token("a"), Token("b"), Token("c"), Token("d"), Finished("stop", Usage(1, 4))]
    assert all(inbox.wait() == whole for inbox in kept)
    assert all(inbox.events == whole[: len(inbox.events)] for inbox in inboxes)
    until(lambda: engine.load == (0, 0))
