"""How a tuning run is shown: a line while it runs, tables at its end, a picture of the search."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from tvm_ergo.cli.progress import Lines
from tvm_ergo.printed import SafeConsole
from tvm_ergo.tuning.result import Cost, TuningResult

PLOT_LIMIT = 2.0
"""Schedules worse than so many times the first are drawn at the edge."""


@contextmanager
def live(trials: int) -> Iterator:
    """Yields what `tune` calls after every batch: a bar on standard error, or a line there now and then where that is
    no terminal."""
    err, lines = SafeConsole(stderr=True), Lines()
    columns = (
        TextColumn("tuning"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=trials, told="")

        def advance(progress) -> None:
            rate = progress.trials / progress.seconds if progress.seconds else 0.0
            left = (progress.of_trials - progress.trials) / rate if rate else 0.0
            rejected = ", ".join(f"{cause} {count}" for cause, count in progress.rejected.items()) or "none"
            told = (
                f"best {100 * progress.best:.1f} % of default, {rate:.0f} trials/s, {left:.0f} s left, over budget: "
                f"{rejected}"
            )
            bar.update(task, completed=progress.trials, told=told)
            if not err.is_terminal:
                lines.tell("tuning", f"{progress.trials:,} of {progress.of_trials:,}, {told}")

        yield advance


def summary(result: TuningResult, console: Console) -> None:
    """The network before and after, and the tasks."""
    budget = [
        f"{result.memory_bytes / 1024:.0f} KiB",
        *([f"{result.power_mw:g} mW"] if result.power_mw else []),
        *([f"{result.peak_mw:g} mW in any {result.window_s * 1e6:g} us"] if result.peak_mw else []),
        *([f"{result.frames_per_s:g} fps"] if result.frames_per_s else []),
        *(["power gated"] if result.gating else []),
    ]
    table = Table(title=f"{result.name} on {result.chip}: least {result.objective} within {', '.join(budget)}")
    for column in ("", "point", "cycles", "latency", "energy", "power", "peak", "memory", "budget"):
        table.add_column(column, justify="left" if not column else "right")
    for how, cost in (
        ("default", result.default),
        (result.how if result.how == "tuned" else "best: the default", result.tuned),
    ):
        table.add_row(how, *_cells(cost))
    console.print(table)
    rejected = ", ".join(f"{cause} {count}" for cause, count in result.rejected.items()) or "none"
    correlation = (
        ""
        if result.rank_correlation is None
        else f", rank correlation of predictions {result.rank_correlation:.3f} "
        f"(counts alone {result.counts_correlation:.3f})"
    )
    console.print(
        f"{result.objective} {100 * result.gain:.2f} % of the default; {result.trials} trials in {result.seconds:.1f} "
        f"s ({result.trials_per_s:.1f}/s), "
        f"ended by: {result.stopped}; rejected over budget without a trial: {rejected}{correlation}"
    )
    console.print(_tasks(result))
    console.print(
        "best / default: the part's best trial by itself; the network takes of each part what meets the budgets "
        "together with the others"
    )
    console.print(f"results in {result.folder}: tvm-ergo compile ... --database {result.folder}")


def _cells(cost: Cost) -> list[str]:
    return [
        cost.point,
        f"{cost.cycles:,}",
        f"{1e3 * cost.seconds:.4g} ms",
        f"{1e-6 * cost.energy_pj:.4g} uJ",
        "rate not reached" if cost.power_mw is None else f"{cost.power_mw:.4g} mW",
        f"{cost.peak_mw:.4g} mW",
        f"{cost.memory_bytes:,} B",
        "met" if cost.meets_budget else "not met",
    ]


def _tasks(result: TuningResult) -> Table:
    table = Table(title=f"{len(result.tasks)} tasks")
    for column in ("layers", "times", "decisions", "combinations", "trials", "best / default"):
        table.add_column(column, justify="left" if column == "layers" else "right")
    for task in result.tasks:
        layers = task.layers[0] + (f" .. {task.layers[-1]}" if len(task.layers) > 1 else "")
        table.add_row(
            layers[:60],
            str(task.weight),
            str(task.choices),
            f"{task.space_size:.1e}",
            str(task.trials),
            f"{task.best / task.first:.4f}" if task.first else "1",
        )
    return table


def plot_page(result: TuningResult) -> str:
    """HTML, self-contained: `search_figure`."""
    return search_figure(result).to_html(full_html=True, include_plotlyjs=True)


def search_figure(result: TuningResult):
    """A plotly figure: every trial, and the network's best so far, over trials and over time."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=2, cols=1, subplot_titles=("over trials", "over time"))
    best: dict[str, float] = {}
    weights = {task.task: task.weight * task.first for task in result.tasks}
    total = sum(weights.values()) or 1.0
    curve = []
    for sample in result.samples:
        best[sample.task] = min(best.get(sample.task, 1.0), sample.share)
        curve.append(sum(weights[name] * best.get(name, 1.0) for name in weights) / total)
    for row, x in ((1, list(range(1, len(curve) + 1))), (2, [s.seconds for s in result.samples])):
        figure.add_trace(
            go.Scatter(
                x=x,
                y=[min(s.share, PLOT_LIMIT) for s in result.samples],
                mode="markers",
                name="trial, of its part's default",
                marker={"size": 4, "opacity": 0.4, "color": "#7f8fa6"},
                showlegend=row == 1,
            ),
            row=row,
            col=1,
        )
        figure.add_trace(
            go.Scatter(
                x=x,
                y=curve,
                mode="lines",
                name="network, best so far",
                line={"shape": "hv", "color": "#c0392b"},
                showlegend=row == 1,
            ),
            row=row,
            col=1,
        )
    figure.update_xaxes(title_text="trials", row=1, col=1)
    figure.update_xaxes(title_text="seconds", row=2, col=1)
    figure.update_yaxes(title_text=f"{result.objective}, share of default")
    figure.update_layout(
        title=f"{result.name}: search for least {result.objective}, {result.trials} trials",
        template="plotly_white",
        height=800,
    )
    return figure
