"""What models cost, bounded for all prompts and answers of about one length.

A request's lengths fall into a *box*: prompt and answer each within a quarter of an octave. Costs
never fall as a text grows, so a model's costs at the corners of a box bound them for every request
in it, and places sorted by them are sorted once a box.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Final

from aiproxy.middleware.intent import DEFAULT_OUTPUT_TOKENS, Intent
from aiproxy.middleware.money.prices import Price
from aiproxy.middleware.registry import Model

_UNLIMITED: Final = 1 << 62
_USUAL: Final = (DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS)
#: Figures kept in all boxes of a board together, and the least number of boxes.
_MOST_FIGURES: Final = 1 << 17
_LEAST_BOXES: Final = 8

#: Picodollars per token read and written, an item and a request; the most tokens a model writes,
#: as a bound of what is asked for and as what counts when nothing is.
Row = tuple[int, int, int, float, int, int]


def _row(model: Model, price: Price | None) -> Row:
    cap = model.max_output_tokens
    most = cap or DEFAULT_OUTPUT_TOKENS
    if price is None:
        return 0, 0, 0, inf, cap or _UNLIMITED, most
    return (
        price.reading,
        price.writing,
        price.per_item,
        price.per_request,
        cap or _UNLIMITED,
        most,
    )


def _around(length: int) -> tuple[int, int]:
    """The least and the greatest number of tokens that share a box with one."""
    shift = max(0, length.bit_length() - 3)
    low = length >> shift << shift
    return low, low + (1 << shift) - 1


def _costs(rows: Iterable[Row], prompt: int, output: int | None, copies: int) -> list[float]:
    """Costs of each row; ``output`` ``None``: of the longest answer each can give."""
    if output is None:
        return [
            r * prompt + w * most * copies + item * copies + request
            for r, w, item, request, _, most in rows
        ]
    if copies == 1:
        return [
            r * prompt
            + w * (output if output < cap else cap)  # noqa: FURB136 - a call costs more
            + item
            + request
            for r, w, item, request, cap, _ in rows
        ]
    return [
        r * prompt
        + w * (output if output < cap else cap) * copies  # noqa: FURB136 - a call costs more
        + item * copies
        + request
        for r, w, item, request, cap, _ in rows
    ]


class Box:
    """Bounds of all costs for requests of about one size; ``low`` and ``high`` are of an answer of
    usual length, by place; ``cheapest``: somebody costs no more, and ``nearest`` is who may be the
    cheapest of all, one of each price. Others keep in ``orders`` and ``heads`` what goes by costs."""

    __slots__ = (
        "_rows",
        "_sorted",
        "_worst",
        "cheapest",
        "heads",
        "high",
        "key",
        "low",
        "nearest",
        "orders",
    )

    def __init__(self, boxes: "Boxes", key: tuple[Any, ...]) -> None:
        prompt, output, copies, _ = key
        self.key = key
        self._rows = boxes
        self.low = boxes.bounds(prompt[0], output[0], copies, least=True)
        self.high = boxes.bounds(prompt[1], output[1], copies, least=False)
        self.cheapest = min(self.high)
        self.nearest = boxes.unlike(i for i, low in enumerate(self.low) if low <= self.cheapest)
        self.orders: dict[tuple[Any, ...], Any] = {}
        self.heads: dict[tuple[Any, ...], Any] = {}
        self._worst: tuple[list[float], list[float]] | None = None
        self._sorted: tuple[list[float], list[int]] | None = None

    def worst(self) -> tuple[list[float], list[float]]:
        """The least and the most of the longest answer, by place."""
        if self._worst is None:
            prompt, _, copies, bounded = self.key
            if bounded:
                self._worst = self.low, self.high
            else:
                self._worst = (
                    self._rows.bounds(prompt[0], None, copies, least=True),
                    self._rows.bounds(prompt[1], None, copies, least=False),
                )
        return self._worst

    def by_worst(self) -> tuple[list[float], list[int]]:
        """The least of ``worst`` in rising order, and the places in that order."""
        if self._sorted is None:
            low = self.worst()[0]
            places = sorted(range(len(low)), key=low.__getitem__)
            self._sorted = [low[i] for i in places], places
        return self._sorted


class Boxes:
    """The prices of ``models``; ``embeds``: they write no text."""

    def __init__(self, models: Sequence[Model], *, embeds: bool) -> None:
        self._models = models
        self._embeds = embeds
        self._rows = [_row(model, model.price) for model in models]
        # a model with prices by length is bounded by all of them
        self._tiers = {
            i: [_row(m, price) for price in (m.price, *(tier for _, tier in m.price.tiers))]
            for i, m in enumerate(models)
            if m.price is not None and m.price.tiers
        }
        numbers: dict[tuple[Price | None, int | None], int] = {}
        #: by place, a number that those share who cost the same, whatever is asked
        self.kinds = [
            numbers.setdefault((m.price, m.max_output_tokens), len(numbers)) for m in models
        ]
        self._kept: dict[tuple[Any, ...], Box] = {}
        self._most = max(_LEAST_BOXES, _MOST_FIGURES // (4 * len(models) or 1))

    def of(self, intent: Intent) -> Box:
        """The box of a request."""
        output = 0 if self._embeds else intent.output_limit
        # the usual length is no estimate: its box has one size
        spans = _USUAL if output is None else _around(output)
        key = (_around(intent.prompt_tokens), spans, intent.copies, output is not None)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= self._most:
                self._kept.clear()
            found = self._kept[key] = Box(self, key)
        return found

    def bounds(self, prompt: int, output: int | None, copies: int, *, least: bool) -> list[float]:
        """The least or the most that places cost at one corner of a box."""
        if output is None and self._embeds:
            output = 0
        found = _costs(self._rows, prompt, output, copies)
        edge = min if least else max
        for i, rows in self._tiers.items():
            found[i] = edge(_costs(rows, prompt, output, copies))
        return found

    def unlike(self, places: Iterable[int]) -> list[int]:
        """The first of those places that always cost the same."""
        first: dict[int, int] = {}
        for i in places:
            first.setdefault(self.kinds[i], i)
        return list(first.values())

    def usual_of(self, intent: Intent) -> "Callable[[Sequence[int]], list[float]]":
        """What answers of usual length really cost, of some places."""
        limit = intent.output_limit
        return self._exact(intent, DEFAULT_OUTPUT_TOKENS if limit is None else limit)

    def worst_of(self, intent: Intent) -> "Callable[[Sequence[int]], list[float]]":
        """What the longest answers really cost, of some places."""
        return self._exact(intent, intent.output_limit)

    def _exact(
        self, intent: Intent, output: int | None
    ) -> "Callable[[Sequence[int]], list[float]]":
        rows, tiers, models = self._rows, self._tiers, self._models
        prompt, copies = intent.prompt_tokens, intent.copies
        if self._embeds:
            output = 0

        def costs(places: Sequence[int]) -> list[float]:
            found = _costs(map(rows.__getitem__, places), prompt, output, copies)
            if tiers:
                for at, i in enumerate(places):
                    if i in tiers:
                        found[at] = _tiered(models[i], prompt, output, copies)
            return found

        return costs


def _tiered(model: Model, prompt: int, output: int | None, copies: int) -> float:
    price = model.price
    assert price is not None
    return _costs([_row(model, price.at(prompt))], prompt, output, copies)[0]
