"""Which layers run in bands, and how high the bands are: the least cycles that meet a memory limit, or the least memory.

The graph is cut where a single tensor crosses. A segment between two cuts is one group: everything in it runs interleaved, in bands
of about so many bytes a row-step, or whole. Its peak does not depend on the other segments, so a segment is evaluated once, and a
path through the cuts is a plan: its peak is the largest of its segments' peaks, its cycles their sum. (Where a tensor at a cut is written
into a larger one behind it, or nobody reads a node, the plan may hold somewhat more: what counts in the end is the placed plan.)
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.plan import Plan, make_plan, place_constants
from tvm_ergo.codegen.space.cost import StepCosts
from tvm_ergo.codegen.space.order import Needs, band_steps
from tvm_ergo.codegen.space.plan import SpacePlan, arranged, make_space_plan
from tvm_ergo.codegen.space.rolling import Shift
from tvm_ergo.codegen.views import resolve
from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import OutOfMemoryError

KIB = 1024
BAND_BYTES = (16 * KIB, 4 * KIB, 1 * KIB, 0)
"""Bytes of output one step of a banded node should make, tried in this order; 0 means one row."""
MAX_SPAN = 8
"""Cuts a group may reach over."""
GIVE_UP = 3
"""Groups in a row, each longer than the one before, that miss the limit before longer ones are no longer tried."""
TIGHTER = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.75)
"""Shares of the limit asked of the live bytes, as a placement may need somewhat more than is live."""
LOOSER = (1.0, 1.01, 1.03, 1.06, 1.1)
"""Multiples of the least live bytes tried for the least memory: where more lives, the placement may still be smaller."""


class Objective(Enum):
    """What a plan is chosen for, within the memory there is."""

    LATENCY = "latency"
    MEMORY = "memory"


@dataclass(frozen=True)
class Segment:
    """The nodes between two cuts under one choice of bands. last : the id of the last. peak_bytes : most live bytes. cycles : estimate."""

    last: int
    bands: dict[int, int]
    peak_bytes: int
    cycles: int


def linear_cuts(graph: Graph) -> list[int]:
    """Numbers of the nodes after which only their own output is still needed, the last node included."""
    last_use = {t: index for index, node in enumerate(graph.nodes) for t in node.inputs}
    last_use.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    cuts, until = [], max((last_use.get(t, -1) for t in graph.inputs), default=-1)
    for index, node in enumerate(graph.nodes):
        if until <= index and len(node.outputs) == 1:
            cuts.append(index)
        until = max([until, *(last_use.get(t, -1) for t in node.outputs)])
    if not cuts or cuts[-1] != len(graph.nodes) - 1:
        cuts.append(len(graph.nodes) - 1)
    return cuts


class Search:
    """Segments of one graph, each evaluated once."""

    def __init__(self, graph: Graph, chip: Chip, options: Options):
        self.graph, self.options = graph, options
        self.needs = Needs(graph)
        self.costs = StepCosts(graph, chip, self.needs)
        self.cuts = [-1, *self._narrow(linear_cuts(graph))]
        self._known: dict[tuple[int, int, int | None], Segment] = {}
        self.constant_bytes = place_constants(graph, resolve(graph, options), options.alignment_bytes)[1]
        self.evaluations = 0

    def _narrow(self, cuts: list[int]) -> list[int]:
        """Of neighbouring cuts those with the smallest tensors; the last stays."""
        size = [self._size(c) for c in cuts]
        return [c for k, c in enumerate(cuts) if k == len(cuts) - 1
                or (size[k] <= size[k + 1] and (k == 0 or size[k] <= size[k - 1]))]

    def _size(self, index: int) -> int:
        return self.graph.tensors[self.graph.nodes[index].outputs[0]].size_bytes

    def bands(self, nodes: tuple[Node, ...], band_bytes: int | None) -> dict[int, int]:
        """Band heights of a group's nodes; the last node's rows go to a tensor that is whole, so it is a band like the others."""
        found = {}
        for node in nodes if band_bytes is not None else ():
            height = self.needs.height(node)
            rows = max(1, band_bytes * height // max(1, self.graph.tensors[node.outputs[0]].size_bytes))
            if rows < height:
                found[node.id] = rows
        return found

    def segment(self, i: int, j: int, band_bytes: int | None) -> Segment:
        """The nodes behind cut i up to cut j, in bands of ``band_bytes`` (None: whole)."""
        key = (i, j, band_bytes)
        if key not in self._known:
            self.evaluations += 1
            graph, first, last = self.graph, self.cuts[i] + 1, self.cuts[j]
            nodes = graph.nodes[first:last + 1]
            inputs = graph.inputs if i == 0 else graph.nodes[first - 1].outputs
            outputs = graph.outputs if j == len(self.cuts) - 1 else graph.nodes[last].outputs
            part = replace(graph, nodes=nodes, inputs=inputs, outputs=outputs)
            bands = self.bands(nodes, band_bytes)
            steps = band_steps(part, bands, self.needs)
            _, rolled = arranged(part, steps, self.options, self.needs)
            self._known[key] = Segment(nodes[-1].id, bands, int(rolled.live_bytes().max(initial=0)), self.costs.total(rolled.steps))
        return self._known[key]

    def options_of(self, i: int, j: int) -> Iterator[Segment]:
        """The choices for one segment, from fast to small."""
        for band_bytes in (None, *BAND_BYTES):
            yield self.segment(i, j, band_bytes)

    def span(self, i: int) -> range:
        """The cuts a group that begins behind cut i may end at."""
        return range(i + 1, min(i + MAX_SPAN, len(self.cuts) - 1) + 1)

    def fastest(self, limit_bytes: int) -> list[Segment] | None:
        """The path of least cycles whose segments all stay within the limit; None if there is none."""
        goal = len(self.cuts) - 1
        heap: list[tuple[int, int, int, tuple]] = [(0, 0, 0, ())]
        done: set[int] = set()
        number = 0
        while heap:
            cycles, _, i, path = heapq.heappop(heap)
            if i == goal:
                return list(path)
            if i in done:
                continue
            done.add(i)
            missed = 0
            for j in self.span(i):
                fitting = next((s for s in self.options_of(i, j) if s.peak_bytes <= limit_bytes), None)
                if fitting is not None:
                    number += 1
                    heapq.heappush(heap, (cycles + fitting.cycles, number, j, (*path, fitting)))
                missed = 0 if fitting is not None else missed + 1
                if missed == GIVE_UP:
                    break
        return None

    def smallest_peak(self) -> int:
        """The least bytes that some path stays within: the widest-path search, looking at long groups only where short ones do not help."""
        goal, heap, done = len(self.cuts) - 1, [(0, 0)], set()
        while heap:
            peak, minus_i = heapq.heappop(heap)
            i = -minus_i  # of equal peaks the furthest first
            if i == goal:
                return peak
            if i in done:
                continue
            done.add(i)
            for j in self.span(i):
                whole = self.segment(i, j, None).peak_bytes
                edge = whole if whole <= peak else min(whole, self.segment(i, j, 0).peak_bytes)
                heapq.heappush(heap, (max(peak, edge), -j))
        raise AssertionError("the last node is always a cut")

    def plan(self, path: list[Segment]) -> SpacePlan:
        """The whole plan of a path, placed."""
        bands = {node: rows for segment in path for node, rows in segment.bands.items()}
        return make_space_plan(self.graph, bands, self.options, barriers={segment.last for segment in path}, needs=self.needs)




def choose(graph: Graph, chip: Chip, memory_bytes: int, options: Options = Options(),
           objective: Objective = Objective.LATENCY) -> Plan | SpacePlan:
    """The plan to carry out: whole layers where they fit and nothing else is asked for, else bands of rows.

    Errors: OutOfMemoryError; where bands were tried, with the best peak they reach and the tensors that hold it.
    """
    whole: Plan | None = None
    try:
        whole = make_plan(graph, memory_bytes, options)
        if objective is Objective.LATENCY or not graph.nodes:
            return whole
    except OutOfMemoryError:
        views = resolve(graph, options)
        if not graph.nodes or place_constants(graph, views, options.alignment_bytes)[1] >= memory_bytes:
            raise  # no order of the activations makes the constants smaller
    search = Search(graph, chip, options)
    if objective is Objective.MEMORY:
        best = smallest_plan(search)
        if whole is not None and whole.memory_bytes <= best.memory_bytes:
            return whole
    else:
        best = fitting_plan(search, memory_bytes)
    if best.memory_bytes > memory_bytes:
        raise _too_large(best, memory_bytes)
    return best


def smallest_plan(search: Search) -> SpacePlan:
    """The least activation bytes found; of equal ones the fewest cycles."""
    least = search.smallest_peak()
    plans = []
    for factor in LOOSER:
        path = search.fastest(int(least * factor))
        if path is not None:
            plan = search.plan(path)
            plans.append((plan.activation_bytes, sum(s.cycles for s in path), len(plans), plan))
    return min(plans)[-1]


def fitting_plan(search: Search, memory_bytes: int) -> SpacePlan:
    """The first plan that fits, from fast to small; the smallest there is where none does."""
    least, tried = search.smallest_peak(), set()
    for share in TIGHTER:
        target = int(share * (memory_bytes - search.constant_bytes))
        path = search.fastest(target) if target >= least else None
        key = None if path is None else tuple((s.last, tuple(s.bands.items())) for s in path)
        if path is None or key in tried:
            continue
        tried.add(key)
        plan = search.plan(path)
        if plan.memory_bytes <= memory_bytes:
            return plan
    return smallest_plan(search)


def _too_large(plan: SpacePlan, memory_bytes: int) -> OutOfMemoryError:
    graph, peak = plan.graph, plan.memory_bytes
    time = int(plan.rolled.live_bytes().argmax())
    held = (plan.rolled.high - plan.rolled.low)[:, time]
    alive = sorted(((int(n), graph.tensors[root].name) for root, n in zip(plan.rolled.roots, held, strict=True) if n > 0), reverse=True)
    step = plan.steps[min(time, len(plan.steps) - 1)]
    at = graph.tensors[step.root].name if isinstance(step, Shift) else step.node.name
    mostly_constants = plan.constant_bytes > plan.activation_bytes
    return OutOfMemoryError(
        f"{graph.name} needs a peak of {peak} bytes ({peak / KIB:.1f} KiB), {peak - memory_bytes} more than the memory has, "
        "even with layers in bands of rows",
        where=f"step {time} ({at}), where these bytes are alive: {', '.join(f'{name} {n} bytes' for n, name in alive)}",
        required=f"{plan.constant_bytes} constant bytes (weights, biases, tables) + {plan.activation_bytes} activation bytes, of which "
                 f"{plan.live_bytes} live at once (whole layers: {plan.bound_bytes})",
        available=f"{memory_bytes} bytes ({memory_bytes / KIB:.1f} KiB)",
        remedy=f"a chip with more memory, or the memory option with at least {peak} bytes; "
        + ("constants are the larger part: a smaller or more strongly compressed network" if mostly_constants
           else "activations are the larger part: a smaller input or narrower layers there"))
