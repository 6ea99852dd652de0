"""What a search over stages and rows puts together: runs of layers between two cuts, and the ways to carry each out.

A *unit* is what lies between two neighbouring cuts of the graph (places where one tensor crosses): one node of a chain,
or a block with its branches. An *element* is a run of units carried out in one way while rows stream through it: every
node keeps a window of rows (rolling), or some nodes are the inner ones of a `Stage`. A first few rows of it, run alone,
show what it costs: bytes that wait, bytes while a tile is made, cycles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.space.cost import StepCosts
from tvm_ergo.codegen.space.extents import boxes_of_inner, compact, extents
from tvm_ergo.codegen.space.order import Needs, first_steps, tileable
from tvm_ergo.codegen.space.plan import inner_tensors, times_by_id
from tvm_ergo.codegen.space.stages import Stage, widened
from tvm_ergo.codegen.views import resolve
from tvm_ergo.codegen.weights.coding import figures

ROLL_ROWS = (1, 2, 4, 8, 16)
"""Rows a step of a rolling element makes, tried in this order."""
STAGE_ROWS = (1, 2, 4)
SPLITS = (1, 2, 3, 4, 8)
"""Tiles that a band of a stage is cut into, along the columns or along the channels."""
MAX_STAGE_NODES = 9
MAX_STAGE_UNITS = 5
MAX_MAC_FACTOR = 4.0
"""A stage that multiplies its own multiply-accumulates by more than this is not considered."""
PER_CHANNEL = (
    "depthwise_conv2d",
    "max_pool2d",
    "avg_pool2d",
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "add",
    "mul",
    "maximum",
    "minimum",
    "table",
    "running_sum",
)
"""Ops of which a chunk of channels needs that chunk of the inputs only."""


@dataclass(frozen=True)
class Element:
    """Units ``[first, last]`` carried out in one way.

    bands, stages : as in `band_steps`, of its nodes. waiting_bytes : what is alive between bands: the window of its
    input but for the row that comes last, what rolls inside, rows of its output beyond one. input_bytes : of these, its
    input's. scratch_bytes : what is alive besides while a band is made. window_bytes, tile_bytes : the same divided
    otherwise: all windows at their fullest, and what tiles need. macs, cycles, energy_pj : of all its rows, estimated
    from the first ones."""

    first: int
    last: int
    bands: tuple[tuple[int, int], ...]
    stages: tuple[tuple[int, Stage], ...]
    waiting_bytes: int
    input_bytes: int
    scratch_bytes: int
    window_bytes: int
    tile_bytes: int
    macs: int
    cycles: int
    energy_pj: float


class Elements:
    """Every element of a graph worth considering, found by running the first rows of each; equal runs of layers are
    looked at once."""

    def __init__(
        self,
        graph: Graph,
        units: Sequence[tuple[Node, ...]],
        options: Options,
        needs: Needs,
        costs: StepCosts,
        footprints: dict | None = None,
    ):
        self.graph, self.units, self.options, self.needs, self.costs = graph, tuple(units), options, needs, costs
        self.tileable = {node.id: tileable(graph, node) for node in graph.nodes}
        self._footprints: dict[tuple, tuple | None] = {} if footprints is None else footprints
        self.simulated = 0

    def of(self, first: int, last: int) -> list[Element]:
        """The ways to carry out the units ``[first, last]``, none of them worse than another in all respects."""
        nodes = tuple(node for unit in self.units[first : last + 1] for node in unit)
        found = [self._measured(first, last, nodes, bands, stages) for bands, stages in self._ways(first, last, nodes)]
        return undominated([e for e in found if e is not None])

    def _ways(
        self, first: int, last: int, nodes: tuple[Node, ...]
    ) -> Iterator[tuple[dict[int, int], dict[int, Stage]]]:
        """Bands and stages of each way: rolling ones for a single unit, a stage of all nodes, stages that end within a
        unit."""
        if first == last:
            heights = {node.id: self.needs.height(node) for node in nodes}
            top = max(heights.values())
            for rows in ROLL_ROWS:
                if rows == 1 or rows < top:
                    yield {n: max(1, rows * h // top) for n, h in heights.items() if h > 1}, {}
        if len(nodes) > MAX_STAGE_NODES or last - first >= MAX_STAGE_UNITS:
            return
        ends = nodes[1:] if first == last else nodes[-1:]
        for end in ends:
            for inner in self._inner_sets(nodes, end, first == last):
                for rows, stage in self._tiles(end, inner):
                    bands = {n.id: 1 for n in nodes if self.needs.height(n) > 1 and n.id not in inner}
                    if self.needs.height(end) > 1:
                        bands[end.id] = rows
                    yield bands, {end.id: stage}

    def _inner_sets(self, nodes: tuple[Node, ...], end: Node, partly: bool) -> list[tuple[int, ...]]:
        """Inner nodes of stages that end with ``end``: one step back, two, ..., as far as the run allows; only all of
        them unless ``partly``."""
        if not self.tileable[end.id]:
            return []
        ids, members, sets = {n.id for n in nodes}, [end], []
        while True:
            more = [n for n in widened(self.graph, lambda n: self.tileable[n.id] and n.id in ids, members)]
            if not more:
                break
            members += more
            sets.append(tuple(sorted(n.id for n in members[1:])))
        if not partly:
            return [s for s in sets if len(s) == len(nodes) - 1]
        return sets

    def _tiles(self, end: Node, inner: tuple[int, ...]) -> Iterator[tuple[int, Stage]]:
        shape = self.graph.tensors[end.outputs[0]].shape
        columns, channels = (shape[2] if len(shape) == 4 else 1), shape[-1]
        for rows in STAGE_ROWS if self.needs.height(end) > 1 else (1,):
            for split in SPLITS:
                if split == 1 or columns >= 2 * split:
                    yield rows, Stage(inner, columns=-(-columns // split) if split > 1 else 0)
                if split > 1 and type(end.op).op_name in PER_CHANNEL and channels >= 8 * split:
                    yield rows, Stage(inner, channels=-(-channels // split))

    def _measured(
        self, first: int, last: int, nodes, bands: dict[int, int], stages: dict[int, Stage]
    ) -> Element | None:
        key = self._signature(nodes, bands, stages)
        if key not in self._footprints:
            self._footprints[key] = self._footprint(nodes, bands, stages)
            self.simulated += 1
        numbers = self._footprints[key]
        if numbers is None:
            return None
        return Element(first, last, tuple(bands.items()), tuple(stages.items()), *numbers)

    def _footprint(self, nodes, bands, stages) -> tuple | None:
        """``(waiting, input, scratch, macs, cycles, energy)`` of a run of nodes: its first rows, alone."""
        part = replace(self.graph, nodes=nodes, inputs=(), outputs=())
        end = nodes[-1]
        height = self.needs.height(end)
        steps = first_steps(part, bands, self.needs, stages, end, min(height, 2 * bands.get(end.id, height) + 4))
        done = max((s.region[1][1] for s in steps if s.node is end), default=1) if height > 1 else 1
        macs = sum(self.costs.macs(s) for s in steps) * height // done
        usual = sum(node.op.macs(self.graph.shapes(node)) for node in nodes)
        if stages and macs > MAX_MAC_FACTOR * max(usual, 1):
            return None
        inner = inner_tensors(part, stages)
        views = resolve(part, self.options, times_by_id(part, steps, {n.id for n in nodes}), inner)
        views = compact(views, boxes_of_inner(part, steps, inner))
        live = extents(part, steps, views, self.needs, inner)
        held = np.maximum(live.high - live.low, 0)
        made = {views[t].root for node in nodes for t in node.outputs}
        output = views[end.outputs[0]].root
        incoming = held[[root not in made for root in live.roots]].sum(axis=0)
        inside = held[[root in made and root != output for root in live.roots]].sum(axis=0)
        ends = [
            time + 1
            for time, step in enumerate(steps)
            if step.node is end
            and step.region[-1][1] == self._channels(end)
            and (len(step.region) < 4 or step.region[2][1] == self.graph.tensors[end.outputs[0]].shape[2])
        ]
        row = sum(self.graph.tensors[root].size_bytes // self._height(root) for root in live.roots if root not in made)
        window = int(incoming.max(initial=0))
        resting_inside = int(inside[ends].max(initial=0))
        waiting = max(window - row, int(incoming[ends].max(initial=0)))
        scratch = int((incoming + inside).max(initial=0)) - waiting - resting_inside
        cycles, energy_pj = self.costs.total(steps)
        size = self.graph.tensors[end.outputs[0]].size_bytes
        ahead = (
            size * (min(bands.get(end.id, height), height) - 1) // height
        )  # rows made before the next element asks for them
        made_anew = held[[root in live.inner for root in live.roots]].sum(axis=0)
        rolling = sum(
            int(held[i].max(initial=0))
            for i, root in enumerate(live.roots)
            if root in made and root != output and root not in live.inner
        )
        return (
            waiting + resting_inside + ahead,
            waiting,
            max(scratch, 0),
            window + rolling + ahead,
            int(made_anew.max(initial=0)),
            macs,
            cycles * height // done,
            energy_pj * height / done,
        )

    def _channels(self, node: Node) -> int:
        return self.graph.tensors[node.outputs[0]].shape[-1]

    def _height(self, t: int) -> int:
        shape = self.graph.tensors[t].shape
        return shape[1] if len(shape) == 4 else 1

    def _signature(self, nodes, bands, stages) -> tuple:
        """Equal for runs of layers that differ in names, quantization and weights only; of coded weights the streams
        are as long."""
        number = {t: i for i, t in enumerate(dict.fromkeys(t for node in nodes for t in (*node.inputs, *node.outputs)))}
        place = {node.id: i for i, node in enumerate(nodes)}
        layers = tuple(
            (
                type(n.op),
                getattr(n.op, "expands", ()),
                getattr(n.op, "shrinks", None),
                None if n.table is None else self.graph.tensors[n.table.lut].shape,
                type(n.inner),
                tuple(getattr(n.inner, f.name) for f in fields(n.inner) if f.name in SHAPING),
                tuple(
                    (
                        number[t],
                        self.graph.tensors[t].shape,
                        self.graph.tensors[t].dtype,
                        self.graph.tensors[t].data is None,
                        t in self.graph.streams,
                        figures(self.graph.tensors[t]),
                    )
                    for t in (*n.inputs, *n.outputs)
                ),
            )
            for n in nodes
        )
        return (
            layers,
            tuple((place[n], rows) for n, rows in bands.items()),
            tuple((place[n], replace(s, inner=tuple(place[i] for i in s.inner))) for n, s in stages.items()),
        )


SHAPING = (
    "strides",
    "padding",
    "dilation",
    "groups",
    "pool",
    "axes",
    "keepdims",
    "axis",
    "begin",
    "end",
    "perm",
    "pad_width",
    "shape",
    "count_include_pad",
    "transpose_b",
)
"""Fields of ops that decide which boxes are read."""


def undominated(elements: Sequence[Element]) -> list[Element]:
    """Those that no other beats or equals in bytes, cycles and multiply-accumulates."""
    kept: list[tuple[tuple[int, ...], Element]] = []
    for e in sorted(elements, key=lambda e: (e.waiting_bytes, e.scratch_bytes, e.cycles)):
        figures = (e.waiting_bytes, e.scratch_bytes, e.window_bytes, e.tile_bytes, e.cycles, e.macs)
        if not any(all(a <= b for a, b in zip(other, figures)) for other, _ in kept):
            kept.append((figures, e))
    return [e for _, e in kept]
