"""Tables in the output stage: an activation that follows one instruction is looked up on the way to memory, without a
pass of its own.

`with_output_tables` takes every `Table` that is the only reader of what a convolution, matrix product, sum, product or
pooling makes into that node (``Node.table``). The tensor between them no longer exists; values do not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_ergo.codegen.graph import Graph, Node, OutputTable, Tensor
from tvm_ergo.codegen.weights.sparse import MOST_CODE_BITS, MOST_NONZERO, is_dense_layer
from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.traits import Move, Tables

OUTPUT_TABLES = "ergo_output_tables"
"""Attribute of a chip function: 1 where the chip's engines have tables in their output stage."""


def with_output_tables(graph: Graph) -> Graph:
    """The graph with tables in their producers' output stages; node ids are places again, tensors keep theirs."""
    while (found := _first(graph)) is not None:
        graph = _taken_in(graph, *found)
    return graph


def _first(graph: Graph) -> tuple[Node, list[Node], Node] | None:
    """``(producer, moves between them, table)``."""
    for node in graph.nodes:
        if type(node.op) is dialect.Table and (found := _producer(graph, node)) is not None:
            return *found, node
    return None


def _producer(graph: Graph, table: Node) -> tuple[Node, list[Node]] | None:
    (t, lut), moves = table.inputs, []
    if graph.tensors[lut].data is None or graph.tensors[lut].dtype != "int8":
        return None
    per_channel = len(graph.tensors[lut].shape) == 2
    while _is_between(graph, t):
        node = graph.producer.get(t)
        if node is None or node.table is not None and not _joinable(graph, node, lut):
            return None
        engine = node.op.traits.output_table
        if engine is Tables.CHANNEL or engine is Tables.TENSOR and not per_channel:
            taken = graph.tensors[t].dtype == "int8" and not (may_run_sparse(graph, node))
            return (node, moves[::-1]) if taken else None
        # between an op and a table for all channels may stand what moves every element once, whatever its value
        if per_channel or node.op.traits.move is not Move.RELABEL:
            return None
        moves.append(node)
        t = node.inputs[0]
    return None


def _joinable(graph: Graph, node: Node, lut: int) -> bool:
    """Whether a node's table and one behind it are one table: both for all channels, or both one a channel."""
    return graph.tensors[node.table.lut].shape == graph.tensors[lut].shape


def _is_between(graph: Graph, t: int) -> bool:
    """Whether one node reads a tensor, once, and nobody else needs it."""
    readers = graph.consumers[t]
    return t not in graph.outputs and len(readers) == 1 and readers[0].inputs.count(t) == 1


def may_run_sparse(graph: Graph, node: Node) -> bool:
    """Whether the sparse engine, which has no table, may be the better place for a dense layer: few values, many
    zeros."""
    if not is_dense_layer(graph, node):
        return False
    weights = graph.tensors[node.inputs[1]].data
    if weights is None:
        return False
    counts = np.bincount(weights.ravel().view(np.uint8), minlength=256)
    return int((counts[1:] > 0).sum()) < 1 << MOST_CODE_BITS and counts[1:].sum() <= MOST_NONZERO * weights.size


def _taken_in(graph: Graph, producer: Node, moves: list[Node], table: Node) -> Graph:
    """The last of producer and moves makes the table's tensor; what lies before it holds the table's values in another
    shape."""
    (result,), last = table.outputs, (moves or [producer])[-1]
    tensors = list(graph.tensors)
    for node in [producer, *moves][:-1]:
        t = node.outputs[0]
        tensors[t] = replace(tensors[t], name=f"{tensors[result].name}_of_{tensors[t].name}")
    lut = table.inputs[1]
    if producer.table is not None:
        lut = len(tensors)
        tensors.append(_joined(graph.tensors[producer.table.lut], graph.tensors[table.inputs[1]], lut))
    made = {producer.id: replace(producer, table=OutputTable(lut, table.op))}
    for node in moves:
        made[node.id] = replace(node, op=replace(node.op, out_scale=table.op.out_scale, out_zp=table.op.out_zp))
    made[last.id] = replace(made[last.id], outputs=(result,))
    kept = [made.get(n.id, n) for n in graph.nodes if n.id != table.id]
    return replace(graph, tensors=tuple(tensors), nodes=tuple(replace(n, id=i) for i, n in enumerate(kept)))


def _joined(first: Tensor, second: Tensor, number: int) -> Tensor:
    """One table that does what two do, one after the other."""
    index = first.data.astype(np.intp) + 128
    return replace(
        first, id=number, name=f"{first.name}_{second.name}", data=np.take_along_axis(second.data, index, axis=-1)
    )
