"""The report on a terminal (rich: tables that fit the window, colours only where the output is a terminal)."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tvm_ergo.printed import SafeConsole, plain
from tvm_ergo.report.brief import accuracy_lines
from tvm_ergo.report.entries import entry_table
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
from tvm_ergo.report.front import FRONT_HEADER, Front, Series, front_caption, front_cells
from tvm_ergo.report.model import ProgramReport, Report
from tvm_ergo.report.post import post_lines
from tvm_ergo.report.power import PART_HEADER, part_table, point_table, power_text
from tvm_ergo.report.power import peak_text as peak_power_text
from tvm_ergo.report.sleep import NOT_COUNTED, SLEEP_HEADER, battery_text, sleep_cells, sleep_text
from tvm_ergo.report.weights import WEIGHTS_HEADER, weights_table, weights_text
from tvm_ergo.report.zeros import zeros_text

WIDE_COLUMNS = 110  # what the whole layer table needs
BLOCKS = " ▁▂▃▄▅▆▇█"


def print_report(report: Report, console: Console | None = None, *, layers: bool = True) -> None:
    console = console or SafeConsole()
    console.print(_summary(report))
    if report.points:
        _print_power(report, console)
    for program in report.programs:
        if layers:
            console.print(_layer_table(program, wide=console.width >= WIDE_COLUMNS))
        console.print(_memory_line(program, width=min(console.width - 30, 100)))
        console.print(f"peak of each kind: {', '.join(f'{kind} {size}' for kind, size in kind_texts(program))}")
        _print_plan(program, console, subproblems=layers)
    if report.entries:
        console.print(entry_table(report))
    if report.host:
        console.print(_host_table(report))
    if report.errors:
        console.print(_error_table(report))


def _summary(report: Report) -> Table:
    table = Table(title=f"{report.model} on {report.chip}", show_header=False, title_justify="left")
    table.add_row("unified memory", "{}, {}".format(*memory_text(report)))
    table.add_row("  constants", size(report.constant_bytes))
    table.add_row("  activations", "{}, {}".format(*activation_text(report)))
    for row in report.inputs:
        table.add_row("  input", plain(input_text(row)))
    for row in report.ports:
        table.add_row(PORTS[row.direction], plain(port_text(row)))
    table.add_row(
        "time",
        f"{report.cycles:,} cycles, {latency(report)} at {report.clock_hz / 1e6:,.0f} MHz, "
        f"{rate(report.inferences_per_s)} inferences/s",
    )
    table.add_row(
        "energy",
        f"{energy(report.energy_uj)} per inference at {report.voltage_v} V (leakage {energy(report.leakage_uj)})",
    )
    for row in report.power:
        power = "not reachable at this operating point"
        if row.power_mw is not None:
            power = power_text(row, idle_mw(report, row))
        table.add_row(f"power at {row.frames_per_s:,g} fps", power)
    for row in report.sleep:
        if row.chosen:
            table.add_row(f"asleep at {row.frames_per_s:,g} fps", sleep_text(row))
    for row in report.battery:
        table.add_row("battery", plain(f"{battery_text(row)}; {NOT_COUNTED}"))
    if report.peak is not None:
        table.add_row("peak power", plain("{} {}".format(*peak_power_text(report.peak))))
    if report.zeros is not None:
        table.add_row("zero operands", plain(zeros_text(report)))
    shares = sorted(report.energy_by_engine_uj.items(), key=lambda item: -item[1])
    table.add_row("dynamic energy by engine", ", ".join(f"{name} {energy(value)}" for name, value in shares))
    table.add_row("work", f"{report.macs / 1e6:,.2f} M MAC on the chip; {len(report.host)} operators on the host CPU")
    if report.host:
        table.add_row("not counted", HOST_NOTE)
    for name, text in [*post_lines(report), *accuracy_lines(report)]:
        table.add_row(name, plain(text))
    return table


def _print_power(report: Report, console: Console) -> None:
    """Operating points, states between frames and, where it fits the window, energy by part."""
    tables = [("every operating point", *point_table(report))]
    if report.sleep:
        tables.append(("how pauses can be spent", SLEEP_HEADER, sleep_cells(report)))
    if console.width >= WIDE_COLUMNS:
        tables.append((f"energy by part at {report.point}, uJ", PART_HEADER, part_table(report)))
    for title, header, rows in tables:
        table = Table(title=title, title_justify="left")
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _layer_table(program: ProgramReport, wide: bool) -> Table:
    """The layers; a narrow window shows them without engine and bytes."""
    left_out = "" if wide else f" (more in {WIDE_COLUMNS} columns)"
    table = Table(title=f"{program.symbol}: {program.instructions} instructions{left_out}", title_justify="left")
    table.add_column("layer", overflow="fold", min_width=14)
    for name in ("op", "engine", "cycles", "k MAC", "utilisation" if wide else "used", DYNAMIC, "read B", "written B"):
        if wide or name not in ("engine", "read B", "written B"):
            table.add_column(name, justify="left" if name in ("op", "engine") else "right", no_wrap=True)

    def add(name, op, engine, cycles, macs, use, energy_uj, read, written):
        table.add_row(
            *(
                [name, op, engine, cycles, macs, use, energy_uj, read, written]
                if wide
                else [name, op, cycles, macs, use, energy_uj]
            )
        )

    for row in program.layers:
        use = f"{100 * row.utilisation:.1f} %" if row.macs else ""
        macs = f"{row.macs / 1e3:,.1f}" if row.macs else ""
        add(
            row.name,
            row.op,
            row.engine,
            f"{row.cycles:,}",
            macs,
            use,
            f"{row.energy_uj:,.3f}",
            f"{row.read_bytes:,}",
            f"{row.write_bytes:,}",
        )
    table.add_section()
    add(
        "all",
        "",
        "",
        f"{program.cycles:,}",
        f"{sum(r.macs for r in program.layers) / 1e3:,.1f}",
        "",
        f"{program.energy_uj:,.3f}",
        f"{sum(r.read_bytes for r in program.layers):,}",
        f"{sum(r.write_bytes for r in program.layers):,}",
    )
    return table


def _memory_line(program: ProgramReport, width: int) -> str:
    """Live activation bytes over time as one line of blocks; each column is the worst instant of its share of the
    time."""
    samples = [row.activation_bytes for row in program.memory_over_time] or [0]
    width = max(10, min(width, len(samples)))
    peak = max(max(samples), 1)
    columns = [
        max(samples[i * len(samples) // width : max((i + 1) * len(samples) // width, i * len(samples) // width + 1)])
        for i in range(width)
    ]
    line = "".join(BLOCKS[round(8 * value / peak)] for value in columns)
    made = peak_text(program)
    return (
        f"live activations over time, peak {size(program.peak_activation_bytes)}{': ' + made if made else ''}\n{line}"
    )


def _print_plan(program: ProgramReport, console: Console, subproblems: bool) -> None:
    """What was decided about the memory, and what waits compressed."""
    if program.plan is None:
        return
    for name, text in plan_texts(program.plan):
        console.print(f"{name}: {text}", markup=False)
    if (text := weights_text(program)) is not None:
        console.print(f"weights: {text}", markup=False)
    for title, header, rows in (
        ("subproblems", SUBPROBLEM_HEADER, subproblem_rows(program.plan) if subproblems else []),
        ("weights", WEIGHTS_HEADER, weights_table(program) if subproblems else []),
        ("compressed while they wait", COMPRESSED_HEADER, compressed_rows(program)),
    ):
        if rows:
            table = Table(title=title, title_justify="left")
            for i, name in enumerate(header):
                table.add_column(name, overflow="fold", justify="left" if i < 2 else "right")
            for row in rows:
                table.add_row(*row)
            console.print(table)


def front_table(front: Front, series: Series) -> Table:
    """The points of one Pareto front."""
    table = Table(
        title=f"{front.model} on {front.chip}, frame {series.name}",
        title_justify="left",
        caption=front_caption(front, series),
        caption_justify="left",
    )
    for name in FRONT_HEADER[:-2]:
        table.add_column(name, justify="right", no_wrap=True)
    for name in FRONT_HEADER[-2:]:
        table.add_column(name, overflow="fold")
    for point in series.points:
        table.add_row(*front_cells(point))
    return table


def _host_table(report: Report) -> Table:
    table = Table(title="on the host CPU", title_justify="left")
    for name in ("node", "op", "reason", "remedy"):
        table.add_column(name, overflow="fold")
    for row in host_rows(report):
        table.add_row(*row)
    return table


def _error_table(report: Report) -> Table:
    table = Table(title="quantization error by layer, against the float network", title_justify="left")
    for name in ("layer", "op", "SQNR dB", "RMSE", "max error", "one step"):
        table.add_column(name, justify="left" if name in ("layer", "op") else "right")
    worst = min((row.sqnr_db for row in report.errors if row.sqnr_db is not None), default=None)
    for row in report.errors:
        sqnr = "exact" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        style = "bold red" if row.sqnr_db is not None and row.sqnr_db == worst else None
        table.add_row(
            row.name, row.op, sqnr, f"{row.rmse:.4g}", f"{row.max_error:.4g}", f"{row.scale:.4g}", style=style
        )
    return table
