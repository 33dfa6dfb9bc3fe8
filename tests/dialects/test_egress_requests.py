"""Whatever a client of ours may say, a provider's dialect says it, declares it lost, or refuses."""

from typing import Any

import orjson
import pytest
from egress import conversations
from hypothesis import given, settings
from odd import broken

from aiproxy.middleware.answering.relay import Translation
from aiproxy.middleware.dialects import (
    Envelope,
    MalformedRequest,
    Untranslatable,
    chat,
    cohere,
    mistral,
    responses,
    workers_ai,
)

MODULES: list[Any] = [cohere, mistral, workers_ai]
EACH = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DIALECT)
PARTS = [
    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
    {"type": "video_url", "video_url": {"url": "u"}},
]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT: dict[str, Any] = {
    **conversations()["sampling"],
    **{k: v for k, v in conversations()["tools"].items() if k == "tools"},
    "tool_choice": {"type": "function", "function": {"name": "now"}},
    "response_format": {"type": "json_object"},
    "metadata": {"a": "b"},
    "reasoning_effort": "low",
    "messages": [
        {"role": "system", "content": PARTS[:1]},
        {"role": "user", "content": PARTS, "name": "n"},
        {"role": "assistant", "content": "t", "tool_calls": [CALL], "reasoning_content": "r"},
        {"role": "tool", "tool_call_id": "c", "content": PARTS[:2]},
        {"role": "assistant", "function_call": CALL["function"], "refusal": "r"},
        {"role": "function", "name": "f", "content": "x"},
    ],
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "i",
    "input": [
        {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "z"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
    ],
    "tools": [{"type": "custom", "name": "g"}, {"type": "function", "name": "f"}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "parallel_tool_calls": False,
}


@EACH
@settings(max_examples=300, deadline=None)
@given(broken(CHAT, least=0))
def test_odd_chat_requests(module: Any, body: dict[str, Any]) -> None:
    _try(module, chat, body)


@EACH
@settings(max_examples=300, deadline=None)
@given(broken(RESPONSES, least=0))
def test_odd_responses_requests(module: Any, body: dict[str, Any]) -> None:
    _try(module, responses, body)


def _try(module: Any, ingress: Any, body: dict[str, Any]) -> None:
    try:
        request = ingress.decode_request(body)
        sent, losses = module.encode_request(request, "m")
    except (MalformedRequest, Untranslatable):
        return
    orjson.dumps(sent)
    assert len(set(losses)) == len(losses), "a loss is told once"


@EACH
@pytest.mark.parametrize("name", list(conversations()))
def test_a_stream_is_asked_for_and_nothing_else_changes(module: Any, name: str) -> None:
    body = {**conversations()[name], "stream": False}
    plain = module.encode_request(chat.decode_request(body), "m")
    streamed = module.encode_request(chat.decode_request({**body, "stream": True}), "m")
    assert streamed[1] == plain[1]
    streamed[0].pop("stream", None)
    assert streamed[0] == plain[0]


@EACH
def test_what_another_api_keeps_is_refused(module: Any) -> None:
    for body in (
        {"model": "m", "input": "a", "previous_response_id": "r"},
        {"model": "m", "input": "a", "conversation": "c"},
        {"model": "m", "input": [{"type": "item_reference", "id": "i"}]},
    ):
        with pytest.raises(Untranslatable):
            module.encode_request(responses.decode_request(body), "m")


def test_the_end_of_a_stream_reaches_a_dialect_that_has_no_other() -> None:
    relay = Translation("workers_ai", "chat", Envelope("c", 1, "m"))
    relay.feed(b'data: {"response":"Dry.","p":"a"}\n\n')
    assert not relay.finished
    relay.feed(b"data: [DONE]\n\n")
    assert relay.finished
    assert b'"finish_reason":"stop"' in relay.drain() + relay.finish({})
