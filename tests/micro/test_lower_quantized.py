"""Products and sums of every kind: the integer dialect on the CPU against the float QDQ function, at most one step
apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.relay_passes.micro.lower_context import Quant
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized, lowering_notes

from .quantized_nets import build, check, const, few, op, quants, seeds, weights_of


@st.composite
def convolutions(draw):
    groups_kind = draw(st.sampled_from(["one", "two", "depthwise", "multiplier"]))
    channels = draw(st.sampled_from([2, 4, 6]))
    groups = {"one": 1, "two": 2, "depthwise": channels, "multiplier": channels}[groups_kind]
    out = channels * {"one": 1, "two": 2, "depthwise": 1, "multiplier": 2}[groups_kind]
    return {
        "channels": channels,
        "groups": groups,
        "out": out,
        "kernel": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "strides": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        "padding": tuple(draw(st.integers(0, 2)) for _ in range(4)),
        "dilation": (draw(st.integers(1, 2)), 1),
        "activation": draw(st.sampled_from(["none", "relu", "relu6", "clip"])),
        "weights": draw(st.sampled_from(["float", "int8", "uint8", "channel"])),
        "bias": draw(st.sampled_from(["none", "float", "int32"])),
    }


def _activate(qdq, y, kind):
    return {
        "none": lambda: y,
        "relu": lambda: op.nn.relu(y),
        "relu6": lambda: op.clip(y, 0.0, 6.0),
        "clip": lambda: op.clip(y, -1.3, 2.1),
    }[kind]()


@few
@given(convolutions(), quants, seeds)
def test_convolution(spec, quant, seed):
    rng = np.random.default_rng(seed)
    shape = (1, 7, 6, spec["channels"])

    def body(qdq, x):
        w = weights_of(qdq, rng, (spec["out"], *spec["kernel"], spec["channels"] // spec["groups"]), spec["weights"])
        y = qdq.emit(
            op.nn.conv2d(
                x,
                w,
                strides=spec["strides"],
                padding=spec["padding"],
                dilation=spec["dilation"],
                groups=spec["groups"],
                data_layout="NHWC",
                kernel_layout="OHWI",
            ),
            "conv",
        )
        if spec["bias"] == "float":
            y = qdq.emit(op.add(y, const(rng.normal(size=spec["out"]))))
        if spec["bias"] == "int32":
            scale = np.float32(quant.scale) * np.float32(0.013)
            b = qdq.emit(
                op.dequantize(const(rng.integers(-500, 500, spec["out"]), "int32"), const(scale), const(0, "int32"))
            )
            y = qdq.emit(op.add(y, b))
        return _activate(qdq, y, spec["activation"])

    mod = build([shape], [quant], body, Quant(0.04, -20))
    calls = check(
        mod, seed, 1, ("depthwise_conv2d",) if spec["groups"] == spec["channels"] == spec["out"] else ("conv2d",)
    )
    assert len(calls) == 1


@few
@given(st.integers(1, 2), st.integers(0, 1), quants, seeds)
def test_transposed_convolution(stride, pad, quant, seed):
    rng = np.random.default_rng(seed)

    def body(qdq, x):
        w = weights_of(qdq, rng, (4, 3, 3, 3), "int8")
        y = op.nn.conv2d_transpose(x, w, strides=stride, padding=pad, data_layout="NHWC", kernel_layout="IHWO")
        return op.nn.relu(qdq.emit(op.add(qdq.emit(y), const(rng.normal(size=3)))))

    check(build([(1, 4, 5, 4)], [quant], body, Quant(0.05, 3)), seed, 1, ("conv2d_transpose",))


@few
@given(st.sampled_from([(1, 12), (3, 12), (2, 3, 12)]), st.sampled_from(["int8", "channel", "uint8"]), quants, seeds)
def test_dense(shape, weights, quant, seed):
    rng = np.random.default_rng(seed)

    def body(qdq, x):
        w = qdq.emit(op.permute_dims(weights_of(qdq, rng, (5, 12), weights)))
        return qdq.emit(op.add(qdq.emit(op.matmul(x, w)), const(rng.normal(size=5))))

    check(build([shape], [quant], body, Quant(0.03, 5)), seed, 1, ("conv2d",))


@few
@given(st.booleans(), st.sampled_from([None, 0.125, 0.3]), quants, quants, seeds)
def test_product_of_activations(transposed, scale, a, b, seed):
    def body(qdq, x, y):
        z = qdq.emit(op.matmul(x, qdq.emit(op.permute_dims(y, [0, 2, 1])) if transposed else y))
        return z if scale is None else op.multiply(z, const(scale))

    mod = build([(2, 3, 8), (2, 4, 8) if transposed else (2, 8, 4)], [a, b], body, Quant(0.02, 7))
    (call,) = check(mod, seed, 1, ("matmul",))
    assert call.transpose_b == transposed


@few
@given(
    st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum"]),
    st.sampled_from([(2, 3, 4), (1, 1, 4), (2, 3, 1)]),
    st.booleans(),
    quants,
    quants,
    quants,
    seeds,
)
def test_two_tensors(name, other, relu, a, b, out, seed):
    def body(qdq, x, y):
        z = getattr(op, name)(x, y)
        return op.nn.relu(qdq.emit(z)) if relu else z

    check(build([(2, 3, 4), other], [a, b], body, out), seed)


def test_constant_tensor_operand():
    values = np.random.default_rng(0).integers(-128, 128, (1, 3, 3, 4))

    def body(qdq, x):
        return op.add(x, qdq.emit(op.dequantize(const(values, "int8"), const(0.02), const(4, "int8"))))

    check(build([(1, 3, 3, 4)], [Quant(0.03, 1)], body, Quant(0.04, 0)), 0, 1, ("add",))


def test_division_by_a_constant_tensor():
    values = np.random.default_rng(0).uniform(0.5, 2, (1, 3, 3, 4))
    mod = build([(1, 3, 3, 4)], [Quant(0.03, 1)], lambda qdq, x: op.divide(x, const(values)), Quant(0.06, 0))
    check(mod, 0, 2, ("mul",))  # the reciprocals are 8-bit: half a step of 2/255 of at most 3.9
    assert "constant operand" in lowering_notes(LowerQuantized()(mod))[0].text
