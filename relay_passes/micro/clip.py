"""Clipping weights: a few large ones lose their size so that the grid for all the others is finer."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weight_layers import check_range, chosen, weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weights import fake_quantize

BINS = 2048  # of the histograms that the divergence is reckoned with
CANDIDATES = 100  # thresholds the squared error is reckoned for, evenly over 0..max


class ClipMethod(enum.Enum):
    """Where to clip, given the grid that follows. NONE: nowhere. MSE: least squared error after rounding (Sung et al.,
    2015). ACIQ: least expected squared error of the normal or Laplace distribution, whichever is likelier (Banner et
    al., "Post-training 4-bit quantization of convolution networks", 2018). KL: least divergence between the
    distributions of the magnitudes before and after (Migacz, "8-bit inference with TensorRT", 2017)."""

    NONE = "none"
    MSE = "mse"
    ACIQ = "aciq"
    KL = "kl"


@tvm.transform.module_pass(opt_level=0, name="ergo.Clip")
@dataclass(frozen=True)
class Clip:
    """Weights beyond a threshold, one a layer, become the threshold; the others keep their values to the bit.

    method: see `ClipMethod`. bits: of the grid with one step a layer that will be put on the weights, one number or
    ``{layer: bits}``, 2 to 8 (other layers are left alone). `ReduceBits(bits, WeightScale.MAX, per_channel=False)` puts
    it there: its largest level is the threshold. Expects the float normal form. Errors: ModelError for unknown layers
    and bits out of range."""

    method: ClipMethod = ClipMethod.MSE
    bits: int | Mapping[str, int] = 8

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        layers, made = weight_layers(mod), {}
        for name, bits in chosen(self.bits, layers).items():
            check_range(name, bits, 2, 8, "a number of bits")
            limit = np.float32(threshold(layers[name].weight, bits, ClipMethod(self.method)))
            made[name] = np.clip(layers[name].weight, -limit, limit)
        return with_weights(mod, layers, made)


def threshold(weight: np.ndarray, bits: int, method: ClipMethod) -> float:
    """The magnitude at which to clip; at most the largest there is."""
    magnitude = np.abs(np.asarray(weight, np.float64)).reshape(-1)
    top = float(magnitude.max(initial=0.0))
    if top == 0 or method is ClipMethod.NONE:
        return top
    return {ClipMethod.MSE: least_squared_error, ClipMethod.ACIQ: aciq, ClipMethod.KL: least_divergence}[method](
        magnitude, bits, top
    )


def least_squared_error(magnitude: np.ndarray, bits: int, top: float) -> float:
    """The candidate under which rounding changes the magnitudes least."""
    levels = 2 ** (bits - 1) - 1
    candidates = top * np.arange(1, CANDIDATES + 1) / CANDIDATES
    return float(
        min(candidates, key=lambda t: np.square(fake_quantize(magnitude, t / levels, levels) - magnitude).sum())
    )


def aciq(magnitude: np.ndarray, bits: int, top: float) -> float:
    """The threshold that is best for the likelier of two distributions about zero: normal of that rms, Laplace of that
    mean magnitude."""
    sigma, mean = math.sqrt(float(np.square(magnitude).mean())), float(magnitude.mean())
    normal_is_likelier = 0.5 * math.log(2 * math.pi * math.e * sigma**2) < math.log(2 * math.e * mean)
    return min(top, sigma * normal_threshold(bits) if normal_is_likelier else mean * laplace_threshold(bits))


def laplace_threshold(bits: int) -> float:
    """In units of the mean magnitude: the root of x e**x = 3 * 4**bits, where ``2 e**-x + x**2 / (3 * 4**bits)`` is
    least."""
    x, wanted = math.log(3.0 * 4**bits), 3.0 * 4**bits
    for _ in range(50):
        x -= (x * math.exp(x) - wanted) / (math.exp(x) * (x + 1))
    return x


def normal_threshold(bits: int) -> float:
    """In units of sigma: where ``(x**2 + 1) * (1 - erf(x / sqrt 2)) - sqrt(2 / pi) x e**(-x**2 / 2) + x**2 / (3 *
    4**bits)`` is least."""

    def slope(x: float) -> float:  # of that; it rises through zero once
        return (
            2 * x * math.erfc(x / math.sqrt(2))
            - 2 * math.sqrt(2 / math.pi) * math.exp(-x * x / 2)
            + 2 * x / (3.0 * 4**bits)
        )

    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


def least_divergence(magnitude: np.ndarray, bits: int, top: float) -> float:
    """The edge of a histogram's bin at which the clipped and the rounded distribution diverge least (Kullback and
    Leibler)."""
    levels = 2 ** (bits - 1)
    counts = np.histogram(magnitude, BINS, (0, top))[0].astype(np.float64)
    best, least = BINS, math.inf
    for edge in range(levels, BINS + 1, max(1, BINS // 256)):
        clipped = counts[:edge].copy()
        clipped[-1] += counts[edge:].sum()
        level = np.arange(edge) * levels // edge
        alive = counts[:edge] > 0
        mass = np.bincount(level, counts[:edge], levels)
        share = np.bincount(level, alive, levels)
        rounded = np.where(alive, (mass / np.maximum(share, 1))[level], 0)
        divergence = _divergence(clipped, rounded)
        if divergence < least:
            best, least = edge, divergence
    return top * best / BINS


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of counts, in nats; a little is put where q has nothing."""
    if not q.any():
        return math.inf
    p, q = p / p.sum(), q / q.sum()
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-6))))
