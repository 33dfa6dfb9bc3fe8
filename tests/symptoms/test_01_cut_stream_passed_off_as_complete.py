"""The provider hangs up after 40 of 60 words, without a finish reason: the client must be told."""

import time
from typing import Any

import pytest
from mounts import HELLO, RESPONSES
from wire import STREAM_HEAD, Wire, WireUpstream, frame

WORDS = [f"word{n} " for n in range(60)]


def after_forty(how: str) -> Any:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frame({"role": "assistant", "content": ""}))
        for word in WORDS[:40]:
            wire.chunk(frame({"content": word}))
        time.sleep(0.05)
        if how == "ends in good form":
            wire.end()
        elif how == "resets":
            wire.reset()

    return script


@pytest.mark.parametrize("how", ["closes", "resets", "ends in good form"])
def test_a_chat_client_gets_an_error_and_no_done(mount: Any, duo: Any, best: Any, how: str) -> None:
    with WireUpstream(after_forty(how)) as upstream:
        served = mount(duo(url_a=upstream.url))
        got = served.chat(best, stream=True)
        record = served.record(got)
    said = [
        choice["delta"].get("content") or ""
        for event in got.events
        for choice in event.get("choices", ())
    ]
    assert "".join(WORDS[:40]).startswith("".join(said))
    if how != "resets":  # a reset may overtake what was sent before it
        assert "".join(said) == "".join(WORDS[:40])
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in got.events
    assert not any(
        choice["finish_reason"] for event in got.events for choice in event.get("choices", ())
    )
    assert (record["outcome"], record["attempts"][0]["outcome"]) == ("failed", "failed")


@pytest.mark.parametrize("asked", [{"input": "Hello"}, {"messages": HELLO}])
def test_a_responses_client_gets_a_failed_response(
    mount: Any, duo: Any, best: Any, asked: dict[str, Any]
) -> None:
    with WireUpstream(after_forty("closes")) as upstream:
        served = mount(duo(url_a=upstream.url))
        got = served.post(RESPONSES, {"model": "auto", "stream": True, **asked}, best)
    kinds = [event["type"] for event in got.events if event != "[DONE]"]
    assert kinds[-2:] == ["error", "response.failed"]
    assert "response.completed" not in kinds


def test_a_document_cut_short_is_no_answer_either(mount: Any, duo: Any, best: Any) -> None:
    def script(wire: Wire) -> None:
        wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
        )

    with WireUpstream(script) as upstream:
        got = mount(duo(url_a=upstream.url)).chat(best)
    assert (got.status, got.provider) == (200, "b")
