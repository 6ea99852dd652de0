"""Attention block by block of queries: the matrix of scores never exists as a whole.

A block's scores are made while the vector engine works on those of the block before, so two blocks are alive at a time.
Under a causal mask a block multiplies only the keys that one of its queries sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention.values import Writer, add_fields, wide_quant
from tvm_ergo.relay_passes.micro.lower_context import Quant
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.support.view import static_shape
from tvm_ergo.target.isa.rows import EXPONENTIAL_BITS

LOG2_STEPS = math.log2(math.e) * 2**EXPONENTIAL_BITS
"""Steps of EXP_ROWS' input in one unit of a score."""
EXPONENTIALS = np.rint(2.0**15 * 2.0 ** (-np.arange(256) / 256)).astype(np.int32)
MEAN_STEPS = 2**8  # of one unit of WEIGHTED_MEAN's values
SCORE_BYTES = 1 << 16
"""Of one block's scores: beyond that the issue of its instructions is a few percent of their time, and memory is what
it costs."""
LEAST_ROWS = 8  # of a block: the pixel lanes of the tensor engine


@dataclass(frozen=True)
class Operands:
    """q int8 [..., M, D], k [..., D, K], v [..., K, N]; masks: at most one int8 tensor that broadcasts to [..., M, K];
    bias: float, the same, magnitudes up to ``reach``; offset: of a causal mask, None without."""

    q: relax.Expr
    k: relax.Expr
    v: relax.Expr
    masks: tuple[relax.Expr, ...]
    bias: np.ndarray | None
    offset: int | None
    reach: float = 0.0


def in_blocks(write: Writer, operands: Operands, fields: dict[str, dict], quant: Quant) -> relax.Expr:
    """``softmax(q k + bias) v`` [..., M, N]. fields: those of the products."""
    rows, keys = static_shape(operands.q)[-2], static_shape(operands.k)[-1]
    batch = math.prod(np.broadcast_shapes(static_shape(operands.q)[:-2], static_shape(operands.k)[:-2]))
    cuts = [
        (begin, min(begin + step, rows)) for step in [block_rows(batch, rows, keys)] for begin in range(0, rows, step)
    ]
    limits = [keys if operands.offset is None else max(1, min(keys, end + operands.offset)) for _, end in cuts]
    waiting: list[relax.Expr] = []
    means = []
    for number in range(len(cuts) + 1):
        if number < len(cuts):
            waiting.append(_scores(write, operands, *cuts[number], limits[number], fields["product"]))
        if number:
            means.append(
                _means(write, operands, waiting.pop(0), *cuts[number - 1], limits[number - 1], fields["mean"], quant)
            )
    return (
        means[0]
        if len(means) == 1
        else write.emit(dialect.Concat(axis=len(static_shape(means[0])) - 2), *means, quant=quant)
    )


def block_rows(batch: int, rows: int, keys: int) -> int:
    """Queries of a block: whole lanes, and no more bytes of scores than ``SCORE_BYTES``, of all heads together."""
    fitting = SCORE_BYTES // (2 * batch * keys)
    return rows if fitting >= rows else max(LEAST_ROWS, fitting // LEAST_ROWS * LEAST_ROWS)


def _scores(write: Writer, operands: Operands, begin: int, end: int, limit: int, fields: dict) -> relax.Expr:
    q = _cut(write, operands.q, -2, begin, end)
    made = write.emit(dialect.MatMulWide(**fields), q, _cut(write, operands.k, -1, 0, limit))
    return (
        made
        if operands.bias is None
        else with_bias(write, made, _part(_part(operands.bias, -2, begin, end), -1, 0, limit), operands.reach)
    )


def with_bias(write: Writer, scores: relax.Expr, bias: np.ndarray, largest: float) -> relax.Expr:
    """Finite summands of scores (relative positions) of magnitudes up to ``largest``, in int16."""
    scale = wide_quant(Range(-largest, largest)).scale
    op = dialect.AddWide(a_zp=0, b_zp=0, **add_fields(1.0, scale * LOG2_STEPS))
    return write.emit(op, scores, relax.const(np.ascontiguousarray(np.rint(bias / scale).astype(np.int16))))


def _means(
    write: Writer, operands: Operands, scores: relax.Expr, begin: int, end: int, limit: int, fields: dict, quant: Quant
) -> relax.Expr:
    masks = [_cut(write, _cut(write, mask, -2, begin, end), -1, 0, limit) for mask in operands.masks]
    op = dialect.ExpRows(
        causal=operands.offset is not None, offset=(operands.offset or 0) + begin if operands.offset is not None else 0
    )
    weights = write.emit(op, scores, relax.const(EXPONENTIALS), *masks)
    return write.emit(dialect.WeightedMean(**fields), weights, _cut(write, operands.v, -2, 0, limit), quant=quant)


def _part(array: np.ndarray, axis: int, begin: int, end: int) -> np.ndarray:
    """A part of an axis; all of one that is broadcast, or missing."""
    return (
        array
        if array.ndim < -axis or array.shape[axis] == 1
        else np.moveaxis(np.moveaxis(array, axis, 0)[begin:end], 0, axis)
    )


def _cut(write: Writer, tensor: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
    """As ``_part``, of a tensor on the chip: a view."""
    shape = static_shape(tensor)
    if len(shape) < -axis or shape[axis] == 1 or (begin, end) == (0, shape[axis]):
        return tensor
    starts, stops = [0] * len(shape), list(shape)
    starts[axis], stops[axis] = begin, end
    return write.emit(dialect.Slice(begin=tuple(starts), end=tuple(stops), strides=(1,) * len(shape)), tensor)
