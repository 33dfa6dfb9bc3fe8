"""The official OpenAI package reads every example of an answer, strictly and over its own client."""

import json
import struct
from collections.abc import Iterable
from typing import Any, Final

import httpx2
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from aiproxy.spec import schema

READERS: Final[dict[str, Any]] = {
    "responses/chat": ChatCompletion,
    "responses/chat-emitted": ChatCompletion,
    "responses/response": Response,
    "responses/union": Response,
    "responses/completion": Completion,
    "responses/embeddings": CreateEmbeddingResponse,
    "responses/model": Model,
    "events/chat-chunk": ChatCompletionChunk,
    "events/completion-chunk": Completion,
    "events/response-event": ResponseStreamEvent,
    "events/union-frame": ResponseStreamEvent,
}


def outside_the_types(name: str, example: dict[str, Any]) -> bool:
    """Return whether the package handles this form before its types come into play.

    Base64 vectors are decoded by its client, a nested error becomes an exception, prefixed event
    types are extensions, and a legacy chunk's null finish reason is in the wire format only. Each
    is read through the client below.
    """
    match name:
        case "responses/embeddings":
            return isinstance(example["data"][0]["embedding"], str)
        case "events/completion-chunk":
            return any(choice["finish_reason"] is None for choice in example["choices"])
        case "events/response-event" | "events/union-frame":
            nested = example["type"] == "error" and "message" not in example
            return nested or ":" in example["type"]
    return False


@pytest.mark.parametrize(
    ("name", "example"),
    [
        pytest.param(name, example, id=f"{name}[{place}]")
        for name in READERS
        for place, example in enumerate(schema(name)["examples"])
        if not outside_the_types(name, example)
    ],
)
def test_the_official_types_accept_the_example(name: str, example: dict[str, Any]) -> None:
    TypeAdapter(READERS[name]).validate_python(example)


def test_few_examples_are_outside_the_types() -> None:
    left_out = [
        (name, place)
        for name in READERS
        for place, example in enumerate(schema(name)["examples"])
        if outside_the_types(name, example)
    ]
    events = len(schema("events/response-event")["examples"])
    assert left_out == [
        ("responses/embeddings", 1),
        ("events/completion-chunk", 0),
        ("events/response-event", events - 4),
        ("events/response-event", events - 1),
        ("events/union-frame", 4),
    ]


def client(body: bytes, media_type: str) -> openai.OpenAI:
    """Return the official client, answered with ``body`` whatever it asks."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=body, headers={"content-type": media_type})

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(
        api_key="unused",
        base_url="http://test.invalid/v1",
        http_client=httpx2.Client(transport=transport),
    )


def frames(events: Iterable[dict[str, Any]], *, named: bool) -> bytes:
    """Return the events as server-sent events, ended by [DONE]."""
    lines = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n"
        for event in events
    ]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def turn() -> list[dict[str, Any]]:
    """Return the first examples of the event schema: one whole text turn, in order."""
    events: list[dict[str, Any]] = schema("events/response-event")["examples"]
    last = next(i for i, event in enumerate(events) if event["type"] == "response.completed")
    return events[: last + 1]


def test_the_text_turn_of_the_examples_is_numbered_without_gaps() -> None:
    assert [event["sequence_number"] for event in turn()] == list(range(len(turn())))


def test_the_client_streams_the_text_turn() -> None:
    with (
        client(frames(turn(), named=True), "text/event-stream") as sdk,
        sdk.responses.stream(model="m", input="ping") as stream,
    ):
        kinds = [event.type for event in stream]
        text = stream.get_final_response().output_text
    assert (kinds, text) == ([event["type"] for event in turn()], "pong")


def test_the_client_passes_over_a_prefixed_event() -> None:
    ours = {"type": "aiproxy:route", "sequence_number": 9}
    with client(frames([*turn(), ours], named=True), "text/event-stream") as sdk:
        kinds = [str(e.type) for e in sdk.responses.create(model="m", input="ping", stream=True)]
    assert kinds[-1] == "aiproxy:route"


@pytest.mark.parametrize("name", ["events/response-event", "events/union-frame"])
def test_the_client_raises_on_a_nested_error(name: str) -> None:
    nested = next(event for event in schema(name)["examples"] if "error" in event)
    with (
        client(frames([nested], named=True), "text/event-stream") as sdk,
        pytest.raises(openai.APIError, match="closed the stream"),
    ):
        list(sdk.responses.create(model="m", input="ping", stream=True))


def test_the_client_reads_union_frames_as_typed_events() -> None:
    union = [event for event in schema("events/union-frame")["examples"] if "error" not in event]
    with client(frames(union, named=True), "text/event-stream") as sdk:
        events = list(sdk.responses.create(model="m", input="ping", stream=True))
    assert [event.type for event in events] == [event["type"] for event in union]


def test_the_client_reads_chat_chunks() -> None:
    chunks = schema("events/chat-chunk")["examples"]
    with client(frames(chunks, named=False), "text/event-stream") as sdk:
        read = list(
            sdk.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
        )
    assert [len(chunk.choices) for chunk in read] == [len(chunk["choices"]) for chunk in chunks]
    assert read[-1].usage is not None
    assert read[-1].usage.total_tokens == 21


def test_the_client_reads_legacy_chunks() -> None:
    chunks = schema("events/completion-chunk")["examples"]
    with client(frames(chunks, named=False), "text/event-stream") as sdk:
        read = list(sdk.completions.create(model="m", prompt="x", stream=True))
    assert [choice.text for chunk in read for choice in chunk.choices] == [" the", " there"]


def test_the_client_decodes_base64_vectors() -> None:
    example = schema("responses/embeddings")["examples"][1]
    with client(json.dumps(example).encode(), "application/json") as sdk:
        vector = sdk.embeddings.create(model="m", input="x").data[0].embedding
    assert struct.pack("<2f", *vector) == struct.pack("<2f", 0.25, -0.5)


def test_the_client_lists_models_with_their_providers() -> None:
    listed = schema("responses/models")["examples"][0]
    with client(json.dumps(listed).encode(), "application/json") as sdk:
        models = list(sdk.models.list())
    assert [model.to_dict() for model in models] == listed["data"]


def test_the_client_keeps_x_aiproxy() -> None:
    example = schema("responses/chat")["examples"][1]
    with client(json.dumps(example).encode(), "application/json") as sdk:
        reply = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert reply.model_extra == {"x-aiproxy": example["x-aiproxy"]}
