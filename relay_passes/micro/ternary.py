"""Ternary weights: minus a scale, zero, or plus a scale."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weight_layers import weight_layers, with_weights
from tvm_ergo.target.errors import ModelError

TWN = 0.7


class Threshold(enum.Enum):
    """Below which magnitude a weight is zero. TWN: 0.7 times the mean magnitude (Li et al., "Ternary weight networks",
    2016, equation 6: nearly the best for normal and uniform weights); BEST: the one with the least squared error, found
    exactly."""

    TWN = "twn"
    BEST = "best"


@tvm.transform.module_pass(opt_level=0, name="ergo.Ternary")
@dataclass(frozen=True)
class Ternary:
    """Each weight of the ``layers`` (None: all) becomes -s, 0 or +s: s is the mean magnitude of the weights above the
    threshold, the best for them.

    per_channel: a scale and a threshold for each output channel, else one for the layer. threshold: see `Threshold`.
    zeros: share of a channel's (or layer's) weights that become zero, in place of a threshold (the smallest; rounded).
    Deterministic; zeros stay zero. What the layer loses by it is not made up for: `reconstruct.Target(bits=2)` does
    that. Expects the float normal form. Errors: ModelError for unknown layers and shares out of 0..1."""

    per_channel: bool = True
    threshold: Threshold = Threshold.BEST
    zeros: float | None = None
    layers: tuple[str, ...] | None = None

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        layers = weight_layers(mod)
        if self.zeros is not None and not 0 <= self.zeros <= 1:
            raise ModelError("a share of zeros is out of range", required="0 to 1", available=str(self.zeros))
        unknown = [name for name in self.layers or () if name not in layers]
        if unknown:
            raise ModelError(
                "there is no such layer with constant float weights",
                where=", ".join(unknown),
                available=", ".join(layers),
            )
        return with_weights(
            mod,
            layers,
            {name: self.ternary(layers[name].rows) for name in (layers if self.layers is None else self.layers)},
        )

    def ternary(self, rows: np.ndarray) -> np.ndarray:
        """float32 [O, K]."""
        parts = rows if self.per_channel else rows.reshape(1, -1)
        magnitude = np.sort(np.abs(parts.astype(np.float64)), axis=1)[:, ::-1]
        kept = np.array([self._kept(row) for row in magnitude])
        sums = np.cumsum(magnitude, axis=1)[np.arange(len(parts)), np.maximum(kept - 1, 0)]
        scale = np.where(kept > 0, sums / np.maximum(kept, 1), 0.0)
        rank = np.argsort(np.argsort(-np.abs(parts), axis=1, kind="stable"), axis=1, kind="stable")
        return (
            (np.sign(parts) * np.where(rank < kept[:, None], scale[:, None], 0.0))
            .astype(np.float32)
            .reshape(rows.shape)
        )

    def _kept(self, magnitude: np.ndarray) -> int:
        """How many of the magnitudes (descending) are not zero afterwards."""
        alive = int((magnitude > 0).sum())
        if self.zeros is not None:
            return min(alive, round((1 - self.zeros) * len(magnitude)))
        if self.threshold is Threshold.TWN:
            return int((magnitude > TWN * magnitude.mean()).sum())
        gains = np.square(np.cumsum(magnitude)) / np.arange(
            1, len(magnitude) + 1
        )  # what the squared error falls by, for each number kept
        return min(alive, int(np.argmax(gains)) + 1)
