"""What a plan's Program costs, from pieces that many plans share: the instructions of a box but for their addresses,
with their costs.

Addresses decide only which instructions wait for which. The result is that of lowering, waits (`codegen.schedule`) and
timeline (`target.machine.timeline`) one after another: an instruction starts once its engine is free and the last
instruction of each other engine that it conflicts with has ended. Which of these waits the Program states, and which
others imply, makes no difference to that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.lower import Emitter
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.strided import View, operands_overlap
from tvm_ergo.codegen.tuning.figures import Figures
from tvm_ergo.codegen.tuning.gated import part_pj
from tvm_ergo.codegen.weights.panels import Panels
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.isa import Engine, Event, Halt, Instruction, Operand
from tvm_ergo.target.isa.operand import MAX_ADDRESS

MOST = 1 << 18
"""Pairs of operands, and boxes, remembered."""
MIDDLE = MAX_ADDRESS // 2


@dataclass(frozen=True, eq=False, slots=True)
class Access:
    """Bytes an instruction touches, from the place of tensor number ``place`` on. layout : number of the operand's
    type, shape and strides."""

    place: int
    addr: int
    low: int
    high: int
    layout: int


@dataclass(frozen=True, eq=False, slots=True)
class Priced:
    """An instruction without addresses. Constants are not among its accesses: they are never written."""

    engine: int
    cycles: int
    events: tuple[tuple[Event, int], ...]
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]


Base = Callable[[int], int | None]
"""The address of a tensor's first byte at a time; None for a constant."""


class Prices:
    """Figures of plans of one graph (constants may be coded differently) on one chip. gating : energies are those with
    power gating."""

    def __init__(self, graph: Graph, chip: Chip, gating: bool = False):
        self.graph, self.chip, self.gating = graph, chip, gating
        self._known: dict[tuple, dict[Region, tuple[Priced, ...]]] = {}
        self._shifts: dict[tuple, tuple[Priced, ...]] = {}
        self._layouts: dict[tuple, int] = {}
        self._operands: list[Operand] = []
        self._meet: dict[tuple[int, int, int], bool] = {}

    def figures(self, plan: SpacePlan) -> Figures:
        """Errors: UnsupportedError from the lowering rules."""
        if len(self._meet) > MOST or sum(map(len, self._known.values())) + len(self._shifts) > MOST:
            self._meet.clear(), self._known.clear(), self._shifts.clear()
        timeline, nodes, bases = _Timeline(self.meet, self.gating), {}, _Bases(plan)
        for time, step in enumerate(plan.steps):
            if isinstance(step, Shift):
                timeline.run(self._shift(step), (None, bases.of(step.root)(time)))
            elif step.node.inner.traits.move is not None or step.node.inner.traits.once:
                # nothing is emitted where source and result are the same place: addresses decide
                emit = Emitter(plan)
                emit.lower(step.node, step.region, time)
                timeline.run(self._priced(emit.instructions, MAX_ADDRESS, plan.constant_bytes), (0,))
            else:
                if step.node.id not in nodes:
                    nodes[step.node.id] = self._pieces(plan, step.node), [bases.tensor(t) for t in _tensors(step.node)]
                pieces, places = nodes[step.node.id]
                if step.region not in pieces:
                    pieces[step.region] = self._apart(plan, step.node, step.region)
                timeline.run(pieces[step.region], (None, *(place(time) for place in places)))
        halt = Halt().cost(self.chip)
        timeline.count(halt.events.items())
        cycles, events = timeline.end + halt.cycles, timeline.events
        if self.gating:
            energy = part_pj(
                cycles,
                events,
                dict(zip(Engine, timeline.spans)),
                plan.constant_bytes + plan.activation_bytes,
                self.chip,
            )
        else:
            energy = {
                p.name: self.chip.energy_pj(events, p) + self.chip.leakage_pj(cycles, p) for p in self.chip.points
            }
        return Figures(cycles, energy, plan.constant_bytes, plan.activation_bytes, plan.live_bytes)

    def meet(self, a: int, b: int, distance: int) -> bool:
        """Whether operands of two layouts share a byte, the second's address ``distance`` bytes above the first's."""
        key = a, b, distance
        if key not in self._meet:
            self._meet[key] = operands_overlap(self._operands[a], _at(self._operands[b], MIDDLE + distance))
        return self._meet[key]

    def _pieces(self, plan: SpacePlan, node: Node) -> dict[Region, tuple[Priced, ...]]:
        """Of a node whose tensors lie and are coded as in the plan, by box."""
        views = tuple((plan.views[t].shape, plan.views[t].strides) for t in _tensors(node))
        coded = tuple(plan.graph.tensors[t].coding if t in plan.panels.of else None for t in node.inputs)
        return self._known.setdefault((node.id, views, coded), {})

    def _apart(self, plan: SpacePlan, node: Node, region: Region) -> tuple[Priced, ...]:
        """The instructions of a box as if each tensor had a share of all addresses of its own, constants' streams the
        first."""
        tensors = _tensors(node)
        share = MAX_ADDRESS // (len(tensors) + 1)
        emit = Emitter(
            _Apart(
                plan.graph,
                plan.panels,
                {t: plan.views[t].moved(-1, share * (i + 1) - plan.views[t].offset) for i, t in enumerate(tensors)},
            )
        )
        emit.lower(node, region)
        return self._priced(emit.instructions, share, -1)

    def _shift(self, shift: Shift) -> tuple[Priced, ...]:
        key = shift.root, shift.new - shift.old, shift.runs
        if key not in self._shifts:
            half = MAX_ADDRESS // 2
            emit = Emitter(_Apart(self.graph, Panels(self.graph, ()), {shift.root: View(-1, half, (), (), 1)}))
            emit.shift(
                shift.root, [(r.begin, r.count, r.pitch, r.length) for r in shift.runs], shift.new - shift.old, 0
            )
            self._shifts[key] = self._priced(emit.instructions, half, -1)
        return self._shifts[key]

    def _priced(self, instructions: Sequence[Instruction], share: int, constant_bytes: int) -> tuple[Priced, ...]:
        """share : addresses a place has; what ends by ``constant_bytes`` is a constant."""
        found = []
        for instruction in instructions:
            cost = instruction.cost(self.chip)
            reads, writes = (
                tuple(self._access(o, share) for o in operands if o.extent[1] > constant_bytes)
                for operands in (instruction.reads(), instruction.writes())
            )
            found.append(Priced(int(instruction.engine), cost.cycles, tuple(cost.events.items()), reads, writes))
        return tuple(found)

    def _access(self, operand: Operand, share: int) -> Access:
        layout = operand.dtype, operand.shape, operand.strides, operand.codec
        if layout not in self._layouts:
            self._layouts[layout] = len(self._operands)
            self._operands.append(_at(operand, MIDDLE))
        place, (low, high) = operand.addr // share, operand.extent
        start = place * share
        return Access(place, operand.addr - start, low - start, high - start, self._layouts[layout])


def _tensors(node: Node) -> list[int]:
    return list(dict.fromkeys((*node.inputs, *node.constants, *node.outputs)))


def _at(operand: Operand, addr: int) -> Operand:
    return Operand(addr, operand.dtype, operand.shape, operand.strides, operand.codec)


class _Apart:
    """Stands for a plan: each tensor at a place of its own."""

    def __init__(self, graph: Graph, panels: Panels, views: dict[int, View]):
        self.graph, self.panels, self.views = graph, panels, views

    def placed(self, t: int, time: int = 0) -> View:
        return self.views[t]

    def panel(self, t: int, box: Region) -> Operand | None:
        return self.panels.operand(t, box, 0)

    def sparse(self, t: int, box: Region) -> tuple[Operand, SparseWeights] | None:
        return self.panels.sparse(t, box, 0)


class _Bases:
    """Where the tensors of a plan lie, by time."""

    def __init__(self, plan: SpacePlan):
        self.plan = plan
        self._origins: dict[int, list[int]] = {}

    def of(self, root: int, more: int = 0) -> Base:
        """Of byte ``more`` of a root. See `SpacePlan.placed`."""
        plan = self.plan
        i = plan.row.get(root)
        if root in plan.constants:
            return lambda time: None
        if i is None:
            return lambda time: plan.constant_bytes + more
        if root not in self._origins:
            self._origins[root] = plan.rolled.origin[i].tolist()
        origins, base = self._origins[root], plan.constant_bytes + int(plan.offsets[i]) + more
        return lambda time: base - origins[time]

    def tensor(self, t: int) -> Base:
        view = self.plan.views[t]
        return self.of(view.root, view.offset)


class _Timeline:
    """Engines side by side, each in order; an instruction starts after those before it whose bytes it touches, where
    one of the two writes them. spans : per engine, when it works, where that is asked for."""

    def __init__(self, meet: Callable[[int, int, int], bool], spanned: bool = False):
        self.meet, self.spanned = meet, spanned
        self.spans: list[list[tuple[int, int]]] = [[] for _ in Engine]
        self.events: dict[Event, int] = {}
        self._free = [0] * len(Engine)  # from which cycle on
        self._read: list[list[tuple]] = [[] for _ in Engine]  # (low, high, address, layout, end cycle), in order
        self._written: list[list[tuple]] = [[] for _ in Engine]

    @property
    def end(self) -> int:
        return max(self._free)

    def count(self, events) -> None:
        for event, number in events:
            self.events[event] = self.events.get(event, 0) + number

    def run(self, instructions: Sequence[Priced], bases: Sequence[int | None]) -> None:
        """bases : of each place; None for a constant."""
        for instruction in instructions:
            engine = instruction.engine
            reads = [
                (a.low + base, a.high + base, a.addr + base, a.layout)
                for a in instruction.reads
                if (base := bases[a.place]) is not None
            ]
            writes = [
                (a.low + base, a.high + base, a.addr + base, a.layout)
                for a in instruction.writes
                if (base := bases[a.place]) is not None
            ]
            start = self._free[engine]
            for other, free in enumerate(self._free):
                if other != engine and free > start:
                    start = self._after(start, reads + writes, self._written[other])
                    start = self._after(start, writes, self._read[other])
            end = self._free[engine] = start + instruction.cycles
            if self.spanned:
                self.spans[engine].append((start, end))
            self._read[engine] += [(*access, end) for access in reads]
            self._written[engine] += [(*access, end) for access in writes]
            self.count(instruction.events)

    def _after(self, start: int, accesses: list[tuple], earlier: list[tuple]) -> int:
        """``start``, or the end of the last of earlier accesses of one engine that touch the same bytes."""
        for low, high, addr, layout in accesses:
            for other_low, other_high, other_addr, other_layout, end in reversed(earlier):
                if end <= start:
                    break
                if other_low < high and low < other_high and self.meet(layout, other_layout, other_addr - addr):
                    start = end
                    break
        return start
