"""Taking a code fence off a text that arrives in pieces."""

from typing import Final

_FENCE: Final = "```"
#: A first line longer than this opens no fence.
_LONGEST_LINE: Final = 64
#: Blanks and backticks are not held back for longer than this.
_MOST_HELD: Final = 4096


class Unfencer:
    """Hands on a text without the fence around it.

    Held back are only a beginning that may still become a fence, and inside one the last few
    characters, which may be its end. A text that does not begin with a fence passes untouched.
    """

    __slots__ = ("_fenced", "_held", "_open")

    def __init__(self) -> None:
        self._open = True
        self._fenced = False
        self._held = ""

    def feed(self, text: str) -> str:
        """Take more text; return what can be shown of it."""
        if not self._open and not self._fenced:
            return text
        self._held += text
        if self._open and not self._begun():
            return ""
        if not self._fenced:
            shown, self._held = self._held, ""
            return shown
        end = len(self._held.rstrip().rstrip("`").rstrip())
        if len(self._held) - end > _MOST_HELD:
            end = len(self._held)
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def finish(self) -> str:
        """Return what was held and is no fence."""
        held, self._held = self._held, ""
        if self._fenced and held.strip().strip("`") == "":
            return ""
        return held

    def _begun(self) -> bool:
        """Decide whether the text begins with a fence; false while that is open."""
        start = self._held.lstrip()
        if len(self._held) > _MOST_HELD:
            self._open = False
            return True
        if len(start) < len(_FENCE) and _FENCE.startswith(start):
            return False
        line, newline, rest = start.partition("\n")
        if start.startswith(_FENCE) and not newline and len(line) <= _LONGEST_LINE:
            return False
        self._open = False
        if (
            start.startswith(_FENCE)
            and newline
            and line[len(_FENCE) :].strip().isalnum() | (line.strip() == _FENCE)
        ):
            self._fenced = True
            self._held = rest
        return True
