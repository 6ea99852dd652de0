"""Elementwise, pooling, reduction, softmax and resize kernels, and the rescale, against obvious int64 code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target import numerics
from tvm_ergo.target.machine import kernels
from tvm_ergo.target.machine.kernels.rescale import Rescale, divide

SETTINGS = settings(max_examples=80, deadline=None)
seeds, zero_points = st.integers(0, 2**32), st.integers(-128, 127)


def int8(rng, shape):
    x = rng.integers(-128, 128, shape).astype(np.int8)
    return rng.choice(np.array([-128, 127], np.int8), shape) if rng.random() < 0.3 else x


@SETTINGS
@given(
    seeds,
    st.integers(1, 40),
    st.integers(0, 62),
    zero_points,
    st.sampled_from([2**10, 2**24, 2**29, 2**31 - 1]),
    st.sampled_from([np.float32, np.float64, np.int32]),
    st.booleans(),
)
def test_rescale_is_requantize(seed, channels, max_shift, zp, bound, dtype, per_channel):
    rng = np.random.default_rng(seed)
    bound = min(bound, 2**24) if dtype == np.float32 else bound
    count = channels if per_channel else 1
    mult, shift = rng.integers(0, 1 << 24, count), rng.integers(0, max_shift + 1, count)
    bias = rng.integers(-(2**31), 2**31, count) // (2 if bound > 2**29 else 2**8)
    rows = int(rng.integers(1, 60)) if seed % 5 else 70_000 // channels
    acc = rng.integers(-bound, bound + 1, (rows, channels))
    tie = rng.random(acc.shape) < 0.3  # accumulators next to a rounding tie
    acc = np.where(
        tie,
        np.clip(
            ((rng.integers(-300, 300, acc.shape) << np.minimum(shift, 40)) + (1 << np.minimum(shift, 40)) // 2)
            // np.maximum(mult, 1)
            - bias,
            -bound,
            bound,
        ),
        acc,
    )
    got = np.empty(acc.shape, np.int8)
    Rescale(mult, shift, zp, -128, 100, acc_bound=bound, bias=bias, channels=count)(acc.astype(dtype), got)
    np.testing.assert_array_equal(got, numerics.requantize(acc + bias, mult, shift, zp, -128, 100))


def test_rescale_rounds_ties_up():
    acc, got = np.arange(-9, 10), np.empty(19, np.int8)
    Rescale(1 << 23, 24, 0, -128, 127, acc_bound=9)(acc, got)
    np.testing.assert_array_equal(got, np.floor(acc / 2 + 0.5))


@SETTINGS
@given(
    st.lists(st.integers(-(2**53), 2**53) | st.integers(-99, 99), min_size=1),
    st.integers(1, 2**52) | st.integers(1, 9),
    st.booleans(),
)
def test_divide_rounds_half_up(numerators, denominator, next_to_ties):
    if next_to_ties:  # (k + 1/2) * denominator, and its neighbours
        numerators = [(2 * (n % 256) + 1) * denominator // 2 + d for n in numerators for d in (-1, 0, 1)]
    got = divide(np.array(numerators, np.int64), np.int64(denominator))
    assert got.tolist() == [(2 * n + denominator) // (2 * denominator) for n in numerators]


SHAPES = st.sampled_from(
    [
        ((3, 4, 5), (3, 4, 5)),
        ((2, 1, 5), (2, 4, 1)),
        ((5,), (2, 3, 5)),
        ((1, 70, 70, 9), (1, 70, 70, 9)),
        ((2, 3), ()),
        ((1, 50, 900), (1, 1, 900)),
    ]
)


@SETTINGS
@given(seeds, SHAPES, zero_points, zero_points, zero_points, st.integers(0, 62), st.booleans())
def test_add(seed, shapes, a_zp, b_zp, out_zp, shift, strided):
    rng = np.random.default_rng(seed)
    a, b = int8(rng, shapes[0]), int8(rng, shapes[1])
    limit = 1 << min(21, shift + 2)
    a_mult, b_mult = (int(v) for v in rng.integers(-limit + 1, limit, 2))
    acc = (a.astype(np.int64) - a_zp) * a_mult + (b.astype(np.int64) - b_zp) * b_mult
    expected = np.clip(out_zp + numerics.rounding_shift(acc, shift), -128, 90)
    out = np.zeros((*expected.shape, 2), np.int8)[..., 1] if strided else None
    got = kernels.add(
        a, b, a_zp=a_zp, b_zp=b_zp, a_mult=a_mult, b_mult=b_mult, shift=shift, out_zp=out_zp, lo=-128, hi=90, out=out
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("a, b, sign", [(-128, -128, 1), (127, -128, -1), (-128, 127, -1)])
def test_add_at_the_limits_of_its_multipliers(a, b, sign):
    limit, a_zp, b_zp = (1 << 21) - 1, 127 if a < 0 else -128, 127 if b < 0 else -128
    for shift in (0, 22, 30, 31, 40):
        got = kernels.add(
            np.int8([a]), np.int8([b]), a_zp=a_zp, b_zp=b_zp, a_mult=limit, b_mult=sign * limit, shift=shift
        )
        acc = (a - a_zp) * limit + (b - b_zp) * sign * limit
        assert got[0] == np.clip(numerics.rounding_shift(np.int64(acc), shift), -128, 127)


@SETTINGS
@given(seeds, SHAPES, zero_points, zero_points, zero_points, st.integers(14, 45), st.booleans())
def test_mul(seed, shapes, a_zp, b_zp, out_zp, shift, strided):
    rng = np.random.default_rng(seed)
    a, b, mult = int8(rng, shapes[0]), int8(rng, shapes[1]), int(rng.integers(1 << 23, 1 << 24))
    expected = numerics.requantize(
        (a.astype(np.int64) - a_zp) * (b.astype(np.int64) - b_zp), mult, shift, out_zp, -128, 127
    )
    out = np.zeros((*expected.shape, 2), np.int8)[..., 1] if strided else None
    got = kernels.mul(a, b, a_zp=a_zp, b_zp=b_zp, mult=mult, shift=shift, out_zp=out_zp, out=out)
    np.testing.assert_array_equal(got, expected)


def test_in_place_elementwise():
    rng = np.random.default_rng(0)
    a, b = int8(rng, (1, 60, 60, 24)), int8(rng, (1, 60, 60, 24))
    lut = rng.permutation(256).astype(np.uint8).view(np.int8)
    options = dict(a_mult=700, b_mult=-300, shift=10)
    for function in (
        lambda x, out: kernels.add(x, b, out=out, **options),
        lambda x, out: kernels.mul(x, b, mult=1 << 23, shift=30, out=out),
        lambda x, out: kernels.table(x, lut, out=out),
        lambda x, out: kernels.maximum(x, b, out=out),
    ):
        expected, buffer = function(a, None), a.copy()
        function(buffer, buffer)
        np.testing.assert_array_equal(buffer, expected)


@SETTINGS
@given(seeds, st.sampled_from([np.int8, np.uint8]), st.sampled_from([np.int8, np.uint8]), st.booleans(), st.booleans())
def test_table(seed, in_type, out_type, per_channel, strided):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, 9, 7)).astype(np.uint8).view(in_type)
    lut = rng.integers(0, 256, (7, 256) if per_channel else 256).astype(np.uint8).view(out_type)
    expected = np.empty(x.shape, out_type)
    for at in np.ndindex(x.shape):
        index = int(x[at]) + (128 if in_type == np.int8 else 0)
        expected[at] = lut[at[-1], index] if per_channel else lut[index]
    out = np.zeros((2, 9, 14), out_type)[..., ::2] if strided else None
    np.testing.assert_array_equal(kernels.table(x[:, ::1], lut, out=out), expected)


def test_maximum_minimum():
    a, b = np.int8([[1, -128], [5, 127]]), np.int8([[-3, 127]])
    np.testing.assert_array_equal(kernels.maximum(a, b), [[1, 127], [5, 127]])
    np.testing.assert_array_equal(kernels.minimum(a, b), [[-3, -128], [-3, 127]])


@st.composite
def pools(draw):
    pool = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, pool[i % 2] - 1)) for i in range(4))
    x = int8(np.random.default_rng(draw(seeds)), (2, draw(st.integers(4, 9)), draw(st.integers(4, 9)), 3))
    return x, pool, strides, padding


def slow_windows(x, pool, strides, padding, dilation=(1, 1)):
    """Yields (output position, list of [N, C] elements inside the input)."""
    _, h, w, _ = x.shape
    top, left, bottom, right = padding
    oh = (h + top + bottom - (pool[0] - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (w + left + right - (pool[1] - 1) * dilation[1] - 1) // strides[1] + 1
    for y in range(oh):
        for z in range(ow):
            at = [
                (y * strides[0] - top + i * dilation[0], z * strides[1] - left + j * dilation[1])
                for i in range(pool[0])
                for j in range(pool[1])
            ]
            yield y, z, [x[:, p, q].astype(np.int64) for p, q in at if 0 <= p < h and 0 <= q < w]


@SETTINGS
@given(pools(), st.sampled_from([(1, 1), (2, 1)]))
def test_max_pool2d(case, dilation):
    x, pool, strides, padding = case
    if (pool[0] - 1) * dilation[0] + 1 > x.shape[1]:
        return
    got = kernels.max_pool2d(x, pool=pool, strides=strides, padding=padding, dilation=dilation)
    for y, z, inside in slow_windows(x, pool, strides, padding, dilation):
        np.testing.assert_array_equal(got[:, y, z], np.max(inside, axis=0) if inside else np.full((2, 3), -128))


@SETTINGS
@given(pools(), st.booleans(), zero_points, zero_points, st.integers(20, 62))
def test_avg_pool2d(case, include_pad, in_zp, out_zp, shift):
    x, pool, strides, padding = case
    mult = (1 << 23) + 12345
    got = kernels.avg_pool2d(
        x,
        pool=pool,
        strides=strides,
        padding=padding,
        count_include_pad=include_pad,
        in_zp=in_zp,
        mult=mult,
        shift=shift,
        out_zp=out_zp,
        lo=-128,
        hi=120,
    )
    for y, z, inside in slow_windows(x, pool, strides, padding):
        total = sum((e - in_zp for e in inside), np.zeros((2, 3), np.int64))
        count = pool[0] * pool[1] if include_pad else max(1, len(inside))
        exact = [
            [(2 * int(v) * mult + (count << shift)) // (2 * (count << shift)) for v in row] for row in total
        ]  # Python integers
        np.testing.assert_array_equal(got[:, y, z], np.clip(np.array(exact) + out_zp, -128, 120))


@SETTINGS
@given(seeds, st.sampled_from([(1,), (1, 2), (0, 3), (-1,), (0, 1, 2, 3)]), st.booleans(), zero_points, zero_points)
def test_reductions(seed, axes, keepdims, in_zp, out_zp):
    x = int8(np.random.default_rng(seed), (2, 5, 6, 4))
    acc = (x.astype(np.int64) - in_zp).sum(axis=axes, keepdims=keepdims)
    got = kernels.reduce_sum(x, axes=axes, keepdims=keepdims, in_zp=in_zp, mult=9_000_001, shift=26, out_zp=out_zp)
    np.testing.assert_array_equal(got, numerics.requantize(acc, 9_000_001, 26, out_zp, -128, 127))
    assert got.shape == acc.shape
    np.testing.assert_array_equal(
        kernels.reduce_max(x, axes=axes, keepdims=keepdims), x.max(axis=axes, keepdims=keepdims)
    )
    np.testing.assert_array_equal(
        kernels.reduce_min(x, axes=axes, keepdims=keepdims), x.min(axis=axes, keepdims=keepdims)
    )


@SETTINGS
@given(seeds, st.integers(1, 60), st.integers(0, 62), st.sampled_from([0.02, 0.3]))
def test_softmax(seed, length, shift, scale):
    rng = np.random.default_rng(seed)
    x, mult = int8(rng, (3, length)), int(rng.integers(0, 1 << 24))
    lut = np.floor(((1 << 23) - 1) * np.exp(-scale * np.arange(256))).astype(np.int32)
    got = kernels.softmax(x, lut, mult=mult, shift=shift, out_zp=-128)
    for row, result in zip(x.tolist(), got.tolist()):
        e = [int(lut[max(row) - v]) for v in row]
        expected = [min(127, -128 + (2 * v * mult + (sum(e) << shift)) // (2 * (sum(e) << shift))) for v in e]
        assert result == expected


@SETTINGS
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_resize2d(seed, oh, ow, nearest):
    rng = np.random.default_rng(seed)
    x = int8(rng, (1, 4, 5, 3))

    def coordinates(size, count):
        low = rng.integers(0, size, count)
        return np.stack(
            [low, np.minimum(low + 1, size - 1), np.zeros(count) if nearest else rng.integers(0, 2049, count)], 1
        ).astype(np.int32)

    rows, cols = coordinates(4, oh), coordinates(5, ow)
    got = kernels.resize2d(x, rows, cols)
    for y, (r0, r1, wr) in enumerate(rows.tolist()):
        for z, (c0, c1, wc) in enumerate(cols.tolist()):
            corner = [x[0, r, c].astype(np.int64) for r in (r0, r1) for c in (c0, c1)]
            weight = [(2048 - wr) * (2048 - wc), (2048 - wr) * wc, wr * (2048 - wc), wr * wc]
            np.testing.assert_array_equal(got[0, y, z], (sum(a * b for a, b in zip(corner, weight)) + (1 << 21)) >> 22)
