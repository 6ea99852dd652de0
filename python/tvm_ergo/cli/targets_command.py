"""Lists the chips: memory, engines, operating points. A chip file of your own can be checked here too.

tvm-ergo targets ergo/1 --json mine.json       a chip file to start from: change it, then give it as --target mine.json
"""

from __future__ import annotations

import json

from rich.table import Table

from tvm_ergo.cli.common import add_result_arguments, check_result_paths, console, write_text

HELP = "list the chips, or check a chip file"


def add_arguments(parser) -> None:
    parser.add_argument("chip", nargs="*", help="names (ergo/1) or chip files (.json); default: every built-in chip")
    add_result_arguments(parser, pictures=False)


def run(arguments) -> None:
    from tvm_ergo.report.figures import size
    from tvm_ergo.target import chip as chips
    from tvm_ergo.target.tags import chip_of_target

    check_result_paths(arguments)
    found = [chip_of_target(name) for name in arguments.chip or chips.chip_names()]
    out = console(arguments)
    table = Table()
    for name in ("chip", "unified memory", "process", "operating points", "leakage", "can be switched off"):
        table.add_column(name, overflow="fold")
    for chip in found:
        points = ", ".join(f"{p.name}: {p.clock_hz / 1e6:.0f} MHz at {p.voltage_v} V" for p in chip.points)
        table.add_row(
            chip.name, size(chip.memory_bytes), f"{chip.process_nm} nm", points, f"{chip.leakage_mw} mW", _gating(chip)
        )
    out.print(table)
    described = [chip.to_json() for chip in found]
    write_text(
        arguments.json, json.dumps(described[0] if len(arguments.chip) == 1 else described, indent=1)
    )  # one: a chip file


def _gating(chip) -> str:
    """ "engines 0.544 mW, banks of 32 KiB 0.00236 mW each"."""
    if chip.gating is None:
        return "nothing"
    engines = chip.gating.logic_mw - chip.gating.always_on_mw
    return f"engines {engines:.3f} mW, banks of {chip.bank_bytes / 1024:g} KiB {chip.gating.bank_mw:.3g} mW each"
