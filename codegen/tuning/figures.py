"""What a Program costs at every operating point, what is asked of a network, and how well a plan does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from math import inf

from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.machine import Trace
from tvm_ergo.target.machine.peak import WINDOW_S, peak_power
from tvm_ergo.target.program import Program

PJ_PER_S_IN_MW = 1e-9


class Goal(Enum):
    """What is made least. EDP: energy times time."""

    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"
    MEMORY = "memory"


@dataclass(frozen=True)
class Figures:
    """Of one inference. energy_pj : by the name of the operating point, leakage included. live_bytes : the least activation bytes of any placement. peak_mw : of a
    whole network, by point: the worst window (`with_peaks`); a part has none, as windows span parts."""

    cycles: int
    energy_pj: Mapping[str, float]
    constant_bytes: int
    activation_bytes: int
    live_bytes: int = 0
    peak_mw: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program, chip: Chip) -> Figures:
        """By the Program's trace, at every point of the chip: they differ in voltage and clock alone, so none costs a measurement of its own."""
        traces = [Trace(program, chip, point) for point in chip.points]
        return cls(traces[0].cycles, {trace.point.name: trace.energy_pj for trace in traces}, program.meta["constant_bytes"],
                   program.meta["activation_bytes"], program.meta["live_bytes"])

    @property
    def memory_bytes(self) -> int:
        return self.constant_bytes + self.activation_bytes

    @property
    def wrong(self) -> str | None:
        """Which figures can be of no Program: negative, or no finite numbers; None where all may be."""
        named = {"cycles": self.cycles, "constant_bytes": self.constant_bytes, "activation_bytes": self.activation_bytes, "live_bytes": self.live_bytes,
                 **{f"energy_pj at {p}": e for p, e in self.energy_pj.items()}, **{f"peak_mw at {p}": e for p, e in self.peak_mw.items()}}
        return ", ".join(f"{name} {value}" for name, value in named.items() if not 0 <= value < inf) or None

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping) -> Figures:
        return cls(int(data["cycles"]), {str(k): float(v) for k, v in data["energy_pj"].items()}, int(data["constant_bytes"]), int(data["activation_bytes"]),
                   int(data["live_bytes"]), dict(data.get("peak_mw", {})))


def together(figures: Iterable[Figures]) -> Figures:
    """One after another: constants side by side, one activation area."""
    figures = list(figures)
    points = figures[0].energy_pj if figures else {}
    return Figures(sum(f.cycles for f in figures), {p: sum(f.energy_pj[p] for f in figures) for p in points}, sum(f.constant_bytes for f in figures),
                   max((f.activation_bytes for f in figures), default=0), max((f.live_bytes for f in figures), default=0))


@dataclass(frozen=True)
class Budget:
    """What a network has to meet. power_mw : average power at ``frames_per_s``, idle and leakage included. frames_per_s : reached as well, 0: as fast as it goes.

    peak_mw : power in the worst window of ``window_s`` seconds, of the whole network (`target.machine.peak`). It is judged where whole plans are put together: a window
    spans parts. No window can be below the average, so that is held to both limits everywhere.
    """

    memory_bytes: int
    power_mw: float = inf
    frames_per_s: float = 0.0
    peak_mw: float = inf
    window_s: float = WINDOW_S

    @property
    def average_mw(self) -> float:
        """What the average power may be."""
        return min(self.power_mw, self.peak_mw)

    def power(self, cycles: float, energy_pj: float, chip: Chip, point: Point) -> float:
        """Average mW of a network at the frame rate (without one: while it runs, one inference after another); infinite where the rate is not reached."""
        seconds = cycles / point.clock_hz
        if not self.frames_per_s:
            return energy_pj / seconds * PJ_PER_S_IN_MW if seconds else 0.0
        active = self.frames_per_s * seconds
        return energy_pj * self.frames_per_s * PJ_PER_S_IN_MW + chip.idle_mw * (1 - active) if active <= 1 else inf

    def allows(self, figures: Figures, chip: Chip, point: Point) -> bool:
        return (figures.memory_bytes <= self.memory_bytes and self.power(figures.cycles, figures.energy_pj[point.name], chip, point) <= self.average_mw
                and figures.peak_mw.get(point.name, 0.0) <= self.peak_mw)


def with_peaks(figures: Figures, programs: Sequence[Program], chip: Chip, budget: Budget) -> Figures:
    """The figures of a network with its worst windows, at the frame rate where it is reached, else (and without a rate) one inference after another."""
    peaks = {}
    for point in chip.points:
        reached = budget.frames_per_s and budget.frames_per_s * figures.cycles / point.clock_hz <= 1
        peaks[point.name] = peak_power([Trace(program, chip, point) for program in programs], window_s=budget.window_s,
                                       frames_per_s=budget.frames_per_s if reached else None).power_mw
    return replace(figures, peak_mw=peaks)


def cost(goal: Goal, figures: Figures, point: Point) -> float:
    """What is made least: seconds, pJ, pJ s, or bytes."""
    seconds, energy = figures.cycles / point.clock_hz, figures.energy_pj[point.name]
    return {Goal.LATENCY: seconds, Goal.ENERGY: energy, Goal.EDP: seconds * energy, Goal.MEMORY: float(figures.memory_bytes)}[goal]


def best_point(goal: Goal, figures: Figures, budget: Budget, chip: Chip) -> Point | None:
    """The point at which the figures do best of those that the budget allows; None where it allows none."""
    allowed = [point for point in chip.points if budget.allows(figures, chip, point)]
    return min(allowed, key=lambda point: (cost(goal, figures, point), figures.energy_pj[point.name]), default=None)
