"""The decision record of ``aiproxy explain`` as tables for a terminal."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_COLUMNS: Final = 160


def print_record(record: Mapping[str, Any]) -> None:
    """Print who would serve and why, who would not and why not, and what binds the request."""
    width = None if sys.stdout.isatty() else _COLUMNS
    console = Console(width=width, highlight=False, soft_wrap=True)
    for name, value in _facts(record):
        console.print(f"{name:<16}{value}", markup=False)
    if record["candidates"]:
        console.print()
        console.print(_candidates(record["candidates"]))


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    requested = record["requested"]
    stream = ", streamed" if requested["stream"] else ""
    yield "request", f"{requested['endpoint']}, model {requested['model']}{stream}"
    error = record["error"]
    if error is not None:
        yield "refused", f"{error['status']} {error['code']}: {error.get('message', '')}"
    chosen = record["selected"]
    if error is None and chosen is not None:
        served = f"{chosen['provider']}/{chosen['model']}"
        yield "served by", f"{served} ({chosen['reason']}, confidence {chosen['confidence']:.2f})"
    if record["strategy"] is not None:
        yield "strategy", f"{record['strategy']} (by {record['strategy_source']})"
        yield "task", f"{record['task']} ({record['task_basis']})"
    limits = ", ".join(_limits(record["constraints"]))
    if limits:
        yield "limits", limits
    if record.get("predicted"):
        yield "predicted", ", ".join(_predicted(record["predicted"]))
    yield from _why(record.get("explanation"))
    if record.get("ensemble"):
        yield "ensemble", _ensemble(record["ensemble"])
    for key, title in (("policies", "policies"), ("canary", "canary"), ("mirrors", "mirrors")):
        value = record.get(key)
        if value:
            yield title, _said(value)
    for name, row in record["auto"].items():
        yield f"auto {name}", f"{_said(row.get('resolved'))} ({row.get('basis')})"
    for row in record["ignored"]:
        yield "ignored", f"{row.get('header') or row.get('parameter')}: {row['why']}"
    for row in record["losses"]:
        yield "loses", f"{row['feature']}: {row['detail']}"


def _ensemble(found: Mapping[str, Any]) -> str:
    """Who would be asked, by which rule, and what it may cost together."""
    asked = [
        f"{m['model']} at {m['provider']}" for m in found["members"] if m["outcome"] == "planned"
    ]
    out = [f"{m['model']} ({m['reason']})" for m in found["members"] if m["outcome"] == "left_out"]
    parts = [f"{found['method']}, quorum {found['quorum']}", ", ".join(asked)]
    if out:
        parts.append("left out " + ", ".join(out))
    if found["judge"] is not None:
        parts.append(f"judge {found['judge']['model']} ({found['judge']['outcome']})")
    worst = found["worst_case_usd"]
    parts.append("worst case unknown" if worst is None else f"worst case {worst:g} USD")
    return "; ".join(parts)


def _limits(constraints: Mapping[str, Any]) -> Iterator[str]:
    for name, value in constraints.items():
        if value not in (None, False, [], {}, ""):
            yield f"{name} {_said(value)}"


def _predicted(found: Mapping[str, Any]) -> Iterator[str]:
    if found.get("latency_ms") is not None:
        yield f"{found['latency_ms']:.0f} ms"
    if found.get("cost_usd") is not None:
        yield f"{found['cost_usd']:.6f} USD"
    if found.get("quality") is not None:
        yield f"quality {found['quality']:.2f}"
    if found.get("success") is not None:
        yield f"answers with {found['success'] * 100:.0f}%"


def _why(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if not found:
        return
    if found["primary_factors"]:
        yield "because of", ", ".join(map(str, found["primary_factors"]))
    for name, row in found["trade_offs"].items():
        yield name.replace("_", " "), _said(row)
    risk = found.get("risk")
    if risk:
        reasons = f": {', '.join(risk['reasons'])}" if risk["reasons"] else ""
        yield "risk", f"{risk['level']}{reasons}"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_said(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_said(one) for one in value)
    return str(value)


def _candidates(rows: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("", "provider", "model", "why not first", "score", "USD", "ms", "quality"):
        table.add_column(title, justify="right" if title in ("score", "USD", "ms") else "left")
    place = 0
    for row in rows:
        mark = "-"
        if row["eligible"]:
            place += 1
            mark = str(place)
        why = row["reason"] or ""
        if row.get("detail"):
            why += f": {row['detail']}"
        table.add_row(
            mark,
            escape(row["provider"]),
            escape(row["model"]),
            escape(why),
            _number(row["score"], 3),
            _number(row["cost_usd"], 6),
            _number(row["latency_ms"], 0),
            _number(row["quality"], 2),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
