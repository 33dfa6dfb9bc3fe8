"""The OpenAI shapes a fake speaks, whole and streamed, and what it refuses."""

import base64
import json
import struct

import pytest

from aiproxy.conformance.rig.acts import Act
from aiproxy.spec import validate

CHAT = "/v1/chat/completions"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}


def proof(stage, nonce, role="a"):
    return stage.upstreams.proof(nonce, stage[role].id)


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", "/some/prefix/v1/chat/completions"])
def test_a_chat_answers_with_the_proof_of_its_origin(stage, nonce, path):
    heard = stage.post("a", path, stage.chat("a", nonce))
    validate(heard.json, "responses/chat")
    assert heard.json["choices"][0]["message"]["content"] == proof(stage, nonce)
    assert heard.json["model"] == stage["a"].upstream_model
    ids = [actor.id for actor in stage.actors.values()]
    text = heard.body.decode()
    assert stage.upstreams.origin(text, nonce, ids) == stage["a"].id
    assert stage.upstreams.origin(text, "ref-000000000000", ids) == ""


def test_each_attempt_counts_differently_and_adds_up(stage, nonce):
    seen = []
    for _ in range(3):
        usage = stage.post("a", CHAT, stage.chat("a", nonce, max_tokens=16)).json["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert 0 < usage["completion_tokens"] < 16
        seen.append(usage)
    assert seen[0] != seen[1] != seen[2]
    assert [attempt.usage for attempt in stage.upstreams.attempts(nonce)] == seen


def test_a_stream_in_its_order(stage, nonce):
    body = stage.chat("a", nonce, stream=True, stream_options={"include_usage": True})
    heard = stage.post("a", CHAT, body)
    assert heard.header("content-type") == "text/event-stream"
    *chunks, done = heard.events
    assert done == "[DONE]"
    for chunk in chunks:
        validate(chunk, "events/chat-chunk")
    first, *middle, last, usage = chunks
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [m["choices"][0]["finish_reason"] for m in middle] == [None] * 4
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == stage.upstreams.attempts(nonce)[0].usage
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert heard.text == proof(stage, nonce)


def test_without_include_usage_a_stream_reports_none(stage, nonce):
    heard = stage.post("a", CHAT, stage.chat("a", nonce, stream=True))
    assert not any("usage" in chunk for chunk in heard.events[:-1])
    assert stage.upstreams.attempts(nonce)[0].usage is None


def test_what_an_act_says(stage):
    act = Act(
        text="Hello {proof}!",
        finish="length",
        usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        headers=(("x-ratelimit-remaining-requests", "5"), ("X-Request-Id", "mine")),
        extra={"service_tier": "flex"},
    )
    heard, nonce = stage.asked(act)
    choice = heard.json["choices"][0]
    assert choice["message"]["content"] == f"Hello {proof(stage, nonce)}!"
    assert choice["finish_reason"] == "length"
    assert heard.json["usage"]["total_tokens"] == 7
    assert heard.json["service_tier"] == "flex"
    assert heard.header("x-ratelimit-remaining-requests") == "5"
    assert heard.header("x-request-id") == "mine"
    assert heard.head.lower().count("x-request-id") == 1


def test_no_usage_and_a_body_of_ones_own(stage):
    heard, _ = stage.asked(Act(usage={}))
    assert "usage" not in heard.json
    heard, _ = stage.asked(Act(body="<p>{proof}</p>", content_type="text/html", status=201))
    assert (heard.status, heard.header("content-type")) == (201, "text/html")
    assert heard.body.startswith(b"<p>proof-")


def test_an_empty_reason_and_an_answer_without_a_body(stage):
    heard, _ = stage.asked(Act(finish=""), stream=True)
    assert heard.events[-2]["choices"][0]["finish_reason"] == ""
    heard, _ = stage.asked(Act(status=204, body=""))
    assert (heard.status, heard.rest, heard.header("content-length")) == (204, b"", None)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, "invalid_request_error", None),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (503, "server_error", "service_unavailable"),
    ],
)
def test_errors(stage, status, kind, code):
    heard, nonce = stage.asked(Act(status=status, message="no", headers=(("Retry-After", "7"),)))
    assert heard.status == status
    error = {"message": "no", "type": kind, "param": None, "code": code}
    assert heard.json == {"error": error}
    assert heard.header("retry-after") == "7"
    assert stage.upstreams.attempts(nonce)[0].status == status


def test_an_error_meets_even_a_wrong_request(stage, nonce):
    stage.script(nonce, "a", Act(status=503))
    assert stage.post("a", CHAT, {"bad": nonce}).status == 503


def test_times_of_an_act(stage):
    heard, nonce = stage.asked(Act(wait_s=0.1, gap_s=0.05, pieces=3), stream=True)
    (attempt,) = stage.upstreams.attempts(nonce)
    assert attempt.answered_at - attempt.at >= 0.1
    assert attempt.finished_at - attempt.answered_at >= 0.1
    assert len(heard.events) == 6


def test_tool_calls(stage):
    calls = (("look_up", {"city": "{proof}"}), ("other", {}))
    heard, nonce = stage.asked(Act(tool_calls=calls))
    choice = heard.json["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    first, second = choice["message"]["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"city": proof(stage, nonce)}
    assert first["id"] != second["id"]
    ids = [actor.id for actor in stage.actors.values()]
    assert stage.upstreams.origin(second["id"], nonce, ids) == stage["a"].id


def test_a_tool_the_client_insists_on_is_called(stage, nonce):
    body = stage.chat("a", nonce, tools=[TOOL], tool_choice="required")
    message = stage.post("a", CHAT, body).json["choices"][0]["message"]
    arguments = json.loads(message["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"city": proof(stage, nonce), "days": 1}
    body["tool_choice"] = "auto"
    message = stage.post("a", CHAT, body).json["choices"][0]["message"]
    assert "tool_calls" not in message


def test_a_form_the_client_insists_on_is_kept(stage, nonce):
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "boolean"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = stage.chat("a", nonce, response_format=wanted)
    content = stage.post("a", CHAT, body).json["choices"][0]["message"]["content"]
    assert json.loads(content) == {"a": proof(stage, nonce), "b": True}


def test_alternatives_and_log_probabilities(stage, nonce):
    heard = stage.post("a", CHAT, stage.chat("a", nonce, n=2, logprobs=True))
    validate(heard.json, "responses/chat")
    assert [choice["index"] for choice in heard.json["choices"]] == [0, 1]
    row = heard.json["choices"][0]["logprobs"]["content"][0]
    assert bytes(row["bytes"]).decode() == row["token"]


def test_a_response(stage, nonce):
    body = {"model": stage["a"].upstream_model, "input": f"hi {nonce}", "max_output_tokens": 20}
    heard = stage.post("a", "/v1/responses", body)
    validate(heard.json, "responses/response")
    assert heard.json["output"][0]["content"][0]["text"] == proof(stage, nonce)
    usage = stage.upstreams.attempts(nonce)[0].usage
    assert heard.json["usage"]["input_tokens"] == usage["prompt_tokens"]
    assert heard.json["usage"]["output_tokens"] == usage["completion_tokens"] < 20


@pytest.mark.parametrize("calls", [(), (("look_up", {"city": "Paris"}), ("other", {}))])
@pytest.mark.parametrize("text", [None, "Hello {proof}"])
def test_a_streamed_response(stage, nonce, calls, text):
    stage.script(nonce, "a", Act(tool_calls=calls, text=text))
    body = {"model": stage["a"].upstream_model, "input": nonce, "stream": True}
    heard = stage.post("a", "/v1/responses", body)
    events = heard.events
    for event in events:
        validate(event, "events/response-event")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    final = events[-1]["response"]
    validate(final, "responses/response")
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert done == final["output"]
    if deltas:
        assert "".join(deltas) == final["output"][0]["content"][0]["text"]
    names = [item["name"] for item in final["output"] if item["type"] == "function_call"]
    assert names == [name for name, _ in calls]
    lines = [line for line in heard.body.decode().split("\n") if line.startswith("event: ")]
    assert [line[7:] for line in lines] == [event["type"] for event in events]


def test_a_streamed_response_that_fails(stage, nonce):
    stage.script(nonce, "a", Act(fault="error-event", after=1, message="boom"))
    body = {"model": stage["a"].upstream_model, "input": nonce, "stream": True}
    events = stage.post("a", "/v1/responses", body).events
    assert [e["type"] for e in events[-2:]] == ["error", "response.failed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"]["error"]["message"] == "boom"


def test_an_incomplete_response(stage, nonce):
    stage.script(nonce, "a", always=Act(finish="length"))
    body = {"model": stage["a"].upstream_model, "input": nonce}
    whole = stage.post("a", "/v1/responses", body).json
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    validate(whole, "responses/response")
    events = stage.post("a", "/v1/responses", {**body, "stream": True}).events
    assert events[-1]["type"] == "response.incomplete"


def test_embeddings(stage, nonce):
    body = {"model": stage["a"].upstream_model, "input": [nonce, "other"], "dimensions": 8}
    heard = stage.post("a", "/v1/embeddings", body)
    validate(heard.json, "responses/embeddings")
    first, second = (row["embedding"] for row in heard.json["data"])
    assert len(first) == len(second) == 8
    ids = [actor.id for actor in stage.actors.values()]
    origin = stage.upstreams.origin_of_vector
    assert origin(first, nonce, ids) == origin(second, nonce, ids, 1) == stage["a"].id
    assert origin(second, nonce, ids) == origin([], nonce, ids) == ""
    packed = stage.post("a", "/v1/embeddings", {**body, "encoding_format": "base64"}).json
    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<8f", raw)) == first


@pytest.mark.parametrize("stream", [False, True])
def test_completions(stage, nonce, stream):
    body = {"model": stage["a"].upstream_model, "prompt": nonce, "stream": stream}
    heard = stage.post("a", "/v1/completions", body)
    if stream:
        chunks = [event for event in heard.events if event != "[DONE]"]
        for chunk in chunks:
            validate(chunk, "events/completion-chunk")
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    else:
        validate(heard.json, "responses/completion")
        text = heard.json["choices"][0]["text"]
    assert text == proof(stage, nonce)


def test_models(stage):
    listed = stage.get("a", "/v1/models").json
    validate(listed, "responses/models")
    model = stage["a"].upstream_model
    assert [row["id"] for row in listed["data"]] == [model]
    validate(stage.get("a", f"/v1/models/{model}").json, "responses/model")
    assert stage.get("a", "/v1/models/nobody").json["error"]["code"] == "model_not_found"
    (first, *_) = stage.upstreams.attempts("")
    assert (first.method, first.path, first.nonce) == ("GET", "/v1/models", "")


@pytest.mark.parametrize("header", [{"Authorization": "Bearer sk-else"}, {"Authorization": "x"}])
def test_a_wrong_key_is_refused(stage, nonce, header):
    heard = stage.post("a", CHAT, stage.chat("a", nonce), header)
    assert heard.status == 401
    assert heard.json["error"]["type"] == "invalid_request_error"
    assert "sk-else" not in heard.body.decode()
    assert stage.upstreams.attempts(nonce)[0].status == 401


def bad(**members):
    return {"messages": [{"role": "user", "content": "hi"}], **members}


MALFORMED = [
    ("chat/completions", b"{", 400),
    ("chat/completions", b"[]", 400),
    ("chat/completions", b'{"model": "\xff"}', 400),
    ("chat/completions", {"messages": []}, 400),
    ("chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, 400),
    ("chat/completions", {"messages": [{"role": "user"}]}, 400),
    ("chat/completions", {"messages": [{"role": "user", "content": [{}]}]}, 400),
    ("chat/completions", {"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]}, 400),
    (
        "chat/completions",
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "user", "content": "and?"},
            ]
        },
        400,
    ),
    ("chat/completions", bad(tools="auto"), 400),
    ("chat/completions", bad(tools=[{"type": "function", "name": "flat"}]), 400),
    ("chat/completions", bad(tool_choice="auto"), 400),
    ("chat/completions", bad(max_tokens="auto"), 400),
    ("chat/completions", bad(max_tokens=0), 400),
    ("chat/completions", bad(temperature=3), 400),
    ("chat/completions", bad(stream="yes"), 400),
    ("chat/completions", bad(stream_options={"include_usage": True}), 400),
    ("chat/completions", bad(response_format="json"), 400),
    ("chat/completions", bad(model="auto"), 404),
    ("responses", {"messages": []}, 400),
    ("responses", {"input": []}, 400),
    ("responses", {"input": "x", "tools": [{"type": "function", "function": {}}]}, 400),
    ("embeddings", {"input": []}, 400),
    ("embeddings", {"input": "x", "encoding_format": "int8"}, 400),
    ("completions", {}, 400),
    ("nowhere", {}, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), MALFORMED)
def test_what_a_real_one_refuses_is_refused(stage, path, body, status):
    if isinstance(body, dict):
        body = {"model": stage["a"].upstream_model, **body}
    heard = stage.post("a", f"/v1/{path}", body)
    assert heard.status == status
    assert set(heard.json["error"]) == {"message", "type", "param", "code"}


def test_other_methods_and_media_types(stage, nonce):
    assert stage.get("a", CHAT).status == 405
    body = json.dumps(stage.chat("a", nonce)).encode()
    assert stage.post("a", CHAT, body, {"Content-Type": "text/plain"}).status == 415
