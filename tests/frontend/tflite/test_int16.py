"""TFLite int16x8 files (int16 activations, int8 weights, int64 biases) on the chip, every operator within one step of
LiteRT's own kernels."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo
from tvm_ergo.evaluation.tflite.builder import Graph, file_of
from tvm_ergo.evaluation.tflite.reference import litert, steps_apart

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
RNG = np.random.default_rng(16)
VALUES = RNG.integers(-32768, 32768, (1, 8, 8, 6)).astype(np.int16)


def compared(g: Graph, outputs: list[str], feeds: dict, host=()):
    """Steps from LiteRT; which operators stay on the host is what was asked for."""
    data = file_of(g.ends(list(feeds), outputs))
    compiled = tvm_ergo.compile(data)
    assert {f.op for f in compiled.fallbacks} == set(host)
    return steps_apart(compiled.run(feeds).outputs, litert(data, feeds))


def graph(scale: float = 1 / 4096) -> Graph:
    g = Graph()
    g.tensor("x", VALUES.shape, "int16", scale)
    return g


@pytest.mark.parametrize("activation", [0, 1, 3], ids=["none", "relu", "relu6"])
@pytest.mark.parametrize("bias, kind", [("int64", 4), ("int32", 2)])
def test_convolution(activation, bias, kind):
    g = graph()
    g.constant("w", RNG.integers(-128, 128, (5, 3, 3, 6)), "int8", np.linspace(0.004, 0.012, 5))
    g.constant("b", RNG.integers(-(2**24), 2**24, 5), bias)
    g.tensor("y", (1, 4, 4, 5), "int16", 1 / 2500)
    window = {"stride_w": 2, "stride_h": 2, "fused_activation_function": activation, "quantized_bias_type": kind}
    g.op("CONV_2D", ["x", "w", "b"], ["y"], "Conv2DOptions", version=4, **window)
    assert compared(g, ["y"], {"x": VALUES}) <= 1


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolution(multiplier):
    g, channels = graph(), 6 * multiplier
    g.constant("w", RNG.integers(-127, 128, (1, 3, 3, channels)), "int8", np.linspace(0.004, 0.02, channels), axis=3)
    g.constant("b", RNG.integers(-(2**20), 2**20, channels), "int64")
    g.tensor("y", (1, 8, 8, channels), "int16", 1 / 8000)
    window = {"stride_w": 1, "stride_h": 1, "depth_multiplier": multiplier}
    g.op("DEPTHWISE_CONV_2D", ["x", "w", "b"], ["y"], "DepthwiseConv2DOptions", version=5, **window)
    assert compared(g, ["y"], {"x": VALUES}) <= 1


def test_dense_layer():
    g = graph()
    g.constant("w", RNG.integers(-127, 128, (7, 384)), "int8", 0.003)
    g.constant("b", RNG.integers(-(2**28), 2**28, 7), "int64")
    g.tensor("y", (1, 7), "int16", 1 / 500)
    g.op("FULLY_CONNECTED", ["x", "w", "b"], ["y"], "FullyConnectedOptions", version=4)
    assert compared(g, ["y"], {"x": VALUES}) <= 1


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("activation", [0, 1, 3], ids=["none", "relu", "relu6"])
def test_sums_and_products(op, activation):
    g, other = graph(), RNG.integers(-32768, 32768, (1, 8, 8, 6)).astype(np.int16)
    g.tensor("z", VALUES.shape, "int16", 1 / 9000)
    g.tensor("y", VALUES.shape, "int16", 1 / 3000)
    more = {} if op == "MUL" else {"pot_scale_int16": False}
    g.op(op, ["x", "z"], ["y"], f"{op.title()}Options", version=2, fused_activation_function=activation, **more)
    assert compared(g, ["y"], {"x": VALUES, "z": other}) <= 1


@pytest.mark.parametrize("op, function", [("LOGISTIC", lambda v: 1 / (1 + np.exp(-v))), ("TANH", np.tanh)])
@pytest.mark.parametrize("scale, litert_off", [(1 / 4096, 12), (1 / 9000, 3)])
def test_curves(op, function, scale, litert_off):
    """All 65,536 values within one step of the function itself; LiteRT's are further from it (a scale of a power of two
    takes its older kernel)."""
    codes = np.arange(-32768, 32768).astype(np.int16)
    g = Graph()
    g.tensor("x", codes.shape, "int16", scale)
    g.tensor("y", codes.shape, "int16", 1 / 32768)
    g.op(op, ["x"], ["y"], version=3)
    data = file_of(g.ends(["x"], ["y"]))
    compiled = tvm_ergo.compile(data)
    assert not compiled.fallbacks
    got, want = (found["y"].astype(int) for found in (compiled.run({"x": codes}).outputs, litert(data, {"x": codes})))
    true = np.clip(np.rint(function(codes * np.float64(np.float32(scale))) * 32768), -32768, 32767).astype(int)
    assert np.abs(got - true).max() <= 1
    assert np.abs(want - true).max() <= litert_off


@pytest.mark.parametrize("op", ["RELU", "RELU6"])
def test_clamps(op):
    g = graph()
    g.tensor("y", VALUES.shape, "int16", 1 / 4096)
    g.op(op, ["x"], ["y"], version=2)
    assert compared(g, ["y"], {"x": VALUES}) <= 0


def test_movement_moves_and_an_unknown_operator_is_named():
    g = graph()
    g.constant("shape", [1, 4, 16, 6], "int32")
    g.tensor("r", (1, 4, 16, 6), "int16", 1 / 4096)
    g.op("RESHAPE", ["x", "shape"], ["r"])
    g.constant("perm", [0, 2, 1, 3], "int32")
    g.tensor("t", (1, 16, 4, 6), "int16", 1 / 4096)
    g.op("TRANSPOSE", ["r", "perm"], ["t"])
    g.tensor("c", (1, 16, 8, 6), "int16", 1 / 4096)
    g.op("CONCATENATION", ["t", "t"], ["c"], "ConcatenationOptions", version=3, axis=2)
    g.constant("pads", [[0, 0], [1, 0], [2, 1], [0, 0]], "int32")
    g.tensor("y", (1, 17, 11, 6), "int16", 1 / 4096)
    g.op("PAD", ["c", "pads"], ["y"], version=2)
    assert compared(g, ["y"], {"x": VALUES}) == 0


@pytest.mark.parametrize(
    "before, after",
    [
        (("int16", 1 / 4096, 0), ("int8", 1 / 17, -5)),
        (("int8", 1 / 17, -5), ("int16", 1 / 3000, 0)),
        (("int16", 1 / 4096, 0), ("int16", 1 / 3000, 0)),
    ],
)
def test_changes_of_width(before, after):
    g = Graph()
    g.tensor("x", VALUES.shape, *before)
    g.tensor("y", VALUES.shape, *after)
    g.op("QUANTIZE", ["x"], ["y"], version=2)
    feeds = {"x": VALUES if before[0] == "int16" else (VALUES >> 8).astype(np.int8)}
    assert compared(g, ["y"], feeds) <= 1
