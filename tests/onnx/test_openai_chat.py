"""OpenAI bodies read: every field that counts, and a refusal that names the one at fault."""

from typing import Any

import pytest

from aiproxy.reference_server.onnx import (
    ContextOverflow,
    EngineClosed,
    GenerationFailed,
    GenerationRequest,
    LocalBusy,
    Message,
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
    Sampling,
)
from aiproxy.reference_server.onnx.openai_chat import error_object, read_chat, read_completion
from aiproxy.spec import schema, validate

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> Any:
    return read_chat({"model": "demo", "messages": HELLO, **fields}, Sampling())


def test_every_generation_field_is_taken_over() -> None:
    task = chat(
        max_tokens=9,
        stop=["a", "b"],
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=-1,
        presence_penalty=1,
        frequency_penalty=-1,
        stream=True,
        stream_options={"include_usage": True},
    )
    sampling = Sampling(0.5, 0.9, 3, 2**64 - 1, 1, -1)
    assert task.request == GenerationRequest((Message("user", "hello"),), 9, ("a", "b"), sampling)
    assert (task.stream, task.include_usage) == (True, True)


def test_absent_and_null_fields_mean_the_usual() -> None:
    names = (
        "stop",
        "temperature",
        "top_p",
        "seed",
        "n",
        "tools",
        "stream",
        "max_tokens",
        "logprobs",
    )
    assert chat(**dict.fromkeys(names)) == chat()
    assert chat().request == GenerationRequest((Message("user", "hello"),))
    assert not chat().stream


def test_the_models_own_sampling_counts_where_the_client_is_silent() -> None:
    body = {"messages": HELLO, "top_p": 0.5}
    task = read_chat(body, Sampling(temperature=0.7))
    assert task.request.sampling == Sampling(temperature=0.7, top_p=0.5)


def test_max_completion_tokens_wins_over_its_old_name() -> None:
    assert chat(max_completion_tokens=5, max_tokens=9).request.max_tokens == 5


def test_fields_that_change_nothing_pass() -> None:
    harmless = {"n": 1, "tools": [], "logprobs": False, "response_format": {"type": "text"}}
    assert chat(**harmless, user="me", metadata={"a": "b"}, modalities=["text"]) == chat()


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    task = read_chat({"messages": messages}, Sampling())
    read = (Message("system", "be kind"), Message("assistant", ""), Message("user", "ab"))
    assert task.request.messages == read


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": None}, "missing_required_parameter", "messages"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "hi"}, "invalid_value", "messages"),
        ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, "invalid_type", "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            "invalid_type",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "unsupported_capability",
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
            "invalid_type",
            "messages[0].content[0].text",
        ),
        ({"messages": [*HELLO, {"role": "tool"}]}, "unsupported_capability", "messages[1].role"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"logit_bias": {"1": 5}}, "unsupported_parameter", "logit_bias"),
        ({"tools": [{"type": "function"}]}, "unsupported_capability", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_capability", "response_format"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": True}, "invalid_value", "max_tokens"),
        ({"max_completion_tokens": 1.5}, "invalid_value", "max_completion_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
        ({"stop": [""]}, "invalid_value", "stop"),
        ({"stop": 5}, "invalid_value", "stop"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": "hot"}, "invalid_value", "temperature"),
        ({"temperature": float("nan")}, "invalid_value", "temperature"),
        ({"top_p": -0.1}, "invalid_value", "top_p"),
        ({"top_k": 1.5}, "invalid_value", "top_k"),
        ({"seed": 1.5}, "invalid_value", "seed"),
        ({"seed": 2**70}, "invalid_value", "seed"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"stream_options": 3}, "invalid_value", "stream_options"),
    ],
)
def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        chat(**fields)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, param)
    validate(error_object(refusal.value), "error-emitted")


def test_every_error_has_the_status_and_type_the_specification_gives_its_code() -> None:
    table = schema("error")["x-aiproxy-errors"]
    errors = [
        GenerationFailed(),
        LocalBusy(1, 2),
        EngineClosed(),
        ModelUnavailable("x"),
        ModelNotFound("x", ()),
        ContextOverflow(1, 2),
    ]
    for error in errors:
        row = table[error.code]
        assert error.status in row["statuses"]
        assert error_object(error)["error"]["type"] == row["type"]


def test_a_completion_prompt_is_read_as_a_question() -> None:
    for prompt in ("hello", ["hello"]):
        assert read_completion({"prompt": prompt, "max_tokens": 4}, Sampling()).request == (
            GenerationRequest((Message("user", "hello"),), 4)
        )


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": [1, 2]}, "invalid_value", "prompt"),
        ({"prompt": "a", "echo": True}, "unsupported_parameter", "echo"),
        ({"prompt": "a", "suffix": "b"}, "unsupported_parameter", "suffix"),
        ({"prompt": "a", "best_of": 3}, "unsupported_parameter", "best_of"),
    ],
)
def test_a_completion_that_cannot_be_honoured(
    fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(RequestRefused) as refusal:
        read_completion(fields, Sampling())
    assert (refusal.value.code, refusal.value.param) == (code, param)
