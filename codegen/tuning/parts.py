"""What is tuned at a time: a run of units between two whole tensors, as a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.plan import Plan
from tvm_ergo.codegen.space.plan import SpacePlan
from tvm_ergo.codegen.space.segments import units_of
from tvm_ergo.codegen.space.stages import Stage

MOST_UNITS = 6
"""Units of a part, unless the plan the search starts from carries out more of them together."""


@dataclass(frozen=True, eq=False)
class Part:
    """Units ``[first, last]`` of a graph. graph : of its own, ids counted from 0. nodes : what each node is in the
    whole graph.

    bands, stages, barriers : of the plan the search starts from, in the part's own ids (see
    `codegen.space.order.band_steps`)."""

    first: int
    last: int
    graph: Graph
    nodes: tuple[int, ...]
    bands: Mapping[int, int]
    stages: Mapping[int, Stage]
    barriers: frozenset[int]


def parts_of(plan: Plan | SpacePlan, most_units: int = MOST_UNITS) -> list[Part]:
    """The parts of a plan's graph: where it is carried out in subproblems these are kept whole, and small neighbours
    are joined where the tensors between parts become smallest together."""
    graph = plan.graph
    units = units_of(graph)
    barriers = plan.barriers if isinstance(plan, SpacePlan) else {unit[-1].id for unit in units}
    ends = [
        u
        for u, unit in enumerate(units)
        # what only moves costs nothing where both places are one, and its reader decides that: no part ends with it
        if unit[-1].id in barriers and unit[-1].op.traits.move is None or u == len(units) - 1
    ]
    found, first = [], 0
    for last in _joined(graph, units, ends, most_units):
        found.append(_part(plan, units, first, last))
        first = last + 1
    return found


def part_of(plan: Plan | SpacePlan, first: int, last: int) -> Part | None:
    """Units ``[first, last]`` as another plan of the same graph carries them out; None where one of its stages crosses
    these cuts."""
    units = units_of(plan.graph)
    inside = {node.id for unit in units[first : last + 1] for node in unit}
    if isinstance(plan, SpacePlan) and any(
        len(inside.intersection((n, *stage.inner))) not in (0, 1 + len(stage.inner)) for n, stage in plan.stages.items()
    ):
        return None
    return _part(plan, units, first, last)


def _joined(graph: Graph, units: Sequence[tuple[Node, ...]], ends: Sequence[int], most_units: int) -> list[int]:
    """The last unit of each part: of the ``ends`` those between which at most so many units lie (or one subproblem) and
    whose tensors are smallest in sum."""
    sizes = [sum(graph.tensors[t].size_bytes for t in units[u][-1].outputs) for u in ends]
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for i, end in enumerate(ends):
        choices = []
        for j in range(i + 1):
            begin = ends[j - 1] + 1 if j else 0
            if j == i or end - begin < most_units:
                cost, cuts = best[j]
                choices.append((cost + sizes[i] + 1, (*cuts, end)))
        best.append(min(choices))
    return list(best[-1][1])


def _part(plan: Plan | SpacePlan, units: Sequence[tuple[Node, ...]], first: int, last: int) -> Part:
    graph = plan.graph
    nodes = [node for unit in units[first : last + 1] for node in unit]
    inputs = graph.inputs if first == 0 else units[first - 1][-1].outputs
    outputs = graph.outputs if last == len(units) - 1 else nodes[-1].outputs
    number = {node.id: i for i, node in enumerate(nodes)}
    own = alone(graph, nodes, inputs, outputs)
    if not isinstance(plan, SpacePlan):
        ends = frozenset(number[unit[-1].id] for unit in units[first : last + 1])
        return Part(first, last, own, tuple(number), {}, {}, ends)
    return Part(
        first,
        last,
        own,
        tuple(number),
        {number[n]: rows for n, rows in plan.bands.items() if n in number},
        {number[n]: replace(s, inner=tuple(number[i] for i in s.inner)) for n, s in plan.stages.items() if n in number},
        frozenset(number[n] for n in plan.barriers if n in number),
    )


def alone(graph: Graph, nodes: Sequence[Node], inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
    """A run of nodes as a graph of its own: tensors and nodes are numbered by first appearance, so that equal runs are
    numbered alike."""
    number: dict[int, int] = {}
    for t in (*inputs, *(t for node in nodes for t in (*node.inputs, *node.constants, *node.outputs)), *outputs):
        number.setdefault(t, len(number))
    tensors = tuple(replace(graph.tensors[t], id=i) for t, i in number.items())
    return replace(
        graph,
        tensors=tensors,
        inputs=tuple(number[t] for t in inputs),
        outputs=tuple(number[t] for t in outputs),
        nodes=tuple(
            replace(
                node,
                id=i,
                inputs=tuple(number[t] for t in node.inputs),
                outputs=tuple(number[t] for t in node.outputs),
                table=None if node.table is None else replace(node.table, lut=number[node.table.lut]),
            )
            for i, node in enumerate(nodes)
        ),
        streams=frozenset(number[t] for t in graph.streams if t in number),
    )
