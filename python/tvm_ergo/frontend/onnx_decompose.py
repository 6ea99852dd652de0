"""Rewrites of ONNX nodes TVM's importer lacks, done on the protobuf: LpNormalization and QOperators become plain
operators."""

from __future__ import annotations

import numpy as np
import onnx

from tvm_ergo.frontend import onnx_qoperator
from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of


def decompose(model: onnx.ModelProto) -> None:
    """Replace LpNormalization and QOperator nodes in place. Errors: ModelError, UnsupportedError for variants that are
    not covered."""
    graph = model.graph
    if not any(_rule(node) for node in graph.node):
        return
    constants = {t.name: t for t in graph.initializer}
    constants |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=13)
    nodes = []
    for node in graph.node:
        rule = _rule(node)
        if rule is None:
            nodes.append(node)
            continue
        emitter = Emitter(node, node.output[0] if node.op_type in onnx_qoperator.RULES else "")
        rule(node, emitter, constants, opset)
        nodes.extend(emitter.nodes)
        graph.initializer.extend(emitter.initializers)
    del graph.node[:]
    graph.node.extend(nodes)


def _rule(node: onnx.NodeProto):
    """What replaces the node, None if it stays."""
    if node.domain not in ("", "ai.onnx", "com.microsoft"):
        return None
    return {"LpNormalization": _lp_normalization}.get(node.op_type) or onnx_qoperator.RULES.get(node.op_type)


def _reduce_sum(e: Emitter, x: str, axis: int, opset: int, name: str) -> str:
    if opset < 13:
        return e.op("ReduceSum", [x], name, axes=[axis], keepdims=1)
    return e.op("ReduceSum", [x, e.constant(f"{name}_axes", np.array([axis], np.int64))], name, keepdims=1)


def _lp_normalization(node, e: Emitter, constants, opset: int) -> None:
    attributes = attributes_of(node)
    axis, p, x = attributes.get("axis", -1), attributes.get("p", 2), node.input[0]
    if p == 1:
        norm = _reduce_sum(e, e.op("Abs", [x], "abs"), axis, opset, "sum")
    else:
        norm = e.op("Sqrt", [_reduce_sum(e, e.op("Mul", [x, x], "square"), axis, opset, "sum")], "norm")
    least = e.constant("least", np.array(np.finfo(np.float32).tiny, np.float32))  # a zero vector stays zero
    e.op("Div", [x, e.op("Max", [norm, least], "divisor")], "divide", node.output[0])
