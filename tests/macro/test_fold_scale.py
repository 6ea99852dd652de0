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
    "transposed": lambda e, x: e(R.nn.conv2d_transpose(x, c(5, 2, 2, 4), (2, 2), data_layout="NHWC", kernel_layout="OHWI")),
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


def test_quantized_weights_are_left_alone():
    def build(e, x):
        w = e(R.dequantize(relax.const(RNG.integers(-9, 9, (5, 3, 3, 4)).astype(np.int8)), relax.const(np.float32(0.1)), relax.const(0, "int8"), 0))
        return e(R.multiply(e(R.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI")), c(5)))

    mod = module(build, (1, 8, 8, 4))
    assert ops(FoldScale()(mod)) == ["dequantize", "nn.conv2d", "multiply"]
