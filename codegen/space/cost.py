"""Cycles and energy of steps before anything is placed: the instructions a box lowers to do not depend on addresses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from tvm_ergo.codegen.graph import Graph, Region
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.order import Needs
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.strided import View, elements
from tvm_ergo.codegen.weights.coding import stream
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.weights import CodedWeights
from tvm_ergo.target.isa import DType, Event, Operand, contiguous
from tvm_ergo.target.isa.weights import coded_weights
from tvm_ergo.target.sums import added


class Apart:
    """Stands for a plan: every tensor in a place of its own. codings : of the constants, those of the graph unless
    changed."""

    def __init__(self, graph: Graph):
        self.graph, self._views, top = graph, [], 0
        self.codings = {tensor.id: tensor.coding for tensor in graph.tensors if tensor.coding is not None}
        for tensor in graph.tensors:
            top = -(-top // 4) * 4
            self._views.append(View.dense(-1, tensor.shape, tensor.itemsize, top))
            top += tensor.size_bytes

    def placed(self, t: int, time: int = 0) -> View:
        return self._views[t]

    def panel(self, t: int, box: Region) -> Operand | None:
        """Of coded weights: the box's share of the whole stream."""
        tensor = self.graph.tensors[t]
        if t not in self.codings:
            return None
        return share_of(stream(tensor, tensor.region, self.codings[t]), tensor.shape, _lengths(box))

    def sparse(self, t: int, box: Region) -> tuple[Operand, SparseWeights] | None:
        """Of weights in the sparse engine's form: the box's share of all of them."""
        if t not in self.codings or self.codings[t].codec is not Codec.EIE:
            return None
        tensor = self.graph.tensors[t]
        whole, share = (
            stream(tensor, tensor.region, self.codings[t]),
            math.prod(_lengths(box)) / math.prod(tensor.shape),
        )
        size = max(1, math.ceil(len(whole.data) * share))
        return contiguous(0, DType.U8, (size,)), replace(
            whole, data=whole.data[:size], entries=int(whole.entries * share)
        )


def share_of(coded: CodedWeights, shape: tuple[int, ...], box: tuple[int, ...]) -> Operand:
    """The operand of a box that takes its share of a stream's bytes and steps: what a panel of its own would take,
    nearly."""
    share = math.prod(box) / math.prod(shape)
    lanes = min(coded.lanes, box[0])
    steps = max(1, math.ceil(coded.steps * coded.lanes * share / lanes))
    return coded_weights(
        0, box, replace(coded, data=coded.data[: max(1, math.ceil(len(coded.data) * share))], lanes=lanes, steps=steps)
    )


def _lengths(box: Region) -> tuple[int, ...]:
    return tuple(end - begin for begin, end in box)


class StepCosts:
    """Busy cycles, energy and multiply-accumulates of steps, remembered by node and the size of its boxes.

    The cycles are the sum over engines: neighbouring steps of one group depend on each other, so little of it overlaps.
    An estimate for choosing; reports state what the machine's trace says."""

    def __init__(self, graph: Graph, chip: Chip, needs: Needs):
        self.graph, self.chip, self.needs = graph, chip, needs
        self._plan = Apart(graph)
        self._known: dict[tuple, tuple[int, float]] = {}
        self._macs: dict[int, tuple[int, int]] = {}  # of the whole node, and how many results they are for

    def step(self, step: Step) -> tuple[int, float]:
        """Cycles and dynamic pJ of one step. Movement that a plan may do in place counts as if it were copied."""
        node = step.node
        key = (node.id, *(_lengths(box) for box in (step.region, *self.needs.boxes(node, step.region))))
        if key not in self._known:
            emit = Emitter(self._plan)
            emit.lower(node, step.region)
            costs = [instruction.cost(self.chip) for instruction in emit.instructions]
            self._known[key] = sum(c.cycles for c in costs), added(self.chip.energy_pj(c.events) for c in costs)
        return self._known[key]

    def macs(self, step: Step) -> int:
        """Multiply-accumulates of one step."""
        node = step.node
        if node.id not in self._macs:
            self._macs[node.id] = (
                node.op.macs(self.graph.shapes(node)),
                max(1, elements(self.graph.tensors[node.outputs[0]].region)),
            )
        macs, whole = self._macs[node.id]
        return macs * elements(step.region) // whole if macs else 0

    def total(self, steps: Iterable[Step | Shift]) -> tuple[int, float]:
        """Cycles and pJ, leakage included, of all steps and shifts."""
        cycles, energy_pj = 0, 0.0
        for step in steps:
            more, pj = self._shift(step) if isinstance(step, Shift) else self.step(step)
            cycles, energy_pj = cycles + more, energy_pj + pj
        return cycles, energy_pj + self.chip.leakage_pj(cycles)

    def _shift(self, shift: Shift) -> tuple[int, float]:
        dma, size_bytes = self.chip.dma, shift.size_bytes
        events = {
            Event.SRAM_READ_BYTE: size_bytes,
            Event.SRAM_WRITE_BYTE: size_bytes,
            Event.INSTRUCTION: len(shift.runs),
        }
        return len(shift.runs) * dma.issue_cycles + size_bytes // dma.bytes_per_cycle, self.chip.energy_pj(events)
