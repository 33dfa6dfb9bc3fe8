"""Cancel storms and an over-admitted cache on real adapters: nothing lost, doubled or left behind."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from inboxes import Inbox, until
from tiny_models import tiny_llama

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import GenerationFailed, LocalBusy
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text.engine import TextEngine
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Token,
)
from aiproxy.reference_server.onnx.text.runner import Capacity
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer
from aiproxy.reference_server.onnx.worker.parent import WorkerRunner, WorkerSpec

CPU = Device()
WORDS = [
    "The",
    "work",
    "and",
    "its",
    "licence",
    "are",
    "given",
    "to",
    "you",
    "under",
    "these",
    "terms",
]


def folder_of(**how: Any) -> TextFolder:
    folder = read_folder(tiny_llama(**how))
    assert isinstance(folder, TextFolder)
    return folder


def opened(kind: str) -> tuple[TextFolder, Any]:
    if kind == "slots":
        from aiproxy.reference_server.onnx.text.slots import open_slots

        folder = folder_of(paged=False)
        return folder, open_slots(folder, CPU, slots=4)
    folder = folder_of(paged=True, blocks=24, block_tokens=16, max_batch=6)
    if kind == "worker":
        return folder, WorkerRunner(WorkerSpec("genai", CPU, folder=folder))
    from aiproxy.reference_server.onnx.text.genai import open_genai

    return folder, open_genai(folder, CPU)


@pytest.fixture(params=["slots", "genai", "worker"])
def engine_and_text(request: pytest.FixtureRequest) -> Iterator[tuple[TextEngine, TextTokenizer]]:
    folder, runner = opened(request.param)
    text = TextTokenizer(folder.tokenizer.read_text())
    engine = TextEngine(runner, text.decode, max_queue=500, max_queue_wait_s=120.0)
    yield engine, text
    engine.close()


def asking(text: TextTokenizer, number: int, most: int = 24) -> GenerationRequest:
    words = " ".join(WORDS[number % 9 : number % 9 + 4])
    return GenerationRequest(tuple(text.encode(f"{number % 11} {words}", begin=True)), most)


def spoken(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def test_cancels_at_any_moment_change_no_other_answer(
    engine_and_text: tuple[TextEngine, TextTokenizer],
) -> None:
    """Each answer that is not cancelled is the one its prompt gets alone; every block comes back."""
    engine, text = engine_and_text
    inbox, chance = Inbox(), random.Random(5)
    free = engine.state.free_blocks
    kinds = range(12)
    alone = [inbox.wait(engine.submit(asking(text, number), inbox)) for number in kinds]
    jobs = [engine.submit(asking(text, number % 12), inbox) for number in range(120)]
    left = set(chance.sample(range(120), 50))
    for number in sorted(left, key=lambda _: chance.random()):
        time.sleep(chance.random() * 0.004)
        jobs[number].cancel()
    for number, job in enumerate(jobs):
        expected = alone[number % 12]
        if number in left:
            got = inbox.of(job)
            assert spoken(expected).startswith(spoken(got))
            assert sum(isinstance(event, Finished) for event in got) <= 1
            assert not any(isinstance(event, Failed) for event in got)
        else:
            assert inbox.wait(job) == expected
    until(lambda: engine.load == (0, 0))
    assert engine.state.free_blocks == free
    assert engine.state.restarts == 0
    again = engine.submit(asking(text, 3), inbox)
    assert inbox.wait(again) == alone[3]


@pytest.mark.slow
def test_submitting_and_cancelling_from_many_threads_is_safe(
    engine_and_text: tuple[TextEngine, TextTokenizer],
) -> None:
    engine, text = engine_and_text
    inbox = Inbox()
    expected = [inbox.wait(engine.submit(asking(text, number), inbox)) for number in range(4)]
    wrong: list[Any] = []

    def client(seed: int) -> None:
        chance, mine = random.Random(seed), Inbox()
        for number in range(12):
            job = engine.submit(asking(text, number % 4), mine)
            if chance.random() < 0.4:
                time.sleep(chance.random() * 0.01)
                job.cancel()
            elif (got := mine.wait(job)) != expected[number % 4]:
                wrong.append(got)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    until(lambda: engine.load == (0, 0))


class Boasting:
    """A runner that says it has room for whole contexts, whatever its cache holds."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @property
    def capacity(self) -> Capacity:
        real = self._runner.capacity
        return Capacity(real.slots, real.context)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


@pytest.fixture
def over_admitted() -> Iterator[Callable[[bool], tuple[TextEngine, TextTokenizer]]]:
    made: list[TextEngine] = []

    def make(boasting: bool) -> tuple[TextEngine, TextTokenizer]:
        from aiproxy.reference_server.onnx.text.genai import open_genai

        folder = folder_of(paged=True, blocks=8, block_tokens=16, max_batch=8)
        runner = open_genai(folder, CPU)
        text = TextTokenizer(folder.tokenizer.read_text())
        made.append(TextEngine(Boasting(runner) if boasting else runner, text.decode))
        return made[-1], text

    yield make
    for engine in made:
        engine.close()


def growing(text: TextTokenizer, number: int) -> GenerationRequest:
    """Two blocks of prompt; with its answer five."""
    prompt = text.encode(" ".join(WORDS * 3), begin=True)[: 28 + number]
    return GenerationRequest(tuple(prompt), 48)


def test_an_over_admitted_cache_comes_unstuck(over_admitted: Any) -> None:
    """Four sequences fill the cache with their prompts and all want more: nobody gets a token, for
    ever. The youngest are given up until the others can end."""
    engine, text = over_admitted(True)
    inbox = Inbox()
    jobs = [engine.submit(growing(text, number), inbox) for number in range(4)]
    ends = [inbox.wait(job)[-1] for job in jobs]
    failed = [end.error for end in ends if isinstance(end, Failed)]
    assert failed, "the cache did not fill: this shows nothing"
    assert all(isinstance(error, LocalBusy | GenerationFailed) for error in failed)
    assert isinstance(ends[0], Finished)
    assert isinstance(inbox.wait(engine.submit(growing(text, 0), inbox))[-1], Finished)


def test_reserving_blocks_lets_the_same_requests_end_in_turn(over_admitted: Any) -> None:
    engine, text = over_admitted(False)
    inbox = Inbox()
    jobs = [engine.submit(growing(text, number), inbox) for number in range(4)]
    assert [type(inbox.wait(job)[-1]) for job in jobs] == [Finished] * 4
    assert engine.state.free_blocks == 8
