"""Small QDQ ONNX files, one operator each: file to integer dialect, against ONNX Runtime without graph optimisations,
at most one step apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tvm_ergo.frontend.load import load
from tvm_ergo.relay_passes import macro
from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized
from tvm_ergo.relay_passes.relax_utils import bindings_of, op_name

ort = pytest.importorskip("onnxruntime")


@dataclass
class Case:
    """One operator: its attributes, float constants (as extra inputs), shape of the data, number of data inputs, output
    scale."""

    op: str
    attrs: dict = field(default_factory=dict)
    weights: tuple = ()
    shape: tuple = (1, 4, 6, 5)
    inputs: int = 1
    out_scale: float = 0.04
    out_zp: int = -9
    channel: int | None = None  # axis of per-channel weights


RNG = np.random.default_rng(11)


def ints(*shape):
    return RNG.integers(-127, 128, shape).astype(np.int8)


CASES = {
    "conv": Case("Conv", {"pads": [1, 0, 2, 1], "strides": [2, 1]}, (ints(6, 4, 3, 3),), channel=0),
    "conv_depthwise": Case("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, (ints(4, 1, 3, 3),)),
    "conv_dilated_groups": Case("Conv", {"group": 2, "dilations": [2, 1]}, (ints(6, 2, 2, 3),)),
    "conv_transposed": Case(
        "ConvTranspose", {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}, (ints(4, 3, 3, 2),)
    ),
    "gemm": Case("Gemm", {"transB": 1}, (ints(7, 12),), (3, 12), channel=0),
    "matmul": Case("MatMul", {}, (ints(12, 5),), (2, 3, 12)),
    "add": Case("Add", inputs=2),
    "mul": Case("Mul", inputs=2),
    "sub": Case("Sub", inputs=2),
    "max": Case("Max", inputs=2),
    "min": Case("Min", inputs=2),
    "sum": Case("Sum", inputs=2),
    "average": Case("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0], "strides": [2, 1]}),
    "average_counting": Case("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "maximum": Case("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "global": Case("GlobalAveragePool"),
    "softmax": Case("Softmax", {"axis": -1}, shape=(3, 17), out_scale=1 / 256, out_zp=-128),
    "sigmoid": Case("Sigmoid", out_scale=1 / 256, out_zp=-128),
    "tanh": Case("Tanh", out_scale=1 / 128, out_zp=0),
    "hard_swish": Case("HardSwish"),
    "leaky": Case("LeakyRelu", {"alpha": 0.07}),
    "relu": Case("Relu"),
    "exp": Case("Exp"),
    "concat": Case("Concat", {"axis": 1}, inputs=2),
    "transpose": Case("Transpose", {"perm": [0, 2, 3, 1]}),
    "flatten": Case("Flatten"),
    "depth_to_space": Case("DepthToSpace", {"blocksize": 2}),
}


def model(case: Case, scales: list[float]) -> onnx.ModelProto:
    """x -> Q -> DQ -> op -> Q -> DQ -> y; constants are int8 behind DequantizeLinear."""
    nodes, values, names = [], [], []

    def value(name, array):
        values.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def pair(x, name, scale, zp):
        s, z = value(name + "_s", np.float32(scale)), value(name + "_z", np.int8(zp))
        nodes.append(helper.make_node("QuantizeLinear", [x, s, z], [name + "_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [name + "_q", s, z], [name]))
        return name

    inputs = [f"x{i}" for i in range(case.inputs)]
    names = [pair(x, f"{x}_dq", s, 5 - 3 * i) for i, (x, s) in enumerate(zip(inputs, scales))]
    for i, weight in enumerate(case.weights):
        channels = 1 if case.channel is None else weight.shape[case.channel]
        scale = np.linspace(0.004, 0.009, channels).astype(np.float32)
        scale, zero = (scale[0], np.int8(0)) if case.channel is None else (scale, np.zeros(channels, np.int8))
        axis = {} if case.channel is None else {"axis": case.channel}
        nodes.append(
            helper.make_node(
                "DequantizeLinear",
                [value(f"w{i}", weight), value(f"w{i}_s", scale), value(f"w{i}_z", zero)],
                [f"w{i}_dq"],
                **axis,
            )
        )
        names.append(f"w{i}_dq")
    nodes.append(helper.make_node(case.op, names, ["result"], **case.attrs))
    pair("result", "y", case.out_scale, case.out_zp)
    graph = helper.make_graph(
        nodes,
        case.op,
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, case.shape) for x in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        values,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])
    proto.ir_version = 8
    return onnx.shape_inference.infer_shapes(proto)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(st.floats(-6, -4), st.floats(-6, -4)), st.integers(0, 2**31))
def test_operator_against_onnx_runtime(name, exponents, seed):
    case = CASES[name]
    proto = model(case, [float(np.float32(2.0**e)) for e in exponents])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    rng = np.random.default_rng(seed)
    feeds = {f"x{i}": rng.uniform(-4, 4, case.shape).astype(np.float32) for i in range(case.inputs)}
    (want,) = ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)
    lowered, fallbacks = lower_quantized(macro.normalize(load(proto).mod))
    assert fallbacks == []
    got = build_cpu(lowered)(*feeds.values())[0]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1.001 * case.out_scale


@pytest.mark.parametrize(
    "name, expected", [("max", "relax.ergo.maximum"), ("min", "relax.ergo.minimum"), ("sum", "relax.ergo.add")]
)
def test_choices_of_two_tensors_are_one_elementwise_operator(name, expected):
    lowered, _ = lower_quantized(macro.normalize(load(model(CASES[name], [0.05, 0.05])).mod))
    chip = [op_name(v) for _, v in bindings_of(lowered["main"]) if op_name(v).startswith("relax.ergo.")]
    assert expected in chip and set(chip) <= {expected, "relax.ergo.table"}
