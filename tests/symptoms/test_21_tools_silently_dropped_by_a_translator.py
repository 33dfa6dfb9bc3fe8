"""Tools reach the provider in its own words, or their loss is declared; a fluent answer to a
request whose tools vanished is a failure."""

import json
from typing import Any

import pytest
from upstreams import Script
from wire import Wire, WireUpstream

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
HOSTED = {"type": "web_search"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_they_arrive(
    mount: Any, duo: Any, best: Any, fakes: Any, dialect: str, stream: bool
) -> None:
    served = mount(duo(a={"dialects": [dialect]}))
    got = served.chat(best, tools=[TOOL], tool_choice="required", stream=stream)
    assert (got.status, got.provider) == (200, "a")
    (seen,) = fakes.a.seen
    (tool,) = seen.body["tools"]
    assert tool.get("function", tool)["name"] == "weather"
    assert tool.get("function", tool)["parameters"] == TOOL["function"]["parameters"]
    assert seen.body["tool_choice"] == "required"


def test_a_tool_that_cannot_be_offered_is_declared(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    served = mount(duo(a={"dialects": ["chat"]}, b={"dialects": ["chat"]}))
    body = {"model": "m", "input": "Hello", "tools": [HOSTED]}
    got = served.post("/v1/responses", body, best)
    if got.status == 200:
        assert "tools" not in fakes.a.seen[0].body
        assert "hosted_tool" in {row["feature"] for row in got.json["x-aiproxy"]["losses"]}
    else:
        assert (got.status, fakes.called()) == (422, {})


def test_a_tool_that_must_be_used_and_cannot_be_offered_is_refused(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    served = mount(duo(a={"dialects": ["chat"]}, b={"dialects": ["chat"]}))
    body = {"model": "m", "input": "Hello", "tools": [HOSTED], "tool_choice": "required"}
    got = served.post("/v1/responses", body, best)
    assert got.status == 422
    assert fakes.called() == {}


TURNS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "x",
    "content": [{"type": "text", "text": "Sunny."}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip


def test_arguments_are_an_object_where_the_provider_needs_one(
    mount: Any, duo: Any, best: Any
) -> None:
    def script(wire: Wire) -> None:
        wire.document(json.dumps(MESSAGE).encode(), b"200 OK", b"Content-Type: application/json")

    with WireUpstream(script) as upstream:
        entry = {"type": "anthropic", "credentials": {"api_key": "k"}}
        served = mount(duo(a=entry, url_a=upstream.url))
        got = served.chat(best, messages=TURNS, tools=[TOOL])
        sent = upstream.seen[0].json
    assert (got.status, got.provider) == (200, "a")
    assert got.json["choices"][0]["message"]["content"] == "Sunny."
    blocks = [b for m in sent["messages"] if isinstance(m["content"], list) for b in m["content"]]
    (use,) = [block for block in blocks if block["type"] == "tool_use"]
    (result,) = [block for block in blocks if block["type"] == "tool_result"]
    assert (use["name"], use["input"]) == ("weather", {"city": "Bern"})
    assert result["tool_use_id"] == use["id"]
    assert sent["tools"][0]["input_schema"]["properties"] == {"city": {"type": "string"}}


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_arguments_of_earlier_calls_have_the_providers_form(
    mount: Any, duo: Any, best: Any, fakes: Any, dialect: str
) -> None:
    """Text for OpenAI's; the object that others need is the fidelity grid's to prove."""
    mount(duo(a={"dialects": [dialect]})).chat(best, messages=TURNS, tools=[TOOL])
    sent = json.dumps(fakes.a.seen[0].body)
    assert json.dumps('{"city":"Bern"}') in sent
    assert "sunny" in sent


def test_the_call_comes_back(mount: Any, duo: Any, best: Any, fakes: Any) -> None:
    fakes.a.script = Script(message={"role": "assistant", "content": None, "tool_calls": [CALL]})
    got = mount(duo()).post("/v1/responses", {"model": "auto", "input": "?"}, best)
    (item,) = [row for row in got.json["output"] if row["type"] == "function_call"]
    assert json.loads(item["arguments"]) == {"city": "Bern"}
