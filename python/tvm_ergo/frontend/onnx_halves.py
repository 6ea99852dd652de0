"""Networks in float16 or bfloat16 as networks in float32: tensors inside are widened, inputs and outputs of float16
keep their type.

The chip computes in integers, and calibration and the host in float32, which holds every value of both types. What a
float16 runtime rounds in between is not rounded here, and what overflows there does not. NumPy has no bfloat16: inputs
and outputs of it are float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_datatype", "output_dtype"})
_SUFFIX = "_float32"


def widen_halves(model: onnx.ModelProto) -> None:
    """In place; nothing happens to models without such tensors."""
    graph = model.graph
    inputs = [
        i
        for i in graph.input
        if i.type.tensor_type.elem_type == TensorProto.FLOAT16 and i.name not in {t.name for t in graph.initializer}
    ]
    outputs = [o for o in graph.output if o.type.tensor_type.elem_type == TensorProto.FLOAT16]
    renamed = {i.name: i.name + _SUFFIX for i in inputs} | {o.name: o.name + _SUFFIX for o in outputs}
    if not _widen_graph(graph, renamed) and not renamed:
        return
    for function in model.functions:
        _widen_nodes(function.node, {})
    for value in (*inputs, *outputs):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    into = [
        helper.make_node("Cast", [i.name], [renamed[i.name]], name=renamed[i.name], to=TensorProto.FLOAT)
        for i in inputs
    ]
    back = [helper.make_node("Cast", [renamed[o.name]], [o.name], name=o.name, to=TensorProto.FLOAT16) for o in outputs]
    nodes = [*into, *graph.node, *back]
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_graph(graph: onnx.GraphProto, renamed: dict[str, str]) -> bool:
    """Tensors, types and names of a graph and of those in its nodes; True if anything was half."""
    changed = False
    for tensor in graph.initializer:
        new = renamed.get(tensor.name, tensor.name)
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), new))
            changed = True
        tensor.name = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
            changed = True
    return _widen_nodes(graph.node, renamed) or changed


def _widen_nodes(nodes, renamed: dict[str, str]) -> bool:
    changed = False
    for node in nodes:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed.get(name, name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in _HALVES:
                attribute.t.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32), attribute.t.name)
                )
                changed = True
            elif (
                attribute.type == onnx.AttributeProto.INT
                and attribute.name in _TYPE_ATTRIBUTES
                and attribute.i in _HALVES
            ):
                attribute.i = TensorProto.FLOAT
                changed = True
            elif attribute.type == onnx.AttributeProto.GRAPH:
                changed |= _widen_graph(attribute.g, renamed)
                for value in (*attribute.g.input, *attribute.g.output):
                    value.name = renamed.get(value.name, value.name)
    return changed
