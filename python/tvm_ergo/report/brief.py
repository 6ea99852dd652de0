"""What `compile` says when it is done: one screen. Does it fit, what does it cost, what fell back, what to do; the rest
is in the report."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tvm_ergo.printed import plain, printable
from tvm_ergo.report.figures import KIB, energy, host_rows, latency, rate
from tvm_ergo.report.model import LayerRow, Report
from tvm_ergo.report.post import post_lines
from tvm_ergo.report.sleep import battery_text, sleep_text

LISTED = 3
"""Host operators and layers that are named; the rest are counted."""
COSTLY = 0.2
"""Share of all cycles from which a single layer is named."""


def print_brief(report: Report, console: Console, output: str | None = None) -> None:
    """output : the compiled model's file, if one was written; commands that tell more are given with it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in brief_lines(report, output):
        table.add_row(name, plain(text))
    console.print(
        Text.assemble((printable(report.model), "bold"), f" on {printable(report.chip)}, an assumed chip, emulated")
    )
    console.print(table)


def brief_lines(report: Report, output: str | None = None) -> list[tuple[str, str]]:
    """``(heading, text)``; a heading may be empty, for a line that goes on."""
    return [
        *_memory(report),
        *_cost(report),
        *post_lines(report),
        *accuracy_lines(report),
        *_fallbacks(report),
        *_advice(report, output),
    ]


def _memory(report: Report) -> list[tuple[str, str]]:
    fits = "fits in" if report.memory_bytes <= report.chip_memory_bytes else "DOES NOT FIT in"
    frame = "rows of the streamed frame" if report.streamed else "the frame"
    return [
        (
            "memory",
            f"{_kib(report.memory_bytes)}, {fits} {_kib(report.chip_memory_bytes)}: constants "
            f"{_kib(report.constant_bytes)}, "
            f"activations {_kib(report.placed_activation_bytes)} with {frame}",
        )
    ]


def _cost(report: Report) -> list[tuple[str, str]]:
    found = [
        (
            "time",
            f"{report.cycles:,} cycles, {latency(report)} at {report.clock_hz / 1e6:,.0f} MHz, up to "
            f"{rate(report.inferences_per_s)} inferences/s",
        ),
        ("energy", f"{energy(report.energy_uj)} an inference"),
    ]
    if report.power:
        row = report.power[-1]
        text = (
            "not reachable at this clock"
            if row.power_mw is None
            else f"{row.power_mw:,.3g} mW"
            + ("" if row.gated_mw is None else f", {row.gated_mw:,.3g} mW with idle parts switched off")
        )
        found.append(("power", f"at {row.frames_per_s:,g} fps {text}"))
        asleep = next((s for s in report.sleep if s.chosen and s.frames_per_s == row.frames_per_s), None)
        if asleep is not None:
            found.append(("asleep", sleep_text(asleep)))
    return found + [("battery" if i == 0 else "", battery_text(row)) for i, row in enumerate(report.battery)]


def accuracy_lines(report: Report) -> list[tuple[str, str]]:
    """What quantization lost, and where it is much, what helps."""
    row = report.accuracy
    if row is None:
        return []
    kept = [
        (
            "",
            f"{len(row.in_float)} tensors stay in float, 8 bits cannot carry them: {', '.join(row.in_float[:LISTED])}"
            + (" ..." if len(row.in_float) > LISTED else ""),
        )
    ]
    found = [("WARNING" if row.warned else "accuracy", row.text)] + (kept if row.in_float else [])
    return found + ([("", f"what helps: {'; or '.join(row.remedies)}")] if row.warned else [])


def _fallbacks(report: Report) -> list[tuple[str, str]]:
    if not report.host:
        return [("host CPU", "nothing: the whole network runs on the chip")]
    rows = host_rows(report)
    found = [("host CPU", f"{len(report.host)} operators, whose time and energy are not counted")]
    found += [
        ("", f"{op} ({nodes}): {reason}" + (f"; {remedy}" if remedy else ""))
        for nodes, op, reason, remedy in rows[:LISTED]
    ]
    return found + ([("", f"and {len(rows) - LISTED} more kinds, in the report")] if len(rows) > LISTED else [])


def _advice(report: Report, output: str | None) -> list[tuple[str, str]]:
    found = []
    costly = _costly_layers(report)
    if costly:
        found.append(
            ("time goes to", ", ".join(f"{row.name} {100 * row.cycles / report.cycles:.0f} %" for row in costly))
        )
    asked = f"tvm-ergo report {output}" if output else "-o NET.ergo, then tvm-ergo report NET.ergo"
    found.append(("more", f"{asked} (layers, power, memory map), or --verbose"))
    return found


def _costly_layers(report: Report) -> list[LayerRow]:
    rows = [
        row for program in report.programs for row in program.layers if row.cycles >= COSTLY * max(report.cycles, 1)
    ]
    return sorted(rows, key=lambda row: -row.cycles)[:LISTED]


def _kib(count: int) -> str:
    return f"{count:,} bytes" if count < KIB else f"{count / KIB:,.1f} KiB".replace(".0 KiB", " KiB")
