"""Prediction in space and time: exact against a slow twin, in every mode, and shorter where there is something to
predict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target.codecs.bitmask import BitmaskCodec
from tvm_ergo.target.codecs.predict import BOTH, JOINT, RESIDUAL, SIZE, SPACE, TIME, PredictCodec, predicted, restored
from tvm_ergo.target.codecs.static import StaticCodec
from tvm_ergo.target.errors import InputError, ProgramError

MODES = [mode + joint for mode in (SPACE, TIME, BOTH) for joint in (0, JOINT)]


def frame(seed: int, shape=(24, 20, 3)) -> np.ndarray:
    """A smooth picture whose colours change together, with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 60 * np.sin(x / 7.3) * np.cos(y / 9.1) + 30 * (x > 9)
    return np.clip(light[..., None] * np.array([1, 0.9, 0.8]) + rng.normal(0, 1, shape), -128, 127).astype(np.int8)


def residuals_of_twin(x: np.ndarray, mode: int, before: np.ndarray) -> np.ndarray:
    """One value at a time."""
    base = {SPACE: lambda *at: 128, BOTH: lambda *at: int(before[at])}
    result = np.zeros_like(x)
    for y, column in np.ndindex(*x.shape[:2]):
        error = 0
        for c in range(x.shape[2]):
            if mode & ~JOINT == TIME:
                expected = int(before[y, column, c])
            else:
                offset = base[mode & ~JOINT]

                def at(r, k):
                    return int(x[r, k, c]) - offset(r, k, c)

                left = at(y, column - 1) if column else at(y - 1, column) if y else 0
                up = at(y - 1, column) if y else left
                corner = at(y - 1, column - 1) if y and column else up
                expected = offset(y, column, c) + sorted([left, up, left + up - corner])[1]
            result[y, column, c] = (int(x[y, column, c]) - expected - (error if mode & JOINT else 0) + 128) % 256 - 128
            error = int(x[y, column, c]) - expected
    return result


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 999),
)
def test_residuals_are_the_twins_and_give_the_values_back(shape, mode, seed):
    x, before = np.random.default_rng(seed).integers(0, 256, (2, 1, *shape))
    residuals = (x - predicted(x, mode, before) + 128) % 256 - 128
    assert np.array_equal(residuals[0], residuals_of_twin(x[0], mode, before[0]))
    assert np.array_equal(restored(residuals, mode, before), x)


def test_folding_of_residuals():
    assert np.array_equal(RESIDUAL[SIZE], np.arange(-128, 128))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5)),
    zero_point=st.integers(-128, 127),
    rows=st.integers(1, 4),
    noise=st.integers(0, 255),
    seed=st.integers(0, 99),
)
def test_with_a_previous_tensor(shape, zero_point, rows, noise, seed):
    rng = np.random.default_rng(seed)
    before = rng.integers(-128, 128, shape).astype(np.int8)
    x = np.clip(before + rng.integers(-noise, noise + 1, shape) // 2, -128, 127).astype(np.int8)
    codec = PredictCodec(zero_point=zero_point, tile_rows=rows)
    data = codec.encode(x, before)
    assert np.array_equal(codec.decode(data, shape, before), x) and len(data) <= codec.worst_case_bytes(shape)
    begin = seed % shape[0]
    assert np.array_equal(codec.decode_rows(data, shape, begin, begin + 1, before), x[begin : begin + 1])


def test_pictures_shrink_most_by_prediction():
    x, codec = frame(0), PredictCodec()
    assert len(codec.encode(x)) < 0.8 * min(
        len(BitmaskCodec(zero_point=0).encode(x)), len(StaticCodec(zero_point=0).encode(x))
    )
    assert len(codec.encode(x, frame(1))) < len(codec.encode(x))  # the same scene with other noise
    assert len(codec.encode(x, x)) < 0.12 * x.size


def test_a_previous_tensor_must_fit_and_be_there():
    x, codec = frame(0), PredictCodec()
    with pytest.raises(InputError):
        codec.encode(x, x[:-1])
    with pytest.raises(InputError):
        StaticCodec().encode(x, x)
    data = codec.encode(x, x)
    with pytest.raises(ProgramError):
        codec.decode(data, x.shape)


def test_damaged_streams_with_a_previous_tensor():
    rng, x = np.random.default_rng(3), frame(0, (5, 6, 3))
    data = PredictCodec().encode(x, x)
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            assert PredictCodec().decode(bytes(flipped), x.shape, x).shape == x.shape
        except ProgramError:
            continue
