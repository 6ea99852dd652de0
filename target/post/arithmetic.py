"""Real values, exponential and sigmoid in integers: the definition of what post-processing computes with.

Real values are in units of 2**-16 where a caller's multipliers carry ``scale * 65536``, scores and probabilities in
units of 2**-30. Integers give the same bits on every platform; the exponential is two tables of powers of two and a
straight line between their steps (relative error below 3e-7)."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.numerics import rounding_shift

ONE = 1 << 30
"""A score or probability of 1."""
MOST_REAL = 1 << 30
MOST_PLACE = 1 << 21
"""Coordinates are limited to this many 64ths of a pixel."""
LOG2_E, LN_2 = 1549082005, 744261118  # in 2**-30
COARSE, FINE = (np.array([round(2 ** (i / n) * 2**30) for i in range(32)], np.int64) for n in (32, 1024))
LOW = (1 << 32) - 1


def real(stored: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int64 real values of ``stored [..., F]``; ``scales [F or 1, 3]`` (or one more axis before): multiplier, shift,
    zero point of each channel. Errors: MachineError for a multiplier or a shift that is none."""
    mult, shift, zero_point = (np.asarray(scales, np.int64)[..., i] for i in range(3))
    if ((mult < 0) | (mult >= 1 << 24) | (shift < 0) | (shift > 62)).any():
        raise MachineError(
            "a scale of post-processing is out of its range", required="multipliers 0..2**24-1, shifts 0..62"
        )
    value = rounding_shift((np.asarray(stored, np.int64) - zero_point) * mult, shift)
    return np.clip(value, -MOST_REAL, MOST_REAL)


def _power(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(m, n)`` with e**x = m * 2**(n - 30), m in [2**30, 2**31); x in 2**-16."""
    t = np.asarray(x, np.int64) * LOG2_E  # in 2**-46
    f = (t >> 14) & LOW  # in 2**-32
    m = (COARSE[f >> 27] * FINE[(f >> 22) & 31]) >> 30
    rest = ((f & 0x3FFFFF) * LN_2) >> 30
    return m + ((m * rest) >> 32), t >> 46


def exp(x: np.ndarray) -> np.ndarray:
    """e**x of x in 2**-16, in 2**-16, at most 2**31 - 1."""
    m, n = _power(x)
    return np.where(n >= 15, (1 << 31) - 1, m >> np.clip(14 - n, 0, 63))


def exp_below(x: np.ndarray) -> np.ndarray:
    """e**x of x <= 0 in 2**-16, in 2**-30."""
    m, n = _power(x)
    return m >> np.clip(-n, 0, 63)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e**-x) of x in 2**-16, in 2**-30."""
    x = np.asarray(x, np.int64)
    above = (1 << 60) // (ONE + exp_below(-np.abs(x)))
    return np.where(x < 0, ONE - above, above)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis, of x in 2**-16, in 2**-30."""
    e = exp_below(x - x.max(-1, keepdims=True))
    return (e << 30) // e.sum(-1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    """x in 2**-16 limited to 0..1, in 2**-30."""
    return np.clip(x, 0, 1 << 16) << 14


def limited(place: np.ndarray) -> np.ndarray:
    return np.clip(place, -MOST_PLACE, MOST_PLACE)
