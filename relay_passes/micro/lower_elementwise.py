"""Lowering of elementwise groups.

Sums and products differ from the float QDQ form by at most 1 LSB (ties, and 21-bit multipliers: 255 * 2 * 2**-21 of the
larger scale). Tables are evaluated operator by operator in float32, as the network computes, and rounded half to even.
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS
from tvm_ergo.relay_passes.micro.lower_context import (
    CannotLower,
    Context,
    Quant,
    Value,
    clamp_codes,
    lowers,
    multiplier,
)
from tvm_ergo.relay_passes.support import elementwise
from tvm_ergo.relay_passes.support.epilogue import Bounds, bounds_of
from tvm_ergo.relay_passes.support.view import ConstTensor
from tvm_ergo.target.numerics import MAX_SHIFT


def add_multipliers(a_scale: float, b_scale: float) -> dict[str, int]:
    """``a_mult``, ``b_mult``, ``shift`` for signed scales: the largest shift with both magnitudes below 2**21.

    Errors: CannotLower where a scale is 2**21 or more.
    """
    limit = 2**ADD_MULTIPLIER_BITS - 1
    largest = max(abs(a_scale), abs(b_scale))
    shift = min(MAX_SHIFT, int(np.floor(np.log2(limit / largest)))) if largest > 0 else 0
    if shift < 0 or not np.isfinite(largest):
        raise CannotLower(
            f"its input scale is {largest:.3g} times its output scale", "check the scales of the quantized model"
        )
    while max(abs(round(a_scale * 2.0**shift)), abs(round(b_scale * 2.0**shift))) > limit:
        shift -= 1
    return {"a_mult": round(a_scale * 2.0**shift), "b_mult": round(b_scale * 2.0**shift), "shift": shift}


@lowers(elementwise.BinaryElementwise)
def lower_binary(ctx: Context, group, out: Quant) -> relax.Expr:
    first, second = ctx.view.value[group.root].args
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
    real = elementwise.UnaryTable.evaluate(ctx.view, group, x.quant.real(np.arange(-128, 128)))
    lut = out.codes(real)
    lut = np.broadcast_to(lut, (256,)) if lut.ndim == 0 else lut
    return _wide_table(ctx, x.expr, lut, out) if out.wide else ctx.table(x.expr, lut, out)


def _wide_table(ctx: Context, x: relax.Expr, lut: np.ndarray, out: Quant) -> relax.Expr:
    """int16 entries: a table of their upper bytes and one of their lower, both signed; 256 of the one and the other are
    added."""
    upper = (lut.astype(np.int32) + 128) >> 8
    upper, lower = np.minimum(upper, 127), lut - 256 * np.minimum(upper, 127)
    parts = [ctx.table(x, np.clip(part, -128, 127).astype(np.int8), None) for part in (upper, lower)]
    return ctx.emit(dialect.AddWide(a_zp=0, b_zp=0, a_mult=256, b_mult=1, shift=0), *parts, quant=out)
