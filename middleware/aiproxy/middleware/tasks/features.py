"""A text as the numbers the task model reads: hashed n-grams, and the published words and shapes.

``features`` is used when the model is trained and when it answers, so the two cannot differ. Rows
of the model: the constant one, the shapes, the word table's hits by class, then the buckets of
n-grams of characters and words.
"""

from collections.abc import Mapping
from itertools import pairwise
from re import compile as compile_pattern
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from aiproxy.middleware.classify import WORDS, shapes, words_of

#: What the model tells apart, in the order of its outputs.
CLASSES: Final = ("reasoning", "coding", "creative", "analytical", "general")
BUCKETS: Final = 1 << 15
#: Characters read from each end of a text.
_HEAD: Final = 600
_TAIL: Final = 300
#: Words from which n-grams are made.
_MOST_WORDS: Final = 160
_LENGTHS: Final = (3, 4, 5)
_WORD: Final = compile_pattern(r"[^\W_]+(?:['+#]+\w*)?")
_HITS: Final = 4

_SHAPES: Final = {name: 1 + place for place, name in enumerate(CLASSES)}
_TABLE: Final = {name: 1 + len(CLASSES) + place for place, name in enumerate(WORDS)}
#: The first row of an n-gram.
FIRST: Final = 1 + len(CLASSES) + len(WORDS)
#: Rows of the model.
ROWS: Final = FIRST + BUCKETS

Numbers = tuple[NDArray[np.int64], NDArray[np.float32]]


def features(text: str, body: Mapping[str, Any]) -> Numbers:
    """Return the rows of a text, and how much each counts; both of the same length."""
    words = words_of(text)
    own = [(0, 1.0)]
    own += [(_SHAPES[name], min(score, 3.0)) for name, score in shapes(text, words, body).items()]
    for name, vocabulary in WORDS.items():
        hits = len(words & vocabulary)
        if hits:
            own.append((_TABLE[name], min(hits, _HITS) / _HITS * 2.0))
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} {text[-_TAIL:]}"
    read = _WORD.findall(text.lower())[:_MOST_WORDS]
    chars, grams = _characters(" ".join(read)), _grams(read)
    rows = np.concatenate((np.array([row for row, _ in own], np.int64), chars, grams))
    counts = np.concatenate(
        (
            np.array([count for _, count in own], np.float32),
            np.full(len(chars), 1.0 / max(1.0, len(chars) ** 0.5), np.float32),
            np.full(len(grams), 1.5 / max(1.0, len(grams) ** 0.5), np.float32),
        )
    )
    return rows, counts


def _characters(text: str) -> NDArray[np.int64]:
    """The buckets of all runs of characters."""
    data = np.frombuffer(f" {text} ".encode(), np.uint8).astype(np.uint32)
    found = []
    for length in _LENGTHS:
        count = len(data) - length + 1
        if count < 1:
            break
        sums = np.full(count, length * 0x9E3779B1 & 0xFFFFFFFF, np.uint32)
        for place in range(length):
            sums = (sums ^ data[place : place + count]) * np.uint32(0x01000193)
        sums ^= sums >> np.uint32(15)
        found.append(sums % np.uint32(BUCKETS))
    if not found:
        return np.empty(0, np.int64)
    return np.concatenate(found).astype(np.int64) + FIRST


def _grams(read: list[str]) -> NDArray[np.int64]:
    """The buckets of words and of pairs of words."""
    sums = [crc32(word.encode()) for word in read]
    sums += [crc32(f"{a} {b}".encode()) for a, b in pairwise(read)]
    return np.array(sums, np.int64) % BUCKETS + FIRST
