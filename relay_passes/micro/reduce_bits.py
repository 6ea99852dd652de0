"""Mixed precision: weights of 8 to 2 bits, layer by layer, on grids the quantization keeps exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.weight_layers import check_range, chosen, weight_layers, with_weights
from tvm_ergo.relay_passes.micro.weights import WeightScale, channel_scales, fake_quantize


@tvm.transform.module_pass(opt_level=0, name="ergo.ReduceBits")
@dataclass(frozen=True)
class ReduceBits:
    """Rounds weights to the nearest of the ``2**bits - 1`` multiples -L..L of a scale, L = ``2**(bits - 1) - 1``.

    bits: 2 to 8, one number or ``{layer: bits}`` (other layers are left alone). scale: max|w| / L, or of least squared
    error, per output channel, or with ``per_channel`` off for the layer. int8 codes of such weights are -L..L
    (`structured_scales`), so the existing quantization takes them as they are. What the layer loses by it is not made
    up for: `reconstruct.Target(bits=...)` does that. Expects the float normal form. Errors: ModelError for unknown
    layers and bits out of range."""

    bits: int | Mapping[str, int] = 4
    scale: WeightScale = WeightScale.MSE
    per_channel: bool = True

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        layers = weight_layers(mod)
        wanted = chosen(self.bits, layers)
        for name, bits in wanted.items():
            check_range(name, bits, 2, 8, "a number of bits")
        return with_weights(mod, layers, {name: self.reduced(layers[name].rows, bits) for name, bits in wanted.items()})

    def reduced(self, rows: np.ndarray, bits: int) -> np.ndarray:
        """float32 [O, K]."""
        top, parts = 2 ** (bits - 1) - 1, rows if self.per_channel else rows.reshape(1, -1)
        scale = channel_scales(parts, 0, WeightScale(self.scale), top).astype(np.float64)[:, None]
        return fake_quantize(parts, scale, top).astype(np.float32).reshape(rows.shape)
