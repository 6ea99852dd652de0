"""LiftIntegers: operators on stored integers become QDQ, exactly."""

import numpy as np
import pytest
from graphs import assert_same, module, ops
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate
from tvm_ergo.relay_passes.macro.canonicalize import Canonicalize
from tvm_ergo.relay_passes.macro.lift_integers import LiftIntegers

R = relax.op
SCALE, ZERO = relax.const(np.float32(0.05)), relax.const(-7, "int32")


def q(e, x):
    return e(R.quantize(x, SCALE, ZERO, axis=0, out_dtype="int8"))


def dq(e, x):
    return e(R.dequantize(x, SCALE, ZERO, axis=0))


MOVES = {
    "reshape": lambda e, s: R.reshape(s, (1, 128)),
    "permute_dims": lambda e, s: R.permute_dims(s, [0, 3, 1, 2]),
    "strided_slice": lambda e, s: R.strided_slice(s, [1], [1], [3]),
    "nn.max_pool2d": lambda e, s: R.nn.max_pool2d(s, (2, 2), (2, 2), layout="NHWC"),
    "nn.pad": lambda e, s: R.nn.pad(s, [0, 0, 1, 1, 1, 1, 0, 0], "constant", -7.0),
    "concat": lambda e, s: R.concat([s, s], 3),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_lifted_exactly(name):
    mod = module(lambda e, x: dq(e, e(MOVES[name](e, q(e, x)))), (1, 4, 4, 8))
    lifted = Canonicalize()(LiftIntegers()(mod))
    kept = [o for o in ops(lifted) if "quantize" not in o]
    assert kept == [name] and ops(lifted)[0] == "quantize" and ops(lifted)[-1] == "dequantize"
    assert_same(mod, lifted, 0)


@pytest.mark.parametrize("known", ["before", "behind"])
def test_split_is_lifted_exactly(known):
    def build(e, x):
        parts = e(R.split(q(e, x) if known == "before" else x, 2, axis=3))
        return e(R.add(dq(e, e(relax.TupleGetItem(parts, 0))), dq(e, e(relax.TupleGetItem(parts, 1)))))

    mod = module(build, (1, 4, 4, 8), dtype="float32" if known == "before" else "int8")
    lifted = Canonicalize()(LiftIntegers()(mod))
    assert ops(lifted).index("dequantize") < ops(lifted).index("split")
    assert_same(mod, lifted, 0)


def test_integer_input_takes_its_quantization_from_its_reader():
    mod = module(lambda e, x: dq(e, e(R.reshape(x, (2, 8)))), (4, 4), dtype="int8")
    lifted = LiftIntegers()(mod)
    assert ops(lifted) == ["dequantize", "reshape", "quantize", "dequantize"]
    assert_same(mod, lifted, 0)


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (-128, 127, []),
        (-7, 127, ["nn.relu"]),
        (-7, 100, ["clip"]),
        (-20, 127, ["maximum"]),
        (-128, 90, ["minimum"]),
        (-50, 60, ["clip"]),
    ],
)
def test_clip_after_quantize_moves_before_it(low, high, expected):
    mod = module(lambda e, x: dq(e, e(R.clip(q(e, x), low, high))), (300,))
    lifted = LiftIntegers()(mod)
    assert ops(lifted) == [*expected, "quantize", "dequantize"]
    x = np.linspace(-9, 9, 300).astype(np.float32)
    assert np.array_equal(evaluate(mod, x)[0], evaluate(lifted, x)[0])


def test_widened_average_pooling_rounds_the_real_average():
    def build(e, x):
        wide = e(R.nn.avg_pool2d(e(R.astype(q(e, x), "int32")), (4, 4), (4, 4), layout="NHWC"))
        return dq(e, e(R.astype(wide, "int8")))

    mod = module(build, (1, 4, 4, 8))
    lifted = LiftIntegers()(mod)
    assert ops(lifted) == ["quantize", "dequantize", "nn.avg_pool2d", "quantize", "dequantize"]
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32)
    stored = np.clip(np.rint(x / np.float32(0.05)) - 7, -128, 127)
    expected = (np.rint((stored + 7).mean(axis=(1, 2), keepdims=True))) * np.float32(0.05)
    assert np.abs(evaluate(lifted, x)[0] - expected).max() < 0.051
    assert np.abs(evaluate(lifted, x)[0] - expected).mean() < 0.007


@pytest.mark.parametrize("dtype", ("int8", "uint8"))
def test_widened_average_of_integers_without_a_scale_is_rounded(dtype):
    """Nothing beside it names the scale: an average is the same in every scale, and integer division would truncate
    it."""

    def build(e, x):
        return e(R.astype(e(R.nn.avg_pool2d(e(R.astype(x, "int32")), (2, 2), (2, 2), layout="NHWC")), dtype))

    mod = module(build, (1, 4, 4, 8), dtype=dtype)
    lifted = Canonicalize()(LiftIntegers()(mod))
    x = np.random.default_rng(2).integers(0, 120, (1, 4, 4, 8)).astype(dtype) - (60 if dtype == "int8" else 0)
    wanted = np.rint(x.astype(np.float64).reshape(1, 2, 2, 2, 2, 8).mean(axis=(2, 4)))
    np.testing.assert_array_equal(evaluate(lifted, {"x0": x.astype(dtype)})[0], wanted)
    assert "astype" not in ops(lifted)
