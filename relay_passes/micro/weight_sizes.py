"""How many bytes a layer takes: its int8 codes by the smallest weight codec, or estimated from their entropy, and what
belongs to its channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.table_layers import MULTIPLIER_BYTES, row_scales
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, weight_layers
from tvm_ergo.relay_passes.micro.weights import quantize_weight
from tvm_ergo.target.codecs.weights import WeightCodes
from tvm_ergo.target.codecs.weights_choice import best_codec

CHANNEL_BYTES = 9
"""Of each output channel beside its weights: bias int32, multiplier int32, shift int8 (docs/architecture.md, section
2)."""
TABLE_BYTES = 32  # of a stream, about: its header and table, for the estimate


@dataclass(frozen=True)
class LayerSize:
    """One layer stored. weights: their number; density: share not zero; distinct: different int8 codes; entropy_bits:
    per weight, order 0; codec: of the smallest stream; stream_bytes: all of that stream; channel_bytes: biases and
    requantization."""

    name: str
    weights: int
    density: float
    distinct: int
    entropy_bits: float
    codec: str
    stream_bytes: int
    channel_bytes: int

    @property
    def bytes(self) -> int:
        return self.stream_bytes + self.channel_bytes


def codes_of(layer: WeightLayer) -> np.ndarray:
    """The int8 codes [O, ...] the quantization gives a layer."""
    return quantize_weight(layer.weight, 0)[0]


def entropy_bits(codes: np.ndarray) -> float:
    """Per code, order 0."""
    share = np.unique(codes, return_counts=True)[1] / codes.size
    return float(-(share * np.log2(share)).sum())


def estimated_bytes(layer: WeightLayer) -> float:
    """What a layer takes, from the entropy of its codes: within a few percent of the stream (`layer_size`), and much
    faster."""
    codes = codes_of(layer)
    return codes.size * entropy_bits(codes) / 8 + TABLE_BYTES + CHANNEL_BYTES * len(codes)


def row_bytes(table: np.ndarray) -> float:
    """A table of rows, its codes by their entropy and a scale a row."""
    codes = np.rint(table / row_scales(table)[:, None])
    return codes.size * entropy_bits(codes) / 8 + TABLE_BYTES + MULTIPLIER_BYTES * len(table)


def layer_size(layer: WeightLayer) -> LayerSize:
    """What a layer really takes, all codecs tried."""
    codes = codes_of(layer)
    coded = best_codec(WeightCodes.of(codes, layer.weight.shape[-1]))
    return LayerSize(
        layer.name,
        codes.size,
        float((codes != 0).mean()),
        len(np.unique(codes)),
        entropy_bits(codes),
        coded.codec.name.lower(),
        len(coded.data),
        CHANNEL_BYTES * len(codes),
    )


def network_sizes(mod: tvm.IRModule) -> list[LayerSize]:
    """Every layer of a float normal-form module."""
    return [layer_size(layer) for layer in weight_layers(mod).values()]
