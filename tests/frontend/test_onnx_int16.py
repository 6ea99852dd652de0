"""ONNX QDQ files with 16-bit activations, as ONNX Runtime writes them: on the chip, within two steps of ONNX
Runtime behind six operators."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ergo

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime", reason="ONNX Runtime writes the files and is the reference")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: E402

RNG = np.random.default_rng(3)
IMAGES = RNG.normal(size=(8, 3, 12, 12)).astype(np.float32)


STEPS = 2.01
"""Of the output, behind six operators that each round within one step."""


class _Reader(CalibrationDataReader):
    def __init__(self):
        self.images = iter(IMAGES)

    def get_next(self):
        image = next(self.images, None)
        return None if image is None else {"x": image[None]}


MEANS = {
    "windows": ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 1]}, ()),
    "counted padding": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}, ()),
    "all": ("GlobalAveragePool", {}, ()),
    "nearest": ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}, ("", [1.0, 1, 2, 1.5])),
}


def with_mean(folder, kind: str) -> str:
    """A convolution, and what means or repeats its elements."""
    op, attributes, constants = MEANS[kind]
    rng, names, kept = np.random.default_rng(6), [], []
    for i, value in enumerate(constants):
        names.append(f"k{i}" if len(value) else "")
        if len(value):
            kept.append(numpy_helper.from_array(np.array(value, np.float32), names[-1]))
    kept.append(numpy_helper.from_array((rng.normal(size=(8, 3, 3, 3)) / 4).astype(np.float32), "w"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c", *names], ["y"], **attributes),
    ]
    value = helper.make_tensor_value_info
    given = value("x", TensorProto.FLOAT, [1, 3, 12, 12])
    graph = helper.make_graph(nodes, "net", [given], [value("y", TensorProto.FLOAT, None)], kept)
    path = str(folder / "float.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def network(folder) -> str:
    """Convolution, ReLU, depthwise convolution, sum, sigmoid, product."""

    rng = np.random.default_rng(5)

    def weights(name, *shape):
        return numpy_helper.from_array((rng.normal(size=shape) / 4).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "dw", "db"], ["d"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["r", "d"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 12, 12])],
        [weights("w", 8, 3, 3, 3), weights("b", 8), weights("dw", 8, 1, 3, 3), weights("db", 8)],
    )
    path = str(folder / "float.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def compared(folder, activation, weight=QuantType.QInt8, source=None, **extra):
    """Steps of the output from ONNX Runtime, the compiled model, and the domains of the file's quantizers."""
    source, path = source or network(folder), str(folder / "qdq.onnx")
    kinds = {"activation_type": activation, "weight_type": weight, "per_channel": True}
    quantize_static(source, path, _Reader(), quant_format=QuantFormat.QDQ, extra_options=extra, **kinds)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    want, graph = session.run(None, {"x": IMAGES[:1]})[0], onnx.load(path).graph
    named = next(node.input[1] for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] == "y")
    scale = next(numpy_helper.to_array(i) for i in graph.initializer if i.name == named)
    compiled = tvm_ergo.compile(path)
    got = next(iter(compiled.run({"x": IMAGES[:1]}).outputs.values()))
    domains = {node.domain for node in graph.node if node.op_type == "QuantizeLinear"}
    return np.abs(got.astype(np.float64) - want).max() / scale, compiled, domains


@pytest.mark.parametrize("kind", [QuantType.QInt16, QuantType.QUInt16], ids=["int16", "uint16"])
@pytest.mark.parametrize("contrib", [True, False], ids=["com.microsoft", "opset 21"])
def test_a_network_of_16_bits(tmp_path, kind, contrib):
    apart, compiled, domains = compared(tmp_path, kind, UseQDQContribOps=contrib)
    assert domains == ({"com.microsoft"} if contrib else {""})
    assert apart <= STEPS and not compiled.fallbacks


@pytest.mark.parametrize(
    "rest, wide, names",
    [(QuantType.QUInt8, QuantType.QUInt16, "as"), (QuantType.QInt8, QuantType.QInt16, "ry")],
    ids=["unsigned", "signed"],
)
def test_some_tensors_of_16_bits(tmp_path, rest, wide, names):
    overrides = {name: [{"quant_type": wide}] for name in names}
    apart, compiled, _ = compared(tmp_path, rest, TensorQuantOverrides=overrides)
    assert apart <= STEPS and not compiled.fallbacks


def test_weights_of_16_bits_stay_on_the_host(tmp_path):
    apart, compiled, _ = compared(tmp_path, QuantType.QInt16, QuantType.QInt16)
    assert apart <= STEPS
    assert {f.reason for f in compiled.fallbacks} == {"its weights are quantized to int16"}


@pytest.mark.parametrize("op, attributes", [("MaxPool", {"kernel_shape": [2, 2]}), ("Resize", {"mode": "linear"})])
def test_what_has_no_form_in_16_bits_runs_on_the_host_by_name(op, attributes):
    """Extrema, and interpolation."""
    sizes = [] if op == "MaxPool" else ["", "sizes"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node(op, ["d", *sizes], ["r"], **attributes),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["p"]),
        helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(2e-4), "s"),
        numpy_helper.from_array(np.int16(0), "z"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sizes"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    compiled = tvm_ergo.compile(model)
    assert any("of 16 bits" in f.reason for f in compiled.fallbacks)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)
    got = next(iter(compiled.run({"x": x}).outputs.values()))
    step = 0.0 if op == "MaxPool" else 2e-4  # what is interpolated often lies between two steps: either is right
    np.testing.assert_allclose(got, session.run(None, {"x": x})[0], rtol=0, atol=step + 1e-6)


@pytest.mark.parametrize("kind", [QuantType.QInt16, QuantType.QUInt16], ids=["int16", "uint16"])
@pytest.mark.parametrize("mean", MEANS)
def test_means_of_16_bits(tmp_path, kind, mean):
    """On the chip, within a step behind a convolution that is within one."""
    types = ["Conv", MEANS[mean][0]]
    apart, compiled, _ = compared(tmp_path, kind, source=with_mean(tmp_path, mean), OpTypesToQuantize=types)
    assert apart <= STEPS and not compiled.fallbacks


@pytest.mark.parametrize(
    "op, axes, keepdims", [("ReduceMean", [2], 0), ("ReduceMean", [1, 2], 1), ("ReduceSum", [3], 1)]
)
def test_reductions_of_16_bits(op, axes, keepdims):
    """Quantizers around them by hand: ONNX Runtime's writes none. Zero points that are not 0."""
    x = RNG.normal(0.3, 1, (1, 4, 6, 5)).astype(np.float32)
    step, nodes, kept = {"x": 2.0**-12, "y": 2.0**-10}, [], [numpy_helper.from_array(np.array(axes), "axes")]
    for name, zero in (("x", 300), ("y", -77)):
        kept.append(numpy_helper.from_array(np.float32(step[name]), f"{name}_scale"))
        kept.append(numpy_helper.from_array(np.int16(zero), f"{name}_zero"))

    def quantized(source, name, result):
        scales = [f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node("QuantizeLinear", [source, *scales], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *scales], [result]))

    quantized("x", "x", "x_dq")
    nodes.append(helper.make_node(op, ["x_dq", "axes"], ["made"], keepdims=keepdims))
    quantized("made", "y", "y")
    value = helper.make_tensor_value_info
    given, result = value("x", TensorProto.FLOAT, x.shape), value("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "net", [given], [result], kept),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    compiled = tvm_ergo.compile(model)
    got = next(iter(compiled.run({"x": x}).outputs.values()))
    assert got.shape == want.shape and not compiled.fallbacks
    assert np.abs(got.astype(np.float64) - want).max() <= 1.001 * step["y"]
