"""Average power of a network at a frame rate and an operating point, from a few figures of one inference: nothing is
traced again.

`Work` is what an inference does whatever the clock and the voltage. Leakage is split by part as the chip file has it
(`target.chip.Gating`). Without gating the whole chip leaks while it runs and takes ``idle_mw`` between inferences. With
gating
- an engine is on from its first instruction to its last, and off in between where what it would leak costs more than
  switching it on again;
- banks of the memory without content are off; between frames only those with constants keep their content
  (``retention``), the others are off;
- between frames, all engines are off; what stays is the always-on part, the kept banks, and what ``idle_mw`` has beyond
  leakage; a frame then pays for switching on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tvm_ergo.target.chip import Chip, Gating, Point
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Engine, Halt
from tvm_ergo.target.machine.timeline import Timeline
from tvm_ergo.target.program import BufferKind, Program
from tvm_ergo.target.sums import added

PJ_PER_S_IN_MW = 1e-9
MEMORY, ALWAYS_ON, UNDIVIDED = "memory", "always on", "chip"
GATED_ENGINES = (Engine.TENSOR, Engine.VECTOR, Engine.DMA, Engine.CPU, Engine.SPARSE)


@dataclass(frozen=True, eq=False)
class Work:
    """One inference. dynamic_pj : at the chip's reference voltage. busy : per engine int64[n, 2], when it works, half
    open, in order; where it says nothing (None), every engine counts as on all the time. banks : of the memory with
    content while it runs; kept_banks : those with constants, or states that outlive a run. None: all of the chip's.
    constant_bytes : that a memory which was off has to load again; None: not known. state_bytes : that live from one
    run to the next."""

    cycles: int
    dynamic_pj: float
    busy: tuple[Mapping[Engine, np.ndarray], ...] | None = field(default=None, repr=False)
    banks: int | None = None
    kept_banks: int | None = None
    constant_bytes: int | None = None
    state_bytes: int = 0


def work_of(program: Program, chip: Chip, timeline: Timeline) -> Work:
    """What a program does, of which the times are known."""
    busy: dict[Engine, list[tuple[int, int]]] = {}
    for instruction, start, end in zip(program.instructions, timeline.starts_cycles, timeline.ends_cycles):
        if not isinstance(instruction, Halt):
            busy.setdefault(instruction.engine, []).append((start, end))
    dynamic = added(chip.energy[event].pj * count for cost in timeline.costs for event, count in cost.events.items())
    kept = max((addr + len(content) for addr, content in program.data), default=0)
    used = max(
        [
            kept,
            *(
                operand.extent[1]
                for instruction in program.instructions
                for operand in (*instruction.reads(), *instruction.writes())
            ),
        ]
    )
    return Work(
        timeline.cycles,
        dynamic,
        ({engine: np.array(spans, np.int64) for engine, spans in busy.items()},),
        -(-used // chip.bank_bytes),
        _banks_kept(program, chip, kept),
        sum(len(content) for _, content in program.data),
        sum(b.size_bytes for b in program.buffers if b.kind == BufferKind.STATE),
    )


def _banks_kept(program: Program, chip: Chip, constants_end: int) -> int:
    """Banks that hold constants, which lie lowest, or a part of a state."""
    kept = set(range(-(-constants_end // chip.bank_bytes)))
    for buffer in program.buffers:
        if buffer.kind == BufferKind.STATE and buffer.size_bytes:
            kept.update(range(buffer.addr // chip.bank_bytes, -(-(buffer.addr + buffer.size_bytes) // chip.bank_bytes)))
    return len(kept)


def work_at(
    cycles: int,
    dynamic_pj: float,
    chip: Chip,
    point: Point | str | None = None,
    memory_bytes: int | None = None,
    constant_bytes: int | None = None,
) -> Work:
    """Of figures alone, the dynamic energy as it is at a point; nothing is known of when each engine works, so gating
    switches none off while it runs."""
    banks = [None if size is None else -(-size // chip.bank_bytes) for size in (memory_bytes, constant_bytes)]
    dynamic = dynamic_pj * (chip.reference_v / chip.point(point).voltage_v) ** 2
    return Work(cycles, dynamic, None, *banks, constant_bytes)


def together(works: Iterable[Work]) -> Work:
    """The programs of one network, one after another in one memory. Errors: ValueError for none."""
    works = list(works)
    known = all(work.busy is not None for work in works)
    return Work(
        sum(w.cycles for w in works),
        added(w.dynamic_pj for w in works),
        tuple(part for w in works for part in w.busy) if known else None,
        *(
            None if any(getattr(w, name) is None for w in works) else max(getattr(w, name) for w in works)
            for name in ("banks", "kept_banks")
        ),
        None if any(w.constant_bytes is None for w in works) else sum(w.constant_bytes for w in works),
        sum(w.state_bytes for w in works),
    )


# ---- one inference --------------------------------------------------------------------------------------------------
def dynamic_pj(work: Work, chip: Chip, point: Point | str | None = None) -> float:
    """At the point's voltage."""
    return work.dynamic_pj * (chip.point(point).voltage_v / chip.reference_v) ** 2


def leakage_pj(work: Work, chip: Chip, point: Point | str | None = None, gating: bool = False) -> dict[str, float]:
    """Static energy of one inference by part: engines by name, "memory", "always on" (all in "chip" where the chip file
    has no parts). gating : with what is switched off, and what switching on costs."""
    at, parts = chip.point(point), chip.gating
    if parts is None:
        return {UNDIVIDED: chip.leakage_pj(work.cycles, at)}
    pj = _pj_per_mw_cycle(chip, at)
    bank_wake = parts.bank_wake_pj * (at.voltage_v / chip.reference_v) ** 2
    leaked = {
        engine.name: _engine_pj(work, chip, at, engine)
        if gating
        else parts.part_mw(engine.name.lower()) * work.cycles * pj
        for engine in GATED_ENGINES
    }
    used, kept = banks_of(work, chip)
    memory = (
        used * parts.bank_mw * work.cycles * pj + max(0, used - kept) * bank_wake
        if gating
        else (chip.leakage_mw - parts.logic_mw) * work.cycles * pj
    )
    return {**leaked, MEMORY: memory, ALWAYS_ON: parts.always_on_mw * work.cycles * pj}


def energy_pj(work: Work, chip: Chip, point: Point | str | None = None, gating: bool = False) -> float:
    """Of one inference: dynamic and leakage."""
    return dynamic_pj(work, chip, point) + added(leakage_pj(work, chip, point, gating).values())


def on_spans(busy: np.ndarray, engine: Engine, chip: Chip, point: Point | str | None = None) -> np.ndarray:
    """float64[n, 2], cycles in which a gated engine is on: switched off where that saves energy, and on again
    ``wake_cycles`` before it is needed (the first may be before cycle 0)."""
    at, parts = chip.point(point), chip.gating
    name = engine.name.lower()
    saved_pj = parts.part_mw(name) * (busy[1:, 0] - busy[:-1, 1] - parts.wake_cycles) * _pj_per_mw_cycle(chip, at)
    off = saved_pj > parts.wake_pj(name) * (at.voltage_v / chip.reference_v) ** 2
    begins = np.concatenate([busy[:1, 0], busy[1:, 0][off]]) - parts.wake_cycles
    return np.stack([begins, np.concatenate([busy[:-1, 1][off], busy[-1:, 1]])], axis=1).astype(np.float64)


def _engine_pj(work: Work, chip: Chip, at: Point, engine: Engine) -> float:
    """Leakage of an engine that is gated, and switching it on."""
    parts, name, pj = chip.gating, engine.name.lower(), _pj_per_mw_cycle(chip, at)
    if work.busy is None:
        return parts.part_mw(name) * work.cycles * pj + parts.wake_pj(name) * (at.voltage_v / chip.reference_v) ** 2
    total = 0.0
    for part in work.busy:
        if engine in part:
            spans = on_spans(part[engine], engine, chip, at)
            total += (
                parts.part_mw(name) * (spans[:, 1] - spans[:, 0]).sum() * pj
                + len(spans) * parts.wake_pj(name) * (at.voltage_v / chip.reference_v) ** 2
            )
    return float(total)


def banks_of(work: Work, chip: Chip) -> tuple[int, int]:
    made = -(-chip.memory_bytes // chip.bank_bytes)
    return made if work.banks is None else work.banks, made if work.kept_banks is None else work.kept_banks


def leaked_pj(mw_cycles: float, chip: Chip, point: Point | str | None = None) -> float:
    """Energy of what leaks so many mW at the reference voltage, times the cycles it is on."""
    return mw_cycles * _pj_per_mw_cycle(chip, chip.point(point))


def _pj_per_mw_cycle(chip: Chip, at: Point) -> float:
    """Leakage in pJ of a part that leaks 1 mW at the reference voltage, over a cycle."""
    return at.voltage_v / chip.reference_v / at.clock_hz / PJ_PER_S_IN_MW


# ---- at a frame rate ------------------------------------------------------------------------------------------------
def latency_s(work: Work, chip: Chip, point: Point | str | None = None) -> float:
    return work.cycles / chip.point(point).clock_hz


def idle_mw(work: Work, chip: Chip, gating: bool = False) -> float:
    """Power between inferences."""
    parts: Gating | None = chip.gating
    if not gating or parts is None:
        return chip.idle_mw
    kept = banks_of(work, chip)[1] * parts.bank_mw * parts.retention
    return max(0.0, chip.idle_mw - chip.leakage_mw) + parts.always_on_mw + kept


def average_power_mw(
    work: Work, chip: Chip, point: Point | str | None = None, *, frames_per_s: float, gating: bool = False
) -> float:
    """The inferences' energy, and the power between them.

    Errors: MachineError when the rate is not positive or higher than the chip can run at the point.
    """
    at = chip.point(point)
    active = frames_per_s * latency_s(work, chip, at)
    if not frames_per_s > 0 or active > 1:
        most = at.clock_hz / work.cycles if work.cycles else float("inf")
        raise MachineError(
            f"the chip cannot run this network at {frames_per_s:g} frames per second",
            where=f"point {at.name}",
            required=f"{active:.3g} s of computation per second",
            available=f"{most:.4g} frames per second",
            remedy="a lower frame rate, or a faster operating point: " + ", ".join(p.name for p in chip.points),
        )
    return energy_pj(work, chip, at, gating) * frames_per_s * PJ_PER_S_IN_MW + idle_mw(work, chip, gating) * (
        1 - active
    )


@dataclass(frozen=True)
class PointPower:
    """An inference at one operating point. power_mw : at the frame rate asked for; None where the point is too slow for
    it."""

    point: Point
    latency_s: float
    energy_pj: float
    power_mw: float | None

    @property
    def inferences_per_s(self) -> float:
        return 1 / self.latency_s if self.latency_s else float("inf")

    @property
    def inferences_per_s_per_w(self) -> float:
        """Inferences per joule."""
        return 1e12 / self.energy_pj if self.energy_pj else float("inf")


def every_point(work: Work, chip: Chip, frames_per_s: float, gating: bool = False) -> list[PointPower]:
    """All operating points of the chip, as its file lists them. Errors: MachineError for a rate that is not
    positive."""
    rows = []
    for point in chip.points:
        fast_enough = not frames_per_s > 0 or frames_per_s * latency_s(work, chip, point) <= 1
        power = average_power_mw(work, chip, point, frames_per_s=frames_per_s, gating=gating) if fast_enough else None
        rows.append(PointPower(point, latency_s(work, chip, point), energy_pj(work, chip, point, gating), power))
    return rows


def feasible_points(
    work: Work, chip: Chip, frames_per_s: float, budget_mw: float | None = None, gating: bool = False
) -> list[PointPower]:
    """The points that reach a frame rate within a power budget, least power first; empty: none does."""
    reached = [
        row
        for row in every_point(work, chip, frames_per_s, gating)
        if row.power_mw is not None and (budget_mw is None or row.power_mw <= budget_mw)
    ]
    return sorted(reached, key=lambda row: row.power_mw)
