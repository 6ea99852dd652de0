"""Where values lie on a grid their scales are exact: binary and 2-bit networks equal their float selves to the bit,
input by input."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tvm_ergo
from tvm_ergo import frontend
from tvm_ergo.evaluation.datasets import has_shared, shared_root
from tvm_ergo.relay_passes.interpreter import Interpreter
from tvm_ergo.relay_passes.macro import normalize
from tvm_ergo.relay_passes.micro.align_thresholds import align_thresholds
from tvm_ergo.relay_passes.micro.exact import Levels
from tvm_ergo.relay_passes.micro.quantize import quantize


def levels(*values, times=64):
    found = Levels()
    for _ in range(times):
        found.update(np.array(values, np.float32))
    return found


@pytest.mark.parametrize(
    "values",
    (
        [-1, 1],
        [-1, 0, 1],
        [0, 1],
        [-1, -0.5, 0, 0.5, 1],
        [0, 0.25, 0.75],
        [-3, 5],
        list(range(256)),
        [k / 128 for k in range(-128, 128)],
    ),
)
def test_grids_are_represented_exactly(values):
    params = levels(*values).params()
    assert np.array_equal(params.dequantize(params.quantize(np.array(values, np.float64))), values)
    assert np.frexp(params.scale)[0] == 0.5 or len(values) == 256  # a power of two: sums and products stay exact


@pytest.mark.parametrize("values", ([0.5], [-1, 0.3141, 1], list(range(257)), [1, 1000]))
def test_other_values_have_no_grid(values):
    assert levels(*values).params() is None


def test_few_values_by_chance_are_no_grid():
    assert not levels(-1, 0, 1, times=1).repeated and levels(-1, 0, 1).repeated


class Binary:
    """x in -1, 1 -> layers of weights -1, 1 and signs (or half the sum of two, 2 bits) -> scores."""

    def __init__(self, seed: int, bits: int, conv: bool, far: float = 1.0):
        self.rng, self.bits, self.conv, self.nodes, self.constants, self.far = (
            np.random.default_rng(seed),
            bits,
            conv,
            [],
            {},
            far,
        )
        x, width = "x", 6 if conv else 48
        for i, size in enumerate((8, 8) if conv else (40, 32)):
            x = self.activated(self.layer(x, width, size, i), size, i)
            width = size
        if conv:
            self.nodes.append(helper.make_node("Flatten", [x], ["f"]))
            x, width = "f", width * 16
        self.constants["wz"] = self.signs(width, 5)
        self.nodes.append(helper.make_node("MatMul", [x, "wz"], ["y"]))

    def signs(self, *shape):
        return self.rng.choice([-1, 1], shape).astype(np.float32)

    def layer(self, x, width, size, i):
        self.constants[f"w{i}"] = self.signs(size, width, 3, 3) if self.conv else self.signs(width, size)
        self.nodes.append(
            helper.make_node(
                "Conv" if self.conv else "MatMul", [x, f"w{i}"], [f"l{i}"], **({"pads": [1] * 4} if self.conv else {})
            )
        )
        return f"l{i}"

    def activated(self, x, size, i):
        shape = (1, size, 1, 1) if self.conv else (size,)
        for k in range(self.bits):
            self.constants[f"a{i}{k}"] = (np.rint(self.rng.normal(0, 9 * self.far if k else 3, shape)) + 0.5).astype(
                np.float32
            )
            self.nodes += [
                helper.make_node("Add", [x, f"a{i}{k}"], [f"b{i}{k}"]),
                helper.make_node("Sign", [f"b{i}{k}"], [f"s{i}{k}"]),
            ]
        if self.bits == 1:
            return f"s{i}0"
        self.constants["half"] = np.float32(0.5)
        self.nodes += [
            helper.make_node("Add", [f"s{i}0", f"s{i}1"], [f"t{i}"]),
            helper.make_node("Mul", [f"t{i}", "half"], [f"r{i}"]),
        ]
        return f"r{i}"

    @property
    def shape(self):
        return [1, 6, 4, 4] if self.conv else [1, 48]

    def model(self):
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )

    def inputs(self, count, seed):
        return [
            {"x": np.random.default_rng((seed, i)).choice([-1, 1], self.shape).astype(np.float32)} for i in range(count)
        ]


@pytest.mark.parametrize("conv", (False, True), ids=("dense", "convolution"))
@pytest.mark.parametrize("bits, far", ((1, 1), (2, 1), (2, 40)))
def test_random_binary_networks_equal_their_float_selves(bits, far, conv):
    """With thresholds far apart, too, which no scale of one step a unit would hold."""
    for seed in range(3):
        net = Binary(seed, bits, conv, far)
        mod = normalize(frontend.load(net.model()).mod)
        quantized, exact = Interpreter(quantize(mod, net.inputs(24, 1))), Interpreter(mod)
        for x in net.inputs(12, 2):
            np.testing.assert_array_equal(quantized.run(x)[0], exact.run(x)[0])


def test_thresholds_that_are_met_stay_as_they_are():
    """sign(0) is a third value, which a rounding boundary cannot give."""
    net = Binary(0, 2, False)
    net.constants = {k: np.floor(v) if k.startswith("a") else v for k, v in net.constants.items()}
    mod = normalize(frontend.load(net.model()).mod)
    assert align_thresholds(mod, net.inputs(4, 1))[0] is mod


NETWORKS = {
    "cifar10/bnn_cnv_w1a1_cifar10.onnx.xz": ("cifar10_train1000_calib.npz", "cifar10_test1000.npz"),
    "cifar10/bnn_cnv_w1a2_cifar10.onnx.xz": ("cifar10_train1000_calib.npz", "cifar10_test1000.npz"),
    "mnist/bnn_lfc_w1a1_mnist.onnx.xz": ("mnist_train60000.npz", "mnist_test10000.npz"),
    "mnist/tfc_1w1a_mnist.onnx": ("mnist_train60000.npz", "mnist_test10000.npz"),
}


def pictures(name, file, count):
    with np.load(shared_root() / "data" / file) as data:
        x = next(data[k] for k in data if data[k].ndim >= 2)[:count]
    if "cnv" in name:
        x = x.transpose(0, 3, 1, 2) if x.shape[-1] == 3 else x
        return np.clip(np.floor((x / 255 * 2 - 1) * 128) / 128, -1, 127 / 128).astype(np.float32)
    x = x.reshape(count, -1)
    return (np.where(x >= 128, 1, -1) if "lfc" in name else x / 255).astype(np.float32)


@pytest.mark.skipif(not has_shared(), reason="the shared networks are not here")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_binary_networks_equal_their_float_selves(name):
    calibration, test = NETWORKS[name]
    path = shared_root() / "models" / name
    shape = frontend.load(path).inputs[0].shape[1:]
    compiled = tvm_ergo.compile(path, calibration=pictures(name, calibration, 64).reshape(-1, *shape))
    assert not compiled.fallbacks
    for x in pictures(name, test, 16).reshape(-1, 1, *shape):
        got, wanted = next(iter(compiled.run(x).outputs.values())), compiled.run_float(x)[0]
        assert got.argmax() == wanted.argmax()
        np.testing.assert_allclose(
            got, wanted, rtol=0, atol=0 if "tfc" not in name else 5e-4
        )  # its weights hold a factor of batch normalization: float32
