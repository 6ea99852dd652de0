"""Running sums, largest elements, logarithms of a softmax, shares of a sum and squared differences on the chip."""

import numpy as np
import pytest
from tvm import relax

import tvm_ergo
from tvm_ergo.relay_passes.micro.lower_quantized import lower_quantized

from ..frontend.onnx_kit import model, node, reference
from .chip_runs import between_quantizers, three_ways

R = relax.op
RNG = np.random.default_rng(5)
AXES = [((2, 7), 1), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((1, 3, 4), 0), ((6,), 0)]


def number(value):
    return relax.const(np.float32(value))


@pytest.mark.parametrize("shape, axis", [*AXES, ((2, 300), 1)])
@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(shape, axis, exclusive, reverse):
    def make(emit, x):
        turned = emit(R.flip(x, axis)) if reverse else x
        total = emit(R.cumsum(turned, axis, exclusive=exclusive))
        return emit(R.flip(total, axis)) if reverse else total

    step = 0.05 * max(shape[axis] // 2, 1)
    wanted, found = three_ways(
        between_quantizers(make, shape, (step, 11)), RNG.uniform(-6, 6, shape).astype(np.float32)
    )
    assert np.abs(wanted - found).max() <= step * 1.001


def test_a_running_sum_with_bounds_and_one_that_is_too_long():
    mod = between_quantizers(lambda emit, x: emit(R.nn.relu(emit(R.cumsum(x, 1)))), (2, 9), (0.1, 0))
    wanted, found = three_ways(mod, RNG.uniform(-6, 6, (2, 9)).astype(np.float32))
    assert np.abs(wanted - found).max() <= 0.1001 and found.min() == 0
    long = between_quantizers(lambda emit, x: emit(R.cumsum(x, 1)), (1, 513), (1, 0))
    (left,) = [f for f in lower_quantized(long)[1] if f.op == "cumsum"]
    assert left.reason == "its axis has 513 elements" and "at most 512" in left.remedy


@pytest.mark.parametrize("shape, axis", AXES)
@pytest.mark.parametrize("largest", [True, False])
def test_largest_elements_and_their_places(shape, axis, largest):
    x = np.round(RNG.uniform(-1, 1, shape) * 3).astype(np.float32)  # many equal ones
    for k in {1, (shape[axis] + 1) // 2, shape[axis]}:

        def values(emit, v, k=k):
            return emit(relax.TupleGetItem(emit(R.topk(v, k, axis, "both", largest, "int64")), 0))

        def places(emit, v, k=k):
            return emit(relax.TupleGetItem(emit(R.topk(v, k, axis, "both", largest, "int64")), 1))

        order = np.argsort(-x if largest else x, axis, kind="stable").take(range(k), axis)
        _, found = three_ways(between_quantizers(places, shape, numbers=True), x)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, order)
        _, found = three_ways(between_quantizers(values, shape, (0.05, -7)), x)
        np.testing.assert_allclose(found, np.take_along_axis(x, order, axis), atol=1e-6)
        wanted, found = three_ways(between_quantizers(values, shape, (0.04, 3)), x)
        np.testing.assert_allclose(found, wanted, atol=0.0401)


@pytest.mark.parametrize("largest", [1, 0])
def test_topk_of_a_file_is_onnx_runtimes(largest):
    """Values and places of one operator, which both leave the chip."""
    x = np.round(RNG.uniform(-1, 1, (3, 5, 9)) * 8).astype(np.float32) / 8
    scale, zero, k = np.float32(1 / 16), np.int8(0), np.array([4])
    made = model(
        [
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("TopK", "d k", "v i", axis=1, largest=largest),
            node("QuantizeLinear", "v s z", "w"),
            node("DequantizeLinear", "w s z", "y"),
        ],
        {"s": scale, "z": zero, "k": k},
        {"x": x},
        ("y", "i"),
    )
    compiled = tvm_ergo.compile(made)
    assert not compiled.fallbacks
    found = compiled.run({"x": x}).outputs
    for name, want in zip(("y", "i"), reference(made, {"x": x})):
        np.testing.assert_array_equal(found[name], want)


@pytest.mark.parametrize("shape, axis", [*AXES, ((2, 1000), 1)])
def test_logarithms_of_a_softmax(shape, axis):
    mod = between_quantizers(lambda emit, x: emit(R.nn.log_softmax(x, axis)), shape, (1 / 16, 127))
    for spread in (6, 0.3):
        wanted, found = three_ways(mod, RNG.uniform(-spread, spread, shape).astype(np.float32))
        assert np.abs(wanted - found).max() * 16 <= 1.001


@pytest.mark.parametrize("shape, axis", [*AXES, ((2, 500), 1)])
@pytest.mark.parametrize("guard", [lambda v: v, lambda v: R.maximum(v, number(1e-12))])
def test_shares_of_a_sum(shape, axis, guard):
    def make(emit, x):
        return emit(R.divide(x, emit(guard(emit(R.sum(emit(R.abs(x)), [axis], True))))))

    mod = between_quantizers(make, shape, (1 / 128, 5))
    for spread in (6, 0.3):
        wanted, found = three_ways(mod, RNG.uniform(-spread, spread, shape).astype(np.float32))
        assert np.abs(wanted - found).max() * 128 <= 1.001
    assert not three_ways(mod, np.zeros(shape, np.float32))[1].any()


@pytest.mark.parametrize("shape, other", [((2, 3, 4, 5), (5,)), ((1, 3, 5), (1, 3, 5)), ((7,), (7,)), ((4, 3), (1, 3))])
@pytest.mark.parametrize("square", [R.square, lambda v: R.multiply(v, v), lambda v: R.power(v, number(2))])
def test_squared_differences(shape, other, square):
    """Of two tensors with quantizers of their own, rounded once; odd numbers of elements too."""
    builder = relax.BlockBuilder()
    a, b = (relax.Var(n, relax.TensorType(s, "float32")) for n, s in (("a", shape), ("b", other)))

    def quantized(x, scale, zero):
        s, z = relax.const(np.float32(scale)), relax.const(np.int8(zero))
        return builder.emit(R.dequantize(builder.emit(R.quantize(x, s, z, out_dtype="int8")), s, z))

    with builder.function("main", [a, b]):
        with builder.dataflow():
            difference = builder.emit(R.subtract(quantized(a, 0.05, -7), quantized(b, 0.031, 20)))
            out = builder.emit_output(quantized(builder.emit(square(difference)), 0.2, -128))
        builder.emit_func_output(out)
    mod = builder.get()
    x, y = (RNG.uniform(-4, 4, s).astype(np.float32) for s in (shape, other))
    q = [np.clip(np.rint(v / np.float32(s)) + z, -128, 127) - z for v, s, z in ((x, 0.05, -7), (y, 0.031, 20))]
    want = (q[0] * np.float32(0.05) - q[1] * np.float32(0.031)) ** 2
    compiled = tvm_ergo.compile(mod)
    assert not compiled.fallbacks and "Rotate" in {
        type(i).__name__ for p in compiled.programs.values() for i in p.instructions
    }
    (found,) = compiled.run({"a": x, "b": y}).outputs.values()
    assert np.abs(found - np.minimum(want, 0.2 * 255)).max() <= 0.5001 * 0.2 + 51 * 2**-14


def test_the_square_of_a_difference_of_one_tensor_is_a_table():
    mod = between_quantizers(
        lambda emit, x: emit(R.square(emit(R.subtract(x, emit(R.nn.relu(x)))))), (3, 5), (0.2, -128)
    )
    compiled = tvm_ergo.compile(mod)
    assert [type(i).__name__ for p in compiled.programs.values() for i in p.instructions] == ["Table", "Halt"]
