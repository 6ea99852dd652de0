"""Rewrites of ONNX nodes TVM's importer lacks, done on the protobuf: LSTM, LpNormalization and QOperators become plain operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvm_ergo.frontend import onnx_qoperator
from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of
from tvm_ergo.target.errors import ModelError

_LENGTH = "tvm_ergo_steps"


def decompose(model: onnx.ModelProto) -> None:
    """Replace LSTM, LpNormalization and QOperator nodes in place. Errors: ModelError, UnsupportedError for variants that are not covered."""
    graph = model.graph
    if not any(_rule(node) for node in graph.node):
        return
    constants = {t.name: t for t in graph.initializer}
    constants |= {n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"}
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
    return {"LSTM": _lstm, "LpNormalization": _lp_normalization}.get(node.op_type) or onnx_qoperator.RULES.get(node.op_type)


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
    zero, one = e.constant("zero", np.array(0, np.float32)), e.constant("one", np.array(1, np.float32))
    divisor = e.op("Where", [e.op("Equal", [norm, zero], "is_zero"), one, norm], "divisor")  # a zero vector stays zero
    e.op("Div", [x, divisor], "divide", node.output[0])


def _lstm_constant(node, constants, index: int, what: str) -> np.ndarray | None:
    if len(node.input) <= index or not node.input[index]:
        return None
    if node.input[index] not in constants:
        raise ModelError(f"the LSTM's {what} is not a constant", where=f"node {node.name or node.output[0]!r}")
    return numpy_helper.to_array(constants[node.input[index]])


def _lstm(node, e: Emitter, constants, opset: int) -> None:
    """Unrolled over time (ONNX gate order i, o, f, c); the input products of all steps are one matrix product."""
    attributes = attributes_of(node)
    covered = {"hidden_size", "direction", _LENGTH}
    direction = attributes.get("direction", b"forward").decode()
    extra = [a for a in attributes if a not in covered] + [node.input[i] for i in (4, 7) if len(node.input) > i and node.input[i]]
    if direction == "bidirectional" or extra:
        raise ModelError("this kind of LSTM is not supported", where=f"node {node.name or node.output[0]!r}",
                         required="one direction, default activations, no sequence_lens, peepholes or clipping",
                         available=f"direction={direction}, {', '.join(extra)}")
    w, r = _lstm_constant(node, constants, 1, "W"), _lstm_constant(node, constants, 2, "R")
    bias, hidden = _lstm_constant(node, constants, 3, "B"), r.shape[2]
    steps = _sequence_length(node, constants)
    total_bias = np.zeros(4 * hidden, np.float32) if bias is None else bias[0, :4 * hidden] + bias[0, 4 * hidden:]
    products = e.op("MatMul", [node.input[0], e.constant("W", np.ascontiguousarray(w[0].T))], "input_products")
    products = e.op("Add", [products, e.constant("B", total_bias)], "input_products_bias")
    recurrent = e.constant("R", np.ascontiguousarray(r[0].T))
    state, cell = _initial(node, e, 5, "h0"), _initial(node, e, 6, "c0")
    outputs: dict[int, str] = {}
    for t in range(steps) if direction == "forward" else reversed(range(steps)):
        gates = e.op("Gather", [products, e.constant(f"t{t}", np.array(t, np.int64))], f"step{t}_x", axis=0)
        if state is not None:
            gates = e.op("Add", [gates, e.op("MatMul", [state, recurrent], f"step{t}_h")], f"step{t}_gates")
        state, cell = _lstm_cell(e, gates, cell, hidden, t)
        outputs[t] = state
    _lstm_outputs(node, e, outputs, state, cell, opset)


def _initial(node, e: Emitter, index: int, name: str) -> str | None:
    """Initial state [1,N,H] as [N,H]; None when absent (zeros)."""
    if len(node.input) <= index or not node.input[index]:
        return None
    return e.op("Gather", [node.input[index], e.constant(f"{name}_index", np.array(0, np.int64))], name, axis=0)


def _lstm_cell(e: Emitter, gates: str, cell: str | None, hidden: int, t: int) -> tuple[str, str]:
    parts = []
    for k, gate in enumerate("iofc"):
        bounds = [e.constant(f"step{t}_{gate}_{w}", np.array([v], np.int64)) for w, v in
                  (("begin", k * hidden), ("end", (k + 1) * hidden), ("axis", 1))]
        part = e.op("Slice", [gates, *bounds], f"step{t}_{gate}_part")
        parts.append(e.op("Tanh" if gate == "c" else "Sigmoid", [part], f"step{t}_{gate}"))
    i, o, f, c = parts
    new = e.op("Mul", [i, c], f"step{t}_new")
    if cell is not None:
        new = e.op("Add", [e.op("Mul", [f, cell], f"step{t}_kept"), new], f"step{t}_cell")
    return e.op("Mul", [o, e.op("Tanh", [new], f"step{t}_tanh")], f"step{t}_state"), new


def _lstm_outputs(node, e: Emitter, outputs: dict[int, str], state: str, cell: str, opset: int) -> None:
    def unsqueeze(x: str, axes: list[int], name: str, output: str | None = None) -> str:
        if opset < 13:
            return e.op("Unsqueeze", [x], name, output, axes=axes)
        return e.op("Unsqueeze", [x, e.constant(f"{name}_axes", np.array(axes, np.int64))], name, output)

    names = [*node.output, "", "", ""][:3]
    if names[0]:
        parts = [unsqueeze(outputs[t], [0, 1], f"step{t}_y") for t in sorted(outputs)]
        e.op("Concat", parts, "Y", names[0], axis=0)
    if names[1]:
        unsqueeze(state, [0], "Y_h", names[1])
    if names[2]:
        unsqueeze(cell, [0], "Y_c", names[2])


def _sequence_length(node, constants) -> int:
    length = next((a.i for a in node.attribute if a.name == _LENGTH), 0)
    if not length:
        raise ModelError("the LSTM's sequence length is not known", where=f"node {node.name or node.output[0]!r}",
                         remedy="give the input shapes (input_shapes={name: shape})")
    return length


def annotate_lengths(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> None:
    """Find the sequence length of every LSTM by ONNX shape inference with these static input shapes; kept as an attribute."""
    if not any(n.op_type == "LSTM" for n in model.graph.node):
        return
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in shapes:
            for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name]):
                dim.Clear()
                dim.dim_value = size
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {v.name: v.type.tensor_type.shape.dim for v in (*inferred.value_info, *inferred.input)}
    for node in model.graph.node:
        if node.op_type == "LSTM" and node.input[0] in known and known[node.input[0]]:
            node.attribute.append(helper.make_attribute(_LENGTH, known[node.input[0]][0].dim_value))
