"""The Pareto front as one self-contained HTML page: memory, constants and activations, against time and against
energy."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from tvm_ergo.printed import html_text
from tvm_ergo.report.front import FRONT_HEADER, Front, Series, front_caption, front_cells
from tvm_ergo.report.html import STYLE, plot, table

COLOURS = {
    "resident": "#2f7ed8",
    "streamed": "#d9822b",
    "resident, compressed": "#8e6bbf",
    "streamed, compressed": "#3a9b7a",
}
KIB = 1024
FIGURES = (("cycles", "cycles of one inference"), ("energy_uj", "uJ of one inference"))


def front_figure(front: Front) -> go.Figure:
    """Two pictures side by side. The steps between points say what a limit gets: the best point to the left of it."""
    figure = make_subplots(1, 2, horizontal_spacing=0.09)
    for series in front.series:
        colour = COLOURS.get(series.name, "#52606d")
        for column, (figure_name, title) in enumerate(FIGURES, 1):
            figure.add_trace(_step_line(series, figure_name, colour, column == 1), 1, column)
            figure.update_yaxes(title=title, type="log", row=1, col=column)
    figure.update_xaxes(title="unified memory (constants and activations), KiB")
    figure.update_layout(
        template="plotly_white",
        height=470,
        margin={"l": 65, "r": 20, "t": 30, "b": 50},
        hovermode="closest",
        legend={"orientation": "h", "y": 1.09, "x": 0},
    )
    return figure


def _step_line(series: Series, figure_name: str, colour: str, legend: bool) -> go.Scatter:
    """The points, and the least of the figure that each limit reaches."""
    best, shown = float("inf"), []
    for point in series.points:
        value = getattr(point, figure_name)
        if value < best:  # the others are there for the other figure
            best = value
            shown.append(point)
    return go.Scatter(
        name=f"frame {series.name}",
        legendgroup=series.name,
        showlegend=legend,
        mode="lines+markers",
        line={"shape": "hv", "color": colour, "width": 1.5},
        marker={"size": 7, "color": colour},
        x=[p.memory_bytes / KIB for p in shown],
        y=[getattr(p, figure_name) for p in shown],
        customdata=[
            [
                p.how,
                p.memory_bytes,
                p.constant_bytes,
                p.activation_bytes,
                p.cycles,
                p.energy_uj,
                p.mac_overhead,
                p.latency_ms,
                p.weights,
            ]
            for p in shown
        ],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]:,} bytes (%{customdata[2]:,} of constants, weights "
        "%{customdata[8]}; %{customdata[3]:,} of activations)"
        "<br>%{customdata[4]:,} cycles, %{customdata[7]:.3f} ms<br>%{customdata[5]:,.2f} uJ, %{customdata[6]:.2f}x "
        "MACs<extra></extra>",
    )


def front_page(front: Front) -> str:
    """The whole page as text."""
    name = html_text(front.model)
    body = [
        f"<h1>What {name} can be had for on {html_text(front.chip)}</h1>",
        f"<p>Every point is a plan that was lowered to a Program and priced at {front.clock_hz / 1e6:,.0f} MHz "
        f"({html_text(front.point)}). Memory is constants (weights, "
        f"biases, tables) and activations together; the chip has {front.chip_memory_bytes:,} bytes.</p>",
        plot(front_figure(front)),
    ]
    for series in front.series:
        body += [
            f"<h2>Frame {series.name}</h2>",
            f"<p>{html_text(front_caption(front, series))}.</p>",
            table(FRONT_HEADER, [front_cells(p) for p in series.points]),
        ]
    body += [f"<p>{html_text(note)}.</p>" for note in front.notes]
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{name}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>{''.join(body)}</body></html>"
    )
