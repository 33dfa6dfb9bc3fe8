"""``X-AI-Failover-Policy: none`` means one attempt, whatever phase it fails in."""

from typing import Any

import pytest
from wire import STREAM_HEAD, Wire, WireUpstream, frame


def refuses(wire: Wire) -> None:
    wire.document(b'{"error":{"message":"x"}}', b"503 Service Unavailable")


def hangs_up(wire: Wire) -> None:
    wire.reset()


def stops_before_content(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(frame({"role": "assistant", "content": ""}))


def stops_in_mid_stream(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(frame({"content": "one "}), frame({"content": "two "}))


def fails_in_mid_stream(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(frame({"content": "one "}))
    wire.chunk(b'data: {"error":{"message":"x"}}\n\n')
    wire.end()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script", [refuses, hangs_up, stops_before_content, stops_in_mid_stream, fails_in_mid_stream]
)
def test_one_attempt_in_every_phase(
    mount: Any, duo: Any, best: Any, fakes: Any, script: Any, stream: bool
) -> None:
    with WireUpstream(script) as upstream:
        served = mount(duo(url_a=upstream.url))
        got = served.chat({**best, "X-AI-Failover-Policy": "none"}, stream=stream)
        record = served.record(got)
        assert len(upstream.seen) == 1
    assert fakes.called() == {}
    assert len(record["attempts"]) == 1
    assert record["outcome"] == "failed"
    assert got.status != 200 or got.events[-1]["error"]["code"] == "stream_interrupted"
