"""Whole answers, both ways, and errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from aiproxy.middleware.dialects import (
    CanonicalReply,
    Choice,
    Envelope,
    Loss,
    MalformedReply,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
    anthropic,
    chat,
    responses,
)
from aiproxy.middleware.dialects.canonical import Audio, Opaque
from aiproxy.middleware.dialects.seals import seal_call

WHOLE = sorted((Path(__file__).parent / "streams").glob("*.json"))
NAMED = pytest.mark.parametrize("path", WHOLE, ids=[path.stem for path in WHOLE])


def answer(*content: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"type": "message", "content": list(content), "stop_reason": "end_turn", **members}


def reply(
    *parts: Any, reason: Any = "stop", source: str = "chat", **members: Any
) -> CanonicalReply:
    return CanonicalReply((Choice(parts, reason),), source, **members)


@NAMED
def test_recorded_answers_are_told_again_as_they_were(path: Path, envelope: Envelope) -> None:
    body = json.loads(path.read_text())
    losses: list[Loss] = []
    told = anthropic.encode_reply(anthropic.decode_reply(body), envelope, losses)
    assert losses == []
    assert told["id"] == "msg_0123abcd"
    assert told["model"] == "auto"
    for name in ("stop_reason", "stop_sequence"):
        expected = "end_turn" if path.stem == "answer_tool" else body["stop_reason"]
        assert told[name] == (expected if name == "stop_reason" else body[name])
    assert told["usage"] == body["usage"]
    if path.stem not in ("answer_tool", "search_and_citations"):
        assert told["content"] == body["content"]


@NAMED
def test_recorded_answers_are_valid_elsewhere(path: Path, envelope: Envelope) -> None:
    found = anthropic.decode_reply(json.loads(path.read_text()))
    ChatCompletion.model_validate(chat.encode_reply(found, envelope))
    Response.model_validate(responses.encode_reply(found, envelope))


def test_what_a_recorded_answer_says() -> None:
    found = anthropic.decode_reply(
        json.loads((WHOLE[0].parent / "search_and_citations.json").read_text())
    )
    assert found.usage == Usage(39, 20, 6, 3)
    assert found.extra == {
        "server_tool_use": {"web_search_requests": 1},
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
    }
    assert found.service_tier == "default"
    link = {
        "type": "url_citation",
        "url": "https://e.org/ä",
        "title": "T",
        "start_index": 6,
        "end_index": 11,
    }
    assert found.choices[0].parts[-1] == Text("It is green.", (link,))


def test_a_refusal_says_so() -> None:
    found = anthropic.decode_reply(answer(stop_reason="refusal")).choices[0]
    assert found.finish_reason == "content_filter"
    assert found.parts == (Refusal("The model declined to answer."),)


def test_a_cut_answer_that_was_refused_says_what_it_said() -> None:
    body = answer({"type": "text", "text": "Hel"}, stop_reason="refusal")
    assert anthropic.decode_reply(body).choices[0].parts == (Text("Hel"),)
    body["stop_details"] = {"type": "refusal", "explanation": "No."}
    assert anthropic.decode_reply(body).choices[0].parts == (Text("Hel"), Refusal("No."))


def test_the_five_reasons_and_the_native_word() -> None:
    told = {}
    for native in ("end_turn", "max_tokens", "tool_use", "pause_turn", "refusal", "strange", None):
        choice = anthropic.decode_reply(answer({"type": "text", "text": "a"}, stop_reason=native))
        told[native] = (choice.choices[0].finish_reason, choice.choices[0].native_finish_reason)
    assert told == {
        "end_turn": ("stop", "end_turn"),
        "max_tokens": ("length", "max_tokens"),
        "tool_use": ("stop", "tool_use"),
        "pause_turn": ("stop", "pause_turn"),
        "refusal": ("content_filter", "refusal"),
        "strange": ("stop", "strange"),
        None: ("stop", None),
    }


def test_calls_of_custom_and_legacy_tools_are_turned_back() -> None:
    body = answer(
        {"type": "tool_use", "id": "a", "name": "sql", "input": {"input": "SELECT 1"}},
        {"type": "tool_use", "id": "b", "name": "old", "input": {"x": 1}},
        stop_reason="tool_use",
    )
    found = anthropic.decode_reply(body, {"sql": "custom", "old": "legacy_function"})
    assert found.choices[0].parts == (
        ToolCall("a", "sql", "SELECT 1", "custom"),
        ToolCall("b", "old", '{"x":1}', "legacy_function"),
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"type": "error", "error": {"type": "api_error"}}, "the body holds an error object"),
        ({}, "content is missing"),
        (answer(stop_reason=None), "content is empty"),
        ({"content": [3]}, "content[0] is not an object"),
        (answer({"type": "text", "text": 3}), None),
    ],
)
def test_bodies_that_are_no_answer(body: dict[str, Any], reason: str | None) -> None:
    assert anthropic.check_reply(body) == reason
    with pytest.raises(MalformedReply):
        anthropic.decode_reply(body)


def test_an_empty_answer_is_one() -> None:
    assert anthropic.check_reply(answer()) is None
    assert anthropic.decode_reply(answer()).choices[0].parts == ()


def test_usage_is_inclusive() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    assert anthropic.read_usage({"usage": usage}) == Usage(18, 9, 5, 3, 4)
    assert anthropic.read_usage({"usage": {"input_tokens": "x"}}) is None


def test_answers_from_elsewhere(envelope: Envelope) -> None:
    losses: list[Loss] = []
    given = reply(
        Reasoning("hm"),
        Reasoning("why", encrypted="zz", origin="responses"),
        Reasoning(encrypted="yy", origin="responses"),
        Text("so"),
        ToolCall("", "f", "", signature="sig", origin="gemini"),
        Audio("AA=="),
        Opaque("responses", "image_generation_call", {}),
        reason="tool_calls",
        usage=Usage(20, 7, 5, 1, 2),
        service_tier="flex",
    )
    body = anthropic.encode_reply(given, envelope, losses)
    assert body["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "aiproxy.chat"},
        {"type": "thinking", "thinking": "why", "signature": "aiproxy.responses.e.zz"},
        {"type": "redacted_thinking", "data": "aiproxy.responses.e.yy"},
        {"type": "text", "text": "so"},
        {"type": "redacted_thinking", "data": seal_call("gemini", "call_0123abcd_0", "sig")},
        {"type": "tool_use", "id": "call_0123abcd_0", "name": "f", "input": {}},
    ]
    assert body["stop_reason"] == "tool_use"
    assert body["usage"] == {
        "input_tokens": 14,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 5,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    assert [loss.feature for loss in losses] == ["content_part", "item"]


def test_what_a_client_sends_back_is_known_again(envelope: Envelope) -> None:
    said = (
        Reasoning("why", encrypted="zz", origin="responses"),
        Reasoning(encrypted="yy", origin="responses"),
        Reasoning("hm", signature="s", origin="gemini"),
        Reasoning("plain", origin="chat"),
        Text("so", signature="t", origin="gemini"),
        ToolCall("c", "f", "{}", signature="sig", origin="gemini"),
    )
    told = anthropic.encode_reply(reply(*said, reason="tool_calls"), envelope)
    back = {"model": "m", "messages": [{"role": "assistant", "content": told["content"]}]}
    assert anthropic.decode_request(back).turns[0].parts == said


def test_a_refusal_from_elsewhere(envelope: Envelope) -> None:
    body = anthropic.encode_reply(reply(Refusal("No.")), envelope)
    assert (body["content"], body["stop_reason"]) == ([{"type": "text", "text": "No."}], "refusal")


def test_broken_arguments_are_never_made_up(envelope: Envelope) -> None:
    cut = reply(Text("a"), ToolCall("c", "f", '{"x'), reason="length")
    losses: list[Loss] = []
    body = anthropic.encode_reply(cut, envelope, losses)
    assert [block["type"] for block in body["content"]] == ["text"]
    assert [loss.feature for loss in losses] == ["tool_call"]
    with pytest.raises(MalformedReply):
        anthropic.encode_reply(
            replace(cut, choices=(replace(cut.choices[0], finish_reason="tool_calls"),)), envelope
        )


def test_answers_meet_the_official_sdk(
    tmp_path: Path, envelope: Envelope, tools: dict[str, Any]
) -> None:
    link = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    told = [
        reply(Text("a", (link,)), usage=Usage(3, 2)),
        reply(Reasoning("hm"), ToolCall("c", "f", '{"x":1}'), reason="tool_calls"),
        reply(Refusal("No."), reason="content_filter"),
        reply(reason="length"),
        replace(reply(Text("a")), choices=(Choice((Text("a"),), "stop", stop_sequence="E"),)),
        *(anthropic.decode_reply(json.loads(path.read_text())) for path in WHOLE),
    ]
    entries = [{"as": "message", "value": anthropic.encode_reply(each, envelope)} for each in told]
    error = {"message": "m", "type": "t", "param": "p", "code": "c"}
    for status in (400, 401, 402, 403, 404, 422, 429, 500, 503, 504, 529):
        entries.append({"as": "error", "value": anthropic.encode_error(status, error)})
    entries.append({"as": "count", "value": anthropic.encode_count(3)})
    verdicts = tools["judge"](entries, tmp_path)
    assert {i: verdict for i, verdict in enumerate(verdicts) if verdict} == {}


def test_errors_keep_their_code_and_place() -> None:
    error = {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}
    assert anthropic.encode_error(422, error) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "m", "code": "c", "param": "p"},
    }
    kinds = {s: anthropic.encode_error(s, {})["error"]["type"] for s in (413, 429, 503, 502, 418)}
    assert kinds == {
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
        502: "api_error",
        418: "invalid_request_error",
    }
