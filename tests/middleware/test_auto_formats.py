"""Answers in a shape: passed on, or asked for in words and checked (XAI-AUTO-007, XAI-AUTO-024)."""

import json

import pytest
from mounts import CHAT, HELLO, RESPONSES
from upstreams import Script

req = pytest.mark.requirement
ON = {"X-AI-Multi-Provider": "enabled"}
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place", "days"],
    "additionalProperties": False,
}
WANTED = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
GOOD = '{"place": "Zürich", "days": 3}'
BAD = '{"place": "Zürich"}'
REFUSED = {"error": {"message": "no", "type": "invalid_request_error", "param": "messages"}}
MARK = "[aiproxy: answer format]"


def plain(name="m", formats=("text",), **facts):
    return {"name": name, "response_formats": list(formats), **facts}


def lone(fakes, *, formats=("text",), **sections):
    return fakes.config({"a": {"models": [plain(formats=formats)]}}, **sections)


def text_of(got):
    if "choices" in got.json:
        return got.json["choices"][0]["message"]["content"]
    return got.json["output"][-1]["content"][0]["text"]


def ask(served, path=CHAT, headers=ON, **members):
    if path == CHAT:
        body = {"messages": HELLO, "response_format": WANTED}
    else:
        shape = {"type": "json_schema", "name": "trip", "schema": SCHEMA}
        body = {"input": "Hello", "text": {"format": shape}}
    return served.post(path, {"model": "m", **body, **members}, headers)


@req("XAI-AUTO-007", "XAI-AUTO-024")
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("formats", [(), ("text", "json_object")])
def test_a_missing_shape_is_asked_for_in_words(mount, fakes, path, formats):
    served = mount(lone(fakes, formats=formats))
    fakes.a.script = Script(text=GOOD)
    got = ask(served, path)
    assert got.status == 200, got
    assert json.loads(text_of(got)) == json.loads(GOOD)
    sent = fakes.a.seen[0].body
    assert sent.get("response_format") == ({"type": "json_object"} if formats else None)
    words = sent["messages"][-1]["content"]
    assert words.startswith(MARK)
    assert json.loads(words.partition("\n")[2]) == SCHEMA
    losses = [row["feature"] for row in served.record(got)["losses"]]
    assert losses.count("response_format") == 1
    assert got.json["x-aiproxy"]["losses"]


@req("XAI-AUTO-023")
@pytest.mark.parametrize("formats", [None, ("json_schema",)])
def test_a_known_shape_passes_and_is_not_looked_at(mount, fakes, formats):
    row = {"name": "m"} if formats is None else plain(formats=formats)
    served = mount(fakes.config({"a": {"models": [row]}}))
    fakes.a.script = Script(text="no JSON at all")
    got = ask(served)
    assert got.status == 200
    assert fakes.a.seen[0].body == {"model": "m", "messages": HELLO, "response_format": WANTED}
    assert served.record(got)["losses"] == []


@pytest.mark.parametrize(
    "text", [f"```json\n{GOOD}\n```", f"```\n{GOOD}```\n", f"\n  ```JSON\r\n{GOOD}\r\n```"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_code_fence_is_taken_off(mount, fakes, text, stream):
    served = mount(lone(fakes))
    fakes.a.script = Script(text=text, chunks=[text[i : i + 2] for i in range(0, len(text), 2)])
    got = ask(served, stream=stream)
    assert got.status == 200, got
    if stream:
        deltas = [e["choices"][0]["delta"] for e in got.events[:-1] if e.get("choices")]
        shown = "".join(delta.get("content") or "" for delta in deltas)
    else:
        shown = text_of(got)
    assert json.loads(shown) == json.loads(GOOD)
    assert len(fakes.a.seen) == 1


@req("XAI-AUTO-024")
def test_an_answer_that_does_not_fit_is_mended_once(mount, fakes):
    served = mount(lone(fakes))
    fakes.a.queue = [Script(text=BAD), Script(text=GOOD)]
    got = ask(served)
    assert got.status == 200, got
    assert json.loads(text_of(got))["days"] == 3
    first, second = fakes.a.seen
    assert second.body["messages"][:-2] == first.body["messages"]
    assert second.body["messages"][-2] == {"role": "assistant", "content": BAD}
    assert "required" in second.body["messages"][-1]["content"]
    record = served.record(got)
    assert [a["outcome"] for a in record["attempts"]] == ["failed", "ok"]
    assert record["attempts"][0]["error"] == "invalid_response"
    assert record["attempts"][0]["usage"]["output_tokens"] == 12
    assert record["failover"]["occurred"] is False


@req("XAI-AUTO-024")
@pytest.mark.parametrize("repairs", [0, 1, 3])
@pytest.mark.parametrize("policy", ["none", "automatic"])
def test_an_answer_that_never_fits_is_an_error(mount, fakes, repairs, policy):
    served = mount(lone(fakes, routing={"repair_attempts": repairs}))
    fakes.a.script = Script(text="I would rather not say SECRET-TEXT")
    got = ask(served, headers={**ON, "X-AI-Failover-Policy": policy})
    assert (got.status, got.error["code"]) == (502, "format_adaptation_failed")
    assert "SECRET-TEXT" not in got.body.decode()
    assert len(fakes.a.seen) == 1 + repairs


@req("XAI-AUTO-024")
def test_somebody_else_answers_when_mending_failed(mount, fakes):
    served = mount(fakes.config({"a": {"models": [plain()]}, "b": {"models": [{"name": "m"}]}}))
    fakes.a.script = Script(text=BAD)
    fakes.b.script = Script(text=GOOD)
    got = ask(served, headers={**ON, "X-AI-Failover-Policy": "automatic"})
    assert got.status == 200, got
    assert fakes.called() == {"a": 2, "b": 1}
    assert fakes.b.seen[0].body["response_format"] == WANTED
    assert fakes.b.seen[0].body["messages"] == HELLO
    assert got.provider == "b"
    # what the first one could not do says nothing of its health
    assert served.gateway.registry.providers["a"].track.open_until == 0


def test_the_next_one_is_blamed_for_itself(mount, fakes):
    served = mount(fakes.config({"a": {"models": [plain()]}, "b": {"models": [{"name": "m"}]}}))
    fakes.a.script = Script(text=BAD)
    fakes.b.script = Script(status=400, body=REFUSED)
    got = ask(served, headers={**ON, "X-AI-Failover-Policy": "automatic"})
    assert got.status == 400, got


def test_a_refused_repair_is_not_the_clients_fault(mount, fakes):
    served = mount(lone(fakes))
    for status in (400, 413, 422):
        fakes.a.queue = [Script(text=BAD), Script(status=status, body=REFUSED)]
        got = ask(served)
        assert (got.status, got.error["code"]) == (502, "format_adaptation_failed"), got


@req("XAI-AUTO-024")
def test_a_stream_that_does_not_fit_ends_with_the_error(mount, fakes):
    served = mount(lone(fakes))
    fakes.a.script = Script(chunks=['{"place": ', '"Bern"}'])
    got = ask(served, stream=True)
    assert got.status == 200
    errors = [e["error"] for e in got.events if isinstance(e, dict) and e.get("error")]
    assert [error["code"] for error in errors] == ["format_adaptation_failed"]
    assert "[DONE]" not in got.events
    assert served.record(got)["outcome"] == "failed"
    fakes.a.script = Script(chunks=['{"place": "Bern", ', '"days": 2}'])
    got = ask(served, stream=True)
    assert got.events[-1] == "[DONE]"
    assert served.record(got)["outcome"] == "ok"


def test_a_document_in_place_of_a_stream_is_checked_and_mended(mount, fakes):
    served = mount(lone(fakes))

    def whole(text):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Script(body={"id": "x", "object": "chat.completion", "choices": [choice]})

    fakes.a.queue = [whole(BAD), whole(GOOD)]
    got = ask(served, stream=True)
    assert got.events[-1] == "[DONE]"
    assert len(fakes.a.seen) == 2


def test_a_call_or_a_cut_is_no_answer_to_check(mount, fakes):
    served = mount(lone(fakes))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    fakes.a.script = Script(message={"role": "assistant", "content": None, "tool_calls": [call]})
    assert ask(served).status == 200
    choice = {"message": {"role": "assistant", "content": '{"pl'}, "finish_reason": "length"}
    fakes.a.script = Script(body={"id": "x", "choices": [choice]})
    got = ask(served)
    assert got.json["choices"][0]["finish_reason"] == "length"
    assert len(fakes.a.seen) == 2


def test_strict_translation_refuses_an_adapted_shape(mount, fakes):
    got = ask(mount(lone(fakes, routing={"strict_translation": True})))
    assert (got.status, got.error["code"]) == (422, "no_eligible_provider")
    assert fakes.called() == {}


def test_a_json_object_is_adapted_too(mount, fakes):
    served = mount(lone(fakes))
    fakes.a.queue = [Script(text="[1]"), Script(text='{"a": 1}')]
    got = ask(served, response_format={"type": "json_object"})
    assert text_of(got) == '{"a": 1}'
    assert len(fakes.a.seen) == 2
    assert "JSON" in fakes.a.seen[0].body["messages"][-1]["content"]


@req("XAI-AUTO-007")
@pytest.mark.parametrize("word", ["auto", "provider-adaptive"])
def test_the_words_ask_for_no_shape(mount, fakes, word):
    served = mount(lone(fakes))
    got = ask(served, response_format=word)
    assert got.status == 200
    assert fakes.a.seen[0].body == {"model": "m", "messages": HELLO}
    assert got.decisions["response_format"]["requested"] == word
    assert got.decisions["response_format"]["resolved"] == "text"


@req("XAI-AUTO-007", "XAI-AUTO-024")
def test_gemini_with_tools_is_asked_in_words(mount, fakes):
    row = {"name": "m", "model": "gemini-2.5-flash"}
    served = mount(fakes.config({"a": {"dialects": ["gemini"], "models": [row]}}))

    def says(text):
        content = {"role": "model", "parts": [{"text": text}]}
        return Script(body={"candidates": [{"content": content, "finishReason": "STOP"}]})

    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    fakes.a.queue = [says(BAD), says(f"```json\n{GOOD}\n```")]
    got = ask(served, tools=[tool])
    assert got.status == 200, got
    assert json.loads(text_of(got)) == json.loads(GOOD)
    sent = fakes.a.seen[0].body
    assert "responseMimeType" not in sent.get("generationConfig", {})
    assert MARK in json.dumps(sent["systemInstruction"])
    got = ask(served)
    config = fakes.a.seen[-1].body["generationConfig"]
    assert config["responseMimeType"] == "application/json"


def test_an_ill_formed_answer_of_an_old_claude_is_mended(mount, fakes):
    row = {"name": "m", "model": "claude-3-5-haiku-20241022"}
    served = mount(fakes.config({"a": {"dialects": ["anthropic"], "models": [row]}}))

    def says(text):
        return Script(
            body={
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "up",
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 1, "output_tokens": 1},
            }
        )

    array = {"type": "array", "items": {"type": "integer"}}  # no tool's input could be one
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": array}}
    fakes.a.queue = [says("one, two"), says("[1, 2]")]
    got = ask(served, response_format=shape)
    assert got.status == 200, got
    assert text_of(got) == "[1, 2]"
    assert len(fakes.a.seen) == 2


@req("XAI-AUTO-024")
@pytest.mark.parametrize("stream", [False, True])
def test_a_filter_that_refuses_the_repair_is_not_walked_around(mount, fakes, stream):
    served = mount(fakes.config({"a": {"models": [plain()]}, "b": {"models": [{"name": "m"}]}}))
    message = {"role": "assistant", "content": BAD}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    first = Script(body={"id": "x", "object": "chat.completion", "choices": [choice]})
    filtered = Script(status=400, body={"error": {"message": "no", "code": "content_filter"}})
    fakes.a.queue = [first, filtered]
    fakes.b.script = Script(text=GOOD)
    got = ask(served, headers={**ON, "X-AI-Failover-Policy": "automatic"}, stream=stream)
    assert got.status == 400, got
    assert "content filter" in got.error["message"]
    assert fakes.called() == {"a": 2}


def test_another_question_goes_without_the_idempotency_key(mount, fakes):
    """XAI-FAIL-024: under the same key a provider would answer a repair with its first answer."""
    served = mount(lone(fakes))
    fakes.a.queue = [Script(text=BAD), Script(text=GOOD)]
    assert ask(served, headers={**ON, "Idempotency-Key": "once-1"}).status == 200
    first, second = fakes.a.seen
    assert first.headers["idempotency-key"] == "once-1"
    assert "idempotency-key" not in second.headers


def told_in(stream, message):
    """An answer of one message as a document, or as a stream of two chunks."""
    if not stream:
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Script(body={"id": "x", "object": "chat.completion", "choices": [choice]})
    chunks = [
        {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    wire = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    return Script(raw=wire.encode(), content_type="text/event-stream")


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_no_answer_to_check(mount, fakes, stream):
    served = mount(lone(fakes))
    fakes.a.script = told_in(stream, {"role": "assistant", "refusal": "I will not."})
    got = ask(served, stream=stream)
    assert got.status == 200, got
    assert b"I will not." in got.body
    assert b"format_adaptation_failed" not in got.body
    assert len(fakes.a.seen) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_alone_are_no_answer(mount, fakes, stream):
    served = mount(lone(fakes))
    fakes.a.script = told_in(stream, {"role": "assistant", "reasoning_content": "Hm."})
    got = ask(served, stream=stream)
    assert b"format_adaptation_failed" in got.body, got
