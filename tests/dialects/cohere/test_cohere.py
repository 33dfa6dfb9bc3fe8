"""The Cohere dialect: what is sent, what comes back whole and streamed, and what may go wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from egress import (
    Golden,
    assembled,
    conversations,
    cuts,
    events,
    failure,
    features,
    payloads,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    CanonicalRequest,
    Loss,
    MalformedReply,
    Reasoning,
    StreamCut,
    Text,
    ToolCall,
    Turn,
    Untranslatable,
    Usage,
    chat,
    cohere,
    responses,
)

GOLDEN = Golden(Path(__file__).parent / "golden")
NAMES = GOLDEN.names


def sent(name: str, **more: Any) -> tuple[dict[str, Any], list[Loss]]:
    return cohere.encode_request(chat.decode_request({**conversations()[name], **more}), "command")


# --- requests ------------------------------------------------------------------------------------


def test_the_target_is_the_same_for_streams() -> None:
    assert cohere.target("command-a", False) == cohere.target("command-a", True) == "/chat"


def test_sampling_has_other_names() -> None:
    body, losses = sent("sampling", top_k=30, logprobs=True)
    assert body == {
        "model": "command",
        "messages": [{"role": "user", "content": "Is it raining in Bern?"}],
        "temperature": 0.5,
        "p": 0.9,
        "k": 30,
        "max_tokens": 64,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logprobs": True,
        "seed": 7,
        "stop_sequences": ["END"],
    }
    assert losses == []


def test_values_out_of_range_are_brought_into_it_and_told() -> None:
    body, losses = sent("sampling", top_p=1, presence_penalty=-1, frequency_penalty=1.5, seed=-1)
    assert (body["p"], body["presence_penalty"], body["frequency_penalty"]) == (0.99, 0.0, 1.0)
    assert "seed" not in body
    assert features(losses) == {"top_p", "presence_penalty", "frequency_penalty", "seed"}


def test_what_cohere_has_no_word_for_is_told() -> None:
    _, losses = sent("stranger", n=2, verbosity="low", top_logprobs=2, logit_bias={"1": 1})
    assert features(losses) == {
        "user", "metadata", "store", "service_tier", "n", "verbosity", "top_logprobs", "logit_bias"
    }  # fmt: skip


def test_cohere_s_own_members_may_be_written_by_a_chat_client() -> None:
    body, losses = sent("text", documents=["a"], safety_mode="STRICT", priority=1)
    assert (body["documents"], body["safety_mode"], body["priority"]) == (["a"], "STRICT", 1)
    assert losses == []


def test_a_tool_named_is_the_only_one_offered() -> None:
    body, losses = sent("tool by name")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["now"]
    assert body["tool_choice"] == "REQUIRED"
    assert losses == []


def test_tools_without_parameters_get_an_empty_object() -> None:
    body, _ = sent("tools")
    assert "tool_choice" not in body
    assert body["tools"][1]["function"] == {
        "name": "now",
        "parameters": {"type": "object", "properties": {}},
    }


def test_strictness_is_one_word_for_all_tools() -> None:
    assert sent("strict tool")[0]["strict_tools"] is True
    tools = conversations()["strict tool"]["tools"] + conversations()["tools"]["tools"]
    body, losses = sent("text", tools=tools)
    assert "strict_tools" not in body
    assert features(losses) == {"strict"}


def test_hosted_and_custom_tools_are_told_or_refused() -> None:
    hosted = {"type": "web_search"}
    custom = {"type": "custom", "custom": {"name": "sh"}}
    body, losses = sent("text", tools=[hosted, custom])
    assert "tools" not in body
    assert features(losses) == {"hosted_tool", "custom_tool"}
    with pytest.raises(Untranslatable, match="tool_choice"):
        sent("text", tools=[hosted], tool_choice="required")
    with pytest.raises(Untranslatable, match="tool_choice"):
        sent("tools", tool_choice={"type": "function", "function": {"name": "gone"}})


def test_a_choice_among_some_tools_offers_these() -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    body, _ = sent("tools", tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["function"]["name"] for tool in body["tools"]] == ["now"]
    assert body["tool_choice"] == "REQUIRED"


def test_words_before_calls_are_the_plan() -> None:
    body, losses = sent("round with text")
    assert body["messages"][1] == {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_Zz91",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city":"Bern"}'},
            }
        ],
        "tool_plan": "Let me see.",
    }
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "call_Zz91", "content": "dry"}
    assert losses == []


def test_results_of_calls_without_ids_find_their_call() -> None:
    body, _ = sent("functions")
    call, result = body["messages"][1]["tool_calls"][0], body["messages"][2]
    assert call["id"] == result["tool_call_id"] == "call_0"


def test_reasoning_goes_back_to_cohere_only() -> None:
    body, losses = sent("reasoning turn")
    assert body["messages"][1] == {"role": "assistant", "content": "No."}
    assert losses == [Loss("reasoning", "earlier reasoning of chat does not travel to cohere")]
    turn = Turn("assistant", (Reasoning("Hm.", origin="cohere"), Text("No.")))
    asked = CanonicalRequest("m", (Turn("user", (Text("Hi"),)), turn), "chat")
    body, losses = cohere.encode_request(asked, "m")
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm."},
        {"type": "text", "text": "No."},
    ]
    assert losses == []


def test_opaque_signatures_stay_where_they_are_from() -> None:
    call = ToolCall("c", "f", "{}", signature="s3cret", origin="gemini")
    thought = Reasoning("", encrypted="s3cret", origin="responses")
    asked = CanonicalRequest("m", (Turn("assistant", (thought, call)),), "chat")
    body, losses = cohere.encode_request(asked, "m")
    assert "s3cret" not in json.dumps(body)
    assert {loss.detail for loss in losses} == {
        "opaque reasoning of gemini does not travel to cohere",
        "opaque reasoning of responses does not travel to cohere",
    }


def test_images_travel_by_url_and_by_data() -> None:
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    body, losses = sent("text", messages=[{"role": "user", "content": parts}])
    assert body["messages"][0]["content"] == parts
    assert losses == []


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, "audio"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA"}}, "file"),
    ],
)
def test_what_cohere_cannot_see_is_refused(part: Any, feature: str) -> None:
    with pytest.raises(Untranslatable, match=feature):
        sent("text", messages=[{"role": "user", "content": [part]}])


def test_a_schema_stands_bare_and_not_beside_tools() -> None:
    body, losses = sent("schema")
    assert body["response_format"]["type"] == "json_object"
    assert body["response_format"]["json_schema"]["required"] == ["name", "age"]
    assert losses == []
    with pytest.raises(Untranslatable, match="response_format"):
        sent("schema", tools=conversations()["tools"]["tools"])
    _, losses = sent("json", tools=conversations()["tools"]["tools"])
    assert features(losses) == {"response_format"}


def test_effort_is_a_budget_that_leaves_room() -> None:
    assert sent("effort")[0]["thinking"] == {"type": "enabled", "token_budget": 1024}
    assert sent("effort", max_completion_tokens=100)[0]["thinking"]["token_budget"] == 75
    assert sent("no effort")[0]["thinking"] == {"type": "disabled"}
    assert sent("effort", reasoning_effort="max")[0]["thinking"] == {"type": "enabled"}


def test_a_conversation_kept_elsewhere_is_refused() -> None:
    body = {"model": "m", "input": "Hi", "previous_response_id": "resp_1"}
    with pytest.raises(Untranslatable, match="previous_response_id"):
        cohere.encode_request(responses.decode_request(body), "m")


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_streams_say_the_same_as_whole_answers(name: str) -> None:
    told = whole(cohere.decode_reply(GOLDEN.reply(name)))
    assert assembled(events(cohere, [GOLDEN.stream(name)])) == told


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    wire = GOLDEN.stream(name)
    expected = payloads([wire])  # the decoder sees nothing else
    assert all(payloads(pieces) == expected for pieces in cuts(wire))


def test_the_golden_answers() -> None:
    text = whole(cohere.decode_reply(GOLDEN.reply("text")))[0]
    assert text["text"] == "Grüße aus Bern 🐻"
    assert text["usage"] == Usage(5, 9, 5)
    assert text["finish"] == ("stop", "COMPLETE")
    assert [token["logprob"] for token in text["logprobs"]] == [-0.75, -0.125]
    calls = whole(cohere.decode_reply(GOLDEN.reply("calls")))[0]
    assert calls["calls"] == [
        ["get_weather_k2v", "get_weather", '{"city":"Bern"}'],
        ["get_weather_p0x", "get_weather", '{"city":"Thun"}'],
    ]
    assert calls["thoughts"] == ["I will look up the weather in Bern and in Thun."]
    assert calls["finish"] == ("tool_calls", "TOOL_CALL")
    thought = whole(cohere.decode_reply(GOLDEN.reply("thought")))[0]
    assert thought["annotations"] == [
        {"type": "file_citation", "file_id": "get_weather_k2v:0", "filename": "get_weather_k2v:0",
         "index": 3},
        {"type": "url_citation", "url": "https://example.org/w", "title": "Weather",
         "start_index": 0, "end_index": 2},
    ]  # fmt: skip
    assert thought["other"] == ["citation"]
    assert thought["usage"] == Usage(20, 30)
    assert whole(cohere.decode_reply(GOLDEN.reply("cut")))[0]["finish"] == ("length", "MAX_TOKENS")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"message": "invalid api token"}, "error message"),
        ({"message": None}, "message is missing"),
        ({"finish_reason": "ERROR"}, "ended in an error"),
        ({"finish_reason": "TIMEOUT"}, "ended in an error"),
        ({"message": {"content": 3}}, "content is a number"),
        ({"error": {"message": "x"}}, "an error"),
    ],
)
def test_no_answer(change: Any, reason: str) -> None:
    body = {**GOLDEN.reply("text"), **change}
    assert reason in (cohere.check_reply(body) or "")
    with pytest.raises(MalformedReply, match=reason):
        cohere.decode_reply(body)


def test_a_stream_without_its_end_is_cut() -> None:
    wire = GOLDEN.stream("text")
    with pytest.raises(StreamCut):
        events(cohere, [wire[: wire.index(b"event: message-end")]])


@pytest.mark.parametrize(
    "frame",
    [
        b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"ERROR","error":"boom"}}',
        b'event: message-end\ndata: {"type":"message-end","delta":{"finish_reason":"TIMEOUT"}}',
        b'event: error\ndata: {"message":"boom"}',
        b'data: {"message":"boom","id":"x"}',
        b'data: {"error":{"message":"boom"}}',
    ],
)
def test_failures_inside_a_stream_end_it(frame: bytes) -> None:
    wire = GOLDEN.stream("text")
    begun = wire[: wire.index(b"event: message-end")]
    found = events(cohere, [begun, frame, b"\n\n", b'data: {"type":"content-delta"}\n\n'])
    assert failure(found).message
    assert sum(1 for event in found if type(event).__name__ == "StreamError") == 1


# --- hostile input -------------------------------------------------------------------------------

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "delta", "message", "content", "tool_calls", "function", "index", "usage",
             "text", "thinking", "finish_reason", "citations", "sources", "tokens", "logprobs",
             "billed_units", "input_tokens", "name", "arguments", "document", "id", "start"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=24,
)  # fmt: skip
KINDS = st.sampled_from(
    ["message-start", "content-start", "content-delta", "tool-plan-delta", "tool-call-start",
     "tool-call-delta", "tool-call-end", "citation-start", "message-end", "debug", None]
)  # fmt: skip
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(st.dictionaries(st.text(max_size=3), ODD, max_size=3), ODD, ODD, ODD)
def test_odd_replies(extra: Any, message: Any, usage: Any, reason: Any) -> None:
    body = {**extra, "message": message, "usage": usage, "finish_reason": reason, "logprobs": usage}
    cohere.read_usage(body)
    try:
        cohere.decode_reply(body)
    except MalformedReply:
        pass


@MANY
@given(st.lists(st.tuples(KINDS, ODD, ODD), max_size=8))
def test_odd_streams(frames: list[tuple[Any, Any, Any]]) -> None:
    decoder = cohere.StreamDecoder()
    for kind, delta, index in frames:
        decoder.feed({"type": kind, "delta": delta, "index": index, "logprobs": delta}, kind)
        decoder.feed({"type": kind, "delta": {"message": delta}, "index": index})
    try:
        decoder.finish()
    except StreamCut:
        assert not decoder.complete
