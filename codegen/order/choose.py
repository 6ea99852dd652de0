"""The order a graph is compiled in: the search's, where its real plan needs fewer live bytes than the given one's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.options import Options
from tvm_ergo.codegen.order.model import Model, ambiguous, model_of
from tvm_ergo.codegen.order.search import BEAM, STATES, least_peak


@dataclass(frozen=True)
class Ordering:
    """order : places in ``graph.nodes``. model_bytes : peak of live bytes as the model counts them.

    bound_bytes : no order of this graph with this sharing of storage has fewer live bytes. states : sets the search
    expanded."""

    order: tuple[int, ...]
    model_bytes: int
    bound_bytes: int
    states: int

    def quality(self, live_bytes: int) -> str:
        """``optimal``, or how far above the bound a plan of this graph is at most."""
        if live_bytes <= self.bound_bytes:
            return "optimal"
        return f"within {100 * (live_bytes / self.bound_bytes - 1):.1f} %" if self.bound_bytes else "no bound"


def best_order(graph: Graph, options: Options = Options(), states: int = STATES, beam: int = BEAM) -> Ordering:
    """The order of least peak in the model (``model``): exact up to ``states`` sets a segment, else the best of a
    beam."""
    model = model_of(graph, options)
    found = least_peak(model, states, beam)
    hopeful = model_of(graph, options, optimistic=True)
    bound = found.bound_bytes if _same(hopeful, model) else least_peak(hopeful, states, 1).bound_bytes
    if ambiguous(
        graph
    ):  # another order could share storage otherwise: only what a node itself reads or writes is certain
        bound = max((graph.tensors[t].size_bytes for n in graph.nodes for t in n.outputs), default=0)
        bound = max(bound, model.start_bytes)
    return Ordering(found.order, found.peak_bytes, bound, found.states)


def _same(a: Model, b: Model) -> bool:
    return a.touched == b.touched and a.credits == b.credits


def reordered(graph: Graph, order: Sequence[int]) -> Graph:
    """The graph with its nodes in another executable order; node ids are places again, tensors keep theirs."""
    nodes = tuple(replace(graph.nodes[place], id=number) for number, place in enumerate(order))
    return replace(graph, nodes=nodes)
