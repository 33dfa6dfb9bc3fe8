"""OpenAI bodies read: every field that counts, and a refusal that names the one at fault."""

import json
from dataclasses import replace
from typing import Any

import pytest
from fake_runner import EVERYTHING

from aiproxy.reference_server.onnx import (
    ContextOverflow,
    EngineClosed,
    GenerationFailed,
    GenerationRequest,
    LocalBusy,
    ModelNotFound,
    ModelUnavailable,
    RequestRefused,
    Sampling,
)
from aiproxy.reference_server.onnx.bodies.chat import (
    LARGEST_SCHEMA,
    MOST_CHOICES,
    Abilities,
    Task,
    error_object,
    read_chat,
    read_completion,
)
from aiproxy.reference_server.onnx.text.chat_template import Conversation, Message, ToolCall
from aiproxy.reference_server.onnx.text.runner import Grammar, Traits
from aiproxy.reference_server.onnx.text.tool_calls import Tool, ToolFormat, ToolUse
from aiproxy.spec import schema, validate

HELLO = [{"role": "user", "content": "hello"}]
ASKED = Conversation((Message("user", "hello"),))
HERMES = ToolFormat("hermes")
ABLE = Abilities(traits=EVERYTHING, tools=HERMES, vocabulary=100, raw=True)
UNABLE = Abilities(traits=Traits())
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def chat(**fields: Any) -> Task:
    return read_chat({"model": "demo", "messages": HELLO, **fields}, ABLE)


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
        logit_bias={"7": -100},
        logprobs=True,
        top_logprobs=4,
        n=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    sampling = Sampling(0.5, 0.9, 3, 2**64 - 1, 1, -1, {7: -100.0})
    request = GenerationRequest((), 9, ("a", "b"), sampling, top_logprobs=4)
    assert task == Task(ASKED, request, stream=True, include_usage=True, choices=3)


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
    assert chat() == Task(ASKED, GenerationRequest(()))


def test_the_models_own_sampling_counts_where_the_client_is_silent() -> None:
    body = {"messages": HELLO, "top_p": 0.5}
    task = read_chat(body, replace(ABLE, sampling=Sampling(temperature=0.7)))
    assert task.request.sampling == Sampling(temperature=0.7, top_p=0.5)


def test_max_completion_tokens_wins_over_its_old_name() -> None:
    assert chat(max_completion_tokens=5, max_tokens=9).request.max_tokens == 5


def test_fields_that_change_nothing_pass() -> None:
    harmless = {"n": 1, "tools": [], "logprobs": False, "response_format": {"type": "text"}}
    body = {"messages": HELLO, "tool_choice": "auto", "seed": 5, **harmless}
    task = read_chat({**body, "user": "me", "metadata": {"a": "b"}, "modalities": ["text"]}, UNABLE)
    assert task == Task(ASKED, GenerationRequest((), sampling=Sampling(seed=5)))


def test_text_parts_are_joined_and_developer_is_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    task = read_chat({"messages": messages}, UNABLE)
    read = (Message("system", "be kind"), Message("assistant", ""), Message("user", "ab"))
    assert task.prompt == Conversation(read)


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
        (
            {"messages": [*HELLO, {"role": "function"}]},
            "unsupported_capability",
            "messages[1].role",
        ),
        (
            {"messages": [*HELLO, {"role": "tool", "content": "x"}]},
            "invalid_type",
            "messages[1].tool_call_id",
        ),
        (
            {"messages": [*HELLO, {"role": "tool", "tool_call_id": "x"}]},
            "invalid_type",
            "messages[1].content",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "invalid_type",
            "messages[1].tool_calls[0]",
        ),
        (
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f"}}]},
                ]
            },
            "invalid_type",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [{"role": "user", "content": "\ud800"}]},
            "invalid_value",
            "messages[0].content",
        ),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": MOST_CHOICES + 1}, "invalid_value", "n"),
        ({"n": True}, "invalid_value", "n"),
        ({"logprobs": 3}, "invalid_value", "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"logit_bias": [1]}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"100": 5}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"-1": 5}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"\u0661": 5}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"1": 101}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"1": float("nan")}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(2000)}}, "invalid_value", "logit_bias"),
        ({"functions": [{"name": "f"}]}, "unsupported_capability", "functions"),
        ({"audio": {"voice": "x"}}, "unsupported_capability", "audio"),
        ({"tools": "weather"}, "invalid_value", "tools"),
        ({"tools": [CLOCK] * 2}, "invalid_value", "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": "\ud800"}}]},
            "invalid_value",
            "tools[0]",
        ),
        ({"tools": [CLOCK] * 129}, "invalid_value", "tools"),
        ({"tools": [{"type": "custom"}]}, "invalid_value", "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "invalid_type", "tools[0]"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "invalid_value",
            "tools[0].function.name",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]},
            "invalid_type",
            "tools[0].function.parameters",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "description": "x" * LARGEST_SCHEMA},
                    }
                ]
            },
            "invalid_value",
            "tools[0]",
        ),
        ({"tools": [CLOCK], "tool_choice": "any"}, "invalid_value", "tool_choice"),
        ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
        (
            {
                "tools": [CLOCK],
                "tool_choice": {"type": "function", "function": {"name": "weather"}},
            },
            "invalid_value",
            "tool_choice",
        ),
        ({"tools": [CLOCK], "parallel_tool_calls": 1}, "invalid_value", "parallel_tool_calls"),
        ({"response_format": {"type": "xml"}}, "unsupported_capability", "response_format"),
        ({"response_format": "json_object"}, "unsupported_capability", "response_format"),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
            "invalid_type",
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"const": "x" * LARGEST_SCHEMA}},
                }
            },
            "invalid_value",
            "response_format.json_schema.schema",
        ),
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


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"logprobs": True}, "unsupported_parameter", "logprobs"),
        ({"logit_bias": {"1": 5}}, "unsupported_parameter", "logit_bias"),
        ({"presence_penalty": 1}, "unsupported_parameter", "presence_penalty"),
        ({"frequency_penalty": 0.1}, "unsupported_parameter", "frequency_penalty"),
        ({"seed": 1, "temperature": 0.5}, "unsupported_parameter", "seed"),
        ({"tools": [{"type": "function"}]}, "unsupported_capability", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_capability", "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "unsupported_capability",
            "response_format",
        ),
        (
            {"messages": [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "y"}]},
            "unsupported_capability",
            "messages[1].role",
        ),
        (
            {"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"id": "x"}]}]},
            "unsupported_capability",
            "messages[1].tool_calls",
        ),
    ],
)
def test_what_the_adapter_or_model_cannot_do_is_refused_by_name(
    fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(RequestRefused) as refusal:
        read_chat({"messages": HELLO, **fields}, UNABLE)
    assert (refusal.value.status, refusal.value.code, refusal.value.param) == (400, code, param)
    validate(error_object(refusal.value), "error-emitted")


def test_forcing_a_tool_needs_an_adapter_with_grammars() -> None:
    can = replace(ABLE, traits=Traits())
    asked = {"messages": HELLO, "tools": [CLOCK]}
    assert read_chat(asked, can).tools == ToolUse(HERMES, (Tool("clock"),))
    with pytest.raises(RequestRefused) as refusal:
        read_chat({**asked, "tool_choice": "required"}, can)
    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", "tool_choice")


def test_a_conversation_with_calls_is_read_whole() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "noon"}]},
    ]
    task = chat(messages=messages, tools=[WEATHER, CLOCK], parallel_tool_calls=False)
    read = (
        Message("user", "hello"),
        Message("assistant", "", (ToolCall("c1", "clock", "{}"),)),
        Message("tool", "noon", (), "c1", "clock"),
    )
    assert task.prompt == Conversation(read, (WEATHER, CLOCK))
    tools = (Tool("weather", {"type": "object"}, strict=True), Tool("clock"))
    assert task.tools == ToolUse(HERMES, tools, most=1)
    assert task.request.grammar is None


def test_tool_choice_decides_what_the_template_hears_and_the_grammar_says() -> None:
    none = chat(tools=[CLOCK], tool_choice="none")
    assert (none.prompt, none.tools) == (ASKED, None)
    required = chat(tools=[WEATHER, CLOCK], tool_choice="required").request.grammar
    assert required is not None
    assert (required.kind, '\\"clock\\"' in required.text) == ("lark", True)
    named = {"type": "function", "function": {"name": "weather"}}
    task = chat(tools=[WEATHER, CLOCK], tool_choice=named)
    assert task.request.grammar is not None
    assert "clock" not in task.request.grammar.text
    assert task.tools is not None
    assert task.tools.most == 1


def test_special_markers_are_shown_where_calls_are_told_by_them() -> None:
    can = replace(ABLE, tools=ToolFormat("mistral", (("[TOOL_CALLS]", 9),)))
    assert read_chat({"messages": HELLO, "tools": [CLOCK]}, can).request.show_special
    assert not chat(tools=[CLOCK]).request.show_special


def test_a_response_format_is_a_grammar() -> None:
    assert chat(response_format={"type": "json_object"}).request.grammar == Grammar("json_object")
    wanted = {"type": "json_schema", "json_schema": {"strict": True, "schema": {"type": "null"}}}
    assert chat(response_format=wanted).request.grammar == Grammar(
        "json_schema", '{"type": "null"}'
    )
    lenient = {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}
    grammar = chat(response_format=lenient).request.grammar
    assert grammar is not None
    assert json.loads(grammar.text)["x-guidance"] == {"lenient": True}
    both = chat(response_format=wanted, tools=[CLOCK]).request.grammar
    assert both is not None
    assert (both.kind, "calls | answer" in both.text) == ("lark", True)
    forced = chat(response_format=wanted, tools=[CLOCK], tool_choice="required")
    assert forced.request == chat(tools=[CLOCK], tool_choice="required").request


def test_each_choice_draws_with_a_seed_of_its_own() -> None:
    task = chat(n=3, seed=-1, temperature=1)
    seeds = [request.sampling.seed for request in task.requests((1, 2))]
    assert seeds == [2**64 - 1, 0, 1]
    assert {request.prompt for request in task.requests((1, 2))} == {(1, 2)}
    assert [r.sampling.seed for r in chat(n=2).requests(())] == [None, None]


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
        task = read_completion({"prompt": prompt, "max_tokens": 4}, UNABLE)
        assert task == Task(ASKED, GenerationRequest((), 4))


def test_a_raw_prompt_is_text_or_token_ids() -> None:
    assert read_completion({"prompt": ["<s>hello"]}, ABLE).prompt == "<s>hello"
    assert read_completion({"prompt": [1, 99]}, ABLE).prompt == (1, 99)
    assert read_completion({"prompt": [[1, 99]], "logprobs": 2}, ABLE) == Task(
        (1, 99), GenerationRequest((), top_logprobs=2)
    )


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": ["a", "b"]}, "invalid_value", "prompt"),
        ({"prompt": [1, 100]}, "invalid_value", "prompt"),
        ({"prompt": [True]}, "invalid_value", "prompt"),
        ({"prompt": [-1]}, "invalid_value", "prompt"),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [[]]}, "invalid_value", "prompt"),
        ({"prompt": 5}, "invalid_value", "prompt"),
        ({"prompt": "\udfff"}, "invalid_value", "prompt"),
        ({"prompt": "a", "logprobs": 6}, "invalid_value", "logprobs"),
        ({"prompt": "a", "logprobs": True}, "invalid_value", "logprobs"),
        ({"prompt": "a", "tools": [CLOCK]}, "unsupported_capability", "tools"),
        ({"prompt": "a", "echo": True}, "unsupported_parameter", "echo"),
        ({"prompt": "a", "suffix": "b"}, "unsupported_parameter", "suffix"),
        ({"prompt": "a", "best_of": 3}, "unsupported_parameter", "best_of"),
    ],
)
def test_a_completion_that_cannot_be_honoured(
    fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(RequestRefused) as refusal:
        read_completion(fields, ABLE)
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_a_model_that_reads_questions_takes_no_token_ids() -> None:
    with pytest.raises(RequestRefused, match="prompt must be one string"):
        read_completion({"prompt": [1, 2]}, UNABLE)
