"""Nodes and initializers that take the place of one ONNX node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Emitter:
    """Collects the nodes and initializers that take the place of one node; names derive from ``prefix``, by default the
    node's name."""

    def __init__(self, node: onnx.NodeProto, prefix: str = ""):
        self.prefix = prefix or node.name or node.output[0]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(value, f"{self.prefix}_{name}"))
        return f"{self.prefix}_{name}"

    def op(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes) -> str:
        output = output or f"{self.prefix}_{name}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{self.prefix}_{name}", **attributes))
        return output

    def named(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes) -> str:
        """A node that bears the source's own name (or the prefix)."""
        output = output or f"{self.prefix}_real"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name or self.prefix, **attributes))
        return output


def attributes_of(node: onnx.NodeProto) -> dict:
    """The node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
