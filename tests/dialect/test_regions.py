"""``input_regions`` by brute force: nothing outside the region may influence the output region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvm_ergo.relay_passes.dialect import regions, testing

from . import oracle

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def random_region(data, shape):
    begins = [data.draw(st.integers(0, dim - 1)) for dim in shape]
    return tuple((b, data.draw(st.integers(b + 1, dim))) for b, dim in zip(begins, shape, strict=True))


def index(region):
    return tuple(slice(begin, end) for begin, end in region)


def scrambled(rng, array, region, constant):
    """A copy with everything outside ``region`` replaced: activations by noise, constants by other legal values of
    their own."""
    other = (
        rng.permutation(array.reshape(-1, array.shape[-1])).reshape(array.shape)
        if constant and array.ndim > 1
        else rng.permutation(array)
        if constant
        else testing.random_array(rng, array.shape, str(array.dtype))
    )
    other = np.array(other)
    other[index(region)] = array[index(region)]
    return other


@pytest.mark.parametrize("name", testing.any_op_names())
@SETTINGS
@given(data=st.data())
def test_outside_the_region_nothing_matters(name, data):
    case = testing.random_call(name, data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    arguments = case.arguments(case.activations(rng))
    expected = oracle.run(case.op, arguments)
    out_region = random_region(data, expected.shape)
    known = [case.constants.get(i) for i in range(len(arguments))]
    for values in (None, known):
        boxes = case.op.input_regions(out_region, case.shapes, values)
        assert len(boxes) == len(arguments)
        for box, shape in zip(boxes, case.shapes, strict=True):
            assert len(box) == len(shape) and all(0 <= b <= e <= dim for (b, e), dim in zip(box, shape, strict=True)), (
                box,
                shape,
            )
        for _ in range(3):
            noisy = [
                scrambled(rng, a, box, i in case.constants)
                for i, (a, box) in enumerate(zip(arguments, boxes, strict=True))
            ]
            np.testing.assert_array_equal(
                oracle.run(case.op, noisy)[index(out_region)], expected[index(out_region)], err_msg=str(case.op)
            )


@SETTINGS
@given(data=st.data())
def test_window_is_the_least_interval(data):
    """``window`` and ``transposed_window`` give exactly the hull of the rows that some tap of some output row reads."""
    dim, kernel = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    stride, dilation, before = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    begin = data.draw(st.integers(0, 8))
    interval = (begin, data.draw(st.integers(begin + 1, begin + 5)))
    positions = [o * stride - before + i * dilation for o in range(*interval) for i in range(kernel)]
    got = regions.window(interval, dim, kernel, stride, before, dilation)
    low, high = max(min(positions), 0), min(max(positions) + 1, dim)
    assert got == (low, high) if low < high else got[0] == got[1]
    touched = [
        r for r in range(dim) for i in range(kernel) if interval[0] <= r * stride - before + i * dilation < interval[1]
    ]
    begin, end = regions.transposed_window(interval, dim, kernel, stride, before, dilation)
    assert all(begin <= r < end for r in touched)
    if dilation == 1 and touched:
        assert (begin, end) == (min(touched), max(touched) + 1)


@SETTINGS
@given(data=st.data())
def test_reshape_box_is_the_hull(data):
    """The box holds every element of the flat interval, and is the interval's hull when that stays within one row."""
    shape = tuple(data.draw(st.integers(1, 5)) for _ in range(data.draw(st.integers(1, 4))))
    size = int(np.prod(shape))
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first + 1, size))
    coordinates = np.array([np.unravel_index(i, shape) for i in range(first, last)])
    box = regions.box_of_flat((first, last), shape)
    assert box == tuple(
        (int(lo), int(hi) + 1) for lo, hi in zip(coordinates.min(axis=0), coordinates.max(axis=0), strict=True)
    ) or all(
        b <= lo and hi < e for (b, e), lo, hi in zip(box, coordinates.min(axis=0), coordinates.max(axis=0), strict=True)
    )


def test_resize_rows_sharpen_the_region():
    case = testing.random_call("resize2d", np.random.default_rng(3), input_shape=(1, 6, 6, 2))
    rows, cols = case.constants[1], case.constants[2]
    region = tuple((0, dim) for dim in case.infer()[0])
    first_row = (region[0], (0, 1), *region[2:])
    assert case.op.input_regions(first_row, case.shapes)[0][1] == (0, 6)
    sharp = case.op.input_regions(first_row, case.shapes, [None, rows, cols])[0][1]
    assert sharp == (int(rows[0, :2].min()), int(rows[0, :2].max()) + 1)
