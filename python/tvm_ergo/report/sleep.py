"""How the pauses between inferences are spent, what a day takes, and how long a cell lasts; and how reports write
it."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ergo.report.model import BatteryRow, Report, SleepRow
from tvm_ergo.report.units import byte_text, days_text, energy_text, power_text, time_text
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.machine import power, sleep
from tvm_ergo.target.machine.sleep import Cell
from tvm_ergo.target.machine.trace import Trace

SLEEP_HEADER = ("frames/s", "state", "average", "a day", "in the pause", "kept", "ready after", "")
NOT_COUNTED = "self-discharge, the converter's loss and the rest of the device are not counted"


def sleep_rows(traces: Sequence[Trace], chip: Chip, frames_per_s: Sequence[float]) -> list[SleepRow]:
    """Every state at every rate that the chip reaches; none where the chip file has no states."""
    if not traces or not chip.sleep:
        return []
    work, at = power.together(trace.work for trace in traces), traces[0].point
    rows = []
    for rate in frames_per_s:
        if rate * power.latency_s(work, chip, at) > 1:
            continue
        best = sleep.best_pause(work, chip, at, frames_per_s=rate)
        for pause in sleep.pauses(work, chip, at, frames_per_s=rate):
            rows.append(
                SleepRow(
                    frames_per_s=rate,
                    state=pause.state,
                    chosen=pause == best,
                    average_mw=pause.average_mw,
                    mj_per_day=pause.mj_per_day,
                    pause_mw=pause.pause_mw,
                    kept_bytes=pause.kept_bytes,
                    kept_banks=pause.kept_banks,
                    ready_us=pause.ready_us,
                    why_not=pause.why_not,
                )
            )
    return rows


def battery_rows(report: Report, cell: Cell) -> list[BatteryRow]:
    """How long a cell lasts at each rate, in the state of least power."""
    return [
        BatteryRow(
            cell=cell.name,
            frames_per_s=row.frames_per_s,
            state=row.state,
            joule=cell.joule,
            days=cell.days(row.mj_per_day),
        )
        for row in report.sleep
        if row.chosen
    ]


# ---- how it is written ----------------------------------------------------------------------------------------------
def sleep_text(row: SleepRow) -> str:
    """ "26.7 uW: between frames in retention, which keeps 27.7 KiB (1 bank); ready 50 us after an event"."""
    if row.state == sleep.STANDBY:
        return f"{power_text(row.average_mw)}: no state pays, parts are switched off between frames"
    kept = (
        f"keeps {byte_text(row.kept_bytes)} ({row.kept_banks} bank{'s' if row.kept_banks > 1 else ''})"
        if row.kept_bytes
        else "keeps nothing"
    )
    return (
        f"{power_text(row.average_mw)}: between frames in {row.state}, which {kept}; ready {time_text(row.ready_us)} "
        "after an event"
    )


def sleep_cells(report: Report) -> list[tuple[str, ...]]:
    """The cells under `SLEEP_HEADER`."""
    return [
        (
            f"{row.frames_per_s:,g}",
            row.state,
            "-" if row.average_mw is None else power_text(row.average_mw),
            "-" if row.mj_per_day is None else energy_text(row.mj_per_day * 1e3),
            power_text(row.pause_mw),
            byte_text(row.kept_bytes) if row.kept_bytes else "nothing",
            time_text(row.ready_us) if row.ready_us else "at once",
            "least" if row.chosen else row.why_not,
        )
        for row in report.sleep
    ]


def battery_text(row: BatteryRow) -> str:
    """ "CR2032: 2.9 years at 1 fps, in retention between frames"."""
    return f"{row.cell}: {days_text(row.days)} at {row.frames_per_s:,g} fps, in {row.state} between frames"
