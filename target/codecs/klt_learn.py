"""Learning the coordinates of `klt.KltCodec` from pixels of calibration data."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo.target.codecs.klt import MAX_SHIFT, Coordinate, KltCodec
from tvm_ergo.target.errors import InputError

PEAK = 99.9  # percentile of a coordinate's magnitudes that its range holds; the rest is clipped


def learn(
    pixels: np.ndarray, zero_point: int, bits_per_pixel: int, *, tolerance: int = 32, tile_rows: int = 1
) -> KltCodec:
    """The codec whose coordinates, ``bits_per_pixel`` bits together, lose least of int8 pixels [n,C] in the mean
    square.

    Eigenvectors of the uncentred second moments of x - zero_point; bits by `allocate`; the expansion is the
    least-squares fit to the coordinates as rounded and clipped. Errors: InputError for other dtypes or ranks, or more
    bits than the pixels have."""
    if pixels.dtype != np.int8 or pixels.ndim != 2 or not len(pixels):
        raise InputError(
            "a projection is learned from pixels",
            required="int8 [n, C], n > 0",
            available=f"{pixels.dtype}{list(pixels.shape)}",
        )
    if not 1 <= bits_per_pixel < 8 * pixels.shape[1]:
        raise InputError(
            f"{bits_per_pixel} bits per pixel of {pixels.shape[1]} channels", required=f"1 to {8 * pixels.shape[1] - 1}"
        )
    d = pixels.astype(np.float64) - zero_point
    vectors = np.linalg.eigh(d.T @ d / len(d))[1][:, ::-1]  # [C,C], most energy first
    z = d @ vectors
    peaks = np.maximum(np.percentile(np.abs(z), PEAK, axis=0), 1.0)
    widths = allocate(np.mean(np.square(z), axis=0), peaks, bits_per_pixel)
    used = np.flatnonzero(widths) if widths.any() else np.array([0])
    widths[used] = np.maximum(widths[used], 1)  # at least one coordinate, if of a single bit
    rows = [_row(vectors[:, j] * ((1 << widths[j] - 1) - 0.5) / peaks[j]) for j in used]
    draft = KltCodec(
        zero_point,
        tile_rows,
        tuple(Coordinate(int(widths[j]), row, shift, row, 0) for j, (row, shift) in zip(used, rows)),
        tolerance,
    )
    rounded = draft.project(pixels).astype(np.float64)
    ridge = 1e-6 * np.trace(rounded.T @ rounded) / len(used) + 1e-9
    fit = np.linalg.solve(rounded.T @ rounded + ridge * np.eye(len(used)), rounded.T @ d)  # [k,C]
    columns = [_row(column) for column in fit]
    return KltCodec(
        zero_point,
        tile_rows,
        tuple(
            Coordinate(c.width, c.analysis, c.analysis_shift, *column) for c, column in zip(draft.coordinates, columns)
        ),
        tolerance,
    )


def allocate(power: np.ndarray, peaks: np.ndarray, bits: int) -> np.ndarray:
    """Bits of each coordinate, int64 [C], each 0 or 2 to 8 (a sign alone says nothing here), together at most ``bits``.

    Greedy: always where a bit lowers the distortion most (power without bits, else uniform steps over the range).
    """
    bound = np.square(2 * peaks) / 12
    widths = np.zeros(len(power), np.int64)
    while True:
        more = np.where(widths == 0, 2, 1)
        now = np.where(widths == 0, power, np.minimum(power, bound / 4.0**widths))
        gain = (now - np.minimum(power, bound / 4.0 ** (widths + more))) / more
        gain[(widths + more > 8) | (more > bits - widths.sum())] = 0
        j = int(np.argmax(gain))
        if gain[j] <= 0:
            return widths
        widths[j] += more[j]


def _row(values: np.ndarray) -> tuple[tuple[int, ...], int]:
    """int8 values and the shift by which they are too large: as fine as int8 allows."""
    top = float(np.abs(values).max(initial=0))
    shift = min(max(math.floor(math.log2(127 / top)), 0), MAX_SHIFT) if top > 0 else 0
    return tuple(int(v) for v in np.clip(np.rint(values * 2.0**shift), -128, 127)), shift
