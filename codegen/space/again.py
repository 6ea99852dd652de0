"""Trading time for space where a tensor is needed before and behind a reduction of itself (squeeze-and-excite): its
producers run twice.

The tensor that is scaled by what its own average says must be complete before its first element can be scaled. Kept, it
waits as a whole; computed again, its rows are given up as they are summed, and made a second time where they are
scaled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tvm_ergo.codegen.graph import Graph, Node
from tvm_ergo.codegen.space.order import tileable
from tvm_ergo.relay_passes.dialect.traits import Rows

MAX_NODES = 4
"""Producers computed again: few, as each costs its multiply-accumulates a second time."""


@dataclass(frozen=True)
class Site:
    """tensor : read by the reduction ``reader`` and by others that depend on it. chain : nodes to run a second time for
    the reader, the last one makes the tensor."""

    tensor: int
    reader: int
    chain: tuple[int, ...]


def sites(graph: Graph) -> list[Site]:
    """Every place where a reduction and what depends on it read the same tensor, and its producers can run again."""
    found = []
    for node in graph.nodes:
        if not (node.op.traits.accumulates or node.op.traits.rows is Rows.REDUCED):
            continue
        t = node.inputs[0]
        behind = _depending(graph, node)
        if any(reader.id in behind for reader in graph.consumers[t]) and (chain := _chain(graph, t)):
            found.append(Site(t, node.id, chain))
    return found


def computed_again(graph: Graph, chosen: Iterable[Site]) -> Graph:
    """The graph in which each site's reduction reads copies of its producers; node ids are places again, tensors keep
    theirs."""
    by_id = {node.id: node for node in graph.nodes}
    copies: dict[int, list[Node]] = {}  # in front of the reader
    readers: dict[int, int] = {}
    tensors = list(graph.tensors)
    for site in chosen:
        renamed: dict[int, int] = {}
        for i in site.chain:
            node, old = by_id[i], graph.tensors[by_id[i].outputs[0]]
            tensors.append(replace(old, id=len(tensors), name=f"{old.name}_again"))
            renamed[old.id] = tensors[-1].id
            copies.setdefault(site.reader, []).append(
                replace(
                    node,
                    id=-1,
                    name=f"{node.name}_again",
                    inputs=tuple(renamed.get(t, t) for t in node.inputs),
                    outputs=(tensors[-1].id,),
                    again=True,
                )
            )
        readers[site.reader] = renamed[site.tensor]
    nodes = []
    for node in graph.nodes:
        nodes += copies.get(node.id, [])
        nodes.append(replace(node, inputs=(readers[node.id],)) if node.id in readers else node)
    return replace(
        graph, tensors=tuple(tensors), nodes=tuple(replace(node, id=place) for place, node in enumerate(nodes))
    )


def _depending(graph: Graph, node: Node) -> set[int]:
    """Nodes that need the node's result, directly or not."""
    made, found = set(node.outputs), set()
    for other in graph.nodes:
        if made.intersection(other.inputs):
            made.update(other.outputs)
            found.add(other.id)
    return found


def _chain(graph: Graph, t: int) -> tuple[int, ...]:
    """The producers to repeat, first one first: back to a tensor that others read too, or that is smaller than what it
    is made of."""
    chain: list[int] = []
    while (node := graph.producer.get(t)) is not None and tileable(graph, node) and len(chain) < MAX_NODES:
        chain.append(node.id)
        activations = [i for i in node.inputs if graph.tensors[i].data is None]
        if len(activations) != 1 or len(graph.consumers[activations[0]]) > 1:
            break
        if graph.tensors[activations[0]].size_bytes < graph.tensors[node.outputs[0]].size_bytes:
            break
        t = activations[0]
    return tuple(reversed(chain))
