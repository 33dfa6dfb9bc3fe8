"""A run as tables for a terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiproxy.reference_server.simulate.conditions import Check
from aiproxy.reference_server.simulate.result import Measures, Result

if TYPE_CHECKING:
    from typing import TextIO

_MOST_STEPS: Final = 40
_COLUMNS: Final = 120


def print_result(result: Result, out: "TextIO | None" = None) -> None:
    """Print the run: figures, shares, circuits, expectations."""
    stream = sys.stdout if out is None else out
    width = None if stream.isatty() else _COLUMNS
    console = Console(file=stream, width=width, highlight=False, soft_wrap=True)
    scenario, measures = result.scenario, result.measures
    console.print(f"{scenario.name}, seed {scenario.seed}: {_head(result)}", markup=False)
    if scenario.description:
        console.print(scenario.description.strip(), markup=False)
    console.print()
    console.print(_figures(result))
    console.print()
    console.print(_providers(result))
    if result.background:
        console.print(
            f"with {result.background} requests beside the clients' own "
            f"({result.background_cost_usd:.6f} USD)"
        )
    if len(measures.model_share) > len(measures.share):
        console.print()
        console.print(_shares("model", measures.model_share))
    if measures.errors:
        console.print()
        console.print(_endings(result))
    if result.breakers:
        console.print()
        console.print(_circuits(result))
    if result.checks:
        console.print()
        console.print(_expectations(result.checks))
    console.print()
    console.print(_speed(result), markup=False)


def _head(result: Result) -> str:
    seconds = result.scenario.duration_s
    text = f"{result.measures.requests} requests in {_duration(seconds)} of traffic"
    if result.cut:
        text += f" (cut short by max_requests: {result.scenario.max_requests})"
    return text


def _speed(result: Result) -> str:
    return f"simulated in {result.run_s:.2f} s, {result.requests_per_s:.0f} requests a second"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _figures(result: Result) -> Table:
    names = sorted({row.name for row in result.rows})
    table = _table(
        "requests", "made", "answered", "errors", "p50 ms", "p95 ms", "p99 ms",
        "token 1 p50", "p95", "cost USD", "calls each", "failovers",
    )  # fmt: skip
    rows: list[tuple[str, Measures]] = [("all", result.measures)]
    if len(names) > 1:
        rows += [(name, result.of(name)) for name in names]
    for name, found in rows:
        table.add_row(
            escape(name),
            str(found.requests),
            str(found.answered),
            _percent(found.errors),
            _number(found.p50_ms),
            _number(found.p95_ms),
            _number(found.p99_ms),
            _number(found.first_token_p50_ms),
            _number(found.first_token_p95_ms),
            f"{found.cost_usd:.6f}",
            _number(found.attempts_per_request, 2),
            _percent(found.failovers),
        )
    return table


def _providers(result: Result) -> Table:
    table = _table("provider", "share", "served", "calls", "failed", "cost USD", "most at once")
    for one in result.providers:
        table.add_row(
            one.provider,
            _percent(result.measures.share.get(one.provider, 0.0)),
            str(one.served),
            str(one.calls),
            str(one.failed),
            f"{one.cost_usd:.6f}",
            str(one.most_at_once),
        )
    return table


def _shares(what: str, shares: Mapping[str, float]) -> Table:
    table = _table(what, "share")
    for name, share in shares.items():
        table.add_row(escape(name), _percent(share))
    return table


def _endings(result: Result) -> Table:
    table = _table("not answered", "status", "error", "requests")
    counts: dict[tuple[str, str, str], int] = {}
    for row in result.rows:
        if not row.ok:
            key = (row.outcome, str(row.status or "-"), row.error or "-")
            counts[key] = counts.get(key, 0) + 1
    for (outcome, status, error), count in sorted(counts.items()):
        table.add_row(outcome, status, error, str(count))
    return table


def _circuits(result: Result) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("circuit", "at", "from", "to", "why"):
        table.add_column(column)
    shown = result.breakers[:_MOST_STEPS]
    for one in shown:
        table.add_row(escape(one.name), f"{one.at_s:.3f} s", one.before, one.after, one.why)
    if len(result.breakers) > len(shown):
        table.add_row(f"and {len(result.breakers) - len(shown)} more", "", "", "", "")
    return table


def _expectations(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("expected", "", "found", "holds"):
        table.add_column(column)
    for check in checks:
        found = "-" if check.found is None else str(check.found)
        verdict = "[green]yes[/]" if check.ok else "[red]NO[/]"
        table.add_row(escape(check.what), check.expected, found, verdict)
    return table


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if seconds >= 120 else f"{seconds:g} s"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.2f}%"
