"""What several dialect tests share: reading encoded streams and putting their pieces together."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
import pytest

from aiproxy.middleware.dialects import (
    CanonicalEvent,
    Envelope,
    Usage,
    chat,
    draft,
    responses,
)
from aiproxy.middleware.dialects.sse import SSEEvent, SSEParser

MODULES: dict[str, Any] = {"chat": chat, "responses": responses, "draft": draft}


def parse(wire: bytes) -> list[SSEEvent]:
    parser = SSEParser()
    events = parser.feed(wire) + parser.finish()
    assert parser.leftover == b""
    return events


def frames(wire: bytes) -> list[dict[str, Any]]:
    """Return the JSON payloads of a stream, without [DONE]."""
    events = (e for e in parse(wire) if e.data is not None and not e.is_done)
    return [orjson.loads(e.data or b"") for e in events]


def decode(dialect: str, payloads: Iterable[Mapping[str, Any]]) -> list[CanonicalEvent]:
    decoder = MODULES[dialect].StreamDecoder()
    events: list[CanonicalEvent] = []
    for payload in payloads:
        events += decoder.feed(payload, None)
    return events + decoder.finish()


def encode(
    dialect: str,
    events: Iterable[CanonicalEvent],
    envelope: Envelope,
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    encoder = MODULES[dialect].StreamEncoder(envelope)
    return b"".join(encoder.encode(event) for event in events) + encoder.finish(extra)


def assemble_chat(payloads: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put chat chunks together the way a client does."""
    told: dict[str, Any] = {"content": "", "refusal": "", "reasoning_content": "", "calls": {}}
    told["finish_reason"] = None
    for payload in payloads:
        for choice in payload["choices"]:
            delta = choice["delta"]
            for name in ("content", "refusal", "reasoning_content"):
                told[name] += delta.get(name) or ""
            for call in delta.get("tool_calls", ()):
                held = told["calls"].setdefault(call["index"], {"id": "", "name": "", "args": ""})
                held["id"] = call.get("id", held["id"])
                inner = call.get("function") or call.get("custom") or {}
                held["name"] += inner.get("name", "")
                held["args"] += inner.get("arguments", inner.get("input", ""))
            told["finish_reason"] = choice["finish_reason"] or told["finish_reason"]
    return told


def flatten_chat(body: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a whole chat answer to the form of ``assemble_chat``."""
    choice = body["choices"][0]
    message = choice["message"]
    calls = {}
    for i, call in enumerate(message.get("tool_calls", ())):
        inner = call.get("function") or call.get("custom")
        arguments = inner.get("arguments", inner.get("input"))
        calls[i] = {"id": call["id"], "name": inner["name"], "args": arguments}
    return {
        "content": message.get("content") or "",
        "refusal": message.get("refusal") or "",
        "reasoning_content": message.get("reasoning_content") or "",
        "calls": calls,
        "finish_reason": choice["finish_reason"],
    }


@pytest.fixture
def envelope() -> Envelope:
    return Envelope(id="resp_0123abcd", created=1_790_000_000, model="auto", request={})


@pytest.fixture
def usage() -> Usage:
    return Usage(input=20, output=7, cached=5, cache_write=1, reasoning=2)


Tools = dict[str, Callable[..., Any]]


@pytest.fixture
def kit() -> Tools:
    """The functions above, by name (test modules cannot import one another)."""
    return {
        "parse": parse,
        "frames": frames,
        "decode": decode,
        "encode": encode,
        "assemble_chat": assemble_chat,
        "flatten_chat": flatten_chat,
    }
