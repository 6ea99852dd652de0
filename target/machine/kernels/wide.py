"""16-bit elements: sums and changes of width; convolutions and products with an int16 result."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.conv import conv2d
from tvm_ergo.target.machine.kernels.matmul import matmul
from tvm_ergo.target.numerics import rounding_shift

INT16 = np.iinfo(np.int16)


def finish(value: np.ndarray, out: np.ndarray, out_zp: int, lo: int, hi: int) -> np.ndarray:
    """Integers into ``out``: int16 clipped to its range, int8 ``clip(value + out_zp, lo, hi)``."""
    if out.dtype == np.int16:
        np.copyto(out, np.clip(value, INT16.min, INT16.max), casting="unsafe")
    else:
        np.copyto(out, np.clip(value + out_zp, lo, hi), casting="unsafe")
    return out


def result(out: np.ndarray | None, shape, wide: bool) -> np.ndarray:
    """``out``, or a new array: int16 where ``wide``, else int8."""
    return np.empty(shape, np.int16 if wide else np.int8) if out is None else out


def add_wide(a, b, *, a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0, out_zp=0, out=None) -> np.ndarray:
    """``a, b i8 or i16 -> i16``, broadcasting: ``sat16(floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift +
    1/2))``."""
    out = result(out, np.broadcast_shapes(a.shape, b.shape) if out is None else out.shape, True)
    total = (a.astype(np.int64) - a_zp) * a_mult + (b.astype(np.int64) - b_zp) * b_mult
    return finish(rounding_shift(total, shift), out, 0, 0, 0)


def rescale(x, *, wide=False, in_zp=0, mult=1, shift=0, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``x i8 or i16 -> i8 or i16``: ``clip(out_zp + floor((x - in_zp) * mult / 2**shift + 1/2))``."""
    out = result(out, x.shape, wide)
    return finish(rounding_shift((x.astype(np.int64) - in_zp) * mult, shift), out, out_zp, lo, hi)


def conv2d_wide(
    x, w, bias, mult, shift, *, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, **fields
) -> np.ndarray:
    """``conv2d`` with an int16 result, clipped to its range."""
    sides = [
        (x.shape[1 + a] + padding[a] + padding[a + 2] - (w.shape[1 + a] - 1) * dilation[a] - 1) // strides[a] + 1
        for a in (0, 1)
    ]
    out = np.empty((x.shape[0], *sides, w.shape[0]), np.int16)
    return conv2d(
        x, w, bias, mult, shift, strides=strides, padding=padding, dilation=dilation, groups=groups, out=out, **fields
    )


def matmul_wide(a, b, *, transpose_b=False, **fields) -> np.ndarray:
    """``matmul`` with an int16 result, clipped to its range."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, a.shape[-2], b.shape[-2 if transpose_b else -1]), np.int16)
    return matmul(a, b, transpose_b=transpose_b, out=out, **fields)
