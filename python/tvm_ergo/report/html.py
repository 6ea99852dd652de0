"""The report as one self-contained HTML page (plotly, its script embedded: the page opens without a network)."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tvm_ergo.printed import html_text
from tvm_ergo.report.entries import ENTRY_HEADER, entry_cells
from tvm_ergo.report.figures import (
    COMPRESSED_HEADER,
    DYNAMIC,
    HOST_NOTE,
    PORTS,
    SUBPROBLEM_HEADER,
    activation_text,
    compressed_rows,
    energy,
    host_rows,
    idle_mw,
    input_text,
    kind_texts,
    latency,
    memory_text,
    peak_text,
    plan_texts,
    port_text,
    rate,
    size,
    subproblem_rows,
)
from tvm_ergo.report.model import ProgramReport, Report
from tvm_ergo.report.pictures import energy_bars, error_bars, live_bytes, memory_map, tensor_lives
from tvm_ergo.report.post import post_lines
from tvm_ergo.report.power import PART_HEADER, part_table, point_table
from tvm_ergo.report.power import peak_text as peak_power_text
from tvm_ergo.report.sleep import NOT_COUNTED, SLEEP_HEADER, battery_text, sleep_cells
from tvm_ergo.report.weights import WEIGHTS_HEADER, weights_table, weights_text
from tvm_ergo.report.zeros import zeros_text

STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1150px;color:#1f2933}
table{border-collapse:collapse;font-size:13px;width:100%}td,th{padding:3px 8px;border-bottom:1px solid #e4e7eb;text-align:right}
td:first-child,th:first-child,.t{text-align:left!important;overflow-wrap:anywhere}h1{font-size:24px}h2{font-size:18px;margin-top:1.6em}
.big{display:flex;gap:1.3em;flex-wrap:wrap}.big div{font-size:12px;color:#52606d}.big b{display:block;font-size:20px;color:#1f2933}.kinds span{margin-right:1.2em;color:#52606d}.kinds b{color:#1f2933}p{margin:.5em 0}"""


def html_page(report: Report) -> str:
    """The whole page as text."""
    body = [f"<h1>{html_text(report.model)} on {html_text(report.chip)}</h1>", _headline(report)]
    if report.host:
        body.append(f"<p>{len(report.host)} operators run on the host CPU; {HOST_NOTE}.</p>")
    body += [f"<p>Input: {html_text(input_text(row))}.</p>" for row in report.inputs]
    body += [f"<p>{PORTS[row.direction].capitalize()} {html_text(port_text(row))}.</p>" for row in report.ports]
    if report.post:
        body += [f"<p>Post-processing: {html_text('; '.join(text for _, text in post_lines(report)))}.</p>"]
    if report.points:
        body += [f"<p>Zeros: {html_text(zeros_text(report))}.</p>"] if report.zeros else []
        body += [
            "<h2>Every operating point</h2>",
            table(*point_table(report)),
            *(
                [f"<h2>How pauses can be spent</h2>{table(SLEEP_HEADER, sleep_cells(report), 2)}"]
                if report.sleep
                else []
            ),
            *(f"<p>Battery: {html_text(battery_text(row))}; {NOT_COUNTED}.</p>" for row in report.battery),
            f"<h2>Energy by part at {html_text(report.point)}, uJ</h2>",
            table(PART_HEADER, part_table(report)),
        ]
    for program in report.programs:
        label = html_text(program.symbol)
        body += [
            f"<h2>Memory map over time: {label}</h2>",
            _kinds(program),
            plot(memory_map(program)),
            f"<p>At the peak: {html_text(peak_text(program, most=8))}.</p>",
            "<h2>Live bytes over time</h2>",
            plot(live_bytes(program)),
            *_decisions(program),
            "<h2>Lives of the tensors</h2>",
            plot(tensor_lives(program)),
            *_compressed(program),
            *_weights(program),
            "<h2>Energy by layer</h2>",
            plot(energy_bars(program)),
            "<h2>Layers</h2>",
            _layers(program),
        ]
    body.append(
        "<h2>Energy by event</h2>"
        + table(
            ("event", "uJ"),
            [
                (name, f"{value:,.3f}")
                for name, value in sorted(report.energy_by_event_uj.items(), key=lambda item: -item[1])
            ],
        )
    )
    if report.entries:
        body += ["<h2>Further Programs in the same memory</h2>", table(ENTRY_HEADER, entry_cells(report), 2)]
    if report.host:
        body.append(
            "<h2>On the host CPU</h2>"
            + table(("node", "op", "reason", "remedy"), host_rows(report, most=20), text_columns=4)
        )
    if report.errors:
        body += ["<h2>Where quantization error enters</h2>", plot(error_bars(report))]
    return (
        f"<!doctype html><html><head><meta "
        f"charset='utf-8'><title>{html_text(report.model)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>{''.join(body)}</body></html>"
    )


def _headline(report: Report) -> str:
    cells = [
        ("unified memory", *memory_text(report)),
        ("constants", size(report.constant_bytes), "weights, biases, tables"),
        ("activations", *activation_text(report)),
        (
            "latency",
            latency(report),
            f"{rate(report.inferences_per_s)} inferences/s at {report.clock_hz / 1e6:,.0f} MHz",
        ),
        (
            "energy per inference",
            energy(report.energy_uj),
            f"at {report.voltage_v} V, {energy(report.leakage_uj)} leakage",
        ),
    ]
    cells += [
        (f"power at {row.frames_per_s:,g} fps", "too slow", "at this operating point")
        if row.power_mw is None
        else (
            f"power at {row.frames_per_s:,g} fps",
            f"{row.power_mw:,.3f} mW",
            f"{idle_mw(report, row):,.3f} mW of it idle"
            + (f"; {row.gated_mw:,.3f} mW with gating" if row.gated_mw is not None else ""),
        )
        for row in report.power
    ]
    if report.peak is not None:
        cells.append(("peak power", *(html_text(text) for text in peak_power_text(report.peak))))
    return (
        "<div class='big'>"
        + "".join(f"<div>{name}<b>{value}</b>{note}</div>" for name, value, note in cells)
        + "</div>"
    )


def _kinds(program: ProgramReport) -> str:
    """The peak of each kind of content."""
    cells = [f"<span>{html_text(name)} <b>{size}</b></span>" for name, size in kind_texts(program)]
    return f"<p class='kinds'>Peak of each: {' '.join(cells)}</p>" if cells else ""


def _decisions(program: ProgramReport) -> list[str]:
    """What was decided about the memory, and why."""
    if program.plan is None:
        return []
    lines = "".join(f"<p><b>{html_text(name)}</b>: {html_text(text)}.</p>" for name, text in plan_texts(program.plan))
    rows = subproblem_rows(program.plan)
    return ["<h2>What was decided, and why</h2>", lines, table(SUBPROBLEM_HEADER, rows, text_columns=2) if rows else ""]


def _compressed(program: ProgramReport) -> list[str]:
    rows = compressed_rows(program)
    return ["<h2>Compressed while they wait</h2>", table(COMPRESSED_HEADER, rows, text_columns=2)] if rows else []


def _weights(program: ProgramReport) -> list[str]:
    rows = weights_table(program)
    return (
        [f"<h2>Weights</h2><p>{html_text(weights_text(program))}.</p>", table(WEIGHTS_HEADER, rows, text_columns=3)]
        if rows
        else []
    )


def _layers(program: ProgramReport) -> str:
    return table(
        ("layer", "op", "engine", "cycles", "MACs", "utilisation", DYNAMIC, "read bytes", "written bytes"),
        [
            (
                r.name,
                r.op,
                r.engine,
                f"{r.cycles:,}",
                f"{r.macs:,}",
                f"{100 * r.utilisation:.1f} %" if r.macs else "",
                f"{r.energy_uj:,.3f}",
                f"{r.read_bytes:,}",
                f"{r.write_bytes:,}",
            )
            for r in program.layers
        ],
        text_columns=3,
    )


def table(header, rows, text_columns: int = 1) -> str:
    head = "".join(
        f"<th{' class=t' if i < text_columns else ''}>{html_text(name)}</th>" for i, name in enumerate(header)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=t' if i < text_columns else ''}>{html_text(str(cell))}</td>" for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def plot(figure: go.Figure) -> str:
    return figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "displayModeBar": "hover"}
    )
