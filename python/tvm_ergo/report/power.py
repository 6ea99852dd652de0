"""Energy by part of the chip, power at frame rates, at every operating point and in the worst window; and how reports
write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ergo.report.model import PartRow, PeakRow, PointRow, PowerRow, Report
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.machine import power
from tvm_ergo.target.machine.peak import WINDOW_S, Peak, peak_power
from tvm_ergo.target.machine.trace import Trace

PJ_PER_UJ = 1e6
PART_HEADER = (
    "part",
    "arithmetic",
    "local buffers",
    "memory reads",
    "memory writes",
    "control",
    "leakage",
    "leakage gated",
)
PLACES = ("arithmetic", "local buffers", "memory reads", "memory writes", "control")


@dataclass(frozen=True)
class PowerParts:
    """What a report says of power at one operating point and at the others."""

    power: list[PowerRow]
    parts: list[PartRow]
    peak: PeakRow | None
    points: list[PointRow]
    gates: bool


def power_parts(
    traces: Sequence[Trace], chip: Chip, frames_per_s: Sequence[float], window_s: float = WINDOW_S
) -> PowerParts:
    """Of a network's programs, at the traces' operating point. Errors: MachineError for a window that is not
    positive."""
    if not traces:
        return PowerParts([], [], None, [], chip.gating is not None)
    work, at = power.together(trace.work for trace in traces), traces[0].point
    peak = peak_power(traces, window_s=window_s)
    others = [
        traces if point == at else [Trace(t.program, chip, point, lambda t=t: t.timeline) for t in traces]
        for point in chip.points
    ]
    points = [
        PointRow(
            point=point.name,
            clock_hz=point.clock_hz,
            voltage_v=point.voltage_v,
            latency_ms=power.latency_s(work, chip, point) * 1e3,
            energy_uj=(energy := power.energy_pj(work, chip, point)) / PJ_PER_UJ,
            gated_energy_uj=power.energy_pj(work, chip, point, gating=True) / PJ_PER_UJ,
            inferences_per_s_per_w=1e12 / energy if energy else 0.0,
            peak_mw=peak_power(there, window_s=window_s).power_mw,
            power=[_power(work, chip, point, rate) for rate in frames_per_s],
        )
        for point, there in zip(chip.points, others)
    ]
    row = PeakRow(
        window_us=window_s * 1e6, power_mw=peak.power_mw, begin_us=peak.begin_s * 1e6, layer=_layer_in(traces, peak)
    )
    return PowerParts(
        [_power(work, chip, at, rate) for rate in frames_per_s],
        _parts(traces, work, chip),
        row,
        points,
        chip.gating is not None,
    )


def _power(work: power.Work, chip: Chip, point, frames_per_s: float) -> PowerRow:
    if frames_per_s * power.latency_s(work, chip, point) > 1:
        return PowerRow(frames_per_s=frames_per_s, power_mw=None)
    plain, gated = (
        power.average_power_mw(work, chip, point, frames_per_s=frames_per_s, gating=gating) for gating in (False, True)
    )
    return PowerRow(frames_per_s=frames_per_s, power_mw=plain, gated_mw=gated if chip.gating is not None else None)


def _parts(traces: Sequence[Trace], work: power.Work, chip: Chip) -> list[PartRow]:
    spent: dict[str, Counter] = {}
    for trace in traces:
        for engine, places in trace.energy_split_pj.items():
            spent.setdefault(engine.name, Counter()).update(places)
    plain, gated = (power.leakage_pj(work, chip, traces[0].point, gating) for gating in (False, True))
    names = [*spent, *(name for name in plain if name not in spent)]
    return [
        PartRow(
            part=name,
            **{
                field: spent.get(name, {}).get(place, 0.0) / PJ_PER_UJ
                for field, place in zip(("arithmetic_uj", "local_uj", "read_uj", "write_uj", "control_uj"), PLACES)
            },
            leakage_uj=plain.get(name, 0.0) / PJ_PER_UJ,
            gated_leakage_uj=gated.get(name, 0.0) / PJ_PER_UJ,
        )
        for name in names
    ]


def _layer_in(traces: Sequence[Trace], peak: Peak) -> str:
    """The layer that takes most of the worst window; a window beyond the end goes on in the next inference."""
    hz, total = traces[0].point.clock_hz, sum(trace.cycles for trace in traces)
    begin, end = peak.begin_s * hz, (peak.begin_s + min(peak.window_s, total / hz)) * hz
    taken, offset = Counter(), 0
    for trace in traces:
        layers = {t.node: t.layer or t.name for t in trace.by_node}
        for entry in trace.entries:
            for turn in (0, total):
                start, stop = entry.start_cycle + offset + turn, entry.end_cycle + offset + turn
                taken[layers[entry.node]] += (
                    entry.energy_pj * max(0.0, min(stop, end) - max(start, begin)) / max(entry.cycles, 1)
                )
        offset += trace.cycles
    return max(taken, key=taken.get, default="")


# ---- how it is written ----------------------------------------------------------------------------------------------
def number(value_uj: float) -> str:
    """Four significant digits: "103.7", "0.002471"."""
    return f"{value_uj:,.4g}" if value_uj < 1000 else f"{value_uj:,.0f}"


def power_text(row: PowerRow, between_mw: float) -> str:
    """ "1.604 mW, of it 1.508 mW idle between frames; 0.412 mW with gating"."""
    gated = f"; {row.gated_mw:,.3f} mW with gating" if row.gated_mw is not None else ""
    return f"{row.power_mw:,.3f} mW, of it {between_mw:,.3f} mW idle between frames{gated}"


def peak_text(peak: PeakRow) -> tuple[str, str]:
    return (
        f"{peak.power_mw:,.1f} mW",
        f"in the worst {peak.window_us:,g} us, from {peak.begin_us / 1e3:,.3f} ms on, most of it {peak.layer}; no "
        f"pause between inferences",
    )


def part_table(report: Report) -> list[tuple[str, ...]]:
    """The cells under `PART_HEADER` in uJ, a row a part, then their sum."""
    fields = ("arithmetic_uj", "local_uj", "read_uj", "write_uj", "control_uj", "leakage_uj", "gated_leakage_uj")
    rows = [
        (row.part, *(number(value) if (value := getattr(row, field)) else "" for field in fields))
        for row in report.parts
    ]
    return [*rows, ("all", *(number(sum(getattr(row, field) for row in report.parts)) for field in fields))]


def point_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells: what the inference takes at every operating point."""
    rates = [row.frames_per_s for row in report.points[0].power] if report.points else []
    header = (
        "point",
        "MHz",
        "V",
        "ms",
        "uJ",
        "per s and W",
        "peak mW",
        *(text for rate in rates for text in (f"mW at {rate:g} fps", *(["gated"] if report.gates else []))),
        *(("uJ, zeros isolated", "per s and W") if report.zeros else ()),
    )
    return header, [
        (
            p.point,
            f"{p.clock_hz / 1e6:g}",
            f"{p.voltage_v:g}",
            number(p.latency_ms),
            number(p.energy_uj),
            number(p.inferences_per_s_per_w),
            number(p.peak_mw),
            *(
                text
                for row in p.power
                for text in (
                    "too slow" if row.power_mw is None else number(row.power_mw),
                    *(["" if row.gated_mw is None else number(row.gated_mw)] if report.gates else []),
                )
            ),
            *(
                (number(p.energy_uj - p.zeros_saved_uj), number(1e6 / (p.energy_uj - p.zeros_saved_uj)))
                if report.zeros
                else ()
            ),
        )
        for p in report.points
    ]
