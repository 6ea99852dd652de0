"""Small networks with random weights and the heads of detectors, as ONNX."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


class Net:
    """A graph under construction on a picture [1, 3, size, size]."""

    def __init__(self, size: int, seed: int = 0):
        self.size, self.rng = size, np.random.default_rng(seed)
        self.nodes, self.weights, self.outputs = [], [], []

    def conv(self, x: str, channels: int, out: int, stride: int = 1, relu: bool = True, spread: float = 1.0) -> str:
        """A kernel as large as its stride, at least 1."""
        kernel, name = max(stride, 1), f"conv{len(self.weights)}"
        shape = (out, channels, kernel, kernel)
        w = self.rng.standard_normal(shape) * spread * np.sqrt(2 / np.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(w.astype(np.float32), f"{name}_w"))
        self.add("Conv", [x, f"{name}_w"], name, strides=[stride] * 2)
        return self.add("Relu", [name], f"{name}_r") if relu else name

    def add(self, op: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def shape(self, x: str, dims: list[int]) -> str:
        self.weights.append(numpy_helper.from_array(np.array(dims, np.int64), f"{x}_dims"))
        return self.add("Reshape", [x, f"{x}_dims"], f"{x}_rows")

    def give(self, x: str, *shape: int) -> None:
        self.outputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, list(shape)))

    def levels(self) -> list[tuple[str, int, int]]:
        """``(features, side, channels)`` at strides 8, 16, 32."""
        at, found, channels = "image", [], 3
        for stride, out in ((8, 16), (2, 16), (2, 16)):
            at = self.conv(at, channels, out, stride)
            channels = out
            found.append((at, self.size // (8 << len(found)), out))
        return found

    def model(self) -> ModelProto:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, self.size, self.size])
        graph = helper.make_graph(self.nodes, "net", [image], self.outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def yolox(size: int = 64, classes: int = 5) -> ModelProto:
    """One output [1, cells, 5 + classes], sigmoids inside, as YOLOX is exported."""
    net, rows = Net(size), []
    for level, (x, side, channels) in enumerate(net.levels()):
        boxes = net.conv(x, channels, 4, relu=False, spread=0.5)
        present, kinds = (
            net.add("Sigmoid", [net.conv(x, channels, n, relu=False, spread=2.0)], f"sigmoid{level}_{n}")
            for n in (1, classes)
        )
        joined = net.add("Concat", [boxes, present, kinds], f"joined{level}", axis=1)
        rows.append(net.shape(joined, [1, 5 + classes, side * side]))
    net.add("Concat", rows, "all", axis=2)
    net.give(
        net.add("Transpose", ["all"], "output", perm=[0, 2, 1]),
        1,
        sum((size // s) ** 2 for s in (8, 16, 32)),
        5 + classes,
    )
    return net.model()


def heads(values: int, size: int = 64, spread: float = 2.0) -> ModelProto:
    """Raw convolutions of so many values, [1, values, H, W] a level."""
    net = Net(size, seed=1)
    for x, side, channels in net.levels():
        net.give(net.conv(x, channels, values, relu=False, spread=spread), 1, values, side, side)
    return net.model()


def ssd(size: int = 64, anchors: int = 2, classes: int = 5) -> ModelProto:
    """boxes [1, N, 4] and classes [1, N, C] of two levels, cells before anchors."""
    net, parts = Net(size, seed=2), {4: [], classes: []}
    levels, count = net.levels()[1:], 0
    for x, side, channels in levels:
        count += side * side * anchors
        for values, found in parts.items():
            conv = net.conv(x, channels, anchors * values, relu=False, spread=1.5)
            last = net.add("Transpose", [conv], f"{conv}_last", perm=[0, 2, 3, 1])
            found.append(net.shape(last, [1, side * side * anchors, values]))
    for name, (values, found) in zip(("places", "kinds"), parts.items()):
        net.give(net.add("Concat", found, name, axis=1), 1, count, values)
    return net.model()


def maps(channels: int = 3, size: int = 32) -> ModelProto:
    """[1, channels, H / 4, W / 4]: heat maps, or scores of classes."""
    net = Net(size, seed=3)
    x = net.conv("image", 3, 8, 4)
    net.give(net.conv(x, 8, channels, relu=False), 1, channels, size // 4, size // 4)
    return net.model()


def sequence(steps: int = 16, classes: int = 6) -> ModelProto:
    """[1, T, C] out of the columns of a picture."""
    net = Net(steps, seed=4)
    x = net.conv("image", 3, classes, 1, relu=False, spread=2.0)
    net.add("ReduceMean", [x], "columns", axes=[2], keepdims=0)
    net.give(net.add("Transpose", ["columns"], "steps", perm=[0, 2, 1]), 1, steps, classes)
    return net.model()
