"""Lowering of elementwise groups.

Sums and products differ from the float QDQ form by at most 1 LSB (ties, and 21-bit multipliers: 255 * 2 * 2**-21 of the
larger scale). Tables are evaluated operator by operator in float32, as the network computes, and rounded half to even.
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro import lower_int16
from tvm_ergo.relay_passes.micro.lower_context import Context, Quant, Value, clamp_codes, lowers, multiplier
from tvm_ergo.relay_passes.micro.lower_int16 import add_multipliers
from tvm_ergo.relay_passes.support import elementwise
from tvm_ergo.relay_passes.support.epilogue import Bounds, bounds_of
from tvm_ergo.relay_passes.support.view import ConstTensor


@lowers(elementwise.BinaryElementwise)
def lower_binary(ctx: Context, group, out: Quant) -> relax.Expr:
    first, second = ctx.view.value[group.root].args
    if lower_int16.concerned(ctx, group, out):
        return lower_int16.lower_binary(ctx, group, out)
    if group.op == "divide":
        second = _reciprocal(ctx.view.const(second))
    a = ctx.value(first)
    b = ctx.constant(second) if isinstance(second, ConstTensor) else ctx.value(second)
    bounds = bounds_of(ctx.view, group.members)
    if group.op in ("maximum", "minimum"):
        return _extremum(ctx, group.op, a, b, out, bounds)
    clamp = clamp_codes(bounds, out)
    zero_points = {"a_zp": a.quant.zero_point, "b_zp": b.quant.zero_point}
    if group.op in ("add", "subtract"):
        sign = 1.0 if group.op == "add" else -1.0
        scales = add_multipliers(a.quant.scale / out.scale, sign * b.quant.scale / out.scale)
        return ctx.emit(dialect.Add(**zero_points, **scales, **clamp), a.expr, b.expr, quant=out)
    return ctx.emit(
        dialect.Mul(**zero_points, **multiplier(a.quant.scale * b.quant.scale / out.scale), **clamp),
        a.expr,
        b.expr,
        quant=out,
    )


def _reciprocal(const: ConstTensor) -> ConstTensor:
    return ConstTensor(1.0 / const.real())


def _extremum(ctx: Context, name: str, a: Value, b: Value, out: Quant, bounds: Bounds) -> relax.Expr:
    """Rounding is monotone: the extremum of requantized operands is the requantized extremum."""
    op = dialect.Maximum() if name == "maximum" else dialect.Minimum()
    result = ctx.emit(op, ctx.requantize(a, out), ctx.requantize(b, out), quant=out)
    clamp = clamp_codes(bounds, out)
    if (clamp["lo"], clamp["hi"]) == (-128, 127):
        return result
    return ctx.table(result, np.clip(np.arange(-128, 128), clamp["lo"], clamp["hi"]).astype(np.int8), out)


@lowers(elementwise.UnaryTable)
def lower_table(ctx: Context, group, out: Quant) -> relax.Expr:
    x = ctx.value(group.inputs[0])
    if x.quant.wide:
        return lower_int16.lower_table(ctx, group, x, out)
    real = elementwise.UnaryTable.evaluate(ctx.view, group, x.quant.real(np.arange(-128, 128)))
    lut = out.codes(real)
    lut = np.broadcast_to(lut, (256,)) if lut.ndim == 0 else lut
    return _wide_table(ctx, x.expr, lut, out) if out.wide else ctx.table(x.expr, lut, out)


def _wide_table(ctx: Context, x: relax.Expr, lut: np.ndarray, out: Quant) -> relax.Expr:
    """int16 entries: a table of their upper bytes and one of their lower, both signed; 256 of the one and the other are
    added."""
    upper = (lut.astype(np.int32) + 128) >> 8
    upper, lower = np.minimum(upper, 127), lut - 256 * np.minimum(upper, 127)
    high, low = lower_int16.split_zero(out.zero_point)
    parts = [ctx.table(x, np.clip(part, -128, 127).astype(np.int8), None) for part in (upper, lower)]
    kind = dialect.Add16 if out.zero_point else dialect.AddWide
    return ctx.emit(kind(a_zp=high, b_zp=low, a_mult=256, b_mult=1, shift=0), *parts, quant=out)
