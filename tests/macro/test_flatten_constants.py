"""FlattenConstants: leading ones go, single numbers become scalars or whole biases."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from tvm import relax

from tvm_ergo.relay_passes.macro.flatten_constants import FlattenConstants
from tvm_ergo.relay_passes.relax_utils import bindings_of, shape_of

R = relax.op
RNG = np.random.default_rng(0)


def c(*shape):
    return relax.const(RNG.normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(
    "given, expected",
    [((1, 1, 1, 4), (4,)), ((1, 8, 1, 4), (8, 1, 4)), ((1, 1, 1, 1), ()), ((1,), ()), ((4,), (4,)), ((), ())],
)
def test_constant_operands(given, expected):
    mod = module(lambda e, x: e(R.multiply(x, c(*given))), (1, 8, 8, 4))
    after = FlattenConstants()(mod)
    assert shape_of(bindings_of(after["main"])[0][1].args[1]) == expected
    assert_same(mod, after, 0)


def test_single_number_after_a_linear_operator_is_a_whole_bias():
    mod = module(lambda e, x: e(R.add(e(R.matmul(x, c(3, 5))), relax.const(np.float32(2)))), (2, 3))
    after = FlattenConstants()(mod)
    assert shape_of(bindings_of(after["main"])[-1][1].args[1]) == (5,)
    assert_same(mod, after, 0)


def test_quantized_bias_keeps_its_scales_on_the_channels():
    def build(e, x):
        bias = e(
            R.dequantize(
                relax.const(np.arange(4, dtype=np.int32).reshape(1, 1, 1, 4)),
                relax.const(np.arange(1, 5).astype(np.float32)),
                relax.const(0, "int32"),
                3,
            )
        )
        return e(R.add(x, bias))

    mod = module(build, (1, 2, 2, 4))
    after = FlattenConstants()(mod)
    call = bindings_of(after["main"])[0][1]
    assert ops(after) == ["dequantize", "add"] and shape_of(call) == (4,) and int(call.attrs.axis) == 0
    assert_same(mod, after, 0)


def test_a_constant_of_higher_rank_is_left():
    mod = module(lambda e, x: e(R.multiply(x, c(1, 1, 4))), (4,))
    after = FlattenConstants()(mod)
    assert shape_of(bindings_of(after["main"])[0][1].args[1]) == (1, 1, 4)
