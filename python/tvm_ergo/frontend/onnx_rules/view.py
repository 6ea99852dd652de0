"""What rules may ask about the graph a node stands in: shapes, element types, constants, neighbours."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tvm_ergo.frontend.onnx_emitter import Emitter, attributes_of
from tvm_ergo.frontend.onnx_rules.inferred import inferred
from tvm_ergo.target.errors import UnsupportedError

ONNX_DOMAINS = ("", "ai.onnx")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators the model is written in."""
    return max((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), default=1)


def place(node: onnx.NodeProto) -> str:
    """How errors name a node."""
    return f"node {node.name or (node.output[0] if node.output else node.op_type)!r} ({node.op_type})"


class View:
    """A model as rules see it; taken once, before any of its nodes is replaced."""

    def __init__(self, model: onnx.ModelProto):
        self.opset = opset_of(model)
        self._types = inferred_types(model)
        self._stored = {t.name: t for t in model.graph.initializer}
        self._stored |= {
            n.output[0]: a.t
            for n in model.graph.node
            if n.op_type == "Constant"
            for a in n.attribute
            if a.name == "value"
        }
        self._arrays: dict[str, np.ndarray] = {}
        self.producer = {name: n for n in model.graph.node for name in n.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {o.name for o in model.graph.output}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The static shape of a tensor, None where a dimension is unknown."""
        found = self._types.get(name)
        if found is None or not found.HasField("shape") or not all(d.HasField("dim_value") for d in found.shape.dim):
            return None
        return tuple(d.dim_value for d in found.shape.dim)

    def rank(self, name: str) -> int | None:
        found = self._types.get(name)
        return len(found.shape.dim) if found is not None and found.HasField("shape") else None

    def dtype(self, name: str) -> np.dtype | None:
        """NumPy's element type of a tensor, None where ONNX cannot infer it."""
        found = self._types.get(name)
        return (
            np.dtype(helper.tensor_dtype_to_np_dtype(found.elem_type))
            if found is not None and found.elem_type
            else None
        )

    def array(self, name: str) -> np.ndarray | None:
        """The value of a constant, None for a tensor computed at run time."""
        if name not in self._stored:
            return None
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._stored[name])
        return self._arrays[name]

    def element_code(self, name: str) -> int:
        """ONNX's number of a stored constant's element type; 0 for tensors computed at run time."""
        return self._stored[name].data_type if name in self._stored else 0

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor which is no output of the model, else None."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and name not in self.outputs else None

    # ---- what must be known -----------------------------------------------------------------------------------------
    def need_shape(self, node: onnx.NodeProto, index: int = 0) -> tuple[int, ...]:
        """Errors: UnsupportedError where the shape of an input is not known at compile time."""
        shape = self.shape(node.input[index])
        if shape is None:
            raise UnsupportedError(
                f"the shape of an input of {node.op_type} is not known at compile time",
                where=place(node),
                available=f"input {node.input[index]!r}",
                remedy="export the model with static shapes, or give input shapes",
            )
        return shape

    def need_array(self, node: onnx.NodeProto, index: int, what: str) -> np.ndarray:
        """Errors: UnsupportedError where an input that must be constant is computed at run time."""
        array = self.array(node.input[index])
        if array is None:
            raise UnsupportedError(
                f"the {what} of {node.op_type} are computed at run time",
                where=place(node),
                available=f"input {node.input[index]!r}",
                required="a constant, or what follows from static shapes",
            )
        return array


def inferred_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element types and shapes by tensor name, as far as ONNX infers them."""
    light = _without_data(model)
    try:
        graph = inferred(light)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        graph = light.graph
    types = {
        v.name: v.type.tensor_type
        for v in (*graph.value_info, *graph.input, *graph.output)
        if v.type.HasField("tensor_type")
    }
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims)).tensor_type
    return types


_LARGE_BYTES = 1 << 16


def _without_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large weights as inputs: they are no shapes, and the inference copies the whole file several
    times."""
    light = onnx.ModelProto(
        ir_version=max(model.ir_version, 4), opset_import=model.opset_import, functions=model.functions
    )
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(_typed_as_input(n) for n in model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    inputs = {i.name for i in graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _LARGE_BYTES:
            graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return light


_LIKE_THEIR_INPUT = frozenset(
    {
        "Gelu",
        "BiasGelu",
        "FastGelu",
        "QuickGelu",
        "Quant",
        "IntQuant",
        "BipolarQuant",
        "Trunc",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""Operators of other domains whose first output has the type and shape of their first input: ONNX infers nothing behind
them."""


def _typed_as_input(node: onnx.NodeProto) -> onnx.NodeProto:
    foreign = node.domain not in ONNX_DOMAINS or not onnx.defs.has(node.op_type)
    if not foreign or node.op_type not in _LIKE_THEIR_INPUT:
        return node
    return helper.make_node("Identity", node.input[:1], node.output[:1])


def given(node: onnx.NodeProto, index: int) -> str:
    """The name of an input, "" where it is absent."""
    return node.input[index] if len(node.input) > index else ""


def texts(node: onnx.NodeProto) -> dict:
    """The node's attributes as Python values, bytes as text."""
    return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in attributes_of(node).items()}


def apply_rules(model: onnx.ModelProto, rules, view: View | None = None) -> int:
    """Replace nodes in place and return how many; ``rules(node)`` gives a function of (node, emitter, view) or None.

    A function that returns False leaves its node as it is.
    """
    graph, replaced, nodes, made = model.graph, 0, [], []
    if not any(rules(node) for node in graph.node):
        return 0
    view = view or View(model)
    taken = {t.name for t in graph.initializer} | set(view.producer)
    for node in graph.node:
        rule = rules(node)
        if rule is None:
            nodes.append(node)
            continue
        emitter = Emitter(node, node.output[0])
        if rule(node, emitter, view) is False:
            nodes.append(node)
            continue
        replaced += 1
        for one in (e for e in emitter.initializers if e.name not in taken):
            made.append(one)
            taken.add(one.name)
        nodes.extend(emitter.nodes)
    if replaced:
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(made)
    return replaced


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers nobody reads (a subgraph reads its outer names too)."""
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed |= read_names(node)
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    initializers = [t for t in graph.initializer if t.name in needed]
    if len(initializers) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(initializers)


def read_names(node: onnx.NodeProto) -> set[str]:
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.type == onnx.AttributeProto.GRAPH else ():
            names |= read_names(inner)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names |= {o.name for o in attribute.g.output}
    return names
