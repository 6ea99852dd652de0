"""QOperator files of ONNX Runtime's quantizer, and some written by hand, on the chip: at most one step from ONNX
Runtime per operator."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tvm_ergo
from tvm_ergo.target.errors import ModelError, UnsupportedError

ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")

RNG = np.random.default_rng(3)
F, U8, I8 = np.float32, np.uint8, np.int8
SHAPE = (1, 4, 6, 6)
CONV = helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4)
WEIGHTS = {"w": RNG.normal(size=(6, 4, 3, 3)).astype(F) * 0.3, "b": RNG.normal(size=6).astype(F)}


def node(op, inputs, output="y", **attributes):
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def proto(nodes, constants, shape, opset=13) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def after_conv(*nodes, **constants):
    return [CONV, *nodes], {**WEIGHTS, **constants}, SHAPE


def matrix(*shape):
    return RNG.normal(size=shape).astype(F) * 0.3


FLOAT_MODELS = {
    "QLinearConv": ([node("Conv", "x w b", pads=[1] * 4, strides=[2, 1])], WEIGHTS, SHAPE),
    "QLinearMatMul": ([node("MatMul", "x m")], {"m": matrix(6, 5)}, (3, 6)),
    "QGemm": ([node("Gemm", "x m b", transB=1)], {"m": matrix(6, 5), "b": WEIGHTS["b"]}, (3, 5)),
    "QLinearAdd": after_conv(node("Sigmoid", "c", "s"), node("Add", "c s")),
    "QLinearMul": after_conv(node("Sigmoid", "c", "s"), node("Mul", "c s")),
    "QLinearConcat": after_conv(node("Sigmoid", "c", "s"), node("Concat", "c s", axis=1)),
    "QLinearSigmoid": after_conv(node("Sigmoid", "c")),
    "QLinearLeakyRelu": after_conv(node("LeakyRelu", "c", alpha=0.1)),
    "QLinearSoftmax": after_conv(node("Softmax", "c", axis=1)),
    "QLinearAveragePool": after_conv(node("AveragePool", "c", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0])),
    "QLinearGlobalAveragePool": after_conv(node("GlobalAveragePool", "c")),
    "MaxPool": after_conv(node("MaxPool", "c", kernel_shape=[2, 2], strides=[2, 2])),
    "Split": after_conv(node("Split", "c", "p q", axis=1), node("Add", "p q")),
    "Pad": after_conv(node("Pad", "c pads"), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "Transpose": after_conv(node("Transpose", "c", perm=[0, 2, 3, 1])),
    "Flatten": after_conv(
        node("Relu", "c", "r"),
        node("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "m", "f"),
        node("Gemm", "f v b", transB=1),
        v=matrix(6, 54),
    ),
}


class Samples(quantization.CalibrationDataReader):
    def __init__(self, shape):
        self.left = [{"x": RNG.uniform(-2, 2, shape).astype(F)} for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def check(model: onnx.ModelProto, shape, step: float, host: int = 0) -> None:
    """The chip and ONNX Runtime differ by at most ``step``; ``host`` operators are left to the host."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = RNG.uniform(-2, 2, shape).astype(F)
    (want,) = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})
    compiled = tvm_ergo.compile(model)
    assert len(compiled.fallbacks) == host and (compiled.programs or host)
    got = compiled.run(x).outputs["y"]
    assert got.shape == want.shape and len(np.unique(want)) > 3
    assert np.abs(got - want).max() <= 1.001 * step


@pytest.mark.parametrize("kind, per_channel", [("QUInt8", False), ("QInt8", True)])
@pytest.mark.parametrize("operator", FLOAT_MODELS)
def test_files_of_the_quantizer(operator, kind, per_channel, tmp_path):
    nodes, constants, shape = FLOAT_MODELS[operator]
    onnx.save(proto(nodes, constants, shape), tmp_path / "float.onnx")
    number = getattr(quantization.QuantType, kind)
    quantization.quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "q.onnx",
        Samples(shape),
        quant_format=quantization.QuantFormat.QOperator,
        activation_type=number,
        weight_type=number,
        per_channel=per_channel,
    )
    model = onnx.load(tmp_path / "q.onnx")
    assert operator in [n.op_type for n in model.graph.node]
    scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    check(model, shape, float(scales[model.graph.node[-1].input[1]]))


def stored(middle, constants, shape=SHAPE, scale=0.02, opset=13, zero=U8(128)) -> onnx.ModelProto:
    """x -> QuantizeLinear -> ``middle`` (q to r) -> DequantizeLinear -> y."""
    own = {"xs": F(0.02), "xz": zero, "ys": F(scale), "yz": zero, **constants}
    return proto(
        [node("QuantizeLinear", "x xs xz", "q"), *middle, node("DequantizeLinear", "r ys yz")], own, shape, opset
    )


MICROSOFT = {"domain": "com.microsoft"}


def test_choice_of_two_tensors():
    middle = [
        helper.make_node("QLinearWhere", ["mask", "q", "xs", "xz", "k", "ks", "xz", "ys", "yz"], ["r"], **MICROSOFT)
    ]
    constants = {
        "mask": RNG.integers(0, 2, SHAPE).astype(bool),
        "k": RNG.integers(0, 255, SHAPE).astype(U8),
        "ks": F(0.01),
    }
    check(stored(middle, constants), SHAPE, 0.02, host=1)


def test_matrix_product_with_scaled_bias_and_a_scale_per_column():
    """QGemm's alpha belongs to the bias too."""
    weights = {
        "w": RNG.integers(-127, 128, (36, 5)).astype(I8),
        "ws": np.linspace(0.01, 0.02, 5).astype(F),
        "wz": np.zeros(5, I8),
        "b": RNG.integers(-9000, 9000, 5).astype(np.int32),
        "sh": np.array([4, 36]),
    }
    nodes = [node("Reshape", "q sh", "f"), node("QGemm", "f xs xz w ws wz b ys yz", "r", alpha=0.5, **MICROSOFT)]
    check(stored(nodes, weights, scale=0.09, zero=I8(-3)), SHAPE, 0.09)


def test_matrix_product_without_output_scale_is_real():
    weights = {"w": RNG.integers(0, 255, (5, 36)).astype(U8), "ws": F(0.01), "wz": U8(120), "sh": np.array([4, 36])}
    nodes = [
        node("QuantizeLinear", "x xs xz", "q"),
        node("Reshape", "q sh", "f"),
        helper.make_node("QGemm", ["f", "xs", "xz", "w", "ws", "wz"], ["g"], transB=1, **MICROSOFT),
        node("QuantizeLinear", "g gs xz", "r"),
        node("DequantizeLinear", "r gs xz"),
    ]
    check(proto(nodes, {"xs": F(0.02), "xz": U8(128), "gs": F(0.08), **weights}, SHAPE), SHAPE, 0.08)


def test_zero_points_left_out_are_zero():
    """ONNX Runtime ends the process on this file; the expected values are worked out here."""
    middle = helper.make_node("QLinearSigmoid", ["q", "xs", "", "ys"], ["r"], **MICROSOFT)
    model = proto(
        [node("QuantizeLinear", "x xs", "q"), middle, node("DequantizeLinear", "r ys")],
        {"xs": F(0.01), "ys": F(0.004)},
        SHAPE,
    )
    x = RNG.uniform(-2, 2, SHAPE).astype(F)
    known = 0.01 * np.clip(np.rint(x / 0.01), 0, 255)
    compiled = tvm_ergo.compile(model)
    assert not compiled.fallbacks
    assert np.abs(compiled.run(x).outputs["y"] - 1 / (1 + np.exp(-known))).max() <= 0.5001 * 0.004


def test_batched_product_of_two_activations():
    middle = [node("Transpose", "q", "t", perm=[0, 1, 3, 2]), node("QLinearMatMul", "q xs xz t xs xz ys yz", "r")]
    check(stored(middle, {}, scale=0.08), SHAPE, 0.08)


def conv_weights(**changed):
    return {"w": RNG.integers(-127, 128, (6, 4, 3, 3)).astype(I8), "ws": F(0.01), "wz": I8(0), **changed}


CONV_STORED = "q xs xz w ws wz ys yz"


@pytest.mark.parametrize(
    "middle, constants, error, words",
    [
        (
            node("QLinearConv", CONV_STORED, "r", channels_last=1, **MICROSOFT),
            conv_weights(),
            UnsupportedError,
            "channels last",
        ),
        (
            node("QLinearConv", CONV_STORED.replace("xs", "vs"), "r"),
            conv_weights(vs=np.ones(4, F)),
            UnsupportedError,
            "one scale and zero point",
        ),
        (node("QLinearSoftmax", "q xs xz ys yz", "r", axis=1, opset=11, **MICROSOFT), {}, UnsupportedError, "opset 11"),
        (node("QLinearSigmoid", "q x xz ys yz", "r", **MICROSOFT), {}, ModelError, "not a constant"),
        (
            node("QLinearMatMul", CONV_STORED, "r"),
            conv_weights(ws=np.ones((6, 4, 1, 1), F)),
            UnsupportedError,
            "per output column",
        ),
    ],
)
def test_variants_that_are_refused(middle, constants, error, words):
    with pytest.raises(error, match=words) as caught:
        tvm_ergo.compile(stored([middle], constants))
    assert "'r'" in str(caught.value)
