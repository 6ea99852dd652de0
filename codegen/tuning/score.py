"""What a task contributes to the network's goal, as one number the search makes small; estimated from counts, or
measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from tvm_ergo.codegen.tuning.figures import PJ_PER_S_IN_MW, Budget, Figures, Goal, best_point
from tvm_ergo.codegen.tuning.gated import least_pj
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.target.chip import Chip, Point

Share = tuple[float, float]
"""Of the network's cycles and energy, those of one occurrence of a task, both as they are at the start."""
WHOLE: Share = (1.0, 1.0)
STEEP, MOST = 4.0, 1e3
"""Exponent of how many times the energy (or time) is what the budget leaves, and the most that is counted of it."""


@dataclass(frozen=True)
class Limit:
    """What the power and the rate leave a network at an operating point: ``energy <= pj + pj_per_cycle x cycles``, and
    at most so many cycles."""

    pj: float
    pj_per_cycle: float
    cycles: float

    @classmethod
    def of(cls, budget: Budget, chip: Chip, point: Point, constant_bytes: int) -> Limit:
        if not budget.frames_per_s:
            return cls(0.0, budget.average_mw / point.clock_hz / PJ_PER_S_IN_MW, inf)
        idle = budget.idle_mw(chip, constant_bytes)
        return cls(
            (budget.average_mw - idle) / budget.frames_per_s / PJ_PER_S_IN_MW,
            idle / point.clock_hz / PJ_PER_S_IN_MW,
            point.clock_hz / budget.frames_per_s,
        )

    def over(self, cycles: float, energy_pj: float, share: Share) -> float:
        """How many times more a task takes than its share of that, at least 1."""
        left = share[1] * self.pj + self.pj_per_cycle * cycles
        return min(MOST, max(1.0, energy_pj / left if left > 0 else MOST, cycles / (share[0] * self.cycles)))


@dataclass(frozen=True)
class Score:
    """At one operating point, the one at which the network did best at the start; where power is limited, at every
    point, what is over the limit counting more.

    seconds, energy_pj : of that network: the product of energy and time is not a sum over tasks, but small changes of
    it are, each weighted by the other. gating : energies are those with power gating. limits : per point of the chip;
    none where power is not limited. A task is held to its share of them: as if all others changed as it does."""

    goal: Goal
    chip: Chip
    point: Point
    seconds: float
    energy_pj: float
    gating: bool = False
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, goal: Goal, chip: Chip, budget: Budget, default: Figures) -> Score:
        """For a network that starts as ``default``: at the point it does best at, or, where the budget allows none,
        takes least power at."""
        point = best_point(goal, default, budget, chip) or min(
            chip.points, key=lambda p: budget.power_of(default, chip, p)
        )
        limits = (
            tuple(Limit.of(budget, chip, p, default.constant_bytes) for p in chip.points)
            if budget.average_mw < inf
            else ()
        )
        return cls(
            goal, chip, point, default.cycles / point.clock_hz, default.energy_pj[point.name], budget.gating, limits
        )

    def measured(self, figures: Figures, share: Share = WHOLE) -> float:
        return self._of(figures.cycles, lambda point: figures.energy_pj[point.name], figures.memory_bytes, share)

    def estimated(self, looked: Looked, share: Share = WHOLE) -> float:
        """As if engines never ran side by side."""
        counts, memory = looked.counts, looked.live_bytes + looked.constant_bytes
        cycles, events = max(1.0, float(counts.busy_cycles.sum())), counts.events
        if self.gating:
            return self._of(
                cycles,
                lambda point: least_pj(cycles, events, counts.busy_cycles, memory, self.chip, point),
                memory,
                share,
            )
        return self._of(
            cycles,
            lambda point: self.chip.energy_pj(events, point) + self.chip.leakage_pj(cycles, point),
            memory,
            share,
        )

    def _of(self, cycles: float, energy_pj: Callable[[Point], float], memory_bytes: int, share: Share) -> float:
        if not self.limits:
            return self._at(self.point, cycles, energy_pj(self.point), memory_bytes)
        energies = [
            (point, energy_pj(point), limit) for point, limit in zip(self.chip.points, self.limits, strict=True)
        ]
        return min(
            self._at(point, cycles, energy, memory_bytes) * limit.over(cycles, energy, share) ** STEEP
            for point, energy, limit in energies
        )

    def _at(self, point: Point, cycles: float, energy_pj: float, memory_bytes: int) -> float:
        seconds = cycles / point.clock_hz
        if self.goal is Goal.EDP:
            return (seconds * self.energy_pj + energy_pj * self.seconds) * 1e-12
        return {Goal.LATENCY: seconds, Goal.ENERGY: energy_pj * 1e-12, Goal.MEMORY: memory_bytes * 1e-9}[self.goal]
