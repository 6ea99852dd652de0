"""The fast convolution and matmul kernels against int64 loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target import numerics
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine import kernels
from tvm_ergo.target.machine.kernels.conv import PreparedConv, exact_chunks, patch_bands

SETTINGS = settings(max_examples=60, deadline=None)


def slow_conv(x, w, bias, mult, shift, strides, padding, dilation, groups, in_zp, w_zp, out_zp, lo, hi):
    """Direct convolution: every output element gathers its taps that lie inside the input."""
    (n, h, wd, _), (o, kh, kw, cg) = x.shape, w.shape
    top, left, bottom, right = padding
    oh = (h + top + bottom - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (wd + left + right - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    acc = np.zeros((n, oh, ow, o), np.int64) + np.asarray(bias, np.int64)
    xs, ws = x.astype(np.int64) - in_zp, w.astype(np.int64) - w_zp
    for y in range(oh):
        for z in range(ow):
            for i in range(kh):
                for j in range(kw):
                    p, q = y * strides[0] - top + i * dilation[0], z * strides[1] - left + j * dilation[1]
                    if 0 <= p < h and 0 <= q < wd:
                        for g in range(groups):
                            part = slice(g * (o // groups), (g + 1) * (o // groups))
                            acc[:, y, z, part] += np.einsum(
                                "nc,oc->no", xs[:, p, q, g * cg : (g + 1) * cg], ws[part, i, j]
                            )
    return numerics.requantize(acc, mult, shift, out_zp, lo, hi)


def slow_transpose(x, w, bias, mult, shift, strides, padding, output_padding, dilation, in_zp, w_zp, out_zp, lo, hi):
    """Scatter form, exactly as the contract states it."""
    (n, h, wd, _), (o, kh, kw, _) = x.shape, w.shape
    top, left, bottom, right = padding
    oh = (h - 1) * strides[0] - top - bottom + (kh - 1) * dilation[0] + 1 + output_padding[0]
    ow = (wd - 1) * strides[1] - left - right + (kw - 1) * dilation[1] + 1 + output_padding[1]
    acc = np.zeros((n, oh, ow, o), np.int64) + np.asarray(bias, np.int64)
    for ih in range(h):
        for iw in range(wd):
            for i in range(kh):
                for j in range(kw):
                    p, q = ih * strides[0] - top + i * dilation[0], iw * strides[1] - left + j * dilation[1]
                    if 0 <= p < oh and 0 <= q < ow:
                        acc[:, p, q] += (x[:, ih, iw].astype(np.int64) - in_zp) @ (w[:, i, j].astype(np.int64) - w_zp).T
    return numerics.requantize(acc, mult, shift, out_zp, lo, hi)


def random_int8(rng, shape, kind):
    """kind: uniform values, or only the extremes, or one extreme everywhere."""
    if kind == "uniform":
        return rng.integers(-128, 128, shape).astype(np.int8)
    if kind == "extremes":
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return np.full(shape, {"low": -128, "high": 127}[kind], np.int8)


def quantization(rng, channels, depth):
    """Multipliers, shifts and biases that bring sums of ``depth`` products into int8 range, a dead and a huge channel
    among them."""
    shift = rng.integers(28, 38, channels).astype(np.int8) + np.int8(np.log2(depth) / 2)
    mult = rng.integers(1 << 23, 1 << 24, channels).astype(np.int32)
    if channels > 2:
        mult[0], shift[0] = 0, 0
        shift[1] = rng.integers(40, 63)
    return rng.integers(-50000, 50000, channels).astype(np.int32), mult, shift


kinds = st.sampled_from(["uniform", "extremes", "low", "high"])
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def conv_cases(draw, transpose=False):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = 1 if transpose else draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel, dilation, strides = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    size = [draw(st.integers(max(1, r if not transpose else 3), r + 6)) for r in reach]
    cg, per_group = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    x = random_int8(rng, (draw(st.integers(1, 2)), *size, cg * groups), draw(kinds))
    w = random_int8(rng, (per_group * groups, *kernel, cg), draw(kinds))
    bias, mult, shift = quantization(rng, per_group * groups, kernel[0] * kernel[1] * cg)
    lo = draw(st.sampled_from([-128, -5]))
    fields = dict(
        strides=strides,
        padding=padding,
        dilation=dilation,
        in_zp=draw(st.integers(-128, 127)),
        w_zp=draw(st.sampled_from([0, -128, 17])),
        out_zp=draw(st.integers(-128, 127)),
        lo=lo,
        hi=draw(st.sampled_from([127, 40])),
    )
    return (x, w, bias, mult, shift), fields, groups


@SETTINGS
@given(conv_cases(), st.booleans())
def test_conv2d(case, strided_out):
    args, fields, groups = case
    expected = slow_conv(*args, groups=groups, **fields)
    out = np.zeros((*expected.shape[:3], expected.shape[3] + 3), np.int8)[..., 1:-2] if strided_out else None
    got = kernels.conv2d(*args, groups=groups, out=out, **fields)
    np.testing.assert_array_equal(got, expected)
    assert out is None or got is out


@SETTINGS
@given(conv_cases(), st.booleans())
def test_depthwise_conv2d(case, as_conv):
    (x, w, *_), fields, _ = case
    rng = np.random.default_rng(len(w))
    c, multiplier = x.shape[3], 2 if as_conv else 1
    w = random_int8(rng, (*w.shape[1:3], c * multiplier), "uniform")
    bias, mult, shift = quantization(rng, c * multiplier, w.shape[0] * w.shape[1])
    ohwi = np.ascontiguousarray(w.transpose(2, 0, 1))[..., None]
    expected = slow_conv(x, ohwi, bias, mult, shift, groups=c, **fields)
    if as_conv:
        got = kernels.conv2d(x, ohwi, bias, mult, shift, groups=c, **fields)
    else:
        got = kernels.depthwise_conv2d(x, w, bias, mult, shift, **fields)
    np.testing.assert_array_equal(got, expected)


@SETTINGS
@given(conv_cases(transpose=True), st.tuples(st.integers(0, 1), st.integers(0, 1)))
def test_conv2d_transpose(case, output_padding):
    args, fields, _ = case
    (_, h, wd, _), (_, kh, kw, _) = args[0].shape, args[1].shape
    (sh, sw), (dh, dw), (t, l, b, r) = fields["strides"], fields["dilation"], fields["padding"]
    if min((h - 1) * sh - t - b + (kh - 1) * dh + 1, (wd - 1) * sw - l - r + (kw - 1) * dw + 1) < 1:
        return
    expected = slow_transpose(*args, output_padding=output_padding, **fields)
    np.testing.assert_array_equal(kernels.conv2d_transpose(*args, output_padding=output_padding, **fields), expected)


@pytest.mark.parametrize("kernel, channels", [((1, 1), 9000), ((3, 3), 1000)])
@pytest.mark.parametrize("kind", ["uniform", "extremes", "high"])
def test_conv2d_long_reduction_runs_in_chunks(kernel, channels, kind):
    rng = np.random.default_rng(1)
    x, w = random_int8(rng, (1, 4, 5, channels), kind), random_int8(rng, (6, *kernel, channels), kind)
    bias, mult, shift = quantization(rng, 6, w[0].size)
    assert len(exact_chunks(w.reshape(6, -1).T.astype(np.int64))) > 1
    fields = dict(strides=(1, 1), padding=(0, 0, 1, 1), dilation=(1, 1), in_zp=-128, w_zp=0, out_zp=3, lo=-128, hi=127)
    np.testing.assert_array_equal(
        kernels.conv2d(x, w, bias, mult, shift, groups=1, **fields),
        slow_conv(x, w, bias, mult, shift, groups=1, **fields),
    )


def test_depthwise_with_more_taps_than_float32_holds():
    rng = np.random.default_rng(2)
    x, w = np.full((1, 40, 40, 2), -128, np.int8), np.full((40, 40, 2), -128, np.int8)
    bias, mult, shift = quantization(rng, 2, 1600)
    fields = dict(strides=(1, 1), padding=(1, 0, 1, 0), dilation=(1, 1), in_zp=127, w_zp=127, out_zp=0, lo=-128, hi=127)
    expected = slow_conv(x, w.transpose(2, 0, 1)[..., None], bias, mult, shift, groups=2, **fields)
    np.testing.assert_array_equal(kernels.depthwise_conv2d(x, w, bias, mult, shift, **fields), expected)


@SETTINGS
@given(st.integers(0, 2**32), st.lists(st.integers(1, 4000), min_size=1, max_size=3))
def test_exact_chunks_hold_their_bound(seed, depths):
    rng = np.random.default_rng(seed)
    w = rng.integers(-255, 256, (sum(depths), 3))
    chunks = exact_chunks(w)
    assert [b for b, _ in chunks] == [0] + [e for _, e in chunks[:-1]] and chunks[-1][1] == len(w)
    assert all((np.abs(w[b:e]).sum(axis=0) * 128 <= 1 << 24).all() for b, e in chunks)


@SETTINGS
@given(st.tuples(*[st.integers(1, 40)] * 3), st.sampled_from([1, 27, 900, 60000]), st.integers(1, 8))
def test_patch_bands_cover_every_output_row_once_in_consecutive_pieces(nhw, depth, parts):
    n, oh, ow = nhw
    order = np.arange(n * oh).reshape(n, oh)
    pieces = [order[band].reshape(-1) for band in patch_bands((n, oh, ow, 1, 1, depth), parts)]
    assert all((np.diff(piece) == 1).all() for piece in pieces)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(n * oh))
    assert len(pieces) >= min(parts, max(n, oh)) // 2


def test_prepared_conv_is_reusable_and_large_bands_agree():
    rng = np.random.default_rng(3)
    w = random_int8(rng, (5, 3, 3, 40), "uniform")
    fields = dict(
        strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, in_zp=7, w_zp=0, out_zp=-3, lo=-128, hi=127
    )
    bias, mult, shift = quantization(rng, 5, 360)
    prepared = PreparedConv(w, bias, mult, shift, **fields)
    for side in (70, 9):  # 70 x 70 x 360 patches need several bands
        x = random_int8(rng, (1, side, side, 40), "uniform")
        np.testing.assert_array_equal(prepared(x), slow_conv(x, w, bias, mult, shift, **fields))


def test_int32_output_is_the_raw_accumulator():
    rng = np.random.default_rng(4)
    x, bias = random_int8(rng, (1, 5, 6, 4), "uniform"), rng.integers(-(2**30), 2**30, 4)
    zeros, fields = np.zeros(4, np.int64), dict(in_zp=-7, w_zp=3)
    w, per_channel = random_int8(rng, (4, 3, 3, 4), "uniform"), random_int8(rng, (3, 3, 4), "uniform")
    direct = (
        sum(
            (x[:, i : i + 3, j : j + 4].astype(np.int64) + 7) @ (w[:, i, j].astype(np.int64) - 3).T
            for i in range(3)
            for j in range(3)
        )
        + bias
    )
    out = np.empty((1, 3, 4, 8), np.int32)[..., ::2]
    np.testing.assert_array_equal(kernels.conv2d(x, w, bias, zeros, zeros, out=out, **fields), direct)
    direct = (
        sum(
            (x[:, i : i + 3, j : j + 4].astype(np.int64) + 7) * (per_channel[i, j].astype(np.int64) - 3)
            for i in range(3)
            for j in range(3)
        )
        + bias
    )
    np.testing.assert_array_equal(
        kernels.depthwise_conv2d(x, per_channel, bias, zeros, zeros, out=out, **fields), direct
    )
    a, b = random_int8(rng, (5, 900), "high"), random_int8(rng, (900, 3), "low")
    got = kernels.matmul(a, b, a_zp=-128, b_zp=127, out=np.empty((5, 3), np.int32))
    np.testing.assert_array_equal(got, np.full((5, 3), 900 * 255 * -255))


def test_window_larger_than_input_is_refused():
    x, w = np.zeros((1, 2, 2, 1), np.int8), np.zeros((1, 3, 3, 1), np.int8)
    with pytest.raises(MachineError, match="window is larger"):
        kernels.conv2d(x, w, [0], [1], [0])


@SETTINGS
@given(
    st.integers(0, 2**32),
    kinds,
    kinds,
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 7, 258, 1500]),
    st.integers(-128, 127),
    st.integers(-128, 127),
)
def test_matmul(seed, kind_a, kind_b, transpose_b, broadcast, depth, a_zp, b_zp):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 6, 2)
    a, b = random_int8(rng, (2, 3, m, depth), kind_a), random_int8(rng, (1 if broadcast else 2, 3, depth, n), kind_b)
    given_b = np.ascontiguousarray(np.swapaxes(b, -1, -2)) if transpose_b else b
    mult, shift, out_zp = int(rng.integers(1 << 23, 1 << 24)), int(rng.integers(20, 45)), int(rng.integers(-128, 128))
    acc = np.matmul(a.astype(np.int64) - a_zp, b.astype(np.int64) - b_zp)
    expected = numerics.requantize(acc, mult, shift, out_zp, -100, 127)
    got = kernels.matmul(
        a,
        given_b,
        transpose_b=transpose_b,
        a_zp=a_zp,
        b_zp=b_zp,
        mult=mult,
        shift=shift,
        out_zp=out_zp,
        lo=-100,
        hi=127,
    )
    np.testing.assert_array_equal(got, expected)
