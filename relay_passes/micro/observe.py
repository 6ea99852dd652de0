"""What calibration sees of a tensor: a streaming histogram, and the range that represents its values best in 8 bits.

Bins have a width ``2**exponent`` and edges at multiples of it; when the values outgrow ``MAX_BINS``, the width doubles
and neighbours merge. That is exact, so a histogram depends only on the values seen and neither on their order nor on
the batches they came in. Zeros are counted apart: every quantization here represents zero exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MAX_BINS = 4096
LEVELS = 255  # steps between the lowest and the highest int8 value


@dataclass(frozen=True)
class Range:
    """Real values lo..hi that the 256 levels of an int8 tensor span, ``lo <= 0 <= hi`` once completed by
    ``with_zero``."""

    lo: float
    hi: float

    def with_zero(self) -> Range:
        return Range(min(self.lo, 0.0), max(self.hi, 0.0))


@dataclass(frozen=True)
class QuantParams:
    """``real = scale * (q - zero_point)``, q int8; scale is a float32 value."""

    scale: float
    zero_point: int

    @property
    def range(self) -> Range:
        return Range(self.scale * (-128 - self.zero_point), self.scale * (127 - self.zero_point))

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Real values to int8, rounding half to even as ``relax.quantize`` does."""
        return np.clip(np.rint(np.asarray(x, np.float64) / self.scale) + self.zero_point, -128, 127).astype(np.int8)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        return (np.asarray(q, np.float64) - self.zero_point) * self.scale


MIN_SCALE = 2.0**-60
MAX_SCALE = 2.0**100


def quant_params(lo: float, hi: float) -> QuantParams:
    """Scale and zero point whose 256 levels span lo..hi, both stretched to hold 0 and moved so that 0 is a level.

    A range without extent (a tensor that is always 0) gets scale 1. Scales stay within 2**-60..2**100, where products
    of two of them are normal float32 numbers."""
    lo, hi = min(float(lo), 0.0), max(float(hi), 0.0)
    if hi == lo:
        return QuantParams(1.0, -128 if lo >= 0 else 127)
    scale = float(np.float32(min(max(hi / LEVELS - lo / LEVELS, MIN_SCALE), MAX_SCALE)))
    return QuantParams(scale, int(np.clip(round(-128 - lo / scale), -128, 127)))


class Histogram:
    """Counts of a tensor's values; ``lo``/``hi`` are the exact extremes seen, ``zeros`` the number of exact zeros."""

    def __init__(self):
        self.lo, self.hi, self.zeros, self.total = math.inf, -math.inf, 0, 0
        self.exponent: int | None = None
        self.first = 0  # bin i covers [(first + i) * width, (first + i + 1) * width)
        self.counts = np.zeros(0, np.int64)

    @property
    def width(self) -> float:
        return math.ldexp(1.0, self.exponent or 0)

    @property
    def centers(self) -> np.ndarray:
        return (self.first + np.arange(len(self.counts)) + 0.5) * self.width

    def update(self, values: np.ndarray) -> None:
        """Counts finite float values of any shape."""
        values = np.asarray(values).reshape(-1)
        if not len(values):
            return
        self.total += len(values)
        lo, hi = float(values.min()), float(values.max())
        self.lo, self.hi = min(self.lo, lo), max(self.hi, hi)
        nonzero = values[values != 0]
        self.zeros += len(values) - len(nonzero)
        if len(nonzero):
            self._cover(float(nonzero.min()), float(nonzero.max()))
            index = np.floor(np.multiply(nonzero, 1.0 / self.width, dtype=np.float64)).astype(np.int64) - self.first
            self.counts += np.bincount(index, minlength=len(self.counts))

    def _cover(self, lo: float, hi: float) -> None:
        """Extends the bins, widening them where there would be too many, until they cover lo..hi."""
        floor = max(math.frexp(max(abs(lo), abs(hi)))[1] - 30, -100)
        if self.exponent is None:
            self.exponent, self.first = floor, math.floor(lo / math.ldexp(1.0, floor))
        while self.exponent < floor:
            self._merge()
        while True:
            begin, end = math.floor(lo / self.width), math.floor(hi / self.width) + 1
            if len(self.counts):
                begin, end = min(begin, self.first), max(end, self.first + len(self.counts))
            if end - begin <= MAX_BINS:
                break
            self._merge()
        before = self.first - begin if len(self.counts) else 0
        self.counts = np.pad(self.counts, (before, end - begin - before - len(self.counts)))
        self.first = begin

    def _merge(self) -> None:
        """Doubles the bin width."""
        odd_start, odd_end = self.first % 2, (self.first + len(self.counts)) % 2
        if len(self.counts):
            self.counts = np.pad(self.counts, (odd_start, odd_end)).reshape(-1, 2).sum(axis=1)
        self.first, self.exponent = self.first // 2, self.exponent + 1

    def trimmed(self) -> tuple[np.ndarray, np.ndarray]:
        """``(centers, counts)`` of the bins that hold anything."""
        used = np.flatnonzero(self.counts)
        return self.centers[used], self.counts[used]

    def min_max(self) -> Range:
        """Everything seen."""
        return Range(self.lo, self.hi).with_zero() if self.total else Range(0.0, 0.0)

    def percentile(self, percent: float) -> Range:
        """The middle ``percent`` of the values, half of the rest cut off at each end (zeros count as values)."""
        if not self.total or not len(self.counts):
            return self.min_max()
        centers, counts = self.trimmed()
        at = np.searchsorted(centers, 0.0)
        centers, counts = np.insert(centers, at, 0.0), np.insert(counts, at, self.zeros)
        share, tail = np.cumsum(counts) / self.total, (1 - percent / 100) / 2
        half = self.width / 2
        low = centers[np.searchsorted(share, tail, side="right").clip(max=len(centers) - 1)] - half
        high = centers[np.searchsorted(share, 1 - tail, side="left").clip(max=len(centers) - 1)] + half
        return Range(float(max(low, self.lo)), float(min(high, self.hi))).with_zero()

    def least_error(self, power: float = 2.0) -> Range:
        """The range that minimises the mean of |quantization error| ** power on the histogram.

        Both ends are searched between 5 % and 100 % of the extremes: together on a coarse grid, then one after the
        other around the best point, on grids ever finer (the error is smooth and has one clear valley; the test
        compares with the exhaustive search)."""
        full = self.min_max()
        if not len(self.counts) or full.hi == full.lo:
            return full
        centers, counts = self.trimmed()
        return search_range(full, lambda r: error_of(r, centers, counts, power))


def error_of(candidate: Range, centers: np.ndarray, counts: np.ndarray, power: float = 2.0) -> float:
    """Sum over bins of count * |quantize(center) - center| ** power."""
    params = quant_params(candidate.lo, candidate.hi)
    level = np.clip(np.rint(centers * (1.0 / params.scale)), -128 - params.zero_point, 127 - params.zero_point)
    error = np.abs(level * params.scale - centers)
    return float(np.dot(counts, error * error if power == 2 else error**power))


def search_range(full: Range, error) -> Range:
    """Coordinate search for the range inside ``full`` with the least ``error(range)``."""

    def at(low: float, high: float) -> Range:
        return Range(float(full.lo * low), float(full.hi * high))

    coarse = np.linspace(0.05, 1.0, 20)
    best = min(((f, f) for f in coarse), key=lambda p: error(at(*p)))
    step = 0.05
    lows, highs = (coarse if full.lo < 0 else [1.0]), (coarse if full.hi > 0 else [1.0])
    for _ in range(4):
        best = min(((best[0], f) for f in highs), key=lambda p: error(at(*p)))
        best = min(((f, best[1]) for f in lows), key=lambda p: error(at(*p)))
        lows = np.clip(best[0] + np.linspace(-step, step, 9), 0.01, 1.0) if full.lo < 0 else [1.0]
        highs = np.clip(best[1] + np.linspace(-step, step, 9), 0.01, 1.0) if full.hi > 0 else [1.0]
        step /= 3
    candidate = at(*best)
    return candidate if error(candidate) <= error(full) else full
