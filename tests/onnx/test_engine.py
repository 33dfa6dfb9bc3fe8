"""Scheduling: places, blocks, queue, batches, cancel, stalls, failures. The runner is scripted."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inboxes import PATIENCE_S, Inbox, said, until
from scripted_runner import Behaviour, ScriptedRunner, asking, decode

from aiproxy.reference_server.onnx.errors import (
    ContextOverflow,
    EngineClosed,
    GenerationFailed,
    LocalBusy,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.text import engine as engine_module
from aiproxy.reference_server.onnx.text.admission import Claim, Ledger, Pace, wait_s
from aiproxy.reference_server.onnx.text.engine import Job, TextEngine
from aiproxy.reference_server.onnx.text.generation import (
    Event,
    Finished,
    Token,
    Usage,
)
from aiproxy.reference_server.onnx.text.runner import Capacity, Produced, RunnerLost


@pytest.fixture
def engine_of() -> Iterator[Callable[..., TextEngine]]:
    made: list[TextEngine] = []

    def make(runner: ScriptedRunner | None = None, **limits: Any) -> TextEngine:
        made.append(TextEngine(runner or ScriptedRunner(), decode, **limits))
        return made[-1]

    yield make
    for engine in made:
        gate = getattr(engine.runner, "gate", None)
        if gate is not None:
            gate.release(10_000)
        engine.close()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def gated(**behaviour: Any) -> tuple[ScriptedRunner, threading.Semaphore]:
    gate = threading.Semaphore(0)
    return ScriptedRunner(Behaviour(**behaviour), gate=gate), gate


# --- answers --------------------------------------------------------------------------------------


def test_a_job_delivers_its_tokens_and_then_its_end(engine_of: Any, inbox: Inbox) -> None:
    job = engine_of().submit(asking("abc"), inbox)
    assert inbox.wait(job) == said("abc")


def test_two_jobs_take_turns_in_the_same_steps(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated()
    engine = engine_of(runner)
    first, second = engine.submit(asking("abc"), inbox), engine.submit(asking("xyz"), inbox)
    gate.release(10)
    inbox.wait(first), inbox.wait(second)
    # The second may join one step later, depending on when the owner thread saw it.
    assert "".join(runner.said) in ("axbycz", "abxcyz")


def test_a_step_is_one_delivery_for_all_jobs_of_a_caller(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=8)
    engine = engine_of(runner)
    other = Inbox()
    with engine._changed:  # the owner thread finds all at once
        engine.submit(asking("z"), other)
        jobs = [engine.submit(asking("ab"), inbox) for _ in range(5)]
    gate.release(10)
    for job in jobs:
        inbox.wait(job)
    assert [[type(event).__name__ for _, event in batch] for batch in inbox.batches] == [
        ["Token"] * 5,
        ["Token"] * 5,
        ["Finished"] * 5,
    ]
    assert len(other.batches) == 2


def test_a_job_keeps_to_its_tokens_and_the_rest_of_the_context(
    engine_of: Any, inbox: Inbox
) -> None:
    engine = engine_of(ScriptedRunner(Behaviour(context=12)))
    two = engine.submit(asking("abcdef", max_tokens=2), inbox)
    rest = engine.submit(asking("abcdefgh", max_tokens=99), inbox)
    assert inbox.wait(two)[-1] == Finished("length", Usage(6, 2))
    assert inbox.wait(rest)[-1] == Finished("length", Usage(8, 4))


def test_a_prompt_without_room_for_an_answer_is_refused(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(ScriptedRunner(Behaviour(context=4)))
    with pytest.raises(ContextOverflow) as refused:
        engine.submit(asking("abcd"), inbox)
    assert (refused.value.limit, refused.value.asked) == (4, 4)
    assert inbox.wait(engine.submit(asking("abc"), inbox))[-1] == Finished("length", Usage(3, 1))


def test_a_prompt_larger_than_the_whole_cache_is_refused(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(ScriptedRunner(Behaviour(blocks=2, block_tokens=4)))
    with pytest.raises(ContextOverflow):
        engine.submit(asking("abcdefgh"), inbox)
    assert inbox.wait(engine.submit(asking("abcdefg"), inbox))[-1] == Finished(
        "length", Usage(7, 1)
    )


def test_a_stop_string_ends_the_answer_and_frees_its_place(engine_of: Any, inbox: Inbox) -> None:
    runner = ScriptedRunner(Behaviour(slots=1))
    engine = engine_of(runner)
    job = engine.submit(asking("one two three", stop=("two",)), inbox)
    events = inbox.wait(job)
    text = "".join(event.text for event in events if isinstance(event, Token))
    assert (text, events[-1]) == ("one ", Finished("stop", Usage(13, 7)))
    assert runner.dropped == [job.key]
    assert inbox.wait(engine.submit(asking("x"), inbox)) == said("x")


def test_log_probabilities_come_with_the_text_they_belong_to(engine_of: Any, inbox: Inbox) -> None:
    job = engine_of().submit(asking("ab<enxx<end>z", stop=("<end>",), top_logprobs=0), inbox)
    tokens = [event for event in inbox.wait(job) if isinstance(event, Token)]
    assert [(token.text, [chr(found.token) for found in token.logprobs]) for token in tokens] == [
        ("a", ["a"]),
        ("b", ["b"]),
        ("<enx", ["<", "e", "n", "x"]),
        ("x", ["x"]),
    ]


def test_special_tokens_show_only_when_asked_for(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of()
    texts = []
    for show in (False, True):
        job = engine.submit(asking("a\0b", show_special=show), inbox)
        events = inbox.wait(job)
        texts.append("".join(event.text for event in events if isinstance(event, Token)))
        assert events[-1] == Finished("stop", Usage(3, 3))
    assert texts == ["ab", "a<end>b"]


# --- places, blocks, queue ------------------------------------------------------------------------


def test_no_more_jobs_run_than_there_are_places(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=9)
    engine = engine_of(runner, max_concurrency=2, max_queue=9)
    jobs = [engine.submit(asking("xy"), inbox) for _ in range(4)]
    assert engine.load == (2, 2)
    gate.release(20)
    assert [inbox.wait(job) for job in jobs] == [said("xy")] * 4
    assert (engine.load, runner.most_live) == ((0, 0), 2)


def test_blocks_are_reserved_for_the_longest_an_answer_may_become(
    engine_of: Any, inbox: Inbox
) -> None:
    runner, gate = gated(slots=9, blocks=5, block_tokens=4)
    engine = engine_of(runner)
    first = engine.submit(asking("abcd", max_tokens=5), inbox)  # 9 tokens: 3 blocks
    second = engine.submit(asking("ab", max_tokens=6), inbox)  # 2 blocks
    third = engine.submit(asking("x", max_tokens=1), inbox)  # 1 block
    state = engine.state
    assert (state.running, state.waiting, state.free_blocks) == (2, 1, 0)
    gate.release(20)
    assert [len(inbox.wait(job)) for job in (first, second, third)] == [5, 3, 2]
    assert engine.state.free_blocks == 5


def test_a_full_queue_is_refused_at_once(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=1)
    engine = engine_of(runner, max_queue=1)
    kept = [engine.submit(asking("x"), inbox) for _ in range(2)]
    with pytest.raises(LocalBusy) as busy:
        engine.submit(asking("x"), inbox)
    assert (busy.value.status, busy.value.code, busy.value.reason) == (
        503,
        "provider_overloaded",
        "local_gpu_busy",
    )
    assert (busy.value.running, busy.value.waiting) == (1, 1)
    gate.release(9)
    assert [inbox.wait(job) for job in kept] == [said("x")] * 2


def test_busy_and_busy_only_is_said_within_50_ms_while_a_step_takes_a_second(
    engine_of: Any, inbox: Inbox
) -> None:
    engine = engine_of(ScriptedRunner(Behaviour(slots=1, step_s=1.0)), max_queue=200)
    engine.submit(asking("abc"), inbox)
    until(lambda: engine.load == (1, 0))
    time.sleep(0.1)  # well into the step
    took = []
    for _ in range(201):
        began = time.perf_counter()
        try:
            engine.submit(asking("abc"), inbox)
        except LocalBusy:
            refused_s = time.perf_counter() - began
        took.append(time.perf_counter() - began)
    assert max(took) < 0.05
    assert refused_s < 0.05
    assert engine.load == (1, 200)


def test_who_waited_too_long_is_refused_as_busy(engine_of: Any, inbox: Inbox) -> None:
    now = [0.0]
    runner, gate = gated(slots=1)
    engine = engine_of(runner, max_queue_wait_s=5.0, clock=lambda: now[0])
    first, second = engine.submit(asking("ab"), inbox), engine.submit(asking("c"), inbox)
    now[0] = 5.1
    gate.release(1)
    assert isinstance(inbox.error(second), LocalBusy)
    gate.release(9)
    assert inbox.wait(first) == said("ab")
    assert "c" not in runner.said


def test_who_would_wait_too_long_is_refused_before_waiting(engine_of: Any, inbox: Inbox) -> None:
    now = [0.0]
    runner, gate = gated(slots=1)
    engine = engine_of(runner, max_queue_wait_s=5.0, clock=lambda: now[0])
    measured = engine.submit(asking("abcd"), inbox)
    until(lambda: bool(runner.live))
    now[0] = 4.0  # one second a token, four tokens an answer
    gate.release(9)
    inbox.wait(measured)
    until(lambda: engine.load == (0, 0))
    while gate.acquire(blocking=False):
        pass
    engine.submit(asking("abcd"), inbox)
    engine.submit(asking("abcd"), inbox)  # in four seconds
    with pytest.raises(LocalBusy):
        engine.submit(asking("abcd"), inbox)  # in eight
    assert engine.load == (1, 1)


def test_the_queue_is_first_come_first_served_whatever_fits(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=9, blocks=4, block_tokens=4)
    engine = engine_of(runner)
    engine.submit(asking("abcdefgh", max_tokens=4), inbox)  # 3 blocks
    large = engine.submit(asking("ABCDEF", max_tokens=2), inbox)  # 2 blocks: waits
    small = engine.submit(asking("x", max_tokens=1), inbox)  # 1 block would be free
    assert engine.load == (1, 2)
    gate.release(99)
    inbox.wait(large), inbox.wait(small)
    assert runner.said.index("A") <= runner.said.index("x")


def test_full_is_said_of_any_request_when_not_even_the_smallest_is_taken(
    engine_of: Any, inbox: Inbox
) -> None:
    runner, gate = gated(slots=9, blocks=3, block_tokens=4)
    engine = engine_of(runner, max_queue=1)
    engine.submit(asking("abcdef", max_tokens=2), inbox)  # 2 blocks
    engine.refuse_if_full()
    engine.submit(asking("abcdef", max_tokens=2), inbox)  # waits for 2
    with pytest.raises(LocalBusy) as busy:
        engine.refuse_if_full()
    assert (busy.value.running, busy.value.waiting) == (1, 1)
    gate.release(20)
    until(lambda: engine.load == (0, 0))
    engine.refuse_if_full()


# --- leaving --------------------------------------------------------------------------------------


def test_cancelling_a_running_job_frees_its_place_and_silences_it(
    engine_of: Any, inbox: Inbox
) -> None:
    runner, gate = gated(slots=1)
    engine = engine_of(runner)
    job = engine.submit(asking("abcde"), inbox)
    second = engine.submit(asking("z"), inbox)
    gate.release(1)
    until(lambda: inbox.of(job) == [Token("a")])
    job.cancel()
    gate.release(3)
    inbox.wait(second)
    assert inbox.of(job) == [Token("a")]
    assert runner.dropped == [job.key]
    until(lambda: engine.load == (0, 0))


def test_cancelling_a_waiting_job_frees_its_queue_place_at_once(
    engine_of: Any, inbox: Inbox
) -> None:
    runner, gate = gated(slots=1)
    engine = engine_of(runner, max_queue=1)
    engine.submit(asking("a"), inbox)
    waiting = engine.submit(asking("b"), inbox)
    waiting.cancel()
    assert engine.load == (1, 0)
    waiting.cancel()
    gate.release(3)
    until(lambda: engine.load == (0, 0))
    assert runner.said == ["a"]


def test_a_job_that_leaves_makes_way_for_those_behind_it(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=9, blocks=4, block_tokens=4)
    engine = engine_of(runner)
    engine.submit(asking("abcdefgh", max_tokens=4), inbox)
    large = engine.submit(asking("ABCDEF", max_tokens=2), inbox)
    small = engine.submit(asking("x", max_tokens=1), inbox)
    large.cancel()
    assert engine.load == (2, 0)
    gate.release(2)
    assert inbox.wait(small)[0] == Token("x")


def test_a_storm_of_cancels_loses_and_doubles_nothing(engine_of: Any, inbox: Inbox) -> None:
    runner = ScriptedRunner(Behaviour(slots=4, blocks=12, block_tokens=4))
    engine = engine_of(runner, max_queue=500)
    jobs = [engine.submit(asking("abcd", max_tokens=1 + at % 9), inbox) for at in range(300)]
    for job in jobs[::3]:
        job.cancel()
    for at, job in enumerate(jobs):
        most = 1 + at % 9
        made = min(4, most)
        end = Finished("stop" if most > 4 else "length", Usage(4, made))
        whole = [*map(Token, "abcd"[:made]), end]
        events = inbox.wait(job) if at % 3 else inbox.of(job)
        assert events == (whole if at % 3 else whole[: len(events)])
    until(lambda: engine.load == (0, 0))
    assert engine.state.free_blocks == 12
    assert not runner.live


def test_a_caller_that_breaks_harms_nobody_else(
    engine_of: Any, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(batch: list[tuple[Job, Event]]) -> None:
        raise RuntimeError("Event loop is closed")

    engine = engine_of()
    engine.submit(asking("abc"), gone)
    assert inbox.wait(engine.submit(asking("xyz"), inbox)) == said("xyz")
    until(lambda: engine.load == (0, 0))
    assert caplog.text.count("could not be delivered") == 1


# --- failures -------------------------------------------------------------------------------------


def test_a_sequence_the_runner_refuses_fails_alone(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of(ScriptedRunner(Behaviour(refuse="bad")))
    bad, good = engine.submit(asking("bad"), inbox), engine.submit(asking("good"), inbox)
    assert isinstance(inbox.error(bad), RequestRefused)
    assert inbox.wait(good) == said("good")


def test_a_sequence_that_fails_ends_its_job_only(
    engine_of: Any, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_of()
    with caplog.at_level(logging.ERROR):
        bad, good = engine.submit(asking("ab!"), inbox), engine.submit(asking("xyz"), inbox)
        assert isinstance(inbox.error(bad), GenerationFailed)
        assert inbox.wait(good) == said("xyz")
    assert "scripted" in caplog.text
    assert inbox.of(bad)[:-1] == [Token("a"), Token("b")]


def test_text_that_cannot_be_made_ends_its_job_only(engine_of: Any, inbox: Inbox) -> None:
    def fragile(ids: Any, show_special: bool) -> str:
        text = decode(ids, show_special)
        assert "b" not in text
        return text

    engine = TextEngine(ScriptedRunner(), fragile)
    bad, good = engine.submit(asking("abc"), inbox), engine.submit(asking("xyz"), inbox)
    assert isinstance(inbox.error(bad), GenerationFailed)
    assert inbox.wait(good) == said("xyz")
    engine.close()


def test_steps_that_bring_nothing_end_with_the_youngest_given_up(
    engine_of: Any, inbox: Inbox
) -> None:
    runner, gate = gated(slots=3)
    engine = engine_of(runner)
    oldest = engine.submit(asking("abc"), inbox)
    gate.release(1)
    until(lambda: inbox.of(oldest) == [Token("a")])
    runner.behaviour.stalled = True
    young = engine.submit(asking("xyz"), inbox)
    gate.release(engine_module.STALL_STEPS + 5)
    assert isinstance(inbox.error(young), LocalBusy)
    assert inbox.of(oldest) == [Token("a")]
    runner.behaviour.stalled = False
    gate.release(10)
    assert inbox.wait(oldest) == said("abc")
    assert runner.dropped == [young.key]


def test_a_stall_with_text_delivered_is_a_failure(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated()
    engine = engine_of(runner)
    job = engine.submit(asking("abc"), inbox)
    gate.release(1)
    until(lambda: inbox.of(job) == [Token("a")])
    runner.behaviour.stalled = True
    gate.release(engine_module.STALL_STEPS + 5)
    assert isinstance(inbox.error(job), GenerationFailed)
    until(lambda: engine.load == (0, 0))


def test_jobs_that_come_together_after_an_idle_minute_have_their_own_time(
    engine_of: Any, inbox: Inbox
) -> None:
    now = [0.0]
    runner, gate = gated(slots=2)
    engine = engine_of(runner, clock=lambda: now[0])
    gate.release(2)
    inbox.wait(engine.submit(asking("a"), inbox))
    now[0] += engine_module.STALL_S + 1
    runner.behaviour.stalled = True
    with engine._changed:  # the owner thread finds both at once
        jobs = [engine.submit(asking("xy"), inbox) for _ in range(2)]
    gate.release(4)
    until(lambda: engine.state.steps == 6)
    runner.behaviour.stalled = False
    gate.release(9)
    assert [inbox.wait(job) for job in jobs] == [said("xy")] * 2


@pytest.mark.parametrize(("steps", "given_up"), [(11, False), (12, True)])
def test_a_prompt_may_take_longer_than_a_minute_for_the_steps_it_needs(
    engine_of: Any, inbox: Inbox, steps: int, given_up: bool
) -> None:
    now = [0.0]
    runner, gate = gated(context=9000)
    engine = engine_of(runner, clock=lambda: now[0])
    runner.behaviour.stalled = True
    job = engine.submit(asking("a" * 640, max_tokens=1), inbox)  # ten steps at most
    until(lambda: bool(runner.live))
    now[0] += engine_module.STALL_S + 1
    gate.release(steps)
    until(lambda: engine.state.steps == steps)
    if given_up:
        assert isinstance(inbox.error(job), LocalBusy)
        return
    runner.behaviour.stalled = False
    gate.release(1)
    assert inbox.wait(job) == [Token("a"), Finished("length", Usage(640, 1))]


@pytest.mark.parametrize("fault", [lambda: RunnerLost("the device is gone"), ZeroDivisionError])
def test_what_a_lost_runner_had_is_gone_before_it_is_restarted(
    engine_of: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Exception]
) -> None:
    """Its weights and cache would be there twice."""

    class Weights:
        pass

    class Failing(ScriptedRunner):
        def step(self, patience_s: float) -> list[Produced]:
            weights = Weights()
            held.append(weakref.ref(weights))
            try:
                raise MemoryError
            except MemoryError as full:
                raise fault() from full

        def restart(self) -> None:
            left.append(held[0]())

    held: list[weakref.ref[Weights]] = []
    left: list[Weights | None] = []
    monkeypatch.setattr(engine_module, "RESTART_S", (0.01, 0.1))
    monkeypatch.setattr(engine_module.log, "disabled", True)  # pytest keeps what is logged
    engine = engine_of(Failing())
    engine.submit(asking("abc"), inbox)
    until(lambda: engine.state.restarts == 1)
    assert left == [None]


def test_a_lost_runner_fails_all_and_is_restarted(
    engine_of: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AIP-PROV-004: who got nothing is told to go elsewhere, in words a router acts on."""
    monkeypatch.setattr(engine_module, "RESTART_S", (0.05, 0.1))
    runner, gate = gated(die="die", slots=2)
    runner.failing = ["no memory yet", "nor now"]
    engine = engine_of(runner)
    dies = engine.submit(asking("die!"), inbox)
    gate.release(2)
    until(lambda: len(inbox.of(dies)) == 2)
    fresh = engine.submit(asking("abc"), inbox)
    waiting = engine.submit(asking("def"), inbox)
    gate.release(1)
    assert isinstance(inbox.error(dies), GenerationFailed)
    for job in (fresh, waiting):
        error = inbox.error(job)
        assert (type(error), error.status) == (ModelUnavailable, 503)
    with pytest.raises(ModelUnavailable):
        engine.submit(asking("abc"), inbox)
    assert engine.state.lost
    until(lambda: engine.state.restarts == 1)
    state = engine.state
    assert (state.running, state.waiting, state.lost) == (0, 0, None)
    gate.release(9)
    assert inbox.wait(engine.submit(asking("abc"), inbox)) == said("abc")


def test_a_runner_that_breaks_unasked_counts_as_lost(
    engine_of: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RESTART_S", (0.01, 0.1))
    engine = engine_of()
    assert isinstance(inbox.error(engine.submit(asking("a?"), inbox)), GenerationFailed)
    until(lambda: engine.state.restarts == 1)
    assert inbox.wait(engine.submit(asking("abc"), inbox)) == said("abc")


def test_restarts_are_tried_ever_less_often(
    engine_of: Any, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RESTART_S", (0.02, 0.08))
    runner = ScriptedRunner(Behaviour(die="die"), failing=["1", "2", "3", "4"])
    tried: list[float] = []
    restart = runner.restart
    monkeypatch.setattr(runner, "restart", lambda: (tried.append(time.monotonic()), restart()))
    engine = engine_of(runner)
    began = time.monotonic()
    engine.submit(asking("die"), inbox)
    until(lambda: engine.state.restarts == 1)
    gaps = [later - sooner for sooner, later in zip([began, *tried], tried, strict=False)]
    assert all(
        gap >= least for gap, least in zip(gaps, [0.02, 0.04, 0.08, 0.08, 0.08], strict=True)
    )


# --- the thread -----------------------------------------------------------------------------------


def test_one_late_thread_alone_calls_the_runner(engine_of: Any, inbox: Inbox) -> None:
    """Before the first job there is no thread, so that a server may fork."""
    before = threading.active_count()
    runner = ScriptedRunner()
    engine = engine_of(runner)
    assert threading.active_count() == before
    for _ in range(3):
        inbox.wait(engine.submit(asking("ab"), inbox))
    assert len(runner.threads - {threading.get_ident()}) == len(runner.threads) == 1


def test_an_idle_engine_takes_no_steps(engine_of: Any, inbox: Inbox) -> None:
    engine = engine_of()
    inbox.wait(engine.submit(asking("ab"), inbox))
    until(lambda: engine.load == (0, 0))
    steps = engine.state.steps
    time.sleep(0.1)
    assert engine.state.steps == steps == 3
    assert engine.state.tokens == 2


def test_close_ends_every_job_and_refuses_new_ones(engine_of: Any, inbox: Inbox) -> None:
    runner, gate = gated(slots=1)
    engine = engine_of(runner)
    jobs = [engine.submit(asking(text), inbox) for text in ("abc", "d")]
    closer = threading.Thread(target=engine.close)
    closer.start()
    until(lambda: engine._closed)
    gate.release(1)
    closer.join(PATIENCE_S)
    assert all(isinstance(inbox.error(job), EngineClosed) for job in jobs)
    with pytest.raises(EngineClosed):
        engine.submit(asking("e"), inbox)
    assert runner.closed == 1


def test_close_while_the_runner_is_lost_does_not_wait_for_it(engine_of: Any, inbox: Inbox) -> None:
    runner = ScriptedRunner(Behaviour(die="die"), failing=["still"] * 9)
    engine = engine_of(runner)
    engine.submit(asking("die"), inbox)
    until(lambda: engine.state.lost is not None)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 0.4
    assert runner.closed == 1


def test_an_engine_that_never_ran_closes_its_runner() -> None:
    runner = ScriptedRunner()
    TextEngine(runner, decode).close()
    assert runner.closed == 1


# --- all of it together ---------------------------------------------------------------------------

TEXTS = st.text("abcdefgh", min_size=1, max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), TEXTS, st.integers(1, 14)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("steps"), st.integers(1, 6)),
        st.tuples(st.just("later"), st.floats(0.1, 4.0)),
        st.tuples(st.just("lose")),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    todo=STEPS,
    slots=st.integers(1, 4),
    blocks=st.one_of(st.none(), st.integers(4, 12)),
    max_queue=st.integers(0, 6),
)
def test_whatever_happens_every_job_ends_once_and_in_order(
    todo: list[tuple[Any, ...]], slots: int, blocks: int | None, max_queue: int
) -> None:
    """The runner itself asserts that blocks and slots are never over-reserved."""
    runner, gate = gated(slots=slots, blocks=blocks, block_tokens=3, context=40)
    now = [0.0]
    engine = TextEngine(
        runner, decode, max_queue=max_queue, max_queue_wait_s=6.0, clock=lambda: now[0]
    )
    engine._backoff_s = 0.001
    inbox = Inbox()
    jobs: list[Job] = []
    cancelled: set[Job] = set()
    for what, *how in todo:
        if what == "submit":
            try:
                jobs.append(engine.submit(asking(how[0], max_tokens=how[1]), inbox))
            except (LocalBusy, ModelUnavailable, ContextOverflow):
                pass
        elif what == "cancel" and how[0] < len(jobs):
            jobs[how[0]].cancel()
            cancelled.add(jobs[how[0]])
        elif what == "steps":
            gate.release(how[0])
        elif what == "later":
            now[0] += how[0]
        elif what == "lose":
            runner.behaviour.die = ""  # the next sequence to come to its third token loses it
    gate.release(100_000)
    for job in jobs:
        if job not in cancelled:
            inbox.wait(job)
    until(lambda: engine.load == (0, 0))
    assert engine.state.free_blocks == blocks
    assert not runner.live
    engine.close()
    for job in jobs:
        _check(inbox.of(job), decode(job.request.prompt), job)


def _check(events: list[Event], text: str, job: Job) -> None:
    ends = [event for event in events if not isinstance(event, Token)]
    assert len(ends) <= 1
    assert events[-1:] == ends[-1:] or not ends
    made = "".join(event.text for event in events if isinstance(event, Token))
    assert text.startswith(made)
    if ends and isinstance(ends[0], Finished):
        assert len(made) == min(len(text), job.most)


@given(
    st.lists(st.integers(1, 5), max_size=8),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(5, 9)),
)
def test_what_is_taken_can_be_given_back(sizes: list[int], slots: int, blocks: int | None) -> None:
    ledger = Ledger(Capacity(slots, 100, blocks, 1))
    held = []
    for size in sizes:
        need = ledger.blocks_for(size)
        if ledger.fits(need):
            ledger.take(need)
            held.append(need)
        assert ledger.running <= slots
        assert blocks is None or 0 <= blocks - ledger.reserved == ledger.free_blocks
    for need in held:
        ledger.give(need)
    assert (ledger.running, ledger.reserved) == (0, 0)


def test_the_expected_wait_is_that_of_the_places_and_blocks_in_turn() -> None:
    ledger = Ledger(Capacity(2, 100, 10, 1))
    ledger.take(4), ledger.take(4)
    running = [Claim(3.0, 4), Claim(5.0, 4)]
    assert wait_s(ledger, running, [Claim(1.0, 2)]) == 3.0  # the first place
    assert wait_s(ledger, running, [Claim(1.0, 8)]) == 5.0  # blocks of both
    assert wait_s(ledger, running, [Claim(1.0, 2), Claim(9.0, 2)]) == 4.0  # the first of the queue
    assert wait_s(Ledger(Capacity(1, 9)), [], [Claim(1.0, 0)]) == 0.0


def test_without_experience_nobody_is_expected_to_wait() -> None:
    pace = Pace()
    assert pace.left_s(0, 50) == 0.0
    pace.ended(10, 5.0)
    assert (pace.left_s(0, 50), pace.left_s(8, 50), pace.left_s(0, 4)) == (5.0, 1.25, 2.0)
