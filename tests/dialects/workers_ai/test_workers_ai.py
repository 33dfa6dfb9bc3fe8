"""The Workers AI dialect: what is sent, what comes back in its shapes, and what may go wrong."""

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
    Turn,
    Untranslatable,
    Usage,
    chat,
    workers_ai,
)

GOLDEN = Golden(Path(__file__).parent / "golden")
NAMES = GOLDEN.names
LLAMA = "@cf/meta/llama-3.3-70b-instruct-fp8-fast"


def sent(name: str, model: str = LLAMA, **more: Any) -> tuple[dict[str, Any], list[Loss]]:
    return workers_ai.encode_request(chat.decode_request({**conversations()[name], **more}), model)


# --- requests ------------------------------------------------------------------------------------


def test_the_model_is_in_the_path_as_it_is_written() -> None:
    assert workers_ai.target(LLAMA, True) == f"/run/{LLAMA}"
    assert workers_ai.target("a b?c#d", False) == "/run/a%20b%3Fc%23d"


def test_sampling_and_what_is_not_said() -> None:
    body, losses = sent("sampling", top_k=30)
    assert body == {
        "messages": [{"role": "user", "content": "Is it raining in Bern?"}],
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 30,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
    }
    assert features(losses) == {"stop"}
    _, losses = sent("stranger", n=2, logprobs=True, parallel_tool_calls=False)
    assert features(losses) == {
        "user", "metadata", "store", "service_tier", "n", "logprobs", "parallel_tool_calls"
    }  # fmt: skip


def test_answers_are_not_cut_at_256_tokens() -> None:
    assert sent("text")[0]["max_tokens"] == 2048


@pytest.mark.parametrize("name", list(conversations()))
def test_content_is_always_a_string(name: str) -> None:
    for message in sent(name)[0]["messages"]:
        assert isinstance(message["content"], str)


def test_a_round_of_calls() -> None:
    body, losses = sent("parallel")
    call, other = body["messages"][1]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city":"Bern"}'}
    assert body["messages"][1]["content"] == ""
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": call["id"], "content": "dry", "name": "get_weather"},
        {"role": "tool", "tool_call_id": other["id"], "content": "dry", "name": "get_weather"},
    ]
    assert losses == []


def test_tools_always_have_a_description() -> None:
    assert sent("tools")[0]["tools"][1]["function"] == {
        "name": "now",
        "description": "now",
        "parameters": {"type": "object", "properties": {}},
    }


def test_a_tool_named_is_the_only_one_offered() -> None:
    body, _ = sent("tool by name")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["now"]
    assert body["tool_choice"] == "required"


def test_a_schema_stands_bare_and_does_not_stream() -> None:
    body, losses = sent("schema", stream=True)
    assert body["response_format"]["json_schema"]["required"] == ["name", "age"]
    assert "stream" not in body
    assert features(losses) == {"strict"}
    assert sent("stream")[0]["stream"] is True


def test_images_only_to_models_that_see_and_only_as_data() -> None:
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    link = {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}}
    text = {"type": "text", "text": "What?"}
    body, losses = sent(
        "text",
        "@cf/meta/llama-4-scout-17b-16e-instruct",
        messages=[{"role": "user", "content": [text, data]}],
    )
    assert body["messages"][0]["content"] == [text, data]
    assert losses == []
    for model, part in ((LLAMA, data), ("@cf/meta/llama-4-scout-17b-16e-instruct", link)):
        with pytest.raises(Untranslatable, match="image"):
            sent("text", model, messages=[{"role": "user", "content": [text, part]}])


def test_its_own_members_may_be_written_by_a_chat_client() -> None:
    body, losses = sent("text", lora="mine", repetition_penalty=1.1, raw=True)
    assert (body["lora"], body["repetition_penalty"]) == ("mine", 1.1)
    assert features(losses) == {"raw"}


def test_reasoning_never_goes_back() -> None:
    turn = Turn("assistant", (Reasoning("Hm.", origin="workers_ai"), Text("Dry.")))
    body, losses = workers_ai.encode_request(CanonicalRequest("m", (turn,), "chat"), "m")
    assert body["messages"] == [{"role": "assistant", "content": "Dry."}]
    assert features(losses) == {"reasoning"}


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_streams_say_the_same_as_whole_answers(name: str) -> None:
    told = whole(workers_ai.decode_reply(GOLDEN.reply(name)))
    streamed = assembled(events(workers_ai, [GOLDEN.stream(name)]))
    assert streamed == told


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    wire = GOLDEN.stream(name)
    expected = payloads([wire])  # the decoder sees nothing else
    assert all(payloads(pieces) == expected for pieces in cuts(wire))


def test_the_golden_answers() -> None:
    text = whole(workers_ai.decode_reply(GOLDEN.reply("text")))[0]
    assert (text["text"], text["usage"]) == ("Grüße aus Bern 🐻", Usage(26, 11))
    calls = whole(workers_ai.decode_reply(GOLDEN.reply("calls")))[0]
    assert calls["calls"] == [
        ["", "get_weather", '{"city":"Bern"}'],
        ["", "get_weather", '{"city":"Thun"}'],
    ]
    assert calls["finish"] == ("tool_calls", None)
    found = whole(workers_ai.decode_reply(GOLDEN.reply("chat")))[0]
    assert found["calls"] == [["chatcmpl-tool-9", "now", '{"zone":"CET"}']]
    assert found["thoughts"] == ["Bern is dry."]
    assert found["usage"] == Usage(26, 11, 16)


@pytest.mark.parametrize(
    ("response", "text"),
    [({"name": "Ann", "age": 3}, '{"name":"Ann","age":3}'), (42, "42"), (["a"], '["a"]'), ("", "")],
)
def test_structured_output_may_be_an_object(response: Any, text: str) -> None:
    told = whole(workers_ai.decode_reply({"result": {"response": response}, "success": True}))
    assert told[0]["text"] == text


def test_answers_of_the_responses_shape() -> None:
    output = [
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Dry.", "annotations": []}],
        }
    ]
    body = {
        "result": {"object": "response", "status": "completed", "output": output},
        "success": True,
    }
    assert workers_ai.check_reply(body) is None
    assert whole(workers_ai.decode_reply(body))[0]["text"] == "Dry."


def test_bodies_that_nothing_wraps() -> None:
    assert whole(workers_ai.decode_reply({"response": "Dry."}))[0]["text"] == "Dry."


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {"success": False, "errors": [{"code": 7003, "message": "x"}], "result": None},
            "no success",
        ),
        ({"errors": [{"message": "x"}], "result": {"response": "a"}}, "errors"),
        ({"error": {"message": "x"}}, "error object"),
        ({"result": {}, "success": True}, "no response"),
        ({"result": {"choices": []}, "success": True}, "empty"),
        ({"result": {"choices": [{"finish_reason": "error", "message": {}}]}}, "ended in an error"),
    ],
)
def test_no_answer(body: Any, reason: str) -> None:
    assert reason in (workers_ai.check_reply(body) or "")
    with pytest.raises(MalformedReply):
        workers_ai.decode_reply(body)


def test_a_stream_without_its_end_is_cut() -> None:
    frames = GOLDEN.stream("text").split(b"\n\n")
    for length in range(len(frames) - 3):
        with pytest.raises(StreamCut):
            events(workers_ai, [b"\n\n".join(frames[:length]) + b"\n\n"])
    frames = GOLDEN.stream("chat").split(b"\n\n")
    with pytest.raises(StreamCut):
        events(workers_ai, [b"\n\n".join(frames[:5]) + b"\n\n"])


def test_done_ends_a_stream_without_usage() -> None:
    wire = b'data: {"response":"Dry.","p":"a"}\n\n'
    with pytest.raises(StreamCut):
        events(workers_ai, [wire])
    told = assembled(events(workers_ai, [wire + b"data: [DONE]\n\n"]))
    assert (told[0]["text"], told[0]["finish"]) == ("Dry.", ("stop", None))


def test_done_does_not_end_an_answer_that_has_a_reason_to_name() -> None:
    wire = b'data: {"choices":[{"delta":{"content":"Dry."}}]}\n\ndata: [DONE]\n\n'
    with pytest.raises(StreamCut):
        events(workers_ai, [wire])


def test_choices_may_lack_an_index_and_a_document_may_be_a_frame() -> None:
    wire = b'data: {"choices":[{"delta":{"content":"Dry."},"finish_reason":"stop"}]}\n\n'
    assert assembled(events(workers_ai, [wire]))[0]["text"] == "Dry."
    frame = b"data: " + json.dumps(GOLDEN.reply("text")).encode() + b"\n\n"
    assert assembled(events(workers_ai, [frame])) == whole(
        workers_ai.decode_reply(GOLDEN.reply("text"))
    )


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"errors":[{"code":3040,"message":"boom"}],"success":false}',
        b'data: {"error":"boom"}',
        b'data: {"success":false}',
        b'data: {"errors":["boom"]}',
        b'event: error\ndata: {"message":"boom"}',
    ],
)
def test_failures_inside_a_stream_end_it(frame: bytes) -> None:
    found = events(
        workers_ai, [b'data: {"response":"a"}\n\n', frame, b"\n\n", GOLDEN.stream("text")]
    )
    assert failure(found).message


# --- hostile input -------------------------------------------------------------------------------

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["result", "response", "tool_calls", "choices", "message", "delta", "content", "usage",
             "function", "name", "arguments", "index", "id", "finish_reason", "output", "errors",
             "error", "success", "p", "type", "text"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=24,
)  # fmt: skip
BODIES = st.dictionaries(
    st.sampled_from(["result", "response", "tool_calls", "choices", "usage", "output", "success"]),
    ODD,
    max_size=5,
)
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(BODIES)
def test_odd_replies(body: Any) -> None:
    for odd in (body, {"result": body}):
        workers_ai.read_usage(odd)
        try:
            workers_ai.decode_reply(odd)
        except MalformedReply:
            pass


@MANY
@given(st.lists(BODIES, max_size=6))
def test_odd_streams(frames: list[Any]) -> None:
    decoder = workers_ai.StreamDecoder()
    for frame in frames:
        decoder.feed(frame)
        decoder.feed({"result": frame})
    try:
        decoder.finish()
    except StreamCut:
        assert not decoder.complete
