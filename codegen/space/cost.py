"""Cycles of steps before anything is placed: the instructions a box lowers to do not depend on addresses."""

from __future__ import annotations

from collections.abc import Iterable

from tvm_ergo.codegen.graph import Graph, Region
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.order import Needs
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.strided import View
from tvm_ergo.target.chip import Chip


class _Apart:
    """Stands for a plan: every tensor in a place of its own."""

    def __init__(self, graph: Graph):
        self.graph, self._views, top = graph, [], 0
        for tensor in graph.tensors:
            top = -(-top // 4) * 4
            self._views.append(View.dense(-1, tensor.shape, tensor.itemsize, top))
            top += tensor.size_bytes

    def placed(self, t: int, time: int = 0) -> View:
        return self._views[t]


def _lengths(box: Region) -> tuple[int, ...]:
    return tuple(end - begin for begin, end in box)


class StepCosts:
    """Busy cycles of steps, remembered by node and the size of its boxes.

    The sum over engines: neighbouring steps of one group depend on each other, so little of it overlaps. An estimate for choosing;
    reports state what the machine's trace says.
    """

    def __init__(self, graph: Graph, chip: Chip, needs: Needs):
        self.graph, self.chip, self.needs = graph, chip, needs
        self._plan = _Apart(graph)
        self._known: dict[tuple, int] = {}

    def step(self, step: Step) -> int:
        """Cycles of one step. Movement that a plan may do in place counts as if it were copied."""
        node = step.node
        key = (node.id, *(_lengths(box) for box in (step.region, *self.needs.boxes(node, step.region))))
        if key not in self._known:
            emit = Emitter(self._plan)
            emit.lower(node, step.region)
            self._known[key] = sum(instruction.cost(self.chip).cycles for instruction in emit.instructions)
        return self._known[key]

    def total(self, steps: Iterable[Step | Shift]) -> int:
        """Cycles of all steps and shifts."""
        dma = self.chip.dma
        return sum(len(s.runs) * dma.issue_cycles + s.size_bytes // dma.bytes_per_cycle if isinstance(s, Shift) else self.step(s)
                   for s in steps)
