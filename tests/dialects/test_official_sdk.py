"""The official SDK as a judge of what we send, without a socket."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from openai import APIError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    CanonicalEvent,
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
    chat,
    draft,
    responses,
)
from aiproxy.spec import validate

Kit = dict[str, Callable[..., Any]]
MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}
BODY_SCHEMA = {
    "chat": "responses/chat-emitted",
    "responses": "responses/response",
    "draft": "responses/union",
}
FRAME_SCHEMA = {
    "chat": "events/chat-chunk",
    "responses": "events/response-event",
    "draft": "events/union-frame",
}

TOKEN = {"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
LINK = {
    "type": "url_citation",
    "url": "https://e.org",
    "title": "t",
    "start_index": 0,
    "end_index": 1,
}
TOOLS = [
    {
        "type": "function",
        "name": "f",
        "parameters": {"type": "object", "properties": {}},
        "strict": True,
    }
]
REQUEST = {
    "model": "auto",
    "input": "hi",
    "tools": TOOLS,
    "temperature": 0.5,
    "metadata": {"a": "b"},
}
USAGE = UsageEvent(Usage(20, 7, 5, 1, 2))

STREAMS: dict[str, list[CanonicalEvent]] = {
    "text": [
        TextDelta("Hi", 0, (TOKEN,)),
        TextDelta(" 😀"),
        AnnotationDelta(LINK),
        Finish("stop"),
        USAGE,
    ],
    "refusal": [RefusalDelta("I can"), RefusalDelta("not"), Finish("stop")],
    "reasoning": [
        ReasoningDelta("so", kind="summary"),
        ReasoningDelta("and", kind="summary", part=1),
        ReasoningDelta("then", item=1),
        ReasoningDelta("", item=1, encrypted="opaque"),
        TextDelta("Hi"),
        Finish("stop"),
        USAGE,
    ],
    "calls": [
        TextDelta("Wait"),
        ToolCallStart(0, "call_a", "f"),
        ToolCallDelta(0, '{"x"'),
        ToolCallStart(1, "call_b", "f"),
        ToolCallDelta(1, "{}"),
        ToolCallDelta(0, ":1}"),
        ToolCallEnd(0),
        ToolCallEnd(1),
        Finish("tool_calls"),
        USAGE,
    ],
    "cut": [TextDelta("Hal"), Finish("length"), USAGE],
    "empty": [Finish("stop")],
}
REPLIES = {
    "text": CanonicalReply(
        (Choice((Text("Hi 😀", (LINK,), (TOKEN,)),), "stop"),), "x", USAGE.usage
    ),
    "refusal": CanonicalReply((Choice((Refusal("I cannot"),), "stop"),), "x"),
    "calls": CanonicalReply(
        (
            Choice(
                (Reasoning("so"), ToolCall("", "f", "{}"), ToolCall("c", "g", "x", "custom")),
                "tool_calls",
            ),
        ),
        "x",
    ),
    "cut": CanonicalReply((Choice((Text("Hal"),), "content_filter"),), "x"),
    "two": CanonicalReply((Choice((Text("a"),), "stop"), Choice((Text("b"),), "stop", 1)), "x"),
}
DIALECTS = pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])


def envelope(**changes: Any) -> Envelope:
    return replace(Envelope("resp_0123abcd", 1_790_000_000, "auto", REQUEST), **changes)


def client(wire: bytes) -> OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=wire)

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    return OpenAI(api_key="k", base_url="http://test/v1", http_client=transport, max_retries=0)


@DIALECTS
@pytest.mark.parametrize("name", list(STREAMS))
def test_frames_meet_our_schemas_and_the_sdk_types(dialect: str, name: str, kit: Kit) -> None:
    given = envelope(include_usage=True)
    wire = kit["encode"](dialect, STREAMS[name], given, {"x-aiproxy": {"provider": "a"}})
    typed: TypeAdapter[Any] = TypeAdapter(
        ChatCompletionChunk if dialect == "chat" else ResponseStreamEvent
    )
    for frame in kit["frames"](wire):
        frame.pop("x-aiproxy", None)
        validate(frame, FRAME_SCHEMA[dialect])
        typed.validate_python(frame)


@DIALECTS
@pytest.mark.parametrize("name", list(REPLIES))
def test_bodies_meet_our_schemas_and_the_sdk_types(dialect: str, name: str) -> None:
    reply = replace(REPLIES[name], usage=USAGE.usage)
    body = MODULES[dialect].encode_reply(reply, envelope())
    validate(body, BODY_SCHEMA[dialect])
    (ChatCompletion if dialect == "chat" else Response).model_validate(body)


@DIALECTS
def test_error_frames_meet_our_schemas(dialect: str, kit: Kit) -> None:
    encoder = MODULES[dialect].StreamEncoder(envelope())
    error = {"message": "m", "type": "upstream_error", "param": None, "code": "stream_interrupted"}
    for frame in kit["frames"](encoder.encode(TextDelta("a")) + encoder.fail(error)):
        validate(frame, "error-emitted" if set(frame) == {"error"} else FRAME_SCHEMA[dialect])


def test_answers_without_usage_are_still_answers() -> None:
    validate(chat.encode_reply(REPLIES["cut"], envelope()), "responses/chat")
    validate(responses.encode_reply(REPLIES["cut"], envelope()), "responses/response")
    validate(draft.encode_reply(REPLIES["cut"], envelope()), "responses/union")


def test_a_response_has_its_31_members_from_the_first_event_to_the_last(kit: Kit) -> None:
    wire = kit["frames"](kit["encode"]("responses", STREAMS["calls"], envelope()))
    told = [frame["response"] for frame in wire if "response" in frame]
    assert [len(response) for response in told] == [31, 31, 31]
    assert {response["id"] for response in told} == {"resp_0123abcd"}
    assert told[-1]["temperature"] == 0.5
    assert told[-1]["tools"][0]["description"] is None


@pytest.mark.parametrize("name", list(STREAMS))
def test_the_sdk_accumulates_chat_streams(name: str, kit: Kit) -> None:
    wire = kit["encode"]("chat", STREAMS[name], envelope(include_usage=True))
    if name == "cut":
        with (
            client(wire).chat.completions.stream(
                model="auto", messages=[], stream_options={"include_usage": True}
            ) as stream,
            pytest.raises(openai.LengthFinishReasonError),
        ):
            stream.get_final_completion()
        return
    with client(wire).chat.completions.stream(model="auto", messages=[]) as stream:
        final = stream.get_final_completion()
    choice = final.choices[0]
    told = kit["assemble_chat"](kit["frames"](wire))
    assert (choice.message.content or "") == told["content"]
    assert (choice.message.refusal or "") == told["refusal"]
    assert choice.finish_reason == told["finish_reason"]
    calls = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
    assert calls == [(c["id"], c["name"], c["args"]) for c in told["calls"].values()]
    if USAGE in STREAMS[name]:
        assert final.usage is not None
        assert final.usage.total_tokens == 27


@pytest.mark.parametrize("dialect", ["responses", "draft"])
@pytest.mark.parametrize("name", list(STREAMS))
def test_the_sdk_accumulates_responses_streams(dialect: str, name: str, kit: Kit) -> None:
    wire = kit["encode"](dialect, STREAMS[name], envelope())
    end = kit["frames"](wire)[-1]["response"]
    with client(wire).responses.stream(model="auto", input="hi") as stream:
        events = list(stream)
        if name != "cut":
            final = stream.get_final_response()
            assert [item.id for item in final.output] == [item["id"] for item in end["output"]]
            assert final.output_text == "".join(
                e.text for e in STREAMS[name] if isinstance(e, TextDelta)
            )
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].type == ("response.incomplete" if name == "cut" else "response.completed")


@pytest.mark.parametrize("dialect", ["chat", "responses", "draft"])
def test_the_sdk_raises_on_a_broken_stream(dialect: str) -> None:
    encoder = MODULES[dialect].StreamEncoder(envelope())
    error = {
        "message": "broke off",
        "type": "upstream_error",
        "param": None,
        "code": "stream_interrupted",
    }
    wire = encoder.encode(TextDelta("a")) + encoder.fail(error)
    sdk = client(wire)
    stream: Any
    if dialect == "chat":
        stream = sdk.chat.completions.create(model="auto", messages=[], stream=True)
    else:
        stream = sdk.responses.create(model="auto", input="hi", stream=True)
    with pytest.raises(APIError, match="broke off"):
        list(stream)
