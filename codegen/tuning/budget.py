"""Which ways are rejected before they cost a trial: those with which the network could not meet its budget whatever the
others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from tvm_ergo.codegen.tuning.figures import Budget, Figures
from tvm_ergo.codegen.tuning.gated import least_pj, waking_pj
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.codegen.tuning.space import Way
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.sums import added

LONG, MEMORY, RATE, POWER = "steps", "memory", "rate", "power"


@dataclass(eq=False)
class Gate:
    """Judges ways of the tasks of one network. causes : of each way rejected, by task and key."""

    tasks: Sequence[Task]
    budget: Budget
    chip: Chip
    causes: dict[tuple[str, str], str] = field(default_factory=dict)
    _least: dict[str, tuple[int, Figures]] = field(default_factory=dict)

    def room(self, task: Task) -> int:
        """Memory for one occurrence of a task, its constants included, beside the constants of all else as the plan has
        them, of those given, that has fewest there."""
        if task.beside_bytes is not None:
            return self.budget.memory_bytes - task.beside_bytes
        return (
            self.budget.memory_bytes
            - sum(t.weight * t.first_constant_bytes for t in self.tasks)
            + task.first_constant_bytes
        )

    @property
    def rejected(self) -> dict[str, int]:
        """How many different ways were rejected, by cause."""
        return dict(sorted(Counter(self.causes.values()).items()))

    def passes(self, task: Task, way: Way) -> bool:
        """Whether a way may be measured."""
        if (task.digest, way.key) in self.causes and self.causes[task.digest, way.key] in (LONG, MEMORY):
            return False
        cause = MEMORY if task.bench.least_bytes(way) > self.room(task) else self._cause(task, task.bench.look(way))
        if cause is None:
            return True
        self.causes[task.digest, way.key] = cause
        return False

    def _cause(self, task: Task, looked: Looked | None) -> str | None:
        if looked is None:
            return LONG
        if looked.constant_bytes + looked.live_bytes > self.room(task):
            return MEMORY
        if not task.given or self.budget.average_mw == inf and not self.budget.frames_per_s:
            return None  # what a part of another plan would take the place of is not known
        powers = [self._least_power(task, looked, point) for point in self.chip.points]
        return (
            None
            if min(powers) <= max(self.budget.average_mw, self._known_power()) and min(powers) < inf
            else RATE
            if min(powers) == inf
            else POWER
        )

    def _known_power(self) -> float:
        """Average power with the best that is known of all tasks. As long as it is over the budget, whatever may take
        less is worth a trial: tasks may have to gain together, or one of them in several steps."""
        return min(self._power(point, 0.0, 0.0) for point in self.chip.points)

    def _least_power(self, task: Task, looked: Looked, point: Point) -> float:
        """Average power with this way and the best that is known of the others. A run is no shorter than its busiest
        engine's work, and where being idle takes more than leaking, which is so at slow points, a longer run takes less
        power: then as if engines never ran side by side."""
        known, found, counts = self._known(task), [], looked.counts
        for cycles in (counts.least_cycles, float(counts.busy_cycles.sum())):
            energy = self._energy_pj(looked, cycles, point)
            found.append(
                self._power(
                    point,
                    cycles - known.cycles,
                    energy - known.energy_pj[point.name] - self._waking_pj(point),
                    looked.constant_bytes - known.constant_bytes,
                )
            )
        return min(found)

    def _energy_pj(self, looked: Looked, cycles: float, point: Point) -> float:
        """What a way takes if it runs so long, with gating at least."""
        counts = looked.counts
        if self.budget.gating:
            return least_pj(
                cycles, counts.events, counts.busy_cycles, looked.constant_bytes + looked.live_bytes, self.chip, point
            )
        return self.chip.energy_pj(counts.events, point) + self.chip.leakage_pj(cycles, point)

    def _waking_pj(self, point: Point) -> float:
        """With gating: what a network may take less than the sum of its parts, by engines that stay on from one to the
        next. The way asked about has none of it already."""
        return (
            waking_pj(self.chip, point) * (sum(task.weight for task in self.tasks if task.given) - 1)
            if self.budget.gating
            else 0.0
        )

    def _power(self, point: Point, more_cycles: float, more_energy_pj: float, more_constant_bytes: int = 0) -> float:
        known = [(task.weight, self._known(task)) for task in self.tasks if task.given]
        cycles, energy = sum(w * k.cycles for w, k in known), added(w * k.energy_pj[point.name] for w, k in known)
        constants = sum(w * k.constant_bytes for w, k in known)
        return self.budget.power(
            cycles + more_cycles, energy + more_energy_pj, self.chip, point, constants + more_constant_bytes
        )

    def _known(self, task: Task) -> Figures:
        """The least cycles, energies and constants of a task's records, each by itself."""
        count, least = self._least.get(task.digest, (0, None))
        if count != len(task.records):
            known = [f for f in task.records.values() if f is not None]
            least = Figures(
                min(f.cycles for f in known),
                {p.name: min(f.energy_pj[p.name] for f in known) for p in self.chip.points},
                min(f.constant_bytes for f in known),
                0,
            )
            self._least[task.digest] = len(task.records), least
        return least
