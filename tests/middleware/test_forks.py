"""Branches that run side by side, performed by both mounts over real sockets."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from mounts import HELLO
from tap import Tap
from wire import STREAM_HEAD, Wire, WireUpstream, frame

from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Consult,
    Ending,
    Failure,
    Fork,
    Read,
    Reply,
    Told,
    Wait,
)

JSON = (("content-type", "application/json"),)
Flow = Generator[Any, Any, Any]


def call(upstream: WireUpstream, *, stream: bool = False) -> Call:
    return Call("http", "p", f"{upstream.url}/x", JSON, b"{}", stream=stream, total_s=10)


def reply(*words: object) -> Reply:
    return Reply(200, (("x-request-id", "r"),), " ".join(map(str, words)).encode())


def first(endings: Sequence[Ending]) -> bool:
    return any(ending.state == "done" for ending in endings)


@pytest.fixture
def ask(mount: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``ask(flow)`` serves a request by the steps of ``flow`` and returns what the client got."""
    served = mount(fakes.config({"a": ["m"]}))

    def run(flow: Callable[[], Flow]) -> str:
        monkeypatch.setattr("aiproxy.middleware.exchange.attempt_all", lambda *_: flow())
        got = served.chat({"X-AI-Provider-Pool": "a"})
        assert got.status == 200, got.body
        return bytes(got.body).decode()

    return run


def asking(upstream: WireUpstream, name: str) -> Flow:
    answer = yield call(upstream)
    if isinstance(answer, Failure):
        return f"{name} {answer.kind}"
    return f"{name} {answer.status}"


def waiting(seconds: float, value: str, ends: list[str] | None = None) -> Flow:
    try:
        yield Wait(seconds)
    finally:
        if ends is not None:
            ends.append(value)
    return value


def test_all_branches_run_at_the_same_time(ask: Any) -> None:
    def flow() -> Flow:
        endings = yield Fork([waiting(0.2, "a"), waiting(0.2, "b"), waiting(0.1, "c")])
        return reply(*(f"{e.state}:{e.value}" for e in endings))

    began = time.monotonic()
    assert ask(flow) == "done:a done:b done:c"
    assert time.monotonic() - began < 0.35


@pytest.mark.parametrize("place", [0, 1])
def test_the_connection_of_a_loser_is_closed_within_100_ms(ask: Any, place: int) -> None:
    """Whoever comes first, the other one's provider is let go (XAI-STREAM-012)."""
    won: list[float] = []

    def wins(wire: Wire) -> None:
        time.sleep(0.1)
        wire.document(b"{}")
        won.append(time.monotonic())

    with WireUpstream(wins) as quick, WireUpstream(lambda wire: wire.hold()) as slow:

        def flow() -> Flow:
            branches = [asking(slow, "slow")]
            branches.insert(place, asking(quick, "quick"))
            endings = yield Fork(branches, first)
            assert slow.wait_for_hangups(1)
            return reply(endings[place].value, endings[1 - place].state)

        assert ask(flow) == "quick 200 stopped"
        assert slow.hangups[0] - won[0] < 0.1


def test_a_loser_that_streams_is_closed_too(ask: Any) -> None:
    def streams(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant"}))
        wire.hold()

    def reading(upstream: WireUpstream) -> Flow:
        answer = yield call(upstream, stream=True)
        while True:
            yield Read(answer.stream, 5.0)

    with WireUpstream(streams) as slow:

        def flow() -> Flow:
            endings = yield Fork([reading(slow), waiting(0.2, "timer")], first)
            began = time.monotonic()
            assert slow.wait_for_hangups(1)
            assert slow.hangups[0] - began < 0.1
            return reply(endings[0].state, endings[1].value)

        assert ask(flow) == "stopped timer"


def test_a_stream_that_a_branch_opened_lives_on(ask: Any) -> None:
    """Its connection is closed when the request is over and not before."""
    go = threading.Event()

    def streams(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(b"one")
        assert go.wait(5)
        wire.chunk(b"two")
        wire.hold()

    def opening(upstream: WireUpstream) -> Flow:
        answer = yield call(upstream, stream=True)
        return answer, (yield Read(answer.stream, 5.0))

    with WireUpstream(streams) as upstream:

        def flow() -> Flow:
            endings = yield Fork([opening(upstream), waiting(5, "late")], first)
            answer, one = endings[0].value
            assert isinstance(answer, Answer)
            go.set()
            two = yield Read(answer.stream, 5.0)
            assert upstream.hangups == []
            return reply(one, two)

        assert ask(flow) == "b'one' b'two'"
        assert upstream.wait_for_hangups(1)


def test_a_stream_of_a_branch_that_closes_it_is_closed_once(ask: Any) -> None:
    def streams(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(b"one")
        wire.hold()

    def opening(upstream: WireUpstream) -> Flow:
        answer = yield call(upstream, stream=True)
        yield Close(answer.stream)
        yield Wait(0.05)
        return len(upstream.hangups)

    with WireUpstream(streams) as upstream:

        def flow() -> Flow:
            endings = yield Fork([opening(upstream)])
            return reply(endings[0].value)

        assert ask(flow) == "1"


def test_what_a_branch_raises_is_its_own_affair(ask: Any) -> None:
    def raising() -> Flow:
        yield Wait(0.01)
        raise LookupError("of mine")

    def flow() -> Flow:
        one, two = yield Fork([raising(), waiting(0.05, "fine")])
        return reply(one.state, repr(one.fault), two.state, two.value)

    assert ask(flow) == "raised LookupError('of mine') done fine"


def test_a_stream_of_a_branch_that_raises_is_closed(ask: Any) -> None:
    def streams(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(b"one")
        wire.hold()

    def raising(upstream: WireUpstream) -> Flow:
        yield call(upstream, stream=True)
        raise LookupError

    with WireUpstream(streams) as upstream:

        def flow() -> Flow:
            (ending,) = yield Fork([raising(upstream)])
            assert upstream.wait_for_hangups(1)
            return reply(ending.state)

        assert ask(flow) == "raised"


def test_branches_that_end_at_once(ask: Any) -> None:
    def at_once(value: str) -> Flow:
        return value
        yield

    def flow() -> Flow:
        endings = yield Fork([at_once("a"), at_once("b")])
        none = yield Fork([])
        return reply(*(e.value for e in endings), none)

    assert ask(flow) == "a b []"


def test_a_branch_may_fork_in_turn(ask: Any) -> None:
    """What is not needed any more ends with everything below it, and asks nobody else."""
    over: list[str] = []

    def inner(upstream: WireUpstream) -> Flow:
        endings = yield Fork([twice(upstream), waiting(30, "inner", over)])
        return endings

    def twice(upstream: WireUpstream) -> Flow:
        try:
            for _ in range(2):
                yield call(upstream)
        finally:
            over.append("twice")

    with WireUpstream(lambda wire: wire.hold()) as held:

        def flow() -> Flow:
            endings = yield Fork([inner(held), waiting(0.2, "outer")], first)
            began = time.monotonic()
            assert held.wait_for_hangups(1)
            assert held.hangups[0] - began < 0.1
            return reply(*(e.state for e in endings))

        assert ask(flow) == "stopped done"
        deadline = time.monotonic() + 2
        while len(over) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(over) == ["inner", "twice"]
        assert len(held.seen) == 1


def test_no_two_branches_are_inside_their_own_code_at_once(ask: Any) -> None:
    """Branches of a branch included."""
    inside = threading.Lock()
    clashes: list[int] = []

    def counting(steps: int) -> Flow:
        for _ in range(steps):
            if not inside.acquire(blocking=False):
                clashes.append(1)
            else:
                time.sleep(0.0005)
                inside.release()
            yield Wait(0)

    def nested() -> Flow:
        yield Fork([counting(40), counting(40)])

    def flow() -> Flow:
        yield Fork([counting(40), counting(40), nested()])
        return reply(len(clashes))

    assert ask(flow) == "0"


def test_a_question_to_a_store(ask: Any) -> None:
    """``Consult``, also inside a branch; only ``OSError`` is an outcome."""

    def refusing() -> Any:
        raise ConnectionRefusedError

    def consulting(question: Callable[[], Any]) -> Flow:
        return (yield Consult(question))

    def flow() -> Flow:
        told = yield Consult(lambda: 41)
        endings = yield Fork([consulting(lambda: 42), consulting(refusing)])
        assert isinstance(told, Told)
        assert isinstance(endings[1].value, Failure)
        return reply(told.value, endings[0].value.value, endings[1].value.kind)

    assert ask(flow) == "41 42 store_unavailable"


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
def test_a_client_that_leaves_closes_all_branches(
    mount: Any, fakes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XAI-STREAM-012. Under WSGI a client that leaves is noticed at a write, and branches have
    none."""
    over: list[str] = []

    def streaming(upstream: WireUpstream) -> Flow:
        answer = yield call(upstream, stream=True)
        while True:
            yield Read(answer.stream, 5.0)

    def streams(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant"}))
        wire.hold()

    with (
        WireUpstream(lambda wire: wire.hold()) as one,
        WireUpstream(streams) as two,
        WireUpstream(lambda wire: wire.hold()) as three,
    ):

        def nested() -> Flow:
            yield Fork([asking(three, "three"), waiting(20, "wait", over)])

        def flow() -> Flow:
            yield Fork([asking(one, "one"), streaming(two), nested()])
            return reply("never")

        monkeypatch.setattr("aiproxy.middleware.exchange.attempt_all", lambda *_: flow())
        served = mount(fakes.config({"a": ["m"]}))
        body = {"model": "auto", "messages": HELLO}
        with Tap(served.port, body, {"X-AI-Provider-Pool": "a"}) as tap:
            deadline = time.monotonic() + 3
            while not (one.seen and two.seen and three.seen) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(0.08)
            left = time.monotonic()
            tap.leave()
            for upstream in (one, two, three):
                assert upstream.wait_for_hangups(1)
                assert upstream.hangups[0] - left < 0.1
        assert over == ["wait"]
