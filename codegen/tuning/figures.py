"""What a Program costs at every operating point, what is asked of a network, and how well a plan does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from math import inf

from tvm_ergo.codegen.tuning.gated import banks_of, part_pj
from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.isa import Halt
from tvm_ergo.target.machine import Trace, power
from tvm_ergo.target.machine.peak import WINDOW_S, peak_power
from tvm_ergo.target.program import Program
from tvm_ergo.target.sums import added

PJ_PER_S_IN_MW = 1e-9


class Goal(Enum):
    """What is made least. EDP: energy times time."""

    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"
    MEMORY = "memory"


@dataclass(frozen=True)
class Figures:
    """Of one inference. energy_pj : by the name of the operating point, leakage included (with gating as the budget has
    it, see `gated`). live_bytes : the least activation bytes of any placement. peak_mw, gated_mw : of a whole network,
    by point: the worst window, and the average with power gating where the rate is reached (`of_network`); a part has
    none, as windows span parts, and banks of memory hold several."""

    cycles: int
    energy_pj: Mapping[str, float]
    constant_bytes: int
    activation_bytes: int
    live_bytes: int = 0
    peak_mw: Mapping[str, float] = field(default_factory=dict)
    gated_mw: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, chip: Chip, gating: bool = False) -> Figures:
        """By the Program's trace, at every point of the chip: they differ in voltage and clock alone, so none costs a
        measurement of its own."""
        traces, meta = traced(program, chip), program.meta
        energy = _gated_pj(traces[0], chip) if gating else {trace.point.name: trace.energy_pj for trace in traces}
        return cls(traces[0].cycles, energy, meta["constant_bytes"], meta["activation_bytes"], meta["live_bytes"])

    @property
    def memory_bytes(self) -> int:
        return self.constant_bytes + self.activation_bytes

    @property
    def wrong(self) -> str | None:
        """Which figures can be of no Program: negative, or no finite numbers; None where all may be."""
        named = {
            "cycles": self.cycles,
            "constant_bytes": self.constant_bytes,
            "activation_bytes": self.activation_bytes,
            "live_bytes": self.live_bytes,
            **{f"energy_pj at {p}": e for p, e in self.energy_pj.items()},
            **{f"peak_mw at {p}": e for p, e in self.peak_mw.items()},
            **{f"gated_mw at {p}": e for p, e in self.gated_mw.items()},
        }
        return ", ".join(f"{name} {value}" for name, value in named.items() if not 0 <= value < inf) or None

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def checked(cls, data: object, points: Sequence[str]) -> Figures:
        """Of a part, as another process tells them. points : of the chip. Errors: ValueError saying what no measurement
        gives."""
        numbers = ("cycles", "constant_bytes", "activation_bytes", "live_bytes")
        if not isinstance(data, dict) or set(data) != {field.name for field in fields(cls)}:
            raise ValueError(f"they are not {', '.join(field.name for field in fields(cls))}: {data}")
        if any(type(data[name]) is not int for name in numbers):
            raise ValueError(
                ", ".join(f"{name} {data[name]}" for name in numbers if type(data[name]) is not int)
                + ": no whole number"
            )
        energy = data["energy_pj"]
        if (
            not isinstance(energy, dict)
            or set(energy) != set(points)
            or any(type(value) not in (int, float) for value in energy.values())
        ):
            raise ValueError(f"energy_pj {energy}, where there must be one of each of {', '.join(points)}")
        if data["peak_mw"] != {} or data["gated_mw"] != {}:
            raise ValueError(f"peak_mw {data['peak_mw']}, gated_mw {data['gated_mw']}: a part has none")
        try:
            figures = cls.from_json(data)
        except OverflowError as error:
            raise ValueError(f"energy_pj: {error}") from None
        if figures.wrong:
            raise ValueError(figures.wrong)
        return figures

    @classmethod
    def from_json(cls, data: Mapping) -> Figures:
        return cls(
            int(data["cycles"]),
            {str(k): float(v) for k, v in data["energy_pj"].items()},
            int(data["constant_bytes"]),
            int(data["activation_bytes"]),
            int(data["live_bytes"]),
            dict(data.get("peak_mw", {})),
            dict(data.get("gated_mw", {})),
        )


def traced(program: Program, chip: Chip) -> list[Trace]:
    """At every point of the chip; instructions take the same cycles at all of them."""
    first = Trace(program, chip, chip.points[0])
    return [first, *(Trace(program, chip, point, lambda: first.timeline) for point in chip.points[1:])]


def _gated_pj(trace: Trace, chip: Chip) -> dict[str, float]:
    busy: dict = {}
    for entry, instruction in zip(trace.entries, trace.program.instructions, strict=True):
        if not isinstance(instruction, Halt):
            busy.setdefault(entry.engine, []).append((entry.start_cycle, entry.end_cycle))
    meta = trace.program.meta
    return part_pj(trace.cycles, trace.events, busy, meta["constant_bytes"] + meta["activation_bytes"], chip)


def together(figures: Iterable[Figures]) -> Figures:
    """One after another: constants side by side, one activation area."""
    figures = list(figures)
    points = figures[0].energy_pj if figures else {}
    return Figures(
        sum(f.cycles for f in figures),
        {p: added(f.energy_pj[p] for f in figures) for p in points},
        sum(f.constant_bytes for f in figures),
        max((f.activation_bytes for f in figures), default=0),
        max((f.live_bytes for f in figures), default=0),
    )


@dataclass(frozen=True)
class Budget:
    """What a network has to meet. power_mw : average power at ``frames_per_s``, idle and leakage included. frames_per_s
    : reached as well, 0: as fast as it goes.

    peak_mw : power in the worst window of ``window_s`` seconds, of the whole network (`target.machine.peak`). It is
    judged where whole plans are put together: a window spans parts. No window can be below the average, so that is held
    to both limits everywhere.
    gating : what the chip file lets be switched off is: while the network runs, and between inferences
    (`target.machine.power`)."""

    memory_bytes: int
    power_mw: float = inf
    frames_per_s: float = 0.0
    peak_mw: float = inf
    window_s: float = WINDOW_S
    gating: bool = False

    @property
    def average_mw(self) -> float:
        """What the average power may be."""
        return min(self.power_mw, self.peak_mw)

    def idle_mw(self, chip: Chip, constant_bytes: float = 0) -> float:
        """Between inferences; with gating the banks of the constants keep their content."""
        return (
            power.idle_mw(power.Work(0, 0.0, kept_banks=banks_of(constant_bytes, chip)), chip, gating=True)
            if self.gating
            else chip.idle_mw
        )

    def power(self, cycles: float, energy_pj: float, chip: Chip, point: Point, constant_bytes: float = 0) -> float:
        """Average mW of a network at the frame rate (without one: while it runs, one inference after another); infinite
        where the rate is not reached."""
        seconds = cycles / point.clock_hz
        if not self.frames_per_s:
            return energy_pj / seconds * PJ_PER_S_IN_MW if seconds else 0.0
        active = self.frames_per_s * seconds
        return (
            energy_pj * self.frames_per_s * PJ_PER_S_IN_MW + self.idle_mw(chip, constant_bytes) * (1 - active)
            if active <= 1
            else inf
        )

    def power_of(self, figures: Figures, chip: Chip, point: Point) -> float:
        """`power` of figures; of a whole network's with gating as they were worked out from its Programs."""
        if self.gating and point.name in figures.gated_mw:
            return figures.gated_mw[point.name]
        return self.power(figures.cycles, figures.energy_pj[point.name], chip, point, figures.constant_bytes)

    def allows(self, figures: Figures, chip: Chip, point: Point) -> bool:
        return (
            figures.memory_bytes <= self.memory_bytes
            and self.power_of(figures, chip, point) <= self.average_mw
            and figures.peak_mw.get(point.name, 0.0) <= self.peak_mw
        )


def of_network(programs: Sequence[Program], chip: Chip, budget: Budget) -> Figures:
    """Of a whole network, with its worst windows, at the frame rate where it is reached, else (and without a rate) one
    inference after another; and with the average power with gating, which is that of `power.average_power_mw`, as
    reports have it."""
    traces = [traced(program, chip) for program in programs]
    figures = together([Figures.of(program, chip, budget.gating) for program in programs])
    work, rate, energy, peaks, gated = (
        power.together(first.work for first, *_ in traces),
        budget.frames_per_s,
        {},
        {},
        {},
    )
    for i, point in enumerate(chip.points):
        reached = rate and rate * figures.cycles / point.clock_hz <= 1
        peaks[point.name] = peak_power(
            [at[i] for at in traces],
            window_s=budget.window_s,
            frames_per_s=rate if reached else None,
            gating=budget.gating,
        ).power_mw
        if chip.gating is None:
            continue
        energy[point.name] = power.energy_pj(work, chip, point, gating=True)
        if reached:
            gated[point.name] = power.average_power_mw(work, chip, point, frames_per_s=rate, gating=True)
        elif not rate and work.cycles:
            gated[point.name] = energy[point.name] / power.latency_s(work, chip, point) * PJ_PER_S_IN_MW
    return replace(figures, energy_pj=energy if budget.gating else figures.energy_pj, peak_mw=peaks, gated_mw=gated)


def cost(goal: Goal, figures: Figures, point: Point) -> float:
    """What is made least: seconds, pJ, pJ s, or bytes."""
    seconds, energy = figures.cycles / point.clock_hz, figures.energy_pj[point.name]
    return {
        Goal.LATENCY: seconds,
        Goal.ENERGY: energy,
        Goal.EDP: seconds * energy,
        Goal.MEMORY: float(figures.memory_bytes),
    }[goal]


def best_point(goal: Goal, figures: Figures, budget: Budget, chip: Chip) -> Point | None:
    """The point at which the figures do best of those that the budget allows; None where it allows none."""
    allowed = [point for point in chip.points if budget.allows(figures, chip, point)]
    return min(allowed, key=lambda point: (cost(goal, figures, point), figures.energy_pj[point.name]), default=None)
