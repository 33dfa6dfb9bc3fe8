"""What usage costs, in every provider's way of counting it, and what is known of prices."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.config import load_config
from aiproxy.middleware.dialects.canonical import Usage, UsageEvent
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.money import prices
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.money.prices import Price, known_price
from aiproxy.middleware.registry import build

THEN = datetime(2026, 11, 1, tzinfo=UTC)

CHAT_STOP = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
CHAT_USAGE = {
    "prompt_tokens": 10_000,
    "completion_tokens": 1_000,
    "total_tokens": 11_000,
    "prompt_tokens_details": {"cached_tokens": 8_000},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "m",
    "output": [],
    "usage": {
        "input_tokens": 10_000,
        "input_tokens_details": {"cached_tokens": 8_000},
        "output_tokens": 1_000,
        "output_tokens_details": {"reasoning_tokens": 400},
        "total_tokens": 11_000,
    },
}
CLAUDE_USAGE = {
    "input_tokens": 1_000,
    "cache_creation_input_tokens": 2_000,
    "cache_read_input_tokens": 10_000,
    "output_tokens": 500,
}
CLAUDE_FRAMES = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "usage": {**CLAUDE_USAGE, "output_tokens": 1},
        },
    },
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 500},
    },
    {"type": "message_stop"},
]
GEMINI_USAGE = {
    "promptTokenCount": 10_000,
    "cachedContentTokenCount": 8_000,
    "candidatesTokenCount": 1_000,
    "thoughtsTokenCount": 500,
    "totalTokenCount": 11_500,
}


def gemini(usage: dict[str, int], finish: str | None = "STOP") -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": "a"}]}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}


COHERE_USAGE = {
    "billed_units": {"input_tokens": 1_000, "output_tokens": 200},
    "tokens": {"input_tokens": 1_500, "output_tokens": 200},
}

#: provider, dialect, model, whole answer, its frames, US dollars by the provider's own page.
VECTORS: list[tuple[str, str, str, dict[str, Any], list[dict[str, Any]], float]] = [
    # 2000 x 0.15 + 8000 x 0.075 + 1000 x 0.60
    (
        "openai",
        "chat",
        "gpt-4o-mini",
        {"usage": CHAT_USAGE},
        [CHAT_STOP, {"choices": [], "usage": CHAT_USAGE}],
        0.0015,
    ),
    (
        "openai",
        "responses",
        "gpt-4o-mini",
        RESPONSE,
        [{"type": "response.completed", "response": RESPONSE}],
        0.0015,
    ),
    # 1000 x 3 + 2000 x 3.75 + 10000 x 0.30 + 500 x 15
    ("anthropic", "anthropic", "claude-sonnet-4-5", {"usage": CLAUDE_USAGE}, CLAUDE_FRAMES, 0.021),
    # 2000 x 0.30 + 8000 x 0.03 + (1000 + 500 thought) x 2.50; cached input is inside the prompt
    (
        "google",
        "gemini",
        "gemini-2.5-flash",
        gemini(GEMINI_USAGE),
        [
            gemini({"promptTokenCount": 10_000, "totalTokenCount": 10_000}, None),
            gemini(GEMINI_USAGE),
        ],
        0.00459,
    ),
    # A prompt above 200k tokens costs more altogether: 2.50 and 15 instead of 1.25 and 10
    (
        "google",
        "gemini",
        "gemini-2.5-pro",
        gemini({"promptTokenCount": 250_000, "candidatesTokenCount": 100}),
        [gemini({"promptTokenCount": 250_000, "candidatesTokenCount": 100})],
        0.6265,
    ),
    # What is billed, not what the model read: 1000 x 2.50 + 200 x 10
    (
        "cohere",
        "cohere",
        "command-r-plus",
        {"usage": COHERE_USAGE},
        [
            {"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE_USAGE}},
        ],
        0.0045,
    ),
]


@pytest.mark.requirement("UNI-REG-015")
@pytest.mark.parametrize(("type", "dialect", "model", "whole", "frames", "dollars"), VECTORS)
def test_symptom_15_cached_tokens_cost_what_they_cost(
    type: str,
    dialect: str,
    model: str,
    whole: dict[str, Any],
    frames: list[dict[str, Any]],
    dollars: float,
) -> None:
    """Once, at the cached price, and the same for a stream as for a whole answer."""
    known = known_price(type, model, at=THEN)
    assert known is not None
    assert known.price is not None
    usage = codec(dialect).read_usage(whole)
    assert usd(known.price.cost(usage)) == pytest.approx(dollars, rel=1e-12)
    assert known.price.cost(streamed(dialect, frames)) == known.price.cost(usage)


def streamed(dialect: str, frames: list[dict[str, Any]]) -> Usage:
    """The usage a stream of those frames reports; there is exactly one report."""
    decoder = codec(dialect).StreamDecoder()
    events = [event for frame in frames for event in decoder.feed(frame, frame.get("type"))]
    events += decoder.finish()
    (found,) = [event.usage for event in events if isinstance(event, UsageEvent)]
    return found


def test_a_cache_hit_is_told_in_deepseeks_words_too() -> None:
    body = {
        "usage": {
            "prompt_tokens": 10_000,
            "prompt_cache_hit_tokens": 8_000,
            "prompt_cache_miss_tokens": 2_000,
            "completion_tokens": 0,
        }
    }
    usage = codec("chat").read_usage(body)
    assert Price(10, 1, cache_read=1).cost(usage) == 2_000 * 10 + 8_000


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (Usage(10, 5), 100 + 100),
        (Usage(10, 5, cached=4), 60 + 4 + 100),
        (Usage(10, 5, cached=4, cache_write=6), 4 + 6 * 12 + 100),
        # More cached than read is what only a broken report says: never below zero.
        (Usage(10, 5, cached=40, cache_write=40), 10 + 100),
        (Usage(10, 5, reasoning=5), 100 + 5 * 30),
        (Usage(0, 0), 0),
    ],
)
def test_a_cost_is_exact(usage: Usage, cost: int) -> None:
    price = Price(10, 20, cache_read=1, cache_write=12, reasoning=30, per_request=7)
    assert price.cost(usage) == cost + 7


tokens = st.integers(0, 10**6)
amounts = st.integers(0, 10**8)


@given(
    input=tokens,
    output=tokens,
    shares=st.tuples(*[st.floats(0, 1)] * 3),
    price=st.builds(
        Price,
        amounts,
        amounts,
        cache_read=st.none() | amounts,
        cache_write=st.none() | amounts,
        reasoning=st.none() | amounts,
        per_request=amounts,
    ),
)
def test_no_answer_costs_more_than_its_worst(
    input: int, output: int, shares: tuple[float, float, float], price: Price
) -> None:
    """The reservation covers the bill, whatever part of it was cached or thought."""
    cached = int(input * shares[0])
    written = int((input - cached) * shares[1])
    if price.cache_read is not None and price.cache_read > price.input:
        cached = 0  # nobody charges more for reading a cache than for not having one
    usage = Usage(input, output, cached, written, int(output * shares[2]))
    assert 0 <= price.cost(usage) <= price.worst(input, output)


def test_a_long_prompt_has_its_own_price_from_the_first_token_on() -> None:
    price = Price(1, 2, tiers=((100, Price(10, 20)), (200, Price(100, 200))))
    assert [price.cost(Usage(n, 0)) for n in (100, 101, 200, 201)] == [100, 1010, 2000, 20100]
    assert price.worst(150, 10) == 1500 + 200


@pytest.mark.parametrize(
    ("type", "model"),
    [
        ("openai", "no-such-model"),
        ("openai_compatible", "gpt-4o-mini"),
        ("vllm", "gpt-4o-mini"),
        ("nobody", "gpt-4o-mini"),
    ],
)
def test_what_is_unknown_is_unknown(type: str, model: str) -> None:
    """Never 0: a provider the data does not know may charge anything for the same model."""
    assert known_price(type, model) is None


def test_half_a_price_is_none_for_a_model_that_writes() -> None:
    half = known_price("openai", "text-embedding-3-small", at=THEN)
    assert half is not None
    assert half.price is None
    whole = known_price("openai", "text-embedding-3-small", writes_text=False, at=THEN)
    assert whole is not None
    assert whole.price == Price(20_000, 0)


def test_of_prices_by_the_hour_the_dearest_counts() -> None:
    for hour in (1, 12, 23):
        known = known_price("deepseek", "deepseek-chat", at=THEN.replace(hour=hour))
        assert known is not None
        assert known.price == Price(270_000, 1_100_000, cache_read=70_000)


def test_facts_come_with_their_source() -> None:
    known = known_price("anthropic", "claude-sonnet-4-5", at=THEN)
    assert known is not None
    assert known.context_window == 200_000
    assert known.provenance == f"genai-prices {known.version}"


def configured(**facts: Any) -> Any:
    """The only model of a configuration, as the registry has it."""
    row = {"name": "gpt-4o-mini", **facts}
    entry = {"type": "openai", "credentials": {"api_key": "${KEY}"}, "models": [row]}
    (model,) = build(
        load_config({"providers": {"mine": entry}}, env={"KEY": "k"}), wrapped_app=False
    ).models
    return model


def test_a_model_without_a_price_has_the_known_one_and_says_so() -> None:
    """AIP-CFG, UNI-REG-015: the version of the data is in the record."""
    model = configured()
    assert model.price == Price(150_000, 600_000, cache_read=75_000)
    assert model.price_source.startswith("genai-prices ")
    assert model.context_window == 128_000


@pytest.mark.parametrize(
    ("facts", "price"),
    [
        ({"price": {"input": 0.001, "output": 0.002}}, Price(1_000_000, 2_000_000)),
        ({"price": {"input": 0, "output": 0}}, Price(0, 0)),
        ({"cost_per_1k_tokens": 0.001}, Price(1_000_000, 1_000_000)),
        # Half a price of the operator's is none; nobody else's figure is put beside it.
        ({"price": {"input": 0.001}}, None),
    ],
)
def test_an_operators_own_price_wins(facts: dict[str, Any], price: Price | None) -> None:
    model = configured(**facts)
    assert model.price == price
    assert "genai-prices" not in str(model.price_source)


def test_an_operators_own_window_wins() -> None:
    assert configured(context_window=1000).context_window == 1000


@pytest.fixture
def without_the_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    prices._data.cache_clear()
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    yield
    prices._data.cache_clear()


@pytest.mark.usefixtures("without_the_package")
def test_without_the_package_nothing_is_known_and_nothing_fails() -> None:
    assert known_price("openai", "gpt-4o-mini") is None


def test_the_data_is_loaded_only_where_it_can_know_something() -> None:
    """The package is heavy: a type that has no known prices must not even import it."""
    ask = """
import sys
from aiproxy.middleware.money.prices import known_price
assert known_price("vllm", "m") is None
assert known_price("openai_compatible", "gpt-4o-mini") is None
assert "genai_prices" not in sys.modules
known_price("openai", "gpt-4o-mini")
assert "genai_prices" in sys.modules
"""
    subprocess.run([sys.executable, "-c", ask], check=True, timeout=60)


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ({"endpoint": "https://api.openai.com/v1"}, True),
        ({"endpoint": "https://api.openai.com"}, True),
        ({"endpoint": "https://proxy.example/v1"}, False),
        ({"endpoint": "http://127.0.0.1:4000/v1"}, False),
        ({"endpoint": "https://api.openai.com.example/v1"}, False),
        (
            {"endpoints": [{"url": "https://api.openai.com/v1"}, {"url": "https://p.example"}]},
            False,
        ),
        ({"endpoints": [{"url": "https://api.openai.com/v1"}]}, True),
        ({"type": "azure_openai", "endpoint": "https://mine.openai.azure.com"}, True),
    ],
)
def test_somebody_elses_address_has_somebody_elses_prices(
    entry: dict[str, Any], known: bool
) -> None:
    """UNI-REG-015: a proxy or a local server of type openai charges what it likes."""
    entry = {"type": "openai", "credentials": {"api_key": "k"}, **entry}
    entry["models"] = [{"name": "gpt-4o-mini"}]
    (model,) = build(load_config({"providers": {"mine": entry}}), wrapped_app=False).models
    assert (model.price is not None) == known
    assert (model.price_source is not None) == known
    assert (model.context_window is not None) == known
