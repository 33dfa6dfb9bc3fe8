"""From tokens to text as they come: whole characters only, stop strings cut exactly, and each log
probability beside the text of its token."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.text.runner import TokenLogprob

#: The text of token ids; with True special tokens show.
Decode: TypeAlias = Callable[[Sequence[int], bool], str]

#: A character is at most four bytes, so at most four byte-level tokens; longer is broken output.
LONGEST_CHARACTER: Final = 4
REPLACEMENT: Final = "�"


class Detokeniser:
    """Turns token ids into text; an incomplete UTF-8 character is held until it is whole.

    Decoders look at what is before a token (a word start, a space): the last piece of text goes
    into each decoding again. So a token costs the decoding of a few, however long the answer is.
    """

    def __init__(self, decode: Decode, *, show_special: bool = False) -> None:
        self._decode = decode
        self._show_special = show_special
        self._before: list[int] = []  # what gave the last text
        self._before_size = 0  # characters of its text alone, but for one it began
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """Return the text that ``token`` completes, perhaps none."""
        self._held.append(token)
        whole = self._decode([*self._before, *self._held], self._show_special)
        unsure = len(whole) - len(whole.rstrip(REPLACEMENT))
        if unsure and len(whole) - unsure > self._before_size:
            # The token ends one character and begins the next.
            self._held = [token]
        elif unsure and len(self._held) < LONGEST_CHARACTER:
            return ""
        else:
            unsure = 0  # it is whole, or broken
        text = whole[self._before_size : len(whole) - unsure]
        if text:
            self._before = self._held
            self._before_size = len(self._decode(self._held, self._show_special)) - unsure
        # A special token that does not show has no text to look at: the one before it stays.
        self._held = []
        return text

    def flush(self) -> str:
        """Return what of the held tokens is whole, as the answer ended."""
        if not self._held:
            return ""
        whole = self._decode([*self._before, *self._held], self._show_special)
        self._held = []
        return whole[self._before_size :].rstrip(REPLACEMENT)


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
        if not self._stops:
            return text
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return what was held back: the answer ended, so it is no stop string."""
        text, self._held = self._held, ""
        return text


class TextMaker:
    """The text of one answer: what is certain after each token, with its tokens' log probabilities.

    A log probability comes once all text of its token has come, but for a character it begins. At a
    stop string, those of the tokens that begin behind the cut never come.
    """

    def __init__(self, decode: Decode, stops: Sequence[str], *, show_special: bool) -> None:
        self._detokeniser = Detokeniser(decode, show_special=show_special)
        self._scanner = StopScanner(stops)
        self._read = 0  # characters made so far
        self._given = 0  # characters given out
        # Where the text of a token begins and ends. The end is not known before its last character.
        self._unplaced: list[TokenLogprob] = []
        self._placed: deque[tuple[int, int, TokenLogprob]] = deque()

    @property
    def stopped(self) -> bool:
        """A stop string came: there is no more text."""
        return self._scanner.stopped

    def push(
        self, token: int, logprob: "TokenLogprob | None" = None
    ) -> "tuple[str, tuple[TokenLogprob, ...]]":
        """Return the text that became certain with ``token``, often none."""
        made = self._detokeniser.push(token)
        if logprob is not None:
            self._unplaced.append(logprob)
        self._place(made)
        text = self._scanner.push(made)
        self._given += len(text)
        return text, self._certain() if self._placed or self._unplaced else ()

    def finish(self) -> "tuple[str, tuple[TokenLogprob, ...]]":
        """Return what was held back, as the answer ended without a stop string."""
        made = self._detokeniser.flush()
        self._place(made, last=True)
        text = self._scanner.push(made) + self._scanner.flush()
        self._given += len(text)
        return text, self._certain()

    def _place(self, made: str, *, last: bool = False) -> None:
        if made or last:
            end = self._read + len(made)
            begin = self._read
            self._placed += [(begin, end, replace(row, begin=begin)) for row in self._unplaced]
            self._unplaced.clear()
            self._read = end

    def _certain(self) -> "tuple[TokenLogprob, ...]":
        found: list[TokenLogprob] = []
        while self._placed and self._is_out(*self._placed[0][:2]):
            found.append(self._placed.popleft()[2])
        return tuple(found)

    def _is_out(self, begin: int, end: int) -> bool:
        return end <= self._given or (self.stopped and begin < self._given)


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of ``text`` begin ``stop``, without being all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
