"""The TFLite importer: what was silently wrong, what was refused, and what is refused in the user's words."""

from __future__ import annotations

import numpy as np
import pytest
import tflite

import tvm_ergo
from tvm_ergo.evaluation.tflite.builder import Graph, file_of
from tvm_ergo.evaluation.tflite.reference import litert, steps_apart
from tvm_ergo.frontend import load
from tvm_ergo.frontend.tflite import flat
from tvm_ergo.frontend.tflite.registry import RULES
from tvm_ergo.target.errors import ErgoError, ModelError, UnsupportedError

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference of TFLite files")
RNG = np.random.default_rng(14)
X, Y = (0.02, 3), (0.03, -9)


def one(
    code, shape, out, constants=(), options=None, *, x=X, y=Y, dtype="int8", out_dtype=None, version=2, **values
) -> bytes:
    """A file of one operator: input x, constants (array, dtype, *quantization), output y; real where the dtype is
    float32."""
    g, real = Graph(), dtype == "float32"
    g.tensor("x", shape, dtype, *(() if real else x))
    names = ["x"] + [g.constant(f"c{i}", *c) for i, c in enumerate(constants)]
    kind = out_dtype or dtype
    g.tensor("y", out, kind, *(() if kind in ("float32", "int32", "int64", "bool") else y))
    g.op(code, names, ["y"], options, version=version, **values)
    return file_of(g.ends(["x"], ["y"]))


def fill(shape, dtype="int8"):
    return (
        RNG.uniform(-2, 2, shape).astype(np.float32)
        if dtype == "float32"
        else RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    )


def apart(data: bytes, feeds: dict, **options) -> tuple[float, list]:
    compiled = tvm_ergo.compile(data, **options)
    return steps_apart(compiled.run(feeds).outputs, litert(data, feeds)), [f.op for f in compiled.fallbacks]


@pytest.mark.parametrize("beta", [0.5, 2.0, 3.7])
def test_the_factor_of_a_softmax_counts(beta):
    data = one("SOFTMAX", (4, 16), (4, 16), (), "SoftmaxOptions", x=(0.05, -7), y=(1 / 256, -128), beta=beta)
    steps, host = apart(data, {"x": fill((4, 16))})
    assert steps <= 1 and not host


def test_a_lonely_average_is_rounded():
    data = one(
        "AVERAGE_POOL_2D",
        (1, 2, 2, 4),
        (1, 1, 1, 4),
        (),
        "Pool2DOptions",
        x=(0.5, 0),
        y=(0.5, 0),
        padding=1,
        stride_w=2,
        stride_h=2,
        filter_width=2,
        filter_height=2,
    )
    x = np.array([[3, 3, 3, 2], [-3, -3, -3, -2], [9, 9, 9, 8], [1, 1, 2, 1]], np.int8).T.reshape(1, 2, 2, 4)
    assert tvm_ergo.compile(data).run(x).outputs["y"].ravel().tolist() == [3, -3, 9, 1]


@pytest.mark.parametrize(
    "kernel, stride, padding, size, activation",
    [
        (3, 2, 0, 10, 1),
        (3, 2, 0, 10, 3),
        (3, 2, 1, 11, 2),
        (1, 2, 0, 10, 0),
        (2, 3, 0, 15, 0),
        (3, 2, 1, 12, 0),
        (2, 3, 1, 15, 0),
        (2, 4, 1, 21, 1),
        (4, 2, 0, 10, 0),
        (5, 1, 0, 5, 3),
        (3, 3, 0, 13, 0),
    ],
)
def test_a_transposed_convolution_has_the_size_of_the_file_and_its_activation(
    kernel, stride, padding, size, activation
):
    g, scales = Graph(), np.linspace(0.004, 0.02, 4)
    g.constant("size", [1, size, size, 4], "int32")
    g.tensor("x", (1, 5, 5, 3), "int8", 0.02, 3)
    g.constant("w", RNG.integers(-127, 128, (4, kernel, kernel, 3)), "int8", scales)
    g.constant("b", RNG.integers(-3000, 3000, 4), "int32", 0.02 * scales)
    g.tensor("y", (1, size, size, 4), "int8", 0.06, -9)
    g.op(
        "TRANSPOSE_CONV",
        ["size", "w", "x", "b"],
        ["y"],
        "TransposeConvOptions",
        version=4 if activation else 3,
        padding=padding,
        stride_w=stride,
        stride_h=stride,
        fused_activation_function=activation,
    )
    steps, host = apart(file_of(g.ends(["x"], ["y"])), {"x": fill((1, 5, 5, 3))})
    assert steps <= 1 and not host


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4), (1, 1, 1), (6, 8, 4)])
def test_a_slope_per_channel_is_one_table_a_channel(shape):
    slope = RNG.integers(-128, 128, shape)
    data = one("PRELU", (1, 6, 8, 4), (1, 6, 8, 4), [(slope, "int8", 0.01, 5)], version=1)
    compiled, x = tvm_ergo.compile(data), {"x": fill((1, 6, 8, 4))}
    assert steps_apart(compiled.run(x).outputs, litert(data, x)) <= 1
    if len(shape) < 3 or shape[0] == 1:
        assert (
            not compiled.fallbacks and sum(p.meta["constant_bytes"] for p in compiled.programs.values()) <= 4 * 256 + 64
        )


def test_a_real_slope_per_channel_takes_a_table_a_channel_whatever_the_picture():
    """The importer used before repeated it over the picture: 9.4 MB for palm detection's 48 x 48 x 16."""
    data = one(
        "PRELU",
        (1, 48, 48, 16),
        (1, 48, 48, 16),
        [(RNG.uniform(0.1, 0.4, (1, 1, 16)), "float32")],
        dtype="float32",
        version=1,
    )
    compiled = tvm_ergo.compile(data, calibration=fill((4, 48, 48, 16), "float32"))
    assert not compiled.fallbacks and sum(p.meta["constant_bytes"] for p in compiled.programs.values()) <= 16 * 256 + 64


@pytest.mark.parametrize("channels, multiplier, bias_axis", [(1, 1, 0), (4, 1, 3), (4, 2, 3), (1, 3, 0)])
def test_depthwise_with_one_channel_and_odd_bias_records(channels, multiplier, bias_axis):
    out = channels * multiplier
    weights, bias, scales = (
        RNG.integers(-127, 128, (1, 3, 3, out)),
        RNG.integers(-3000, 3000, out),
        np.linspace(0.004, 0.02, out),
    )

    def made(axis):
        return one(
            "DEPTHWISE_CONV_2D",
            (1, 7, 7, channels),
            (1, 7, 7, out),
            [(weights, "int8", scales, 0, 3), (bias, "int32", 0.02 * scales, 0, axis)],
            "DepthwiseConv2DOptions",
            y=(0.05, -9),
            version=3,
            stride_w=1,
            stride_h=1,
            depth_multiplier=multiplier,
            fused_activation_function=3,
        )

    compiled, x = tvm_ergo.compile(made(bias_axis)), {"x": fill((1, 7, 7, channels))}
    assert not compiled.fallbacks and steps_apart(compiled.run(x).outputs, litert(made(0), x)) <= 1


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_in_four_bits(bits):
    top = 2 ** (bits - 1)
    data = one(
        "FULLY_CONNECTED",
        (4, 63),
        (4, 16),
        [(RNG.integers(-top, top, (16, 63)), f"int{bits}", 0.05), (RNG.integers(-300, 300, 16), "int32", 0.001)],
        "FullyConnectedOptions",
        version=7,
    )
    steps, host = apart(data, {"x": fill((4, 63))})
    assert steps <= 1 and not host


def test_an_int16_network_runs():
    scales = RNG.uniform(0.001, 0.01, 8).astype(np.float32)
    data = one(
        "CONV_2D",
        (1, 8, 8, 4),
        (1, 8, 8, 8),
        [
            (RNG.integers(-127, 128, (8, 3, 3, 4)), "int8", scales),
            (RNG.integers(-9999, 9999, 8), "int64", scales * 1.5e-4),
        ],
        "Conv2DOptions",
        x=(1.5e-4, 0),
        y=(2e-4, 0),
        dtype="int16",
        version=4,
        stride_w=1,
        stride_h=1,
    )
    assert apart(data, {"x": fill((1, 8, 8, 4), "int16")})[0] <= 2


def test_infinite_bounds_bound_nothing():
    data = one(
        "MINIMUM",
        (1, 4, 6),
        (1, 4, 6),
        [(np.float32(np.inf), "float32")],
        "MaximumMinimumOptions",
        dtype="float32",
        version=1,
    )
    x = fill((8, 4, 6), "float32")
    assert apart(data, {"x": x[:1]}, calibration=x)[0] < 0.01
    mixed = one(
        "MAXIMUM",
        (1, 4, 6),
        (1, 4, 6),
        [(np.array([-np.inf, 0, 1, -1, -np.inf, 0.5]), "float32")],
        "MaximumMinimumOptions",
        dtype="float32",
        version=1,
    )
    assert apart(mixed, {"x": x[:1]}, calibration=x)[0] < 0.01


def test_float16_weights_and_ends():
    g = Graph()
    g.tensor("x", (2, 12), "float16")
    g.constant("w16", RNG.uniform(-1, 1, (5, 12)), "float16")
    g.tensor("w", (5, 12), "float32")
    g.tensor("x32", (2, 12), "float32")
    g.tensor("y", (2, 5), "float32")
    g.op("DEQUANTIZE", ["w16"], ["w"], version=3)
    g.op("DEQUANTIZE", ["x"], ["x32"], version=3)
    g.op("FULLY_CONNECTED", ["x32", "w", None], ["y"], "FullyConnectedOptions")
    data, x = file_of(g.ends(["x"], ["y"])), RNG.uniform(-1, 1, (2, 12)).astype(np.float16)
    imported = load(data)
    assert imported.inputs[0].dtype == "float16"
    right = x.astype(np.float32) @ g.tensors[1].data.astype(np.float32).T
    assert np.abs(tvm_ergo.compile(data, calibration=[{"x": x}]).run(x).outputs["y"] - right).max() < 0.05


# ---- refusals ----
def refused(data: bytes, *words: str) -> str:
    with pytest.raises(ErgoError) as error:
        load(data)
    text = str(error.value)
    assert isinstance(error.value, (ModelError, UnsupportedError)) and all(word in text for word in words), text
    assert "tvm." not in text and "Traceback" not in text
    return text


def custom(name: str) -> bytes:
    g = Graph()
    g.tensor("x", (1, 4), "float32")
    g.tensor("y", (1, 4), "float32")
    g.op("CUSTOM", ["x"], ["y"], custom=name)
    return file_of(g.ends(["x"], ["y"]))


def test_what_is_refused_is_named():
    refused(custom("FancyPooling"), "custom operator 'FancyPooling'", "end the network before it")
    refused(custom("FlexErf"), "FlexErf", "SELECT_TF_OPS")
    refused(custom("edgetpu-custom-op"), "another accelerator")
    refused(one("WHERE", (1, 4), (4, 2), dtype="float32", out_dtype="int64", version=1), "WHERE", "depends on the data")
    refused(
        one(
            "CONV_2D",
            (1, 4, 4, 1),
            (1, 4, 4, 1),
            [(np.ones((1, 1, 1, 1)), "int8", 0.1)],
            "Conv2DOptions",
            stride_w=1,
            stride_h=1,
            fused_activation_function=4,
        ),
        "TANH",
    )
    refused(
        one(
            "CONV_2D",
            (1, 4, 4, 3),
            (1, 4, 4, 1),
            [(np.ones((1, 1, 1, 2)), "int8", 0.1)],
            "Conv2DOptions",
            stride_w=1,
            stride_h=1,
        ),
        "weights for 2 channels",
    )
    refused(
        one("ADD", (1, 4), (1, 4), [(np.ones((1, 3)), "int8", 0.1)], "AddOptions"),
        "do not fit each other",
        "ADD",
        "INT8[1, 3]",
    )
    refused(
        one(
            "FULLY_CONNECTED",
            (1, 4),
            (1, 2),
            [(np.ones((2, 4)), "int8", 0.1)],
            "FullyConnectedOptions",
            weights_format=1,
        ),
        "shuffled weights",
    )
    refused(one("RESHAPE", (1, 4), (1, 5), [(np.array([1, 5]), "int32")], "ReshapeOptions"), "[1, 5]")
    refused(one("GATHER", (1, 4), (1, 2), [(np.array([1, 9]), "int32")], "GatherOptions", axis=1), "1..9 of 4")
    refused(custom("a")[:200], "truncated or damaged")


def test_no_option_is_dropped():
    """Every option of the schema is handled by the operator's rule, listed with the reason why it means nothing here,
    or refused."""
    for rule in RULES.values():
        if rule.options:
            fields = set(flat.default_options(rule.options))
            named = {*rule.handled, *rule.without_meaning, *rule.refused}
            assert named == fields, (rule.code, rule.options, fields ^ named)
    for code, rule in RULES.items():
        assert hasattr(tflite.BuiltinOperator, code)
