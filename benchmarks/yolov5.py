"""YOLOv5-S as an ONNX graph, from its public description (release 6: width 0.50, depth 0.33), with random weights: no
trained file of it is here.

Backbone of strided convolutions and CSP blocks ("C3"), spatial pyramid pooling ("SPPF"), a path aggregation neck, three
heads of 3 x (5 + classes) channels at strides 8, 16 and 32. Batch norms are folded (their parameters are counted as the
published figure counts them, see `published_parameters`). The heads' decoding (sigmoid, grids) is left out, as it is
for exported networks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES, ANCHORS = 80, 3
SILU_GAIN = 1.68
"""A SiLU of a standard normal value has this much less deviation: with weights so much larger, random activations
neither vanish nor grow."""


@dataclass
class Graph:
    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    published_parameters: int = 0

    def add(self, op: str, inputs: list[str], channels: int, **attributes) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.channels[name] = channels
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def convolution(
        self, x: str, out: int, kernel: int = 1, stride: int = 1, padding: int | None = None, normalised: bool = True
    ) -> str:
        channels, number = self.channels[x], len(self.nodes)
        gain = SILU_GAIN if normalised else 1.0
        weights = self.rng.standard_normal((out, channels, kernel, kernel)) * gain / np.sqrt(channels * kernel * kernel)
        bias = self.rng.standard_normal(out) * 0.1
        self.published_parameters += weights.size + out * (
            2 if normalised else 1
        )  # a batch norm has two a channel and takes the place of the bias
        pad = [kernel // 2 if padding is None else padding] * 4
        names = [
            self.constant(f"w_{number}", weights.astype(np.float32)),
            self.constant(f"b_{number}", bias.astype(np.float32)),
        ]
        return self.add("Conv", [x, *names], out, kernel_shape=[kernel, kernel], strides=[stride, stride], pads=pad)

    def depthwise(self, x: str, kernel: int, stride: int) -> str:
        """One kernel a channel, with bias."""
        channels, number = self.channels[x], len(self.nodes)
        weights = self.rng.standard_normal((channels, 1, kernel, kernel)) * SILU_GAIN / kernel
        names = [
            self.constant(f"w_{number}", weights.astype(np.float32)),
            self.constant(f"b_{number}", (self.rng.standard_normal(channels) * 0.1).astype(np.float32)),
        ]
        return self.add(
            "Conv",
            [x, *names],
            channels,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=channels,
        )

    def conv(self, x: str, out: int, kernel: int = 1, stride: int = 1, padding: int | None = None) -> str:
        """Convolution, batch norm (folded), SiLU."""
        y = self.convolution(x, out, kernel, stride, padding)
        return self.add("Mul", [y, self.add("Sigmoid", [y], out)], out)

    def concat(self, *parts: str) -> str:
        return self.add("Concat", list(parts), sum(self.channels[p] for p in parts), axis=1)

    def c3(self, x: str, out: int, depth: int, shortcut: bool = True) -> str:
        """Half the channels through ``depth`` bottlenecks, half past them."""
        half = out // 2
        y = self.conv(x, half)
        for _ in range(depth):
            z = self.conv(self.conv(y, half), half, 3)
            y = self.add("Add", [y, z], half) if shortcut else z
        return self.conv(self.concat(y, self.conv(x, half)), out)

    def sppf(self, x: str, out: int) -> str:
        half = self.channels[x] // 2
        pooled = [self.conv(x, half)]
        for _ in range(3):
            pooled.append(
                self.add("MaxPool", [pooled[-1]], half, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
            )
        return self.conv(self.concat(*pooled), out)

    def upsample(self, x: str) -> str:
        scales = self.constant(f"scales_{len(self.nodes)}", np.array([1, 1, 2, 2], np.float32))
        return self.add(
            "Resize",
            [x, "", scales],
            self.channels[x],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )


def yolov5s(size: int = 640, seed: int = 0) -> onnx.ModelProto:
    """Input "images" float32[1, 3, size, size], outputs "p3", "p4", "p5". size : a multiple of 32."""
    graph, heads = _network(np.random.default_rng(seed))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])
    outputs = []
    for name, head, stride in zip(("p3", "p4", "p5"), heads, (8, 16, 32)):
        graph.nodes.append(helper.make_node("Identity", [head], [name], name=name))
        outputs.append(
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [1, ANCHORS * (5 + CLASSES), size // stride, size // stride]
            )
        )
    made = helper.make_graph(graph.nodes, "yolov5s", [image], outputs, graph.constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def published_parameters() -> int:
    """Parameters as the published 7.2 million are counted: weights, batch norms, biases of the heads."""
    return _network(np.random.default_rng(0))[0].published_parameters


def _network(rng: np.random.Generator) -> tuple[Graph, list[str]]:
    g = Graph(rng, channels={"images": 3})
    x = g.conv(g.conv("images", 32, 6, 2, 2), 64, 3, 2)
    x = g.c3(x, 64, 1)
    p3 = g.c3(g.conv(x, 128, 3, 2), 128, 2)
    p4 = g.c3(g.conv(p3, 256, 3, 2), 256, 3)
    p5 = g.sppf(g.c3(g.conv(p4, 512, 3, 2), 512, 1), 512)
    top = g.conv(p5, 256)
    middle = g.conv(g.c3(g.concat(g.upsample(top), p4), 256, 1, shortcut=False), 128)
    small = g.c3(g.concat(g.upsample(middle), p3), 128, 1, shortcut=False)
    medium = g.c3(g.concat(g.conv(small, 128, 3, 2), middle), 256, 1, shortcut=False)
    large = g.c3(g.concat(g.conv(medium, 256, 3, 2), top), 512, 1, shortcut=False)
    return g, [g.convolution(level, ANCHORS * (5 + CLASSES), normalised=False) for level in (small, medium, large)]
