"""Global sums that see their input row by row: ``reduce_sum`` over rows becomes a running sum and its requantization,
exact in int32.

Then the tensor that is summed (the last feature map, or what a squeeze-and-excite block looks at) never exists as a
whole."""

from __future__ import annotations

from dataclasses import replace

from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.relay_passes import dialect


def accumulated(graph: Graph) -> Graph:
    """The graph with every sum over the rows and all columns of one picture split so; ids of tensors stay, those of
    nodes are places again."""
    tensors, nodes = list(graph.tensors), []
    for node in graph.nodes:
        if not _splits(graph, node):
            nodes.append(node)
            continue
        op, shape = node.op, graph.tensors[node.inputs[0]].shape
        sums = Tensor(len(tensors), f"{node.name}_sums", (1, shape[1], 1, shape[3]), "int32")
        tensors.append(sums)
        nodes.append(Node(-1, sums.name, dialect.RunningSum(in_zp=op.in_zp, name=op.name), node.inputs, (sums.id,)))
        nodes.append(
            Node(
                -1,
                node.name,
                dialect.RequantizeLast(
                    op.keepdims, op.mult, op.shift, op.lo, op.hi, name=op.name, out_scale=op.out_scale, out_zp=op.out_zp
                ),
                (sums.id,),
                node.outputs,
            )
        )
    return replace(
        graph, tensors=tuple(tensors), nodes=tuple(replace(node, id=place) for place, node in enumerate(nodes))
    )


def _splits(graph: Graph, node: Node) -> bool:
    shape = graph.tensors[node.inputs[0]].shape
    return (
        isinstance(node.op, dialect.ReduceSum)
        and len(shape) == 4
        and shape[0] == 1
        and shape[1] > 1
        and shape[1] * shape[2] < 2**23
        and (node.op.axes == (1, 2) or node.op.axes == (1,) and shape[2] == 1 and node.op.keepdims)
    )
