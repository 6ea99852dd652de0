"""A plan in space: steps over bands of rows, rolling buffers, and places that take over released bytes. A plain,
printable value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node, Region
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import NOTHING_SHARED, Life, Step, memory_problem, node_times, place_constants, whole_steps
from tvm_ergo.codegen.space.extents import boxes_of_inner, compact, extents, interval
from tvm_ergo.codegen.space.lives import merged
from tvm_ergo.codegen.space.order import ROWS, Needs, band_steps
from tvm_ergo.codegen.space.place import RANDOM_ORDERS, Profiles, place
from tvm_ergo.codegen.space.place_exact import EFFORT, tightened
from tvm_ergo.codegen.space.rolling import Rolled, Shift, roll
from tvm_ergo.codegen.space.stages import Stage
from tvm_ergo.codegen.strided import View, elements
from tvm_ergo.codegen.views import NodeTime, resolve
from tvm_ergo.codegen.weights.panels import Panels
from tvm_ergo.codegen.weights.sparse import SparseWeights
from tvm_ergo.target.isa import Operand


@dataclass(frozen=True)
class Subproblem:
    """A part of the graph between two cuts and what was chosen for it. nodes : ids. how : "whole", "rows" or "tiles"
    (the coarsest there is of it).

    peak_bytes, cycles, energy_pj, macs : of the way chosen; whole_bytes : peak of the same layers run whole; ways : how
    many there were to choose from."""

    nodes: tuple[int, ...]
    how: str
    peak_bytes: int
    whole_bytes: int
    cycles: int
    energy_pj: float
    macs: int
    ways: int


@dataclass(frozen=True, eq=False)
class SpacePlan:
    """What `codegen.plan.Plan` is, for steps that compute bands of rows.

    bands : rows a step computes, by node id (nodes without an entry run whole). barriers : banded nodes that end a
    group. stages : nodes computed tile by tile, by the id of the last one. rolled : the steps, shifts included, and
    what each root occupies when. offsets : int64[roots], from ``constant_bytes``. subproblems : where the search that
    chose the bands cut the graph, none for bands chosen by hand. Other fields as in Plan."""

    graph: Graph
    bands: dict[int, int]
    barriers: frozenset[int]
    rolled: Rolled
    views: tuple[View, ...]
    offsets: np.ndarray
    constants: dict[int, int]
    constant_bytes: int
    bound_bytes: int
    options: Options
    stages: Mapping[int, Stage] = field(default_factory=dict)
    subproblems: tuple[Subproblem, ...] = ()

    @cached_property
    def inner(self) -> frozenset[int]:
        """Tensors that stages make anew for every tile."""
        return inner_tensors(self.graph, self.stages)

    @cached_property
    def row(self) -> dict[int, int]:
        """The row of each root in the arrays."""
        return {root: i for i, root in enumerate(self.rolled.roots)}

    @property
    def steps(self) -> tuple:
        return self.rolled.steps

    @cached_property
    def activation_bytes(self) -> int:
        """The end of the highest byte ever occupied, input frame included."""
        return int((self.offsets + self.rolled.high.max(axis=1, initial=0)).max(initial=0))

    @property
    def alignment_bytes(self) -> int:
        """Addresses of activations are multiples of this."""
        return _alignment(self.graph, self.bands, self.options, self.rolled)

    @property
    def memory_bytes(self) -> int:
        return self.constant_bytes + self.activation_bytes

    @cached_property
    def live_bytes(self) -> int:
        """Most bytes occupied at one time: the least that any placement of these steps needs."""
        return int(self.rolled.live_bytes().max(initial=0))

    def placed(self, t: int, time: int = 0) -> View:
        """Where a tensor lies at a step. Of a rolling tensor only the window's rows are there; its other rows are
        others' bytes."""
        view = self.views[t]
        if view.root in self.constants:
            return view.moved(-1, self.constants[view.root])
        i = self.row.get(view.root)
        if i is None:  # a tensor without elements or readers
            return view.moved(-1, self.constant_bytes)
        return view.moved(-1, self.constant_bytes + int(self.offsets[i] - self.rolled.origin[i, time]))

    @cached_property
    def panels(self) -> Panels:
        """The coded constants."""
        return Panels(self.graph, self.steps)

    def panel(self, t: int, box: Region) -> Operand | None:
        """As `Plan.panel`."""
        return self.panels.operand(t, box, self.constants.get(t, 0))

    def sparse(self, t: int, box: Region) -> tuple[Operand, SparseWeights] | None:
        """As `Plan.sparse`."""
        return self.panels.sparse(t, box, self.constants.get(t, 0))

    def is_whole(self, t: int, time: int) -> bool:
        """Whether all of a tensor can be read just after the step ``time`` that completes it."""
        i = self.row.get(self.views[t].root)
        if i is None or 0 in self.graph.tensors[t].shape:
            return True
        view = self.views[t]
        if t in self.inner or any(
            stride == 0 and extent > 1 for stride, extent in zip(view.strides, view.shape, strict=True)
        ):
            return False
        low, high = interval(self.views[t], self.graph.tensors[t].region)
        origin = self.rolled.origin[i, time]
        if low - origin < self.rolled.low[i, time] or high - origin > self.rolled.high[i, time]:
            return False
        producer = self.graph.producer[t].id
        if self._computed[producer] < elements(self.graph.tensors[t].region):
            return False  # rows that nobody reads were left out
        begun = self._begun[producer]
        return not any(
            begun < self._begun[n.id] < time
            for n in self.graph.nodes
            if n.op.traits.in_place and self.views[n.outputs[0]].root == self.views[t].root
        )

    @cached_property
    def _computed(self) -> dict[int, int]:
        """Elements each node computes, over all its steps."""
        counts = dict.fromkeys((node.id for node in self.graph.nodes), 0)
        for step in self.steps:
            if isinstance(step, Step):
                counts[step.node.id] += elements(step.region)
        return counts

    @cached_property
    def _begun(self) -> dict[int, int]:
        """The first step of each node."""
        return {step.node.id: time for time, step in reversed(list(enumerate(self.steps))) if isinstance(step, Step)}

    def lives(self) -> list[Life]:
        """The memory map: what each root occupies during which steps, neighbouring times merged to few pieces a
        root."""
        found = []
        for root, i in self.row.items():
            pieces = merged(self.rolled.low[i], self.rolled.high[i])
            base = self.constant_bytes + int(self.offsets[i])
            found += [Life(root, base + low, high - low, first, last) for low, high, first, last in pieces]
        return found

    def groups(self) -> list[list[Node]]:
        """The nodes that run in more than one step, those whose steps interleave together, in the given order."""
        last = {step.node.id: time for time, step in enumerate(self.steps) if isinstance(step, Step)}
        found: list[list[Node]] = []
        until = -1
        for node in sorted(
            (n for n in self.graph.nodes if n.id in last and last[n.id] > self._begun[n.id]),
            key=lambda n: self._begun[n.id],
        ):
            if self._begun[node.id] > until:
                found.append([])
            found[-1].append(node)
            until = max(until, last[node.id])
        return found

    def report(self) -> dict:
        """What reports show of the order in space: groups, band heights, and what they cost beside whole layers."""
        graph = self.graph
        sizes = {graph.tensors[root].name: graph.tensors[root].size_bytes for root in self.rolled.roots}
        rolling = [graph.tensors[root].name for root in self.rolled.roots if root in self.rolled.rolling]
        by_id = {node.id: node for node in graph.nodes}
        heights = {
            node.id: graph.tensors[node.outputs[0]].shape[ROWS] if len(graph.tensors[node.outputs[0]].shape) == 4 else 1
            for node in graph.nodes
        }
        return {
            "groups": [
                {
                    "nodes": [n.name for n in group],
                    "layers": list(dict.fromkeys(n.op.name or n.name for n in group)),
                    "band_rows": [self.bands.get(n.id, heights[n.id]) for n in group],
                }
                for group in self.groups()
            ],
            "stages": [self._stage(last, by_id, heights) for last in self.stages],
            "sizes": sizes,
            "mac_overhead": macs_of(self) / max(graph.macs(), 1),
            "copied_bytes": self.rolled.copied_bytes,
            "rolling": rolling,
            "activation_bytes": self.activation_bytes,
            "subproblems": [self._part(part, by_id, heights) for part in self.subproblems],
        }

    def _stage(self, last: int, by_id: Mapping[int, Node], heights: Mapping[int, int]) -> dict:
        stage, node = self.stages[last], by_id[last]
        inner = [by_id[i] for i in stage.inner]
        return {
            "last": node.name,
            "inner": [n.name for n in inner],
            "layers": list(dict.fromkeys(n.op.name or n.name for n in (*inner, node))),
            "rows": self.bands.get(last, heights[last]),
            "of_rows": heights[last],
            "columns": stage.columns,
            "channels": stage.channels,
        }

    def _part(self, part: Subproblem, by_id: Mapping[int, Node], heights: Mapping[int, int]) -> dict:
        nodes = [by_id[i] for i in part.nodes]
        usual = sum(node.op.macs(self.graph.shapes(node)) for node in nodes)
        return {
            "layers": list(dict.fromkeys(n.op.name or n.name for n in nodes)),
            "how": part.how,
            "peak_bytes": part.peak_bytes,
            "whole_bytes": part.whole_bytes,
            "cycles": part.cycles,
            "energy_pj": part.energy_pj,
            "mac_overhead": part.macs / usual if usual else 1.0,
            "ways": part.ways,
            "stages": [self._stage(i, by_id, heights) for i in part.nodes if i in self.stages],
            "rolling_rows": {
                by_id[i].op.name or by_id[i].name: self.bands[i]
                for i in part.nodes
                if i in self.bands and i not in self.stages and by_id[i].outputs[0] not in self.inner
            },
        }

    def __str__(self) -> str:
        graph = self.graph
        lines = [
            f"plan in space of {graph.name}: {self.constant_bytes} constant bytes, {self.activation_bytes} activation "
            f"bytes"
        ]
        for time, step in enumerate(self.steps):
            if isinstance(step, Shift):
                lines.append(
                    f"{time:5d} shift {graph.tensors[step.root].name} {step.size_bytes} bytes by {step.new - step.old}"
                )
            else:
                box = "x".join(f"{b}:{e}" for b, e in step.region)
                lines.append(
                    f"{time:5d} {type(step.node.op).__name__:16s} {graph.tensors[step.node.outputs[0]].name} [{box}]"
                )
        for root, i in self.row.items():
            lines.append(
                f"      {graph.tensors[root].name}: {int(self.rolled.capacity[i])} of "
                f"{graph.tensors[root].size_bytes} bytes at "
                f"{self.constant_bytes + int(self.offsets[i])}"
            )
        return "\n".join(lines)


def make_space_plan(
    graph: Graph,
    bands: Mapping[int, int],
    options: Options = Options(),
    *,
    barriers: Set[int] = frozenset(),
    stages: Mapping[int, Stage] = MappingProxyType({}),
    needs: Needs | None = None,
    slack: float = 0.0,
    random_orders: int = RANDOM_ORDERS,
) -> SpacePlan:
    """The plan with these band heights and stages, whatever memory it needs.

    bands, barriers, stages : see `order.band_steps`. slack : see `rolling.roll`. random_orders : effort of the
    placement."""
    needs = needs or Needs(graph)
    views, rolled = arranged(graph, band_steps(graph, bands, needs, barriers, stages), options, needs, stages, slack)
    whole = whole_steps(graph)
    bound = memory_problem(graph, whole, resolve(graph, NOTHING_SHARED, node_times(graph, whole)), 1).lower_bound()
    alignment = _alignment(graph, bands, options, rolled)
    constants, constant_bytes = place_constants(graph, views, max(options.alignment_bytes, alignment), rolled.steps)
    offsets = place(Profiles.of(rolled.low, rolled.high), alignment, random_orders)
    return SpacePlan(
        graph,
        dict(bands),
        frozenset(barriers),
        rolled,
        views,
        offsets,
        constants,
        constant_bytes,
        bound,
        options,
        dict(stages),
    )


def _alignment(graph: Graph, bands: Mapping[int, int], options: Options, rolled: Rolled) -> int:
    return max([options.alignment_bytes if not bands else 1, *(graph.tensors[root].itemsize for root in rolled.roots)])


def tighter(plan: SpacePlan, effort: float = EFFORT) -> SpacePlan:
    """The same steps at addresses found by a longer search, where that lowers the peak."""
    profiles = Profiles.of(plan.rolled.low, plan.rolled.high)
    return replace(plan, offsets=tightened(profiles, plan.alignment_bytes, plan.offsets, effort))


def arranged(
    graph: Graph,
    steps: Sequence[Step],
    options: Options,
    needs: Needs,
    stages: Mapping[int, Stage] = MappingProxyType({}),
    slack: float = 0.0,
) -> tuple[tuple[View, ...], Rolled]:
    """Where each tensor lies in its buffer, and what each buffer occupies when, before anything has an address."""
    inner = inner_tensors(graph, stages)
    views = resolve(
        graph, options, times_by_id(graph, steps, {node for stage in stages.values() for node in stage.inner}), inner
    )
    views = compact(views, boxes_of_inner(graph, steps, inner))
    sizes = {view.root: graph.tensors[view.root].size_bytes for view in views}
    return views, roll(steps, extents(graph, steps, views, needs, inner), views, sizes, slack)


def inner_tensors(graph: Graph, stages: Mapping[int, Stage]) -> frozenset[int]:
    """What the inner nodes of stages make."""
    inner = {node for stage in stages.values() for node in stage.inner}
    return frozenset(node.outputs[0] for node in graph.nodes if node.id in inner)


def times_by_id(graph: Graph, steps: Sequence[Step], optional: Set[int] = frozenset()) -> dict[int, NodeTime]:
    """When each node runs; ids need not count from 0. optional : nodes that may never run (inner ones of which no tile
    needs anything)."""
    return {node.id: time for node, time in zip(graph.nodes, node_times(graph, steps, optional), strict=True)}


def macs_of(plan: SpacePlan) -> int:
    """Multiply-accumulates the steps carry out: what stages compute again counts again, rows that nobody reads are left
    out."""
    graph, total = plan.graph, 0
    for step in plan.steps:
        if not isinstance(step, Shift):
            whole = elements(graph.tensors[step.node.outputs[0]].region)
            total += step.node.op.macs(graph.shapes(step.node)) * elements(step.region) // max(whole, 1)
    return total
