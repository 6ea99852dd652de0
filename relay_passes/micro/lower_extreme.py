"""Lowering of operators on whole rows: positions of extrema (exact), unit vectors (at most 1 LSB: two roundings, the
first of 14 fraction bits of the vector's root mean square)."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Context, Quant, lowers
from tvm_ergo.relay_passes.support import extreme
from tvm_ergo.relay_passes.support.view import static_shape

NORM_BITS = 14
"""Fraction bits of what NORM multiplies with gamma."""


def axis_last(ctx: Context, x: relax.Expr, axis: int, quant: Quant) -> tuple[relax.Expr, tuple[int, ...]]:
    """``x`` with ``axis`` as its last, and the permutation back."""
    rank = len(static_shape(x))
    if axis == rank - 1:
        return x, tuple(range(rank))
    there = (*(a for a in range(rank) if a != axis), axis)
    moved = ctx.emit(dialect.Transpose(perm=there), x, quant=quant)
    return moved, tuple(int(a) for a in np.argsort(there))


@lowers(extreme.ArgExtreme)
def lower_arg_extreme(ctx: Context, group, out: Quant | None = None) -> relax.Expr:
    """int32 positions. The least element is the largest of the codes' complements, which are in the other order."""
    call, x = ctx.view.value[group.root], ctx.value(group.inputs[0])
    shape = static_shape(group.inputs[0])
    rows, _ = axis_last(ctx, x.expr, int(call.attrs.axis) % len(shape), x.quant)
    if group.op == "argmin":
        rows = ctx.table(rows, ~np.arange(-128, 128).astype(np.int8), None)
    found = ctx.emit(dialect.Argmax(), rows)
    wanted = static_shape(group.output)
    return found if static_shape(found) == wanted else ctx.emit(dialect.Reshape(shape=wanted), found)


@lowers(extreme.UnitVector)
def lower_unit_vector(ctx: Context, group, out: Quant) -> relax.Expr:
    """NORM without a mean: x over its root mean square, which is the length over the root of the number of elements."""
    x = ctx.value(group.inputs[0])
    _, axis, _ = extreme.unit_vector(ctx.view, group.root)
    rows, back = axis_last(ctx, x.expr, axis, x.quant)
    factor = 1.0 / math.sqrt(static_shape(rows)[-1]) / out.scale / 2**NORM_BITS
    shift = max(0, min(62, int(math.floor(math.log2(32767 / factor)))))
    if factor >= 2**15:
        raise CannotLower("its output scale is too small", "check the scales of the quantized model")
    op = dialect.Norm(wide=False, centre=False, in_zp=x.quant.zero_point, eps=0, eps_shift=0, beta_shift=0, shift=shift)
    gamma, beta = np.array([round(factor * 2.0**shift)], np.int16), np.zeros(1, np.int32)
    made = ctx.emit(op, rows, relax.const(gamma), relax.const(beta), quant=out)
    return made if back == tuple(range(len(back))) else ctx.emit(dialect.Transpose(perm=back), made, quant=out)
