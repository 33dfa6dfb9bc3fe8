"""A conversation moves to another provider: what the first one made opaque stays behind, declared,
and goes back to it when the conversation does. No provider is sent what it cannot read."""

from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects.canonical import CanonicalRequest, Envelope, Loss, Untranslatable
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.continuity import foreign_losses, foreign_opaque, may_hold_foreign

SECRET = "c2VjcmV0"
ARGUMENTS = {"city": "Bern"}
#: What a provider of each dialect answers; the data only it can read is SECRET.
ANSWERS: dict[str, dict[str, Any]] = {
    "anthropic": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            {"type": "thinking", "thinking": "Let me think.", "signature": SECRET},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": ARGUMENTS},
        ],
        "stop_reason": "tool_use", "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
    "gemini": {
        "candidates": [
            {
                "content": {"role": "model", "parts": [
                    {"text": "Let me think.", "thought": True},
                    {"functionCall": {"name": "weather", "args": ARGUMENTS},
                     "thoughtSignature": SECRET},
                ]},
                "finishReason": "STOP", "index": 0,
            }
        ],
    },
    "responses": {
        "id": "resp_1", "object": "response", "status": "completed", "model": "m",
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SECRET},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
             "arguments": '{"city":"Bern"}', "status": "completed"},
        ],
    },
    "chat": {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [
            {
                "index": 0, "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant", "content": None, "reasoning": "Let me think.",
                    "reasoning_details": [{"type": "reasoning.encrypted", "data": SECRET,
                                           "format": "of-the-upstream", "index": 0}],
                    "tool_calls": [{"id": "call_1", "type": "function",
                                    "function": {"name": "weather",
                                                 "arguments": '{"city":"Bern"}'}}],
                },
            }
        ],
    },
}  # fmt: skip
ORIGINS = tuple(ANSWERS)
TARGETS = (*ORIGINS, "mistral", "cohere", "workers_ai")
CLIENTS = ("chat", "responses", "draft", "anthropic", "gemini")
GIVEN = Envelope(id="resp_0123", created=1, model="m")


def next_turn(client: str, told: dict[str, Any]) -> dict[str, Any]:
    """The client's next request: it sends the answer back as it got it, with the tool's result."""
    asked = "How is the weather?"
    if client in ("chat", "draft"):
        message = told["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sun"}
        return {"model": "m", "messages": [{"role": "user", "content": asked}, message, result]}
    if client == "responses":
        call = next(item for item in told["output"] if item["type"] == "function_call")
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
        return {
            "model": "m",
            "input": [{"role": "user", "content": asked}, *told["output"], result],
        }
    if client == "anthropic":
        call = next(block for block in told["content"] if block["type"] == "tool_use")
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "sun"}
        return {"model": "m", "max_tokens": 99, "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": told["content"]},
            {"role": "user", "content": [result]}]}  # fmt: skip
    said = told["candidates"][0]["content"]
    result = {"functionResponse": {"name": "weather", "response": {"result": "sun"}}}
    return {"model": "m", "contents": [
        {"role": "user", "parts": [{"text": asked}]}, said, {"role": "user", "parts": [result]}]}  # fmt: skip


def second_turn(origin: str, client: str) -> dict[str, Any]:
    reply = codec(origin).decode_reply(ANSWERS[origin])
    told = codec(client).encode_reply(reply, GIVEN, [])
    body: dict[str, Any] = next_turn(client, orjson.loads(orjson.dumps(told)))
    return body


def sent(client: str, target: str, body: dict[str, Any]) -> tuple[str, list[Loss]]:
    request: CanonicalRequest = codec(client).decode_request(body)
    encoded, losses = codec(target).encode_request(request, "m")
    return orjson.dumps(encoded).decode(), losses


@pytest.mark.parametrize(
    ("client", "origin", "target"),
    [(c, o, t) for c in CLIENTS for o in ORIGINS for t in TARGETS if t not in (c, o)],
)
def test_it_stays_behind_and_that_is_declared(client: str, origin: str, target: str) -> None:
    """Another dialect than the client's: through the canonical form."""
    try:
        wire, losses = sent(client, target, second_turn(origin, client))
    except Untranslatable as fault:  # it is never the reasoning that cannot be sent
        pytest.skip(f"{target} cannot be asked this: {fault.feature}")
    assert SECRET not in wire
    assert "aiproxy." not in wire
    assert "Let me think." not in wire, "thoughts of another provider are not put into its mouth"
    assert "Bern" in wire
    assert "sun" in wire
    told = [loss for loss in losses if loss.feature.startswith("reasoning")]
    assert told
    assert len(told) == len(set(told)), "each loss is told once"


@pytest.mark.parametrize(("client", "origin"), [(c, o) for c in CLIENTS for o in ORIGINS if o != c])
def test_it_goes_back_to_its_maker(client: str, origin: str) -> None:
    wire, losses = sent(client, origin, second_turn(origin, client))
    assert SECRET in wire
    assert "aiproxy." not in wire
    assert [loss for loss in losses if "opaque" in loss.detail] == []


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("client", CLIENTS)
def test_it_is_taken_out_of_a_body_that_stays_in_its_dialect(client: str, origin: str) -> None:
    """The next provider speaks the client's dialect, and its body is forwarded as it is."""
    body = second_turn(origin, client)
    changes = foreign_opaque(client, body)
    if origin == client or (origin, client) == ("chat", "draft"):
        assert changes is None
        return
    assert changes is not None
    assert may_hold_foreign(client, orjson.dumps(body))
    wire = orjson.dumps({**body, **changes}).decode()
    assert SECRET not in wire
    assert "aiproxy." not in wire
    assert "Bern" in wire
    assert "sun" in wire
    assert foreign_losses(client, body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("origin", ["anthropic", "gemini", "responses"])
def test_no_provider_behind_a_mount_sees_it(
    mount: Any, duo: Any, best: Any, fakes: Any, origin: str, stream: bool
) -> None:
    """The client's dialect is the provider's: its body is forwarded, but for what is not its."""
    body = second_turn(origin, "chat")
    served = mount(duo(a={"dialects": ["chat"]}))
    got = served.chat(best, messages=body["messages"], stream=stream)
    assert (got.status, got.provider) == (200, "a")
    (seen,) = fakes.a.seen
    wire = orjson.dumps(seen.body).decode()
    assert SECRET not in wire
    assert "reasoning" not in wire
    assert seen.body["messages"][2] == body["messages"][2]
    (loss,) = served.record(got)["losses"]
    assert loss["feature"] == "reasoning"
    assert origin in loss["detail"]


def test_what_a_provider_made_itself_reaches_it_behind_a_mount(
    mount: Any, duo: Any, best: Any, fakes: Any
) -> None:
    body = second_turn("chat", "chat")
    served = mount(duo(a={"dialects": ["chat"]}))
    got = served.chat(best, messages=body["messages"])
    assert got.status == 200
    assert fakes.a.seen[0].body["messages"] == body["messages"]
