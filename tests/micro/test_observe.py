"""Histograms and range estimation against naive twins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes.micro import observe
from tvm_ergo.relay_passes.micro.observe import Histogram, Range, quant_params

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
ARRAYS = st.lists(FLOATS, min_size=1, max_size=60)


def histogram_of(*chunks):
    histogram = Histogram()
    for chunk in chunks:
        histogram.update(np.array(chunk, np.float32))
    return histogram


@given(ARRAYS)
@settings(deadline=None, max_examples=150)
def test_histogram_is_an_exact_count(values):
    histogram = histogram_of(values)
    array = np.array(values, np.float32).astype(np.float64)
    expected = {}
    for v in array[array != 0]:
        expected[np.floor(v / histogram.width)] = expected.get(np.floor(v / histogram.width), 0) + 1
    held = {histogram.first + i: c for i, c in enumerate(histogram.counts) if c}
    assert held == expected and histogram.zeros == int(np.sum(array == 0)) and histogram.total == len(values)
    assert (histogram.lo, histogram.hi) == (array.min(), array.max()) and len(histogram.counts) <= observe.MAX_BINS


@given(ARRAYS, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=100)
def test_histogram_depends_on_neither_order_nor_batches(values, seed):
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(np.array(values, np.float32))
    one, many = histogram_of(values), histogram_of(*np.array_split(shuffled, rng.integers(1, len(values) + 1)))
    if one.exponent is None:
        assert many.exponent is None
        return
    a, b = one.trimmed(), many.trimmed()
    assert one.exponent == many.exponent and np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


@given(FLOATS, FLOATS)
@settings(deadline=None, max_examples=200)
def test_params_represent_zero_exactly_and_span_the_range(a, b):
    lo, hi = min(a, b), max(a, b)
    params = quant_params(lo, hi)
    assert -128 <= params.zero_point <= 127 and params.scale > 0
    assert params.dequantize(params.quantize(np.zeros(1)))[0] == 0.0
    if observe.MIN_SCALE < params.scale < observe.MAX_SCALE and hi - min(lo, 0) > 0:
        ends = np.array([min(lo, 0.0), max(hi, 0.0)])
        assert np.abs(params.dequantize(params.quantize(ends)) - ends).max() <= params.scale * 1.01


def naive_least_error(values):
    """Exhaustive grid over both ends, error computed on the values themselves."""
    values = np.asarray(values, np.float64)
    lo, hi = min(values.min(), 0), max(values.max(), 0)
    best = np.inf
    for low in np.linspace(0.02, 1, 50) if lo < 0 else [1.0]:
        for high in np.linspace(0.02, 1, 50) if hi > 0 else [1.0]:
            params = quant_params(lo * low, hi * high)
            best = min(best, np.mean((params.dequantize(params.quantize(values)) - values) ** 2))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "skewed", "outlier"])
def test_least_error_is_as_good_as_the_exhaustive_search(kind, seed):
    rng = np.random.default_rng(seed)
    values = {
        "normal": rng.standard_normal(3000),
        "laplace": rng.laplace(size=3000),
        "relu": np.maximum(rng.standard_normal(3000), 0),
        "skewed": rng.gamma(0.7, size=3000) - 0.3,
        "outlier": np.append(rng.standard_normal(3000), 60.0),
    }[kind]
    found = histogram_of(values).least_error()
    params = quant_params(found.lo, found.hi)
    error = np.mean((params.dequantize(params.quantize(values)) - values) ** 2)
    assert error <= 1.03 * naive_least_error(values)


@given(ARRAYS)
@settings(deadline=None, max_examples=60)
def test_no_method_leaves_the_values_or_loses_zero(values):
    histogram = histogram_of(values)
    full = histogram.min_max()
    for r in (full, histogram.percentile(99.0), histogram.percentile(100.0), histogram.least_error()):
        assert full.lo <= r.lo <= 0 <= r.hi <= full.hi


def test_percentile_cuts_outliers_and_counts_zeros():
    histogram = histogram_of(np.concatenate([np.linspace(-1, 1, 10001), [500.0]]))
    cut = histogram.percentile(99.0)
    assert cut.hi == pytest.approx(0.99, abs=2 * histogram.width) and cut.lo == pytest.approx(
        -0.99, abs=2 * histogram.width
    )
    assert histogram_of([0.0] * 999, [5.0]).percentile(99.0).hi < 5.0
    assert histogram.percentile(100.0) == histogram.min_max() == Range(-1.0, 500.0)


def test_constant_tensors():
    assert histogram_of([0.0, 0.0]).least_error() == Range(0.0, 0.0)
    assert histogram_of([3.0] * 4).least_error().hi == pytest.approx(3.0)
    assert quant_params(0.0, 0.0).scale == 1.0
