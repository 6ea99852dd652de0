"""Windows that lie wholly in the padding: such a convolution gets its padding as a node of its own.

Legal in every model format (a 1x1 convolution with padding 1 has a frame of outputs that see no input), but no
instruction computes a row alone that reads nothing. With the padding written out, rows of it are read, and the layer
can run in rows and tiles as any other. Exact: padded taps contribute 0, as zero points do."""

from __future__ import annotations

from dataclasses import replace

from tvm_ergo.codegen.graph import Graph, Node, Tensor
from tvm_ergo.codegen.space.order import COLUMNS, ROWS, sees_input
from tvm_ergo.relay_passes import dialect


def padded_apart(graph: Graph, only_blind: bool = False) -> Graph:
    """The graph with a `Pad` before every such convolution; ids of tensors stay, those of nodes are places again.
    only_blind : before those of which along some axis no window sees any input, which cannot run whole either."""
    tensors, nodes = list(graph.tensors), []
    for node in graph.nodes:
        if node.op.traits.kernel_axis is not None and (
            is_blind(graph, node) if only_blind else not all(sees_input(graph, node, axis) for axis in (ROWS, COLUMNS))
        ):
            pad, node = _apart(graph, node, len(tensors))
            tensors.append(pad[0])
            nodes.append(pad[1])
        nodes.append(node)
    return replace(
        graph, tensors=tuple(tensors), nodes=tuple(replace(node, id=place) for place, node in enumerate(nodes))
    )


def is_blind(graph: Graph, node: Node) -> bool:
    """Whether along the rows or the columns all windows lie in the padding."""
    shapes, whole = graph.shapes(node), graph.tensors[node.outputs[0]].region
    return any(
        begin >= end
        for begin, end in node.op.input_regions(whole, shapes, [graph.tensors[t].data for t in node.inputs])[0]
    )


def _apart(graph: Graph, node: Node, t: int) -> tuple[tuple[Tensor, Node], Node]:
    op, x = node.op, graph.tensors[node.inputs[0]]
    top, left, bottom, right = op.padding
    n, h, w, c = x.shape
    tensor = Tensor(t, f"{node.name}_padded", (n, h + top + bottom, w + left + right, c), x.dtype)
    pad = dialect.Pad((0, 0, top, bottom, left, right, 0, 0), op.in_zp, name=op.name)
    return (tensor, Node(-1, tensor.name, pad, node.inputs[:1], (t,))), replace(
        node, op=replace(op, padding=(0, 0, 0, 0)), inputs=(t, *node.inputs[1:])
    )
