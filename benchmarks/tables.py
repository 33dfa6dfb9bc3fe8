"""Medians, ratios and Markdown tables."""

from collections.abc import Iterable, Sequence
from math import nan

Row = Sequence[str | float]


def median(values: Iterable[float]) -> float:
    found = sorted(values)
    if not found:
        return nan
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


def merged(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of every figure; ``bad`` is the sum."""
    found = {name: median(run[name] for run in runs) for name in runs[0]}
    found["bad"] = sum(run["bad"] for run in runs)
    return found


def ratio(a: float, b: float) -> float:
    return a / b if b else nan


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    if value != value:  # noqa: PLR0124 - not a number
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
