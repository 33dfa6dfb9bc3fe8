"""The APIs of a fake Cohere, a fake Mistral and a fake Cloudflare."""

import json

import pytest
from rig_talk import CALLS, SCHEMA, USER, named, proof

from aiproxy.conformance.rig.acts import Act


def test_cohere_streams(talk_of, nonce):
    talk = talk_of("cohere")
    heard = talk.ask(nonce, stream=True)
    events = named(heard)
    assert [name for name, _ in events if name != "content-delta"] == [
        "message-start",
        "content-start",
        "content-end",
        "message-end",
    ]
    texts = [d["delta"]["message"]["content"]["text"] for n, d in events if n == "content-delta"]
    assert "".join(texts) == proof(talk, nonce)
    assert events[-1][1]["delta"]["finish_reason"] == "COMPLETE"
    assert heard.body.endswith(b"data: [DONE]\n\n")


def test_cohere_tools(talk_of, nonce):
    talk = talk_of("cohere")
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}]
    message = talk.ask(nonce, tools=tools, tool_choice="REQUIRED").json["message"]
    (call,) = message["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": proof(talk, nonce)}
    talk.stage.script(nonce, "a", Act(tool_calls=CALLS))
    events = named(talk.ask(nonce, stream=True))
    arguments = [
        d["delta"]["message"]["tool_calls"]["function"]["arguments"]
        for n, d in events
        if n == "tool-call-delta" and d["index"] == 0
    ]
    assert json.loads("".join(arguments)) == {"city": "Paris"}
    assert events[-1][1]["delta"]["finish_reason"] == "TOOL_CALL"


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"messages": []}, 400),
        ({"messages": [{"role": "developer", "content": "x"}]}, 400),
        ({"messages": [{"role": "user", "content": ""}]}, 400),
        ({"model": None}, 400),
        ({"top_p": 0.5}, 422),
        ({"stop": ["x"]}, 422),
        ({"max_completion_tokens": 5}, 422),
        ({"stream_options": {"include_usage": True}}, 422),
        ({"tool_choice": "auto"}, 400),
        ({"response_format": {"type": "json_schema"}}, 400),
    ],
)
def test_what_cohere_refuses(talk_of, nonce, members, status):
    heard = talk_of("cohere").ask(nonce, **members)
    assert heard.status == status
    assert heard.json["message"]


def test_mistral_streams_counts_in_the_last_chunk(talk_of, nonce):
    talk = talk_of("mistral")
    talk.stage.script(nonce, "a", Act(tool_calls=CALLS))
    *chunks, done = talk.ask(nonce, stream=True).events
    assert done == "[DONE]"
    choice = chunks[-1]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    calls = choice["delta"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [v for _, v in CALLS]
    assert all(len(call["id"]) == 9 and call["id"].isalnum() for call in calls)
    assert chunks[-1]["usage"] == talk.stage.upstreams.attempts(nonce)[0].usage


def test_mistral_embeddings_have_an_id(talk_of, nonce):
    talk = talk_of("mistral")
    body = {"model": talk.actor.upstream_model, "input": [nonce]}
    assert talk.stage.post("a", "/v1/embeddings", body).json["id"]


OPENAI_CALL = {"id": "call_123", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"messages": [{**USER, "name": "bob"}]}, 422),
        ({"messages": [{"role": "developer", "content": "x"}, USER]}, 400),
        ({"messages": [USER, {"role": "assistant", "content": "no"}]}, 400),
        ({"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [OPENAI_CALL]},
                       {"role": "tool", "tool_call_id": "call_123", "content": "x"}]}, 400),
        ({"max_completion_tokens": 5}, 422),
        ({"seed": 5}, 422),
        ({"store": False}, 422),
        ({"logit_bias": {}}, 422),
        ({"stream": True, "stream_options": {"include_usage": True}}, 422),
        ({"messages": None}, 422),
    ],
)  # fmt: skip
def test_what_mistral_refuses(talk_of, nonce, members, status):
    heard = talk_of("mistral").ask(nonce, **members)
    assert heard.status == status
    assert heard.json["object"] == "error"
    if status == 422:
        assert heard.json["message"]["detail"][0]["loc"][0] == "body"


def test_cloudflare_streams(talk_of, nonce):
    talk = talk_of("cloudflare")
    talk.stage.script(nonce, "a", Act(text="{proof}", tool_calls=CALLS))
    *events, done = talk.ask(nonce, stream=True).events
    assert "".join(event["response"] for event in events) == proof(talk, nonce)
    assert events[-1]["tool_calls"][0] == {"name": "look_up", "arguments": {"city": "Paris"}}
    assert events[-1]["usage"] == talk.stage.upstreams.attempts(nonce)[0].usage
    assert done == "[DONE]"


@pytest.mark.parametrize(
    "members",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [{"content": "x"}]},
        {"max_tokens": "many"},
    ],
)
def test_what_cloudflare_refuses(talk_of, nonce, members):
    heard = talk_of("cloudflare").ask(nonce, **members)
    assert heard.status == 400
    assert heard.json["success"] is False
    assert heard.json["errors"][0]["code"] == 5006


def test_cohere_refuses_stream_options_there_too(talk_of, nonce):
    stage = talk_of("cohere").stage
    body = stage.chat("a", nonce, stream=True, stream_options={"include_usage": True})
    heard = stage.post("a", "/compatibility/v1/chat/completions", body)
    assert heard.status == 400
    assert "stream_options" in heard.body.decode()
