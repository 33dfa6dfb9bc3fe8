"""Gemini streams: any cut gives the same events, and together they are the whole answer."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from egress import assembled, cuts, events, failure, payloads, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    Envelope,
    Finish,
    OpaqueItem,
    ReasoningDelta,
    RefusalDelta,
    StreamCut,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
    gemini,
)
from aiproxy.middleware.dialects.gemini import stream_out

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
NAMES = [path.stem for path in GOLDEN]
ENVELOPE = Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto")
LINK = {"type": "url_citation", "url": "https://e.org", "title": "t"}


def wire_of(path: Path) -> bytes:
    return path.with_suffix(".sse").read_bytes()


def encoded(found: list[Any], source: str | None = None, **extra: Any) -> bytes:
    encoder = gemini.StreamEncoder(ENVELOPE)
    encoder.source = source
    return b"".join(encoder.encode(event) for event in found) + encoder.finish(extra or None)


def chunks(wire: bytes) -> list[Any]:
    return [payload for payload, _ in payloads([wire])]


# --- in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", GOLDEN, ids=NAMES)
def test_a_stream_put_together_is_the_whole_answer(path: Path) -> None:
    reply = gemini.decode_reply(orjson.loads(path.read_bytes()))
    assert assembled(events(gemini, [wire_of(path)])) == whole(reply)


@pytest.mark.parametrize("path", GOLDEN, ids=NAMES)
def test_where_the_bytes_are_cut_changes_nothing(path: Path) -> None:
    wire = wire_of(path)
    told = events(gemini, [wire])
    for pieces in cuts(wire):
        assert events(gemini, pieces) == told


@pytest.mark.parametrize("path", GOLDEN, ids=NAMES)
def test_an_end_that_is_missing_is_a_cut(path: Path) -> None:
    decoder = gemini.StreamDecoder()
    for payload in chunks(wire_of(path)):
        payload.pop("promptFeedback", None)
        for candidate in payload.get("candidates", ()):
            candidate.pop("finishReason", None)
        decoder.feed(payload)
    assert not decoder.complete
    with pytest.raises(StreamCut):
        decoder.finish()


@pytest.mark.parametrize("path", GOLDEN, ids=NAMES)
def test_the_observer_agrees_with_the_decoder(path: Path) -> None:
    observer = gemini.Observer()
    decoder = gemini.StreamDecoder()
    for payload in chunks(wire_of(path)):
        observer.feed(payload)
        decoder.feed(payload)
    told = decoder.finish()
    assert observer.finished
    assert observer.error is None
    assert observer.model == "gemini-3-flash"
    assert observer.usage == told[-1].usage  # type: ignore[union-attr]


def test_a_call_and_its_stop_may_come_in_any_order() -> None:
    for name in ("call_then_stop", "stop_then_call"):
        path = Path(__file__).parent / "golden" / f"{name}.json"
        finish = next(e for e in events(gemini, [wire_of(path)]) if isinstance(e, Finish))
        assert finish == Finish("tool_calls", 0, "STOP")


def test_every_call_begins_before_its_arguments_and_ends() -> None:
    path = Path(__file__).parent / "golden" / "parallel_calls.json"
    calls = [
        e
        for e in events(gemini, [wire_of(path)])
        if isinstance(e, ToolCallStart | ToolCallDelta | ToolCallEnd)
    ]
    assert calls[:4] == [
        ToolCallStart(0, "", "get_weather", signature="YWJj", origin="gemini"),
        ToolCallDelta(0, '{"city":"Bern"}'),
        ToolCallEnd(0),
        ToolCallStart(1, "", "get_weather"),
    ]
    assert calls[-1] == ToolCallEnd(2)


def test_an_error_object_in_a_stream_is_a_failure() -> None:
    error = {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}
    decoder = gemini.StreamDecoder()
    decoder.feed({"candidates": [{"content": {"parts": [{"text": "a"}]}}]})
    told = failure(decoder.feed({"error": error}))
    assert (told.code, told.status, told.type) == ("UNAVAILABLE", 503, "UNAVAILABLE")
    assert decoder.feed({"candidates": [{"finishReason": "STOP"}]}) == []
    assert decoder.finish() == []


@pytest.mark.parametrize(
    "reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE", "OTHER"]
)
def test_an_answer_that_broke_off_is_a_failure(reason: str) -> None:
    payload = {"candidates": [{"finishReason": reason}]}
    assert failure(gemini.StreamDecoder().feed(payload)).code == reason
    observer = gemini.Observer()
    observer.feed(payload)
    assert observer.error is not None
    assert not observer.finished
    assert gemini.check_reply(payload)


def test_usage_is_that_of_the_last_report() -> None:
    decoder = gemini.StreamDecoder()
    for count in (1, 2, 3):
        usage = {"promptTokenCount": 5, "candidatesTokenCount": count, "totalTokenCount": 5 + count}
        decoder.feed({"candidates": [], "usageMetadata": usage})
    decoder.feed({"candidates": [{"finishReason": "STOP"}]})
    assert decoder.finish()[-1] == UsageEvent(Usage(5, 3))


def test_a_citation_that_is_reported_again_is_told_once() -> None:
    support = {"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.example"}}],
        "groundingSupports": [support],
    }
    decoder = gemini.StreamDecoder()
    candidate = {"content": {"parts": [{"text": "a"}]}, "groundingMetadata": grounding}
    told = decoder.feed({"candidates": [candidate]}) + decoder.feed({"candidates": [candidate]})
    assert sum(isinstance(event, AnnotationDelta) for event in told) == 1


# --- out -----------------------------------------------------------------------------------------


def test_text_leaves_as_it_comes_and_the_last_frame_has_the_rest() -> None:
    told = chunks(
        encoded(
            [
                TextDelta("Zü"),
                TextDelta("rich"),
                AnnotationDelta({**LINK, "start_index": 0, "end_index": 6}),
                Finish("stop"),
                UsageEvent(Usage(9, 5, 4, 0, 2)),
            ],
            aiproxy={"provider": "a"},
        )
    )
    head = {"modelVersion": "auto", "responseId": "resp_0123abcd"}
    assert told == [
        {
            "candidates": [{"content": {"role": "model", "parts": [{"text": word}]}, "index": 0}],
            **head,
        }
        for word in ("Zü", "rich")
    ] + [
        {
            "candidates": [
                {
                    "content": {"role": "model", "parts": []},
                    "finishReason": "STOP",
                    "index": 0,
                    "groundingMetadata": {
                        "groundingChunks": [{"web": {"uri": "https://e.org", "title": "t"}}],
                        "groundingSupports": [
                            {
                                "segment": {"startIndex": 0, "endIndex": 7},
                                "groundingChunkIndices": [0],
                            }
                        ],
                    },
                }
            ],
            "usageMetadata": {
                "promptTokenCount": 9,
                "candidatesTokenCount": 3,
                "totalTokenCount": 14,
                "cachedContentTokenCount": 4,
                "thoughtsTokenCount": 2,
            },
            "aiproxy": {"provider": "a"},
            **head,
        }
    ]


def test_calls_are_told_whole_and_only_the_first_is_marked() -> None:
    encoder = gemini.StreamEncoder(ENVELOPE)
    assert encoder.encode(ToolCallStart(0, "", "f")) == b""
    assert encoder.encode(ToolCallDelta(0, '{"a"')) == b""
    assert encoder.encode(ToolCallStart(1, "c2", "g")) == b""
    assert encoder.encode(ToolCallDelta(0, ":1}")) == b""
    first = chunks(encoder.encode(ToolCallEnd(0)))
    assert first[0]["candidates"][0]["content"]["parts"] == [
        {
            "functionCall": {"id": "call_0123abcd_0", "name": "f", "args": {"a": 1}},
            "thoughtSignature": "skip_thought_signature_validator",
        }
    ]
    second = chunks(encoder.encode(Finish("tool_calls")))
    assert second[0]["candidates"][0]["content"]["parts"] == [
        {"functionCall": {"id": "c2", "name": "g", "args": {}}}
    ]
    assert chunks(encoder.finish())[0]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(
    ("reason", "word", "loss"),
    [
        ("length", "MAX_TOKENS", "a call was cut short inside its arguments"),
        (
            "tool_calls",
            "MALFORMED_FUNCTION_CALL",
            "the arguments of a call are no JSON object",
        ),
    ],
)
def test_a_call_that_is_no_object_is_left_out_and_declared(
    reason: Any, word: str, loss: str
) -> None:
    encoder = gemini.StreamEncoder(ENVELOPE)
    for event in (ToolCallStart(0, "c", "f"), ToolCallDelta(0, '{"a"'), Finish(reason)):
        assert encoder.encode(event) == b""
    assert chunks(encoder.finish())[0]["candidates"][0]["finishReason"] == word
    assert [told.detail for told in encoder.losses] == [loss]


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_out, "MAX_HELD", 100)
    encoder = gemini.StreamEncoder(ENVELOPE)
    for _ in range(50):  # what has left is not held
        encoder.encode(ReasoningDelta("x" * 90, origin="anthropic"))
        encoder.encode(TextDelta("a"))
        encoder.encode(ToolCallStart(0, "c", "f"))
        encoder.encode(ToolCallDelta(0, '{"a":"' + "x" * 80 + '"}'))
        assert encoder.encode(ToolCallEnd(0))
    encoder.encode(ToolCallStart(1, "c", "f"))
    with pytest.raises(StreamCut):
        encoder.encode(ToolCallDelta(1, "x" * 101))


def test_an_ending_is_never_made_up() -> None:
    encoder = gemini.StreamEncoder(ENVELOPE)
    encoder.encode(TextDelta("a"))
    with pytest.raises(StreamCut):
        encoder.finish()


def test_a_broken_stream_ends_in_googles_error() -> None:
    error = {"message": "broke off", "type": "e", "param": None, "code": "stream_interrupted"}
    told = chunks(gemini.StreamEncoder(ENVELOPE).fail(error, {"aiproxy": {"a": 1}}))
    assert told == [
        {
            "error": {
                "code": 502,
                "message": "broke off",
                "status": "INTERNAL",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "STREAM_INTERRUPTED",
                        "domain": "aiproxy",
                        "metadata": {},
                    }
                ],
            },
            "aiproxy": {"a": 1},
        }
    ]


def test_what_gemini_has_no_room_for_is_declared_once() -> None:
    encoder = gemini.StreamEncoder(ENVELOPE)
    for _ in range(3):
        encoder.encode(RefusalDelta("no"))
        encoder.encode(ReasoningDelta("", signature="s"))
        encoder.encode(OpaqueItem("responses", "web_search_call", {}))
        encoder.encode(AnnotationDelta({"type": "file_citation", "file_id": "f"}))
    encoder.encode(Finish("stop"))
    encoder.finish()
    assert [loss.feature for loss in encoder.losses] == [
        "refusal",
        "reasoning.signature",
        "content_part",
        "annotations",
    ]


@pytest.mark.parametrize("path", GOLDEN, ids=NAMES)
def test_what_was_read_can_be_written_again(path: Path) -> None:
    told = events(gemini, [wire_of(path)])
    again = events(gemini, [encoded(told, "gemini")])
    before, after = assembled(told), assembled(again)
    for one in (*before.values(), *after.values()):
        for call in one["calls"]:
            call[0] = ""  # calls without an id get one
    assert after == before


PIECES = st.lists(st.text(max_size=8), max_size=5)


@settings(deadline=None, max_examples=150)
@given(
    thought=PIECES,
    said=PIECES,
    calls=st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2), max_size=3),
    size=st.integers(1, 9),
    cut=st.booleans(),
)
def test_a_streamed_answer_of_chat_is_the_same_answer(
    thought: list[str], said: list[str], calls: list[dict[str, int]], size: int, cut: bool
) -> None:
    """From chat to Gemini and back: what a client of Google's API puts together."""
    found: list[Any] = [ReasoningDelta(t, origin="chat") for t in thought if t]
    found += [TextDelta(t) for t in said if t]
    for i, arguments in enumerate(calls):
        written = orjson.dumps(arguments).decode()
        found.append(ToolCallStart(i, f"c{i}", "f"))
        found += [ToolCallDelta(i, written[k : k + size]) for k in range(0, len(written), size)]
        found.append(ToolCallEnd(i))
    reason: Any = "length" if cut else "tool_calls" if calls else "stop"
    found += [Finish(reason), UsageEvent(Usage(3, 4))]
    told = assembled(events(gemini, [encoded(found)]))[0]
    assert told["text"] == "".join(said)
    assert "".join(told["thoughts"]) == "".join(thought)
    assert [call[:2] for call in told["calls"]] == [[f"c{i}", "f"] for i in range(len(calls))]
    assert [orjson.loads(call[2]) for call in told["calls"]] == calls
    assert told["finish"][0] == reason
    assert told["usage"] == Usage(3, 4)
