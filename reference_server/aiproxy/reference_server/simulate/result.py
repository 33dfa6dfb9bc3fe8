"""What a run came to: every request, and what teams ask of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from aiproxy.middleware.decision import Decision
from aiproxy.middleware.money.amounts import usd
from aiproxy.reference_server.simulate.breakers import Transition
from aiproxy.reference_server.simulate.conditions import Check

if TYPE_CHECKING:
    from aiproxy.reference_server.simulate.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Row:
    """One request. ``at_s`` counts from the start of the run, other times from the request's.

    ``outcome``: *ok*, *failed*, *refused* (nobody was asked), *aborted* (its client left) or
    *unfinished* (the run ended first). ``status`` is what the client was told, 0 for nothing.
    ``provider`` and ``model`` (``provider/model``) served it. ``calls`` are the providers asked, in
    order, ``costs`` what each call cost in picodollars, whoever got its answer.
    """

    name: str
    at_s: float
    latency_ms: float
    first_token_ms: float | None
    status: int
    outcome: str
    provider: str | None
    model: str | None
    calls: tuple[str, ...]
    costs: tuple[int, ...]
    failed_over: bool
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def cost(self) -> int:
        return sum(self.costs)


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of a set of requests. Shares are of those that got a whole answer, and add up to 1
    when there is one. Costs are US dollars; percentiles ``None`` without a sample."""

    requests: int
    answered: int
    errors: float
    outcomes: Mapping[str, int]
    statuses: Mapping[str, int]
    share: Mapping[str, float]
    model_share: Mapping[str, float]
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    first_token_p50_ms: float | None
    first_token_p95_ms: float | None
    cost_usd: float
    cost_per_request_usd: float | None
    attempts: int
    attempts_per_request: float | None
    failovers: float | None

    def as_dict(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def measure(rows: Sequence[Row]) -> Measures:
    """Return the figures of some requests."""
    answered = [row for row in rows if row.ok]
    latencies = sorted(row.latency_ms for row in answered)
    firsts = sorted(row.first_token_ms for row in answered if row.first_token_ms is not None)
    cost = usd(sum(row.cost for row in rows))
    attempts = sum(len(row.calls) for row in rows)
    count, good = len(rows), len(answered)
    return Measures(
        requests=count,
        answered=good,
        errors=(count - good) / count if count else 0.0,
        outcomes=_counted(row.outcome for row in rows),
        statuses=_counted(str(row.status) for row in rows if row.status),
        share=_shares(row.provider for row in answered),
        model_share=_shares(row.model for row in answered),
        p50_ms=percentile(latencies, 0.50),
        p95_ms=percentile(latencies, 0.95),
        p99_ms=percentile(latencies, 0.99),
        first_token_p50_ms=percentile(firsts, 0.50),
        first_token_p95_ms=percentile(firsts, 0.95),
        cost_usd=cost,
        cost_per_request_usd=cost / good if good else None,
        attempts=attempts,
        attempts_per_request=attempts / count if count else None,
        failovers=sum(row.failed_over for row in answered) / good if good else None,
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of sorted values."""
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _shares(words: Iterable[str | None]) -> dict[str, float]:
    counts = Counter(word or "?" for word in words)
    whole = sum(counts.values())
    return {word: count / whole for word, count in sorted(counts.items())}


@dataclass(frozen=True, slots=True)
class Spent:
    """What one provider did in a run. ``cost_usd`` is that of all its calls; ``failed`` those that
    gave no answer; ``most_at_once`` the most calls it had at a time."""

    provider: str
    calls: int
    failed: int
    served: int
    cost_usd: float
    most_at_once: int

    def as_dict(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run. ``decisions`` are the records of the last requests (``simulate(keep=...)``).

    ``checks`` say how each expectation came out; ``ok`` whether all held. ``cut`` tells that the
    bound of requests ended the traffic early. ``background`` counts the requests no client made
    (mirrors); they are in ``providers`` and not in ``rows``. ``run_s`` is the real time it took.
    """

    scenario: "Scenario"
    rows: Sequence[Row]
    measures: Measures
    providers: Sequence[Spent]
    breakers: Sequence[Transition]
    checks: Sequence[Check]
    decisions: Sequence[Decision] = field(repr=False)
    ended_s: float
    cut: bool
    background: int
    background_cost_usd: float
    run_s: float

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The expectations that did not hold."""
        return [check for check in self.checks if not check.ok]

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of the answered requests by provider."""
        return self.measures.share

    @property
    def cost_usd(self) -> float:
        return self.measures.cost_usd

    @property
    def errors(self) -> float:
        """Share of the requests that got no whole answer."""
        return self.measures.errors

    @property
    def requests_per_s(self) -> float:
        """Simulated requests for a second of real time."""
        return len(self.rows) / self.run_s if self.run_s else 0.0

    def where(self, keep: Callable[[Row], bool]) -> Measures:
        """Return the figures of the requests that ``keep`` lets pass."""
        return measure([row for row in self.rows if keep(row)])

    def between(self, start_s: float, end_s: float) -> Measures:
        """Return the figures of the requests made from ``start_s`` up to ``end_s``."""
        return self.where(lambda row: start_s <= row.at_s < end_s)

    def of(self, name: str) -> Measures:
        """Return the figures of one kind of request."""
        return self.where(lambda row: row.name == name)

    def raise_for_failures(self) -> None:
        """Raise ``AssertionError`` with every expectation that did not hold."""
        if not self.ok:
            lines = [f"{c.what}: found {c.found}, expected {c.expected}" for c in self.failures]
            raise AssertionError("\n".join(lines))

    def as_dict(self) -> dict[str, Any]:
        """Return the run as plain data; the same for the same scenario and seed."""
        names = sorted({row.name for row in self.rows})
        return {
            "scenario": self.scenario.name,
            "seed": self.scenario.seed,
            "duration_s": self.scenario.duration_s,
            "ended_s": round(self.ended_s, 6),
            "cut_short": self.cut,
            **self.measures.as_dict(),
            "providers": [spent.as_dict() for spent in self.providers],
            "requests_by_name": {name: self.of(name).as_dict() for name in names},
            "background": self.background,
            "background_cost_usd": round(self.background_cost_usd, 9),
            "breakers": [one.as_dict() for one in self.breakers],
            "checks": [check.as_dict() for check in self.checks],
            "ok": self.ok,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
