"""Tables that rows are taken out of by number (embeddings): what makes them small beside the layers' weights.

Rows have a scale each, as GATHER reads them. A table of b bits has codes of ``-(2**(b-1) - 1)`` to ``2**(b-1) - 1``;
each row's scale is the one of least squared error."""

from __future__ import annotations

import numpy as np
import tvm

from tvm_ergo.relay_passes.micro.structured_scales import grid_step
from tvm_ergo.relay_passes.micro.weights import WeightScale, channel_scales
from tvm_ergo.relay_passes.relax_utils import main_of
from tvm_ergo.relay_passes.support import FunctionView

LARGEST = 127
MULTIPLIER_BYTES = 4  # of each row, beside its codes
SMALLEST_ROWS = 8


def table_layers(mod: tvm.IRModule | FunctionView) -> dict[str, np.ndarray]:
    """float32 [V, C] tables by the name of the ``take`` that reads them, in order."""
    view = mod if isinstance(mod, FunctionView) else FunctionView(main_of(mod))
    found = {}
    for var in view.order:
        if view.op(var) != "relax.take":
            continue
        call = view.value[var]
        table = view.const(call.args[0])
        if (
            table is not None
            and table.scale is None
            and table.stored.dtype == np.float32
            and table.stored.ndim == 2
            and len(table.stored) >= SMALLEST_ROWS
            and call.attrs.axis is not None
            and int(call.attrs.axis) == 0
            and view.const(call.args[1]) is None
            and np.isfinite(table.stored).all()
        ):
            found[str(var.name)] = table.stored
    return found


def rounded_rows(table: np.ndarray, bits: int) -> np.ndarray:
    """The table with codes of so many bits, float32 [V, C]."""
    top = 2 ** (bits - 1) - 1
    scale = channel_scales(table, 0, WeightScale.MSE if top < 64 else WeightScale.MAX, top)[:, None]
    codes = np.clip(np.rint(table / scale.astype(np.float64)), -top, top)
    return (codes * scale).astype(np.float32)


def row_scales(table: np.ndarray) -> np.ndarray:
    """Scale of each row, float32 [V]: of the grid that it lies on, else of its largest magnitude."""
    scales = channel_scales(table, 0)
    for number, row in enumerate(table):
        values = np.unique(np.abs(row[row != 0]).astype(np.float64))
        step = grid_step(values) if 0 < len(values) <= LARGEST else None
        if step is not None:
            scales[number] = step
    return scales


def table_bytes(table: np.ndarray, bits: int) -> float:
    """As GATHER reads it: codes at fixed width, a multiplier a row."""
    return len(table) * (np.ceil(table.shape[1] * bits / 8) + MULTIPLIER_BYTES)
