"""Streamed inputs: a picture whose rows are taken from the sender as the network needs them, so that the frame never
exists as a whole."""

from __future__ import annotations

from dataclasses import replace

from tvm import relax

from tvm_ergo.codegen.graph import Graph, Node, Tensor, from_function
from tvm_ergo.codegen.output_tables import OUTPUT_TABLES, with_output_tables
from tvm_ergo.codegen.space.padding import padded_apart
from tvm_ergo.codegen.weights.apply import coded, codings_of
from tvm_ergo.relay_passes import dialect

STREAM = "ergo_stream"
"""Attribute of a chip function whose pictures are streamed: 1."""


def graph_of(func: relax.Function, name: str | None = None) -> Graph:
    """The graph of a chip function, its pictures streamed, its constants coded and its tables in output stages where it
    says so. name : its global_symbol unless given. Errors: ModelError."""
    graph = padded_apart(
        coded(from_function(func, symbol_of(func) if name is None else name), codings_of(func)), only_blind=True
    )
    graph = with_output_tables(graph) if _is_set(func, OUTPUT_TABLES) else graph
    return streamed(graph) if _is_set(func, STREAM) else graph


def _is_set(func: relax.Function, attribute: str) -> bool:
    return func.attrs is not None and attribute in func.attrs and bool(int(func.attrs[attribute]))


def symbol_of(func: relax.Function) -> str:
    """The global_symbol, "main" where there is none."""
    return str(func.attrs["global_symbol"]) if func.attrs is not None and "global_symbol" in func.attrs else "main"


def streamed(graph: Graph) -> Graph:
    """The graph with a Receive node behind every input that is one picture, [1, H, W, C] or transposed to that by its
    only reader.

    Other inputs, and those that are outputs too, stay as they are.
    """
    for t in graph.inputs:
        if _is_picture(graph, t):
            graph = _received(graph, t)
    return graph


def is_received(node: Node) -> bool:
    """Whether a node makes the rows of a streamed picture as they are, a tensor that the chip function does not
    have."""
    return type(node.op) is dialect.Receive and node.op.perm == (0, 1, 2, 3)


def _is_picture(graph: Graph, t: int) -> bool:
    tensor = graph.tensors[t]
    return (
        len(tensor.shape) == 4
        and tensor.shape[0] == 1
        and t not in graph.outputs
        and bool(graph.consumers[t])
        and t not in graph.streams
    )


def _received(graph: Graph, t: int) -> Graph:
    reader = graph.consumers[t][0]
    if len(graph.consumers[t]) == 1 and type(reader.op) is dialect.Transpose and reader.op.perm[0] == 0:
        op = dialect.Receive(
            perm=reader.op.perm, name=reader.op.name, out_scale=reader.op.out_scale, out_zp=reader.op.out_zp
        )
        nodes = tuple(replace(n, op=op) if n is reader else n for n in graph.nodes)
        return replace(graph, nodes=nodes, streams=graph.streams | {t})
    tensor, new = graph.tensors[t], len(graph.tensors)
    rows = Tensor(new, f"{tensor.name}_rows", tensor.shape, tensor.dtype)
    first = Node(0, rows.name, dialect.Receive(perm=(0, 1, 2, 3), name=tensor.name), (t,), (new,))
    nodes = [replace(n, id=n.id + 1, inputs=tuple(new if i == t else i for i in n.inputs)) for n in graph.nodes]
    return replace(graph, tensors=(*graph.tensors, rows), nodes=(first, *nodes), streams=graph.streams | {t})
