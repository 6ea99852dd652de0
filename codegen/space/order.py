"""Steps by demand: a node computes its next band of rows when a consumer needs them, and no row twice.

A plan in space is one number a node: its band height in rows. A node whose band is its whole height is a barrier:
everything it needs has run before it, everything behind it runs after; a banded node can be made one. Between barriers
the rows of all layers interleave, so that each tensor holds little more than a kernel's rows. Residual branches,
strides and halos need no rule of their own: ``input_regions`` says which rows a band needs, and a tensor keeps what
somebody will still read. What a `Stage` computes inside itself (``stages``) is the exception: it is made anew for every
tile of the stage's last node, halo included, and never waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.plan import Step
from tvm_ergo.codegen.space.stages import Stage, inner_boxes, tiles_of
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.traits import Rows

ROWS, COLUMNS = 1, 2  # axes in [N, H, W, C]


def bandable(graph: Graph, node: Node) -> bool:
    """Whether the node can compute some rows of its output alone: one picture, rows independent, each seeing some of
    the input."""
    shape = graph.tensors[node.outputs[0]].shape
    if len(shape) != 4 or shape[0] != 1 or shape[ROWS] < 2 or len(node.outputs) != 1:
        return False
    op, rows = node.inner, node.inner.traits.rows
    if rows is Rows.TILES:
        return True  # bands of tiles, and of rows out of the tiles that hold them
    if rows is Rows.REDUCED:
        return op.keepdims and ROWS not in op.axes and 0 not in op.axes
    if rows is Rows.SAME:
        # rows joined from several tensors, or spread from one row, stay whole
        ranks = all(len(graph.tensors[t].shape) == 4 or graph.tensors[t].data is not None for t in node.inputs)
        return ranks and not (isinstance(op, dialect.Concat) and op.axis == ROWS)
    return rows is Rows.WINDOW and sees_input(graph, node)


def sees_input(graph: Graph, node: Node, axis: int = ROWS) -> bool:
    """No row (column) of output whose whole window lies in the padding (legal, but no instruction can compute it
    alone)."""
    op, extent = node.inner, graph.tensors[node.inputs[0]].shape[axis]
    if op.traits.kernel_axis is None:
        return True
    kernel = graph.tensors[node.inputs[1]].shape[op.traits.kernel_axis + axis - ROWS]
    before, stride = op.padding[axis - 1], op.strides[axis - 1]
    last = (graph.tensors[node.outputs[0]].shape[axis] - 1) * stride - before
    return before <= (kernel - 1) * op.dilation[axis - 1] and last < extent


def tileable(graph: Graph, node: Node) -> bool:
    """Whether the node can compute any box of its output alone, from the boxes its op names: the nodes a stage is made
    of."""
    shape = graph.tensors[node.outputs[0]].shape
    if len(node.outputs) != 1 or not shape or shape[0] != 1:
        return False
    op, traits = node.op, node.op.traits
    if traits.rows is Rows.REDUCED:
        return 0 not in op.axes and len(graph.tensors[node.inputs[0]].shape) - 1 not in op.axes
    if len(shape) != 4:
        return False
    if traits.once:
        return False  # a sender does not repeat itself
    if traits.accumulates:
        return True
    if traits.rows is Rows.SAME:
        return all(len(graph.tensors[t].shape) == 4 or graph.tensors[t].data is not None for t in node.inputs)
    return traits.rows is Rows.WINDOW and sees_input(graph, node) and sees_input(graph, node, axis=COLUMNS)


class Needs:
    """``input_regions`` of a node's rows, remembered: a search asks the same again and again."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.bandable = {node.id: bandable(graph, node) for node in graph.nodes}
        self._known: dict[tuple[int, Region], list[Region]] = {}
        self.producers: dict[tuple, tuple[tuple[int, int], ...]] = {}
        """Of `_Order._pulled`."""
        self.inside: dict[tuple, dict[int, Region]] = {}
        """Boxes of a stage's inner nodes (`stages.inner_boxes`), by the stage's nodes and the box of the last."""
        self.touched: dict[tuple, dict[Region, list[tuple[int, int, int]]]] = {}
        """Of `extents.accesses`, by node and views, then by box."""

    def height(self, node: Node) -> int:
        """Rows of the output; 1 where it is computed whole in any case."""
        return self.graph.tensors[node.outputs[0]].shape[ROWS] if self.bandable[node.id] else 1

    def region(self, node: Node, begin: int, end: int) -> Region:
        """The box of rows ``[begin, end)`` of the output; all of it for a node that is not bandable."""
        whole = self.graph.tensors[node.outputs[0]].region
        return (*whole[:ROWS], (begin, end), *whole[ROWS + 1 :]) if self.bandable[node.id] else whole

    def boxes(self, node: Node, region: Region) -> list[Region]:
        """Boxes of the inputs read for a box of the output. A whole node reads all of every input."""
        if region == self.graph.tensors[node.outputs[0]].region and not self.bandable[node.id]:
            return [self.graph.tensors[t].region for t in node.inputs]
        key = (node.id, region)
        if key not in self._known:
            values = [self.graph.tensors[t].data for t in node.inputs]
            self._known[key] = node.op.input_regions(region, self.graph.shapes(node), values)
        return self._known[key]

    def inputs(self, node: Node, begin: int, end: int) -> list[Region]:
        """`boxes` of the rows ``[begin, end)``."""
        return self.boxes(node, self.region(node, begin, end))


def is_empty(region: Region) -> bool:
    """Whether a box has no element."""
    return any(begin >= end for begin, end in region)


def band_steps(
    graph: Graph,
    bands: Mapping[int, int],
    needs: Needs | None = None,
    barriers: Set[int] = frozenset(),
    stages: Mapping[int, Stage] = MappingProxyType({}),
) -> tuple[Step, ...]:
    """The steps of every node, producers first.

    bands : rows a step of each node id computes; nodes without an entry, or with at least their height, run whole.
    barriers : ids of banded nodes all of whose bands run before anything behind them does. stages : by the id of their
    last node."""
    return _Order(graph, bands, needs or Needs(graph), barriers, stages).run()


def first_steps(
    graph: Graph, bands: Mapping[int, int], needs: Needs, stages: Mapping[int, Stage], node: Node, rows: int
) -> tuple[Step, ...]:
    """The steps that make the first ``rows`` rows of a node, as in `band_steps`."""
    order = _Order(graph, bands, needs, frozenset(), stages)
    order.produce(node, rows)
    return tuple(order.steps)


class _Order:
    def __init__(
        self, graph: Graph, bands: Mapping[int, int], needs: Needs, barriers: Set[int], stages: Mapping[int, Stage]
    ):
        self.graph, self.needs, self.barriers, self.stages = graph, needs, barriers, stages
        self.inner = {node for stage in stages.values() for node in stage.inner}
        self.nodes = [node for node in graph.nodes if node.id not in self.inner]
        self.by_id = {node.id: node for node in graph.nodes}
        self.height = {node.id: needs.height(node) for node in graph.nodes}
        self.band = {n.id: min(max(1, bands.get(n.id, self.height[n.id])), self.height[n.id]) for n in graph.nodes}
        self.done = dict.fromkeys(self.height, 0)
        self.steps: list[Step] = []

    def run(self) -> tuple[Step, ...]:
        """Barriers in the given order pull what they need; at the end outputs and nodes that nobody pulled."""
        wanted = set(self.graph.outputs)
        for node in self.nodes:
            if self.band[node.id] == self.height[node.id] or node.id in self.barriers:
                self.produce(node, self.height[node.id])
        for node in self.nodes:
            if wanted.intersection(node.outputs):
                self.produce(node, self.height[node.id])
        for node in reversed(self.nodes):
            if self.done[node.id] == 0:
                self.produce(node, self.height[node.id])
        return tuple(self.steps)

    def produce(self, node: Node, rows: int) -> None:
        """Runs bands of ``node`` until its first ``rows`` rows exist; an explicit stack, as networks are deep."""
        stack = [(node, rows)]
        while stack:
            node, rows = stack[-1]
            begin = self.done[node.id]
            if begin >= rows:
                stack.pop()
                continue
            end = min(begin + self.band[node.id], self.height[node.id])
            missing = self._missing(node, begin, end)
            if missing is None:
                self._band(node, self.needs.region(node, begin, end))
                self.done[node.id] = end
            else:
                stack.append(missing)

    def _band(self, node: Node, region: Region) -> None:
        """The steps of one band: one, or for the last node of a stage the stage's nodes tile by tile."""
        stage = self.stages.get(node.id)
        if stage is None:
            self.steps.append(Step(node, region))
            return
        for tile in tiles_of(region, stage):
            boxes = self._inside(node, tile)
            self.steps += [Step(self.by_id[i], box) for i, box in boxes.items()]
            self.steps.append(Step(node, tile))

    def _reads(self, node: Node, begin: int, end: int) -> Iterator[tuple[int, Region]]:
        """Tensors and boxes of them that a band reads from outside its stage."""
        region = self.needs.region(node, begin, end)
        boxes = {node.id: region}
        if node.id in self.stages:
            boxes |= self._inside(node, region)
        for i, box in boxes.items():
            yield from zip(self.by_id[i].inputs, self.needs.boxes(self.by_id[i], box), strict=True)

    def _inside(self, node: Node, region: Region) -> dict[int, Region]:
        """The boxes of the inner nodes of a stage that a box of its last node needs."""
        stage = self.stages[node.id]
        key = node.id, stage.inner, region
        if key not in self.needs.inside:
            self.needs.inside[key] = inner_boxes(self.by_id, self.needs, stage, node, region)
        return self.needs.inside[key]

    def _pulled(self, node: Node, begin: int, end: int) -> tuple[tuple[int, int], ...]:
        """The ids of the producers that a band reads from, those outside a part of a graph too, and how many rows each
        must have made."""
        key = node.id, self.stages[node.id].inner if node.id in self.stages else (), begin, end
        if key not in self.needs.producers:
            producers = self.needs.graph.producer
            read = [
                (producers[t].id, region)
                for t, region in self._reads(node, begin, end)
                if t in producers and not is_empty(region)
            ]
            self.needs.producers[key] = tuple(
                dict.fromkeys((n, region[ROWS][1] if self.needs.bandable[n] else 1) for n, region in read)
            )
        return self.needs.producers[key]

    def _missing(self, node: Node, begin: int, end: int) -> tuple[Node, int] | None:
        """The first producer that has not made the rows which ``[begin, end)`` of ``node`` needs, and how many it must
        have made."""
        for producer, rows in self._pulled(node, begin, end):
            if self.done.get(producer, rows) < rows and producer not in self.inner:
                return self.by_id[producer], rows
        return None
