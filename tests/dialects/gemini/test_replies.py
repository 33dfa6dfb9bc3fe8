"""Answers of Gemini, and answers of others for clients of its API."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from egress import payloads

from aiproxy.middleware.dialects import (
    Audio,
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    Image,
    MalformedReply,
    Opaque,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    chat,
    gemini,
)
from aiproxy.middleware.dialects.continuity import foreign_opaque

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
ENVELOPE = Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto")
DUMMY = "skip_thought_signature_validator"


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(
        (Path(__file__).parent / "golden" / f"{name}.json").read_bytes()
    )
    return found


def one(parts: list[Any], reason: str = "STOP", **more: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": parts}
    return {"candidates": [{"content": content, "finishReason": reason, "index": 0, **more}]}


# --- in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("text", Usage(7, 5)),
        ("thinking", Usage(10, 34, 6, 0, 30)),
        ("grounding", Usage(59, 4)),
        ("blocked", Usage(4, 0)),
    ],
)
def test_usage_is_inclusive(name: str, usage: Usage) -> None:
    body = golden(name)
    assert gemini.read_usage(body) == usage
    assert gemini.decode_reply(body).usage == usage
    assert usage.total == body["usageMetadata"]["totalTokenCount"]


def test_thoughts_that_are_counted_in_the_answer_are_not_counted_twice() -> None:
    counts = {
        "promptTokenCount": 5,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20,
        "totalTokenCount": 35,
    }
    assert gemini.read_usage({"usageMetadata": counts}) == Usage(5, 30, 0, 0, 20)
    assert gemini.read_usage({"usageMetadata": {"odd": 1}}) is None
    assert gemini.read_usage({}) is None


def test_signatures_stay_with_their_parts() -> None:
    assert gemini.decode_reply(golden("thinking")).choices[0].parts == (
        Reasoning("First I look."),
        Text("It rains."),
        Text("", signature="c2lnbmF0dXJl"),
    )
    calls = gemini.decode_reply(golden("parallel_calls")).choices[0].parts[1:]
    assert calls == (
        ToolCall("", "get_weather", '{"city":"Bern"}', signature="YWJj"),
        ToolCall("", "get_weather", '{"city":"Thun"}'),
        ToolCall("", "now", "{}"),
    )


def test_offsets_of_citations_count_characters() -> None:
    text = gemini.decode_reply(golden("grounding")).choices[0].parts[0]
    assert isinstance(text, Text)
    told = [
        (a["url"], text.text[a["start_index"] : a["end_index"]], a["title"])
        for a in text.annotations
    ]
    assert told == [
        ("https://a.example/1", "Zürich.", "A"),
        ("https://a.example/1", "Genf.", "A"),
        ("https://b.example/2", "Genf.", "B"),
    ]


def test_offsets_of_a_later_part_count_from_its_beginning() -> None:
    grounding = {
        "groundingChunks": [{"web": {"uri": "u"}}],
        "groundingSupports": [
            {"segment": {"partIndex": 2, "endIndex": 2}, "groundingChunkIndices": [0, 7, "x"]}
        ],
    }
    parts = [{"text": "ä"}, {"text": "hm", "thought": True}, {"text": "bcd"}]
    found = gemini.decode_reply(one(parts, groundingMetadata=grounding)).choices[0].parts
    cited = [a for part in found if isinstance(part, Text) for a in part.annotations]
    assert [(a["start_index"], a["end_index"]) for a in cited] == [(1, 3)]


def test_citations_without_places_are_of_the_whole() -> None:
    grounding = {"groundingChunks": [{"web": {"uri": "u", "title": "t"}}, {"odd": 1}]}
    cited = {"citations": [{"uri": "v", "startIndex": 1, "endIndex": 2}, {"license": "x"}]}
    body = one([{"text": "abc"}], groundingMetadata=grounding, citationMetadata=cited)
    text = gemini.decode_reply(body).choices[0].parts[0]
    assert isinstance(text, Text)
    assert [(a["url"], a["start_index"], a["end_index"]) for a in text.annotations] == [
        ("u", 0, 3),
        ("v", 1, 2),
    ]


def test_log_probabilities() -> None:
    text = gemini.decode_reply(golden("logprobs")).choices[0].parts[0]
    assert isinstance(text, Text)
    assert text.logprobs is not None
    assert text.logprobs[0] == {
        "token": "Hi",
        "logprob": -0.1,
        "bytes": [72, 105],
        "top_logprobs": [
            {"token": "Hi", "logprob": -0.1, "bytes": [72, 105]},
            {"token": "Yo", "logprob": -3.0, "bytes": [89, 111]},
        ],
    }


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("SPII", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("OTHER", "stop"),
        ("A_NEW_ONE", "stop"),
    ],
)
def test_finish_reasons(word: str, reason: str) -> None:
    choice = gemini.decode_reply(one([{"text": "a"}], word)).choices[0]
    assert choice.finish_reason == reason
    assert choice.native_finish_reason == (None if word == "STOP" else word)
    again = gemini.encode_reply(
        CanonicalReply((choice,), "gemini"), ENVELOPE
    )["candidates"][0]["finishReason"]  # fmt: skip
    assert again == (word if word != "A_NEW_ONE" else "STOP")


def test_a_blocked_prompt_is_an_answer_that_a_filter_ended() -> None:
    reply = gemini.decode_reply(golden("blocked"))
    assert reply.choices == (
        Choice((), "content_filter", native_finish_reason="PROHIBITED_CONTENT"),
    )
    told = chat.encode_reply(reply, ENVELOPE)
    assert told["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"code": 500}}, "error object"),
        ({}, "candidates is missing"),
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": [3]}, r"candidates\[0\] is not an object"),
        ({"candidates": [{}]}, r"candidates\[0\] has no content"),
        (one([], "MALFORMED_FUNCTION_CALL"), "MALFORMED_FUNCTION_CALL"),
        (one([], "OTHER"), "ended in an error"),
        (one([{"text": "secret"}], "MALFORMED_RESPONSE"), "MALFORMED_RESPONSE"),
    ],
)
def test_what_is_no_answer_says_why(body: dict[str, Any], reason: str) -> None:
    assert gemini.check_reply(body)
    with pytest.raises(MalformedReply, match=reason) as refused:
        gemini.decode_reply(body)
    assert "secret" not in refused.value.reason


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_golden_answers_are_answers(path: Path) -> None:
    body = orjson.loads(path.read_bytes())
    assert gemini.check_reply(body) is None
    reply = gemini.decode_reply(body)
    assert (reply.id, reply.model, reply.source) == ("r-1", "gemini-3-flash", "gemini")
    losses: list[Any] = []
    again = gemini.decode_reply(gemini.encode_reply(reply, ENVELOPE, losses))
    assert losses == []
    calls = [p for c in again.choices for p in c.parts if isinstance(p, ToolCall)]
    assert all(call.id for call in calls)

    def plain(of: CanonicalReply) -> list[Any]:
        return [
            (
                [replace(p, id="") if isinstance(p, ToolCall) else p for p in choice.parts],
                choice.finish_reason,
                choice.index,
            )
            for choice in of.choices
        ]

    assert plain(again) == plain(reply)
    assert again.usage == replace(reply.usage or Usage(), total=0)


# --- out -----------------------------------------------------------------------------------------


def reply(*parts: Any, reason: Any = "stop", source: str = "anthropic") -> CanonicalReply:
    return CanonicalReply((Choice(parts, reason),), source, Usage(3, 4, 1, 0, 2))


def test_an_answer_of_another_model() -> None:
    link = {
        "type": "url_citation",
        "url": "https://e.org",
        "title": "t",
        "start_index": 1,
        "end_index": 2,
    }
    token = {"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
    given = reply(
        Text("äbc", (link,), (token,)),
        ToolCall("", "f", '{"x":1}'),
        ToolCall("c", "g", ""),
        reason="tool_calls",
    )
    losses: list[Any] = []
    assert gemini.encode_reply(given, ENVELOPE, losses) == {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": "äbc"},
                        {
                            "functionCall": {
                                "id": "call_0123abcd_0",
                                "name": "f",
                                "args": {"x": 1},
                            },
                            "thoughtSignature": DUMMY,
                        },
                        {"functionCall": {"id": "c", "name": "g", "args": {}}},
                    ],
                },
                "finishReason": "STOP",
                "index": 0,
                "groundingMetadata": {
                    "groundingChunks": [{"web": {"uri": "https://e.org", "title": "t"}}],
                    "groundingSupports": [
                        {
                            "segment": {"startIndex": 2, "endIndex": 3},
                            "groundingChunkIndices": [0],
                        }
                    ],
                },
                "logprobsResult": {
                    "chosenCandidates": [{"token": "H", "logProbability": -0.1}],
                    "topCandidates": [{"candidates": []}],
                },
            }
        ],
        "modelVersion": "auto",
        "responseId": "resp_0123abcd",
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 2,
            "totalTokenCount": 7,
            "cachedContentTokenCount": 1,
            "thoughtsTokenCount": 2,
        },
    }
    assert losses == []


def test_what_gemini_has_no_room_for_is_declared() -> None:
    losses: list[Any] = []
    given = reply(
        Refusal("no"),
        Image(data="QQ", media_type="image/png"),
        Audio(data="QQ", format="wav"),
        Opaque("responses", "web_search_call", {}),
        ToolCall("c", "shell", "ls", "custom"),
        ToolCall("d", "f", "{"),
        Text("", ({"type": "file_citation", "file_id": "f"},)),
        reason="tool_calls",
    )
    told = gemini.encode_reply(given, ENVELOPE, losses)["candidates"][0]
    assert told["finishReason"] == "MALFORMED_FUNCTION_CALL"
    assert [next(iter(part)) for part in told["content"]["parts"]] == [
        "text",
        "inlineData",
        "inlineData",
        "functionCall",
    ]
    assert told["content"]["parts"][3]["functionCall"]["args"] == {"input": "ls"}
    assert [loss.feature for loss in losses] == [
        "refusal",
        "content_part",
        "tool_call",
        "tool_call",
        "annotations",
    ]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (404, "NOT_FOUND"),
        (418, "FAILED_PRECONDITION"),
        (429, "RESOURCE_EXHAUSTED"),
        (502, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ],
)
def test_errors(status: int, word: str) -> None:
    error = {"message": "m", "type": "t", "param": "contents[0]", "code": "bad_value"}
    body = gemini.encode_error(status, error)["error"]
    assert (body["code"], body["status"], body["message"]) == (status, word, "m")
    assert body["details"][0]["reason"] == "BAD_VALUE"
    assert body["details"][0]["metadata"] == {"param": "contents[0]"}
    assert "details" not in gemini.encode_error(status, {"message": "m"})["error"]


# --- opaque data of others on its way through a client of Google's API ----------------------------

THOUGHT = Reasoning("I look.", signature="ant-sig")
OPAQUE = (THOUGHT, Text("ok"), ToolCall("c", "f", "{}", signature="call-sig"))


def next_turn(parts: list[Any]) -> dict[str, Any]:
    answer = {"role": "model", "parts": parts}
    return {
        "model": "m",
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            answer,
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
        ],
    }


def test_opaque_data_of_others_comes_back_as_it_was() -> None:
    told = gemini.encode_reply(reply(*OPAQUE, reason="tool_calls"), ENVELOPE)
    body = next_turn(told["candidates"][0]["content"]["parts"])
    assert gemini.decode_request(body).turns[1].parts == (
        replace(THOUGHT, origin="anthropic"),
        Text("ok"),
        replace(OPAQUE[2], origin="anthropic"),  # type: ignore[type-var]
    )
    # Gemini itself is not sent any of it.
    sent, losses = gemini.encode_request(gemini.decode_request(body), "gemini-3-flash")
    assert b"sig" not in orjson.dumps(sent).replace(DUMMY.encode(), b"")
    assert [loss.feature for loss in losses] == ["reasoning"]
    changed = foreign_opaque("gemini", body)
    assert changed is not None
    assert changed["contents"][1]["parts"] == [
        {"text": "ok"},
        {"functionCall": {"id": "c", "name": "f", "args": {}}, "thoughtSignature": DUMMY},
    ]


def test_opaque_data_of_others_comes_back_from_a_stream() -> None:
    encoder = gemini.StreamEncoder(ENVELOPE)
    found: list[Any] = [
        ReasoningDelta("I "),
        ReasoningDelta("look."),
        ReasoningDelta("", signature="ant-sig", origin="anthropic"),
        TextDelta("ok"),
        ToolCallStart(0, "c", "f", signature="call-sig", origin="anthropic"),
        ToolCallDelta(0, "{}"),
        ToolCallEnd(0),
        Finish("tool_calls"),
    ]
    wire = b"".join(encoder.encode(event) for event in found)
    parts = [
        part
        for payload, _ in payloads([wire])
        if payload is not None
        for part in payload["candidates"][0]["content"]["parts"]
    ]
    assert encoder.losses == []
    assert gemini.decode_request(next_turn(parts)).turns[1].parts == (
        replace(THOUGHT, origin="anthropic"),
        Text("ok"),
        replace(OPAQUE[2], origin="anthropic"),  # type: ignore[type-var]
    )


def test_a_seal_beside_another_text_is_of_no_use() -> None:
    told = gemini.encode_reply(reply(*OPAQUE, reason="tool_calls"), ENVELOPE)
    parts = told["candidates"][0]["content"]["parts"]
    parts[0]["text"] = "changed"
    parts[2]["functionCall"]["id"] = "d"
    turn = gemini.decode_request(next_turn(parts)).turns[1]
    assert turn.parts[0] == Reasoning("changed", origin="anthropic")
    assert isinstance(turn.parts[2], ToolCall)
    assert turn.parts[2].signature is None


@pytest.mark.parametrize("seal", ["YWlwcm94eS4", "YWlwcm94eS5nZW1pbmkucw==", "YWlwcm94eS!!"])
def test_broken_seals_are_nothing(seal: str) -> None:
    parts = [
        {"text": "a", "thought": True, "thoughtSignature": seal},
        {"text": "b", "thoughtSignature": seal},
        {"functionCall": {"name": "f"}, "thoughtSignature": seal},
    ]
    for part in gemini.decode_request(next_turn(parts)).turns[1].parts:
        assert part.signature is None  # type: ignore[union-attr]
