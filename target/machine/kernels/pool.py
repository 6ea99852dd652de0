"""Pooling, reductions and resize."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine.kernels.rescale import Rescale, divide
from tvm_ergo.target.machine.kernels.windows import output_size, pad_nhwc
from tvm_ergo.target.numerics import rounding_shift


def pooled_size(shape, pool, strides, padding, dilation=(1, 1)) -> tuple[int, int]:
    """(OH, OW) of a pooling window on ``shape [N,H,W,C]``."""
    top, left, bottom, right = padding
    return (
        output_size(shape[1], pool[0], strides[0], top, bottom, dilation[0]),
        output_size(shape[2], pool[1], strides[1], left, right, dilation[1]),
    )


def max_pool2d(x, *, pool, strides, padding=(0, 0, 0, 0), dilation=(1, 1), out=None) -> np.ndarray:
    """``x i8[N,H,W,C] -> i8[N,OH,OW,C]``; padding never wins (a window wholly in the padding gives -128)."""
    out_hw = pooled_size(x.shape, pool, strides, padding, dilation)
    padded = pad_nhwc(x, padding, np.iinfo(x.dtype).min)
    if out is None:
        out = np.empty((x.shape[0], *out_hw, x.shape[3]), x.dtype)
    rows = _slide(np.maximum, padded, pool[0], out_hw[0], strides[0], dilation[0], 1, x.dtype)
    out[...] = _slide(np.maximum, rows, pool[1], out_hw[1], strides[1], dilation[1], 2, x.dtype)
    return out


def _slide(ufunc, x, taps, count, stride, dilation, axis, dtype) -> np.ndarray:
    """A sliding window along one axis, combined by ``ufunc``. Windows are separable: two of these take kh + kw passes,
    not kh * kw."""
    lead = (slice(None),) * axis
    parts = [x[(*lead, slice(i * dilation, i * dilation + (count - 1) * stride + 1, stride))] for i in range(taps)]
    if taps == 1:
        return parts[0].astype(dtype, copy=False)
    result = ufunc(parts[0], parts[1], dtype=dtype)
    for part in parts[2:]:
        ufunc(result, part, out=result)
    return result


def window_counts(shape, pool, strides, padding) -> np.ndarray:
    """int64 [OH, OW, 1]: how many of each window's elements lie inside the input (at least 1, so that it can
    divide)."""
    out_hw = pooled_size(shape, pool, strides, padding)
    spans = []
    for axis in (0, 1):
        begin = np.arange(out_hw[axis]) * strides[axis] - padding[axis]
        spans.append(np.maximum(np.minimum(begin + pool[axis], shape[1 + axis]) - np.maximum(begin, 0), 0))
    return np.maximum(np.multiply.outer(*spans), 1)[..., None]


def window_sum(x, pool, strides, padding, pad_value, dtype) -> np.ndarray:
    """``[N,OH,OW,C]`` sums of ``x`` over pooling windows, padded with pad_value."""
    out_hw = pooled_size(x.shape, pool, strides, padding)
    padded = pad_nhwc(x, padding, pad_value)
    if out_hw == (1, 1):  # global pooling
        return padded[:, : pool[0], : pool[1]].sum(axis=(1, 2), keepdims=True, dtype=dtype)
    rows = _slide(np.add, padded, pool[0], out_hw[0], strides[0], 1, 1, dtype)
    return _slide(np.add, rows, pool[1], out_hw[1], strides[1], 1, 2, dtype)


def avg_pool2d(
    x,
    *,
    pool,
    strides,
    padding=(0, 0, 0, 0),
    count_include_pad=False,
    in_zp=0,
    mult,
    shift,
    out_zp=0,
    lo=-128,
    hi=127,
    out=None,
) -> np.ndarray:
    """``x i8[N,H,W,C] -> i8[N,OH,OW,C]``: ``clip(out_zp + rounding_divide(sum(x - in_zp) * mult, count << shift))``, 0
    <= mult < 2**24.

    count: the window's elements inside the input, or kh*kw with count_include_pad.
    """
    area = pool[0] * pool[1]
    acc = window_sum(x, pool, strides, padding, in_zp, np.int32).astype(np.int64) - int(in_zp) * area
    count = np.int64(area) if count_include_pad else window_counts(x.shape, pool, strides, padding)
    # |acc * mult| < 2**32 * count: from shift 34 on every quotient is below 1/2 in magnitude and rounds to 0.
    quotient = divide(acc * int(mult), count << min(int(shift), 34))
    result = np.clip(quotient + out_zp, lo, hi).astype(np.int8)
    if out is None:
        return result
    out[...] = result
    return out


def reduce_sum(x, *, axes, keepdims=False, in_zp=0, mult, shift, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``numerics.requantize(sum(x - in_zp))`` over ``axes`` with scalar mult and shift; a mean has 1/count folded into
    mult."""
    axes = tuple(axes)
    count = int(np.prod([x.shape[a] for a in axes]))
    acc = np.asarray(x.sum(axis=axes, keepdims=keepdims, dtype=np.int32 if count < 1 << 23 else np.int64))
    result = np.empty(acc.shape, np.int8)
    Rescale(mult, shift, out_zp, lo, hi, acc_bound=128 * count, bias=-int(in_zp) * count, channels=1)(acc, result)
    if out is None:
        return result
    out[...] = result
    return out


def reduce_max(x, *, axes, keepdims=False, out=None) -> np.ndarray:
    """Maximum over ``axes``."""
    return np.max(x, axis=tuple(axes), keepdims=keepdims, out=out)


def reduce_min(x, *, axes, keepdims=False, out=None) -> np.ndarray:
    """Minimum over ``axes``."""
    return np.min(x, axis=tuple(axes), keepdims=keepdims, out=out)


def argmax(x, *, out_zp=0, out=None) -> np.ndarray:
    """``x [..., K] -> i32[...]``: the first largest element's number along the last axis."""
    found = np.asarray(x.argmax(axis=-1), np.int32)
    if out is None:
        return found
    out[...] = found.reshape(out.shape)
    return out


def resize2d(
    x, rows, cols, *, scaled=False, in_zp=0, mult=0, shift=0, out_zp=0, lo=-128, hi=127, out=None
) -> np.ndarray:
    """``x i8[N,H,W,C], rows i32[OH,3], cols i32[OW,3] -> i8[N,OH,OW,C]``; rows/cols = (low index, high index, weight of
    high, 0..2048).

    ``(sum of the four weighted neighbours + 2**21) >> 22``, in int32 (at most 2**29). All weights 0 is nearest
    neighbour: a gather. ``scaled``: ``clip(out_zp + floor(acc * mult / 2**(22 + shift) + 1/2))`` of the sum of the
    neighbours less in_zp. Errors: MachineError for an index or weight out of range (they come from memory)."""
    for taps, size in ((rows, x.shape[1]), (cols, x.shape[2])):
        if taps.min() < 0 or taps[:, :2].max() >= size or taps[:, 2].max() > 2048:
            raise MachineError(
                "a resize tap is out of range",
                required=f"indices 0..{size - 1}, weights 0..2048",
                available=f"indices up to {taps[:, :2].max()}, weights up to {taps[:, 2].max()}, least {taps.min()}",
            )
    if not scaled and not rows[:, 2].any() and not cols[:, 2].any():
        result = x[:, rows[:, 0]][:, :, cols[:, 0]]
    else:
        high = rows[:, 2].astype(np.int32)[:, None, None]
        lines = x[:, rows[:, 0]] * (2048 - high) + x[:, rows[:, 1]] * high
        high = cols[:, 2].astype(np.int32)[:, None]
        acc = lines[:, :, cols[:, 0]] * (2048 - high) + lines[:, :, cols[:, 1]] * high
        if scaled:
            total = rounding_shift((acc.astype(np.int64) - (int(in_zp) << 22)) * int(mult), 22 + int(shift))
            result = np.clip(total + out_zp, lo, hi).astype(np.int8)
        else:
            result = ((acc + (1 << 21)) >> 22).astype(np.int8)
    if out is None:
        return result
    out[...] = result
    return out
