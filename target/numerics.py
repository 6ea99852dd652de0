"""Fixed-point arithmetic of the chip: the one definition of requantization.

A real scale is carried as ``multiplier * 2**-shift`` with a multiplier of 24 bits, i.e. exactly a float32 significand,
so the fixed-point scale equals ``float32(scale)`` to the bit. 24 bits rather than TFLite's 31: a 32 x 24 bit product of
any accumulator below 2**29 fits a float64 exactly (the emulator's fast path), the hardware multiplier is a quarter
smaller, and the relative error of 2**-24 can move a result only where it lies within 2**-24 of a rounding tie.

Rounding is "half up" (towards plus infinity): ``floor(x + 1/2)``, one addition and an arithmetic shift. ONNX rounds
half to even in float, TFLite half away from zero: results differ from ours by at most 1, at ties only.
"""

from __future__ import annotations

import math

import numpy as np

MULTIPLIER_BITS = 24
MAX_SHIFT = 62


def quantize_multiplier(scale: float) -> tuple[int, int]:
    """``(multiplier, shift)`` with ``multiplier * 2**-shift == float32(scale)``, multiplier in [2**23, 2**24) or 0.

    Parameters: scale, finite, 0 <= scale < 2**24. Scales below 2**-39 become (0, 0): no int32 accumulator can reach
    1/2. Errors: ValueError for NaN, infinite, negative or too large scales."""
    scale = float(np.float32(scale))
    if not math.isfinite(scale) or scale < 0 or scale >= 2.0**MULTIPLIER_BITS:
        raise ValueError(f"scale {scale} cannot be carried as a {MULTIPLIER_BITS}-bit multiplier and a right shift")
    if scale == 0.0:
        return 0, 0
    mantissa, exponent = math.frexp(scale)
    shift = MULTIPLIER_BITS - exponent
    if shift > MAX_SHIFT:
        return 0, 0
    return int(mantissa * 2**MULTIPLIER_BITS), shift


def quantize_multipliers(scales) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel form: ``(multiplier int32[n], shift int8[n])`` of ``scales[n]``."""
    pairs = [quantize_multiplier(s) for s in np.asarray(scales, np.float64).reshape(-1)]
    return np.array([p[0] for p in pairs], np.int32), np.array([p[1] for p in pairs], np.int8)


def rounding_shift(value: np.ndarray, shift) -> np.ndarray:
    """``floor(value / 2**shift + 1/2)`` for int64 ``value``; ``shift`` an integer or array, 0..62."""
    shift = np.asarray(shift, np.int64)
    half = np.where(shift > 0, np.int64(1) << np.maximum(shift - 1, 0), np.int64(0))
    return (np.asarray(value, np.int64) + half) >> shift


def requantize(acc: np.ndarray, multiplier, shift, zero_point: int, lo: int, hi: int) -> np.ndarray:
    """int32 accumulators to int8: ``clip(zero_point + floor(acc * multiplier / 2**shift + 1/2), lo, hi)``.

    Shapes: multiplier and shift are scalars or broadcast against ``acc``'s last axis. This is the slow, obvious
    definition; the emulator's fast paths are tested against it.
    """
    scaled = rounding_shift(np.asarray(acc, np.int64) * np.asarray(multiplier, np.int64), shift)
    return np.clip(scaled + zero_point, lo, hi).astype(np.int8)


def rounding_divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """``floor(numerator / denominator + 1/2)`` in int64, denominator > 0. Used by average pooling and softmax."""
    numerator, denominator = np.asarray(numerator, np.int64), np.asarray(denominator, np.int64)
    return (2 * numerator + denominator) // (2 * denominator)
