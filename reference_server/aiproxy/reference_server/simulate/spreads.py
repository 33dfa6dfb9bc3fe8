"""How a quantity is spread: fixed, uniform, lognormal, exponential, or drawn from measurements.

Times are seconds, counts are plain numbers; both are drawn as floats of at least zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any, Final

from aiproxy.middleware.config.quantities import parse_duration

#: The standard normal's 95th percentile.
_Z95: Final = 1.6448536269514722
#: No drawn value is larger than this many times the 95th percentile, or the mean.
_TAIL: Final = 100.0
_LARGEST_FILE: Final = 16 * 1024 * 1024
_MOST_SAMPLES: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """``kind`` says what the numbers mean: *fixed* one value, *uniform* two ends, *lognormal* mu,
    sigma and a bound, *exponential* the mean and a bound, *samples* every value."""

    kind: str
    numbers: tuple[float, ...]

    def draw(self, random: Random) -> float:
        """Return the next value."""
        numbers = self.numbers
        if self.kind == "fixed":
            return numbers[0]
        if self.kind == "uniform":
            return numbers[0] + (numbers[1] - numbers[0]) * random.random()
        if self.kind == "lognormal":
            return min(numbers[2], exp(random.gauss(numbers[0], numbers[1])))
        if self.kind == "exponential":
            return min(numbers[1], random.expovariate(1 / numbers[0]))
        return numbers[int(random.random() * len(numbers))]

    def scaled(self, factor: float) -> "Spread":
        """Return the same shape with every value multiplied by ``factor``."""
        numbers = self.numbers
        if self.kind == "lognormal":
            return Spread(self.kind, (numbers[0] + log(factor), numbers[1], numbers[2] * factor))
        return Spread(self.kind, tuple(number * factor for number in numbers))


def fixed(value: float) -> Spread:
    """Return a spread without any."""
    return Spread("fixed", (value,))


class BadSpread(ValueError):
    """A spread that says nothing sensible; ``key`` is the member at fault."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def read_spread(value: Any, folder: Path, *, times: bool) -> Spread | None:
    """Return the spread a filled scenario value describes, ``None`` for none.

    ``times``: numbers of a samples file are milliseconds unless they say their unit.

    Raises:
        BadSpread: ends the wrong way round, or a file that holds no samples.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return fixed(float(value))
    if value.get("uniform") is not None:
        low, high = map(float, value["uniform"])
        if low > high:
            raise BadSpread("uniform", "found the larger end first, expected the smaller one")
        return Spread("uniform", (low, high))
    if value.get("lognormal") is not None:
        half, most = float(value["lognormal"]["p50"]), float(value["lognormal"]["p95"])
        if most < half:
            raise BadSpread("lognormal", "found p95 below p50, expected it above")
        return Spread("lognormal", (log(half), log(most / half) / _Z95, most * _TAIL))
    if value.get("exponential") is not None:
        mean = float(value["exponential"]["mean"])
        return Spread("exponential", (mean, mean * _TAIL))
    if value.get("samples") is None:
        raise BadSpread("", "found nothing in it, expected uniform, lognormal or samples")
    return Spread("samples", _samples(folder / value["samples"], times=times))


def _samples(file: Path, *, times: bool) -> tuple[float, ...]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise BadSpread("samples", f"found more than {_LARGEST_FILE} bytes, expected samples")
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as fault:
        if isinstance(fault, BadSpread):
            raise
        reason = getattr(fault, "strerror", None) or "not UTF-8 text"
        raise BadSpread(
            "samples", f"found no readable file ({reason}), expected one number a line"
        ) from None
    found = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            found.append(_sample(text, number, times=times))
    if not found or len(found) > _MOST_SAMPLES:
        raise BadSpread(
            "samples", f"found {len(found)} samples, expected from 1 to {_MOST_SAMPLES}"
        )
    return tuple(found)


def _sample(text: str, line: int, *, times: bool) -> float:
    try:
        value = float(text) / (1000 if times else 1)
    except ValueError:
        try:
            value = parse_duration(text) if times else -1.0
        except ValueError:
            value = -1.0
    if not 0 <= value < 1e9:
        due = "a duration such as 120ms" if times else "a number of at least zero"
        raise BadSpread("samples", f"found something else in line {line} of it, expected {due}")
    return value
