"""Completions: a prompt answered by a chat provider, told as the text the client expects."""

from typing import Any

import orjson
import pytest
from egress import assembled, events, failure, payloads, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    AudioDelta,
    CanonicalReply,
    CanonicalRequest,
    Choice,
    Envelope,
    Finish,
    Loss,
    MalformedReply,
    MalformedRequest,
    Opaque,
    OpaqueItem,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    StreamCut,
    Text,
    TextDelta,
    ToolCall,
    ToolCallStart,
    Turn,
    Untranslatable,
    Usage,
    UsageEvent,
    chat,
    completions,
    mistral,
)

TOKENS = (
    {"token": "Dry", "logprob": -0.5, "bytes": [68, 114, 121],
     "top_logprobs": [{"token": "Dry", "logprob": -0.5}, {"token": "Wet", "logprob": -1.5}]},
    {"token": ".", "logprob": -0.25, "bytes": [46], "top_logprobs": []},
)  # fmt: skip
USAGE = Usage(3, 2)


def envelope(**changes: Any) -> Envelope:
    request = {"prompt": "Weather? ", **changes}
    return Envelope("cmpl-1", 1_790_000_000, "auto", request, include_usage=bool(changes.get("u")))


def asked(**body: Any) -> CanonicalRequest:
    return completions.decode_request({"model": "m", "prompt": "Weather?", **body})


# --- requests ------------------------------------------------------------------------------------


def test_a_prompt_is_a_user_s_turn() -> None:
    body, losses = chat.encode_request(asked(max_tokens=5, stop="\n", logprobs=2), "gpt")
    assert body == {
        "model": "gpt",
        "messages": [{"role": "user", "content": "Weather?"}],
        "max_tokens": 5,
        "stop": "\n",
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert losses == []
    assert mistral.encode_request(asked(seed=3), "m")[0]["random_seed"] == 3


def test_the_limit_is_16_unless_said_otherwise() -> None:
    assert asked().sampling.max_tokens == 16
    assert asked(max_tokens=None).sampling.max_tokens == 16
    auto = asked(max_tokens="auto", model="auto")
    assert (auto.sampling.max_tokens, auto.auto) == (None, frozenset({"model", "max_tokens"}))


def test_one_prompt_in_a_list_is_that_prompt() -> None:
    assert asked(prompt=["Hi"]) == asked(prompt="Hi")


@pytest.mark.parametrize(
    ("body", "feature"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"suffix": "the end"}, "suffix"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
    ],
)
def test_what_only_a_completions_api_can_do(body: Any, feature: str) -> None:
    with pytest.raises(Untranslatable) as found:
        asked(**body)
    assert found.value.feature == feature


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": [None]}, "prompt[0]"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"model": 1}, "model"),
        ({"stop": [1]}, "stop[0]"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"echo": 1}, "echo"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_malformed_requests_name_the_member(body: Any, param: str) -> None:
    with pytest.raises(MalformedRequest) as found:
        asked(**body)
    assert found.value.param == param


def test_what_chat_has_no_word_for_is_told() -> None:
    body, losses = chat.encode_request(asked(best_of=3, logit_bias={"1": 1}, echo=True), "m")
    assert {loss.feature for loss in losses} == {"best_of", "logit_bias"}
    assert not {"best_of", "logit_bias", "echo"} & set(body)
    assert chat.encode_request(asked(best_of=1, suffix="", echo=False), "m")[1] == []


def test_only_its_own_requests_are_written_in_it() -> None:
    given_body = {
        "model": "m", "prompt": "Weather?", "max_tokens": 5, "temperature": 0.5, "top_p": 0.5,
        "seed": 3, "n": 2, "presence_penalty": 0.5, "frequency_penalty": 0.5, "logprobs": 0,
        "user": "u", "stop": ["a", "b"], "stream": True, "best_of": 4,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert completions.encode_request(completions.decode_request(given_body), "m") == (
        given_body,
        [],
    )
    with pytest.raises(Untranslatable, match="conversation"):
        completions.encode_request(CanonicalRequest("m", (Turn("user", ()),), "chat"), "m")
    assert completions.target("m", True) == "/completions"


# --- answers -------------------------------------------------------------------------------------


def test_an_answer_is_a_text_completion() -> None:
    reply = CanonicalReply((Choice((Text("Dry.", (), TOKENS),), "stop"),), "chat", USAGE)
    body = completions.encode_reply(reply, envelope(), losses := [])
    assert losses == []
    assert body["choices"] == [
        {
            "text": "Dry.",
            "index": 0,
            "logprobs": {
                "tokens": ["Dry", "."],
                "token_logprobs": [-0.5, -0.25],
                "top_logprobs": [{"Dry": -0.5, "Wet": -1.5}, {}],
                "text_offset": [0, 3],
            },
            "finish_reason": "stop",
        }
    ]
    Completion.model_validate(body)
    back = completions.decode_reply(body)
    assert back.choices[0].parts[0] == Text("Dry.", (), _rounded(TOKENS))
    assert back.usage == USAGE


def _rounded(tokens: Any) -> Any:
    """Rivals of a token come back with their bytes, which this dialect does not have."""
    return tuple(
        {
            **token,
            "top_logprobs": [
                {**t, "bytes": list(t["token"].encode())} for t in token["top_logprobs"]
            ],
        }
        for token in tokens
    )


def test_an_echo_comes_first() -> None:
    reply = CanonicalReply((Choice((Text("Dry."),), "length"),), "chat")
    body = completions.encode_reply(reply, envelope(echo=True))
    assert body["choices"][0]["text"] == "Weather? Dry."
    wire = _encoded([TextDelta("Dry", 0, TOKENS[:1]), TextDelta("."), Finish("stop")], echo=True)
    frames = [frame for frame, _ in payloads([wire]) if frame]
    assert [frame["choices"][0]["text"] for frame in frames] == ["Weather? Dry", ".", ""]
    assert frames[0]["choices"][0]["logprobs"]["text_offset"] == [9]


def test_what_a_completion_cannot_show_is_told() -> None:
    parts = (
        Reasoning("Hm."), Refusal("No. "), Text("Dry.", ({"type": "url_citation"},)),
        ToolCall("c", "f", "{}"), Opaque("x", "y", {}),
    )  # fmt: skip
    reply = CanonicalReply((Choice(parts, "tool_calls"),), "chat")
    losses: list[Loss] = []
    body = completions.encode_reply(reply, envelope(), losses)
    assert body["choices"][0]["text"] == "No. Dry."
    assert body["choices"][0]["finish_reason"] == "stop"
    expected = {"reasoning", "refusal", "annotations", "tool_calls", "content_part"}
    assert {loss.feature for loss in losses} == expected
    encoder = completions.StreamEncoder(envelope())
    for event in (
        ReasoningDelta("Hm."), RefusalDelta("No. "), TextDelta("Dry."),
        AnnotationDelta({"type": "url_citation"}), ToolCallStart(0, "c", "f"),
        OpaqueItem("x", "y", {}), AudioDelta("AA"),
    ):  # fmt: skip
        encoder.encode(event)
    assert {loss.feature for loss in encoder.losses} == expected


def _encoded(found: list[Any], extra: Any = None, **changes: Any) -> bytes:
    encoder = completions.StreamEncoder(envelope(**changes))
    return b"".join(encoder.encode(event) for event in found) + encoder.finish(extra)


def test_a_stream_is_told_in_text_completion_frames() -> None:
    said = [TextDelta("Dry"), TextDelta("Wet", 1), TextDelta("."), Finish("stop"),
            Finish("length", 1), UsageEvent(USAGE)]  # fmt: skip
    wire = _encoded(said, {"x-aiproxy": {"provider": "a"}}, u=True)
    assert wire.endswith(b"data: [DONE]\n\n")
    frames = [frame for frame, _ in payloads([wire]) if frame]
    for frame in frames:
        assert frame["object"] == "text_completion"
        assert frame["id"] == "cmpl-1"
    assert [f["choices"][0]["finish_reason"] for f in frames[-3:-1]] == ["stop", "length"]
    assert frames[-1]["usage"]["total_tokens"] == 5
    assert frames[-1]["x-aiproxy"] == {"provider": "a"}
    told = assembled(events(completions, [wire]))
    assert {i: (one["text"], one["finish"][0]) for i, one in told.items()} == {
        0: ("Dry.", "stop"),
        1: ("Wet", "length"),
    }
    plain = [f for f, _ in payloads([_encoded(said, {"x": 1})]) if f]
    assert "usage" not in plain[-1]
    assert plain[-1]["x"] == 1


def test_an_ending_is_never_made_up() -> None:
    encoder = completions.StreamEncoder(envelope())
    encoder.encode(TextDelta("Dry"))
    with pytest.raises(StreamCut):
        encoder.finish()
    frame = encoder.fail({"message": "m", "type": "t", "param": None, "code": "c"})
    assert orjson.loads(frame[6:])["error"]["code"] == "c"
    error = {"message": "m", "type": "t", "param": None, "code": None}
    assert completions.encode_error(400, error) == {"error": error}


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 1)), min_size=1, max_size=8))
def test_a_stream_put_together_is_the_whole_answer(said: list[tuple[str, int]]) -> None:
    count = 1 + max(choice for _, choice in said)
    finishes = [Finish("stop", choice) for choice in range(count)]
    wire = _encoded([*(TextDelta(text, choice) for text, choice in said), *finishes])
    texts = ["".join(t for t, c in said if c == choice) for choice in range(count)]
    choices = tuple(Choice((Text(text),), "stop", i) for i, text in enumerate(texts))
    body = completions.encode_reply(CanonicalReply(choices, "chat"), envelope())
    assert assembled(events(completions, [wire])) == whole(completions.decode_reply(body))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"text": 3}]},
        {"choices": [{"text": "a", "finish_reason": "error"}]},
        {"error": {"message": "x"}},
    ],
)
def test_no_answer(body: Any) -> None:
    with pytest.raises(MalformedReply):
        completions.decode_reply(body)


def test_failures_inside_a_stream_end_it() -> None:
    frames = b'data: {"choices":[{"text":"a"}]}\n\ndata: {"error":{"message":"boom"}}\n\n'
    assert failure(events(completions, [frames])).message == "boom"


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["text", "index", "logprobs", "tokens", "token_logprobs", "top_logprobs",
                         "finish_reason", "choices", "usage", "error"]),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip
MANY = settings(max_examples=300, deadline=None)


@MANY
@given(st.dictionaries(
    st.sampled_from(["prompt", "suffix", "echo", "logprobs", "stop", "n", "max_tokens", "best_of",
                     "user", "seed", "stream", "stream_options", "temperature", "x"]),
    ODD,
    max_size=5,
))  # fmt: skip
def test_odd_requests(body: Any) -> None:
    try:
        chat.encode_request(completions.decode_request({"model": "m", **body}), "m")
    except (MalformedRequest, Untranslatable):
        pass


@MANY
@given(st.lists(ODD, max_size=4), ODD)
def test_odd_answers(choices: Any, usage: Any) -> None:
    body = {"choices": choices, "usage": usage}
    try:
        completions.decode_reply(body)
    except MalformedReply:
        pass
    decoder = completions.StreamDecoder()
    for choice in choices:
        decoder.feed({"choices": [choice], "usage": usage})
    try:
        decoder.finish()
    except StreamCut:
        assert not decoder.complete
