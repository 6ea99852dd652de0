"""Small models for the tests of the doors, made in memory."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_net(seed: int = 0, extra: str | None = None) -> onnx.ModelProto:
    """[1,3,8,8] float -> conv 3x3, relu, global pool, dense -> [1,5]. ``extra``: an operator put before the dense
    layer."""
    rng = np.random.default_rng(seed)

    def weights(name, *shape):
        return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r1"], ["p1"], name="pool"),
        helper.make_node("Flatten", ["p1"], ["f1"], name="flatten"),
    ]
    last = "f1"
    if extra:
        nodes.append(helper.make_node(extra, [last], ["e1"], name="extra"))
        last = "e1"
    nodes.append(helper.make_node("Gemm", [last, "w2", "b2"], ["y"], name="dense"))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [weights("w1", 4, 3, 3, 3), weights("b1", 4), weights("w2", 4, 5), weights("b2", 5)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def images(count: int, seed: int = 0) -> np.ndarray:
    """float32 [count, 3, 8, 8]."""
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def camera_net(seed: int = 0, middle: str | None = None) -> onnx.ModelProto:
    """[1,3,32,32] float -> conv 3x3 stride 2 to 8 channels, relu, depthwise 3x3, relu, conv 4x4 stride 4 -> [1,8,4,4]:
    the frame is the largest tensor. ``middle``: an operator put before the depthwise convolution."""
    rng = np.random.default_rng(seed)

    def weights(name, *shape):
        return numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
    ]
    last = "r1"
    if middle:
        nodes.append(helper.make_node(middle, [last], ["m1"], name="middle"))
        last = "m1"
    nodes += [
        helper.make_node("Conv", [last, "w2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["y"], name="project", strides=[4, 4]),
    ]
    graph = helper.make_graph(
        nodes,
        "camera",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 4, 4])],
        [weights("w1", 8, 3, 3, 3), weights("w2", 8, 1, 3, 3), weights("w3", 8, 8, 4, 4)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def frames(count: int, seed: int = 0) -> np.ndarray:
    """float32 [count, 3, 32, 32]."""
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)
