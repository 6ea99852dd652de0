"""Elementwise instructions: add, mul, maximum, minimum, table. NumPy broadcasting; ``out`` may be an input itself."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.matmul import magnitude
from tvm_ergo.target.machine.kernels.rescale import Rescale, divide
from tvm_ergo.target.machine.kernels.workers import run_all
from tvm_ergo.target.machine.kernels.workspace import bands, flat, scratch

SPLIT_ELEMENTS = 1 << 17  # smaller results are not worth distributing over threads


def _operands(a, b, out, dtype=np.int8):
    """Both inputs broadcast to the result's shape, the result, and the three cut-ready (1-D when contiguous)."""
    shape = np.broadcast_shapes(a.shape, b.shape) if out is None else out.shape
    if out is None:
        out = np.empty(shape, dtype)
    return out, flat(np.broadcast_to(a, shape), np.broadcast_to(b, shape), out)


def add(a, b, *, a_zp=0, b_zp=0, a_mult=1, b_mult=1, shift=0, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``a, b i8 -> i8``: ``clip(out_zp + floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift + 1/2), lo, hi)``,
    scalars throughout.

    int32 arithmetic when it cannot overflow (|mult| < 2**21 and shift <= 30 always qualify), else int64.
    """
    out, (x, y, z) = _operands(a, b, out)
    a_mult, b_mult, shift = int(a_mult), int(b_mult), int(shift)
    half = (1 << shift) >> 1
    constant = half - int(a_zp) * a_mult - int(b_zp) * b_mult
    largest = magnitude(a_zp) * abs(a_mult) + magnitude(b_zp) * abs(b_mult) + half
    partial = 128 * (abs(a_mult) + abs(b_mult)) + abs(constant)
    integer = np.int32 if max(largest, partial) + 256 < 1 << 31 and shift < 31 else np.int64

    def run(part) -> None:
        p, q, r = x[part], y[part], z[part]
        acc, other = scratch("add_a", r.shape, integer), scratch("add_b", r.shape, integer)
        np.multiply(p, integer(a_mult), out=acc, dtype=integer)
        np.multiply(q, integer(b_mult), out=other, dtype=integer)
        acc += other
        acc += integer(constant)
        acc >>= integer(shift)
        if out_zp:
            acc += integer(out_zp)
        np.clip(acc, lo, hi, out=acc)
        np.copyto(r, acc, casting="unsafe")

    run_all(run, bands(z.shape), z.size >= SPLIT_ELEMENTS)
    return out


def mul(a, b, *, a_zp=0, b_zp=0, mult=1, shift=0, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``a, b i8 -> i8``: ``numerics.requantize((a - a_zp) * (b - b_zp))`` with scalar mult and shift."""
    out, (x, y, z) = _operands(a, b, out)
    rescale = Rescale(mult, shift, out_zp, lo, hi, acc_bound=magnitude(a_zp) * magnitude(b_zp), channels=1)

    def run(part) -> None:
        p, q, r = x[part], y[part], z[part]
        acc, other, result = (
            scratch(name, r.shape, t) for name, t in (("mul_a", np.float32), ("mul_b", np.float32), ("mul_c", np.int8))
        )
        np.subtract(p, np.float32(a_zp), out=acc, dtype=np.float32)
        np.subtract(q, np.float32(b_zp), out=other, dtype=np.float32)
        acc *= other
        rescale(acc, result)
        r[...] = result

    run_all(run, bands(z.shape), z.size >= SPLIT_ELEMENTS)
    return out


def maximum(a, b, *, out=None) -> np.ndarray:
    """Elementwise maximum of two tensors of one quantization, broadcasting."""
    return np.maximum(a, b, out=out)


def minimum(a, b, *, out=None) -> np.ndarray:
    """Elementwise minimum of two tensors of one quantization, broadcasting."""
    return np.minimum(a, b, out=out)


def table(x, lut, *, out=None) -> np.ndarray:
    """``lut[x + 128]`` (i8) or ``lut[x]`` (u8) for ``lut[256]``; for ``lut[C,256]`` the row is the last axis' index.
    Result: lut's dtype."""
    if out is None:
        out = np.empty(x.shape, lut.dtype)
    by_byte = np.ascontiguousarray(np.roll(lut, 128, axis=-1) if x.dtype == np.int8 else lut)
    if lut.ndim == 1:
        x, z = flat(x, out)

        def run(part) -> None:
            p, r = x[part], z[part]
            if r.flags.c_contiguous:
                np.take(by_byte, p.view(np.uint8), out=r, mode="clip")
            else:
                r[...] = np.take(by_byte, p.view(np.uint8))

        run_all(run, bands(z.shape), z.size >= SPLIT_ELEMENTS)
        return out
    channel = np.arange(lut.shape[0], dtype=np.intp) * 256
    for part in bands(out.shape):
        out[part] = np.take(by_byte.reshape(-1), x[part].view(np.uint8) + channel)
    return out


def softmax(x, lut, *, mult, shift, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``x i8[...,K], lut i32[256] -> i8``: ``e = lut[max - x]``, ``clip(out_zp + rounding_divide(e*mult, sum(e) <<
    shift))``, last axis.

    Preconditions: 0 <= lut < 2**23, 0 <= mult < 2**24, K < 2**14 (int64 holds every product). A row whose entries are
    all 0 gives out_zp."""
    top = x.max(axis=-1, keepdims=True).astype(np.int16)
    e = np.take(np.asarray(lut, np.int64), top - x)
    total = np.maximum(e.sum(axis=-1, keepdims=True), 1)
    # e <= total and mult < 2**24: from shift 25 on every quotient is below 1/2 and rounds to 0.
    quotient = divide(e * int(mult), total << min(int(shift), 25))
    result = np.clip(quotient + out_zp, lo, hi).astype(np.int8)
    if out is None:
        return result
    out[...] = result
    return out
