"""What a well provider writes, in every dialect the router speaks to providers.

Chat is written by hand, being what nearly every simulated call gets; where the router itself can
write a dialect (it serves clients of it), its own encoder is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from aiproxy.middleware.dialects.canonical import (
    CanonicalReply,
    Choice,
    Envelope,
    Finish,
    StreamStart,
    Text,
    TextDelta,
    Usage,
    UsageEvent,
)
from aiproxy.middleware.dialects.codecs import codec

_MOST_WORDS: Final = 4096
_WORDS: Final = "said " * _MOST_WORDS
_OPENAI_LIKE: Final = frozenset({"chat", "mistral"})
_ENCODED: Final = frozenset({"responses", "anthropic", "gemini", "completions"})
_VECTOR: Final = [0.25, -0.5, 0.125, 1.0]
_DONE: Final = b"data: [DONE]\n\n"
_EMBEDDINGS: Final = frozenset({"embeddings", "cohere_embed", "gemini_embed", "workers_ai_embed"})


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: who gives it, what it says, how long it is."""

    id: str
    model: str
    created: int
    input_tokens: int
    output_tokens: int
    text: str | None = None

    def words(self) -> str:
        if self.text is not None:
            return self.text
        return _WORDS[: 5 * min(self.output_tokens, _MOST_WORDS)]


def whole(dialect: str, said: Said, request: Mapping[str, Any]) -> bytes:
    """Return a whole answer; ``request`` is what was sent, looked at for embeddings only."""
    if dialect in _EMBEDDINGS:
        return orjson.dumps(_embeddings(dialect, said, request))
    if dialect in _ENCODED:
        reply = CanonicalReply(
            (Choice((Text(said.words()),), "stop"),), dialect, _usage(said), said.id, said.model
        )
        return orjson.dumps(codec(dialect).encode_reply(reply, _envelope(said), []))
    if dialect == "cohere":
        return orjson.dumps(
            {
                "id": said.id,
                "message": {
                    "role": "assistant",
                    "content": [{"type": "text", "text": said.words()}],
                },
                "finish_reason": "COMPLETE",
                "usage": {"billed_units": _cohere_units(said)},
            }
        )
    message = {"role": "assistant", "content": said.words()}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    told = {
        "id": said.id,
        "object": "chat.completion",
        "created": said.created,
        "model": said.model,
        "choices": [choice],
        "usage": _openai_usage(said),
    }
    if dialect == "workers_ai":
        return orjson.dumps({"result": told, "success": True, "errors": [], "messages": []})
    return orjson.dumps(told)


def frames(dialect: str, said: Said, parts: int, *, usage: bool = True) -> list[bytes]:
    """Return a streamed answer: ``parts`` frames with text, then what ends it."""
    text = said.words()
    step = max(1, -(-len(text) // parts))
    pieces = [text[i : i + step] for i in range(0, len(text), step)] or [""]
    if dialect in _ENCODED:
        return _encoded(dialect, said, pieces)
    if dialect == "cohere":
        return _cohere(said, pieces)
    return _chunks(said, pieces, usage=usage or dialect != "chat")


def broken(dialect: str, code: str, message: str) -> bytes:
    """Return the frame in which a stream reports a failure."""
    error = {"message": message, "type": "server_error", "code": code, "param": None}
    if dialect in ("anthropic", "responses", "cohere"):
        told = {"type": "error", "error": {"type": code, "message": message}, "message": message}
        return b"event: error\ndata: " + orjson.dumps(told) + b"\n\n"
    return b"data: " + orjson.dumps({"error": error}) + b"\n\n"


def refused(status: int, code: str | None, message: str | None) -> bytes:
    """Return the body of an HTTP error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {
        "message": message or f"simulated {status}",
        "type": kind,
        "param": None,
        "code": code,
    }
    return orjson.dumps({"error": error})


def _chunks(said: Said, pieces: Sequence[str], *, usage: bool) -> list[bytes]:
    head = {
        "id": said.id,
        "object": "chat.completion.chunk",
        "created": said.created,
        "model": said.model,
    }
    start = b"data: " + orjson.dumps(head)[:-1] + b',"choices":['
    found = []
    for number, piece in enumerate(pieces):
        delta = {"content": piece} if number else {"role": "assistant", "content": piece}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        found.append(start + orjson.dumps(choice) + b"]}\n\n")
    end = start + b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    if usage:
        end += start + b'],"usage":' + orjson.dumps(_openai_usage(said)) + b"}\n\n"
    return [*found, end + _DONE]


def _encoded(dialect: str, said: Said, pieces: Sequence[str]) -> list[bytes]:
    encoder = codec(dialect).StreamEncoder(_envelope(said))
    opening = encoder.encode(StreamStart(said.id, said.model))
    found = [encoder.encode(TextDelta(piece)) for piece in pieces]
    found[0] = opening + found[0]
    end = encoder.encode(Finish("stop")) + encoder.encode(UsageEvent(_usage(said)))
    return [*found, end + encoder.finish()]


def _cohere(said: Said, pieces: Sequence[str]) -> list[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **more}) + b"\n\n"

    def delta(text: str) -> dict[str, Any]:
        return {"message": {"content": {"text": text}}}

    opening = event(
        "message-start", id=said.id, delta={"message": {"role": "assistant", "content": []}}
    ) + event(
        "content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}}
    )
    found = [event("content-delta", index=0, delta=delta(piece)) for piece in pieces]
    found[0] = opening + found[0]
    usage = {"billed_units": _cohere_units(said)}
    end = event("content-end", index=0)
    end += event("message-end", delta={"finish_reason": "COMPLETE", "usage": usage})
    return [*found, end]


def _embeddings(dialect: str, said: Said, request: Mapping[str, Any]) -> dict[str, Any]:
    given = request.get("input", request.get("texts", request.get("requests", request.get("text"))))
    tokens = isinstance(given, list) and given and isinstance(given[0], int)
    count = len(given) if isinstance(given, list) and not tokens else 1
    vectors = [_VECTOR] * count
    if dialect == "cohere_embed":
        units = {"input_tokens": said.input_tokens, "output_tokens": 0}
        return {"id": said.id, "embeddings": {"float": vectors}, "meta": {"billed_units": units}}
    if dialect == "gemini_embed":
        rows = [{"values": vector} for vector in vectors]
        return {"embeddings": rows, "usageMetadata": {"promptTokenCount": said.input_tokens}}
    if dialect == "workers_ai_embed":
        result = {"shape": [count, len(_VECTOR)], "data": vectors}
        return {"result": result, "success": True, "errors": [], "messages": []}
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": said.model,
        "usage": {"prompt_tokens": said.input_tokens, "total_tokens": said.input_tokens},
    }


def _envelope(said: Said) -> Envelope:
    return Envelope(id=said.id, created=said.created, model=said.model, include_usage=True)


def _usage(said: Said) -> Usage:
    return Usage(input=said.input_tokens, output=said.output_tokens)


def _openai_usage(said: Said) -> dict[str, int]:
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
    }


def _cohere_units(said: Said) -> dict[str, int]:
    return {"input_tokens": said.input_tokens, "output_tokens": said.output_tokens}
