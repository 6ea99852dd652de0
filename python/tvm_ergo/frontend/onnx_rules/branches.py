"""``If`` whose condition is known only at run time: both branches are computed and the condition chooses, value by
value."""

from __future__ import annotations

import numpy as np
import onnx

from tvm_ergo.frontend.onnx_emitter import Emitter
from tvm_ergo.frontend.onnx_rules.view import View, place
from tvm_ergo.target.errors import UnsupportedError


def both(node, e: Emitter, view: View) -> None:
    """Errors: UnsupportedError where the branches' results differ in shape or type."""
    for name in node.output:
        if view.shape(name) is None:
            raise UnsupportedError(
                "the branches of an If give results of different or unknown shapes",
                where=place(node),
                required="one static shape for both: the chip's memory is planned before the first run",
                remedy="export the model with the condition fixed",
            )
    condition = e.op("Reshape", [node.input[0], e.constant("scalar", np.zeros(0, np.int64))], "condition")
    results = []
    for branch in ("then_branch", "else_branch"):
        graph = next(a.g for a in node.attribute if a.name == branch)
        names = {t.name for t in graph.initializer} | {n for inner in graph.node for n in inner.output if n}
        renamed = {n: f"{e.prefix}_{branch[:4]}_{n}" for n in names}
        for tensor in graph.initializer:
            own = onnx.TensorProto()
            own.CopyFrom(tensor)
            own.name = renamed[tensor.name]
            e.initializers.append(own)
        e.nodes.extend(_renamed(inner, renamed) for inner in graph.node)
        results.append([renamed.get(o.name, o.name) for o in graph.output])
    for name, a, b in zip(node.output, *results):
        e.op("Where", [condition, a, b], f"choice_{name}", name)


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    """A copy that reads and writes under other names, in its own branches too (whose own names hide outer ones)."""
    own = onnx.NodeProto()
    own.CopyFrom(node)
    for field in (own.input, own.output):
        for i, name in enumerate(field):
            field[i] = names.get(name, name)
    for attribute in own.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inside = {t.name for t in attribute.g.initializer} | {n for inner in attribute.g.node for n in inner.output}
            visible = {k: v for k, v in names.items() if k not in inside}
            nodes = [_renamed(inner, visible) for inner in attribute.g.node]
            del attribute.g.node[:]
            attribute.g.node.extend(nodes)
            for output in attribute.g.output:
                output.name = visible.get(output.name, output.name)
    return own
