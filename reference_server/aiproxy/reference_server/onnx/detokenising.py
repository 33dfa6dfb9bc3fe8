"""From tokens to text as they come: whole characters only, stop strings cut exactly."""

from collections.abc import Callable, Sequence
from typing import Final

#: A character is at most four bytes, so at most four byte-level tokens; longer is broken output.
LONGEST_CHARACTER: Final = 4
REPLACEMENT: Final = "�"


class Detokeniser:
    """Turns token ids into text; an incomplete UTF-8 character is held until it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []  # emitted last; gives decoders the word start they look at
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes, perhaps none."""
        self._held.append(token)
        whole = self._decode([*self._before, *self._held])
        if whole.endswith(REPLACEMENT) and len(self._held) < LONGEST_CHARACTER:
            return ""
        text = whole[len(self._decode(self._before)) :]
        self._before, self._held = self._held, []
        return text


class StopScanner:
    """Cuts text at the first stop string; what may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Return the text that is certain now; afterwards ``stopped`` says whether to end."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: the answer ended, so it is no stop string."""
        text, self._held = self._held, ""
        return text


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` begin ``stop``, without being all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
