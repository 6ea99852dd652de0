"""Positions of extrema, and vectors over their lengths."""

import numpy as np
import pytest
from tvm import relax

from .chip_runs import between_quantizers, three_ways

R = relax.op
RNG = np.random.default_rng(3)


@pytest.mark.parametrize("function", [R.argmax, R.argmin])
@pytest.mark.parametrize("shape, axis", [((2, 7), 1), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((1, 3, 4), 0), ((6,), 0)])
@pytest.mark.parametrize("keepdims, dtype", [(False, "int64"), (True, "int64"), (True, "int32")])
def test_positions_are_exact_and_of_equal_values_the_first(function, shape, axis, keepdims, dtype):
    def make(emit, x):
        found = emit(function(x, axis, keepdims))
        return found if dtype == "int64" else R.astype(found, dtype)

    x = np.round(RNG.uniform(-1, 1, shape) * 3).astype(np.float32)  # many equal ones
    wanted, found = three_ways(between_quantizers(make, shape, numbers=True), x)
    assert found.dtype == wanted.dtype == dtype
    np.testing.assert_array_equal(found, wanted)


def unit(emit, x, axis, square=R.square, guard=lambda v: R.maximum(v, relax.const(np.float32(1e-6)))):
    length = emit(R.sqrt(emit(R.sum(emit(square(x)), [axis], True))))
    return emit(R.divide(x, emit(guard(length))))


@pytest.mark.parametrize(
    "shape, axis", [((3, 12), 1), ((2, 3, 4, 5), 3), ((2, 3, 4, 5), 1), ((1, 3, 512), 2), ((6,), 0)]
)
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"square": lambda v: R.multiply(v, v), "guard": lambda v: R.clip(v, 1e-12, float("inf"))},
        {
            "square": lambda v: R.power(v, relax.const(np.float32(2))),
            "guard": lambda v: R.add(v, relax.const(np.float32(1e-5))),
        },
    ],
)
def test_unit_vectors_are_within_one_step(shape, axis, form):
    mod = between_quantizers(lambda emit, x: unit(emit, x, axis, **form), shape, (1 / 128, 0))
    for spread in (6, 0.3):
        wanted, found = three_ways(mod, RNG.uniform(-spread, spread, shape).astype(np.float32))
        assert np.abs(wanted - found).max() * 128 <= 1.001


def test_a_zero_vector_stays_zero():
    mod = between_quantizers(lambda emit, x: unit(emit, x, 1), (3, 4), (1 / 128, 5))
    _, found = three_ways(mod, np.zeros((3, 4), np.float32))
    assert not found.any()
