"""A stream breaks after content. No other model is asked to go on from a prefill it may forbid:
the client learns the first cause, not somebody else's 400."""

import time
from typing import Any

from wire import STREAM_HEAD, Wire, WireUpstream, frame


def test_nobody_is_asked_to_continue_and_the_cause_is_told(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"content": "Half of"}))
        time.sleep(0.05)  # what comes in one read with the failure was never shown
        wire.chunk(b'data: {"error":{"message":"SECRET","type":"overloaded_error"}}\n\n')
        wire.end()

    with WireUpstream(script) as upstream:
        served = mount(duo(url_a=upstream.url))
        got = served.chat({**best, "X-AI-Failover-Policy": "cascading"}, stream=True)
        record = served.record(got)
        assert len(upstream.seen) == 1
    assert fakes.called() == {}
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert [row["error"] for row in record["attempts"]] == ["overloaded"]
    assert b"SECRET" not in got.body


def test_a_fallback_before_content_gets_the_clients_turns_and_no_more(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "content": ""}))

    with WireUpstream(script) as upstream:
        got = mount(duo(url_a=upstream.url)).chat(best, stream=True)
    assert got.provider == "b"
    (seen,) = fakes.b.seen
    assert [message["role"] for message in seen.body["messages"]] == ["user"]
