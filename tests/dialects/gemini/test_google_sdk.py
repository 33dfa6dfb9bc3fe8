"""Google's own SDK as a judge: its types know all that we send, and it reads all that we answer."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from egress import conversations, judge, payloads

from aiproxy.middleware.dialects import (
    AnnotationDelta,
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    Image,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    UsageEvent,
    chat,
    gemini,
)

HERE = Path(__file__).parent
GOLDEN = sorted((HERE / "golden").glob("*.json"))
ENVELOPE = Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto")
MODELS = ("gemini-3-pro-preview", "gemini-2.5-flash")
TOKEN = {"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}
LINK = {
    "type": "url_citation",
    "url": "https://e.org",
    "title": "t",
    "start_index": 0,
    "end_index": 1,
}
EXTRA = {"aiproxy": {"provider": "a", "attempts": []}}
PNG = "iVBORw0KGgo="


def more() -> dict[str, dict[str, Any]]:
    """Chat requests that say what the shared ones do not."""
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    paper = {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
    }
    ask = {"role": "user", "content": [{"type": "text", "text": "see"}, picture, sound, paper]}
    hard = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "node": {"$ref": "#/$defs/node"},
            "kind": {"const": "a"},
            "size": {"type": "integer", "exclusiveMinimum": 0},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
            "maybe": {"type": ["string", "null"], "default": "x"},
            "either": {"oneOf": [{"type": "string", "minLength": 1}, {"type": "integer"}]},
            "any": {},
        },
        "required": ["node", "kind"],
        "additionalProperties": False,
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}},
                "additionalProperties": {"type": "string"},
            }
        },
    }
    plain = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^a", "minLength": 2}},
    }

    def asked(**members: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [ask], **members}

    def shaped(schema: Any) -> dict[str, Any]:
        inner = {"name": "n", "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": inner}}

    def tool(schema: Any) -> dict[str, Any]:
        return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}

    return {
        "media": asked(),
        "hard schema": asked(**shaped(hard)),
        "plain schema": asked(**shaped(plain)),
        "hard tool": asked(**tool(hard)),
        "plain tool": asked(**tool(plain)),
        "no properties": asked(**tool({"type": "object", "properties": {}})),
        "allowed": asked(
            **tool(plain),
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "f"}}],
                },
            },
        ),
        "top logprobs": asked(logprobs=True, top_logprobs=3),
        "efforts": asked(reasoning_effort="high"),
        "choices": asked(n=3, seed=4),
    }


@pytest.mark.sdk
def test_the_sdk_knows_what_we_send() -> None:
    wanted = {**conversations(), **more()}
    sent = {
        f"{name} to {model}": gemini.encode_request(chat.decode_request(body), model)[0]
        for name, body in wanted.items()
        for model in MODELS
    }
    assert len(wanted) >= 40
    told = judge("google-genai", HERE / "sdk_judge.py", {"requests": list(sent.values())})
    for name, read in zip(sent, told["requests"], strict=True):
        assert "fault" not in read, (name, read["fault"], sent[name])
        assert len(read["contents"]) == len(sent[name]["contents"]), name
        # What the SDK would send of it is what we sent: no member is in the wrong place.
        for ours, theirs in zip(sent[name]["contents"], read["contents"], strict=True):
            assert [set(part) for part in theirs["parts"]] == [set(part) for part in ours["parts"]]


STREAMS: dict[str, list[Any]] = {
    "text": [
        TextDelta("Grü", 0, (TOKEN,)),
        TextDelta("ezi 😀"),
        AnnotationDelta(LINK),
        Finish("stop"),
        UsageEvent(Usage(5, 4, 2, 0, 1)),
    ],
    "thoughts and calls": [
        ReasoningDelta("I "),
        ReasoningDelta("look."),
        ReasoningDelta("", signature="sig", origin="anthropic"),
        TextDelta("Wait"),
        ToolCallStart(0, "call_a", "f"),
        ToolCallDelta(0, '{"x"'),
        ToolCallStart(1, "", "g"),
        ToolCallDelta(0, ":1}"),
        ToolCallEnd(0),
        ToolCallEnd(1),
        Finish("tool_calls"),
        UsageEvent(Usage(5, 4)),
    ],
    "cut": [TextDelta("Hal"), Finish("length"), UsageEvent(Usage(5, 4))],
    "filtered": [Finish("content_filter")],
    "two": [TextDelta("a"), TextDelta("b", 1), Finish("stop"), Finish("stop", 1)],
}
REPLIES = {
    "text": CanonicalReply(
        (Choice((Text("Grüezi 😀", (LINK,), (TOKEN,)),), "stop"),), "x", Usage(5, 4)
    ),
    "calls": CanonicalReply(
        (
            Choice(
                (
                    Reasoning("so", signature="sig"),
                    ToolCall("", "f", '{"x":1}'),
                    ToolCall("c", "g", "", signature="s"),
                ),
                "tool_calls",
            ),
        ),
        "anthropic",
        Usage(5, 4),
    ),
    "refusal": CanonicalReply((Choice((Refusal("no"),), "stop"),), "x", Usage(5, 4)),
    "image": CanonicalReply(
        (Choice((Image(data=PNG, media_type="image/png"),), "stop"),), "x", Usage(5, 4)
    ),
    "two": CanonicalReply(
        (Choice((Text("a"),), "stop"), Choice((Text("b"),), "length", 1)), "x", Usage(5, 4)
    ),
}


@pytest.mark.sdk
def test_the_sdk_reads_what_we_answer() -> None:
    broken = gemini.StreamEncoder(ENVELOPE)
    error = {"message": "broke off", "type": "e", "param": None, "code": "stream_interrupted"}
    wires = []
    for found in STREAMS.values():
        encoder = gemini.StreamEncoder(ENVELOPE)
        wires.append(b"".join(encoder.encode(e) for e in found) + encoder.finish(EXTRA))
    wires.append(broken.encode(TextDelta("a")) + broken.fail(error, EXTRA))
    whole = [{**gemini.encode_reply(r, ENVELOPE), **EXTRA} for r in REPLIES.values()]
    refused = [
        {"status": status, "body": gemini.encode_error(status, {"message": "m", "code": "c"})}
        for status in (400, 429, 503)
    ]
    told = judge(
        "google-genai",
        HERE / "sdk_judge.py",
        {
            "streams": [wire.decode() for wire in wires],
            "replies": whole,
            "errors": refused,
            "counts": [gemini.encode_count(7)],
        },
    )
    *streams, failed = told["streams"]
    for (name, found), read in zip(STREAMS.items(), streams, strict=True):
        assert "fault" not in read, (name, read)
        assert read["text"] == "".join(e.text for e in found if isinstance(e, TextDelta)), name
        assert read["raised"] is None
    assert streams[0]["finish"] == {"0": "STOP"}
    assert streams[0]["total"] == 9
    assert streams[1]["thoughts"] == "I look."
    assert streams[1]["calls"] == [["call_a", "f", {"x": 1}], ["call_0123abcd_1", "g", {}]]
    assert streams[2]["finish"] == {"0": "MAX_TOKENS"}
    assert streams[3]["finish"] == {"0": "SAFETY"}
    assert streams[4]["finish"] == {"0": "STOP", "1": "STOP"}
    assert failed["raised"] == ["ServerError", 502, "INTERNAL", "broke off"]
    replies = dict(zip(REPLIES, told["replies"], strict=True))
    assert not [read for read in replies.values() if "fault" in read]
    assert replies["text"]["text"] == "Grüezi 😀"
    assert replies["calls"]["calls"] == [["call_0123abcd_0", "f", {"x": 1}], ["c", "g", {}]]
    assert replies["two"]["finish"] == ["STOP", "MAX_TOKENS"]
    assert {read["model"] for read in replies.values()} == {"auto"}
    assert {read["total"] for read in replies.values()} == {9}
    assert [e[1:] for e in told["errors"]] == [
        [400, "INVALID_ARGUMENT", "m"],
        [429, "RESOURCE_EXHAUSTED", "m"],
        [503, "UNAVAILABLE", "m"],
    ]
    assert told["counts"] == [7]
    # What the SDK would send back of the answer has its seals untouched.
    for content, name in (
        (replies["calls"]["back"][0]["parts"], "calls"),
        (streams[1]["back"], ""),
    ):
        asked = {"model": "m", "contents": [{"role": "model", "parts": content}]}
        parts = gemini.decode_request(asked).turns[0].parts
        assert parts[0] == Reasoning(
            "so" if name else "I look.", signature="sig", origin="anthropic"
        )


@pytest.mark.sdk
def test_recorded_answers_are_what_the_sdk_reads() -> None:
    bodies = [orjson.loads(path.read_bytes()) for path in GOLDEN]
    wires = [path.with_suffix(".sse").read_bytes() for path in GOLDEN]
    told = judge(
        "google-genai",
        HERE / "sdk_judge.py",
        {"replies": bodies, "streams": [wire.decode() for wire in wires]},
    )
    for path, body, wire, read, streamed in zip(
        GOLDEN, bodies, wires, told["replies"], told["streams"], strict=True
    ):
        if path.stem in ("blocked", "safety"):
            continue  # without content there is nothing to compare
        assert "fault" not in read, (path.stem, read)
        assert "fault" not in streamed, (path.stem, streamed)
        ours = gemini.decode_reply(body)
        texts = [p.text for c in ours.choices for p in c.parts if isinstance(p, Text)]
        assert read["text"] == "".join(texts)
        assert ours.usage is not None
        assert read["total"] == ours.usage.total == streamed["total"]
        first = [p for p in ours.choices[0].parts if isinstance(p, ToolCall)]
        calls = [[c.id or None, c.name, orjson.loads(c.arguments)] for c in first]
        assert read["calls"] == calls == streamed["calls"]
        assert payloads([wire])
