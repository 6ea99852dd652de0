"""What the weights of a net hold already: zeros, shared values, grids, ternary channels, product codebooks; and what
they take stored so."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.shared_blocks import SharedBlocks, find_shared_blocks
from tvm_ergo.relay_passes.micro.structured_scales import grid_step, row_steps, shared_values
from tvm_ergo.relay_passes.micro.weight_layers import WeightLayer, weight_layers
from tvm_ergo.relay_passes.micro.weight_sizes import CHANNEL_BYTES, TABLE_BYTES, layer_size


class Form(enum.Enum):
    """PLAIN: nothing special. GRID: multiples of one step. CHANNEL_GRID: multiples of one step a channel. TERNARY: -s,
    0, s (of the layer or the channel). SHARED: few values for the layer. BLOCKS: few blocks, times a factor of the
    channel."""

    PLAIN = "plain"
    GRID = "grid"
    CHANNEL_GRID = "grid a channel"
    TERNARY = "ternary"
    SHARED = "shared values"
    BLOCKS = "shared blocks"


@dataclass(frozen=True)
class LayerForm:
    """One layer. zeros: share of them; values: distinct nonzero float values, None above 255; block: (input channels,
    centroids) of shared blocks.

    fp32_bytes: of weights and bias. int8_bytes: one a weight, and what belongs to channels. bytes: the smaller of the
    best weight stream of the int8 codes and, for shared blocks, entropy coded indices with int8 centroids; with what
    belongs to channels."""

    name: str
    weights: int
    form: Form
    zeros: float
    values: int | None
    block: tuple[int, int] | None
    fp32_bytes: int
    int8_bytes: int
    bytes: int


def form_of(rows: np.ndarray, blocks: SharedBlocks | None) -> Form:
    """The form of weights [O, K]; blocks: what `find_shared_blocks` says of them."""
    shared, steps = shared_values(rows), row_steps(rows)
    if (
        shared is not None
        and len(shared[0]) == 1
        or steps is not None
        and all(len(np.unique(np.abs(r[r != 0]))) <= 1 for r in rows)
        and rows.shape[1] > 1
    ):
        return Form.TERNARY
    if shared is not None and grid_step(shared[0]) is not None:
        return Form.GRID
    if steps is not None:
        return Form.CHANNEL_GRID
    if shared is not None:
        return Form.SHARED
    return Form.PLAIN if blocks is None else Form.BLOCKS


def layer_form(layer: WeightLayer) -> LayerForm:
    """One layer, described."""
    rows, channels = layer.rows, len(layer.weight)
    blocks = (
        None if shared_values(rows) is not None or row_steps(rows) is not None else find_shared_blocks(layer.weight)
    )
    size = layer_size(layer).bytes
    if blocks is not None:
        size = min(size, int(np.ceil(blocks.stored_bits / 8)) + TABLE_BYTES + CHANNEL_BYTES * channels)
    values = len(np.unique(rows[rows != 0]))
    return LayerForm(
        layer.name,
        layer.size,
        form_of(rows, blocks),
        float((rows == 0).mean()),
        values if values <= 255 else None,
        None if blocks is None else (blocks.channels, len(blocks.centroids)),
        4 * (layer.size + channels),
        layer.size + CHANNEL_BYTES * channels,
        size,
    )


def weight_forms(mod: tvm.IRModule) -> list[LayerForm]:
    """Every layer of a float normal-form module."""
    return [layer_form(layer) for layer in weight_layers(mod).values()]
