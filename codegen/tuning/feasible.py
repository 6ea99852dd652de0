"""What no schedule goes below: told before anything is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.space.cost import Apart
from tvm_ergo.codegen.tuning.figures import PJ_PER_S_IN_MW, Budget
from tvm_ergo.codegen.tuning.gated import least_pj
from tvm_ergo.codegen.tuning.task import Task
from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.errors import BudgetError
from tvm_ergo.target.isa import Engine, Event
from tvm_ergo.target.machine.power import leaked_pj
from tvm_ergo.target.sums import added

ARITHMETIC = (Event.MAC_8X8, Event.ACC_ADD_32, Event.REQUANT, Event.RESCALE_9X22, Event.DIVIDE)
"""What has to be computed at least once, however it is scheduled."""


@dataclass(frozen=True)
class Floor:
    """Least average power at a point, mW: idle between inferences, leakage while the array computes, arithmetic.
    reached : whether the rate can be."""

    point: Point
    idle_mw: float
    leakage_mw: float
    arithmetic_mw: float
    reached: bool

    @property
    def power_mw(self) -> float:
        return self.idle_mw + self.leakage_mw + self.arithmetic_mw if self.reached else inf

    def __str__(self) -> str:
        return (
            f"{self.power_mw:.4g} mW at {self.point.name}: idle {self.idle_mw:.3g}, leakage {self.leakage_mw:.3g}, "
            f"arithmetic {self.arithmetic_mw:.3g}"
        )


def floors(tasks: Sequence[Task], budget: Budget, chip: Chip) -> list[Floor]:
    """Of every point of the chip; no schedule of these parts is below the least of them. With gating one array leaks
    while it computes, and the banks are kept that hold the constants in their forms of fewest bytes (as one stream:
    what schedules divide into panels is taken to be no shorter)."""
    events, cycles = {event: 0.0 for event in ARITHMETIC}, 0.0
    for task in tasks:
        for count in _least(task, chip):
            for event in ARITHMETIC:
                events[event] += task.weight * count.get(event, 0)
    cycles = events[Event.MAC_8X8] / chip.tensor.macs_per_cycle
    constants = _least_constant_bytes(tasks) if budget.gating else 0
    return [_floor(events, cycles, constants, budget, chip, point) for point in chip.points]


def _least_constant_bytes(tasks: Sequence[Task]) -> int:
    """Of constants of equal bytes there is one."""
    found = {}
    for task in tasks:
        for _, part in task.parts:
            found |= {
                t.digest: task.space.form_bytes.get(t.id, t.size_bytes)
                for t in part.graph.tensors
                if t.data is not None
            }
    return added(found.values())


def _floor(events: dict, cycles: float, constant_bytes: int, budget: Budget, chip: Chip, point: Point) -> Floor:
    seconds = cycles / point.clock_hz
    arithmetic, leakage = chip.energy_pj(events, point), chip.leakage_pj(cycles, point)
    if budget.gating:
        array = min(chip.gating.tensor_mw, chip.gating.sparse_mw) * cycles  # either has multipliers
        leakage = least_pj(cycles, {}, [0.0] * len(Engine), constant_bytes, chip, point) + leaked_pj(array, chip, point)
    if not budget.frames_per_s:
        return Floor(point, 0.0, leakage / seconds * PJ_PER_S_IN_MW if seconds else 0.0, 0.0, True)
    active, rate = budget.frames_per_s * seconds, budget.frames_per_s * PJ_PER_S_IN_MW
    return Floor(
        point,
        budget.idle_mw(chip, constant_bytes) * max(0.0, 1 - active),
        leakage * rate,
        arithmetic * rate,
        active <= 1,
    )


def _least(task: Task, chip: Chip):
    """Events of each node run whole, of its constants' forms the one of least arithmetic."""
    graph, apart = task.space.graph, Apart(task.space.graph)
    for node in graph.nodes:
        forms = [(t, form) for t in node.inputs for form in task.space.forms.get(t, ())] or [(None, None)]
        counts = []
        for t, form in forms:
            apart.codings = {} if form is None else {t: form}
            emit = Emitter(apart)
            emit.lower(node, graph.tensors[node.outputs[0]].region)
            found: dict[Event, float] = {}
            for instruction in emit.instructions:
                for event, count in instruction.cost(chip).events.items():
                    found[event] = found.get(event, 0) + count
            counts.append(found)
        yield min(counts, key=lambda c: chip.energy_pj({e: c.get(e, 0) for e in ARITHMETIC}))


def check_feasible(tasks: Sequence[Task], budget: Budget, chip: Chip) -> None:
    """Errors: BudgetError where no schedule can meet the power or the rate, with the least power reachable and what it
    is made of."""
    if budget.average_mw == inf and not budget.frames_per_s:
        return
    found = floors(tasks, budget, chip)
    best = min(found, key=lambda floor: floor.power_mw)
    if best.power_mw <= budget.average_mw and best.reached:
        return
    rate = f"{budget.frames_per_s:g} frames per second" if budget.frames_per_s else "one inference after another"
    if not any(floor.reached for floor in found):
        raise BudgetError(
            f"no schedule reaches {rate}: the multiply-accumulates alone take longer at every operating point",
            required=rate,
            available="; ".join(f"{f.point.name}: {f.point.clock_hz / 1e6:g} MHz" for f in found),
            remedy="a lower frame rate, or a smaller network",
        )
    gated = _gated(tasks, budget, chip)
    within = " in the worst window, which no average exceeds" if budget.peak_mw < budget.power_mw else ""
    if budget.frames_per_s and best.idle_mw > budget.average_mw:
        raise BudgetError(
            f"no schedule meets {budget.average_mw:g} mW at {rate}: idle power alone takes more",
            required=f"at least {best}",
            available=f"{budget.average_mw:g} mW{within}",
            remedy=_for_idle(gated),
        )
    largest = max(
        ("idle", best.idle_mw),
        ("leakage", best.leakage_mw),
        ("arithmetic", best.arithmetic_mw),
        key=lambda item: item[1],
    )
    raise BudgetError(
        f"no schedule meets {budget.average_mw:g} mW at {rate}; the largest part of the least power is {largest[0]}",
        required=f"at least {best}",
        available=f"{budget.average_mw:g} mW{within}",
        remedy="; ".join([*gated, "a larger budget, a lower frame rate, or a smaller network (tvm-ergo compress)"]),
    )


def _gated(tasks: Sequence[Task], budget: Budget, chip: Chip) -> list[str]:
    """That power gating may meet the budget, where it is not counted on yet and does not take more at the least."""
    if budget.gating or chip.gating is None:
        return []
    least = min(floors(tasks, replace(budget, gating=True), chip), key=lambda floor: floor.power_mw)
    return (
        [f"--gating, with what this chip can switch off: at least {least}"]
        if least.power_mw <= budget.average_mw
        else []
    )


def _for_idle(gated: list[str]) -> str:
    """What helps where idle power exceeds the budget: no schedule, rate or smaller network does."""
    return "; ".join([*gated, "a larger budget", "a chip that takes less when idle (--target)"])
