"""Clients that leave: the provider is let go, the record says so, and nothing stays behind."""

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mounts import HELLO
from tap import Tap
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

HEADERS = {"X-AI-Provider-Pool": "a"}
STOP = frame({}, "stop")


def config(fakes: Any, upstream: WireUpstream, **routing: Any) -> dict[str, Any]:
    made: dict[str, Any] = fakes.config({"a": ["m"]}, routing=routing)
    made["providers"]["a"]["endpoint"] = upstream.url
    return made


def asked(stream: bool = True) -> dict[str, Any]:
    return {"model": "auto", "messages": HELLO, "stream": stream}


def until(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def last_record(mount: Any) -> dict[str, Any]:
    rows = mount.gateway.decisions._rows
    record: dict[str, Any] = rows[next(reversed(rows))].record()
    return record


def aborted(mount: Any) -> None:
    assert until(lambda: bool(mount.gateway.decisions._rows))
    record = last_record(mount)
    assert record["outcome"] == "aborted"
    (attempt,) = record["attempts"]
    assert (attempt["outcome"], attempt["error"]) == ("aborted", "client_disconnected")


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
@pytest.mark.parametrize("phase", ["document", "head", "first token", "mid-stream"])
def test_the_provider_is_let_go_within_100_ms(mount: Any, fakes: Any, phase: str) -> None:
    """XAI-STREAM-012, whatever the request was waiting for."""

    def script(wire: Wire) -> None:
        if phase in ("first token", "mid-stream"):
            wire.send(STREAM_HEAD)
            wire.chunk(frame({"role": "assistant"}))
        if phase == "mid-stream":
            wire.chunk(frame({"content": "word"}))
        wire.hold()

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        with Tap(served.port, asked(phase != "document"), HEADERS) as tap:
            assert until(lambda: len(upstream.seen) == 1)
            if phase == "mid-stream":
                tap.wait_for(b"word")
            time.sleep(0.08)  # past the time in which a request is not watched
            left = time.monotonic()
            tap.leave()
            assert upstream.wait_for_hangups(1)
        assert upstream.hangups[0] - left < 0.1
        aborted(served)


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
def test_a_client_that_leaves_at_once_is_noticed_too(mount: Any, fakes: Any) -> None:
    """Before the watch begins: then as soon as it does."""
    with WireUpstream(lambda wire: wire.hold()) as upstream:
        served = mount(config(fakes, upstream))
        with Tap(served.port, asked(), HEADERS):
            assert until(lambda: len(upstream.seen) == 1)
        left = time.monotonic()
        assert upstream.wait_for_hangups(1)
        assert upstream.hangups[0] - left < 0.15
        aborted(served)


def test_a_client_that_leaves_mid_stream_is_noticed_at_the_next_writes(
    mount: Any, fakes: Any
) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for _ in range(200):
            try:
                wire.chunk(frame({"content": "word "}))
            except OSError:
                break
            time.sleep(0.02)
        wire.hold(0.5)

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        with Tap(served.port, asked(), HEADERS) as tap:
            tap.wait_for(b"word")
            left = time.monotonic()
        assert upstream.wait_for_hangups(1)
        assert upstream.hangups[0] - left < 0.5
        aborted(served)
        record = last_record(served)
        assert record["usage"]["estimated"] is True


def test_keep_alives_notice_a_silent_streams_client(mount: Any, fakes: Any) -> None:
    """On WSGI a write is the only way to know; comments are written while nothing else is."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "word"}))
        wire.hold()

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream, stream_keepalive="50ms"))
        with Tap(served.port, asked(), HEADERS) as tap:
            tap.wait_for(b"word")
            left = time.monotonic()
        assert upstream.wait_for_hangups(1)
        assert upstream.hangups[0] - left < 0.5
        aborted(served)


def test_a_client_that_leaves_after_the_end_was_served(mount: Any, fakes: Any) -> None:
    """The provider dawdles after [DONE]; the client has everything and goes."""

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "all"}), STOP, DONE)
        wire.hold(0.5)

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        with Tap(served.port, asked(), HEADERS) as tap:
            tap.wait_for(b"[DONE]")
        assert until(lambda: bool(served.gateway.decisions._rows))
        assert last_record(served)["outcome"] == "ok"
        assert last_record(served)["attempts"][0]["outcome"] == "ok"


def test_an_abort_is_not_held_against_the_provider(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for _ in range(50):
            wire.chunk(frame({"content": "word "}))
            time.sleep(0.01)

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        for _ in range(12):
            with Tap(served.port, asked(), HEADERS) as tap:
                tap.wait_for(b"word")
        assert until(lambda: len(served.gateway.decisions._rows) == 12)
        (model,) = served.gateway.registry.by_name["m"]
        assert model.track.error_rate(time.monotonic()) == 0.0
        assert model.track.in_flight == 0
        assert not model.track.cooling(time.monotonic())


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_stays_open_after_fifty_aborts(mount: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for _ in range(100):
            wire.chunk(frame({"content": "word "}))
            time.sleep(0.01)

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        served.chat(HEADERS)  # what is opened once is open now
        before = _open_files()
        threads = threading.active_count()
        for _ in range(50):
            with Tap(served.port, asked(), HEADERS) as tap:
                tap.wait_for(b"word")
        assert until(lambda: _open_files() <= before + 2), (before, _open_files())
        assert until(lambda: threading.active_count() <= threads + 2)


def test_streams_that_stay_are_whole_while_others_leave(mount: Any, fakes: Any) -> None:
    """32 at once, half of them leaving at a random moment."""
    words = [f"w{n} " for n in range(20)]

    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for word in words:
            wire.chunk(frame({"content": word}))
            time.sleep(0.01)
        wire.chunk(STOP, DONE)
        wire.end()

    def client(number: int, chance: random.Random) -> bytes | None:
        with Tap(served.port, asked(), HEADERS) as tap:
            if number % 2:
                tap.wait_for(words[chance.randrange(10)].encode())
                return None
            return tap.rest()

    with WireUpstream(script) as upstream:
        served = mount(config(fakes, upstream))
        with ThreadPoolExecutor(32) as pool:
            numbers = range(32)
            results = list(pool.map(client, numbers, map(random.Random, numbers)))
        whole = [got for got in results if got is not None]
        assert len(whole) == 16
        for got in whole:
            assert all(word.encode() in got for word in words)
            assert got.count(b"[DONE]") == 1
            # the headers may tell of a kept connection that was gone and asked again
            assert b"error" not in got.partition(b"\r\n\r\n")[2]
        assert until(lambda: len(served.gateway.decisions._rows) == 32)
        outcomes = [row.outcome for row in served.gateway.decisions._rows.values()]
        assert outcomes.count("ok") == 16
        assert outcomes.count("aborted") == 16
        (model,) = served.gateway.registry.by_name["m"]
        assert model.track.in_flight == 0
