"""Errors of providers that other gateways are reported to mishandle, through both mounts.

Numbers are those of the list in tests/symptoms; further ones are named for what was seen.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from mounts import Got
from upstreams import Script, free_port
from wire import STREAM_HEAD, Wire, WireUpstream

BEST = {"X-AI-Routing-Strategy": "quality"}
CANARY = "canary-key-of-a"
EVENT_STREAM = "text/event-stream"


@pytest.fixture
def two(mount: Any, fakes: Any) -> Callable[..., Any]:
    """``two(type)``: provider a of that type is preferred, b (chat) stands in for it."""

    def build(type: str = "openai_compatible", url: str | None = None, **more: Any) -> Any:
        models = {n: [{"name": "m", "model": f"{n}-m", "quality": q}] for n, q in QUALITY}
        config = fakes.config({n: {"models": models[n]} for n in "ab"}, **more)
        config["providers"]["a"] |= {
            "type": type,
            "endpoint": (url or fakes.a.url).removesuffix("/v1"),
            "credentials": {"api_key": CANARY},
        }
        return mount(config)

    return build


QUALITY = (("a", 0.9), ("b", 0.8))


def said(kind: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


Event = tuple[str | None, Any]


def frames(*rows: Event) -> bytes:
    told = [(f"event: {e}\n" if e else "") + f"data: {json.dumps(d)}\n\n" for e, d in rows]
    return "".join(told).encode()


def sse(*rows: Event) -> Script:
    """A 200 stream of those events."""
    return Script(raw=frames(*rows), content_type=EVENT_STREAM)


def told(served: Any, got: Got) -> list[tuple[str, Any]]:
    return [(row["provider"], row["error"]) for row in served.record(got)["attempts"]]


# --- what an answer means ------------------------------------------------------------------------

MOVES_ON: list[tuple[str, int, Any, str]] = [
    ("anthropic", 529, said("overloaded_error"), "overloaded"),
    ("anthropic", 429, said("rate_limit_error"), "rate_limited"),
    ("anthropic", 401, said("authentication_error"), "auth_failed"),
    (
        "anthropic",
        400,
        said("invalid_request_error", "Your credit balance is too low"),
        "auth_failed",
    ),
    ("anthropic", 404, said("not_found_error", "model: a-m"), "http_4xx"),
    ("google", 503, {"error": {"code": 503, "status": "UNAVAILABLE"}}, "overloaded"),
    ("google", 429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], "rate_limited"),
    ("google", 400, {"error": {"code": 400, "message": "API key not valid."}}, "auth_failed"),
    ("cohere", 429, {"message": "too many requests"}, "rate_limited"),
    ("mistral", 429, {"object": "error", "code": "3505", "message": "no"}, "overloaded"),
    ("openai", 429, {"error": {"code": "insufficient_quota"}}, "rate_limited"),
    ("bedrock", 400, {"message": "no", "originalStatusCode": 503}, "overloaded"),
    # 200 with an error inside
    ("anthropic", 200, said("overloaded_error"), "overloaded"),
    ("google", 200, [{"error": {"code": 503, "status": "UNAVAILABLE"}}], "overloaded"),
    ("openrouter", 200, {"error": {"code": 429, "message": "no"}}, "rate_limited"),
]


@pytest.mark.parametrize(("type", "status", "body", "reason"), MOVES_ON)
def test_a_failure_in_any_providers_words_moves_on(
    two: Any, fakes: Any, type: str, status: int, body: Any, reason: str
) -> None:
    """XAI-FAIL-007, 009, 010, 011."""
    fakes.a.script = Script(status=status, body=body)
    served = two(type)
    got = served.chat(BEST)
    assert (got.status, got.provider) == (200, "b"), got.body
    assert told(served, got) == [("a", reason), ("b", None)]


STAYS: list[tuple[str, int, Any, str]] = [
    ("openai", 400, {"error": {"code": "content_filter", "message": "no"}}, "content filter"),
    ("anthropic", 400, said("invalid_request_error", "Output blocked by content filtering policy"),
     "content filter"),
    ("google", 200, {"promptFeedback": {"blockReason": "SAFETY"}}, ""),
    ("anthropic", 400, said("invalid_request_error"), "status 400"),
    ("cohere", 422, {"message": "invalid request"}, "status 422"),
]  # fmt: skip


@pytest.mark.parametrize(("type", "status", "body", "words"), STAYS)
def test_what_concerns_the_request_goes_nowhere_else(
    two: Any, fakes: Any, type: str, status: int, body: Any, words: str
) -> None:
    """XAI-FAIL-008: a filter's verdict is never routed around, a wrong request is told as one."""
    fakes.a.script = Script(status=status, body=body)
    got = two(type).chat(BEST)
    assert fakes.called() == {"a": 1}
    assert words in json.dumps(got.json)
    assert got.status == 200 or got.error["type"] == "invalid_request_error"


def test_a_prompt_too_long_goes_to_larger_models_only(two: Any, fakes: Any) -> None:
    fakes.a.script = Script(
        status=400, body=said("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")
    )
    got = two("anthropic").chat(BEST)
    assert (got.status, got.error["code"]) == (400, "context_length_exceeded")
    assert fakes.called() == {"a": 1}


def test_a_used_up_quota_rests_the_whole_provider_for_minutes(two: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=429, body={"error": {"code": "insufficient_quota"}})
    served = two("openai")
    for _ in range(3):
        assert served.chat(BEST).provider == "b"
    assert fakes.called() == {"a": 1, "b": 3}
    registry = served.gateway.registry
    now = served.gateway.runtime.now()
    assert registry.providers["a"].track.blocked_for(now) > 500


# --- symptom 2 -----------------------------------------------------------------------------------

CHAT_ERROR = {"error": {"code": "server_overloaded", "message": "SECRET"}}
EARLY: list[tuple[str, Script]] = [
    ("openai", sse((None, CHAT_ERROR))),
    ("openai", sse((None, {"choices": [], **CHAT_ERROR}))),
    ("anthropic", sse(("error", said("overloaded_error", "SECRET")))),
    ("google", sse((None, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "SECRET"}}))),
    ("mistral", sse((None, {"object": "error", "message": "SECRET", "code": "3505"}))),
]


@pytest.mark.parametrize(("type", "script"), EARLY)
def test_symptom_2_an_error_first_in_a_200_stream_fails_over(
    two: Any, fakes: Any, type: str, script: Script
) -> None:
    fakes.a.script = script
    served = two(type)
    got = served.chat(BEST, stream=True)
    assert (got.status, got.provider) == (200, "b")
    assert b"SECRET" not in got.body
    assert told(served, got) == [("a", "overloaded"), ("b", None)]


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [],
    "model": "m",
    "stop_reason": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
CLAUDE: list[Event] = [
    ("message_start", {"type": "message_start", "message": MESSAGE}),
    ("content_block_start", BLOCK),
    ("content_block_delta", DELTA),
]
CHAT_TEXT = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
GEMINI_TEXT = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}}]}
LATE: list[tuple[str, list[Event]]] = [
    ("openai", [(None, CHAT_TEXT), (None, CHAT_ERROR)]),
    ("anthropic", [*CLAUDE, ("error", said("overloaded_error", "SECRET"))]),
    (
        "google",
        [
            (None, GEMINI_TEXT),
            (None, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "SECRET"}}),
        ],
    ),
]


@pytest.mark.parametrize(("type", "rows"), LATE)
def test_symptom_2_an_error_later_in_a_200_stream_ends_it_as_one(
    two: Any, fakes: Any, type: str, rows: list[Event]
) -> None:
    def script(wire: Wire) -> None:
        wire.send(STREAM_HEAD)
        wire.chunk(frames(*rows[:-1]))
        time.sleep(0.2)  # what went out before the error stands
        wire.chunk(frames(rows[-1]))
        wire.end()

    with WireUpstream(script) as upstream:
        served = two(type, upstream.url)
        got = served.chat(BEST, stream=True)
        assert len(upstream.seen) == 1
    assert b"Hi" in got.body
    assert b"SECRET" not in got.body
    assert b'"finish_reason":"stop"' not in got.body
    assert got.events[-1]["error"]["code"] == "stream_interrupted"
    assert served.record(got)["outcome"] == "failed"
    assert told(served, got) == [("a", "overloaded")]
    assert fakes.called() == {}


# --- symptoms 7 and 8 ----------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["openai", "anthropic", "google", "cohere", "mistral"])
def test_symptom_7_headers_of_the_one_that_failed_stay_with_it(
    two: Any, fakes: Any, type: str
) -> None:
    of_a = {
        "retry-after": "77",
        "x-ratelimit-remaining-requests": "0",
        "anthropic-ratelimit-requests-remaining": "0",
        "x-request-id": "req_of_a",
        "x-should-retry": "true",
        "set-cookie": "a=1",
    }
    fakes.a.script = Script(status=429, body={"error": {"code": "x"}}, headers=of_a)
    got = two(type).chat(BEST)
    assert (got.status, got.provider) == (200, "b")
    for name, value in of_a.items():
        assert value not in str(got.header(name) or ""), name


@pytest.mark.parametrize("type", ["openai", "anthropic", "google", "cohere", "mistral"])
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("stream", [False, True])
def test_symptom_8_a_key_that_is_sent_back_goes_no_further(
    two: Any, fakes: Any, caplog: Any, type: str, status: int, stream: bool
) -> None:
    """In the body, in headers, in the record and in the log, whatever the status."""
    caplog.set_level(logging.DEBUG)
    text = f"bad call with x-goog-api-key: {CANARY} at https://h/v1?key={CANARY}"
    error = {"message": text, "type": text, "code": CANARY, "param": CANARY, "status": CANARY}
    script = Script(
        status=status,
        body={"error": error, "message": text, "detail": text},
        headers={"x-goog-api-key": CANARY, "www-authenticate": f"Bearer {CANARY}"},
    )
    fakes.a.script = fakes.b.script = script
    served = two(type, routing={"failover": {"max_retries": 1}})
    got = served.chat(BEST, stream=stream)
    assert got.status >= 400
    sent = fakes.a.seen[0].headers
    assert any(CANARY in value for value in sent.values()), "the provider was not sent its key"
    shown = [got.body.decode(), str(got.headers), json.dumps(served.record(got)), caplog.text]
    assert not [text for text in shown if CANARY in text]


# --- symptom 15 ----------------------------------------------------------------------------------


def test_symptom_15_a_cached_prompt_costs_the_same_streamed_or_whole(
    mount: Any, fakes: Any
) -> None:
    usage: dict[str, Any] = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 800},
    }
    price = {"input": 0.003, "output": 0.015, "cache_read": 0.0003}
    fakes.a.script = Script(usage=usage, chunks=["x"])
    served = mount(fakes.config({"a": [{"name": "m", "price": price}]}))
    whole = served.chat(BEST)
    stream = served.chat(BEST, stream=True, stream_options={"include_usage": True})
    costs = {served.record(got)["cost_usd"] for got in (whole, stream)}
    assert costs == {(200 * 0.003 + 800 * 0.0003 + 100 * 0.015) / 1000}


# --- further -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_fallback_fires_on_no_other_status_than_it_should(
    two: Any, fakes: Any, status: int
) -> None:
    fakes.a.script = Script(status=status, body={"error": {"message": "no"}})
    assert two().chat(BEST).status == status
    assert fakes.called() == {"a": 1}


@pytest.mark.parametrize("stream", [False, True])
def test_a_network_error_is_never_a_200(mount: Any, fakes: Any, stream: bool) -> None:
    config = fakes.config({"a": ["m"]})
    config["providers"]["a"]["endpoint"] = f"http://127.0.0.1:{free_port()}/v1"
    got = mount(config).chat(BEST, stream=stream)
    assert (got.status, got.error["code"]) == (502, "all_providers_failed")


def test_a_host_of_the_clients_is_no_providers(two: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=503)
    two("anthropic").chat({**BEST, "Host": "elsewhere.example"})
    for fake in (fakes.a, fakes.b):
        assert fake.seen[0].headers["host"] == f"127.0.0.1:{fake.port}"


def test_a_stream_request_answered_with_an_error_document_is_an_error(two: Any, fakes: Any) -> None:
    fakes.a.script = Script(status=200, body=said("overloaded_error"))
    served = two("anthropic")
    got = served.chat(BEST, stream=True)
    assert (got.status, got.provider) == (200, "b")
    assert told(served, got)[0] == ("a", "overloaded")
