"""A file with weights of 4 bits: they take 4 bits in the chip's memory too, where that costs no time."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.target.chip import chip
from tvm_ergo.target.machine import Trace

LAYERS = {
    "convolutions": ((1, 32, 8, 8), ((32, 32, 3), (32, 64, 3), (64, 64, 1))),
    "dense": ((1, 256, 1, 1), ((256, 128, 1), (128, 64, 1))),
}


def model(shape, layers, kind):
    """Convolutions between quantizers, weights of 4 bits with a scale (and, of uint4, a zero point) a channel."""
    rng, nodes, constants = np.random.default_rng(3), [], []

    def constant(name, values, dtype=None):
        values = np.asarray(values)
        constants.append(
            numpy_helper.from_array(values, name)
            if dtype is None
            else helper.make_tensor(name, dtype, values.shape, values.reshape(-1).tolist())
        )
        return name

    def pair(source, out):
        scale, zero = constant(f"{out}_s", np.float32(0.05)), constant(f"{out}_z", np.int8(0))
        nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [f"{out}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{out}_q", scale, zero], [out]))
        return out

    x, low = pair("x", "x_d"), 0 if kind == TensorProto.UINT4 else -8
    for i, (depth, units, k) in enumerate(layers):
        codes = np.clip(np.rint(rng.normal(low + 8, 3, (units, depth, k, k))), low, low + 15).astype(np.int8)
        zeros = constant(f"z{i}", np.full(units, low + 8, np.int8), kind)
        parts = [
            constant(f"w{i}", codes, kind),
            constant(f"s{i}", rng.uniform(0.005, 0.01, units).astype(np.float32)),
            zeros,
        ]
        nodes.append(helper.make_node("DequantizeLinear", parts, [f"w{i}_d"], axis=0))
        nodes.append(helper.make_node("Conv", [x, f"w{i}_d"], [f"c{i}"], pads=[k // 2] * 4))
        x = pair(f"c{i}", "y" if i == len(layers) - 1 else f"c{i}_d")
    ends = ([helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", shape), ("y", None)))
    graph = helper.make_graph(nodes, "four_bits", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
@pytest.mark.parametrize("name", LAYERS)
def test_half_the_memory_by_default_and_no_more_time(name, kind):
    shape, layers = LAYERS[name]
    net = model(shape, layers, kind)
    plain, kept = tvm_ergo.compile(net, weights="dense"), tvm_ergo.compile(net)
    (dense,), (small,) = plain.programs.values(), kept.programs.values()
    assert small.meta["constant_bytes"] < 0.56 * dense.meta["constant_bytes"]
    assert Trace(small, chip("ergo/1")).cycles <= Trace(dense, chip("ergo/1")).cycles
    x = np.random.default_rng(1).uniform(-6, 6, shape).astype(np.float32)
    np.testing.assert_array_equal(kept.run({"x": x}).outputs["y"], plain.run({"x": x}).outputs["y"])
