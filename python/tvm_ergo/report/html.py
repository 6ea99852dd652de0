"""The report as one self-contained HTML page (plotly, its script embedded: the page opens without a network)."""

from __future__ import annotations

import html

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tvm_ergo.report.figures import HOST_NOTE, energy, host_rows, idle_mw, input_text, latency, peak_text, rate
from tvm_ergo.report.model import ProgramReport, Report

COLOURS = {"constant": "#9aa5b1", "activation": "#2f7ed8", "input": "#2ca02c", "output": "#d9822b", "scratch": "#8e44ad"}
STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1150px;color:#1f2933}
table{border-collapse:collapse;font-size:13px;width:100%}td,th{padding:3px 8px;border-bottom:1px solid #e4e7eb;text-align:right}
td:first-child,th:first-child,.t{text-align:left!important}h1{font-size:24px}h2{font-size:18px;margin-top:1.6em}
.big{display:flex;gap:1.3em;flex-wrap:wrap}.big div{font-size:12px;color:#52606d}.big b{display:block;font-size:20px;color:#1f2933}"""


def html_page(report: Report) -> str:
    """The whole page as text."""
    body = [f"<h1>{html.escape(report.model)} on {html.escape(report.chip)}</h1>", _headline(report)]
    if report.host:
        body.append(f"<p>{len(report.host)} operators run on the host CPU; {HOST_NOTE}.</p>")
    body += [f"<p>Input: {html.escape(input_text(row))}.</p>" for row in report.inputs]
    for program in report.programs:
        label = html.escape(program.symbol)
        body += [f"<h2>Memory map over time: {label}</h2>", _plot(memory_map(program)), f"<p>At the peak: {html.escape(peak_text(program, most=8))}.</p>",
                 "<h2>Live bytes over time</h2>", _plot(live_bytes(program)),
                 "<h2>Energy by layer</h2>", _plot(energy_bars(program)),
                 "<h2>Layers</h2>", _layers(program)]
    body.append("<h2>Energy by event</h2>" + table(("event", "uJ"), [
        (name, f"{value:,.3f}") for name, value in sorted(report.energy_by_event_uj.items(), key=lambda item: -item[1])]))
    if report.host:
        body.append("<h2>On the host CPU</h2>" + table(
            ("node", "op", "reason", "remedy"), host_rows(report, most=20), text_columns=4))
    if report.errors:
        body += ["<h2>Where quantization error enters</h2>", _plot(error_bars(report))]
    return (f"<!doctype html><html><head><meta charset='utf-8'><title>{html.escape(report.model)}</title><style>{STYLE}</style>"
            f"<script>{get_plotlyjs()}</script></head><body>{''.join(body)}</body></html>")


def _headline(report: Report) -> str:
    fits = "fits in" if report.memory_bytes <= report.chip_memory_bytes else "DOES NOT FIT in"
    cells = [("unified memory", f"{report.memory_bytes / 1024:,.1f} KiB", f"{fits} {report.chip_memory_bytes / 1024:,.0f} KiB"),
             ("constants", f"{report.constant_bytes / 1024:,.1f} KiB", "weights, biases, tables"),
             ("peak activations", f"{report.peak_activation_bytes / 1024:,.1f} KiB", "rows of the streamed frame included" if report.streamed else "input frame included"),
             ("latency", latency(report), f"{rate(report.inferences_per_s)} inferences/s at {report.clock_hz / 1e6:,.0f} MHz"),
             ("energy per inference", energy(report.energy_uj), f"at {report.voltage_v} V, {energy(report.leakage_uj)} leakage")]
    cells += [(f"power at {row.frames_per_s:,g} fps", "too slow", "at this operating point") if row.power_mw is None else
              (f"power at {row.frames_per_s:,g} fps", f"{row.power_mw:,.3f} mW", f"{idle_mw(report, row):,.3f} mW of it idle")
              for row in report.power]
    return "<div class='big'>" + "".join(f"<div>{name}<b>{value}</b>{note}</div>" for name, value, note in cells) + "</div>"


def memory_map(program: ProgramReport) -> go.Figure:
    """Each buffer a box: its addresses upwards, its life to the right."""
    figure = go.Figure()
    for kind, colour in COLOURS.items():
        rows = [b for b in program.buffers if b.kind == kind]
        if rows:
            figure.add_trace(go.Bar(
                name=kind, marker={"color": colour, "line": {"color": "white", "width": 0.6}},
                x=[(b.start_us + b.end_us) / 2 for b in rows], width=[max(b.end_us - b.start_us, 1e-6) for b in rows],
                base=[b.address_bytes / 1024 for b in rows], y=[b.size_bytes / 1024 for b in rows],
                customdata=[[b.name, b.size_bytes, b.address_bytes, b.first, b.last] for b in rows],
                hovertemplate="%{customdata[0]}<br>%{customdata[1]:,} bytes at %{customdata[2]:,}"
                              "<br>instructions %{customdata[3]} to %{customdata[4]}<extra></extra>"))
    figure.update_layout(barmode="overlay", height=440, xaxis_title="time, us", yaxis_title="address, KiB", template="plotly_white",
                         margin={"l": 60, "r": 20, "t": 20, "b": 45})
    return figure


def live_bytes(program: ProgramReport) -> go.Figure:
    times = [row.time_us for row in program.memory_over_time]
    figure = go.Figure()
    for name, colour, values in (
            ("constants", COLOURS["constant"], [r.constant_bytes / 1024 for r in program.memory_over_time]),
            ("activations", COLOURS["activation"], [r.activation_bytes / 1024 for r in program.memory_over_time])):
        figure.add_trace(go.Scatter(name=name, x=times, y=values, stackgroup="live", mode="lines",
                                    line={"shape": "hv", "width": 1, "color": colour}))
    figure.update_layout(height=300, xaxis_title="time, us", yaxis_title="live, KiB", template="plotly_white",
                         margin={"l": 60, "r": 20, "t": 20, "b": 45})
    return figure


def energy_bars(program: ProgramReport) -> go.Figure:
    figure = go.Figure(go.Bar(x=[f"{i}: {r.name}" for i, r in enumerate(program.layers)], y=[r.energy_uj for r in program.layers],
                              marker={"color": "#2f7ed8"}, customdata=[[r.op, r.cycles] for r in program.layers],
                              hovertemplate="%{x}<br>%{customdata[0]}<br>%{y:.3f} uJ, %{customdata[1]:,} cycles<extra></extra>"))
    figure.update_layout(height=330, yaxis_title="uJ", template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 90},
                         xaxis={"tickangle": -50, "tickfont": {"size": 9}})
    return figure


def error_bars(report: Report) -> go.Figure:
    rows = [r for r in report.errors if r.sqnr_db is not None]
    figure = go.Figure(go.Bar(x=[f"{i}: {r.name}" for i, r in enumerate(rows)], y=[r.sqnr_db for r in rows],
                              marker={"color": "#d9822b"}))
    figure.update_layout(height=330, yaxis_title="SQNR, dB (higher is better)", template="plotly_white",
                         margin={"l": 60, "r": 20, "t": 20, "b": 90}, xaxis={"tickangle": -50, "tickfont": {"size": 9}})
    return figure


def _layers(program: ProgramReport) -> str:
    return table(("layer", "op", "engine", "cycles", "MACs", "utilisation", "uJ", "read bytes", "written bytes"), [
        (r.name, r.op, r.engine, f"{r.cycles:,}", f"{r.macs:,}", f"{100 * r.utilisation:.1f} %" if r.macs else "",
         f"{r.energy_uj:,.3f}", f"{r.read_bytes:,}", f"{r.write_bytes:,}") for r in program.layers], text_columns=3)


def table(header, rows, text_columns: int = 1) -> str:
    head = "".join(f"<th{' class=t' if i < text_columns else ''}>{html.escape(name)}</th>" for i, name in enumerate(header))
    body = "".join("<tr>" + "".join(f"<td{' class=t' if i < text_columns else ''}>{html.escape(str(cell))}</td>"
                                    for i, cell in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _plot(figure: go.Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False)
