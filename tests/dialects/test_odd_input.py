"""Odd JSON never surprises: only the documented exceptions come out, whatever is put in."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from odd import broken

from aiproxy.middleware.dialects import (
    MalformedReply,
    MalformedRequest,
    StreamCut,
    Untranslatable,
    chat,
    draft,
    responses,
)
from aiproxy.middleware.dialects.estimate import prompt_tokens
from aiproxy.middleware.dialects.features import needs
from aiproxy.middleware.dialects.observe import check_reply, observer

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LINK = {"type": "url_citation", "url_citation": {"url": "u"}}
PROBABILITY = {"content": [{"token": "a", "logprob": -1}]}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 3,
         "completion_tokens_details": {"reasoning_tokens": 1}}  # fmt: skip
MESSAGE = {"role": "assistant", "content": "a", "refusal": "r", "reasoning_content": "t", "annotations": [LINK],
           "audio": {"id": "a", "data": "d", "transcript": "t", "expires_at": 1}, "tool_calls": [CALL],
           "function_call": {"name": "f", "arguments": "{}"}}  # fmt: skip
CHUNK = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": MESSAGE, "logprobs": PROBABILITY,
         "finish_reason": "stop"}], "usage": USAGE}  # fmt: skip
CHAT_BODY = {"id": "c", "created": 1, "model": "m", "choices": [{"index": 0, "message": MESSAGE,
             "logprobs": PROBABILITY, "finish_reason": "stop"}], "usage": USAGE}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}
CUSTOM = {
    "type": "custom",
    "custom": {"name": "f", "format": {"type": "grammar", "grammar": {"syntax": "s"}}},
}
PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
         {"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}},
         {"type": "file", "file": {"file_id": "f"}}]  # fmt: skip
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}
CHAT_REQUEST = {"model": "m", "messages": [{"role": "user", "content": PARTS}, MESSAGE,
                {"role": "tool", "tool_call_id": "c", "content": PARTS[:1]}], "tools": [TOOL, CUSTOM],
                "tool_choice": ALLOWED, "response_format": {"type": "json_schema", "json_schema": {"name": "n"}},
                "stop": ["a"], "stream_options": {"include_usage": True}, "functions": [{"name": "f"}],
                "metadata": {"a": "b"}, "reasoning": {"effort": "low"}}  # fmt: skip
SAID = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": "a", "annotations": [LINK], "logprobs": [{"token": "a"}]},
        {"type": "refusal", "refusal": "r"}]}  # fmt: skip
THOUGHT = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}],
           "content": [{"type": "reasoning_text", "text": "s"}], "encrypted_content": "z"}  # fmt: skip
CALLED = {"type": "function_call", "id": "f", "call_id": "c", "name": "f", "arguments": "{}"}
RESPONSE = {"id": "r", "created_at": 1, "model": "m", "status": "incomplete", "output": [THOUGHT, SAID, CALLED],
            "incomplete_details": {"reason": "content_filter"}, "usage": USAGE}  # fmt: skip
RESULT = {
    "type": "function_call_output",
    "call_id": "c",
    "output": [{"type": "input_image", "image_url": "u"}],
}
RESPONSES_REQUEST = {"model": "m", "input": [THOUGHT, SAID, CALLED, RESULT], "tools": [{"type": "function", "name": "f"}],
                     "tool_choice": {"type": "function", "name": "f"}, "include": ["a"], "instructions": "i",
                     "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
                     "reasoning": {"effort": "low"}, "prompt": {"id": "p"}}  # fmt: skip
AT = {"output_index": 0, "item_id": "m", "content_index": 0, "sequence_number": 1}
EVENTS: list[dict[str, Any]] = [
    {"type": "response.created", "response": RESPONSE},
    {"type": "response.output_item.added", **AT, "item": SAID},
    {"type": "response.output_item.done", **AT, "item": SAID},
    {"type": "response.output_item.done", **AT, "item": CALLED},
    {"type": "response.output_item.done", **AT, "item": THOUGHT},
    {"type": "response.output_text.delta", **AT, "delta": "a", "logprobs": [{"token": "a"}]},
    {"type": "response.output_text.done", **AT, "text": "a", "logprobs": []},
    {"type": "response.content_part.done", **AT, "part": SAID["content"][0]},  # type: ignore[index]
    {"type": "response.output_text.annotation.added", **AT, "annotation": LINK},
    {"type": "response.function_call_arguments.delta", **AT, "delta": "{"},
    {"type": "response.function_call_arguments.done", **AT, "name": "f", "arguments": "{}"},
    {"type": "response.reasoning_summary_text.delta", **AT, "summary_index": 0, "delta": "a"},
    {"type": "response.completed", "response": RESPONSE},
    {"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}},
    {"type": "error", "error": {"message": "m"}},
]


MANY = settings(deadline=None, max_examples=400)


@MANY
@given(body=broken(CHAT_REQUEST))
def test_chat_requests(body: dict[str, Any]) -> None:
    prompt_tokens("chat", body)
    needs("chat", body)
    for module in (chat, draft):
        try:
            request = module.decode_request(body)
        except MalformedRequest:
            continue
        for target in (chat, responses):
            try:
                target.encode_request(request, "m")
            except Untranslatable:
                # What chat said, chat can say again.
                assert (module, target) != (chat, chat)


@MANY
@given(body=broken(RESPONSES_REQUEST))
def test_responses_requests(body: dict[str, Any]) -> None:
    prompt_tokens("responses", body)
    needs("responses", body)
    try:
        request = responses.decode_request(body)
        responses.encode_request(request, "m")
        chat.encode_request(request, "m")
    except (MalformedRequest, Untranslatable):
        return


@MANY
@given(body=broken(CHAT_BODY), other=broken(RESPONSE))
def test_replies(body: dict[str, Any], other: dict[str, Any]) -> None:
    check_reply("chat", body)
    check_reply("responses", other)
    for module, given_body in ((chat, body), (responses, other)):
        try:
            module.decode_reply(given_body)
        except MalformedReply:
            continue


@MANY
@given(chunks=st.lists(broken(CHUNK), min_size=1, max_size=3))
def test_chat_streams(chunks: list[dict[str, Any]]) -> None:
    decoder, watch = chat.StreamDecoder(), observer("chat")
    for payload in chunks:
        decoder.feed(payload)
        watch.feed(payload)
    try:
        decoder.finish()
    except StreamCut:
        return


@MANY
@given(events=st.lists(st.sampled_from(EVENTS).flatmap(broken), min_size=1, max_size=6))
def test_responses_streams(events: list[dict[str, Any]]) -> None:
    decoder, watch = responses.StreamDecoder(), observer("responses")
    for payload in events:
        decoder.feed(payload)
        watch.feed(payload)
    try:
        decoder.finish()
    except StreamCut:
        return
