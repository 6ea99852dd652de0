"""One tensor, several quantizers: every branch is made from the operator's own result, as ONNX Runtime without
optimisations makes it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import tvm_ergo

ort = pytest.importorskip("onnxruntime")
SHAPE = [1, 4, 6, 6]


class Net:
    """An ONNX graph written node by node, with quantizers."""

    def __init__(self):
        self.rng, self.nodes, self.constants, self.outputs = np.random.default_rng(3), [], {}, {}

    def node(self, op, inputs, output, **attributes):
        outputs = output.split()
        self.nodes.append(helper.make_node(op, inputs.split(), outputs, **attributes))

    def qdq(self, x, y, scale, zero, dtype=np.int8):
        self.constants |= {f"{y}_s": np.float32(scale), f"{y}_z": dtype(zero)}
        self.node("QuantizeLinear", f"{x} {y}_s {y}_z", f"{y}_q")
        self.node("DequantizeLinear", f"{y}_q {y}_s {y}_z", y)

    def weight(self, name, shape):
        self.constants |= {
            name: self.rng.integers(-127, 128, shape).astype(np.int8),
            f"{name}_s": np.float32(0.009),
            f"{name}_z": np.int8(0),
        }
        self.node("DequantizeLinear", f"{name} {name}_s {name}_z", f"{name}d")

    def out(self, name, scale):
        self.outputs[name] = scale

    def check(self, on_chip=True, most=1.001):
        """Every output within a step of ONNX Runtime's; almost all equal."""
        info = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in self.outputs]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPE)],
            info,
            [numpy_helper.from_array(np.asarray(v), k) for k, v in self.constants.items()],
        )
        made = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        x = self.rng.uniform(-2, 2, SHAPE).astype(np.float32)
        session = ort.InferenceSession(made.SerializeToString(), options)
        wanted = dict(zip(self.outputs, session.run(list(self.outputs), {"x": x})))
        compiled = tvm_ergo.compile(made)
        got = compiled.run({"x": x}).outputs
        for name, scale in self.outputs.items():
            off = np.abs(got[name] - wanted[name]) / scale
            assert off.max() <= most and (off > 0.5).mean() < 0.05, (name, off.max(), (off > 0.5).mean())
        assert not on_chip or not compiled.fallbacks
        return compiled


def conv(net, relu=False):
    net.qdq("x", "a", 0.02, 3)
    net.weight("w", (4, 4, 1, 1))
    net.node("Conv", "a wd", "k" if relu else "t")
    if relu:
        net.node("Relu", "k", "t")


QUANTIZERS = {
    "three": [(0.2, 0, np.int8), (0.01, 0, np.int8), (0.05, -100, np.int8)],
    "two types": [(0.03, 128, np.uint8), (0.02, -5, np.int8)],
    "clipped first": [(0.01, -128, np.int8), (0.06, -128, np.int8)],
    "clipped second": [(0.06, 10, np.uint8), (0.01, 255, np.uint8)],
}


@pytest.mark.parametrize("relu", (False, True))
@pytest.mark.parametrize("quantizers", QUANTIZERS)
def test_a_convolution_read_by_several(quantizers, relu):
    net = Net()
    conv(net, relu)
    for i, (scale, zero, dtype) in enumerate(QUANTIZERS[quantizers]):
        net.qdq("t", f"y{i}", scale, zero, dtype)
        net.out(f"y{i}", scale)
    net.check()


MOVES = {
    "Transpose": ("Transpose", {"perm": [0, 2, 3, 1]}),
    "MaxPool": ("MaxPool", {"kernel_shape": [2, 2]}),
    "Flatten": ("Flatten", {}),
    "DepthToSpace": ("DepthToSpace", {"blocksize": 2}),
}


@pytest.mark.parametrize("where", ("before", "behind", "one side"))
@pytest.mark.parametrize("move", MOVES)
def test_through_movement(move, where):
    """The quantizers stand behind the movement, or each behind its own, or one before it."""
    op, attributes = MOVES[move]
    net = Net()
    conv(net)
    if where == "before" and move == "MaxPool":
        pytest.skip("a pool reads what is quantized")
    net.node(op, "t", "m", **attributes)
    net.qdq("m", "y", 0.2, 0)
    if where == "behind":
        net.qdq("m", "z", 0.01, 2)
    elif where == "before":
        net.node(op, "t", "n", **attributes)
        net.qdq("n", "z", 0.01, 2)
    else:
        net.qdq("t", "z", 0.01, 2)
    net.out("y", 0.2), net.out("z", 0.01)
    net.check(on_chip=move != "MaxPool")


def test_parts_of_a_split_with_their_own_quantizers():
    net = Net()
    conv(net)
    net.node("Split", "t", "p q", axis=1)
    net.qdq("p", "y", 0.2, 0)
    net.qdq("q", "z", 0.01, 2)
    net.out("y", 0.2), net.out("z", 0.01)
    net.check()


@pytest.mark.parametrize("move", (False, True))
def test_the_network_input_read_by_several(move):
    net = Net()
    if move:
        net.node("Transpose", "x", "m", perm=[0, 2, 3, 1])
    for name, scale, zero in (("y", 0.2, 0), ("z", 0.01, 2), ("v", 0.03, -128)):
        net.qdq("m" if move else "x", name, scale, zero)
        net.node("Tanh", name, f"{name}t")
        net.qdq(f"{name}t", f"{name}o", 1 / 128, 0)
        net.out(f"{name}o", 1 / 128)
    net.check()


def test_a_concat_with_two_quantizers():
    net = Net()
    conv(net)
    net.qdq("t", "y", 0.05, 0)
    net.node("Concat", "y a", "c", axis=1)
    net.qdq("c", "p", 0.1, 0)
    net.qdq("c", "q", 0.03, 1)
    net.out("p", 0.1), net.out("q", 0.03)
    net.check()


def test_one_reader_in_float():
    """A tensor that is quantized twice and a result of the network as well."""
    net = Net()
    conv(net)
    net.qdq("t", "y", 0.2, 0)
    net.qdq("t", "z", 0.01, 2)
    net.node("Identity", "t", "f")
    net.out("y", 0.2), net.out("z", 0.01), net.out("f", 0.01)
    net.check(on_chip=False)


def test_equal_quantizers_share_one_result():
    net = Net()
    conv(net)
    net.qdq("t", "y", 0.05, -128)
    net.qdq("t", "z", 0.05, 0)
    net.qdq("t", "v", 0.05, 128, np.uint8)
    for name in "yzv":
        net.out(name, 0.05)
    program = next(iter(net.check().programs.values()))
    convolutions = {str(i.node) for i in program.instructions if type(i).__name__.upper() == "CONV"}
    assert len(convolutions) == 2  # .05 from -6.4 to 6.35, and from 0 to 12.75
