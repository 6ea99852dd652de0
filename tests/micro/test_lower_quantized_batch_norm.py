"""BatchNormalization between an integer convolution and its quantizer, as quantization-aware training without folding
writes it: on the chip, within a step."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tvm_ergo

ort = pytest.importorskip("onnxruntime")
SHAPE = [1, 4, 6, 6]


def net(activation: str, *, depthwise=False, negative=False, bias=False, gemm=False, channels=4):
    rng, nodes, constants = np.random.default_rng(5), [], {}

    def qdq(x, y, scale, zero):
        constants.update({f"{y}_s": np.float32(scale), f"{y}_z": np.int8(zero)})
        nodes.append(helper.make_node("QuantizeLinear", [x, f"{y}_s", f"{y}_z"], [f"{y}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{y}_q", f"{y}_s", f"{y}_z"], [y]))

    qdq("x", "a", 0.02, 3)
    shape = (4, 6) if gemm else (channels, 1 if depthwise else 4, 3, 3)
    count = shape[0] if not gemm else shape[1]
    constants |= {
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "w_s": np.linspace(0.004, 0.02, count).astype(np.float32),
        "w_z": np.zeros(count, np.int8),
        "g": rng.uniform(0.5, 1.5, count).astype(np.float32) * (-1 if negative else 1),
        "b": rng.normal(size=count).astype(np.float32),
        "m": rng.normal(size=count).astype(np.float32),
        "v": rng.uniform(0.5, 2, count).astype(np.float32),
    }
    nodes.append(helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["wd"], axis=1 if gemm else 0))
    if gemm:
        nodes.append(helper.make_node("ReduceMean", ["a"], ["p"], axes=[2, 3], keepdims=0))
        qdq("p", "pq", 0.01, 0)
        nodes.append(helper.make_node("MatMul", ["pq", "wd"], ["k"]))
    else:
        inputs = ["a", "wd"]
        if bias:
            constants |= {
                "cb": rng.integers(-5000, 5000, count).astype(np.int32),
                "cb_s": (constants["w_s"] * np.float32(0.02)).astype(np.float32),
                "cb_z": np.zeros(count, np.int32),
            }
            nodes.append(helper.make_node("DequantizeLinear", ["cb", "cb_s", "cb_z"], ["cbd"], axis=0))
            inputs.append("cbd")
        nodes.append(helper.make_node("Conv", inputs, ["k"], pads=[1] * 4, group=4 if depthwise else 1))
    nodes.append(helper.make_node("BatchNormalization", ["k", "g", "b", "m", "v"], ["t" if activation else "r"]))
    if activation:
        nodes.append(helper.make_node(activation, ["t"], ["r"]))
    qdq("r", "y", 0.05, -128 if activation == "Relu" else 10)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


CASES = {
    "relu": dict(),
    "bias": dict(bias=True),
    "depthwise": dict(depthwise=True),
    "negative gains": dict(negative=True),
    "one channel": dict(channels=1),
    "one channel, bias": dict(channels=1, bias=True),
    "matrix product": dict(gemm=True),
}


@pytest.mark.parametrize("activation", ("", "Relu"))
@pytest.mark.parametrize("case", CASES)
def test_whole_on_the_chip_and_right(case, activation):
    made = net(activation, **CASES[case])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.random.default_rng(1).uniform(-2, 2, SHAPE).astype(np.float32)
    wanted = ort.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})[0]
    compiled = tvm_ergo.compile(made)
    off = np.abs(next(iter(compiled.run({"x": x}).outputs.values())) - wanted) / 0.05
    assert off.max() < 1.001 and (off > 0.5).mean() < 0.05
    assert not compiled.fallbacks and len(compiled.programs) == 1
