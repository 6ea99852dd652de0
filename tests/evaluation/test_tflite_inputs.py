"""Inputs of the TFLite files: quantized as the file says, and real data that use the file's range."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_ergo.evaluation import has_shared
from tvm_ergo.evaluation.nets import TFLITE, inputs_of, model_path
from tvm_ergo.evaluation.tflite_inputs import REAL_INPUTS, quantization_of, quantize
from tvm_ergo.frontend import load

needs_shared = pytest.mark.skipif(not has_shared(), reason="ERGO_SHARED (models and data) is not here")


def slow_quantize(x: float, scale: float, zero_point: int, low: int, high: int) -> int:
    steps = abs(x / scale)
    rounded = math.floor(steps + 0.5)
    return min(max(zero_point + (rounded if x > 0 else -rounded), low), high)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20), st.floats(1e-3, 10), st.integers(-128, 127))
def test_quantize_equals_its_twin(values, scale, zero_point):
    for dtype, shift in (("int8", 0), ("uint8", 128)):
        limits = np.iinfo(dtype)
        expected = [slow_quantize(x, scale, zero_point + shift, limits.min, limits.max) for x in values]
        found = quantize(np.array(values), (scale, zero_point + shift), dtype)
        assert found.dtype == dtype and found.tolist() == expected


def test_every_stored_value_comes_back():
    stored = np.arange(-128, 128)
    np.testing.assert_array_equal(quantize(0.37 * (stored - 5), (0.37, 5), "int8"), stored)


def test_float_inputs_stay_as_they_are():
    assert quantize(np.array([0.25]), None, "float32").tolist() == [0.25]


def test_only_the_wake_word_lacks_data():
    assert set(TFLITE) - set(REAL_INPUTS) == {"str_ww_ref_model"} and set(REAL_INPUTS) <= set(TFLITE)


class Compiled:
    """As much of a compiled model as `inputs_of` looks at."""

    def __init__(self, name: str):
        self.inputs = load(model_path(name)).inputs


@needs_shared
@pytest.mark.parametrize("name", sorted(REAL_INPUTS))
def test_real_inputs_fit_the_file_and_use_its_range(name):
    compiled = Compiled(name)
    (info,) = compiled.inputs
    first, second = (feeds[info.name] for feeds in inputs_of(name, compiled, 2))
    assert first.shape == tuple(info.shape) and first.dtype == info.dtype and not np.array_equal(first, second)
    quantization = quantization_of(model_path(name).read_bytes())
    assert (quantization is None) == (first.dtype == np.float32)
    if quantization is None:  # within 0..1 or -1..1, and not all in one half
        assert np.abs(first).max() <= 1.0 and np.ptp(first) > 0.5
    else:
        limits = np.iinfo(first.dtype)
        clipped = np.mean((first == limits.min) | (first == limits.max))
        assert np.ptp(first.astype(int)) > 100 and clipped < 0.2
