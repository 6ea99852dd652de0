"""Axis-order arithmetic against NumPy's own transposes and reshapes."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.relay_passes.macro.layout import (
    after_permute,
    after_reduction,
    original_shape,
    reshape_stored,
    step_between,
)

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@st.composite
def stored_tensors(draw):
    shape = draw(shapes)
    order = tuple(draw(st.permutations(range(len(shape)))))
    original = np.arange(math.prod(shape)).reshape(shape)
    return original, order, original.transpose(order)


@given(stored_tensors(), st.randoms())
def test_orders_follow_transposes_and_reductions(tensor, random):
    original, order, stored = tensor
    rank = original.ndim
    assert original_shape(stored.shape, order) == original.shape
    other = random.sample(range(rank), rank)
    assert np.array_equal(stored.transpose(step_between(order, tuple(other))), original.transpose(other))
    assert np.array_equal(stored, original.transpose(other).transpose(after_permute(order, other)))
    gone = random.sample(range(rank), random.randint(0, rank))
    summed = stored.sum(axis=tuple(order.index(a) for a in gone))
    assert np.array_equal(summed, original.sum(axis=tuple(gone)).transpose(after_reduction(order, gone)))


@given(stored_tensors(), st.data())
def test_a_reshape_of_the_stored_tensor_is_the_reshape_of_the_original(tensor, data):
    original, order, stored = tensor
    factors = [f for d in original.shape for f in ((2, d // 2) if d == 4 else (d,))]
    after, i = [], 0
    while i < len(factors):
        take = data.draw(st.integers(1, len(factors) - i))
        after.append(math.prod(factors[i : i + take]))
        i += take
    if data.draw(st.booleans()):
        after.insert(data.draw(st.integers(0, len(after))), 1)
    result = reshape_stored(original.shape, after, order)
    if result is not None:
        assert np.array_equal(stored.reshape([after[a] for a in result]), original.reshape(after).transpose(result))


def test_spatial_merge_stays_channels_last_and_flatten_does_not():
    assert reshape_stored((1, 85, 52, 52), (1, 85, 2704), (0, 2, 3, 1)) is not None
    assert reshape_stored((1, 8, 4, 4), (1, 128), (0, 2, 3, 1)) is None
    assert reshape_stored((1, 8, 1, 1), (1, 8), (0, 2, 3, 1)) == (0, 1)
