"""MobileNetV3-Small as an ONNX graph, from its paper's table 2 (arXiv 1905.02244), with random weights: no trained file
of it is here."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.yolov5 import Graph

ROWS = (
    (3, 16, 16, True, "Relu", 2),
    (3, 72, 24, False, "Relu", 2),
    (3, 88, 24, False, "Relu", 1),
    (5, 96, 40, True, "HardSwish", 2),
    (5, 240, 40, True, "HardSwish", 1),
    (5, 240, 40, True, "HardSwish", 1),
    (5, 120, 48, True, "HardSwish", 1),
    (5, 144, 48, True, "HardSwish", 1),
    (5, 288, 96, True, "HardSwish", 2),
    (5, 576, 96, True, "HardSwish", 1),
    (5, 576, 96, True, "HardSwish", 1),
)
"""Kernel, expanded channels, output channels, squeeze and excitation, activation, stride."""
LAST, FEATURES, CLASSES = 576, 1024, 1000


def mobilenet_v3_small(size: int = 224, seed: int = 0) -> onnx.ModelProto:
    """Input "image" float32[1, 3, size, size], output "logits" [1, 1000, 1, 1]. Batch norms are folded."""
    graph = Graph(np.random.default_rng(seed))
    graph.channels["image"] = 3
    x = _act(graph, graph.convolution("image", 16, 3, 2), "HardSwish")
    for kernel, expanded, out, squeeze, activation, stride in ROWS:
        x = _block(graph, x, kernel, expanded, out, squeeze, activation, stride)
    x = _act(graph, graph.convolution(x, LAST), "HardSwish")
    x = graph.add("GlobalAveragePool", [x], LAST)
    x = graph.convolution(_act(graph, graph.convolution(x, FEATURES), "HardSwish"), CLASSES)
    graph.add("Identity", [x], CLASSES)
    graph.nodes[-1].output[0] = "logits"
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES, 1, 1])
    made = helper.make_graph(graph.nodes, "mobilenet_v3_small", [image], [logits], graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _act(graph: Graph, x: str, activation: str) -> str:
    return graph.add(activation, [x], graph.channels[x])


def _block(
    graph: Graph, x: str, kernel: int, expanded: int, out: int, squeeze: bool, activation: str, stride: int
) -> str:
    y = x if expanded == graph.channels[x] else _act(graph, graph.convolution(x, expanded), activation)
    y = _act(graph, graph.depthwise(y, kernel, stride), activation)
    if squeeze:
        z = graph.add("GlobalAveragePool", [y], expanded)
        z = graph.add("Relu", [graph.convolution(z, -(-expanded // 32) * 8)], -(-expanded // 32) * 8)
        z = graph.add("HardSigmoid", [graph.convolution(z, expanded)], expanded, alpha=1 / 6, beta=0.5)
        y = graph.add("Mul", [y, z], expanded)
    y = graph.convolution(y, out, normalised=False)
    return graph.add("Add", [x, y], out) if stride == 1 and graph.channels[x] == out else y
