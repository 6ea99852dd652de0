"""The rate-controlled codec: the budget holds for every input, and so does the error bound it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.reduced import ReducedCodec
from tvm_ergo.target.errors import InputError, ProgramError


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9)),
    zero_point=st.integers(-128, 127),
    budget=st.floats(0.05, 10),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_budget_and_error_bound(shape, zero_point, budget, zeros, seed):
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(shape) < zeros, zero_point, rng.integers(-128, 128, shape)).astype(np.int8)
    codec = ReducedCodec(zero_point=zero_point, tile_rows=2, budget_bits=budget)
    data = codec.encode(x)
    back = codec.decode(data, shape)
    assert len(data) <= codec.worst_case_bytes(shape)
    assert np.abs(back.astype(int) - x).max() <= codec.max_error(shape)
    assert (back[x == zero_point] == zero_point).all()
    if not any(codec.dropped_bits(data, shape)):
        assert np.array_equal(back, x)


def test_noise_at_four_bits_drops_more_than_a_sparse_tensor():
    rng, shape = np.random.default_rng(0), (8, 16, 32)
    noise = rng.integers(-128, 128, shape).astype(np.int8)
    sparse = np.where(rng.random(shape) < 0.7, -128, noise).astype(np.int8)
    codec = ReducedCodec(budget_bits=4.1)
    assert codec.dropped_bits(codec.encode(noise), shape) == [4]
    assert codec.dropped_bits(codec.encode(sparse), shape) == [0]
    assert codec.max_error(shape) == 15  # the largest level is clipped: 255 becomes 240


def test_damaged_streams_raise_or_give_the_shape():
    rng, shape, codec = np.random.default_rng(3), (5, 6, 12), ReducedCodec()
    data = codec.encode(rng.integers(-128, 128, shape).astype(np.int8))
    for cut in range(len(data)):
        with pytest.raises(ProgramError):
            codec.decode(data[:cut], shape)
    for place in range(0, 8 * len(data), 7):
        flipped = bytearray(data)
        flipped[place >> 3] ^= 1 << (place & 7)
        try:
            assert codec.decode(bytes(flipped), shape).shape == shape
        except ProgramError:
            continue


def test_a_budget_is_positive():
    with pytest.raises(InputError):
        ReducedCodec(budget_bits=0)
