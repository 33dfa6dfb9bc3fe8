"""What a request may say, and where the fault is reported when it says something else."""

from typing import Any

import pytest

from aiproxy.spec import checker

USER = {"role": "user", "content": "Hello!"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}}


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **members}


def turn(**members: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [members]}


def genuine(**members: Any) -> dict[str, Any]:
    return {"model": "m", "input": "ping", **members}


def item(**members: Any) -> dict[str, Any]:
    return {"model": "m", "input": [members]}


def predict(**routing: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hi", "routing": routing}


def shaped(schema: Any, **extra: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "report", "schema": schema, **extra}}


def flat(schema: Any) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "name": "report", "schema": schema}}


def without(body: dict[str, Any], member: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != member}


AUTO_ON_CHAT = ("tools", "reasoning", "max_completion_tokens", "max_tokens", "response_format")
AUTO_ON_RESPONSES = ("tools", "reasoning", "max_output_tokens", "max_completion_tokens")
NULLABLE = (
    "temperature", "top_p", "n", "stream", "stream_options", "stop", "presence_penalty",
    "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "user", "metadata",
    "store", "service_tier", "tools", "tool_choice", "response_format", "reasoning",
    "reasoning_effort", "max_tokens", "max_completion_tokens", "modalities", "audio", "prediction",
    "parallel_tool_calls", "functions", "function_call",
)  # fmt: skip

ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    *(("requests/chat", turn(role=role, content="x")) for role in ("system", "developer", "user")),
    *(("requests/chat", chat(**{member: None})) for member in NULLABLE),
    *(("requests/chat", chat(**{member: "auto"})) for member in AUTO_ON_CHAT),
    *(("requests/draft", chat(**{member: "auto"})) for member in AUTO_ON_CHAT),
    *(("requests/responses", genuine(**{member: "auto"})) for member in AUTO_ON_RESPONSES),
    ("requests/chat", chat(model="auto")),
    ("requests/chat", chat(model=" auto")),
    ("requests/chat", chat(model="AUTO")),
    ("requests/chat", chat(tool_choice="auto", service_tier="auto")),
    ("requests/chat", chat(tool_choice={"type": "function", "function": {"name": "f"}})),
    ("requests/chat", chat(tool_choice={"type": "allowed_tools", "allowed_tools": {}})),
    ("requests/chat", chat(response_format="provider-adaptive")),
    ("requests/chat", chat(response_format={"type": "text"})),
    ("requests/chat", chat(response_format={"type": "json_object"})),
    ("requests/chat", chat(response_format=shaped(SCHEMA, strict=True, description=None))),
    ("requests/chat", chat(response_format=shaped({}))),
    ("requests/chat", chat(response_format=shaped({"items": [{"type": "null"}, True]}))),
    ("requests/chat", chat(response_format=shaped({"definitions": {"a": {"type": ["null"]}}}))),
    ("requests/chat", chat(x_custom={"a": 1})),
    ("requests/chat", chat(temperature=2, top_p=0, n=1, presence_penalty=-2, seed=-1)),
    ("requests/chat", chat(stop=["a", "b", "c", "d"])),
    ("requests/chat", chat(max_completion_tokens=500)),
    ("requests/chat", chat(tools=[{"type": "function", "function": {"name": "f"}}])),
    ("requests/chat", chat(tools=[{"type": "vendor_search", "depth": 2}])),
    ("requests/chat", turn(role="assistant", content=None, tool_calls=[CALL])),
    ("requests/chat", turn(role="assistant", tool_calls=[CALL])),
    ("requests/chat", turn(role="assistant", content=None, refusal="No.")),
    ("requests/chat", turn(role="assistant", content=[{"type": "text", "text": "x"}])),
    ("requests/chat", turn(role="tool", tool_call_id="c1", content="4")),
    ("requests/chat", turn(role="tool", tool_call_id="c1", content=[])),
    ("requests/chat", turn(role="function", name="f", content=None)),
    ("requests/chat", turn(role="user", content=[{"type": "vendor_video", "at": 1}])),
    ("requests/chat", turn(role="user", content="مرحبا 👋🏽 e\u0301 𝒜", name="n", vendor=True)),
    ("requests/draft", chat(tools=[{"type": "function", "name": "f"}])),
    ("requests/draft", chat(tools=[{"type": "function", "function": {"name": "f"}}])),
    ("requests/draft", chat(text={"format": {"type": "text"}})),
    ("requests/draft", chat(text={"verbosity": "low"}, response_format={"type": "text"})),
    ("requests/draft", chat(text={"format": {"type": "text"}}, response_format=None)),
    ("requests/responses", genuine(input=[USER])),
    ("requests/responses", item(type="message", role="user", content=[])),
    ("requests/responses", item(type=None, role="assistant", content="x")),
    ("requests/responses", item(type="vendor:thing", anything=[1])),
    ("requests/responses", item(type="vendor:thing", role=[], name={}, status=5, call_id=0)),
    ("requests/responses", genuine(tools=[{"type": "vendor", "name": {}, "parameters": "x"}])),
    ("requests/responses", genuine(tool_choice={"type": "function", "name": "f"})),
    ("requests/draft", chat(tools=[{"type": "vendor", "function": "x", "name": 5}])),
    ("requests/chat", chat(tools=[{"type": "vendor", "function": "x"}])),
    ("requests/chat", turn(role="user", content=[{"type": "vendor", "text": {}, "file": 1}])),
    ("requests/responses", item(type="computer_call_output", output={"type": "x"})),
    ("requests/responses", item(type="function_call", call_id="c", name="f", arguments="{}")),
    ("requests/responses", item(type="function_call_output", call_id="c", output=[])),
    ("requests/responses", item(id="msg_1")),
    ("requests/responses", item(type="item_reference", id="msg_1")),
    ("requests/responses", {"model": "m", "prompt": {"id": "pmpt_1"}}),
    ("requests/responses", genuine(text=flat(SCHEMA), truncation="auto")),
    ("requests/responses", genuine(response_format="auto", max_completion_tokens=5)),
    ("requests/responses", genuine(tools=[{"type": "mcp", "server_url": "x"}])),
    ("requests/responses", genuine(tools=[{"type": "function", "name": "f", "parameters": None}])),
    ("requests/responses", genuine(conversation="conv_1", x_custom=[])),
    ("requests/responses", genuine(reasoning={"effort": None, "summary": "auto"})),
    ("requests/completions", {"model": "m", "prompt": None, "max_tokens": 0}),
    ("requests/completions", {"model": "m", "prompt": ["", "b"]}),
    ("requests/completions", {"model": "m", "prompt": [[1], [2]]}),
    ("requests/embeddings", {"model": "m", "input": [[1, 2], [3]]}),
    ("requests/embeddings", {"model": "m", "input": ["a"], "encoding_format": None}),
    ("requests/predict", predict(strategy="cost_optimized", max_cost=0, timeout=1)),
    ("requests/predict", predict(strategy=None, max_cost=None, timeout=None)),
    ("requests/predict", {"model": "m", "input": {"image": "AAAA"}}),
    ("requests/predict", {"model": "m", "input": [0.5], "routing": None}),
]

# name, body, place of the fault, its keyword
Refused = tuple[str, dict[str, Any], str, str]
ONLY_FOR_TABLE_1: dict[str, str] = {
    "temperature": "type", "top_p": "type", "n": "type", "stream": "type", "seed": "type",
    "presence_penalty": "type", "top_logprobs": "type", "stream_options": "type",
    "metadata": "type", "parallel_tool_calls": "type", "messages": "type",
    "reasoning_effort": "not",
}  # fmt: skip
REFUSED: list[Refused] = [
    *(("requests/chat", chat(**{k: "auto"}), k, how) for k, how in ONLY_FOR_TABLE_1.items()),
    *(
        (name, {**body, member: value}, member, keyword)
        for name, body in (
            ("requests/chat", chat()),
            ("requests/draft", chat()),
            ("requests/responses", genuine()),
            ("requests/completions", {"model": "m", "prompt": "x"}),
        )
        for member, value, keyword in (
            ("model", None, "type"),
            ("model", 5, "type"),
            ("model", "", "minLength"),
            ("temperature", [1], "type"),
            ("temperature", 3.0, "maximum"),
            ("temperature", -0.1, "minimum"),
            ("temperature", True, "type"),
            ("top_p", 1.1, "maximum"),
            ("n", 0, "minimum"),
            ("n", 1.5, "type"),
            ("stream", "yes", "type"),
            ("stream", 1, "type"),
            ("stop", ["a", "b", "c", "d", "e"], "maxItems"),
            ("presence_penalty", 2.1, "maximum"),
            ("frequency_penalty", -3, "minimum"),
            ("top_logprobs", 21, "maximum"),
            ("seed", "1", "type"),
            ("user", 7, "type"),
            ("metadata", [], "type"),
            ("stream_options", True, "type"),
            ("reasoning", "high", "const"),
            ("reasoning", ["auto"], "type"),
        )
    ),
    *(
        (name, {**body, member: value}, member, keyword)
        for name, body, members in (
            ("requests/chat", chat(), ("max_tokens", "max_completion_tokens")),
            ("requests/draft", chat(), ("max_completion_tokens", "max_output_tokens")),
            ("requests/responses", genuine(), ("max_output_tokens", "max_completion_tokens")),
        )
        for member in members
        for value, keyword in (
            (0, "minimum"),
            (-1, "minimum"),
            (1.5, "type"),
            (1e30, "maximum"),
            ("many", "const"),
            ("Auto", "const"),
            ("auto\n", "const"),
        )
    ),
    ("requests/chat", {"model": "m"}, "messages", "required"),
    ("requests/chat", without(chat(), "model"), "model", "required"),
    ("requests/chat", chat(messages="Hello"), "messages", "type"),
    ("requests/chat", chat(messages=[]), "messages", "minItems"),
    ("requests/chat", chat(messages=["Hello"]), "messages[0]", "type"),
    ("requests/chat", turn(content="x"), "messages[0].role", "required"),
    ("requests/chat", turn(role=5, content="x"), "messages[0].role", "type"),
    ("requests/chat", turn(role="robot", content="x"), "messages[0].role", "enum"),
    ("requests/chat", turn(role="user", content=5), "messages[0].content", "type"),
    ("requests/chat", turn(role="user", content=None), "messages[0].content", "type"),
    ("requests/chat", turn(role="user"), "messages[0].content", "required"),
    ("requests/chat", turn(role="assistant"), "messages[0].content", "required"),
    ("requests/chat", turn(role="assistant", content=None), "messages[0].content", "type"),
    ("requests/chat", turn(role="tool", content="4"), "messages[0].tool_call_id", "required"),
    ("requests/chat", turn(role="function", content="4"), "messages[0].name", "required"),
    ("requests/chat", turn(role="user", content=["x"]), "messages[0].content[0]", "type"),
    ("requests/chat", turn(role="user", content=[{}]), "messages[0].content[0].type", "required"),
    (
        "requests/chat",
        turn(role="user", content=[{"type": "text"}]),
        "messages[0].content[0].text",
        "required",
    ),
    (
        "requests/chat",
        turn(role="user", content=[{"type": "image_url", "image_url": {}}]),
        "messages[0].content[0].image_url.url",
        "required",
    ),
    (
        "requests/chat",
        turn(role="assistant", content=None, tool_calls=[{**CALL, "function": {"name": "f"}}]),
        "messages[0].tool_calls[0].function.arguments",
        "required",
    ),
    ("requests/chat", chat(logprobs=3), "logprobs", "type"),
    ("requests/chat", chat(tools={}), "tools", "type"),
    ("requests/chat", chat(tools="all"), "tools", "const"),
    ("requests/chat", chat(tools=["f"]), "tools[0]", "type"),
    ("requests/chat", chat(tools=[{}]), "tools[0].type", "required"),
    ("requests/chat", chat(tools=[{"type": "function"}]), "tools[0].function", "required"),
    (
        "requests/chat",
        chat(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
        "required",
    ),
    ("requests/chat", chat(tool_choice="any"), "tool_choice", "enum"),
    ("requests/chat", chat(tool_choice={}), "tool_choice.type", "required"),
    ("requests/chat", chat(tool_choice={"type": "function"}), "tool_choice.function", "required"),
    ("requests/chat", chat(metadata={"a": 1}), "metadata.a", "type"),
    ("requests/chat", chat(response_format="json"), "response_format", "enum"),
    ("requests/chat", chat(response_format=[]), "response_format", "type"),
    ("requests/chat", chat(response_format={}), "response_format.type", "required"),
    ("requests/chat", chat(response_format={"type": "xml"}), "response_format.type", "enum"),
    (
        "requests/chat",
        chat(response_format={"type": "json_schema"}),
        "response_format.json_schema",
        "required",
    ),
    (
        "requests/chat",
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
        "response_format.json_schema.schema",
        "required",
    ),
    (
        "requests/chat",
        chat(response_format=shaped(SCHEMA, name="a b")),
        "response_format.json_schema.name",
        "pattern",
    ),
    *(
        (
            "requests/chat",
            chat(response_format=shaped(schema)),
            f"response_format.json_schema.schema{inner}",
            keyword,
        )
        for schema, inner, keyword in (
            ("object", "", "type"),
            (True, "", "type"),
            (None, "", "type"),
            ({"type": "strang"}, ".type", "enum"),
            ({"type": 5}, ".type", "type"),
            ({"type": ["string", "strang"]}, ".type[1]", "enum"),
            ({"properties": {"a": {"type": "strang"}}}, ".properties.a.type", "enum"),
            ({"items": {"type": "strang"}}, ".items.type", "enum"),
            ({"anyOf": [{"type": "strang"}]}, ".anyOf[0].type", "enum"),
            ({"properties": []}, ".properties", "type"),
            ({"required": "a"}, ".required", "type"),
            ({"enum": "a"}, ".enum", "type"),
        )
    ),
    ("requests/draft", chat(input="x"), "messages", "not"),
    ("requests/draft", {"model": "auto"}, "messages", "required"),
    ("requests/draft", chat(tools=[{"type": "function"}]), "tools[0].name", "required"),
    ("requests/draft", turn(role="robot", content="x"), "messages[0].role", "enum"),
    (
        "requests/draft",
        chat(text={"format": {"type": "text"}}, response_format={"type": "text"}),
        "response_format",
        "not",
    ),
    (
        "requests/draft",
        chat(response_format=shaped({"type": "strang"})),
        "response_format.json_schema.schema.type",
        "enum",
    ),
    ("requests/responses", {"model": "m"}, "input", "required"),
    ("requests/responses", {"model": "m", "prompt": None}, "input", "required"),
    ("requests/responses", {"input": "x"}, "model", "required"),
    ("requests/responses", genuine(messages=[USER]), "messages", "not"),
    ("requests/responses", genuine(input=[]), "input", "minItems"),
    ("requests/responses", genuine(input=5), "input", "type"),
    ("requests/responses", genuine(input=["x"]), "input[0]", "type"),
    ("requests/responses", item(), "input[0].role", "required"),
    ("requests/responses", item(type="message", id="m"), "input[0].role", "required"),
    ("requests/responses", item(role="robot", content="x"), "input[0].role", "enum"),
    ("requests/responses", item(role="user"), "input[0].content", "required"),
    (
        "requests/responses",
        item(role="user", content=[{"type": "input_text"}]),
        "input[0].content[0].text",
        "required",
    ),
    (
        "requests/responses",
        item(type="function_call", call_id="c", name="f", arguments={}),
        "input[0].arguments",
        "type",
    ),
    (
        "requests/responses",
        item(type="function_call_output", output="x"),
        "input[0].call_id",
        "required",
    ),
    ("requests/responses", genuine(tools=[{"type": "function"}]), "tools[0].name", "required"),
    (
        "requests/responses",
        genuine(tools=[{"type": "function", "name": "f", "parameters": []}]),
        "tools[0].parameters",
        "type",
    ),
    (
        "requests/responses",
        genuine(tool_choice={"type": "function"}),
        "tool_choice.name",
        "required",
    ),
    ("requests/responses", genuine(truncation="yes"), "truncation", "enum"),
    ("requests/responses", genuine(text="auto"), "text", "type"),
    (
        "requests/responses",
        genuine(text=flat({"type": "strang"})),
        "text.format.schema.type",
        "enum",
    ),
    ("requests/responses", genuine(text={"format": {"type": "x"}}), "text.format.type", "enum"),
    ("requests/responses", genuine(reasoning={"effort": "auto"}), "reasoning.effort", "not"),
    (
        "requests/responses",
        genuine(text=flat(SCHEMA), response_format={"type": "text"}),
        "response_format",
        "not",
    ),
    ("requests/completions", {"model": "m"}, "prompt", "required"),
    ("requests/completions", {"model": "m", "prompt": ["a", 1]}, "prompt[1]", "type"),
    ("requests/completions", {"model": "m", "prompt": [1, "a"]}, "prompt[1]", "type"),
    (
        "requests/completions",
        {"model": "m", "prompt": "x", "max_tokens": -1},
        "max_tokens",
        "minimum",
    ),
    ("requests/completions", {"model": "m", "prompt": "x", "logprobs": True}, "logprobs", "type"),
    ("requests/predict", {"model": "m", "input": {"image": 5}}, "input.image", "type"),
    ("requests/predict", {"model": "m", "input": {"image": {}}}, "input.image.data", "required"),
    ("requests/predict", {"model": "m", "input": {"labels": []}}, "input.labels", "minItems"),
    ("requests/predict", {"model": "m", "input": {"top_k": 0}}, "input.top_k", "minimum"),
    ("requests/embeddings", {"model": "m"}, "input", "required"),
    ("requests/embeddings", {"input": "x"}, "model", "required"),
    ("requests/embeddings", {"model": "m", "input": ""}, "input", "minLength"),
    ("requests/embeddings", {"model": "m", "input": []}, "input", "minItems"),
    ("requests/embeddings", {"model": "m", "input": ["a", ""]}, "input[1]", "minLength"),
    ("requests/embeddings", {"model": "m", "input": [[1], []]}, "input[1]", "minItems"),
    ("requests/embeddings", {"model": "m", "input": [1, -1]}, "input[1]", "minimum"),
    ("requests/embeddings", {"model": "m", "input": [0.5]}, "input[0]", "type"),
    (
        "requests/embeddings",
        {"model": "m", "input": "x", "encoding_format": "hex"},
        "encoding_format",
        "enum",
    ),
    ("requests/embeddings", {"model": "m", "input": "x", "dimensions": 0}, "dimensions", "minimum"),
    ("requests/predict", {"input": "x"}, "model", "required"),
    ("requests/predict", {"model": "m"}, "input", "required"),
    ("requests/predict", {"model": "m", "input": None}, "input", "type"),
    ("requests/predict", predict(strategy=5), "routing.strategy", "type"),
    ("requests/predict", predict(max_cost=-0.1), "routing.max_cost", "minimum"),
    ("requests/predict", predict(max_cost="1"), "routing.max_cost", "type"),
    ("requests/predict", predict(timeout=0), "routing.timeout", "minimum"),
    ("requests/predict", predict(timeout=1e300), "routing.timeout", "maximum"),
    ("requests/predict", predict(timeout="30s"), "routing.timeout", "type"),
    ("requests/predict", predict(maxcost=1), "routing.maxcost", "additionalProperties"),
]


@pytest.mark.parametrize(("name", "body"), ACCEPTED)
def test_a_legal_request_is_accepted(name: str, body: dict[str, Any]) -> None:
    assert checker(name).first_fault(body) is None


@pytest.mark.parametrize(("name", "body", "where", "keyword"), REFUSED)
def test_a_faulty_request_is_refused_at_the_right_place(
    name: str, body: dict[str, Any], where: str, keyword: str
) -> None:
    fault = checker(name).first_fault(body)
    assert fault is not None
    assert (fault.path, fault.keyword) == (where, keyword)


@pytest.mark.parametrize("body", [None, 5, "x", [], True])
@pytest.mark.parametrize("name", sorted({name for name, _ in ACCEPTED}))
def test_a_body_that_is_no_object_is_named_as_such(name: str, body: object) -> None:
    fault = checker(name).first_fault(body)
    assert fault is not None
    assert (fault.path, fault.keyword) == ("", "type")
