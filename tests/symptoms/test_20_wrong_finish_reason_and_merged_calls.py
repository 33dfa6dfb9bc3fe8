"""A call makes the answer end in ``tool_calls`` wherever the stop comes, and calls a provider
numbers badly stay apart."""

from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects.canonical import (
    Finish,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from aiproxy.middleware.dialects.codecs import codec

BERN, ROME = {"city": "Bern"}, {"city": "Rome"}


def text(value: object) -> str:
    return orjson.dumps(value).decode()


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def chat(*calls: dict[str, Any]) -> dict[str, Any]:
    return chunk({"tool_calls": list(calls)})


def function(name: str, arguments: object, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def candidate(part: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {} if reason is None else {"finishReason": reason}
    if part is not None:
        told["content"] = {"role": "model", "parts": [part]}
    return {"candidates": [told]}


def google(args: dict[str, Any]) -> dict[str, Any]:
    return {"functionCall": {"name": "weather", "args": args}}


STOP = chunk({}, "stop")
TWO = [BERN, ROME]
STREAMS: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, str]]]] = {
    "the stop is in a chunk after the call": (
        "chat",
        [chat(function("weather", text(BERN), id="c1", index=0)), STOP],
        [BERN],
    ),
    "the stop is in a chunk before the call": (
        "chat",
        [STOP, chat(function("weather", text(BERN), id="c1", index=0))],
        [BERN],
    ),
    "the call and an empty finish reason": (
        "chat",
        [chat(function("weather", text(BERN), id="c1", index=0)), chunk({}, ""), STOP],
        [BERN],
    ),
    "Gemini: the call, then STOP": (
        "gemini",
        [candidate(google(BERN)), candidate({"text": ""}, "STOP")],
        [BERN],
    ),
    "Gemini: the call, then STOP without content": (
        "gemini",
        [candidate(google(BERN)), candidate(None, "STOP")],
        [BERN],
    ),
    "Gemini: two calls of one name in one chunk each": (
        "gemini",
        [candidate(google(BERN)), candidate(google(ROME)), candidate(None, "STOP")],
        TWO,
    ),
    "all at index 0, no ids, arguments as objects": (
        "chat",
        [chat(function("weather", BERN, index=0)), chat(function("weather", ROME, index=0)), STOP],
        TWO,
    ),
    "all at index 0 in one chunk": (
        "chat",
        [
            chat(function("weather", BERN, index=0), function("weather", ROME, index=0)),
            STOP,
        ],
        TWO,
    ),
    "all at index 0 with ids": (
        "chat",
        [
            chat(function("weather", text(BERN), index=0, id="c1")),
            chat(function("weather", text(ROME), index=0, id="c2")),
            STOP,
        ],
        TWO,
    ),
    "no index at all": (
        "chat",
        [chat(function("weather", text(BERN), id="c1"), function("weather", text(ROME), id="c2")),
         STOP],
        TWO,
    ),
    "interleaved": (
        "chat",
        [
            chat(function("weather", "", id="c1", index=0), function("weather", "", id="c2", index=1)),
            chat({"index": 1, "function": {"arguments": text(ROME)}}),
            chat({"index": 0, "function": {"arguments": text(BERN)}}),
            STOP,
        ],
        TWO,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str) -> None:
    dialect, frames, arguments = STREAMS[name]
    decoder = codec(dialect).StreamDecoder()
    events = [e for frame in frames for e in decoder.feed(frame)]
    assert decoder.complete
    events += decoder.finish()
    starts = [e for e in events if isinstance(e, ToolCallStart)]
    assert [start.index for start in starts] == list(range(len(arguments)))
    told = [
        "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == at)
        for at in range(len(arguments))
    ]
    assert [orjson.loads(one) for one in told] == arguments
    assert {e.index for e in events if isinstance(e, ToolCallEnd)} == set(range(len(arguments)))
    assert [e.reason for e in events if isinstance(e, Finish)] == ["tool_calls"]
    assert isinstance(events[-1], Finish)


@pytest.mark.parametrize("index", [None, 0, -1])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", "", None])
def test_whole_answers(reason: str | None, index: int | None) -> None:
    calls = [function("weather", BERN), function("weather", text(ROME))]
    choice = {"index": index, "message": {"content": None, "tool_calls": calls}}
    reply = codec("chat").decode_reply({"choices": [{**choice, "finish_reason": reason}]})
    (found,) = reply.choices
    assert found.finish_reason == "tool_calls"
    assert [orjson.loads(part.arguments) for part in found.parts] == TWO


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_cut_answer_stays_a_cut_answer(reason: str) -> None:
    decoder = codec("chat").StreamDecoder()
    decoder.feed(chat(function("weather", '{"ci', id="c1", index=0)))
    decoder.feed(chunk({}, reason))
    events = decoder.finish()
    assert [e.reason for e in events if isinstance(e, Finish)] == [reason]
    assert not any(isinstance(e, ToolCallEnd) for e in events), "its arguments are not whole"
