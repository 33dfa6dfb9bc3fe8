"""Odd JSON never surprises: only the documented exceptions come out, whatever is put in."""

from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd import broken

from aiproxy.middleware.dialects import (
    Envelope,
    Finish,
    MalformedReply,
    MalformedRequest,
    StreamCut,
    StreamError,
    Untranslatable,
    chat,
    gemini,
    responses,
)
from aiproxy.middleware.dialects.continuity import foreign_opaque, unsealed

GOLDEN = [
    orjson.loads(path.read_bytes())
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
]
#: Beside the usual oddities: what only Gemini takes for something.
ODD = (2**62, "YWlwcm94eS5nZW1pbmkucw==", {"text": "a"}, {"parts": [{}]})
ENVELOPE = Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto")
REQUEST: dict[str, Any] = {
    "model": "m",
    "systemInstruction": {"parts": [{"text": "S"}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "a"},
                {"inlineData": {"mimeType": "image/png", "data": "QQ", "displayName": "n"}},
                {"inlineData": {"mimeType": "audio/wav", "data": "QQ"}},
                {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/v"}},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://e.org/a"}},
            ],
        },
        {
            "role": "model",
            "parts": [
                {"text": "t", "thought": True, "thoughtSignature": "YWlwcm94eS5nZW1pbmkucw=="},
                {"text": "b", "thoughtSignature": "c2ln"},
                {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}},
                {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                {"executableCode": {"code": "1"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "r"}}},
                {
                    "functionResponse": {
                        "id": "c",
                        "name": "f",
                        "response": {"a": 1},
                        "parts": [{"inlineData": {"mimeType": "image/png", "data": "QQ"}}],
                    }
                },
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {
                    "name": "f",
                    "parameters": {
                        "type": "OBJECT",
                        "properties": {
                            "a": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1"},
                            "b": {"anyOf": [{"type": "INTEGER", "enum": ["1"]}], "nullable": True},
                        },
                        "required": ["a"],
                    },
                },
                {"name": "g", "parametersJsonSchema": {"type": "object", "allOf": [{"type": "x"}]}},
            ]
        },
        {"googleSearch": {}},
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}},
    "generationConfig": {
        "temperature": 1,
        "topK": 1.0,
        "stopSequences": ["a"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
        "speechConfig": {},
    },
    "labels": {"a": "b"},
}


MANY = settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(body=broken(REQUEST, more=ODD))
def test_requests(body: dict[str, Any]) -> None:
    foreign_opaque("gemini", body)
    unsealed("gemini", body)
    gemini.count_body(body)
    try:
        request = gemini.decode_request(body)
    except MalformedRequest:
        return
    for target in (gemini, chat, responses):
        try:
            written, _ = target.encode_request(request, "m")
        except Untranslatable:
            continue
        orjson.dumps(written)


@MANY
@given(body=st.sampled_from(GOLDEN).flatmap(partial(broken, more=ODD)))
def test_answers(body: dict[str, Any]) -> None:
    gemini.read_usage(body)
    fault = gemini.check_reply(body)
    try:
        reply = gemini.decode_reply(body)
    except MalformedReply:
        return
    assert fault is None
    for module in (gemini, chat, responses):
        orjson.dumps(module.encode_reply(reply, ENVELOPE, []))


@MANY
@given(chunks=st.lists(st.sampled_from(GOLDEN).flatmap(partial(broken, more=ODD)), max_size=4))
def test_streams(chunks: list[dict[str, Any]]) -> None:
    decoder, observer = gemini.StreamDecoder(), gemini.Observer()
    encoders = [m.StreamEncoder(ENVELOPE) for m in (gemini, chat, responses)]
    found: list[Any] = []
    for chunk in chunks:
        found += decoder.feed(chunk)
        observer.feed(chunk)
    try:
        found += decoder.finish()
    except StreamCut:
        assert not decoder.complete
    assert observer.usage is None or observer.usage.total >= 0
    for encoder in encoders:
        for event in found:
            if not isinstance(event, StreamError):
                encoder.encode(event)
        try:
            encoder.finish()
        except StreamCut:
            # The Responses API tells the first answer only, which odd chunks may not have.
            told = {event.choice for event in found if isinstance(event, Finish)}
            assert not decoder.complete or isinstance(found[-1], StreamError) or 0 not in told


@pytest.mark.parametrize("depth", [300, 900])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    deep = orjson.loads(b'{"a":' * depth + b"1" + b"}" * depth)
    for part in (
        {"functionCall": {"name": "f", "args": deep}},
        {"functionResponse": {"name": "f", "response": deep}},
    ):
        body = {"model": "m", "contents": [{"parts": [part]}]}
        with pytest.raises(MalformedRequest, match="deep"):
            gemini.decode_request(body)
    reply = {
        "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": deep}}]}}]
    }
    with pytest.raises(MalformedReply):
        gemini.decode_reply(reply)
    gemini.StreamDecoder().feed(reply)
    for schema in ({"parameters": deep}, {"parametersJsonSchema": {"allOf": [deep]}}):
        tools = [{"functionDeclarations": [{"name": "f", **schema}]}]
        gemini.decode_request({"model": "m", "contents": "a", "tools": tools})
