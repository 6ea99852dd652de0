"""Pruning: the weights that matter least by their magnitude become zero."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, check_range, chosen, weight_layers, with_weights
from tvm_ergo.target.errors import ModelError


class Scope(enum.Enum):
    """Over what ``density`` is reckoned: each LAYER; all layers by one threshold (GLOBAL); or by one multiple of each
    layer's rms (GLOBAL_RMS: the threshold of Han et al., "Learning both weights and connections", NIPS 2015)."""

    LAYER = "layer"
    GLOBAL = "global"
    GLOBAL_RMS = "global rms"


class Measure(enum.Enum):
    """What a block counts for: its largest magnitude or its average (Cambricon-S, section III.A: average is as good or
    better)."""

    AVERAGE = "average"
    MAX = "max"


@tvm.transform.module_pass(opt_level=0, name="ergo.Prune")
@dataclass(frozen=True)
class Prune:
    """Sets weights to zero, nothing else; the rest keep their values to the bit, and zeros stay.

    density: share of weights kept, one number or ``{layer: share}`` (other layers are left alone); the count kept is
    exact (rounded; of equal magnitudes the first ones are kept). block: (output channels, input channels) that are
    pruned together, at every kernel position: Cambricon-S (Zhou et al., MICRO 2018) shares one index among 16 output
    channels so. measure: what a block counts for. pattern: (n, m) keeps the n largest of every m consecutive weights of
    a row (a window in the order it is read; the last group of a row may be shorter and keeps its share, rounded up) and
    takes the place of density (Mishra et al., "Accelerating sparse deep neural networks", 2021).

    Expects the float normal form. Errors: ModelError for unknown layers, densities out of 0..1, blocks and patterns
    that are none."""

    density: float | Mapping[str, float] = 1.0
    scope: Scope = Scope.LAYER
    block: tuple[int, int] = (1, 1)
    measure: Measure = Measure.AVERAGE
    pattern: tuple[int, int] | None = None

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        layers = weight_layers(mod)
        wanted = chosen(self.density, layers)
        self._check(wanted)
        return with_weights(
            mod,
            layers,
            {
                name: np.where(mask, layers[name].weight, np.float32(0))
                for name, mask in self.masks(layers, wanted).items()
            },
        )

    def _check(self, wanted: Mapping[str, float]) -> None:
        for name, density in wanted.items():
            check_range(name, density, 0, 1, "a density")
        if min(self.block) < 1:
            raise ModelError("a block has no size", required="at least (1, 1)", available=str(self.block))
        if (
            self.pattern is not None
            and not 0 <= self.pattern[0] <= self.pattern[1]
            or self.pattern is not None
            and self.pattern[1] < 1
        ):
            raise ModelError("not an n:m pattern", required="0 <= n <= m, m >= 1", available=str(self.pattern))

    def masks(self, layers: Mapping[str, WeightLayer], wanted: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Which weights stay, bool of each layer's weight shape."""
        if self.pattern is not None:
            return {
                name: pattern_mask(layers[name].rows, *self.pattern).reshape(layers[name].weight.shape)
                for name in wanted
            }
        scores = {name: block_scores(layers[name].weight, self.block, self.measure) for name in wanted}
        if self.scope is Scope.GLOBAL_RMS:
            scores = {
                name: s / max(float(np.sqrt(np.mean(np.square(layers[name].weight, dtype=np.float64)))), 1e-30)
                for name, s in scores.items()
            }
        if self.scope is Scope.LAYER:
            kept = {name: keep_largest(s, wanted[name]) for name, s in scores.items()}
        else:
            kept = _keep_over_all(scores, layers, self.block, wanted)
        return {name: spread_blocks(mask, layers[name].weight.shape, self.block) for name, mask in kept.items()}


def block_scores(weight: np.ndarray, block: tuple[int, int], measure: Measure) -> np.ndarray:
    """What each block of ``weight`` [O, ..., C] counts for, float64 [ceil(O / block), ..., ceil(C / block)]; cut blocks
    average what they have."""
    magnitude = np.abs(weight.astype(np.float64))
    if block == (1, 1):
        return magnitude
    function = np.maximum if measure is Measure.MAX else np.add
    starts = [np.arange(0, weight.shape[axis], size) for axis, size in zip((0, -1), block)]
    joined = function.reduceat(function.reduceat(magnitude, starts[0], axis=0), starts[1], axis=-1)
    return joined if measure is Measure.MAX else joined / block_sizes(weight.shape, block)


def block_sizes(shape: tuple[int, ...], block: tuple[int, int]) -> np.ndarray:
    """How many weights each block has, broadcastable against ``block_scores``."""
    out, into = (
        np.minimum(size, extent - np.arange(0, extent, size)) for extent, size in zip((shape[0], shape[-1]), block)
    )
    return out.reshape(-1, *[1] * (len(shape) - 1)) * into


def spread_blocks(mask: np.ndarray, shape: tuple[int, ...], block: tuple[int, int]) -> np.ndarray:
    """The mask of blocks as one of weights."""
    return np.repeat(np.repeat(mask, block[0], axis=0), block[1], axis=-1)[: shape[0], ..., : shape[-1]]


def keep_largest(scores: np.ndarray, density: float) -> np.ndarray:
    """bool: the ``round(density * size)`` largest scores, the first of equal ones."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[: round(density * scores.size)]] = True
    return mask.reshape(scores.shape)


def _keep_over_all(
    scores: Mapping[str, np.ndarray],
    layers: Mapping[str, WeightLayer],
    block: tuple[int, int],
    wanted: Mapping[str, float],
) -> dict[str, np.ndarray]:
    """The blocks with the largest scores of all layers, until the weights in them are the wanted share (the mean one of
    a mapping) of all."""
    sizes = {
        name: np.broadcast_to(block_sizes(layers[name].weight.shape, block), s.shape).reshape(-1)
        for name, s in scores.items()
    }
    flat = np.concatenate([s.reshape(-1) for s in scores.values()])
    order = np.argsort(-flat, kind="stable")
    budget = sum(wanted[name] * layers[name].size for name in scores)
    mask = np.zeros(flat.size, bool)
    mask[
        order[: np.searchsorted(np.cumsum(np.concatenate(list(sizes.values()))[order]), round(budget), side="right")]
    ] = True
    parts = np.split(mask, np.cumsum([s.size for s in scores.values()])[:-1])
    return {name: part.reshape(s.shape) for (name, s), part in zip(scores.items(), parts)}


def pattern_mask(rows: np.ndarray, kept: int, group: int) -> np.ndarray:
    """bool [O, K]: the ``kept`` largest magnitudes of every ``group`` consecutive ones of a row, the first of equal
    ones."""
    count, size = rows.shape
    padded = np.full((count, -(-size // group) * group), -1.0)
    padded[:, :size] = np.abs(rows)
    groups = padded.reshape(count, -1, group)
    rank = np.argsort(np.argsort(-groups, axis=2, kind="stable"), axis=2, kind="stable")
    allowed = np.full(groups.shape[1], kept)
    if size % group:
        allowed[-1] = -(-kept * (size % group) // group)
    return (rank < allowed[None, :, None]).reshape(count, -1)[:, :size]
