"""The report's pictures (plotly figures): memory map, live bytes, lives of tensors, energy, quantization error."""

from __future__ import annotations

import plotly.graph_objects as go

from tvm_ergo.report.buffers import bytes_over_time
from tvm_ergo.report.figures import KIB, KIND_NAMES
from tvm_ergo.report.model import BufferRow, ProgramReport, Report, TensorRow

COLOURS = {
    "constant": "#9aa5b1",
    "activation": "#2f7ed8",
    "input": "#2ca02c",
    "compressed": "#8e44ad",
    "output": "#d9822b",
    "scratch": "#795548",
    "state": "#c2185b",
}
MARGIN = {"l": 60, "r": 20, "t": 20, "b": 45}
LEGEND = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
TRUNCATED = 44
"""Characters of a tensor's name on an axis."""


def memory_map(program: ProgramReport) -> go.Figure:
    """Each buffer a box: its addresses upwards, its life to the right. A frame that is digested gives its bytes over
    step by step."""
    figure = go.Figure()
    for kind, colour in COLOURS.items():
        rows = [b for b in program.buffers if b.kind == kind]
        if rows:
            figure.add_trace(_boxes(kind, colour, rows))
    figure.update_layout(
        barmode="overlay",
        height=460,
        xaxis_title="time, us",
        yaxis_title="address, KiB",
        template="plotly_white",
        margin=MARGIN,
        legend=LEGEND,
        yaxis={"range": address_range(program)},
    )
    return figure


def _boxes(kind: str, colour: str, rows: list[BufferRow]) -> go.Bar:
    raw = "<br>%{customdata[5]:,} bytes uncompressed" if kind == "compressed" else ""
    return go.Bar(
        name=KIND_NAMES[kind],
        marker={
            "color": colour,
            "line": {"color": "white", "width": 0.6 if len(rows) < 400 else 0.2},
            "pattern": {"shape": "/" if kind == "compressed" else "", "size": 5, "fgcolor": "white"},
        },
        x=[(b.start_us + b.end_us) / 2 for b in rows],
        width=[max(b.end_us - b.start_us, 1e-6) for b in rows],
        base=[b.address_bytes / KIB for b in rows],
        y=[b.size_bytes / KIB for b in rows],
        customdata=[[b.name, b.size_bytes, b.address_bytes, b.first, b.last, b.raw_bytes] for b in rows],
        hovertemplate=f"%{{customdata[0]}}<br>%{{customdata[1]:,}} bytes at %{{customdata[2]:,}}{raw}"
        "<br>instructions %{customdata[3]} to %{customdata[4]}<extra></extra>",
    )


def address_range(program: ProgramReport) -> list[float]:
    """KiB shown: all addresses, or only those above the constants where these would leave no room for the rest (zooming
    out shows them)."""
    top = max((b.address_bytes + b.size_bytes for b in program.buffers), default=1)
    moving = [b.address_bytes for b in program.buffers if b.kind != "constant"]
    below = min(moving, default=0)
    low = below - 0.08 * (top - below) if top - below < top / 2 else 0
    return [max(low, 0) / KIB, (top + 0.03 * (top - low)) / KIB]


def live_bytes(program: ProgramReport) -> go.Figure:
    """Bytes of each kind over time, constants apart; dashed what would live without compression."""
    times = [row.time_us for row in program.memory_over_time]
    count = len(times)
    figure = go.Figure()
    for kind in ("state", "input", "output", "compressed", "activation", "scratch"):
        rows = [b for b in program.buffers if b.kind == kind]
        if rows:
            values = bytes_over_time(rows, count) / KIB
            figure.add_trace(
                go.Scatter(
                    name=KIND_NAMES[kind],
                    x=times,
                    y=values.tolist(),
                    stackgroup="live",
                    mode="lines",
                    line={"shape": "hv", "width": 1, "color": COLOURS[kind]},
                )
            )
    if any(b.kind == "compressed" for b in program.buffers):
        raw = bytes_over_time([b for b in program.buffers if b.kind != "constant"], count, raw=True) / KIB
        figure.add_trace(
            go.Scatter(
                name="without compression",
                x=times,
                y=raw.tolist(),
                mode="lines",
                line={"shape": "hv", "width": 1, "dash": "dot", "color": COLOURS["compressed"]},
            )
        )
    figure.update_layout(
        height=320,
        xaxis_title="time, us",
        yaxis_title="live, KiB",
        template="plotly_white",
        margin=MARGIN,
        legend=LEGEND,
    )
    return figure


def tensor_lives(program: ProgramReport) -> go.Figure:
    """Each tensor a row: when it is there, and how much of it at most."""
    rows = program.tensors
    figure = go.Figure()
    for kind in COLOURS:
        mine = [(number, t) for number, t in enumerate(rows) if t.kind == kind]
        if mine:
            figure.add_trace(
                go.Bar(
                    orientation="h",
                    name=KIND_NAMES[kind],
                    marker={"color": COLOURS[kind]},
                    y=[number for number, _ in mine],
                    base=[t.first for _, t in mine],
                    x=[t.last - t.first for _, t in mine],
                    text=[_held(t) for _, t in mine],
                    textposition="auto",
                    insidetextanchor="start",
                    textfont={"size": 10},
                    customdata=[
                        [t.name, t.held_bytes, t.whole_bytes, t.first, t.last, t.codec or "as it is"] for _, t in mine
                    ],
                    hovertemplate="%{customdata[0]}<br>at most %{customdata[1]:,} of %{customdata[2]:,} bytes, "
                    "%{customdata[5]}"
                    "<br>instructions %{customdata[3]} to %{customdata[4]}<extra></extra>",
                )
            )
    figure.update_layout(
        barmode="overlay",
        height=110 + 17 * len(rows),
        xaxis_title="instruction",
        template="plotly_white",
        legend=LEGEND,
        margin={**MARGIN, "l": 290},
        yaxis={
            "autorange": "reversed",
            "tickvals": list(range(len(rows))),
            "ticktext": [_short(t.name) for t in rows],
            "tickfont": {"size": 10},
        },
    )
    return figure


def _held(t: TensorRow) -> str:
    return f"{t.held_bytes / KIB:,.1f} KiB" + (
        f" of {t.whole_bytes / KIB:,.1f}" if t.held_bytes < t.whole_bytes else ""
    )


def _short(name: str) -> str:
    return name if len(name) <= TRUNCATED else f"{name[: TRUNCATED // 2 - 1]}..{name[-TRUNCATED // 2 + 1 :]}"


def energy_bars(program: ProgramReport) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=[f"{i}: {r.name}" for i, r in enumerate(program.layers)],
            y=[r.energy_uj for r in program.layers],
            marker={"color": "#2f7ed8"},
            customdata=[[r.op, r.cycles] for r in program.layers],
            hovertemplate="%{x}<br>%{customdata[0]}<br>%{y:.3f} uJ, %{customdata[1]:,} cycles<extra></extra>",
        )
    )
    figure.update_layout(
        height=330,
        yaxis_title="dynamic uJ",
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 20, "b": 90},
        xaxis={"tickangle": -50, "tickfont": {"size": 9}},
    )
    return figure


def error_bars(report: Report) -> go.Figure:
    rows = [r for r in report.errors if r.sqnr_db is not None]
    figure = go.Figure(
        go.Bar(
            x=[f"{i}: {r.name}" for i, r in enumerate(rows)], y=[r.sqnr_db for r in rows], marker={"color": "#d9822b"}
        )
    )
    figure.update_layout(
        height=330,
        yaxis_title="SQNR, dB (higher is better)",
        template="plotly_white",
        margin={"l": 60, "r": 20, "t": 20, "b": 90},
        xaxis={"tickangle": -50, "tickfont": {"size": 9}},
    )
    return figure
