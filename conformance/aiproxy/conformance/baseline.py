"""The baseline of an implementer: failures that are known, so that only news is red.

A baseline decides the exit status and the colour of a run. It never changes the level.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from aiproxy.conformance.grading import HELD
from aiproxy.conformance.results import RED, Result, Status

_LINE: Final = re.compile(r"(?:-\s+)?(?P<id>[A-Z0-9-]+)")
# A target that is gone, or a fault of ours, is nothing to get used to.
_EXPECTABLE: Final = frozenset({Status.FAIL, Status.NOT_TESTABLE})


class UnusableBaseline(ValueError):
    """The baseline cannot be read; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The checks that are expected to fail, and the file that says so."""

    file: str
    expected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside its baseline, as check ids.

    ``known`` failed as expected. ``unexpected`` are red and not in the baseline; ``stale`` are in
    it and hold. Both are news, and red.
    """

    known: tuple[str, ...]
    unexpected: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def red(self) -> tuple[str, ...]:
        """What makes the run fail."""
        return self.unexpected + self.stale


def read_baseline(text: str, file: str, checks: Iterable[str]) -> Baseline:
    """Return the baseline written in ``text``: one check id a line, with or without a leading ``-``.

    Empty lines and what follows a ``#`` mean nothing. ``checks`` are the ids there are.

    Raises:
        UnusableBaseline: a line is no id, names an unknown check or one named before.
    """
    known, found = tuple(checks), list[str]()
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.partition("#")[0].strip()
        if not line or line == "---":
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UnusableBaseline(f"{file}:{number}: a check id is needed, found {line[:60]!r}")
        name = match["id"]
        if name not in known:
            close = get_close_matches(name, known, 3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise UnusableBaseline(f"{file}:{number}: no check {name!r}{hint}")
        if name in found:
            raise UnusableBaseline(f"{file}:{number}: {name} is listed twice")
        found.append(name)
    return Baseline(file, tuple(found))


def compare(results: Iterable[Result], expected: Iterable[str] = ()) -> Comparison:
    """Return ``results`` beside the ids that were expected to fail."""
    wanted = frozenset(expected)
    known, unexpected, stale = [], [], []
    for result in results:
        if result.derived_from:
            continue
        if result.check in wanted and result.status in HELD:
            stale.append(result.check)
        elif result.check in wanted and result.status in _EXPECTABLE:
            known.append(result.check)
        elif result.status in RED:
            unexpected.append(result.check)
    return Comparison(tuple(known), tuple(unexpected), tuple(stale))
