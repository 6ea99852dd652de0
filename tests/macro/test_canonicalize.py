"""Canonicalize: each rule alone, on values."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from tvm import relax

from tvm_ergo.relay_passes.macro.canonicalize import Canonicalize
from tvm_ergo.relay_passes.relax_utils import Constant

R = relax.op
RNG = np.random.default_rng(0)


def c(*shape):
    return relax.const(RNG.normal(size=shape).astype(np.float32))


def n(value):
    return relax.const(np.float32(value))


def positive(*shape):
    return relax.const(RNG.uniform(0.5, 2, shape).astype(np.float32))


def quantize(x, scale=0.1, zero=3):
    return R.quantize(x, n(scale), relax.const(zero, "int8"), axis=1)


def dequantize(x, scale=0.1, zero=3):
    return R.dequantize(x, n(scale), relax.const(zero, "int8"), axis=1)


def batch_norm(e, x):
    return e(relax.TupleGetItem(e(R.nn.batch_norm(x, c(6), c(6), c(6), positive(6), 1, training=False)), 0))


def of_stack(reduce, *others, axis=0, keepdims=False):
    """reduce(stack(x, others repeated to x's shape)), as TVM's importer writes ONNX's Max, Min and Sum."""

    def build(e, x):
        same = [o if isinstance(o, Constant) else o(e, x) for o in others]
        repeated = [e(R.broadcast_to(o, (2, 6, 8, 8))) for o in same]
        return e(reduce(e(R.stack([x, *repeated], axis=axis)), axis=axis, keepdims=keepdims))

    return build


def full(value):
    return relax.const(np.full((2, 6, 8, 8), value, np.float32))


def square(e, x):
    return e(R.multiply(x, x))


def quantized(e, x):
    return e(dequantize(e(quantize(x))))


W = c(4, 6, 3, 3)
RULES = {
    "dropout": (lambda e, x: e(R.nn.relu(e(relax.TupleGetItem(e(R.nn.dropout(x, 0.5)), 0)))), ["nn.relu"]),
    "batch_norm": (batch_norm, ["multiply", "add"]),
    "constant left": (lambda e, x: e(R.multiply(c(6, 1, 1), x)), ["multiply"]),
    "subtract": (lambda e, x: e(R.subtract(x, c(6, 1, 1))), ["add"]),
    "divide": (lambda e, x: e(R.divide(x, positive(6, 1, 1))), ["multiply"]),
    "constant minus": (lambda e, x: e(R.subtract(n(1), x)), ["subtract"]),
    "add zero": (lambda e, x: e(R.nn.relu(e(R.add(x, n(0))))), ["nn.relu"]),
    "times one": (lambda e, x: e(R.nn.relu(e(R.divide(x, n(1))))), ["nn.relu"]),
    "maximum": (lambda e, x: e(R.maximum(x, n(0))), ["nn.relu"]),
    "clip from bounds": (lambda e, x: e(R.minimum(e(R.maximum(n(-1), x)), n(0.5))), ["clip"]),
    "relu6": (lambda e, x: e(R.minimum(e(R.nn.relu(x)), n(6))), ["clip"]),
    "named relu6": (lambda e, x: e(R.nn.relu6(x)), ["clip"]),
    "reshapes": (lambda e, x: e(R.squeeze(e(R.expand_dims(e(R.flatten(x)), [0])), [0])), ["reshape"]),
    "reshape and back": (
        lambda e, x: e(R.nn.relu(e(R.reshape(e(R.reshape(x, (2, 6, 64))), (2, 6, 8, 8))))),
        ["nn.relu"],
    ),
    "transposes": (lambda e, x: e(R.permute_dims(e(R.permute_dims(x, [0, 2, 3, 1])), [0, 2, 3, 1])), ["permute_dims"]),
    "transpose and back": (
        lambda e, x: e(R.nn.relu(e(R.permute_dims(e(R.permute_dims(x, [0, 2, 3, 1])), [0, 3, 1, 2])))),
        ["nn.relu"],
    ),
    "requantize the same": (
        lambda e, x: e(dequantize(e(quantize(e(dequantize(e(quantize(x)))))))),
        ["quantize", "dequantize"],
    ),
    "requantize another": (
        lambda e, x: e(quantize(e(dequantize(e(quantize(x)))), 0.2)),
        ["quantize", "dequantize", "quantize"],
    ),
    "whole average": (lambda e, x: e(R.nn.avg_pool2d(x, (8, 8))), ["mean"]),
    "adaptive average": (lambda e, x: e(R.nn.adaptive_avg_pool2d(x, 1)), ["mean"]),
    "part average": (lambda e, x: e(R.nn.avg_pool2d(x, (4, 8))), ["nn.avg_pool2d"]),
    "pad": (
        lambda e, x: e(R.nn.conv2d(e(R.nn.pad(x, [0, 0, 0, 0, 1, 0, 2, 1])), W, padding=(0, 1, 1, 0))),
        ["nn.conv2d"],
    ),
    "pad of channels": (
        lambda e, x: e(R.nn.conv2d(e(R.nn.pad(x, [0, 0, 1, 0, 0, 0, 0, 0])), c(4, 7, 3, 3))),
        ["nn.pad", "nn.conv2d"],
    ),
    "pad with a value": (
        lambda e, x: e(R.nn.conv2d(e(R.nn.pad(x, [0, 0, 0, 0, 1, 0, 2, 1], "constant", 1.0)), W)),
        ["nn.pad", "nn.conv2d"],
    ),
    "quantized pad": (
        lambda e, x: e(
            R.nn.conv2d(
                e(dequantize(e(quantize(e(R.nn.pad(e(dequantize(e(quantize(x)))), [0, 0, 0, 0, 1, 1, 1, 1])))))), W
            )
        ),
        ["quantize", "dequantize", "nn.conv2d"],
    ),
    "max of two": (of_stack(R.max, square), ["multiply", "maximum"]),
    "min of three": (of_stack(R.min, square, c(6, 1, 1), axis=-5), ["multiply", "minimum", "minimum"]),
    "sum of two, repeated": (of_stack(R.sum, lambda e, x: e(R.mean(x, [1], keepdims=True)), axis=0), ["mean", "add"]),
    "max with zeros": (lambda e, x: e(R.max(e(R.stack([full(0), x], axis=0)), axis=0)), ["nn.relu"]),
    "max over another axis": (of_stack(R.max, square, axis=1), ["multiply", "maximum"]),
    "max, axis kept": (of_stack(R.max, square, keepdims=True), ["multiply", "broadcast_to", "stack", "max"]),
    "max of three quantized": (
        of_stack(R.max, square, quantized),
        ["multiply", "quantize", "dequantize", "broadcast_to", "broadcast_to", "stack", "max"],
    ),
    "pad, requantized": (
        lambda e, x: e(
            R.nn.conv2d(
                e(
                    dequantize(
                        e(quantize(e(R.nn.pad(e(dequantize(e(quantize(x)))), [0, 0, 0, 0, 1, 1, 1, 1])), 0.2)), 0.2
                    )
                ),
                W,
            )
        ),
        ["quantize", "dequantize", "nn.pad", "quantize", "dequantize", "nn.conv2d"],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    build, expected = RULES[name]
    mod = module(build, (2, 6, 8, 8))
    after = Canonicalize()(mod)
    assert ops(after) == expected
    assert_same(mod, after, 1e-6)


def test_a_second_run_changes_nothing():
    mod = Canonicalize()(module(batch_norm, (2, 6, 8, 8)))
    assert ops(Canonicalize()(mod)) == ops(mod)
