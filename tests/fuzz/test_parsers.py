"""Thousands of hostile inputs for everything that reads what others write (slow; CI runs it).

The property is always the same: a documented outcome, never another exception, never a hang. What
is found is kept in ``tests/corpus``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aiproxy.middleware import Gateway
from aiproxy.middleware.answering.outcome import retry_after
from aiproxy.middleware.effects import Answer, Call, Failure, Read, Send, Start
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Inbound
from aiproxy.middleware.preferences import parse_headers
from aiproxy.spec import HEADERS, checker, validate

pytestmark = pytest.mark.slow

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
KEEP = settings(max_examples=3000, suppress_health_check=list(HealthCheck))
NAMES = sorted(field.name.lower() for field in HEADERS.values())
ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/aiproxy/predict": "predict",
}
DOCUMENTED = {
    200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 502, 503, 504,
}  # fmt: skip


def corpus(name: str) -> list[str]:
    found: list[str] = json.loads((CORPUS / f"{name}.json").read_text())
    return found


def with_corpus(name: str) -> Any:
    """Feed every entry of a corpus file first."""

    def decorate(test: Any) -> Any:
        for entry in corpus(name):
            test = example(entry)(test)
        return test

    return decorate


def gateway() -> Gateway:
    models = [
        {"name": "m", "cost_per_1k_tokens": 0.001, "quality": 0.5, "context_window": 4096},
        {"name": "e", "capabilities": ["embeddings"]},
    ]
    providers = {
        name: {
            "type": "openai_compatible",
            "endpoint": f"http://127.0.0.1:{port}/v1",
            "dialects": dialects,
            "models": models,
        }
        for name, port, dialects in (
            ("a", 9001, ["chat", "completions", "embeddings"]),
            ("b", 9002, ["responses"]),
        )
    }
    config = {"providers": providers, "routing": {"failover": {"retry_delay": "1ms"}}}
    return Gateway(config, wrapped_app=False, scope="all")


GATEWAY = gateway()


def drive(
    exchange: Exchange, answers: Sequence[Any] = (), reads: Sequence[Any] = ()
) -> tuple[int, bytes]:
    """Run an exchange against scripted calls and reads; the status and what the client got."""
    flow = exchange.run()
    calls, chunks = iter(answers), iter(reads)
    sent: list[bytes] = []
    status, outcome = 0, None
    try:
        for _ in range(200 + 10 * len(reads)):
            effect = flow.send(outcome)
            outcome = None
            if isinstance(effect, Call):
                outcome = next(calls, Failure("connect_refused"))
            elif isinstance(effect, Read):
                outcome = next(chunks, b"")
            elif isinstance(effect, Start):
                status = effect.status
            elif isinstance(effect, Send):
                sent.append(effect.data)
        raise AssertionError("the exchange does not end")
    except StopIteration as stop:
        if stop.value is None:
            return status, b"".join(sent)
        return stop.value.status, stop.value.body


def forget() -> None:
    """Outcomes of one case must not steer the next."""
    for model in GATEWAY.registry.models:
        model.track.__init__(model.track.thresholds)  # type: ignore[misc]
        model.provider.track.__init__(model.provider.track.thresholds)  # type: ignore[misc]


def settled(exchange: Exchange) -> None:
    record = exchange.decision.record()
    validate(record, "decision")
    assert record["outcome"] != "running"
    assert all(attempt["outcome"] != "running" for attempt in record["attempts"])


text = st.text(max_size=300) | st.sampled_from(corpus("headers"))


@KEEP
@given(st.lists(st.tuples(st.sampled_from([*NAMES, "x-ai-unknown", "host"]), text), max_size=12))
def test_headers(pairs: list[tuple[str, str]]) -> None:
    try:
        parse_headers(tuple(pairs))
    except ProxyError as refused:
        assert refused.status in (400, 431)
        assert refused.param in {field.name for field in HEADERS.values()}


@KEEP
@with_corpus("headers")
@given(text)
def test_every_header_with_one_value(value: str) -> None:
    for name in NAMES:
        try:
            parse_headers(((name, value),))
        except ProxyError as refused:
            assert refused.status in (400, 431)
            assert len(value) < 30 or value not in refused.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
member_names = st.sampled_from(
    ["messages", "input", "prompt", "tools", "tool_choice", "stream", "n", "max_tokens", "stop",
     "temperature", "response_format", "text", "reasoning", "metadata", "routing", "user", "extra"]
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(member_names, json_values, max_size=6).map(
        lambda body: json.dumps({"model": "m", **body}).encode()
    ),
)


def answered(path: str, raw: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
    forget()
    exchange = Exchange(GATEWAY, Inbound(path, ENDPOINTS[path], headers, raw))
    status, body = drive(exchange)
    assert status in DOCUMENTED, (status, body)
    assert checker("error-emitted").ok(json.loads(body)), body
    settled(exchange)


@KEEP
@given(st.sampled_from(sorted(ENDPOINTS)), bodies)
def test_bodies(path: str, raw: bytes) -> None:
    answered(path, raw)


@pytest.mark.parametrize("entry", corpus("bodies"))
@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_the_corpus_of_bodies(path: str, entry: str) -> None:
    raw = entry.encode("utf-8", "surrogatepass")
    answered(path, raw)
    answered(path, raw, (("x-ai-multi-provider", "enabled"), ("x-ai-cost-limit", "0.5")))


@KEEP
@with_corpus("headers")
@given(st.text(max_size=60))
def test_retry_after(value: str) -> None:
    wait = retry_after((("retry-after", value), ("retry-after-ms", value[::-1])), 1.0e9)
    assert wait is None or wait >= 0


REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
STREAMED = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
).encode()
replies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["choices", "output", "error", "usage", "model", "id", "status", "data"]),
        json_values,
        max_size=5,
    ).map(lambda body: json.dumps(body).encode()),
)


@KEEP
@given(
    st.sampled_from(["/v1/chat/completions", "/v1/responses"]),
    st.lists(
        st.tuples(
            st.sampled_from([200, 200, 200, 204, 301, 400, 404, 418, 429, 500, 529]), replies
        ),
        max_size=6,
    ),
)
def test_answers_of_providers(path: str, answers: list[tuple[int, bytes]]) -> None:
    forget()
    exchange = Exchange(GATEWAY, Inbound(path, ENDPOINTS[path], (), REQUEST))
    outcomes = [
        Answer(status, (("content-type", "application/json"),), body) for status, body in answers
    ]
    status, body = drive(exchange, outcomes)
    assert status in DOCUMENTED, (status, body)
    if status != 200:
        assert checker("error-emitted").ok(json.loads(body)), body
    settled(exchange)


frames = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([entry.encode() for entry in corpus("streams")]),
    json_values.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"),
    st.dictionaries(
        st.sampled_from(
            ["choices", "type", "delta", "response", "error", "usage", "item", "model"]
        ),
        json_values,
        max_size=4,
    ).map(lambda event: b"data: " + json.dumps(event).encode() + b"\n\n"),
)


@KEEP
@given(
    st.sampled_from(["/v1/chat/completions", "/v1/responses"]),
    st.lists(frames, max_size=8),
    st.integers(1, 64),
    st.booleans(),
)
def test_streams_of_providers(path: str, parts: list[bytes], cut: int, broken: bool) -> None:
    forget()
    exchange = Exchange(GATEWAY, Inbound(path, ENDPOINTS[path], (), STREAMED))
    wire = b"".join(parts)
    reads: list[Any] = [wire[i : i + cut] for i in range(0, len(wire), cut)]
    head = Answer(200, (("content-type", "text/event-stream"),), stream=object())
    status, body = drive(exchange, [head], [*reads, Failure("reset") if broken else b""])
    assert status in DOCUMENTED, (status, body)
    if status != 200:
        assert checker("error-emitted").ok(json.loads(body)), body
    settled(exchange)
