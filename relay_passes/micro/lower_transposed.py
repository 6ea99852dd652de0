"""Transposed convolutions with groups: depthwise ones over the input with zeros between its elements, others group by
group."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro.lower_context import Context, Quant, Value
from tvm_ergo.relay_passes.relax_utils import array_of
from tvm_ergo.relay_passes.support.view import static_shape


def transposed(
    ctx: Context, op: dialect.Conv2dTranspose, x: Value, groups: int, ints: np.ndarray, vectors, out: Quant
) -> relax.Expr:
    """``op`` in ``groups`` groups. ints: int8 [O, kh, kw, C/groups]; vectors: bias, multipliers, shifts, each [O]."""
    if groups == 1:
        return ctx.emit(op, x.expr, relax.const(np.ascontiguousarray(ints)), *vectors, quant=out)
    if ints.shape[3] == 1 and len(ints) == groups:
        return _depthwise(ctx, op, x, ints, vectors, out)
    depth, units, parts = ints.shape[3], len(ints) // groups, []
    shape = static_shape(x.expr)
    for g in range(groups):
        begin, end = (0, 0, 0, g * depth), (*shape[:3], (g + 1) * depth)
        part = ctx.emit(dialect.Slice(begin=begin, end=end, strides=(1,) * 4), x.expr, quant=x.quant)
        rows = slice(g * units, (g + 1) * units)
        own = [relax.const(np.ascontiguousarray(array_of(v)[rows])) for v in vectors]
        parts.append(ctx.emit(op, part, relax.const(np.ascontiguousarray(ints[rows])), *own, quant=out))
    return ctx.emit(dialect.Concat(axis=3), *parts, quant=out)


def _depthwise(ctx: Context, op: dialect.Conv2dTranspose, x: Value, ints, vectors, out: Quant) -> relax.Expr:
    """A depthwise convolution with the mirrored kernel over the input spread out by the strides."""
    n, *size, channels = static_shape(x.expr)
    spread, quant = x.expr, x.quant
    if op.strides != (1, 1):
        (h, w), (sh, sw) = size, op.strides
        apart = ctx.emit(dialect.Reshape(shape=(n, h, 1, w, 1, channels)), spread, quant=quant)
        width = (0, 0, 0, 0, 0, sh - 1, 0, 0, 0, sw - 1, 0, 0)
        apart = ctx.emit(dialect.Pad(pad_width=width, value=op.in_zp), apart, quant=quant)
        spread = ctx.emit(dialect.Reshape(shape=(n, h * sh, w * sw, channels)), apart, quant=quant)
    before, behind = [], []
    for axis, (length, taps) in enumerate(zip(size, ints.shape[1:3])):
        reach, stride = (taps - 1) * op.dilation[axis], op.strides[axis]
        wanted = (length - 1) * stride + reach + 1 + op.output_padding[axis] - op.padding[axis] - op.padding[axis + 2]
        before.append(reach - op.padding[axis])
        behind.append(wanted + reach - before[axis] - length * stride)
    shape = static_shape(spread)
    if min(*before, *behind) < 0:  # the padding takes more off than the kernel reaches
        begin = (0, *(max(-b, 0) for b in before), 0)
        end = (n, *(shape[1 + a] - max(-behind[a], 0) for a in (0, 1)), channels)
        spread = ctx.emit(dialect.Slice(begin=begin, end=end, strides=(1,) * 4), spread, quant=quant)
    padding = tuple(max(p, 0) for p in (*before, *behind))
    fields = {k: getattr(op, k) for k in ("dilation", "in_zp", "w_zp", "lo", "hi")}
    kernel = np.ascontiguousarray(ints[:, ::-1, ::-1, 0].transpose(1, 2, 0))
    made = dialect.DepthwiseConv2d(strides=(1, 1), padding=padding, **fields)
    return ctx.emit(made, spread, relax.const(kernel), *vectors, quant=out)
