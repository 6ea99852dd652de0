"""What a task contributes to the network's goal, as one number the search makes small; estimated from counts, or measured."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ergo.codegen.tuning.figures import Budget, Figures, Goal, best_point
from tvm_ergo.codegen.tuning.gated import least_pj
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.target.chip import Chip, Point


@dataclass(frozen=True)
class Score:
    """At one operating point, the one at which the network did best at the start.

    seconds, energy_pj : of that network: the product of energy and time is not a sum over tasks, but small changes of it are, each weighted by the other. gating : energies
    are those with power gating.
    """

    goal: Goal
    chip: Chip
    point: Point
    seconds: float
    energy_pj: float
    gating: bool = False

    @classmethod
    def of(cls, goal: Goal, chip: Chip, budget: Budget, default: Figures) -> Score:
        """For a network that starts as ``default``: at the point it does best at, or, where the budget allows none, takes least power at.

        Where the power forbids it a faster point, latency alone is the wrong score: less energy may allow that point. Then it is the product of energy and time.
        """
        point = best_point(goal, default, budget, chip) or min(chip.points, key=lambda p: budget.power_of(default, chip, p))
        fastest = max(chip.points, key=lambda p: p.clock_hz)
        bound = goal is Goal.LATENCY and budget.power_of(default, chip, fastest) > budget.average_mw
        return cls(Goal.EDP if bound else goal, chip, point, default.cycles / point.clock_hz, default.energy_pj[point.name], budget.gating)

    def measured(self, figures: Figures) -> float:
        return self._of(figures.cycles, figures.energy_pj[self.point.name], figures.memory_bytes)

    def estimated(self, looked: Looked) -> float:
        """As if engines never ran side by side."""
        counts, memory = looked.counts, looked.live_bytes + looked.constant_bytes
        cycles = max(1.0, float(counts.busy_cycles.sum()))
        if self.gating:
            return self._of(cycles, least_pj(cycles, counts.events, counts.busy_cycles, memory, self.chip, self.point), memory)
        return self._of(cycles, self.chip.energy_pj(counts.events, self.point) + self.chip.leakage_pj(cycles, self.point), memory)

    def _of(self, cycles: float, energy_pj: float, memory_bytes: int) -> float:
        seconds = cycles / self.point.clock_hz
        if self.goal is Goal.EDP:
            return (seconds * self.energy_pj + energy_pj * self.seconds) * 1e-12
        return {Goal.LATENCY: seconds, Goal.ENERGY: energy_pj * 1e-12, Goal.MEMORY: memory_bytes * 1e-9}[self.goal]
