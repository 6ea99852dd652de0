"""Tables, pooling, reductions, resizing and movement: the integer dialect on the CPU against the float QDQ function, at
most one step apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvm_ergo.relay_passes.cpu import build_cpu
from tvm_ergo.relay_passes.micro.lower_context import Quant
from tvm_ergo.relay_passes.micro.lower_quantized import LowerQuantized
from tvm_ergo.relay_passes.micro.lower_spatial import resize_table, source_coordinates

from .quantized_nets import build, check, const, few, op, quants, seeds

ACTIVATIONS = {
    "silu": lambda q, x: op.multiply(x, q.emit(op.sigmoid(x))),
    "hard_swish": lambda q, x: op.multiply(
        x, q.emit(op.divide(q.emit(op.clip(q.emit(op.add(x, const(3.0))), 0, 6)), const(6.0)))
    ),
    "gelu": lambda q, x: op.nn.gelu(x),
    "gelu_erf": lambda q, x: op.multiply(
        q.emit(op.multiply(x, const(0.5))),
        q.emit(op.add(q.emit(op.erf(q.emit(op.divide(x, const(2**0.5))))), const(1.0))),
    ),
    "mish": lambda q, x: op.multiply(x, q.emit(op.tanh(q.emit(op.log(q.emit(op.add(q.emit(op.exp(x)), const(1.0)))))))),
    "leaky": lambda q, x: op.nn.leakyrelu(x, 0.1),
    "prelu": lambda q, x: op.nn.prelu(x, const([0.1, -0.2, 0.3]), axis=3),
    "normalise": lambda q, x: op.add(q.emit(op.multiply(x, const([1.5, -0.5, 2.0]))), const([0.1, 0.2, 0.3])),
    "sigmoid": lambda q, x: op.sigmoid(x),
    "tanh": lambda q, x: op.tanh(x),
    "abs": lambda q, x: op.abs(x),
    "sign": lambda q, x: op.sign(x),
    "square": lambda q, x: op.multiply(x, x),
    "relu": lambda q, x: op.nn.relu(x),
    "softplus": lambda q, x: op.nn.softplus(x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_one_table(name):
    mod = build([(1, 5, 5, 3)], [Quant(0.04, 6)], ACTIVATIONS[name], Quant(0.05, -11))
    calls = check(mod, 1, 1, ("table",))
    assert len(calls) == 1


@few
@given(
    st.sampled_from(["max", "avg"]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.tuples(*[st.integers(0, 1)] * 4),
    st.booleans(),
    quants,
    seeds,
)
def test_pooling(kind, window, stride, padding, ceil, quant, seed):
    window = max(window, 2) if any(padding) else window
    out = quant if kind == "max" else Quant(quant.scale, 3)
    pool = op.nn.max_pool2d if kind == "max" else op.nn.avg_pool2d

    def body(qdq, x):
        return pool(x, (window, window), (stride, stride), padding, ceil_mode=ceil, layout="NHWC")

    check(build([(1, 6, 7, 3)], [quant], body, out), seed, 1 if kind == "avg" else 0)


@few
@given(st.sampled_from(["mean", "sum", "max", "min", "adaptive1", "adaptive2", "count"]), quants, seeds)
def test_reduction(kind, quant, seed):
    reductions = {
        "mean": lambda x: op.mean(x, [1, 2], True),
        "sum": lambda x: op.sum(x, [3], False),
        "max": lambda x: op.max(x, [1], False),
        "min": lambda x: op.min(x, [1, 3], True),
        "adaptive1": lambda x: op.nn.adaptive_avg_pool2d(x, (1, 1), layout="NHWC"),
        "adaptive2": lambda x: op.nn.adaptive_avg_pool2d(x, (2, 3), layout="NHWC"),
        "count": lambda x: op.nn.avg_pool2d(x, (3, 3), (2, 2), (1, 1), count_include_pad=True, layout="NHWC"),
    }
    out = quant if kind in ("max", "min") else Quant(quant.scale * 1.3, -5)
    check(build([(2, 4, 6, 3)], [quant], lambda qdq, x: reductions[kind](x), out), seed)


@few
@given(st.integers(2, 40), quants, seeds)
def test_softmax(length, quant, seed):
    check(
        build([(3, length)], [quant], lambda qdq, x: op.nn.softmax(x, -1), Quant(1 / 256, -128)), seed, 1, ("softmax",)
    )


MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")


@few
@given(
    st.sampled_from(["nearest_neighbor", "linear"]),
    st.sampled_from(MODES),
    st.sampled_from(["round", "floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    st.integers(1, 9),
    st.integers(1, 9),
    quants,
    seeds,
)
def test_resize(method, mode, rounding, h, w, quant, seed):
    def body(qdq, x):
        return op.image.resize2d(
            x, (h, w), layout="NHWC", method=method, coordinate_transformation_mode=mode, rounding_method=rounding
        )

    check(build([(1, 4, 5, 2)], [quant], body, quant), seed, 1 if method == "linear" else 0)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from((*MODES, "tf_half_pixel_for_nn")))
def test_resize_tables_are_interpolations(size, out_size, mode):
    low, high, weight = resize_table(size, out_size, mode, "linear", "").T
    at = np.clip(source_coordinates(size, out_size, mode), 0, size - 1)
    np.testing.assert_allclose(low * (1 - weight / 2048) + high * weight / 2048, at, atol=1 / 4096 + 1e-9)


MOVES = {
    "reshape": lambda q, x: op.reshape(x, (4, 18)),
    "flatten": lambda q, x: op.flatten(x),
    "expand": lambda q, x: op.expand_dims(x, [1]),
    "permute": lambda q, x: op.permute_dims(x, [0, 3, 1, 2]),
    "slice": lambda q, x: op.strided_slice(x, [1, 2], [-3, 0], [4, 3], [2, 1]),
    "pad": lambda q, x: op.nn.pad(x, [0, 0, 1, 2, 0, 1, 0, 0], "constant", 0.25),
    "squeeze": lambda q, x: op.squeeze(x, [0]),
    "depth_to_space": lambda q, x: op.reshape(
        q.emit(op.permute_dims(q.emit(op.reshape(x, (1, 4, 3, 2, 1, 3))), [0, 1, 4, 2, 3, 5])), (1, 4, 6, 3)
    ),
    "take_one": lambda q, x: op.take(x, relax.const(np.int64(2)), 1),
    "take_some": lambda q, x: op.take(x, const([-5, 3, 5], "int64"), 3),
    "split": lambda q, x: relax.TupleGetItem(q.emit(op.split(x, 3, 3)), 1),
    "split_at": lambda q, x: relax.TupleGetItem(q.emit(op.split(x, [1, 3], 3)), 2),
}


@pytest.mark.parametrize("name", MOVES)
def test_movement_is_exact(name):
    quant = Quant(0.031, -7)
    check(build([(1, 4, 3, 6)], [quant], MOVES[name], quant), 3, 0)


def test_pixel_shuffle_is_exact():
    quant = Quant(0.031, -7)
    mod = build([(1, 8, 3, 2)], [quant], lambda q, x: op.nn.pixel_shuffle(x, 2), quant)
    x = np.random.default_rng(0).integers(-128, 128, (1, 8, 3, 2)).astype(np.int8)
    got = build_cpu(LowerQuantized()(mod))(x)[0]
    for c, h, w in np.ndindex(2, 6, 4):
        assert got[0, c, h, w] == x[0, c * 4 + (h % 2) * 2 + w % 2, h // 2, w // 2]


@few
@given(quants, quants, quants, seeds)
def test_concatenation_rescales(a, b, out, seed):
    mod = build([(1, 3, 2), (1, 3, 4)], [a, b], lambda qdq, x, y: op.concat([x, y], -1), out)
    calls = check(mod, seed, 0, ("concat",))
    assert sum(c.op_name == "table" for c in calls) == (a != out) + (b != out)
