"""ONNX networks over [N, C, L]: whole on the chip in float (calibrated), QDQ and QOperator form, within a step of ONNX
Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.frontend import load
from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro import normalize

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(3)


def made(
    nodes,
    constants: dict,
    shape,
    opset: int = 17,
    outputs=("y",),
    out_type=TensorProto.FLOAT,
    in_type=TensorProto.FLOAT,
    domains=(),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", in_type, shape)],
        [helper.make_tensor_value_info(n, out_type, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)],
        ir_version=8,
    )


def reference(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


FLOAT = {
    "asymmetric groups": ("Conv", (normal(6, 2, 3), normal(6)), {"group": 2, "pads": [1, 2]}),
    "causal depthwise": ("Conv", (normal(8, 1, 3), normal(8)), {"group": 4, "pads": [4, 0], "dilations": [2]}),
    "stride, same upper": ("Conv", (normal(6, 4, 4),), {"auto_pad": "SAME_UPPER", "strides": [2]}),
    "stride, same lower": ("Conv", (normal(6, 4, 4),), {"auto_pad": "SAME_LOWER", "strides": [3]}),
    "valid, dilated": ("Conv", (normal(6, 4, 4),), {"auto_pad": "VALID", "dilations": [3]}),
    "transposed": (
        "ConvTranspose",
        (normal(4, 3, 4), normal(6)),
        {"group": 2, "strides": [2], "pads": [1, 2], "output_padding": [1], "dilations": [2]},
    ),
    "transposed, same": ("ConvTranspose", (normal(4, 6, 4),), {"auto_pad": "SAME_LOWER", "strides": [3]}),
    "transposed to a shape": ("ConvTranspose", (normal(4, 3, 4),), {"strides": [2], "output_shape": [23]}),
    "maximum, ceil": ("MaxPool", (), {"kernel_shape": [4], "strides": [3], "ceil_mode": 1, "pads": [1, 2]}),
    "maximum, dilated": ("MaxPool", (), {"kernel_shape": [3], "strides": [2], "dilations": [2]}),
    "average": ("AveragePool", (), {"kernel_shape": [3], "strides": [2], "pads": [1, 2]}),
    "average with padding": (
        "AveragePool",
        (),
        {"kernel_shape": [3], "strides": [2], "pads": [2, 1], "count_include_pad": 1},
    ),
    "average, same": ("AveragePool", (), {"kernel_shape": [4], "strides": [2], "auto_pad": "SAME_UPPER"}),
    "norm of power": ("LpPool", (), {"kernel_shape": [3], "p": 2}),
    "global average": ("GlobalAveragePool", (), {}),
    "global maximum": ("GlobalMaxPool", (), {}),
    "batch norm": ("BatchNormalization", (normal(4), normal(4), normal(4), np.abs(normal(4)) + 1), {"epsilon": 0.1}),
    "instance norm": ("InstanceNormalization", (normal(4), normal(4)), {"epsilon": 0.1}),
    "prelu": ("PRelu", (normal(4, 1),), {}),
}


@pytest.mark.parametrize("case", FLOAT)
def test_attributes_in_float(case):
    op, constants, attributes = FLOAT[case]
    names = [f"c{i}" for i in range(len(constants))]
    proto = made([helper.make_node(op, ["x", *names], ["y"], **attributes)], dict(zip(names, constants)), (2, 4, 11))
    x = normal(2, 4, 11)
    want, got = reference(proto, x), evaluate(normalize(load(proto).mod), {"x": x})[0]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-4)


def quantized(
    name: str, op: str, weight_shape=None, axis: int = 0, relu: bool = False, **attributes
) -> onnx.ModelProto:
    constants = {"s": np.float32(0.02), "z": np.int8(3), "ys": np.float32(0.05), "yz": np.int8(-128 if relu else 4)}
    nodes, operands = (
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["a"]),
        ],
        ["a"],
    )
    if weight_shape:
        count = weight_shape[axis]
        constants |= {
            "w": RNG.integers(-127, 128, weight_shape).astype(np.int8),
            "ws": np.linspace(0.004, 0.02, count).astype(np.float32),
            "wz": np.zeros(count, np.int8),
        }
        nodes.append(helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis))
        operands.append("wd")
    else:
        constants |= {"ys": constants["s"], "yz": constants["z"]}
    nodes.append(helper.make_node(op, operands, ["k"], name=name, **attributes))
    nodes += [helper.make_node("Relu", ["k"], ["r"])] if relu else []
    nodes += [
        helper.make_node("QuantizeLinear", ["r" if relu else "k", "ys", "yz"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return made(nodes, constants, (1, 4, 20))


QDQ = {
    "same": lambda: quantized("same", "Conv", (8, 4, 3), relu=True, pads=[1, 1]),
    "stride": lambda: quantized("stride", "Conv", (8, 4, 4), relu=True, strides=[2]),
    "causal": lambda: quantized("causal", "Conv", (8, 4, 3), pads=[4, 0], dilations=[2]),
    "depthwise": lambda: quantized("depthwise", "Conv", (4, 1, 3), group=4),
    "groups": lambda: quantized("groups", "Conv", (6, 2, 3), group=2, pads=[2, 1]),
    "maximum": lambda: quantized("maximum", "MaxPool", kernel_shape=[3], strides=[2], pads=[1, 1]),
    "average": lambda: quantized("average", "AveragePool", kernel_shape=[3], strides=[2], pads=[1, 1]),
    "global": lambda: quantized("global", "GlobalAveragePool"),
    "transposed": lambda: quantized("transposed", "ConvTranspose", (4, 6, 4), axis=1, strides=[2], pads=[1, 1]),
}


@pytest.mark.parametrize("case", QDQ)
def test_qdq_runs_whole_on_the_chip(case):
    proto, x = QDQ[case](), RNG.uniform(-2, 2, (1, 4, 20)).astype(np.float32)
    compiled = tvm_ergo.compile(proto, strict=True)
    got, want = compiled.run({"x": x}).outputs["y"], reference(proto, x)
    assert got.shape == want.shape and compiled.programs
    assert np.abs(got - want).max() <= 0.0501


def test_stored_integers_run_whole_on_the_chip():
    constants = {
        "s": np.float32(0.02),
        "z": np.uint8(120),
        "w": RNG.integers(-127, 128, (8, 2, 3)).astype(np.int8),
        "ws": np.linspace(0.004, 0.02, 8).astype(np.float32),
        "wz": np.zeros(8, np.int8),
        "ys": np.float32(0.05),
        "yz": np.uint8(100),
        "b": RNG.integers(-900, 900, 8).astype(np.int32),
    }
    nodes = [
        helper.make_node(
            "QLinearConv", ["x", "s", "z", "w", "ws", "wz", "ys", "yz", "b"], ["k"], group=2, pads=[2, 0], strides=[2]
        ),
        helper.make_node(
            "QLinearAveragePool", ["k", "ys", "yz", "ys", "yz"], ["y"], domain="com.microsoft", kernel_shape=[2]
        ),
    ]
    proto = made(
        nodes, constants, (1, 4, 20), in_type=TensorProto.UINT8, out_type=TensorProto.UINT8, domains=("com.microsoft",)
    )
    x = RNG.integers(0, 256, (1, 4, 20)).astype(np.uint8)
    got, want = tvm_ergo.compile(proto, strict=True).run({"x": x}).outputs["y"], reference(proto, x)
    assert got.shape == want.shape and np.abs(got.astype(int) - want.astype(int)).max() <= 1


def test_a_temporal_convolution_network_runs_whole_on_the_chip():
    samples = normal(32, 6, 32)
    constants = {
        "w0": normal(8, 6, 3) * 0.3,
        "w1": normal(8, 1, 3) * 0.5,
        "w2": normal(8, 8, 1) * 0.3,
        "w3": normal(8, 4) * 0.3,
        "g": np.ones(8, np.float32),
        "b": normal(8),
        "m": normal(8) * 0.1,
        "v": np.ones(8, np.float32),
    }
    nodes = [
        helper.make_node(*n[:3], **n[3])
        for n in (
            ("Conv", ["x", "w0"], ["a"], {"pads": [1, 1]}),
            ("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"], {}),
            ("Relu", ["n"], ["h"], {}),
            ("Conv", ["h", "w1"], ["d"], {"group": 8, "pads": [4, 0], "dilations": [2]}),
            ("Conv", ["d", "w2"], ["p"], {}),
            ("Relu", ["p"], ["r"], {}),
            ("Add", ["h", "r"], ["s"], {}),
            ("MaxPool", ["s"], ["q"], {"kernel_shape": [2], "strides": [2]}),
            ("GlobalAveragePool", ["q"], ["gap"], {}),
            ("Flatten", ["gap"], ["f"], {}),
            ("MatMul", ["f", "w3"], ["y"], {}),
        )
    ]
    proto = made(nodes, constants, (1, 6, 32))
    compiled = tvm_ergo.compile(proto, calibration=samples, strict=True)
    want = np.concatenate([reference(proto, s[None]) for s in samples[:8]])
    got = np.concatenate([compiled.run({"x": s[None]}).outputs["y"] for s in samples[:8]])
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.02 * want.std()
