"""A run as a picture: who served, how long it took, what it cost, and the circuits, over time.

Needs the extra ``simulate`` (matplotlib), which is imported only here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aiproxy.middleware.money.amounts import PER_USD
from aiproxy.reference_server.simulate.result import Result, Row, percentile

#: Stretches the run is divided into.
_STEPS: Final = 60
_FORMATS: Final = frozenset({".png", ".svg", ".pdf"})
_COLOURS: Final = {"open": "tab:red", "half_open": "tab:orange"}


class CannotPlot(RuntimeError):
    """The picture cannot be made; the message says what to do."""


def check_plot(file: str) -> None:
    """See that a picture can be made, before the run.

    Raises:
        CannotPlot: no matplotlib, or a form of file that it is not asked for.
    """
    if Path(file).suffix.lower() not in _FORMATS:
        raise CannotPlot(f"--plot {file}: expected a name that ends in .png, .svg or .pdf")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CannotPlot("--plot needs: pip install 'aiproxy[simulate]'") from None


def plot(result: Result, file: str) -> None:
    """Draw the run into a file, in the form its name ends in.

    Raises:
        CannotPlot: as ``check_plot``, or the file cannot be written.
    """
    check_plot(file)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    end = max(result.scenario.duration_s, 1e-9)
    names = [one.provider for one in result.providers]
    figure = Figure(figsize=(9, 10 if result.breakers else 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Any] = list(
        figure.subplots(4 if result.breakers else 3, 1, sharex=True, squeeze=True)
    )
    figure.suptitle(f"{result.scenario.name}, seed {result.scenario.seed}")
    buckets = _buckets(result.rows, end)
    middles = [(index + 0.5) * end / _STEPS for index in range(_STEPS)]
    _draw_shares(axes[0], middles, buckets, names)
    _draw_latencies(axes[1], middles, buckets)
    _draw_costs(axes[2], result, names, end)
    if result.breakers:
        _draw_circuits(axes[3], result, end)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(0, end)
    try:
        # no date and no chance in the file: the same run gives the same picture
        with matplotlib.rc_context({"svg.hashsalt": "aiproxy"}):
            figure.savefig(file, metadata=_undated(file))
    except OSError as fault:
        raise CannotPlot(f"--plot {file}: {fault.strerror or fault}") from None


def _undated(file: str) -> dict[str, None]:
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(
        Path(file).suffix.lower(), {}
    )


def _buckets(rows: Sequence[Row], end: float) -> list[list[Row]]:
    found: list[list[Row]] = [[] for _ in range(_STEPS)]
    for row in rows:
        found[min(_STEPS - 1, int(row.at_s / end * _STEPS))].append(row)
    return found


def _draw_shares(
    axis: Any, middles: Sequence[float], buckets: Sequence[Sequence[Row]], names: Sequence[str]
) -> None:
    layers = [[_part(bucket, name) for bucket in buckets] for name in names]
    layers.append([_part(bucket, None) for bucket in buckets])
    colours = [f"C{index}" for index in range(len(names))] + ["0.6"]
    axis.stackplot(middles, *layers, labels=[*names, "not answered"], colors=colours)
    axis.set_ylabel("requests, %")
    axis.set_ylim(0, 100)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _part(bucket: Sequence[Row], name: str | None) -> float:
    if not bucket:
        return 0.0
    return 100 * sum(row.provider == name for row in bucket) / len(bucket)


def _draw_latencies(axis: Any, middles: Sequence[float], buckets: Sequence[Sequence[Row]]) -> None:
    ordered = [sorted(row.latency_ms for row in bucket if row.ok) for bucket in buckets]
    for share in (0.5, 0.95):
        line = [percentile(values, share) for values in ordered]
        heights = [float("nan") if value is None else value for value in line]
        axis.plot(middles, heights, label=f"p{share * 100:.0f}")
    axis.set_ylabel("answer, ms")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _draw_costs(axis: Any, result: Result, names: Sequence[str], end: float) -> None:
    for index, name in enumerate(names):
        moments, sums, spent = [0.0], [0.0], 0.0
        for row in result.rows:
            cost = sum(c for asked, c in zip(row.calls, row.costs, strict=True) if asked == name)
            if cost:
                spent += cost / PER_USD
                moments.append(row.at_s)
                sums.append(spent)
        axis.step([*moments, end], [*sums, spent], where="post", label=name, color=f"C{index}")
    axis.set_ylabel("spent, USD")
    axis.set_ylim(bottom=0)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _draw_circuits(axis: Any, result: Result, end: float) -> None:
    names = sorted({one.name for one in result.breakers})
    for row, name in enumerate(names):
        steps = [one for one in result.breakers if one.name == name]
        ends = [one.at_s for one in steps[1:]] + [max(end, steps[-1].at_s)]
        axis.hlines(row, 0, end, color="tab:green", linewidth=2)
        for step, until in zip(steps, ends, strict=True):
            if step.after in _COLOURS:
                axis.hlines(row, step.at_s, until, color=_COLOURS[step.after], linewidth=8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(-0.5, len(names) - 0.5)
    axis.set_ylabel("circuits")
