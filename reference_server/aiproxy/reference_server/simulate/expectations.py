"""Holds a run against what its scenario expects."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final

from aiproxy.reference_server.simulate.breakers import Transition, closed_at_last, of, opened
from aiproxy.reference_server.simulate.conditions import Check, holds
from aiproxy.reference_server.simulate.result import Measures, Row, measure

_PLAIN: Final = (
    "requests",
    "answered",
    "errors",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "first_token_p50_ms",
    "first_token_p95_ms",
    "cost_usd",
    "cost_per_request_usd",
    "attempts_per_request",
    "failovers",
)


def checks_of(
    expect: Mapping[str, Any],
    rows: Sequence[Row],
    whole: Measures,
    breakers: Sequence[Transition],
) -> list[Check]:
    """Return how each expectation came out, in the order of the schema."""
    if not expect:
        return []
    found = list(_measured(expect, whole, rows, ""))
    for key, told in (
        ("breaker_opened", opened),
        ("breaker_recovered", closed_at_last),
        ("breaker_quiet", lambda steps, name: not opened(steps, name)),
    ):
        for name in expect[key]:
            ok = told(breakers, name)
            steps = [one.after for one in of(breakers, name)]
            shown = " ".join(["closed", *steps][-4:])
            found.append(Check(f"{key} {name}", key.partition("_")[2], shown, ok))
    for name, row in expect["requests_by_name"].items():
        own = [one for one in rows if one.name == name]
        found += _measured(row, measure(own), own, f"{name}: ")
    for row in expect["windows"]:
        start, end = row["from"], inf if row["to"] is None else row["to"]
        own = [one for one in rows if start <= one.at_s < end]
        shown = f"{start:g} s to the end: " if end == inf else f"{start:g} s to {end:g} s: "
        found += _measured(row, measure(own), own, shown)
    return found


def _measured(
    row: Mapping[str, Any], measures: Measures, rows: Sequence[Row], where: str
) -> Iterator[Check]:
    for key, values in (("share", measures.share), ("model_share", measures.model_share)):
        for name, condition in row[key].items():
            found = values.get(name, 0.0) if measures.answered else None
            yield _check(f"{where}{key} {name}", condition, found)
    calls: Counter[str] = Counter()
    if row["calls"]:
        for one in rows:
            calls.update(one.calls)
    for name, condition in row["calls"].items():
        yield _check(f"{where}calls {name}", condition, calls[name])
    for name, condition in row["statuses"].items():
        yield _check(f"{where}status {name}", condition, measures.statuses.get(name, 0))
    for key in _PLAIN:
        if row[key] is not None:
            yield _check(f"{where}{key}", row[key], getattr(measures, key))


def _check(what: str, condition: str | float, found: float | None) -> Check:
    shown = None if found is None else round(found, 9)
    expected = condition.strip() if isinstance(condition, str) else f"{condition:g}"
    return Check(what, expected, shown, holds(condition, found))
