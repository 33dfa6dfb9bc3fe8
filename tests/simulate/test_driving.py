"""The virtual driver keeps to what the effects promise, as the two mounts do."""

from collections.abc import Generator
from random import Random
from typing import Any

import pytest

from aiproxy.middleware.config import load_config
from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Consult,
    Ending,
    Failure,
    Fork,
    Read,
    Told,
    Wait,
)
from aiproxy.middleware.registry import build
from aiproxy.reference_server.simulate.clock import Clock, Stuck
from aiproxy.reference_server.simulate.driving import Course
from aiproxy.reference_server.simulate.scripts import Script, Trouble, Window
from aiproxy.reference_server.simulate.spreads import fixed
from aiproxy.reference_server.simulate.world import Client, World

Flow = Generator[Any, Any, Any]


def world(**scripts: Script) -> World:
    entry = {"type": "openai_compatible", "endpoint": "https://x.example/v1"}
    entries = {name: {**entry, "models": [{"name": "m"}]} for name in scripts}
    registry = build(load_config({"providers": entries}), wrapped_app=False)
    return World(Clock(), registry, scripts, Random(1), lambda: 1_767_603_600.0)


def call(provider: str = "a", *, stream: bool = False, **limits: float) -> Call:
    body = (
        b'{"model":"m","messages":[],"stream":true}' if stream else b'{"model":"m","messages":[]}'
    )
    target = "https://x.example/v1/chat/completions"
    return Call("http", provider, target, (), body, stream=stream, **limits)


def run(on: World, flow: Flow) -> Ending:
    over: list[Course] = []
    course = Course(on, flow, Client(), over.append)
    on.clock.at(0.0, course.begin)
    on.clock.run(10_000.0, 100_000)
    assert over == [course], "a course ends exactly once"
    return course.ending


def test_a_call_takes_its_time_and_a_wait_takes_its_own() -> None:
    on = world(a=Script(latency=fixed(0.25)))

    def flow() -> Flow:
        answer = yield call()
        at = on.clock.now
        assert (yield Wait(1.5)) is None
        return answer.status, at, on.clock.now

    assert run(on, flow()).value == (200, 0.25, 1.75)
    assert on.busy == {"a": 0}


@pytest.mark.parametrize(
    ("limits", "kind", "at"),
    [
        ({"first_byte_s": 2.0, "total_s": 5.0}, "first_byte_timeout", 2.0),
        ({"first_byte_s": 5.0, "total_s": 3.0}, "total_timeout", 3.0),
    ],
)
def test_limits_of_a_call_end_it(limits: dict[str, float], kind: str, at: float) -> None:
    on = world(a=Script(latency=fixed(60.0)))

    def flow() -> Flow:
        outcome = yield call(**limits)
        return outcome.kind, on.clock.now

    assert run(on, flow()).value == (kind, at)
    assert on.busy == {"a": 0}, "a call that was given up occupies nobody"


def streaming(**more: Any) -> Script:
    return Script(first_token=fixed(0.5), per_token=fixed(0.1), output_tokens=fixed(10), **more)


def test_reads_come_when_tokens_do_and_soft_reads_leave_the_stream_open() -> None:
    on = world(a=streaming())

    def flow() -> Flow:
        answer = yield call(stream=True)
        assert isinstance(answer, Answer)
        assert answer.stream is not None
        assert on.clock.now == 0.5
        first = yield Read(answer.stream, 5.0)
        assert first.startswith(b"data: ")
        assert on.clock.now == 0.5
        assert (yield Read(answer.stream, 0.01, soft=True)) is None
        assert on.clock.now == pytest.approx(0.51)
        seen = [first]
        while data := (yield Read(answer.stream, 5.0)):
            seen.append(data)
        return b"".join(seen), on.clock.now

    body, ended = run(on, flow()).value
    assert body.endswith(b"data: [DONE]\n\n")
    assert ended == pytest.approx(1.5)
    assert on.busy == {"a": 0}


def test_a_silent_stream_times_out_and_a_cut_one_resets() -> None:
    troubles = {"stall": "idle_timeout", "cut": "reset"}
    for fault, kind in troubles.items():
        on = world(a=streaming(troubles=(Trouble(Window(), fault=fault),)))

        def flow() -> Flow:
            answer = yield call(stream=True)
            while True:
                data = yield Read(answer.stream, 2.0)
                if isinstance(data, Failure):
                    yield Close(answer.stream)
                    return data.kind

        assert run(on, flow()).value == kind
        assert on.busy == {"a": 0}


def test_a_fork_stops_the_losers_and_frees_what_they_held() -> None:
    on = world(a=Script(latency=fixed(0.2)), b=Script(latency=fixed(9.0)))
    closed: list[str] = []

    def branch(name: str) -> Flow:
        try:
            answer = yield call(name)
            return answer.status
        finally:
            closed.append(name)

    def flow() -> Flow:
        endings = yield Fork(
            [branch("b"), branch("a")], lambda found: any(e.state == "done" for e in found)
        )
        return [ending.state for ending in endings], on.clock.now

    assert run(on, flow()).value == (["stopped", "done"], 0.2)
    assert closed == ["a", "b"]
    assert on.busy == {"a": 0, "b": 0}


def test_a_fork_waits_for_all_when_nobody_says_enough_and_tells_what_was_raised() -> None:
    on = world(a=Script(latency=fixed(0.2)))

    def good() -> Flow:
        yield Wait(3.0)
        return "late"

    def bad() -> Flow:
        yield call()
        raise LookupError("no")

    def flow() -> Flow:
        endings = yield Fork([good(), bad()])
        return [(ending.state, ending.value) for ending in endings], on.clock.now

    assert run(on, flow()).value == ([("done", "late"), ("raised", None)], 3.0)


def test_a_stream_a_branch_leaves_open_belongs_to_whoever_forked() -> None:
    on = world(a=streaming())

    def branch() -> Flow:
        answer = yield call(stream=True)
        return answer.stream

    def flow() -> Flow:
        (ending,) = yield Fork([branch()])
        data = yield Read(ending.value, 1.0)
        assert on.busy == {"a": 1}
        return data[:5]

    assert run(on, flow()).value == b"data:"
    assert on.busy == {"a": 0}, "what is still open is closed at the end"


def test_a_consultation_is_answered_at_once_and_a_lost_store_is_a_failure() -> None:
    on = world(a=Script())

    def lost() -> Any:
        raise ConnectionRefusedError

    def flow() -> Flow:
        told = yield Consult(lambda: 7)
        failure = yield Consult(lost)
        return told, failure.kind

    assert run(on, flow()).value == (Told(7), "store_unavailable")


def test_stopping_a_course_gives_everything_up() -> None:
    on = world(a=Script(latency=fixed(5.0)), b=streaming())
    seen: list[str] = []

    def branch() -> Flow:
        try:
            yield call("a")
        finally:
            seen.append("branch")

    def flow() -> Flow:
        try:
            answer = yield call("b", stream=True)
            assert answer.stream
            yield Fork([branch()])
        except GeneratorExit:
            seen.append("left")
            raise

    over: list[Course] = []
    course = Course(on, flow(), Client(), over.append)
    on.clock.at(0.0, course.begin)
    on.clock.run(1.0, 1000)
    assert on.busy == {"a": 1, "b": 1}
    course.stop()
    course.stop()
    on.clock.run(100.0, 1000)
    assert over == [course]
    assert course.ending.state == "stopped"
    assert seen == ["branch", "left"]
    assert on.busy == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    ("full", "expected"), [("queue", [200, 200, 200]), ("reject", [200, 429, 429])]
)
def test_a_full_provider_queues_or_turns_away(full: str, expected: list[int]) -> None:
    on = world(a=Script(latency=fixed(1.0), max_in_flight=1, when_full=full))
    ends: list[tuple[int, float]] = []

    def one() -> Flow:
        answer = yield call()
        ends.append((answer.status, on.clock.now))

    def flow() -> Flow:
        yield Fork([one(), one(), one()])

    run(on, flow())
    assert sorted(status for status, _ in ends) == expected
    assert on.most_busy == {"a": 1}
    if full == "queue":
        assert [at for _, at in ends] == [1.0, 2.0, 3.0]


def test_a_call_in_the_queue_can_be_given_up() -> None:
    on = world(a=Script(latency=fixed(1.0), max_in_flight=1))

    def one() -> Flow:
        answer = yield call(total_s=1.5)
        return getattr(answer, "status", None), on.clock.now

    def flow() -> Flow:
        endings = yield Fork([one(), one(), one()])
        return [ending.value for ending in endings]

    assert run(on, flow()).value == [(200, 1.0), (None, 1.5), (None, 1.5)]
    assert on.busy == {"a": 0}


def test_a_clock_that_is_asked_for_ever_says_so() -> None:
    clock = Clock()

    def again(_: Any) -> None:
        clock.at(clock.now, again)

    clock.at(0.0, again)
    with pytest.raises(Stuck, match="more than 100 steps"):
        clock.run(1.0, 100)
