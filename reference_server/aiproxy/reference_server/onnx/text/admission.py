"""Who may start: places and cache blocks reserved for whole answers, and how long the next one waits.

An answer's blocks are reserved for the longest it may become. So none that runs can be stopped by a
cache that filled up meanwhile. Nothing here knows threads or clocks.
"""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiproxy.reference_server.onnx.text.runner import Capacity


class Ledger:
    """The places and blocks of one adapter; ``slots`` may be fewer than it has."""

    def __init__(self, capacity: Capacity, most: int | None = None) -> None:
        self.slots: Final = max(1, min(capacity.slots, most or capacity.slots))
        self.blocks: Final = capacity.blocks
        self._block_tokens: Final = max(1, capacity.block_tokens)
        self.running = 0
        self.reserved = 0

    @property
    def free_blocks(self) -> int | None:
        return None if self.blocks is None else self.blocks - self.reserved

    def blocks_for(self, tokens: int) -> int:
        """Return the blocks of a sequence of so many tokens, none without a paged cache."""
        return 0 if self.blocks is None else math.ceil(tokens / self._block_tokens)

    def longest(self, context: int) -> int:
        """Return how many tokens a sequence may have at most."""
        if self.blocks is None:
            return context
        return min(context, self.blocks * self._block_tokens)

    def fits(self, blocks: int) -> bool:
        return self.running < self.slots and blocks <= (self.free_blocks or 0)

    def take(self, blocks: int) -> None:
        assert self.fits(blocks), "what does not fit was admitted"
        self.running += 1
        self.reserved += blocks

    def give(self, blocks: int) -> None:
        self.running -= 1
        self.reserved -= blocks
        assert self.running >= 0 <= self.reserved, "more was given back than taken"


class Pace:
    """How fast answers are made and how long they become, of the last few that ended."""

    #: The share of the newest answer in the mean: about the last ten count.
    _NEWEST: Final = 0.2

    def __init__(self) -> None:
        self._token_s: float | None = None
        self._tokens = 0.0

    def ended(self, tokens: int, seconds: float) -> None:
        """Note an answer of ``tokens`` that ran for ``seconds``."""
        a_token = seconds / max(1, tokens)
        if self._token_s is None:
            self._token_s, self._tokens = a_token, float(tokens)
            return
        self._token_s += self._NEWEST * (a_token - self._token_s)
        self._tokens += self._NEWEST * (tokens - self._tokens)

    def left_s(self, made: int, most: int) -> float:
        """Return the seconds an answer that has ``made`` tokens is expected to go on; 0 without
        any experience. One that outlives the mean is expected to take a quarter of it more."""
        if self._token_s is None:
            return 0.0
        return self._token_s * min(most - made, max(self._tokens - made, self._tokens / 4))


@dataclass(frozen=True, slots=True)
class Claim:
    """What an answer holds or wants: for how many seconds, how many blocks."""

    seconds: float
    blocks: int


def wait_s(ledger: Ledger, running: Iterable[Claim], waiting: Iterable[Claim]) -> float:
    """Return when the last of ``waiting`` is expected to start, in seconds, if all start in turn."""
    releases = [(claim.seconds, claim.blocks) for claim in running]
    heapq.heapify(releases)
    places, blocks, now = ledger.slots - ledger.running, ledger.free_blocks or 0, 0.0
    for claim in waiting:
        while releases and (places < 1 or blocks < claim.blocks):
            now, given = heapq.heappop(releases)
            places, blocks = places + 1, blocks + given
        places, blocks = places - 1, blocks - claim.blocks
        heapq.heappush(releases, (now + claim.seconds, claim.blocks))
    return now
