"""Expectations of a scenario: ``>= 0.6``, ``< 1%``, ``>= 0.4 and <= 0.6``, or a plain number."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.nodes import Path

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TERM: Final = re.compile(r"\s*(>=|<=|==|>|<)\s*([0-9.]+(?:[eE]-?[0-9]+)?)\s*(%?)\s*")
#: Equal up to what adding up floats in another order changes.
_SAME: Final = 1e-9
#: Members of an expectation whose keys name providers, or providers with a model.
_BY_PROVIDER: Final = ("share", "calls")
_BREAKERS: Final = ("breaker_opened", "breaker_recovered", "breaker_quiet")


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and how it came out. ``found`` is ``None`` where there was nothing to
    measure, which never is what was expected."""

    what: str
    expected: str
    found: float | str | None
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        return {"what": self.what, "expected": self.expected, "found": self.found, "ok": self.ok}


def holds(condition: str | float, value: float | None) -> bool:
    """Return whether a value is as a condition of the scenario asks; no value never is."""
    if value is None:
        return False
    if not isinstance(condition, str):
        return _same(value, float(condition))
    for term in condition.split("and"):
        found = _TERM.fullmatch(term)
        if found is None:
            raise ValueError(f"not a condition: {condition!r}")
        bound = float(found[2]) / (100 if found[3] else 1)
        same = _same(value, bound)
        if found[1] == "==":
            if not same:
                return False
        elif same:
            if found[1] in (">", "<"):
                return False
        elif not _COMPARE[found[1]](value, bound):
            return False
    return True


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME * max(1.0, abs(one), abs(other))


def faults_of(
    expect: Mapping[str, Any],
    providers: Sequence[str],
    models: Sequence[str],
    kinds: Sequence[str],
) -> Iterator[tuple[Path, str]]:
    """Yield what an expectation names that the scenario does not have."""
    yield from _measured(expect, (), providers, models)
    for key in _BREAKERS:
        for index, name in enumerate(expect[key]):
            if name not in providers and name not in models:
                yield (key, index), _unknown("provider", name, [*providers, *models])
    for name, row in expect["requests_by_name"].items():
        path: Path = ("requests_by_name", name)
        if name not in kinds:
            yield path, _unknown("kind of request", name, kinds)
        yield from _measured(row, path, providers, models)
    for index, row in enumerate(expect["windows"]):
        path = ("windows", index)
        if row["to"] is not None and row["to"] <= row["from"]:
            yield (*path, "to"), "found an end that is not after from, expected a later one"
        yield from _measured(row, path, providers, models)


def _measured(
    row: Mapping[str, Any], path: Path, providers: Sequence[str], models: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    for key in _BY_PROVIDER:
        for name in row[key]:
            if name not in providers:
                yield (*path, key, name), _unknown("provider", name, providers)
    for name in row["model_share"]:
        if name not in models:
            yield (*path, "model_share", name), _unknown("provider/model", name, models)
    for name in row["statuses"]:
        if not (name.isascii() and name.isdigit() and len(name) == 3):
            yield (*path, "statuses", name), "found no HTTP status, expected one such as 503"


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    listed = ", ".join(known[:12])
    return f"found an unknown {what}, expected one of {listed}{suggestion(name, list(known))}"
