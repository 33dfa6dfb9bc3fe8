"""A client's dialect at a provider that speaks another one, end to end."""

import json
from typing import Any

import pytest
from mounts import HELLO, RESPONSES, Got
from upstreams import Script

HEADERS = {"X-AI-Routing-Strategy": "quality"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def only(fakes: Any, dialect: str, **routing: Any) -> dict[str, Any]:
    """Provider ``a`` speaks that dialect alone."""
    provider = {"models": [{"name": "m", "model": "a-m"}], "dialects": [dialect]}
    config: dict[str, Any] = fakes.config({"a": provider}, routing=routing)
    return config


def texts(got: Got) -> str:
    said = ""
    for event in got.events[:-1]:
        if event.get("type") == "response.output_text.delta":
            said += event["delta"]
        elif event.get("object") == "chat.completion.chunk":
            said += "".join(c["delta"].get("content") or "" for c in event["choices"])
    return said.strip()


# --- chat client, responses provider -------------------------------------------------------------


def test_chat_at_a_responses_provider(mount: Any, fakes: Any) -> None:
    served = mount(only(fakes, "responses"))
    got = served.chat(HEADERS, max_completion_tokens=77, tools=[WEATHER])
    assert got.status == 200
    (seen,) = fakes.a.seen
    assert seen.path == "/v1/responses"
    assert seen.body["model"] == "a-m"
    assert seen.body["max_output_tokens"] == 77
    assert seen.body["tools"][0]["name"] == "weather"
    assert "messages" not in seen.body
    assert (got.json["object"], got.json["model"]) == ("chat.completion", "auto")
    choice = got.json["choices"][0]
    assert choice["message"]["content"] == "served by a"
    assert choice["finish_reason"] == "stop"
    assert got.json["usage"]["total_tokens"] == 21
    assert got.json["x-aiproxy"]["provider"] == "a"
    usage = served.record(got)["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (9, 12)
    assert "estimated" not in usage


def test_a_chat_stream_at_a_responses_provider(mount: Any, fakes: Any) -> None:
    served = mount(only(fakes, "responses"))
    got = served.chat(HEADERS, stream=True, stream_options={"include_usage": True})
    assert {event["object"] for event in got.events[:-1]} == {"chat.completion.chunk"}
    assert texts(got) == "served by a"
    assert got.events[-1] == "[DONE]"
    last = got.events[-2]
    assert last["usage"]["completion_tokens"] == 12
    assert last["x-aiproxy"]["provider"] == "a"
    assert {event["model"] for event in got.events[:-1]} == {"auto"}


# --- responses and draft client, chat provider ---------------------------------------------------


def test_responses_at_a_chat_provider(mount: Any, fakes: Any) -> None:
    served = mount(only(fakes, "chat"))
    body = {"model": "m", "input": "Hello", "instructions": "Be brief.", "max_output_tokens": 9}
    got = served.post(RESPONSES, body, HEADERS)
    assert got.status == 200
    (seen,) = fakes.a.seen
    assert seen.path == "/v1/chat/completions"
    assert [m["role"] for m in seen.body["messages"]] in (["developer", "user"], ["system", "user"])
    assert seen.body["messages"][-1]["content"] == "Hello"
    assert (got.json["object"], got.json["model"]) == ("response", "m")
    assert got.json["output"][0]["content"][0]["text"] == "served by a"
    assert got.json["usage"]["output_tokens"] == 12
    assert got.json["x-aiproxy"]["model"] == "a-m"


def test_a_responses_stream_at_a_chat_provider(mount: Any, fakes: Any) -> None:
    got = mount(only(fakes, "chat")).post(
        RESPONSES, {"model": "auto", "input": "Hello", "stream": True}, HEADERS
    )
    events = got.events[:-1]
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert texts(got) == "served by a"
    assert events[-1]["x-aiproxy"]["provider"] == "a"


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_the_drafts_shape_at_either(mount: Any, fakes: Any, dialect: str) -> None:
    served = mount(only(fakes, dialect))
    got = served.chat(HEADERS, path=RESPONSES)
    assert got.json["object"] == "response"
    assert got.json["choices"][0]["message"]["content"] == "served by a"
    assert got.json["output"][0]["content"][0]["text"] == "served by a"
    assert got.json["usage"]["total_tokens"] == 21
    streamed = served.chat(HEADERS, path=RESPONSES, stream=True)
    assert texts(streamed) == "served by a"
    assert {event["object"] for event in streamed.events[:-1]} == {"response.chunk"}
    assert streamed.events[-1] == "[DONE]"


def test_tool_calls_cross_in_both_directions(mount: Any, fakes: Any) -> None:
    arguments = '{"city":"Bern"}'
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": arguments},
    }
    fakes.a.script = Script(message={"role": "assistant", "content": None, "tool_calls": [call]})
    got = mount(only(fakes, "chat")).post(RESPONSES, {"model": "m", "input": "?"}, HEADERS)
    item = next(row for row in got.json["output"] if row["type"] == "function_call")
    assert (item["name"], item["arguments"], item["call_id"]) == ("weather", arguments, "call_1")


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_same_in_every_dialect(
    mount: Any, fakes: Any, dialect: str, stream: bool
) -> None:
    served = mount(only(fakes, dialect))
    for status, code in ((400, "invalid_value"), (401, "upstream_auth_failed")):
        fakes.a.script = Script(status=status)
        for path, body in (
            ("/v1/chat/completions", {"messages": HELLO}),
            (RESPONSES, {"input": "Hello"}),
            (RESPONSES, {"messages": HELLO}),
        ):
            got = served.post(path, {"model": "m", "stream": stream, **body}, HEADERS)
            assert got.error["code"] == code
            assert b"SECRET" not in got.body


def test_an_unreadable_reply_is_a_failure(mount: Any, fakes: Any) -> None:
    """It passes for an answer in its own dialect, but cannot be told in another."""
    config = only(fakes, "chat")
    extra = fakes.config({"b": {"models": ["m"], "dialects": ["chat"]}})["providers"]["b"]
    config["providers"]["b"] = extra
    fakes.a.script = Script(message={"role": "assistant", "content": 5})
    served = mount(config)
    got = served.post(RESPONSES, {"model": "m", "input": "Hello"}, HEADERS)
    assert (got.status, got.provider) == (200, "b")
    attempts = served.record(got)["attempts"]
    assert [row["error"] for row in attempts] == ["invalid_response", None]


# --- losses --------------------------------------------------------------------------------------


def test_losses_are_declared(mount: Any, fakes: Any) -> None:
    served = mount(only(fakes, "responses"))
    got = served.chat(HEADERS, seed=7, model="m")
    assert got.status == 200
    features = {row["feature"] for row in got.json["x-aiproxy"]["losses"]}
    assert "seed" in features
    assert {row["feature"] for row in served.record(got)["losses"]} == features
    assert "seed" not in fakes.a.seen[0].body


def test_losses_of_a_stream_are_declared(mount: Any, fakes: Any) -> None:
    got = mount(only(fakes, "responses")).chat(HEADERS, seed=7, stream=True)
    assert [row["feature"] for row in got.events[-2]["x-aiproxy"]["losses"]] == ["seed"]


@pytest.mark.parametrize("model", ["m", "auto"])
def test_strict_translation_refuses_a_loss(mount: Any, fakes: Any, model: str) -> None:
    served = mount(only(fakes, "responses", strict_translation=True))
    got = served.chat(HEADERS, seed=7, model=model)
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert got.header("x-should-retry") == "false"
    assert "seed" in got.error["message"]
    assert fakes.called() == {}
    record = served.record(got)
    assert [row["feature"] for row in record["losses"]] == ["seed"]
    assert [(c["eligible"], c["reason"]) for c in record["candidates"]] == [
        (False, "cannot_express")
    ]
    assert record["attempts"] == []
    assert served.chat(HEADERS).status == 200


def test_strict_translation_prefers_who_can_express_it(mount: Any, fakes: Any) -> None:
    providers = {
        "a": {"models": [{"name": "m", "quality": 0.9}], "dialects": ["responses"]},
        "b": {"models": [{"name": "m", "quality": 0.5}], "dialects": ["chat"]},
    }
    served = mount(fakes.config(providers, routing={"strict_translation": True}))
    got = served.chat(HEADERS, seed=7)
    assert (got.status, got.provider) == (200, "b")
    assert got.header("x-ai-failover-occurred") is None
    assert fakes.called() == {"b": 1}
    assert fakes.b.seen[0].body["seed"] == 7


def test_what_cannot_be_expressed_at_all_is_refused(mount: Any, fakes: Any) -> None:
    body = {"model": "m", "input": "Hello", "previous_response_id": "resp_1"}
    got = mount(only(fakes, "chat")).post(RESPONSES, body, HEADERS)
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert fakes.called() == {}


def test_a_fallback_is_translated_anew(mount: Any, fakes: Any) -> None:
    """The second provider gets its own dialect, not what the first was sent."""
    providers = {
        "a": {"models": [{"name": "m", "quality": 0.9}], "dialects": ["responses"]},
        "b": {"models": [{"name": "m", "quality": 0.5}], "dialects": ["chat"]},
    }
    fakes.a.script = Script(status=503)
    got = mount(fakes.config(providers)).chat(HEADERS, seed=7)
    assert got.provider == "b"
    assert "input" in fakes.a.seen[0].body
    assert fakes.b.seen[0].body["messages"] == HELLO
    assert json.loads(json.dumps(fakes.b.seen[0].body))["seed"] == 7
    assert "losses" not in got.json["x-aiproxy"]
