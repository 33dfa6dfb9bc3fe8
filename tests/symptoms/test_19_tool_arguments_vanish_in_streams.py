"""However a provider tells the arguments of a call in a stream, the client gets all of them, once,
as it would have without a stream."""

from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects.canonical import Envelope, ToolCallDelta, ToolCallStart
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.dialects.sse import SSEParser

BERN = '{"city":"Bern","at":[1,2.5]}'
OBJECT = {"city": "Bern", "at": [1, 2.5]}


def chunk(*calls: dict[str, Any], reason: str | None = None, **delta: Any) -> dict[str, Any]:
    told = {**delta, "tool_calls": list(calls)} if calls else delta
    return {"choices": [{"index": 0, "delta": told, "finish_reason": reason}]}


def call(index: int | None = 0, identity: str | None = "call_1", **function: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "function", "function": function}
    if index is not None:
        told["index"] = index
    return told if identity is None else {**told, "id": identity}


DONE = chunk(reason="tool_calls")
ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}
FULL = {**ITEM, "arguments": BERN, "status": "completed"}


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **more}


def completed(*items: dict[str, Any]) -> dict[str, Any]:
    return event("completed", response={"status": "completed", "output": list(items)})


ADDED = event("output_item.added", output_index=0, item={**ITEM, "arguments": ""})
DELTA = "function_call_arguments.delta"
WHOLE = event("function_call_arguments.done", output_index=0, item_id="fc_1", arguments=BERN)


def block(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, **more}


START = block("message_start", message={"id": "msg_1", "role": "assistant", "content": [],
                                        "usage": {"input_tokens": 1, "output_tokens": 1}})  # fmt: skip
TOOL = {"type": "tool_use", "id": "call_1", "name": "weather"}
ENDED = (
    block("content_block_stop", index=0),
    block("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 5}),
    block("message_stop"),
)


def google(*parts: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate]}


STREAMS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "in fragments": (
        "chat",
        [chunk(call(name="weather", arguments=""))]
        + [chunk(call(0, None, arguments=piece)) for piece in BERN]
        + [DONE],
    ),
    "whole in one chunk": ("chat", [chunk(call(name="weather", arguments=BERN)), DONE]),
    "beside text in one chunk": (
        "chat",
        [chunk(call(name="weather", arguments=BERN), content="Let me see."), DONE],
    ),
    "with the finish reason": (
        "chat",
        [chunk(call(name="weather", arguments=BERN), reason="tool_calls")],
    ),
    "as an object": ("chat", [chunk(call(name="weather", arguments=OBJECT)), DONE]),
    "before the name": (
        "chat",
        [chunk(call(arguments=BERN[:5])), chunk(call(name="weather", arguments=BERN[5:])), DONE],
    ),
    "index -1 and no id or name": (
        "chat",
        [
            chunk(call(0, name="weather", arguments=BERN[:5])),
            chunk(call(-1, None, arguments=BERN[5:])),
            DONE,
        ],
    ),
    "without an index": (
        "chat",
        [
            chunk(call(None, name="weather", arguments=BERN[:5])),
            chunk(call(None, None, arguments=BERN[5:])),
            DONE,
        ],
    ),
    "in a whole message": (
        "chat",
        [
            {
                "choices": [
                    {
                        "index": 0,
                        "message": {"tool_calls": [call(name="weather", arguments=BERN)]},
                        "finish_reason": "stop",
                    }
                ]
            }
        ],
    ),
    "only in the done event": ("responses", [ADDED, WHOLE, completed(FULL)]),
    "only in the finished item": (
        "responses",
        [ADDED, event("output_item.done", output_index=0, item=FULL), completed(FULL)],
    ),
    "only in the terminal event": ("responses", [completed(FULL)]),
    "before their item": (
        "responses",
        [event(DELTA, output_index=0, delta=BERN), ADDED, WHOLE, completed(FULL)],
    ),
    "late deltas after the done event": (
        "responses",
        [ADDED, WHOLE, event(DELTA, output_index=0, delta=BERN[:7]), completed(FULL)],
    ),
    "Anthropic in fragments": (
        "anthropic",
        [
            START,
            block("content_block_start", index=0, content_block={**TOOL, "input": {}}),
            *(
                block("content_block_delta", index=0,
                      delta={"type": "input_json_delta", "partial_json": piece})
                for piece in (BERN[:4], "", BERN[4:])
            ),
            *ENDED,
        ],
    ),
    "Anthropic whole in the start": (
        "anthropic",
        [
            START,
            block("content_block_start", index=0, content_block={**TOOL, "input": OBJECT}),
            *ENDED,
        ],
    ),
    "Gemini": (
        "gemini",
        [google({"functionCall": {"name": "weather", "args": OBJECT}}, reason="STOP")],
    ),
}  # fmt: skip
CLIENTS = ("chat", "responses", "draft", "anthropic", "gemini")
GIVEN = Envelope(id="resp_0123", created=1, model="m")


def payloads(wire: bytes) -> Iterable[dict[str, Any]]:
    parser = SSEParser()
    for part in [*parser.feed(wire), *parser.finish()]:
        if part.data is not None and not part.is_done:
            yield orjson.loads(part.data)


@pytest.mark.parametrize("name", STREAMS)
def test_the_decoder_finds_them_once(name: str) -> None:
    dialect, frames = STREAMS[name]
    decoder = codec(dialect).StreamDecoder()
    events = [e for frame in frames for e in decoder.feed(frame, frame.get("type"))]
    assert decoder.complete
    events += decoder.finish()
    assert [e.name for e in events if isinstance(e, ToolCallStart)] == ["weather"]
    told = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
    assert orjson.loads(told) == OBJECT


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", STREAMS)
def test_every_client_gets_them(name: str, client: str) -> None:
    """The client's stream, read by the decoder of the client's dialect."""
    dialect, frames = STREAMS[name]
    decoder, encoder = codec(dialect).StreamDecoder(), codec(client).StreamEncoder(GIVEN)
    wire = b""
    for frame in frames:
        for found in decoder.feed(frame, frame.get("type")):
            wire += encoder.encode(found)
    for found in decoder.finish():
        wire += encoder.encode(found)
    wire += encoder.finish()
    reader = codec(client).StreamDecoder()
    events = [e for frame in payloads(wire) for e in reader.feed(frame, frame.get("type"))]
    events += reader.finish()
    told = "".join(e.arguments for e in events if isinstance(e, ToolCallDelta))
    assert [e.name for e in events if isinstance(e, ToolCallStart)] == ["weather"]
    assert orjson.loads(told) == OBJECT
