"""What stays in the memory from one run of a Program to the next: inputs that the network hands on with some rows
replaced, in the same place.

They lie at the bottom of the activations, in the inputs' order, so that all Programs of one network have them at the
same addresses. A buffer that lives from the first step to the last meets every other one, so that costs no byte."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.memory import Problem, Solution, solve
from tvm_ergo.codegen.strided import View


def states_of(graph: Graph, views: Sequence[View]) -> dict[int, int]:
    """The output that is an input handed on, by the input; in the inputs' order."""
    found = {}
    for out in graph.outputs:
        node = graph.producer.get(out)
        root = views[out].root
        if node is not None and node.op.traits.renews and root in graph.inputs:
            if views[out].same_place(views[root]) and root not in found:
                found[root] = out
    return {t: found[t] for t in graph.inputs if t in found}


def solved(problem: Problem, states: Sequence[int]) -> Solution:
    """Offsets with the buffers of ``states`` at the bottom, in that order."""
    if not states:
        return solve(problem)
    by_id, top, places = {b.id: b for b in problem.buffers}, 0, {}
    for t in states:
        top = _aligned(top, by_id[t].alignment)
        places[t] = top
        top += by_id[t].size
    rest = tuple(b for b in problem.buffers if b.id not in places)
    top = _aligned(top, max((b.alignment for b in rest), default=1))
    places.update({b.id: top + o for b, o in zip(rest, solve(Problem(rest)).offsets, strict=True)})
    return Solution(tuple(places[b.id] for b in problem.buffers))


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
