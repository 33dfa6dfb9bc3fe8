"""Streams, both ways: recorded ones stand in ``streams``, with their whole answers beside them."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    CanonicalEvent,
    Envelope,
    Finish,
    Loss,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    Text,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
    anthropic,
    chat,
    responses,
)
from aiproxy.middleware.dialects.canonical import (
    AudioDelta,
    OpaqueItem,
    Reasoning,
    StreamError,
    ToolCall,
)
from aiproxy.middleware.dialects.observe import CONTENT, ERROR, FINISH, TERMINAL, observer
from aiproxy.middleware.dialects.seals import seal_thought
from aiproxy.middleware.dialects.sse import SSEParser

FOLDER = Path(__file__).parent / "streams"
STREAMS = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.sse"))}
GOOD = [name for name in STREAMS if name not in ("cut", "overloaded")]
WHOLE = [name for name in GOOD if (FOLDER / f"{name}.json").exists()]
Tools = dict[str, Any]

LINK = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
TOLD: dict[str, list[CanonicalEvent]] = {
    "text": [TextDelta("Hi"), TextDelta(" 😀"), AnnotationDelta(LINK), Finish("stop"),
             UsageEvent(Usage(20, 7, 5, 1, 2))],
    "refusal": [RefusalDelta("I can"), RefusalDelta("not"), Finish("stop")],
    "reasoning": [ReasoningDelta("so", origin="gemini"), ReasoningDelta("", signature="S", origin="gemini"),
                  ReasoningDelta("", item=1, encrypted="E", origin="responses"), TextDelta("Hi"), Finish("stop")],
    "summaries": [ReasoningDelta("a", kind="summary"), ReasoningDelta("b", kind="summary", part=1), TextDelta("c"),
                  Finish("stop")],
    "calls": [TextDelta("Wait"), ToolCallStart(0, "call_a", "f"), ToolCallDelta(0, '{"x"'),
              ToolCallStart(1, "", "f", signature="T", origin="gemini"), ToolCallDelta(1, "{}"),
              ToolCallDelta(0, ":1}"), ToolCallEnd(0), ToolCallEnd(1), Finish("tool_calls")],
    "text_after_call": [ToolCallStart(0, "a", "f"), ToolCallDelta(0, "{}"), TextDelta("done"), Finish("tool_calls")],
    "custom": [ToolCallStart(0, "a", "f", "custom"), ToolCallDelta(0, 'a"\n'), ToolCallDelta(0, "b"),
               Finish("tool_calls")],
    "length": [TextDelta("Hal"), Finish("length")],
    "sequence": [TextDelta("a"), Finish("stop", 0, "stop_sequence", "END")],
    "paused": [TextDelta("a"), Finish("stop", 0, "pause_turn")],
    "filtered": [Finish("content_filter")],
    "empty": [Finish("stop")],
    "hosted": [OpaqueItem("anthropic", "server_tool_use", {"type": "server_tool_use", "id": "s", "name": "web_search",
               "input": {"q": 1}}), TextDelta("a"), Finish("stop")],
}  # fmt: skip


def frames(wire: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    parser = SSEParser()
    events = parser.feed(wire) + parser.finish()
    return [(e.event, orjson.loads(e.data)) for e in events if e.data is not None]


@pytest.mark.parametrize("name", GOOD)
@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 4000), max_size=6))
def test_cutting_anywhere_changes_nothing(name: str, cuts: list[int]) -> None:
    wire = STREAMS[name]
    places = sorted({0, *(min(cut, len(wire)) for cut in cuts), len(wire)})
    parser, decoder = SSEParser(), anthropic.StreamDecoder()
    events: list[CanonicalEvent] = []
    found = [e for a, b in pairwise(places) for e in parser.feed(wire[a:b])]
    for event in (*found, *parser.finish()):
        if event.data is not None:
            events += decoder.feed(orjson.loads(event.data), event.event)
    events += decoder.finish()
    whole = anthropic.StreamDecoder()
    once = [e for kind, payload in frames(wire) for e in whole.feed(payload, kind)]
    assert events == once + whole.finish()


@pytest.mark.parametrize("name", ["thinking_and_calls", "crlf_without_names"])
def test_every_single_cut(name: str, tools: Tools) -> None:
    wire = STREAMS[name]
    expected = tools["decode"]([wire])
    for cut in range(len(wire)):
        assert tools["decode"]([wire[:cut], wire[cut:]]) == expected


@pytest.mark.parametrize("name", WHOLE)
def test_a_stream_says_what_the_whole_answer_says(name: str, tools: Tools) -> None:
    events = tools["decode"]([STREAMS[name]])
    reply = anthropic.decode_reply(json.loads((FOLDER / f"{name}.json").read_text()))
    parts, finish = tools["assemble"](events)
    choice = reply.choices[0]
    assert parts == [tools["plain"](part) for part in choice.parts]
    assert finish.reason == choice.finish_reason
    assert finish.native == choice.native_finish_reason
    assert finish.stop_sequence == choice.stop_sequence
    assert events[-1] == UsageEvent(reply.usage)


@pytest.mark.parametrize("name", WHOLE)
def test_decoded_and_encoded_again_it_is_the_same_stream(
    name: str, tools: Tools, envelope: Envelope
) -> None:
    events = tools["decode"]([STREAMS[name]])
    again = tools["decode"]([tools["encode"](events, envelope)])
    before, after = tools["assemble"](events), tools["assemble"](again)
    if name == "refusal":  # a stream tells the explanation as more text
        assert after[1].reason == "content_filter"
        assert after[0] == [Text("WellNot that.")]
        return
    if name == "search_and_citations":  # the web's citations keep no place in the text
        assert [p.text for p in after[0] if hasattr(p, "text")] == [
            p.text for p in before[0] if hasattr(p, "text")
        ]
        return
    assert after[0] == before[0]
    assert after[1].reason == before[1].reason
    assert again[-1] == events[-1]


def test_a_call_that_was_cut_has_no_end(tools: Tools) -> None:
    cut = tools["decode"]([STREAMS["cut_in_a_call"]])
    assert not any(isinstance(event, ToolCallEnd) for event in cut)
    whole = tools["decode"]([STREAMS["thinking_and_calls"]])
    assert [e.index for e in whole if isinstance(e, ToolCallEnd)] == [0, 1]


def test_a_cut_stream_has_no_ending(tools: Tools) -> None:
    with pytest.raises(StreamCut):
        tools["decode"]([STREAMS["cut"]])


def test_a_failure_inside_a_stream(tools: Tools) -> None:
    events = tools["decode"]([STREAMS["overloaded"]])
    assert events[-1] == StreamError("overloaded_error", "Overloaded", "overloaded_error", 529)


def test_message_stop_alone_ends_a_stream() -> None:
    decoder = anthropic.StreamDecoder()
    decoder.feed({"type": "message_start", "message": {}})
    assert not decoder.complete
    decoder.feed({"type": "message_stop"})
    assert decoder.complete
    assert decoder.finish() == [Finish("stop")]


def test_custom_calls_are_turned_back() -> None:
    decoder = anthropic.StreamDecoder({"sql": "custom"})
    start = {"type": "tool_use", "id": "a", "name": "sql", "input": {}}
    events = decoder.feed({"type": "content_block_start", "index": 0, "content_block": start})
    for piece in ('{"inp', 'ut": "SELECT \\"', '1\\""}'):
        delta = {"type": "input_json_delta", "partial_json": piece}
        events += decoder.feed({"type": "content_block_delta", "index": 0, "delta": delta})
    events += decoder.feed({"type": "content_block_stop", "index": 0})
    assert events == [ToolCallStart(0, "a", "sql", "custom"), ToolCallDelta(0, 'SELECT "1"')]


def test_blocks_of_kinds_that_are_not_known_are_kept_whole() -> None:
    decoder = anthropic.StreamDecoder()
    events = decoder.feed(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction"}}
    )
    for piece in ("a", "b"):
        delta = {"type": "compaction_delta", "content": piece}
        events += decoder.feed({"type": "content_block_delta", "index": 0, "delta": delta})
    events += decoder.feed({"type": "content_block_stop", "index": 0})
    value = {"type": "compaction", "content": "ab"}
    assert events == [OpaqueItem("anthropic", "compaction", value)]


def test_memory_is_bounded_whatever_comes() -> None:
    decoder = anthropic.StreamDecoder()
    for i in range(1000):
        block = {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}
        decoder.feed({"type": "content_block_start", "index": i, "content_block": block})
    piece = {"type": "input_json_delta", "partial_json": "x" * (1 << 20)}
    events: list[CanonicalEvent] = []
    for _ in range(6):
        events += decoder.feed({"type": "content_block_delta", "index": 999, "delta": piece})
    assert [type(event) for event in events] == [StreamError]


# --- out -----------------------------------------------------------------------------------------


def test_frames_and_their_names(tools: Tools, envelope: Envelope) -> None:
    wire = frames(tools["encode"](TOLD["calls"], envelope, {"x-aiproxy": {"provider": "a"}}))
    assert all(event == payload["type"] for event, payload in wire)
    assert [event for event, _ in wire] == [
        "message_start",
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", *["content_block_delta"] * 2, "content_block_stop"),
        *("content_block_start", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]
    assert wire[-1][1] == {"type": "message_stop", "x-aiproxy": {"provider": "a"}}


def test_one_block_is_open_at_a_time(tools: Tools, envelope: Envelope) -> None:
    for events in TOLD.values():
        opened: list[int] = []
        for kind, payload in frames(tools["encode"](events, envelope)):
            if kind == "content_block_start":
                opened.append(payload["index"])
            elif kind == "content_block_delta":
                assert opened == [payload["index"]]
            elif kind == "content_block_stop":
                assert opened.pop() == payload["index"]
        assert opened == []


def test_calls_one_after_the_other_stream_as_they_come(envelope: Envelope) -> None:
    encoder = anthropic.StreamEncoder(envelope)
    encoder.encode(ToolCallStart(0, "a", "f"))
    assert encoder.encode(ToolCallDelta(0, '{"x":1}'))
    assert b"content_block_stop" in encoder.encode(ToolCallStart(1, "b", "f"))
    assert b'"index":1' in encoder.encode(ToolCallDelta(1, '{"x"'))


def test_what_interleaves_too_far_is_given_up(envelope: Envelope) -> None:
    encoder = anthropic.StreamEncoder(envelope)
    encoder.encode(ToolCallStart(0, "a", "f"))
    encoder.encode(ToolCallDelta(0, "{"))
    encoder.encode(ToolCallStart(1, "b", "f"))
    piece = ToolCallDelta(1, "x" * (1 << 20))
    for _ in range(4):
        encoder.encode(piece)
    with pytest.raises(StreamCut):
        encoder.encode(piece)


def test_an_ending_is_never_made_up(envelope: Envelope) -> None:
    encoder = anthropic.StreamEncoder(envelope)
    encoder.encode(TextDelta("a"))
    with pytest.raises(StreamCut):
        encoder.finish()


def test_what_frames_cannot_show_is_told(envelope: Envelope) -> None:
    encoder = anthropic.StreamEncoder(envelope)
    token = {"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
    for event in (
        TextDelta("a", 0, (token,)),
        TextDelta("b", 1),
        AudioDelta("AA=="),
        OpaqueItem("responses", "x", {}),
        AnnotationDelta({"type": "file_citation"}),
        ReasoningDelta("", signature="s"),
    ):
        encoder.encode(event)
    assert [loss.feature for loss in encoder.losses] == [
        "logprobs",
        "choices",
        "content_part",
        "item",
        "annotations",
        "reasoning",
    ]


def test_the_official_sdk_reads_our_streams(
    tmp_path: Path, tools: Tools, envelope: Envelope
) -> None:
    entries, names = [], []
    for name, events in TOLD.items():
        wire = tools["encode"](events, envelope, {"x-aiproxy": {"provider": "a"}})
        entries.append({"as": "stream", "value": wire.decode()})
        names.append(name)
        entries += [{"as": "event", "value": payload} for _, payload in frames(wire)]
        names += ["event"] * (len(entries) - len(names))
    for name in WHOLE:
        wire = tools["encode"](tools["decode"]([STREAMS[name]]), envelope)
        entries.append({"as": "stream", "value": wire.decode()})
        names.append(f"again:{name}")
    broken = anthropic.StreamEncoder(envelope)
    wire = broken.encode(TextDelta("a")) + broken.fail(
        {"message": "broke off", "type": "upstream_error", "param": None, "code": "x"}
    )
    entries.append({"as": "stream", "value": wire.decode()})
    verdicts = tools["judge"](entries, tmp_path)
    assert verdicts.pop() == {
        "raised": "APIStatusError",
        "body": {
            "type": "error",
            "error": {"type": "api_error", "message": "broke off", "code": "x"},
        },
    }
    told = dict(zip(names, verdicts, strict=True))
    assert told.pop("event") is None
    assert [v for n, v in zip(names, verdicts, strict=True) if n == "event" and v] == []
    said = {name: [block["type"] for block in body["content"]] for name, body in told.items()}
    assert said["calls"] == ["text", "tool_use", "redacted_thinking", "tool_use"]
    assert told["calls"]["content"][1]["input"] == {"x": 1}
    assert told["calls"]["stop_reason"] == "tool_use"
    assert said["reasoning"] == ["thinking", "redacted_thinking", "text"]
    seal = told["reasoning"]["content"][0]["signature"]
    assert seal == seal_thought("gemini", "so", "S", None)
    assert told["summaries"]["content"][0]["thinking"] == "a\n\nb"
    assert told["custom"]["content"][0]["input"] == {"input": 'a"\nb'}
    assert told["text"]["usage"]["cache_read_input_tokens"] == 5
    assert told["text"]["usage"]["input_tokens"] == 14
    assert told["sequence"]["stop_sequence"] == "END"
    assert told["paused"]["stop_reason"] == "pause_turn"
    assert told["refusal"]["stop_reason"] == "refusal"
    assert told["again:thinking_and_calls"]["content"][0]["signature"] == "SIG=="


def test_what_a_client_of_a_stream_sends_back_is_known_again(
    tools: Tools, envelope: Envelope
) -> None:
    events = [
        ReasoningDelta("so", origin="gemini"),
        ReasoningDelta(" then", signature="S", origin="gemini"),
        ReasoningDelta("", item=1, encrypted="E", origin="responses"),
        TextDelta("Hi", signature="T", origin="gemini"),
        ToolCallStart(0, "", "f", signature="U", origin="gemini"),
        ToolCallDelta(0, "{}"),
        Finish("tool_calls"),
    ]
    blocks: list[dict[str, Any]] = []
    for kind, payload in frames(tools["encode"](events, envelope)):
        if kind == "content_block_start":
            blocks.append(payload["content_block"])
        elif kind == "content_block_delta":
            pieces = {k: v for k, v in payload["delta"].items() if k != "type"}
            for name, more in pieces.items():
                blocks[-1][name] = blocks[-1].get(name, "") + more
    body = {"model": "m", "messages": [{"role": "assistant", "content": blocks}]}
    assert anthropic.decode_request(body).turns[0].parts == (
        Reasoning("so then", signature="S", origin="gemini"),
        Reasoning(encrypted="E", origin="responses"),
        Text("Hi", signature="T", origin="gemini"),
        ToolCall("call_0123abcd_0", "f", "{}", signature="U", origin="gemini",
                 extra={"partial_json": "{}"}),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(TOLD))
def test_stream_and_whole_answer_say_the_same(name: str, tools: Tools, envelope: Envelope) -> None:
    told, finish = tools["assemble"](tools["decode"]([tools["encode"](TOLD[name], envelope)]))
    assert finish.reason in ("stop", "tool_calls", "length", "content_filter")
    calls = [part for part in told if isinstance(part, ToolCall)]
    expected = [e for e in TOLD[name] if isinstance(e, ToolCallStart)]
    assert [call.name for call in calls] == [event.name for event in expected]
    assert not any(
        isinstance(p, Reasoning) and not (p.text or p.signature or p.encrypted) for p in told
    )


@pytest.mark.parametrize("module", [chat, responses], ids=["chat", "responses"])
@pytest.mark.parametrize("name", GOOD)
def test_streams_cross_over(name: str, module: Any, tools: Tools, envelope: Envelope) -> None:
    encoder = module.StreamEncoder(envelope)
    wire = b"".join(encoder.encode(event) for event in tools["decode"]([STREAMS[name]]))
    assert wire + encoder.finish()


# --- watching ------------------------------------------------------------------------------------


def test_the_observer() -> None:
    watch = observer("anthropic")
    flags = [watch.feed(payload, kind) for kind, payload in frames(STREAMS["thinking_and_calls"])]
    assert watch.usage == Usage(18, 20, 5, 3, 7)
    assert (watch.finished, watch.model, watch.content_seen) == (True, "claude-x", True)
    assert flags[0] & CONTENT == 0
    assert flags[2] & CONTENT
    assert flags[-2] & FINISH
    assert flags[-1] & TERMINAL
    watch = observer("anthropic")
    assert [watch.feed(p, k) for k, p in frames(STREAMS["overloaded"])][-1] == ERROR
    assert watch.error == {"type": "overloaded_error", "message": "Overloaded"}
    assert not watch.finished


def test_losses_of_events_are_found_once() -> None:
    assert list(anthropic.event_losses(AudioDelta("x"))) == [
        Loss("content_part", "the Messages API has no audio parts in answers")
    ]


def test_blocks_nobody_knows_are_held_up_to_a_bound() -> None:
    """One frame may carry several long members: the failure is told once and ends the stream."""
    decoder = anthropic.StreamDecoder()
    decoder.feed({"type": "content_block_start", "index": 0, "content_block": {"type": "new"}})
    long = "x" * (3 << 20)
    delta = {"type": "new_delta", "a": long, "b": long, "c": long}
    [told] = decoder.feed({"type": "content_block_delta", "index": 0, "delta": delta})
    assert isinstance(told, StreamError)
    assert told.status == 502
    assert decoder.feed({"type": "message_stop"}) == decoder.finish() == []
