"""A model's further entries: Programs for fewer tokens, and for writing token by token, in the same memory."""

from __future__ import annotations

from rich.table import Table

from tvm_ergo.printed import plain
from tvm_ergo.report.model import EntryRow, Report
from tvm_ergo.target.machine import Trace

ENTRY_HEADER = ("entry", "takes", "cycles", "us", "uJ", "uJ a token", "KiB at the peak")
TAKES = {"whole": "{} tokens", "prefill": "{} tokens, kept", "decode": "one token that sees {} positions"}


def entry_rows(model, point: str | None = None) -> list[EntryRow]:
    """One row for each entry of a `CompiledModel`, at an operating point of its chip."""
    rows = []
    for entry in model.entries:
        (program,) = entry.model.programs.values()
        trace = Trace(program, model.chip, model.chip.point(point))
        rows.append(
            EntryRow(
                name=entry.name,
                takes=TAKES[entry.kind.value].format(entry.length),
                cycles=trace.cycles,
                latency_us=trace.seconds * 1e6,
                energy_uj=trace.energy_pj / 1e6,
                tokens=1 if entry.kind.value == "decode" else entry.length,
                peak_bytes=program.meta["peak_bytes"],
            )
        )
    return rows


def entry_table(report: Report) -> Table:
    """The entries beside the whole sequence; they share its constants."""
    table = Table(title="further Programs in the same memory, with shared constants", title_justify="left")
    for place, name in enumerate(ENTRY_HEADER):
        table.add_column(name, justify="left" if place < 2 else "right")
    for row in entry_cells(report):
        table.add_row(*map(plain, row))
    return table


def entry_cells(report: Report) -> list[tuple[str, ...]]:
    """Texts under `ENTRY_HEADER`."""
    return [
        (
            row.name,
            row.takes,
            f"{row.cycles:,}",
            f"{row.latency_us:,.1f}",
            f"{row.energy_uj:.3g}",
            f"{row.energy_uj / row.tokens:.3g}",
            f"{row.peak_bytes / 1024:,.1f}",
        )
        for row in report.entries
    ]
