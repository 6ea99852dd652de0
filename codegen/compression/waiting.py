"""What a plan's live bytes would be with tensors waiting in slots: one column of numbers per tensor and way of coding.

Time has three parts a step k: 3k before it (its operands are expanded, its result does not live yet), 3k + 1 while it
runs, 3k + 2 behind it (its result is compressed, what it read last is gone). A compressed tensor lives plain while its
producer runs and while a group of readers does (all of it, or a window of rows where they run in bands), and in slots
from the producer to the last group. This is a model: the plan made afterwards may share storage otherwise, and is what
counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tvm_ergo.codegen.compression.solve import Choice, Problem
from tvm_ergo.codegen.compression.statistics import Spec, TensorStatistics
from tvm_ergo.codegen.fuse import expands_itself, shrinks_itself
from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.plan import Plan, Step
from tvm_ergo.codegen.space.order import ROWS, Needs
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.compile.insert_compression import Decision
from tvm_ergo.relay_passes.dialect.traits import Move
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.isa import Decode, Encode, contiguous

NEAR = 1
"""Ops between which readers share a plain copy; what `InsertCompression.near` is."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """One way for one tensor to wait: the decision that makes it, in the graph's names."""

    name: str
    spec: Spec
    decision: Decision
    groups: int  # times it is expanded


@dataclass(frozen=True, eq=False)
class _Group:
    """Steps in which some nodes run, and the rows of the tensor that are plain meanwhile."""

    first: int
    last: int
    rows: int


class Timeline:
    """A plan's live bytes over the parts of its steps, root by root."""

    def __init__(self, plan: Plan | SpacePlan):
        self.plan, self.graph = plan, plan.graph
        self.count = len(plan.steps)
        low, high, self.roots = _hulls(plan)
        self.row = {root: i for i, root in enumerate(self.roots)}
        self.live = np.zeros((len(self.roots), 3 * self.count), np.int64)
        at = np.maximum(high - low, 0)[:, : self.count]
        both = np.maximum(np.minimum(high[:, :-1], high[:, 1:]) - np.maximum(low[:, :-1], low[:, 1:]), 0)
        self.live[:, 1::3], self.live[:, 2::3], self.live[:, 3::3] = (
            at,
            both[:, : self.count],
            both[:, : self.count - 1],
        )
        self.span = {n.id: _Group(*_steps_of(plan, n), 0) for n in self.graph.nodes}
        self.alive = {t.id: self._alive(t.id) for t in self.graph.tensors if t.data is None}
        self.members: dict[int, list[int]] = {}
        for t in self.alive:
            self.members.setdefault(plan.views[t].root, []).append(t)

    def _alive(self, t: int) -> tuple[int, int]:
        """First and last part of a step in which a tensor lives."""
        producer = self.graph.producer.get(t)
        first = 3 * self.span[producer.id].first + 1 if producer else 0
        last = max((3 * self.span[n.id].last + 1 for n in self.graph.consumers[t]), default=first)
        return first, 3 * self.count - 1 if t in self.graph.outputs else max(first, last)

    def alone(self, t: int, family: set[int]) -> np.ndarray:
        """bool[times]: nothing but the tensor and what is only another view of it lives in its buffer."""
        found = np.ones(3 * self.count, bool)
        for other in self.members[self.plan.views[t].root]:
            if other not in family:
                first, last = self.alive[other]
                found[first : last + 1] = False
        return found


def _hulls(plan: Plan | SpacePlan) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """``(low, high, roots)``: int64[roots, steps + 1], occupied bytes of each buffer while each step runs."""
    if isinstance(plan, SpacePlan):
        return plan.rolled.low, plan.rolled.high, plan.rolled.roots
    high = np.zeros((len(plan.problem.buffers), len(plan.steps) + 1), np.int64)
    for i, buffer in enumerate(plan.problem.buffers):
        high[i, buffer.lower : buffer.upper] = buffer.size
    return np.zeros_like(high), high, tuple(b.id for b in plan.problem.buffers)


def _steps_of(plan: Plan | SpacePlan, node: Node) -> tuple[int, int]:
    times = [time for time, step in enumerate(plan.steps) if isinstance(step, Step) and step.node is node]
    return (times[0], times[-1]) if times else (0, 0)


def problem_of(
    plan: Plan | SpacePlan,
    graph: Graph,
    statistics: Mapping[str, TensorStatistics],
    chip: Chip,
    lossless: bool = False,
    rows: bool = False,
) -> Problem:
    """The choices of a plan. graph : the function's, in the function's order (a plan may have another). rows : only
    single rows a tile, which engines expand and shrink themselves where they can."""
    timeline = Timeline(plan)
    model = _Model(timeline, graph, chip)
    choices = []
    for tensor in graph.tensors:
        known = statistics.get(tensor.name)
        if known is not None and plan.views[tensor.id].root in timeline.row and tensor.id not in graph.outputs:
            for spec in (s for s in known.coded if not rows or s.tile_rows == 1):
                choice = (model.coded_rows if rows else model.choice)(tensor.id, spec, known.layout(spec, lossless))
                if choice is not None and (choice.delta < 0).any():
                    choices.append(choice)
    return Problem(timeline.live.sum(axis=0), tuple(choices))


class _Model:
    def __init__(self, timeline: Timeline, graph: Graph, chip: Chip):
        self.timeline, self.graph, self.chip = timeline, graph, chip
        self.needs = Needs(graph)
        self.bands = getattr(timeline.plan, "bands", {})
        self.by_output = {n.outputs[0]: n for n in timeline.graph.nodes}  # nodes as the plan numbers them
        self.staged = {n for last, stage in getattr(timeline.plan, "stages", {}).items() for n in (last, *stage.inner)}
        self.place, place = {}, 0
        for node in graph.nodes:
            place += node.op.traits.move is None
            self.place[node.outputs[0]] = place

    def choice(self, t: int, spec: Spec, layout: SlotLayout) -> Choice | None:
        """None where every reader stands near the producer."""
        producer, (family, readers) = self.by_output[t], self._readers(t)
        near, far = self._groups(t, readers)
        span = self.timeline.span[producer.id]
        height, tile = self.graph.tensors[t].shape[1], layout.tile_rows
        interleaved = [n for n in near if not self.bands or self.timeline.span[self._id(n)].first < span.last]
        if near and len(interleaved) < len(near):
            far, near = [near, *far], []
        if not far:
            return None
        plain = [
            _Group(
                3 * span.first + 1,
                max([3 * span.last + 2, *(3 * self.timeline.span[self._id(n)].last + 1 for n in near)]),
                min(height, tile + self._band(producer) + max([0, *(self._rows_read(n, t) for n in near)])),
            )
        ]
        for group in far:
            spans = [self.timeline.span[self._id(n)] for n in group]
            rows = max(height if self._whole(n) else min(height, self._rows_read(n, t) + 2 * tile - 1) for n in group)
            plain.append(_Group(3 * min(s.first for s in spans), 3 * max(s.last for s in spans) + 1, rows))
        name, shape = self.graph.tensors[t].name, self.graph.tensors[t].shape
        decision = Decision(spec.codec.name, tile, layout.slot_bytes, layout.zero_point, bool(near))
        return Choice(
            t,
            self._delta(t, family, layout, plain),
            self._cost(shape, layout, len(far)),
            Waiting(name, spec, decision, len(far)),
        )

    def coded_rows(self, t: int, spec: Spec, layout: SlotLayout) -> Choice | None:
        """Rows shrunk by the producer and expanded by every reader that can; the others work on a plain copy."""
        producer, (family, readers) = self.by_output[t], self._readers(t)
        if not readers or self.staged & {producer.id, *(self._id(n) for n in readers)}:
            return None  # tiles of a stage are not whole rows
        name, shape = self.graph.tensors[t].name, self.graph.tensors[t].shape
        decision = Decision(spec.codec.name, 1, layout.slot_bytes, layout.zero_point, keep_plain=False, one_copy=True)
        fields = dict(
            codec=decision.codec, tile_rows=1, slot_bytes=decision.slot_bytes, bound=255, out_zp=decision.zero_point
        )
        span, plain = self.timeline.span[producer.id], []
        if not shrinks_itself(self.graph, producer, dialect.Compress(**fields)):
            plain.append(_Group(3 * span.first + 1, 3 * span.last + 2, min(shape[1], 1 + self._band(producer))))
        for node in readers:
            if t in node.inputs and all(
                expands_itself(self.graph, node, i, dialect.Decompress(**fields, shape=shape))
                for i, read in enumerate(node.inputs)
                if read == t
            ):
                continue
            at = self.timeline.span[self._id(node)]
            plain.append(
                _Group(
                    3 * at.first,
                    3 * at.last + 1,
                    shape[1] if self._whole(node) else min(shape[1], self._rows_read(node, t) + 1),
                )
            )
        last = max(self.timeline.span[self._id(n)].last for n in readers)
        return Choice(
            t,
            self._delta(t, family, layout, plain, (3 * span.first + 1, 3 * last + 1)),
            self._cost(shape, layout, len(readers)),
            Waiting(name, spec, decision, len(readers)),
        )

    def _id(self, node: Node) -> int:
        """A node's id in the plan."""
        return self.by_output[node.outputs[0]].id

    def _readers(self, t: int) -> tuple[set[int], list[Node]]:
        """Tensors that are only views of ``t`` in its buffer, and the nodes that read any of them."""
        family, readers, queue = {t}, [], [t]
        while queue:
            for node in self.graph.consumers[queue.pop()]:
                out = node.outputs[0]
                if (
                    node.op.traits.move in (Move.RELABEL, Move.PART)
                    and self.timeline.plan.views[out].root == self.timeline.plan.views[t].root
                    and out not in self.graph.outputs
                ):
                    if out not in family:
                        family.add(out)
                        queue.append(out)
                else:
                    readers.append(node)
        return family, sorted(readers, key=lambda n: n.id)

    def _groups(self, t: int, readers: list[Node]) -> tuple[list[Node], list[list[Node]]]:
        """``(readers of what the producer wrote, groups of later ones that share a copy)``."""
        near, far, last = [], [], self.place[t]
        for node in readers:
            at = self.place[node.outputs[0]]
            if at - last <= NEAR:
                (far[-1] if far else near).append(node)
            else:
                far.append([node])
            last = at
        return near, far

    def _whole(self, node: Node) -> bool:
        return self._id(node) not in self.bands or not self.needs.bandable[node.id]

    def _band(self, node: Node) -> int:
        """Rows a step of a node (as the plan numbers it) makes."""
        return self.bands.get(node.id, self.graph.tensors[node.outputs[0]].shape[1])

    def _rows_read(self, node: Node, t: int) -> int:
        """Rows of ``t`` that a step of a reader needs."""
        height = self.graph.tensors[t].shape[1]
        if self._whole(node) or t not in node.inputs:
            return height
        rows = self._band(self.by_output[node.outputs[0]])
        begin = max(0, (self.needs.height(node) - rows) // 2)
        boxes = self.needs.inputs(node, begin, begin + rows)
        return min(height, max(b[ROWS][1] - b[ROWS][0] for i, b in zip(node.inputs, boxes, strict=True) if i == t))

    def _delta(
        self, t: int, family: set[int], layout: SlotLayout, plain: list[_Group], life: tuple[int, int] | None = None
    ) -> np.ndarray:
        """life : first and last time at which there are slots; by default from the end of the first group to the
        beginning of the last."""
        timeline, shape = self.timeline, self.graph.tensors[t].shape
        live = timeline.live[timeline.row[timeline.plan.views[t].root]]
        row_bytes, tiles = shape[2] * shape[3], layout.tiles(shape[1])
        slots, rows = np.zeros_like(live), np.zeros_like(live)
        begin, end = life or (
            (plain[0].first if self.bands else plain[0].last),
            (plain[-1].last if self.bands else plain[-1].first),
        )
        held = np.minimum(tiles, -(-live[begin : end + 1] // (row_bytes * layout.tile_rows)) + (layout.tile_rows > 1))
        slots[begin : end + 1] = layout.slot_bytes * np.where(live[begin : end + 1] > 0, held, 0)
        for group in plain:
            rows[group.first : group.last + 1] += group.rows
        first, last = timeline.alive[t][0], max(timeline.alive[f][1] for f in family)
        delta = slots.copy()
        inside = timeline.alone(t, family)
        inside[:first] = inside[last + 1 :] = False
        delta[inside] += rows[inside] * row_bytes - live[inside]
        return delta

    def _cost(self, shape: tuple[int, ...], layout: SlotLayout, groups: int) -> int:
        """Cycles of one encoder and so many decoders over the whole tensor."""
        x = contiguous(0, "int8", shape[1:])
        slots = contiguous(0, "uint8", (layout.tiles(shape[1]), layout.slot_bytes))
        encode = Encode(x=x, out=slots, codec=layout.codec, tile_rows=layout.tile_rows, zero_point=layout.zero_point)
        decode = Decode(
            x=slots,
            out=x,
            codec=layout.codec,
            tile_rows=layout.tile_rows,
            last_rows=(shape[1] - 1) % layout.tile_rows + 1,
            skip=0,
            zero_point=layout.zero_point,
        )
        return encode.cost(self.chip).cycles + groups * decode.cost(self.chip).cycles
