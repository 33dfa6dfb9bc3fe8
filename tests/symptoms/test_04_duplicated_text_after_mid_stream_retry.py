"""Whatever breaks and whenever, the text a client puts together has no part of it twice."""

import time
from typing import Any

import pytest
from wire import DONE, STREAM_HEAD, Wire, WireUpstream, frame

WORDS = ["alpha ", "beta ", "gamma ", "delta "]


@pytest.mark.parametrize("policy", ["automatic", "cascading"])
@pytest.mark.parametrize("after", range(len(WORDS) + 1))
def test_the_transcript_repeats_nothing(
    mount: Any, duo: Any, best: Any, fakes: Any, after: int, policy: str
) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "content": ""}))
        for word in WORDS[:after]:
            wire.chunk(frame({"content": word}))
            time.sleep(0.02)  # what comes in one read with the failure was never shown
        if after == len(WORDS):
            wire.chunk(frame({}, "stop"), DONE)
            wire.end()

    fakes.b.script.chunks = WORDS
    with WireUpstream(script) as upstream:
        served = mount(duo(url_a=upstream.url))
        got = served.chat({**best, "X-AI-Failover-Policy": policy}, stream=True)
    said = "".join(
        choice["delta"].get("content") or ""
        for event in got.events
        if event != "[DONE]"
        for choice in event.get("choices", ())
    )
    assert "".join(WORDS).startswith(said)
    assert all(said.count(word) <= 1 for word in WORDS)
    # All of it came from one provider, and only a whole answer ends well.
    assert (got.provider, "[DONE]" in got.events) == {
        0: ("b", True),
        len(WORDS): ("a", True),
    }.get(after, ("a", False))
