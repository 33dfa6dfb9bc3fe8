"""The Messages API of a fake Anthropic."""

import json

import pytest
from rig_talk import CALLS, SCHEMA, USER, named, proof

from aiproxy.conformance.rig.acts import Act


def test_anthropic_streams_in_its_order(talk_of, nonce):
    talk = talk_of("anthropic")
    talk.stage.script(nonce, "a", Act(text="{proof}", tool_calls=CALLS))
    events = named(talk.ask(nonce, stream=True))
    assert all(name == data["type"] for name, data in events)
    names = [name for name, _ in events if name not in ("content_block_delta", "ping")]
    block = ["content_block_start", "content_block_stop"]
    assert names == ["message_start", *block * 3, "message_delta", "message_stop"]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert "".join(d.get("text", "") for d in deltas) == proof(talk, nonce)
    by_place = {}
    for name, data in events:
        if name == "content_block_delta" and "partial_json" in data["delta"]:
            place = data["index"]
            by_place[place] = by_place.get(place, "") + data["delta"]["partial_json"]
    assert [json.loads(text) for text in by_place.values()] == [values for _, values in CALLS]
    final = dict(events)["message_delta"]
    assert final["delta"]["stop_reason"] == "tool_use"
    usage = talk.stage.upstreams.attempts(nonce)[0].usage
    assert final["usage"]["output_tokens"] == usage["completion_tokens"]
    start = dict(events)["message_start"]["message"]
    assert start["usage"]["input_tokens"] == usage["prompt_tokens"]


def test_anthropic_tool_use(talk_of, nonce):
    talk = talk_of("anthropic")
    tools = [{"name": "look_up", "input_schema": SCHEMA}]
    heard = talk.ask(nonce, tools=tools, tool_choice={"type": "any"}).json
    (block,) = heard["content"]
    assert (block["type"], block["name"]) == ("tool_use", "look_up")
    assert block["input"] == {"city": proof(talk, nonce)}
    assert block["id"].startswith("toolu_")
    assert heard["stop_reason"] == "tool_use"
    reply = {"type": "tool_result", "tool_use_id": block["id"], "content": "rain"}
    turns = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [block]},
        {"role": "user", "content": [reply, {"type": "text", "text": f"and {nonce}"}]},
    ]
    assert talk.ask(nonce, messages=turns, tools=tools).status == 200


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    "members",
    [
        {"max_tokens": None},
        {"messages": []},
        {"messages": [{"role": "system", "content": "be kind"}, USER]},
        {"messages": [USER, {"role": "assistant", "content": "x"}, {**USER, "role": "system"}]},
        {"messages": [{"role": "assistant", "content": "hello"}, USER]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        {"messages": [{**USER, "name": "bob"}]},
        {"messages": [USER, {"role": "assistant", "content": [USE]}, USER]},
        {"messages": [USER, {"role": "assistant", "content": [{**USE, "input": "{}"}]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_9", "content": "x"}]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:"}}]}]},
        {"max_completion_tokens": 5},
        {"stop": ["x"]},
        {"temperature": 1.5},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"name": "f"}]},
        {"tools": [{"name": "f", "input_schema": {}}]},
        {"tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": "auto"},
        {"tool_choice": {"type": "auto"}},
    ],
)  # fmt: skip
def test_what_anthropic_refuses(talk_of, nonce, members):
    heard = talk_of("anthropic").ask(nonce, **members)
    assert heard.status == 400
    assert heard.json["type"] == "error"
    assert heard.json["error"]["type"] == "invalid_request_error"


def test_what_the_newest_of_anthropic_takes(talk_of, nonce):
    talk = talk_of("anthropic")
    turns = [{"role": "user", "content": nonce}, {"role": "system", "content": "be kind"}]
    assert talk.ask(nonce, messages=turns).status == 200
    bearer = {"Authorization": f"Bearer {talk.actor.key}", "x-api-key": ""}
    assert talk.ask(nonce, headers=bearer).status == 200


def test_anthropic_wants_its_version(talk_of, nonce):
    assert talk_of("anthropic").ask(nonce, headers={"anthropic-version": ""}).status == 400


def test_anthropic_models_and_errors_in_streams(talk_of, nonce):
    talk = talk_of("anthropic")
    fields = {"Authorization": "", "x-api-key": talk.actor.key, "anthropic-version": "2023-06-01"}
    listed = talk.stage.get("a", "/v1/models", fields).json
    assert [row["id"] for row in listed["data"]] == [talk.actor.upstream_model]
    talk.stage.script(nonce, "a", Act(fault="error-event", after=2))
    name, data = named(talk.ask(nonce, stream=True))[-1]
    assert (name, data["error"]["type"]) == ("error", "overloaded_error")
