"""ONNX's shape inference, where poolings that round their size up are as large as ONNX Runtime makes them.

A window has to begin inside the input or its leading padding; ONNX 1.23 counts one more where only the trailing
padding, or nothing, is left for it."""

from __future__ import annotations

import math

import onnx
from onnx import helper

FIRST_OPSET = 11
"""Before it Pad takes no tensor of paddings, and the stand-in below cannot be written."""
POOLS = ("MaxPool", "AveragePool", "LpPool")


def inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph of a copy of ``model`` with the types that ONNX infers. Errors: those of ``onnx.shape_inference``."""
    light, exact = model, set()
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
    while True:
        graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
        if opset < FIRST_OPSET:
            return graph
        shapes = {v.name: _shape(v) for v in (*graph.value_info, *graph.input, *graph.output)}
        shapes |= {t.name: tuple(t.dims) for t in graph.initializer}
        for node in light.graph.node:
            if node.op_type not in POOLS or node.output[0] in exact:
                continue
            right = pooled_shape(node, shapes.get(node.input[0]))
            if right is not None and right != shapes.get(node.output[0]):
                break
        else:
            return graph
        exact.add(node.output[0])
        light = _with_shape(light, node, right, shapes)


def pooled_shape(node: onnx.NodeProto, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The output shape of a pooling that rounds up, None of any other or where the input's shape is not known."""
    if shape is None:
        return None
    a = {x.name: helper.get_attribute_value(x) for x in node.attribute}
    if not a.get("ceil_mode", 0) or a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        return None
    spatial, rank = shape[2:], len(shape) - 2
    pads, strides, dilations = (
        a.get("pads", [0] * (2 * rank)),
        a.get("strides", [1] * rank),
        a.get("dilations", [1] * rank),
    )
    sizes = []
    for i, (size, kernel) in enumerate(zip(spatial, a["kernel_shape"])):
        steps = size + pads[i] + pads[i + rank] - (kernel - 1) * dilations[i] - 1
        count = math.ceil(steps / strides[i]) + 1
        sizes.append(count - ((count - 1) * strides[i] >= size + pads[i]))
    return (*shape[:2], *sizes)


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return tuple(d.dim_value for d in tensor.shape.dim)


def _with_shape(model: onnx.ModelProto, node: onnx.NodeProto, shape: tuple[int, ...], shapes: dict) -> onnx.ModelProto:
    """The model with a slice of the input to the right size in the pooling's place: only types are asked for."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    name, rank = f"{node.output[0]}_exact", len(shape)
    parts = {"pads": [0] * rank + [max(n - o, 0) for n, o in zip(shape, shapes[node.input[0]])], "ends": list(shape)}
    parts |= {"starts": [0] * rank}
    for key, value in parts.items():
        made.graph.initializer.append(helper.make_tensor(f"{name}_{key}", onnx.TensorProto.INT64, [len(value)], value))
    place = next(i for i, n in enumerate(made.graph.node) if n.output[:1] == node.output[:1])
    made.graph.node[place].CopyFrom(helper.make_node("Pad", [node.input[0], f"{name}_pads"], [name]))
    made.graph.node.insert(
        place + 1, helper.make_node("Slice", [name, f"{name}_starts", f"{name}_ends"], [node.output[0]])
    )
    kept = [v for v in made.graph.value_info if v.name != node.output[0]]
    del made.graph.value_info[:]
    made.graph.value_info.extend(kept)
    return made
