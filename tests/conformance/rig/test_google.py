"""The Gemini API of a fake Google."""

import json

import pytest
from rig_talk import CALLS, SCHEMA, TEXT, USER, proof

from aiproxy.conformance.rig.acts import Act


def test_gemini_streams_the_call_before_the_reason(talk_of, nonce):
    talk = talk_of("google")
    talk.stage.script(nonce, "a", Act(text="{proof}", tool_calls=CALLS))
    chunks = talk.ask(nonce, stream=True).events
    candidates = [chunk["candidates"][0] for chunk in chunks]
    parts = [part for one in candidates for part in one["content"]["parts"]]
    assert "".join(part.get("text", "") for part in parts) == proof(talk, nonce)
    assert [p["functionCall"]["args"] for p in parts if "functionCall" in p] == [
        values for _, values in CALLS
    ]
    reasons = [one.get("finishReason") for one in candidates]
    assert reasons == [None] * (len(reasons) - 1) + ["STOP"]


def test_gemini_without_sse_streams_one_array(talk_of, nonce):
    talk = talk_of("google")
    path, fields, body = talk.google(f"Reference {nonce}.", True)
    heard = talk.stage.post("a", path.removesuffix("?alt=sse"), body, fields)
    assert heard.header("content-type").startswith("application/json")
    texts = [one["candidates"][0]["content"]["parts"][0]["text"] for one in heard.json]
    assert "".join(texts) == proof(talk, nonce)


def test_gemini_key_in_the_query_and_both_spellings(talk_of, nonce):
    talk = talk_of("google")
    path, _, body = talk.google(f"Reference {nonce}.", False)
    body["system_instruction"] = {"parts": [{"text": "be kind"}]}
    body["generation_config"] = {"max_output_tokens": 5, "response_mime_type": "application/json"}
    heard = talk.stage.post("a", f"{path}?key={talk.actor.key}", body, {"Authorization": ""})
    assert heard.status == 200
    assert json.loads(TEXT["google"](heard.json)) == {"answer": proof(talk, nonce)}


def test_gemini_calls_a_tool_it_must_call(talk_of, nonce):
    talk = talk_of("google")
    tools = [{"functionDeclarations": [{"name": "look_up", "parameters": SCHEMA}]}]
    config = {"functionCallingConfig": {"mode": "ANY"}}
    heard = talk.ask(nonce, tools=tools, toolConfig=config).json
    (part,) = heard["candidates"][0]["content"]["parts"]
    assert part["functionCall"] == {"name": "look_up", "args": {"city": proof(talk, nonce)}}


def contents(*turns):
    return [{"role": role, "parts": list(parts)} for role, *parts in turns]


HI = {"text": "hi"}
CALL = {"functionCall": {"name": "f", "args": {}}}
RESULT = {"functionResponse": {"name": "f", "response": {}}}


@pytest.mark.parametrize(
    "members",
    [
        {"contents": []},
        {"contents": contents(("system", HI))},
        {"contents": contents(("user",))},
        {"contents": contents(("user", {}))},
        {"contents": contents(("user", {"text": "x", "functionCall": {}}))},
        {"contents": contents(("user", RESULT))},
        {"contents": contents(("user", HI), ("model", CALL, CALL), ("user", RESULT))},
        {"contents": contents(("user", HI), ("model", CALL), ("user", HI))},
        {"messages": [USER]},
        {"model_name": "x"},
        {"generationConfig": {"max_tokens": 5}},
        {"tools": [{"functionDeclarations": [
            {"name": "f", "parameters": {"type": "object", "$schema": "x"}}]}]},
        {"tools": [{"functionDeclarations": [
            {"name": "f", "parameters": {"type": "object", "properties": {
                "x": {"$ref": "#/x"}}}}]}]},
        {"generationConfig": {"responseSchema": SCHEMA}},
    ],
)  # fmt: skip
def test_what_gemini_refuses(talk_of, nonce, members):
    heard = talk_of("google").ask(nonce, **members)
    assert heard.status == 400
    assert heard.json["error"]["status"] == "INVALID_ARGUMENT"


def test_gemini_takes_a_turn_of_calls_and_answers(talk_of, nonce):
    turns = contents(
        ("user", {"text": f"hi {nonce}"}), ("model", CALL, CALL), ("user", RESULT, RESULT)
    )
    assert talk_of("google").ask(nonce, contents=turns).status == 200
