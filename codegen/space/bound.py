"""What no plan of a graph goes below, whatever the order in time and space, as long as nothing is compressed."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_ergo.codegen.graph import Graph
from tvm_ergo.codegen.space.order import bandable, tileable
from tvm_ergo.codegen.space.prepare import prepared


@dataclass(frozen=True)
class Bound:
    """size_bytes : live at one time in every plan. reason : why. is_frame : whether it is the inputs that do."""

    size_bytes: int
    reason: str
    is_frame: bool = False


def least_possible_bytes(graph: Graph) -> Bound:
    """The largest of: inputs that are in the memory before anything runs; outputs, all of which exist at the end; what
    an operator that can only run whole reads and writes. Of tensors that may share bytes only the largest counts;
    global sums see their input row by row."""
    graph = prepared(graph)
    sizes = {t.id: t.size_bytes for t in graph.tensors if t.data is None and t.id not in graph.streams}
    for node in graph.nodes:
        if node.op.traits.accumulates:  # all rows of sums lie in one place
            sizes[node.outputs[0]] //= graph.tensors[node.outputs[0]].shape[1]
    origins = _origins(graph)

    def together(tensors) -> int:
        groups: list[tuple[set[int], int]] = []
        for t in set(tensors):
            mine, size = set(origins[t]), sizes.get(t, 0)
            for group in [g for g in groups if g[0] & mine]:
                groups.remove(group)
                mine, size = mine | group[0], max(size, group[1])
            groups.append((mine, size))
        return sum(size for _, size in groups)

    bounds = [
        Bound(sum(sizes.get(t, 0) for t in set(graph.inputs)), "the inputs", True),
        Bound(together(graph.outputs), "the outputs"),
    ]
    for node in graph.nodes:
        if not bandable(graph, node) and not tileable(graph, node) and not node.op.traits.shares_bytes:
            size = together(node.inputs) + sum(sizes.get(t, 0) for t in node.outputs)
            bounds.append(Bound(size, f"{node.name} ({node.op.op_name}) runs whole"))
    return max(bounds, key=lambda b: b.size_bytes)


def _origins(graph: Graph) -> dict[int, frozenset[int]]:
    """For each tensor those whose bytes it may share: its own, and through operators that move or overwrite those of
    their operands."""
    found = {t.id: frozenset({t.id}) for t in graph.tensors}
    for node in graph.nodes:
        if node.op.traits.shares_bytes:
            shared = frozenset().union(*(found[t] for t in node.inputs))
            for t in node.outputs:
                found[t] |= shared
    return found
