"""What each layer of a compressed network takes: the rows of Deep Compression's tables (Han et al., ICLR 2016, tables 2
to 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tvm

from tvm_ergo.compressed.file import Contents
from tvm_ergo.relay_passes.relax_utils import Constant, array_of, bindings_of, main_of, op_name
from tvm_ergo.report.model import Row
from tvm_ergo.target.codecs.prefix_code import bounded_lengths
from tvm_ergo.target.codecs.runs import padded

RUN_BITS = {True: 8, False: 5}
"""Of an index: convolutions' and dense layers' (the paper's)."""
LINEAR = ("relax.nn.conv2d", "relax.nn.conv1d", "relax.matmul", "relax.nn.conv2d_transpose")


class LayerRow(Row):
    """One layer's weights. weights : their number. density : share not zero. values : different ones, zero not counted.
    weight_bits, index_bits : of a weight that is not zero and of its distance to the last one (zeros that fill too long
    distances counted), at fixed width; *_coded : after Huffman coding.
    bits : of the real stream per weight, zeros among them. stored_bytes : the real stream, everything in it. codec :
    its codec. error : this layer's share of the outputs' squared error, as the allocation expects it; None where it was
    not asked."""

    name: str
    op: str
    shape: list[int]
    weights: int
    density: float
    values: int
    weight_bits: float
    index_bits: float
    weight_bits_coded: float
    index_bits_coded: float
    bits: float
    stored_bytes: int
    codec: str
    error: float | None = None


def layer_rows(mod: tvm.IRModule, contents: Contents, errors: Mapping[str, float] | None = None) -> list[LayerRow]:
    """A row for every layer with constant weights, of a float or QDQ module and its file. errors : by layer name."""
    stored = {(array.shape, array.dtype.name, array.tobytes()): one for array, one in contents.constants}
    values = {var: value for var, value in bindings_of(main_of(mod))}
    rows = []
    for var, value in values.items():
        if op_name(value) not in LINEAR:
            continue
        weight = value.args[1]
        held = values.get(weight)
        if held is not None and op_name(held) == "relax.dequantize":
            weight = held.args[0]
        if not isinstance(weight, Constant):
            continue
        array = array_of(weight)
        one = stored[array.shape, array.dtype.name, array.tobytes()]
        rows.append(
            _row(
                var.name,
                op_name(value).removeprefix("relax.nn.").removeprefix("relax."),
                array,
                one,
                (errors or {}).get(var.name),
            )
        )
    return rows


def _row(name: str, op: str, array: np.ndarray, one, error: float | None) -> LayerRow:
    table, codes = np.unique(array, return_inverse=True)
    zero = np.searchsorted(table, 0)
    has_zero = zero < table.size and table[zero] == 0
    folded = np.where(array.ravel() == 0, 0, codes.ravel() - (codes.ravel() > zero) * has_zero + 1)
    nonzero = int(np.count_nonzero(folded))
    run_bits = RUN_BITS["conv" in op]
    runs, entries = padded(folded, run_bits)
    values = int(table.size - has_zero)
    per = max(nonzero, 1)
    return LayerRow(
        name=name,
        op=op,
        shape=list(array.shape),
        weights=array.size,
        density=nonzero / array.size,
        values=values,
        weight_bits=max(1, math.ceil(math.log2(max(values, 1)))) * entries.size / per,
        index_bits=run_bits * runs.size / per,
        weight_bits_coded=_huffman_bits(entries) / per,
        index_bits_coded=_huffman_bits(runs) / per,
        bits=8 * len(one.data) / array.size,
        stored_bytes=len(one.data),
        codec=one.codec.lower() or one.form.name.lower(),
        error=error,
    )


def _huffman_bits(symbols: np.ndarray) -> int:
    """Bits of all symbols in a Huffman code of their own, without its table."""
    _, counts = np.unique(symbols, return_counts=True)
    if counts.size < 2:
        return symbols.size
    return int((counts * bounded_lengths(counts)).sum())
