"""The client leaves: the provider is let go, and exactly one record says so."""

import time
from typing import Any

import pytest
from mounts import HELLO
from tap import Tap
from wire import STREAM_HEAD, Wire, WireUpstream, frame


@pytest.mark.parametrize("phase", ["document", "first token", "mid-stream"])
@pytest.mark.parametrize("server", ["asgi"], indirect=True)
def test_within_a_tenth_of_a_second(
    mount: Any, duo: Any, best: Any, fakes: Any, phase: str
) -> None:
    """On WSGI only a write can tell that nobody listens; see the next test."""

    def script(wire: Wire) -> None:
        if phase != "document":
            wire.send(STREAM_HEAD)
            wire.chunk(frame({"role": "assistant"}))
        if phase == "mid-stream":
            wire.chunk(frame({"content": "word"}))
        wire.hold()

    with WireUpstream(script) as upstream:
        served = mount(duo(url_a=upstream.url))
        asked = {"model": "auto", "messages": HELLO, "stream": phase != "document"}
        with Tap(served.port, asked, best) as tap:
            wait(lambda: len(upstream.seen) == 1)
            if phase == "mid-stream":
                tap.wait_for(b"word")
            time.sleep(0.08)
            left = time.monotonic()
        assert upstream.wait_for_hangups(1)
        assert upstream.hangups[0] - left < 0.1
    one_aborted_record(served)
    assert fakes.called() == {}, "an abandoned request was tried elsewhere"


@pytest.mark.parametrize("server", ["wsgi"], indirect=True)
def test_at_the_next_write(mount: Any, duo: Any, best: Any, fakes: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        for _ in range(200):
            wire.chunk(frame({"content": "word "}))
            time.sleep(0.02)

    with WireUpstream(script) as upstream:
        served = mount(duo(url_a=upstream.url))
        asked = {"model": "auto", "messages": HELLO, "stream": True}
        with Tap(served.port, asked, best) as tap:
            tap.wait_for(b"word")
        one_aborted_record(served)
    assert fakes.called() == {}


def one_aborted_record(served: Any) -> None:
    rows = served.gateway.decisions._rows
    wait(lambda: bool(rows))
    (row,) = rows.values()
    record = row.record()
    assert record["outcome"] == "aborted"
    (attempt,) = record["attempts"]
    assert (attempt["outcome"], attempt["error"]) == ("aborted", "client_disconnected")


def wait(condition: Any, seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
