"""The Mistral dialect: what is sent, what comes back whole and streamed, and what may go wrong."""

from itertools import pairwise
from pathlib import Path
from re import fullmatch
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
    Envelope,
    Loss,
    MalformedReply,
    Opaque,
    Reasoning,
    StreamCut,
    Text,
    Turn,
    Untranslatable,
    Usage,
    chat,
    mistral,
    responses,
)
from aiproxy.middleware.dialects.mistral.ids import fitting

GOLDEN = Golden(Path(__file__).parent / "golden")
NAMES = GOLDEN.names
FOLLOWS = {
    "system": {"user", "assistant", "system"},
    "user": {"assistant", "system", "user"},
    "assistant": {"assistant", "user", "tool"},
    "tool": {"assistant", "tool"},
}


def sent(name: str, **more: Any) -> tuple[dict[str, Any], list[Loss]]:
    return mistral.encode_request(chat.decode_request({**conversations()[name], **more}), "large")


# --- requests ------------------------------------------------------------------------------------


def test_sampling_keeps_its_names_but_two() -> None:
    body, losses = sent("sampling", top_k=30, logprobs=True, top_logprobs=2, metadata={"a": "b"})
    assert body == {
        "model": "large",
        "messages": [{"role": "user", "content": "Is it raining in Bern?"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 30,
        "max_tokens": 64,
        "random_seed": 7,
        "n": 1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["END"],
        "metadata": {"a": "b"},
    }
    assert losses == []


def test_the_limit_has_one_name_and_usage_is_not_asked_for() -> None:
    body, losses = sent("effort", stream=True, stream_options={"include_usage": True})
    assert (body["max_tokens"], body["reasoning_effort"], body["stream"]) == (4000, "low", True)
    assert not {"max_completion_tokens", "stream_options"} & set(body)
    assert losses == []


def test_members_of_neither_are_mistral_s_and_openai_s_are_told() -> None:
    own = {"safe_prompt": True, "prompt_mode": "reasoning", "guardrails": []}
    body, losses = sent(
        "text", **own, prompt_cache_key="k", logit_bias={"1": 1}, modalities=["text"]
    )
    assert {name: body[name] for name in own} == own
    assert body["prompt_cache_key"] == "k"
    assert features(losses) == {"logit_bias", "modalities"}
    _, losses = sent("stranger", verbosity="low")
    assert features(losses) == {"user", "store", "service_tier", "verbosity"}


def test_nothing_unknown_of_other_dialects_is_passed_on() -> None:
    asked = responses.decode_request({"model": "m", "input": "Hi", "truncation": "auto", "x": 1})
    body, losses = mistral.encode_request(asked, "m")
    assert set(body) == {"model", "messages"}
    assert features(losses) == {"truncation", "x"}


def test_any_tool_and_one_by_name() -> None:
    assert sent("tool required")[0]["tool_choice"] == "any"
    assert sent("tool none")[0]["tool_choice"] == "none"
    body, losses = sent("tool by name")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "now"}}
    assert len(body["tools"]) == 2
    assert losses == []


def test_ids_have_nine_letters_in_calls_and_results() -> None:
    body, losses = sent("parallel")
    calls = [call["id"] for call in body["messages"][1]["tool_calls"]]
    results = [message["tool_call_id"] for message in body["messages"][2:]]
    assert calls == results
    assert len(set(calls)) == 2
    assert all(fullmatch("[A-Za-z0-9]{9}", identity) for identity in calls)
    assert losses == []


@given(st.text(max_size=60))
def test_any_id_fits_and_always_the_same(identity: str) -> None:
    found = fitting(identity)
    assert fullmatch("[A-Za-z0-9]{9}", found)
    assert fitting(found) == found


def test_no_two_ids_become_one() -> None:
    assert len({fitting(f"call_{i}") for i in range(20_000)}) == 20_000


def test_developers_are_the_system() -> None:
    assert sent("developer")[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_late_system_message_moves_to_the_front() -> None:
    body, losses = sent("late system")
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert features(losses) == {"message_order"}


def test_a_user_does_not_follow_a_result() -> None:
    body, losses = sent("user after result")
    assert [m["role"] for m in body["messages"]] == [
        "user", "assistant", "tool", "assistant", "user"
    ]  # fmt: skip
    assert features(losses) == {"message_order"}


def test_an_answer_begun_is_to_be_continued() -> None:
    body, losses = sent("prefill")
    assert body["messages"][-1] == {"role": "assistant", "content": "No.", "prefix": True}
    assert losses == []


turns = st.sampled_from(
    [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": None},
        "round",
    ]
)


@given(st.lists(turns, min_size=1, max_size=9))
def test_the_order_is_always_one_mistral_takes(given_turns: list[Any]) -> None:
    messages = []
    for turn in given_turns:
        if turn == "round":
            messages += conversations()["round"]["messages"][1:]
        else:
            messages.append(turn)
    sent_messages = sent("text", messages=[{"role": "user", "content": "u"}, *messages])[0]
    roles = [message["role"] for message in sent_messages["messages"]]
    for before, after in pairwise(roles):
        assert after in FOLLOWS[before]
    last = sent_messages["messages"][-1]
    assert last["role"] in ("user", "tool") or last.get("prefix") is True


def test_parts_become_chunks() -> None:
    parts = [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a"}},
    ]
    body, losses = sent("text", messages=[{"role": "user", "content": parts}])
    assert body["messages"][0]["content"] == [
        parts[0],
        {"type": "image_url", "image_url": "https://e.org/a.png"},
        parts[2],
        {"type": "input_audio", "input_audio": "AAAA"},
        {
            "type": "document_url",
            "document_url": "data:application/pdf;base64,AA",
            "document_name": "a",
        },
    ]
    assert losses == []
    with pytest.raises(Untranslatable, match="file"):
        sent(
            "text",
            messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}],
        )


def test_thinking_goes_back_with_its_signature_to_mistral_only() -> None:
    thought = Reasoning("Hm.", signature="c2ln", origin="mistral")
    foreign = Reasoning("No!", signature="x", origin="anthropic")
    turn = Turn("assistant", (thought, foreign, Text("Dry.")))
    body, losses = mistral.encode_request(
        CanonicalRequest("m", (turn, Turn("user", (Text("Hi"),))), "chat"), "m"
    )
    assert body["messages"][0]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "c2ln"},
        {"type": "text", "text": "Dry."},
    ]
    assert losses == [Loss("reasoning", "opaque reasoning of anthropic does not travel to mistral")]


def test_a_schema_travels_whole() -> None:
    body, losses = sent("schema")
    assert body["response_format"] == conversations()["schema"]["response_format"]
    assert losses == []


def test_odd_parts_are_told() -> None:
    turn = Turn("user", (Opaque("chat", "video_url", {}), Text("Hi")))
    body, losses = mistral.encode_request(CanonicalRequest("m", (turn,), "chat"), "m")
    assert body["messages"][0]["content"] == "Hi"
    assert features(losses) == {"content_part"}
    turn = Turn("user", (Opaque("responses", "item_reference", {}),))
    with pytest.raises(Untranslatable, match="item_reference"):
        mistral.encode_request(CanonicalRequest("m", (turn,), "responses"), "m")


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_streams_say_the_same_as_whole_answers(name: str) -> None:
    told = whole(mistral.decode_reply(GOLDEN.reply(name)))
    assert assembled(events(mistral, [GOLDEN.stream(name)])) == told


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_may_be_cut_anywhere(name: str) -> None:
    wire = GOLDEN.stream(name)
    expected = payloads([wire])  # the decoder sees nothing else
    assert all(payloads(pieces) == expected for pieces in cuts(wire))


def test_the_golden_answers() -> None:
    text = whole(mistral.decode_reply(GOLDEN.reply("text")))[0]
    assert (text["text"], text["usage"]) == ("Grüße aus Bern 🐻", Usage(18, 42, 16))
    calls = whole(mistral.decode_reply(GOLDEN.reply("calls")))[0]
    assert calls["calls"] == [
        ["D681PevKs", "get_weather", '{"city": "Bern"}'],
        ["b7Zk20aQx", "get_weather", '{"city": "Thun"}'],
    ]
    assert calls["finish"] == ("tool_calls", None)
    thought = whole(mistral.decode_reply(GOLDEN.reply("thought")))[0]
    assert thought["thoughts"] == ["Bern is dry."]
    assert thought["signatures"] == ["c2ln"]
    assert thought["text"] == "It is dry in Bern."
    assert [a["file_id"] for a in thought["annotations"]] == ["0", "doc-1"]
    assert [a["index"] for a in thought["annotations"]] == [9, 9]
    assert thought["finish"] == ("length", "model_length")


def test_a_calls_round_trip_keeps_the_ids_mistral_made() -> None:
    said = chat.encode_reply(
        mistral.decode_reply(GOLDEN.reply("calls")), Envelope("chatcmpl-1", 1, "m")
    )
    message = said["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": c["id"], "content": "dry"} for c in message["tool_calls"]
    ]
    asked = [conversations()["text"]["messages"][0], message, *results]
    body, _ = sent("text", messages=asked)
    assert [c["id"] for c in body["messages"][1]["tool_calls"]] == ["D681PevKs", "b7Zk20aQx"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"object": "error", "message": "x", "type": "invalid_request_error"}, "error object"),
        ({"choices": []}, "empty"),
        ({"choices": [{"message": {}, "finish_reason": "error"}]}, "ended in an error"),
        ({"choices": [{"finish_reason": "stop"}]}, "message is missing"),
    ],
)
def test_no_answer(body: Any, reason: str) -> None:
    assert reason in (mistral.check_reply(body) or "")
    with pytest.raises(MalformedReply):
        mistral.decode_reply(body)


def test_a_stream_without_its_end_is_cut() -> None:
    wire = GOLDEN.stream("text")
    with pytest.raises(StreamCut):
        events(mistral, [wire[: wire.index(b'"finish_reason": "stop"') - 300]])


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"object":"error","message":"boom","type":"server_error","code":"1000"}',
        b'data: {"error":{"message":"boom"}}',
        b'event: error\ndata: {"message":"boom"}',
        b'data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"x"}]},"finish_reason":"error"}]}',
    ],
)
def test_failures_inside_a_stream_end_it(frame: bytes) -> None:
    begun = GOLDEN.stream("text").partition(b"\n\n")[0] + b"\n\n"
    found = events(mistral, [begun, frame, b"\n\n", GOLDEN.stream("text")])
    assert failure(found).message


# --- hostile input -------------------------------------------------------------------------------

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "delta", "message", "content", "tool_calls", "function", "index", "text",
             "thinking", "finish_reason", "reference_ids", "logprobs", "name", "arguments", "id"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=24,
)  # fmt: skip
CHUNKS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "thinking", "reference", "image_url", None])},
        optional={"text": ODD, "thinking": ODD, "reference_ids": ODD, "signature": ODD},
    ),
    max_size=4,
)
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(ODD | CHUNKS, ODD, ODD)
def test_odd_replies(content: Any, calls: Any, other: Any) -> None:
    message = {"content": content, "tool_calls": calls}
    body = {"choices": [{"message": message, "finish_reason": other, "logprobs": other}, other]}
    for given_body in (body, {"choices": body["choices"][:1]}, {"choices": other}):
        mistral.read_usage({"usage": other})
        try:
            mistral.decode_reply(given_body)
        except MalformedReply:
            pass


@MANY
@given(st.lists(st.tuples(ODD | CHUNKS, ODD, ODD), max_size=6))
def test_odd_streams(frames: list[tuple[Any, Any, Any]]) -> None:
    decoder = mistral.StreamDecoder()
    for content, calls, other in frames:
        delta = {"content": content, "tool_calls": calls}
        decoder.feed({"choices": [{"index": other, "delta": delta, "logprobs": other}]})
        decoder.feed({"choices": [other], "usage": other})
    try:
        decoder.finish()
    except StreamCut:
        assert not decoder.complete
