"""What a compression reports: plain values, from which the table, the JSON and the page are made."""

from __future__ import annotations

from enum import Enum

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from rich.table import Table

from tvm_ergo.compressed.layers import LayerRow
from tvm_ergo.printed import html_text
from tvm_ergo.report.html import STYLE, plot, table
from tvm_ergo.report.model import Row

HEADER = ("layer", "op", "weights", "density", "values", "weight bits", "index bits", "bits", "bytes", "codec", "error")


class Attempt(Row):
    """One try on the way: the file's bytes and the figure."""

    size_bytes: int
    figure: float


class Given(Enum):
    """What kind of network was compressed."""

    FLOAT = "float"
    QUANTIZED = "quantized"


class Held(Row):
    """The figure on samples that nothing was chosen by. drop : how much worse it is, in its unit. within : whether by
    no more than was asked; None without a limit."""

    samples: int
    before: float
    after: float
    drop: float
    within: bool | None


class CompressionReport(Row):
    """file_bytes : everything. graph_bytes : of them, what is no constant. weight_bytes : of them, streams of weights
    with their tables. float_bytes : the constants as float32. int8_bytes : the quantized network's constants uncoded,
    None where the file is in float. figure : the name of what was measured, before (the network given: in float, or by
    the chip's integers where it was quantized) and after (by the chip's integers, as `eval` of the file)."""

    schema_version: int = 1
    model: str
    file_bytes: int
    graph_bytes: int
    weight_bytes: int
    float_bytes: int
    int8_bytes: int | None
    max_drop: float | None
    asked_bytes: int | None
    figure: str | None
    samples: int
    before: float | None
    after: float | None
    attempts: list[Attempt]
    layers: list[LayerRow]
    calibration_samples: int = 0  # that layers were made with; 0 where none was made anew
    held: Held | None = None
    given: Given = Given.FLOAT
    kept_in_float: str | None = None  # why it was not quantized, of a network that is left in float on purpose

    @property
    def unchanged(self) -> bool:
        """Whether every value is that of the network given."""
        return self.given is Given.QUANTIZED or self.int8_bytes is None and not self.calibration_samples

    @property
    def ratio(self) -> float:
        """Times smaller than the constants in float32."""
        return self.float_bytes / self.file_bytes


def summary(report: CompressionReport) -> list[str]:
    """The headline in a few lines."""
    lines = [_sizes(report), *filter(None, (_figure(report), _held(report), _beyond(report)))]
    if report.kept_in_float:
        lines.append(report.kept_in_float)
    asked, quantized = (
        report.asked_bytes is not None or report.max_drop is not None,
        report.given is Given.QUANTIZED and not report.kept_in_float,
    )
    if quantized:
        lines.append(
            "the network given is quantized already: it is only coded, its values stay"
            + (
                ", whatever is allowed to be lost; compress the float network (its ONNX or TFLite file in float, with "
                "--calibration) for a file that is smaller by far"
                if asked
                else ""
            )
        )
    elif report.calibration_samples:
        lines.append(f"layers were made with {report.calibration_samples} calibration inputs")
    elif asked and report.int8_bytes is not None:
        lines.append("int8 weights meet what was asked; they are coded, and nothing more was taken from them")
    elif not asked:
        lines.append(
            "neither --size nor --max-drop was given: "
            + (
                "values stay in float" + ("" if report.kept_in_float else " (--calibration makes them int8)")
                if report.int8_bytes is None
                else "weights are int8, and nothing more was taken from them"
            )
            + "; zeros and shared values are coded"
        )
    return lines


def _sizes(report: CompressionReport) -> str:
    compared = [
        f"{_than(report.file_bytes, report.float_bytes)} {'float' if report.given is Given.FLOAT else 'in float32'} "
        f"({report.float_bytes:,} bytes)"
    ]
    if report.int8_bytes is not None:
        compared.append(f"{_than(report.file_bytes, report.int8_bytes)} int8 ({report.int8_bytes:,})")
    return (
        f"{report.file_bytes:,} bytes, {', '.join(compared)}; weights {report.weight_bytes:,}, structure "
        f"{report.graph_bytes:,}, biases, scales and the rest "
        f"{report.file_bytes - report.weight_bytes - report.graph_bytes:,}"
    )


def _than(size: int, other: int) -> str:
    if not other:  # a network without constants
        return "as against"
    if other >= 1.1 * size:
        return f"{other / size:.1f}x smaller than"
    return f"{100 * abs(1 - size / other):.0f} % {'smaller' if size <= other else 'larger'} than"


def _figure(report: CompressionReport) -> str | None:
    if report.before is None or report.after is None:
        return None
    if report.unchanged:
        return f"{report.figure}: {report.after:.2f}, as of the network given, on {report.samples} samples"
    chosen = report.attempts and ", by which it was chosen" + (
        "" if report.held else "; --holdout 0.3 would keep some apart"
    )
    return (
        f"{report.figure}: {report.after:.2f} after, {report.before:.2f} of the float network "
        f"({report.after - report.before:+.2f}), on {report.samples} samples" + (chosen or "")
    )


def _held(report: CompressionReport) -> str | None:
    held = report.held
    if held is None:
        return None
    if report.unchanged:
        return f"on {held.samples} samples kept apart: {held.after:.2f}"
    return (
        f"on {held.samples} samples kept apart: {held.after:.2f}, float {held.before:.2f} "
        f"({held.after - held.before:+.2f})"
    )


def _beyond(report: CompressionReport) -> str | None:
    """The drop that was asked for is not met where nothing was chosen by."""
    held = report.held
    if held is None or held.within is not False:
        return None
    return (
        f"beyond the drop asked: on the samples kept apart {report.figure} is worse by {held.drop:.2f}, and at most "
        f"{report.max_drop:g} was asked (the {report.samples} "
        "samples it was chosen by meet that); a smaller --max-drop leaves room for this, more samples make both "
        "figures surer"
    )


def cells(row: LayerRow) -> tuple[str, ...]:
    """A layer's cells under `HEADER`."""
    return (
        row.name,
        row.op,
        f"{row.weights:,}",
        f"{100 * row.density:.1f} %",
        str(row.values),
        f"{row.weight_bits:.1f} > {row.weight_bits_coded:.1f}",
        f"{row.index_bits:.1f} > {row.index_bits_coded:.1f}",
        f"{row.bits:.2f}",
        f"{row.stored_bytes:,}",
        row.codec,
        "" if row.error is None else f"{100 * row.error:.1f} %",
    )


def layer_table(report: CompressionReport) -> Table:
    found = Table(
        title=f"layers of {report.model}",
        title_justify="left",
        caption="weight bits, index bits: of a nonzero weight and of its distance to the last one, at fixed width > "
        "Huffman coded; bits: of the "
        "stream in the file, per weight; error: share of the outputs' error that the allocation expects of it",
        caption_justify="left",
    )
    for i, name in enumerate(HEADER):
        found.add_column(name, justify="left" if i < 2 or name == "codec" else "right", overflow="fold")
    for row in report.layers:
        found.add_row(*cells(row))
    return found


def page(report: CompressionReport) -> str:
    """The whole report as one self-contained HTML page."""
    figure = go.Figure(
        [
            go.Bar(
                name="int8",
                x=[r.name for r in report.layers],
                y=[r.weights for r in report.layers],
                marker_color="#cbd2d9",
            ),
            go.Bar(
                name="stored",
                x=[r.name for r in report.layers],
                y=[r.stored_bytes for r in report.layers],
                marker_color="#2f7ed8",
            ),
        ]
    )
    figure.update_layout(
        template="plotly_white",
        barmode="overlay",
        height=420,
        yaxis={"type": "log", "title": "bytes of the weights"},
        margin={"l": 65, "r": 20, "t": 20, "b": 120},
        legend={"orientation": "h", "y": 1.08, "x": 0},
    )
    name = html_text(report.model)
    body = [f"<h1>{name}, compressed</h1>", *(f"<p>{html_text(line)}.</p>" for line in summary(report)), plot(figure)]
    if len(report.attempts) > 1:
        tried = sorted(report.attempts, key=lambda a: a.size_bytes)
        curve = go.Figure(
            go.Scatter(
                x=[a.size_bytes for a in tried],
                y=[a.figure for a in tried],
                mode="lines+markers",
                line={"color": "#d9822b"},
            )
        )
        curve.update_layout(
            template="plotly_white",
            height=380,
            xaxis={"title": "bytes of the file", "type": "log"},
            yaxis={"title": report.figure},
            margin={"l": 65, "r": 20, "t": 20, "b": 50},
        )
        body += ["<h2>What was tried</h2>", plot(curve)]
    body += ["<h2>Layers</h2>", table(HEADER, [cells(row) for row in report.layers], text_columns=2)]
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{name}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>{''.join(body)}</body></html>"
    )
