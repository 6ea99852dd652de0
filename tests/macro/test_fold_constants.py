"""FoldConstants: what is constant is computed, quantized constants stay quantized."""

import numpy as np
from graphs import assert_same, module, ops
from tvm import relax

from tvm_ergo.relay_passes.macro.fold_constants import FoldConstants
from tvm_ergo.relay_passes.relax_utils import array_of, bindings_of

R = relax.op
RNG = np.random.default_rng(0)


def quantized(emit, data, scale, axis):
    return emit(R.dequantize(relax.const(data), relax.const(scale), relax.const(0, "int8"), axis=axis))


def test_constant_expressions_disappear():
    def build(e, x):
        c = e(R.exp(e(R.reshape(relax.const(np.ones((1, 6), np.float32)), (2, 3)))))
        return e(R.add(x, e(R.concat([c, c], 0))))

    mod = module(build, (4, 3))
    folded = FoldConstants()(mod)
    assert ops(folded) == ["add"]
    assert_same(mod, folded)


def test_shapes_and_indices_fold():
    def build(e, x):
        size = e(R.take(e(R.shape_to_tensor(e(R.shape_of(x)))), relax.const(1, "int64"), 0))
        index = relax.const(np.array([-1, 0]), "int64")
        return e(R.take(x, e(R.where(e(R.less(index, relax.const(0, "int64"))), e(R.add(index, size)), index)), 1))

    mod = module(build, (2, 5))
    folded = FoldConstants()(mod)
    assert ops(folded) == ["take"]
    assert_same(mod, folded)


def test_moves_go_into_the_integers_and_take_the_channel_axis_along():
    data, scale = RNG.integers(-128, 128, (3, 4, 2)).astype(np.int8), np.array([1, 2, 3, 4], np.float32)

    def build(e, x):
        w = quantized(e, data, scale, 1)
        return e(R.add(x, e(R.reshape(e(R.permute_dims(w, [2, 0, 1])), (6, 4)))))

    mod = module(build, (6, 4))
    folded = FoldConstants()(mod)
    assert ops(folded) == ["dequantize", "add"]
    call = bindings_of(folded["main"])[0][1]
    assert array_of(call.args[0]).dtype == np.int8 and int(call.attrs.axis) == 1
    assert_same(mod, folded, 0)


def test_a_move_that_scatters_the_channels_is_kept():
    data, scale = RNG.integers(-128, 128, (2, 3)).astype(np.int8), np.array([1, 2, 3], np.float32)
    mod = module(lambda e, x: e(R.add(x, e(R.reshape(quantized(e, data, scale, 1), (6,))))), (6,))
    folded = FoldConstants()(mod)
    assert ops(folded) == ["dequantize", "reshape", "add"]
    assert_same(mod, folded, 0)


def test_quantize_of_a_constant_becomes_integers():
    def build(e, x):
        q = e(
            R.quantize(
                relax.const(np.linspace(-1, 1, 5).astype(np.float32)),
                relax.const(np.float32(0.01)),
                relax.const(0, "int8"),
                0,
            )
        )
        return e(R.add(x, e(R.dequantize(q, relax.const(np.float32(0.01)), relax.const(0, "int8"), 0))))

    mod = module(build, (5,))
    folded = FoldConstants()(mod)
    assert ops(folded) == ["dequantize", "add"]
    assert_same(mod, folded, 0)
