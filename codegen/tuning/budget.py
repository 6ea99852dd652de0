"""Which ways are rejected before they cost a trial: those with which the network could not meet its budget whatever the others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from tvm_ergo.codegen.tuning.counts import Counts
from tvm_ergo.codegen.tuning.figures import Budget
from tvm_ergo.codegen.tuning.measure import Looked
from tvm_ergo.codegen.tuning.space import Way
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.target.chip import Chip, Point

LONG, MEMORY, RATE, POWER = "steps", "memory", "rate", "power"


@dataclass(eq=False)
class Gate:
    """Judges ways of the tasks of one network. causes : of each way rejected, by task and key."""

    tasks: Sequence[Task]
    budget: Budget
    chip: Chip
    causes: dict[tuple[str, str], str] = field(default_factory=dict)

    def room(self, task: Task) -> int:
        """Memory for one occurrence of a task, its constants included, beside the constants of all else as the given plan has them."""
        return self.budget.memory_bytes - sum(t.weight * t.first_constant_bytes for t in self.tasks) + task.first_constant_bytes

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
        if self.budget.average_mw == inf and not self.budget.frames_per_s:
            return None
        powers = [self._least_power(task, looked.counts, point) for point in self.chip.points]
        return None if min(powers) <= self.budget.average_mw and min(powers) < inf else RATE if min(powers) == inf else POWER

    def _least_power(self, task: Task, counts: Counts, point: Point) -> float:
        """Average power with this way, no run of which is shorter than its busiest engine's work, and the best that is known of the others."""
        cycles, energy = counts.least_cycles, self.chip.energy_pj(counts.events, point) + self.chip.leakage_pj(counts.least_cycles, point)
        for other in self.tasks:
            known = [f for f in other.records.values() if f is not None]
            times = other.weight - (other is task)
            cycles += times * min(f.cycles for f in known)
            energy += times * min(f.energy_pj[point.name] for f in known)
        return self.budget.power(cycles, energy, self.chip, point)
