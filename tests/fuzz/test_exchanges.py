"""Whole exchanges against hostile clients and providers: a refusal or an answer, never our failure.

Every client's dialect meets a provider of every dialect, with tools, reasoning, limits and a shape
of the answer left to the router, so that everything between decoder and encoder is met as well.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "dialects"), str(TESTS / "middleware"), str(Path(__file__).parent)]

from mutations import broken, objects, sendable, values
from test_decoders import KEEP, LONG, replies_of, requests_of, streams_of
from test_exchange_sansio import SSE, Clock, Played, Tape, gateway, play

from aiproxy.middleware.config import load_config
from aiproxy.middleware.dialects.sse import encode
from aiproxy.middleware.effects import Answer
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Inbound

PATHS = {
    "anthropic": "/v1/messages",
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "gemini": "/v1beta/models/{model}:{action}",
}
EGRESS = ("anthropic", "chat", "cohere", "gemini", "mistral", "responses", "workers_ai")
TOOLS = {"web-search": ["browser", "web_search"], "weather": {"name": "wx"}}
SECRET = "SECRET-f00"
SETTINGS = (
    (),
    (("x-ai-routing-strategy", "quality"),),
    (("x-ai-multi-provider", "enabled"), ("x-ai-reasoning-preference", "native")),
    (("x-ai-multi-provider", "enabled"), ("x-ai-cost-limit", "0.01")),
)


def config(dialect: str, formats: Any) -> Any:
    model = {
        "name": "m",
        "model": "claude-sonnet-4-5" if dialect == "anthropic" else "up",
        "tools": TOOLS,
        "reasoning": "native",
        "response_formats": formats,
        "cost_per_1k_tokens": 0.00001,
    }
    entry = {
        "type": "openai_compatible",
        "endpoint": "http://127.0.0.1:9/v1",
        "headers": {"x-key": SECRET},
        "dialects": [dialect],
        "models": [model],
    }
    return load_config({"providers": {"a": entry}, "routing": {"repair_attempts": 1}})


CONFIGS = {(d, f): config(d, f and list(f)) for d in EGRESS for f in (None, ("text",))}


def served(
    client: str, body: Any, dialect: str, formats: Any, headers: Any, stream: bool, answers: Any
) -> Played:
    clock = Clock()
    at = gateway(clock, CONFIGS[dialect, formats])
    path, model = PATHS[client], None
    if client == "gemini":
        action = "streamGenerateContent" if stream else "generateContent"
        path, model = path.format(model="m", action=action), "m"
    inbound = Inbound(path, client, headers, orjson.dumps(body))
    if model is not None:
        inbound.model, inbound.stream, inbound.query = model, stream, "alt=sse"
    return play(Exchange(at, inbound), clock, iter(answers))


def no_fault_of_ours(seen: Played, caplog: Any) -> None:
    told = b"" if seen.reply is None else seen.reply.body
    assert b"internal_error" not in told
    assert SECRET.encode() not in told + seen.sent
    errors = [row for row in caplog.records if row.levelno >= logging.ERROR]
    assert not errors, errors[0].exc_text
    assert len(seen.closed) <= len(seen.calls)


def fuzz_requests(client: str, how: settings, caplog: Any) -> None:
    @how
    @given(
        broken(requests_of(client)),
        st.sampled_from(EGRESS),
        st.sampled_from([None, ("text",)]),
        st.sampled_from(SETTINGS),
        st.booleans(),
        st.sets(st.sampled_from(["tools", "limit", "reasoning", "shape"])),
    )
    def run(
        body: Any, dialect: str, formats: Any, headers: Any, stream: bool, autos: set[str]
    ) -> None:
        caplog.clear()
        if isinstance(body, dict):
            if client == "gemini":
                body.pop("model", None)
            else:
                body["model"], body["stream"] = "m", stream
            if "tools" in autos:
                body["tools"] = "auto"
            if "limit" in autos:
                body["max_tokens" if client != "responses" else "max_output_tokens"] = "auto"
            if "reasoning" in autos:
                body["thinking" if client == "anthropic" else "reasoning_effort"] = "auto"
            if "shape" in autos:
                body["response_format"] = {"type": "json_object"}
        if not sendable(body):
            return
        no_fault_of_ours(served(client, body, dialect, formats, headers, stream, ()), caplog)

    run()


@pytest.mark.parametrize("client", PATHS)
def test_requests(client: str, caplog: Any) -> None:
    fuzz_requests(client, KEEP, caplog)


@pytest.mark.exhaustive
@pytest.mark.parametrize("client", PATHS)
def test_many_requests(client: str, caplog: Any) -> None:
    fuzz_requests(client, LONG, caplog)


def plain(client: str, stream: bool, autos: bool) -> Any:
    tools = {"tools": "auto"} if autos else {}
    if client == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], **tools}
    body = {"model": "m", "stream": stream, **tools}
    if client == "responses":
        return {**body, "input": "hi", "text": {"format": {"type": "json_object"}}}
    messages = {"messages": [{"role": "user", "content": "hi"}]}
    if client == "anthropic":
        return {**body, **messages, "max_tokens": 9}
    return {**body, **messages, "response_format": {"type": "json_object"}}


def fuzz_answers(dialect: str, how: settings, caplog: Any) -> None:
    documents, streams = replies_of(dialect), streams_of(dialect)
    frames = st.lists(st.tuples(st.none() | st.just("error"), values), max_size=3)

    @how
    @given(
        st.sampled_from(list(PATHS)),
        st.sampled_from([None, ("text",)]),
        st.sampled_from(SETTINGS),
        st.booleans(),
        st.booleans(),
        st.sampled_from([200, 200, 200, 400, 429, 500]),
        broken(documents) | objects | values,
        broken(streams) | frames,
        st.binary(max_size=30),
        st.integers(0, 3),
    )
    def run(
        client: str,
        formats: Any,
        headers: Any,
        stream: bool,
        autos: bool,
        status: int,
        document: Any,
        rows: Any,
        junk: bytes,
        where: int,
    ) -> None:
        caplog.clear()
        answers: list[Any] = []
        if stream and where:
            wire = b""
            for row in rows if isinstance(rows, list) else ():
                if isinstance(row, list | tuple) and len(row) == 2 and sendable(row[1]):
                    name = row[0] if isinstance(row[0], str) else None
                    wire += encode(orjson.dumps(row[1]), name)
            cut = len(wire) * where // 3
            reads: list[Any] = [wire[:cut], junk, wire[cut:], b""]
            answers = [Answer(200, SSE, b"", Tape([r for r in reads[:-1] if r] + [b""]))]
        elif sendable(document):
            raw = orjson.dumps(document) if where else orjson.dumps(document) + junk
            answers = [Answer(status, (("content-type", "application/json"),), raw)] * 2
        body = plain(client, stream, autos)
        seen = served(client, body, dialect, formats, headers, stream, answers)
        no_fault_of_ours(seen, caplog)
        if seen.reply is not None:
            json.loads(seen.reply.body)
        elif seen.sent and b"error" not in seen.sent:
            ends = {"anthropic": b"message_stop", "gemini": b"inishReason", "chat": b"[DONE]"}
            assert ends.get(client, b"response.") in seen.sent

    run()


@pytest.mark.parametrize("dialect", EGRESS)
def test_answers(dialect: str, caplog: Any) -> None:
    fuzz_answers(dialect, KEEP, caplog)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dialect", EGRESS)
def test_many_answers(dialect: str, caplog: Any) -> None:
    fuzz_answers(dialect, LONG, caplog)
