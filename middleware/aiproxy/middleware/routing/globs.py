"""Patterns with ``*`` (any characters, also none) and ``?`` (exactly one), on the whole text.

Everything else is literal (AIP-ROUTE-022). Matching looks at each character of the text once, at
most, whatever the pattern: there is no backtracking to exploit.
"""

from collections.abc import Callable
from typing import TypeAlias

Glob: TypeAlias = Callable[[str], bool]


def compile_glob(pattern: str) -> Glob:
    """Return the test for ``pattern``; letter case counts."""
    parts = pattern.split("*")
    if "?" in pattern or len(parts) > 2:
        return automaton(pattern)
    if len(parts) == 1:
        return pattern.__eq__
    start, end = parts
    shortest = len(start) + len(end)

    def around(text: str) -> bool:
        return len(text) >= shortest and text.startswith(start) and text.endswith(end)

    return around


def automaton(pattern: str) -> Glob:
    """Return the test for any pattern: all ways to match at once, as the bits of one integer.

    Bit ``i`` is set while the text read so far may match the first ``i`` elements (an element is
    a character or ``?``). A ``*`` before element ``i`` lets bit ``i`` stay through any character.
    """
    stays = 0
    any_one = 0
    literal: dict[str, int] = {}
    size = 0
    for char in pattern:
        bit = 1 << size
        if char == "*":
            stays |= bit
            continue
        if char == "?":
            any_one |= bit
        else:
            literal[char] = literal.get(char, 0) | bit
        size += 1
    moves = {char: bits | any_one for char, bits in literal.items()}
    matched = 1 << size

    def run(text: str) -> bool:
        live = 1
        for char in text:
            live = ((live & moves.get(char, any_one)) << 1) | (live & stays)
            if not live:
                return False
        return bool(live & matched)

    return run
