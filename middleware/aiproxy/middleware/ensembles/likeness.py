"""How alike two answers are, from 0 to 1, by rules that are written down.

Nothing is asked of a model here, so the same two answers always give the same number:

* *tool calls*: 1 when both make the same calls with the same arguments, in any order; else 0;
* *JSON*: the share of leaves (path and value) that both have, of all that either has;
* *text*: words are compared without case, punctuation and spacing (scripts that put no space
  between words by the sign), single and in pairs, each as often as it occurs: twice the number in
  common over the number of both. Texts that name different numbers say different things however
  much else they share, so the result is halved by as much as their numbers differ.

``1`` always means equal in that sense, and the order of the two never matters.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from unicodedata import normalize

#: Words of a text that are compared; what follows counts as unread.
MOST_WORDS: Final = 4096
_MOST_SIGNS: Final = 64 * 1024
#: Scripts without spaces between words: Thai to Khmer, kana, Han, Hangul.
_SIGNS: Final = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(rf"\d+(?:[.,]\d+)*|[{_SIGNS}]|[^\W\d{_SIGNS}_]+|\d+")
_NUMBER: Final = re.compile(r"\d")

Leaf = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """What of an answer is compared. ``kind`` is *calls*, *json*, *text* or *refusal*; ``key`` is
    equal for answers that are equal; ``features`` are counted."""

    kind: str
    key: Hashable
    features: Counter[Hashable] = field(compare=False, repr=False)
    numbers: Counter[str] = field(compare=False, repr=False)


def text_form(text: str) -> Form:
    """Return the form of a text."""
    words = words_of(text)
    features: Counter[Hashable] = Counter(words)
    features.update(pairwise(words))
    numbers = Counter(word for word in words if _NUMBER.match(word))
    return Form("text", ("text", *(words or [text.strip()])), features, numbers)


def json_form(value: Any) -> Form:
    """Return the form of a JSON value."""
    leaves = Counter[Hashable](_leaves(value, ()))
    return Form("json", ("json", frozenset(leaves.items())), leaves, Counter())


def calls_form(calls: list[tuple[str, Any]]) -> Form:
    """Return the form of tool calls: names, each with its arguments as a JSON value."""
    made = Counter[Hashable](
        (name, frozenset(Counter(_leaves(arguments, ())).items())) for name, arguments in calls
    )
    return Form("calls", ("calls", frozenset(made.items())), made, Counter())


def refusal_form() -> Form:
    """Return the form of an answer that declines: all of them say the same."""
    return Form("refusal", ("refusal",), Counter(), Counter())


def likeness(one: Form, other: Form) -> float:
    """Return how alike two answers are; those of different kinds have nothing in common."""
    if one.key == other.key:
        return 1.0
    if one.kind != other.kind or one.kind in ("calls", "refusal"):
        return 0.0
    shared = _common(one.features, other.features)
    mine, theirs = one.features.total(), other.features.total()
    if one.kind == "json":
        return _below_one(shared / (mine + theirs - shared) if shared else 0.0)
    found = 2 * shared / (mine + theirs) if shared else 0.0
    named = one.numbers.total() + other.numbers.total()
    if named:
        found *= (1 + 2 * _common(one.numbers, other.numbers) / named) / 2
    return _below_one(found)


def words_of(text: str) -> list[str]:
    """Return the words of a text as they are compared, at most ``MOST_WORDS``."""
    found: list[str] = []
    for match in _WORD.finditer(normalize("NFKC", text[:_MOST_SIGNS]).casefold()):
        found.append(match.group())
        if len(found) == MOST_WORDS:
            break
    return found


def _below_one(value: float) -> float:
    """Only equal answers are 1: words in another order may have all their pairs in common."""
    return min(value, 0.9999)


def _common(one: Counter[Any], other: Counter[Any]) -> int:
    if len(other) < len(one):
        one, other = other, one
    return sum(min(count, other[key]) for key, count in one.items() if key in other)


def _leaves(value: Any, path: Leaf) -> Iterator[Leaf]:
    """Yield every leaf as its path and value; an empty list or object is a leaf, too."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*path, place))
    elif isinstance(value, Mapping | list):
        yield (*path, type(value).__name__)
    else:
        # True is no 1, and 1.0 is 1, as in JSON Schema
        yield (*path, isinstance(value, bool), value)
