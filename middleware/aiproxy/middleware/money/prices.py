"""What tokens cost: the price of a model, and the prices known without an operator saying so.

Known prices and context windows come from the data of the package ``genai-prices``, as it was
installed: nothing is looked up over the network. The package is imported when the first model
without a price of its own is met, while a configuration loads; no request touches it.
What it does not know is unknown, never 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from logging import getLogger
from typing import Any, Final

from aiproxy.middleware.dialects.canonical import Usage
from aiproxy.middleware.money.amounts import PER_USD
from aiproxy.spec.catalog import presets

log = getLogger("aiproxy")

#: Where known prices come from; stands in the record beside the version.
SOURCE: Final = "genai-prices"
_FIELDS: Final = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "per_request": "requests_kcount",
}


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars per token, per generated item and per request. A blended price has equal halves.

    ``cache_read`` and ``cache_write`` are ``None`` where the input price holds for those as well,
    ``reasoning`` where that of output does. ``tiers`` are the prices of long prompts, by the input
    tokens above which each holds for the whole request, in rising order; they have no tiers.
    """

    input: int
    output: int
    per_item: int = 0
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    per_request: int = 0
    tiers: tuple[tuple[int, "Price"], ...] = ()

    def cost(self, usage: Usage) -> int:
        """What an answer cost. Beside token prices the price of an item is for what comes on top
        of text, which usage does not tell: it counts in ``worst`` only."""
        if not (self.input or self.output):
            return self.per_item + self.per_request
        held = self.at(usage.input) if self.tiers else self
        cached = min(usage.cached, usage.input)
        written = min(usage.cache_write, usage.input - cached)
        tokens = held.input * usage.input + held.output * usage.output
        if held.cache_read is not None:
            tokens += (held.cache_read - held.input) * cached
        if held.cache_write is not None:
            tokens += (held.cache_write - held.input) * written
        if held.reasoning is not None:
            tokens += (held.reasoning - held.output) * min(usage.reasoning, usage.output)
        return max(0, tokens) + self.per_request

    def worst(self, input_tokens: int, output_tokens: int, items: int = 1) -> int:
        """The most an answer of that size can cost; writing to a cache may be the dearest way."""
        held = self.at(input_tokens) if self.tiers else self
        # Asked of every candidate of every request: ``reading`` and ``writing``, without the calls.
        per_input, per_output = held.input, held.output
        if held.cache_write is not None and held.cache_write > per_input:
            per_input = held.cache_write
        if held.reasoning is not None and held.reasoning > per_output:
            per_output = held.reasoning
        tokens = per_input * input_tokens + per_output * output_tokens
        return tokens + self.per_item * items + self.per_request

    @property
    def reading(self) -> int:
        """The most an input token costs."""
        return max(self.input, self.cache_write or 0)

    @property
    def writing(self) -> int:
        """The most an output token costs."""
        return max(self.output, self.reasoning or 0)

    @property
    def top(self) -> "Price":
        """The price of the longest prompts."""
        return self.tiers[-1][1] if self.tiers else self

    def at(self, input_tokens: int) -> "Price":
        """The price that holds for a request with that many input tokens."""
        held = self
        for above, price in self.tiers:
            if input_tokens <= above:
                break
            held = price
        return held

    @property
    def free(self) -> bool:
        return not (self.input or self.output or self.per_item or self.per_request)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model without its operator: ``price`` is ``None`` where it is not priced
    by the token, ``context_window`` counts tokens. ``model`` is its name in the data, ``version``
    that of the data."""

    price: Price | None
    context_window: int | None
    model: str
    version: str
    source: str = SOURCE

    @property
    def provenance(self) -> str:
        """Where a price comes from, for the record."""
        return f"{self.source} {self.version}"


def known_price(
    provider_type: str,
    upstream_model: str,
    *,
    writes_text: bool = True,
    at: datetime | None = None,
) -> Known | None:
    """Return what the price data says of a model at a provider, ``None`` when nothing.

    ``provider_type`` is a name of the catalogue; a type that has no name in the data has no known
    prices, since the same model costs something else elsewhere. Prices are those of text:
    ``writes_text`` says that half a price, for input alone, is none. Of prices that change with
    the time of day the dearest counts, so that no limit is passed by night rates; of those that
    start on a date, the ones at ``at`` (now by default).
    """
    preset = presets().get(provider_type)
    if preset is None or preset.prices is None:
        return None
    data = _data()
    if data is None:
        return None
    providers, version = data
    provider = next((p for p in providers if p.id == preset.prices), None)
    if provider is None:
        return None
    model = provider.find_model(upstream_model, all_providers=providers)
    if model is None:
        return None
    when = datetime.now(UTC) if at is None else at
    prices = [_price(row, writes_text) for row in _rows(model, when)]
    found = [price for price in prices if price is not None]
    dearest = max(found, key=lambda price: price.input + price.output, default=None)
    return Known(dearest, model.context_window, model.id, version)


def _rows(model: Any, when: datetime) -> Iterator[Any]:
    """The price rows that hold on a day, those of all hours of it."""
    if not isinstance(model.prices, list):
        yield model.prices
        return
    standing = None
    hourly = []
    for row in model.prices:
        start = getattr(row.constraint, "start_date", None)
        if hasattr(row.constraint, "start_time"):
            hourly.append(row.prices)
        elif start is None or start <= when.astimezone(UTC).date():
            standing = row.prices
    if standing is not None:
        yield standing
    yield from hourly


def _price(row: Any, writes_text: bool) -> Price | None:
    """A price from a row of the data; ``None`` when it lacks a part that is needed."""
    given = {ours: getattr(row, theirs) for ours, theirs in _FIELDS.items()}
    if given["input"] is None or (writes_text and given["output"] is None):
        return None
    starts = sorted(
        {tier.start for value in given.values() for tier in getattr(value, "tiers", ())}
    )
    base = _at(given, lambda value: getattr(value, "base", value))
    tiers = tuple((start, _at(given, _tier(start))) for start in starts)
    return replace(base, tiers=tiers)


def _tier(start: int) -> Callable[[Any], Decimal]:
    def pick(value: Any) -> Decimal:
        held: Decimal = getattr(value, "base", value)
        for tier in getattr(value, "tiers", ()):
            if tier.start <= start:
                held = tier.price
        return held

    return pick


def _at(given: dict[str, Any], pick: Callable[[Any], Decimal]) -> Price:
    amounts = {
        name: None if value is None else _picodollars(pick(value), name)
        for name, value in given.items()
    }
    return Price(
        input=amounts["input"] or 0,
        output=amounts["output"] or 0,
        cache_read=amounts["cache_read"],
        cache_write=amounts["cache_write"],
        reasoning=amounts["reasoning"],
        per_request=amounts["per_request"] or 0,
    )


def _picodollars(usd: Decimal, name: str) -> int:
    """Of one token or request; the data prices a million tokens, or a thousand requests."""
    return int(
        (usd * PER_USD / (1_000 if name == "per_request" else 1_000_000)).to_integral_value()
    )


@cache
def _data() -> tuple[list[Any], str] | None:
    """The providers of the data and its version; ``None`` where the package is not installed."""
    try:
        import genai_prices
        from genai_prices.data import providers
    except ImportError:
        log.info("genai-prices is not installed: models without a price of their own have none")
        return None
    return providers, genai_prices.__version__
