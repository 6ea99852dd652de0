"""What an ONNX graph computes from constants alone, of any size, and the shapes that follow from those of its
inputs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tvm_ergo.frontend.onnx_rules.inferred import inferred

_ERRORS = (
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


class Known:
    """Values and shapes by tensor name. ``shapes``: of the graph's inputs."""

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, list[int]]):
        self._opsets, graph = model.opset_import, model.graph
        self._constants = {t.name: t for t in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output if output}
        self._inputs = {i.name for i in graph.input} - set(self._constants)
        self._values: dict[str, np.ndarray | None] = {}
        self._shapes = _inferred(model, shapes)

    def shape(self, name: str) -> list[int] | None:
        """Dimensions, 0 where unknown; None if nothing is known."""
        value = self._constants.get(name)
        return list(value.dims) if value is not None else self._shapes.get(name)

    def value(self, name: str) -> np.ndarray | None:
        """The tensor, if the graph computes it from constants; None otherwise."""
        if name not in self._values:
            self._values[name] = self._evaluated(name)
        return self._values[name]

    def _evaluated(self, name: str) -> np.ndarray | None:
        if name in self._constants:
            return numpy_helper.to_array(self._constants[name])
        nodes = self._ancestors(name)
        if not nodes:
            return None
        read = {i for node in nodes for i in node.input}
        graph = helper.make_graph(
            nodes,
            "constant",
            [],
            [onnx.ValueInfoProto(name=name)],
            [t for n, t in self._constants.items() if n in read],
        )
        try:
            with np.errstate(all="ignore"):
                return np.asarray(
                    ReferenceEvaluator(helper.make_model(graph, opset_imports=self._opsets)).run(None, {})[0]
                )
        except _ERRORS:
            return None

    def _ancestors(self, name: str) -> list[onnx.NodeProto] | None:
        """The nodes that compute a tensor, in order; None if an input of the graph (or chance) has a part in it."""
        found: dict[int, onnx.NodeProto] = {}
        waiting, seen = [name], set()
        while waiting:
            current = waiting.pop()
            if not current or current in seen or current in self._constants:
                continue
            seen.add(current)
            node = self._producers.get(current)
            if (
                node is None
                or node.op_type in _RANDOM
                or any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)
            ):
                return None
            found[id(node)] = node
            waiting.extend(node.input)
        order = {id(node): place for place, node in enumerate(self._producers.values())}
        return sorted(found.values(), key=lambda node: order[id(node)])


def _inferred(model: onnx.ModelProto, shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ())):
            dim.Clear()
            dim.dim_value = size
    try:
        graph = inferred(fixed)
    except (RuntimeError, onnx.shape_inference.InferenceError):
        graph = fixed.graph
    return {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.value_info, *graph.input, *graph.output)
        if v.type.HasField("tensor_type") and v.type.tensor_type.HasField("shape")
    }
