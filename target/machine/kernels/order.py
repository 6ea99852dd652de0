"""The CPU's functions on whole rows: the largest elements and their places, the logarithm of a softmax."""

from __future__ import annotations

import numpy as np

FRACTION_BITS = 16
"""Of the logarithm to the base of 2."""
EXP_BITS = 22
"""Fraction bits of the table of exponentials of LOG_SOFTMAX."""


def topk(x, *, k, positions, out_zp=0, out=None) -> np.ndarray:
    """``x i8[..., K]`` -> the k largest of each row in falling order, of equal ones the first before: ``i8[..., k]``,
    or with ``positions`` where they stand, i32."""
    order = np.argsort(-x.astype(np.int16), axis=-1, kind="stable")[..., :k]
    found = order.astype(np.int32) if positions else np.take_along_axis(x, order, axis=-1)
    if out is None:
        return found
    out[...] = found
    return out


def log2(total: np.ndarray) -> np.ndarray:
    """Logarithm to the base of 2 of int64 numbers 1..2**52, with 16 fraction bits, rounded down: one bit a squaring."""
    power = np.frexp(total.astype(np.float64))[1].astype(np.int64) - 1
    mantissa = (total << np.maximum(30 - power, 0)) >> np.maximum(power - 30, 0)
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 30
        bit = mantissa >> 31
        mantissa, power = mantissa >> bit, 2 * power + bit
    return power


def log_softmax(x, lut, *, x_mult, log_mult, shift, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``x i8[..., K], lut i32[256] -> i8``, last axis: ``e = lut[max - x]``, ``clip(out_zp + floor(-((max - x) * x_mult
    + (log2(sum(e)) - 22) * log_mult) / 2**shift + 1/2))``, the logarithm with 16 fraction bits.

    Preconditions: 0 <= lut < 2**23, K < 2**14, multipliers 0..2**30 - 1."""
    distance = x.max(axis=-1, keepdims=True).astype(np.int64) - x
    total = np.maximum(np.take(np.asarray(lut, np.int64), distance).sum(axis=-1, keepdims=True), 1)
    logarithm = log2(total) - (EXP_BITS << FRACTION_BITS)
    value = -(distance * int(x_mult) + logarithm * int(log_mult))
    rounded = (value + ((1 << shift) >> 1)) >> shift
    result = np.clip(rounded + out_zp, lo, hi).astype(np.int8)
    if out is None:
        return result
    out[...] = result
    return out
