"""FoldScale (with FlattenConstants before it): batch norm and friends go into weights and bias."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from tvm import relax

from tvm_ergo.relay_passes.macro.flatten_constants import FlattenConstants
from tvm_ergo.relay_passes.macro.fold_scale import FoldScale
from tvm_ergo.relay_passes.relax_utils import bindings_of, shape_of

R = relax.op
RNG = np.random.default_rng(0)


def c(*shape):
    return relax.const(RNG.normal(size=shape).astype(np.float32))


LINEAR = {
    "conv2d": lambda e, x: e(R.nn.conv2d(x, c(5, 3, 3, 4), data_layout="NHWC", kernel_layout="OHWI")),
    "depthwise": lambda e, x: e(R.nn.conv2d(x, c(4, 3, 3, 1), groups=4, data_layout="NHWC", kernel_layout="OHWI")),
    "transposed": lambda e, x: e(
        R.nn.conv2d_transpose(x, c(5, 2, 2, 4), (2, 2), data_layout="NHWC", kernel_layout="OHWI")
    ),
    "matmul": lambda e, x: e(R.matmul(e(R.reshape(x, (1, 256))), c(256, 5))),
}
NAMES = {"conv2d": "nn.conv2d", "depthwise": "nn.conv2d", "transposed": "nn.conv2d_transpose", "matmul": "matmul"}


@pytest.mark.parametrize("kind", LINEAR)
def test_products_and_sums_are_folded(kind):
    def build(e, x):
        y = LINEAR[kind](e, x)
        channels = (1,) * (y.ty.ndim - 1) + (shape_of(y)[-1],)
        for op in (R.add, R.multiply, R.add, R.multiply, R.add):
            y = e(op(y, c(*channels)))
        return e(R.multiply(y, relax.const(np.float32(3))))

    mod = module(build, (1, 8, 8, 4))
    after = FoldScale()(FlattenConstants()(mod))
    assert ops(after) == (["reshape"] if kind == "matmul" else []) + [NAMES[kind], "add"]
    assert shape_of(bindings_of(after["main"])[-1][1].args[1]) == (4 if kind == "depthwise" else 5,)
    assert_same(mod, after)


def test_a_value_read_twice_keeps_its_scale_apart():
    def build(e, x):
        y = LINEAR["conv2d"](e, x)
        return e(R.add(e(R.multiply(y, c(5))), y))

    mod = module(build, (1, 8, 8, 4))
    after = FoldScale()(mod)
    assert ops(after) == ["nn.conv2d", "multiply", "add"]
    assert_same(mod, after)


def test_scale_before_the_operator_stays():
    mod = module(lambda e, x: LINEAR["conv2d"](e, e(R.multiply(x, c(4)))), (1, 8, 8, 4))
    assert ops(FoldScale()(mod)) == ["multiply", "nn.conv2d"]


def quantized(e, stored, axis, scales=None, zero_point=0):
    scales = np.float32(0.1) if scales is None else np.asarray(scales, np.float32)
    zero_points = np.full(np.shape(scales), zero_point, stored.dtype)
    return e(R.dequantize(relax.const(stored), relax.const(scales), relax.const(zero_points), axis))


QUANTIZED = {
    "conv2d": lambda e, x, **k: e(
        R.nn.conv2d(
            x,
            quantized(e, k.pop("stored", RNG.integers(-9, 9, (5, 3, 3, 4)).astype(np.int8)), 0, **k),
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
    ),
    "per channel": lambda e, x: QUANTIZED["conv2d"](e, x, scales=[0.1, 0.2, 0.3, 0.05, 0.01]),
    "uint8": lambda e, x: QUANTIZED["conv2d"](
        e, x, stored=RNG.integers(100, 150, (5, 3, 3, 4)).astype(np.uint8), zero_point=128
    ),
    "transposed": lambda e, x: e(
        R.nn.conv2d_transpose(
            x,
            quantized(e, RNG.integers(-9, 9, (5, 2, 2, 4)).astype(np.int8), 0),
            (2, 2),
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
    ),
    "matmul": lambda e, x: e(
        R.matmul(e(R.reshape(x, (1, 256))), quantized(e, RNG.integers(-9, 9, (256, 5)).astype(np.int8), 1))
    ),
}


@pytest.mark.parametrize("biased", (False, True))
@pytest.mark.parametrize("kind", QUANTIZED)
def test_scales_of_quantized_weights_take_the_factor(kind, biased):
    """Negative factors turn the integers over, a factor of zero leaves a scale above zero."""

    def build(e, x):
        y = QUANTIZED[kind](e, x)
        if biased:
            y = e(R.add(y, quantized(e, RNG.integers(-900, 900, 5).astype(np.int32), 0)))
        y = e(R.multiply(y, relax.const(np.array([2, -0.5, 0, 0.1, -3], np.float32))))
        return e(R.add(y, c(5)))

    mod = module(build, (1, 8, 8, 4))
    after = FoldScale()(mod)
    assert [o for o in ops(after) if o not in ("dequantize", "reshape")] == [
        {"transposed": "nn.conv2d_transpose", "matmul": "matmul"}.get(kind, "nn.conv2d"),
        "add",
    ]
    assert_same(mod, after)


def test_a_quantized_bias_stays_as_stored():
    mod = module(
        lambda e, x: e(R.add(QUANTIZED["conv2d"](e, x), quantized(e, RNG.integers(-900, 900, 5).astype(np.int32), 0))),
        (1, 8, 8, 4),
    )
    assert ops(FoldScale()(mod)).count("dequantize") == 2


def test_integers_that_cannot_be_turned_over_stay():
    """-128 has no negative in int8."""
    stored = np.full((5, 3, 3, 4), -128, np.int8)
    mod = module(
        lambda e, x: e(
            R.multiply(QUANTIZED["conv2d"](e, x, stored=stored), relax.const(np.array([1, -1, 1, 1, 1], np.float32)))
        ),
        (1, 8, 8, 4),
    )
    after = FoldScale()(mod)
    assert ops(after) == ["dequantize", "nn.conv2d", "multiply"]
    assert_same(mod, after)
