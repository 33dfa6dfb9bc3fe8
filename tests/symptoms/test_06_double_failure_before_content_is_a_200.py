"""Both providers open a stream and break it before any content: the client gets a status and an
error object, no 200 with start frames."""

from typing import Any

import pytest
from mounts import HELLO, RESPONSES
from wire import STREAM_HEAD, Wire, WireUpstream, frame


def starts_only(wire: Wire) -> None:
    wire.send(STREAM_HEAD)
    wire.chunk(frame({"role": "assistant", "content": ""}))


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        (RESPONSES, {"input": "Hello"}),
        (RESPONSES, {"messages": HELLO}),
    ],
)
def test_nothing_is_sent_before_there_is_something(
    mount: Any, duo: Any, best: Any, path: str, asked: dict[str, Any]
) -> None:
    with WireUpstream(starts_only) as one, WireUpstream(starts_only) as other:
        config = duo(url_a=one.url)
        config["providers"]["b"]["endpoint"] = other.url
        served = mount(config)
        got = served.post(path, {"model": "auto", "stream": True, **asked}, best)
        assert (len(one.seen), len(other.seen)) == (1, 1)
        assert [row["outcome"] for row in served.record(got)["attempts"]] == ["failed", "failed"]
    assert (got.status, got.error["code"]) == (502, "all_providers_failed")
    assert got.header("content-type") == "application/json"
    assert b"data:" not in got.body
