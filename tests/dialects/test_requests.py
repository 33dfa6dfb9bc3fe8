"""Requests: what chat can say survives the trip through the canonical form."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import MalformedRequest, chat, draft, responses
from aiproxy.spec import validate

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
schemas = st.fixed_dictionaries(
    {
        "type": st.just("object"),
        "properties": st.dictionaries(words, st.just({"type": "string"}), max_size=2),
    }
)
text_part = st.fixed_dictionaries({"type": st.just("text"), "text": words})
image_part = st.builds(
    lambda url, detail: {"type": "image_url", "image_url": {"url": url, **detail}},
    st.sampled_from(
        ["https://e.org/a.png", "data:image/png;base64,AAAA", "data:image/svg+xml;utf8,x"]
    ),
    st.sampled_from([{}, {"detail": "low"}]),
)
audio_part = st.just({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}})
file_part = st.just(
    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}}
)
odd_part = st.just({"type": "video_url", "video_url": {"url": "https://e.org"}})
user_parts = st.lists(
    st.one_of(text_part, image_part, audio_part, file_part, odd_part), min_size=1, max_size=3
)
named = st.one_of(st.just({}), st.builds(lambda n: {"name": n}, words))
cached = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])


def call(number: int, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


calls = st.lists(st.tuples(words, words), min_size=1, max_size=3).map(
    lambda pairs: {"tool_calls": [call(i, *pair) for i, pair in enumerate(pairs)]}
)
user = st.builds(
    lambda c, n, x: {"role": "user", "content": c, **n, **x},
    st.one_of(words, user_parts),
    named,
    cached,
)
system = st.builds(
    lambda r, c: {"role": r, "content": c}, st.sampled_from(["system", "developer"]), words
)
assistant = st.one_of(
    st.builds(
        lambda c: {"role": "assistant", "content": c},
        st.one_of(words, st.lists(text_part, min_size=1, max_size=2)),
    ),
    st.builds(
        lambda c, t: {"role": "assistant", **c, **t},
        st.sampled_from([{}, {"content": None}, {"content": "x"}]),
        calls,
    ),
    st.builds(lambda t: {"role": "assistant", "content": None, "refusal": t}, words),
    st.builds(lambda t: {"role": "assistant", "content": "x", "reasoning_content": t}, words),
    st.just(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    ),
    st.just({"role": "assistant", "audio": {"id": "a1"}}),
)
tool = st.one_of(
    st.builds(
        lambda c: {"role": "tool", "tool_call_id": "c0", "content": c},
        st.one_of(words, st.lists(text_part, min_size=1, max_size=2)),
    ),
    st.just({"role": "function", "name": "f", "content": "x"}),
)
numbers = st.floats(0, 2)
bodies = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(st.one_of(user, system, assistant, tool), min_size=1, max_size=5)},
    optional={
        "temperature": numbers,
        "top_p": st.floats(0, 1),
        "max_completion_tokens": st.integers(1, 99),
        "stop": st.one_of(words, st.lists(words, min_size=1, max_size=2)),
        "seed": st.integers(0, 9),
        "n": st.integers(1, 3),
        "presence_penalty": numbers,
        "frequency_penalty": numbers,
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 5),
        "user": words,
        "metadata": st.dictionaries(words, words, max_size=2),
        "service_tier": st.just("auto"),
        "reasoning_effort": st.sampled_from(["low", "high"]),
        "verbosity": st.just("low"),
        "stream": st.just(True),
        "stream_options": st.sampled_from([{"include_usage": True}, {"include_usage": True, "x": 1}]),
        "tools": st.lists(st.builds(lambda n, p: {"type": "function", "function": {"name": n, "parameters": p, "strict": True}}, words, schemas), min_size=1, max_size=2),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}]),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": True}}]),
        "logit_bias": st.just({"5": 1}),
        "x_custom": st.just({"a": [1]}),
        "top_k": st.integers(1, 9),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(body=bodies)
def test_chat_requests_come_back_as_they_went_in(body: dict[str, Any]) -> None:
    encoded, losses = chat.encode_request(chat.decode_request(body), "m")
    assert encoded == body
    assert losses == []


@settings(deadline=None, max_examples=100)
@given(body=bodies)
def test_what_the_two_dialects_share_survives_the_round_trip(body: dict[str, Any]) -> None:
    plain = {"model": "m", "messages": [m for m in body["messages"] if isinstance(m.get("content"), str) and set(m) == {"role", "content"}]}  # fmt: skip
    for name in ("temperature", "top_p", "max_completion_tokens", "user", "metadata", "service_tier",
                 "reasoning_effort", "verbosity", "tools", "parallel_tool_calls", "response_format"):  # fmt: skip
        if name in body and not (name == "parallel_tool_calls" and "tools" not in body):
            plain[name] = body[name]
    there, losses = responses.encode_request(chat.decode_request(plain), "m")
    assert losses == []
    back, losses = chat.encode_request(responses.decode_request(there), "m")
    assert {k: v for k, v in back.items() if k != "store"} == plain
    assert losses == []


@settings(deadline=None, max_examples=100)
@given(body=bodies)
def test_translated_requests_meet_the_request_schema(body: dict[str, Any]) -> None:
    messages = [m for m in body["messages"] if "audio" not in str(m)]
    if not messages:
        messages = [{"role": "user", "content": "x"}]
    there, _ = responses.encode_request(chat.decode_request({**body, "messages": messages}), "m")
    validate(there, "requests/responses")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": [3]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": 5}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        (
            {"model": "m", "messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
        ),
        ({"model": "m", "messages": [], "temperature": []}, "temperature"),
        ({"model": "m", "messages": [], "stream": "yes"}, "stream"),
        ({"model": "m", "messages": [], "n": 1.5}, "n"),
        ({"model": "m", "messages": [], "stop": [1]}, "stop[0]"),
        ({"model": "m", "messages": [], "tools": [{"type": "function"}]}, "tools[0].function"),
        (
            {
                "model": "m",
                "messages": [],
                "tools": [{"type": "custom", "custom": {"name": "f", "format": True}}],
            },
            "tools[0].custom.format",
        ),
    ],
)
def test_unreadable_chat_bodies_name_the_member(body: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as fault:
        chat.decode_request(body)
    assert fault.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a"}, "model"),
        ({"model": "m", "input": 5}, "input"),
        ({"model": "m", "input": [5]}, "input[0]"),
        ({"model": "m", "input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"model": "m", "input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"model": "m", "input": "a", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"model": "m", "input": "a", "text": {"format": 5}}, "text.format"),
        (
            {"model": "m", "input": "a", "tools": [{"type": "custom", "name": "f", "format": 5}]},
            "tools[0].format",
        ),
    ],
)
def test_unreadable_responses_bodies_name_the_member(body: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as fault:
        responses.decode_request(body)
    assert fault.value.param == param


@pytest.mark.parametrize(
    "pair",
    [
        ("messages", "input"),
        ("response_format", "text"),
        ("max_completion_tokens", "max_output_tokens"),
    ],
)
def test_one_thing_in_two_spellings_is_refused(pair: tuple[str, str]) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], pair[0]: 5, pair[1]: 5}
    with pytest.raises(MalformedRequest) as fault:
        draft.decode_request(body)
    assert fault.value.param == pair[0]


def test_auto_words_are_named_and_never_sent() -> None:
    request = draft.decode_request(
        {
            "model": "auto",
            "messages": [{"role": "user", "content": "x"}],
            "tools": "auto",
            "reasoning": "auto",
            "max_completion_tokens": "auto",
            "response_format": "auto",
        }
    )
    assert request.auto == {
        "model",
        "tools",
        "reasoning",
        "max_completion_tokens",
        "response_format",
    }
    for encode in (chat.encode_request, responses.encode_request):
        body, losses = encode(request, "m")
        assert "auto" not in str(body)
        assert losses == []


def test_unknown_items_pass_through_their_own_dialect() -> None:
    body = {
        "model": "m",
        "input": [
            {"role": "user", "content": "x"},
            {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"a": 1}},
            {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "z"},
            {"type": "message", "role": "assistant", "id": "msg", "status": "completed",
             "content": [{"type": "output_text", "text": "t", "annotations": []}]},
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "x"}},
        ],
        "tools": [{"type": "mcp", "server_label": "s"}],
        "tool_choice": {"type": "mcp", "server_label": "s"},
        "previous_response_id": "r",
        "x_custom": 1,
    }  # fmt: skip
    encoded, losses = responses.encode_request(responses.decode_request(body), "m")
    encoded["input"][0].pop("type")
    assert encoded == body
    assert losses == []
