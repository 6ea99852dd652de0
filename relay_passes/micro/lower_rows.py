"""Lowering of operators on whole rows and of squared differences.

Running sums are exact products, largest elements exact; shares of a sum differ by at most 1 LSB (ties), logarithms of a
softmax too (exponentials of 22 bits, logarithms of 16), squared differences too (a difference of 15 bits)."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro.lower_context import (
    Context,
    Quant,
    clamp_codes,
    dividing_multiplier,
    lowers,
    multiplier,
)
from tvm_ergo.relay_passes.micro.lower_elementwise import add_multipliers
from tvm_ergo.relay_passes.micro.lower_extreme import axis_last
from tvm_ergo.relay_passes.micro.lower_linear import reshape
from tvm_ergo.relay_passes.support import extreme, rows
from tvm_ergo.relay_passes.support.epilogue import bounds_of
from tvm_ergo.relay_passes.support.view import static_shape

CODES = np.arange(-128, 128)
LOG_PARTS = 1 << 16
"""Steps of LOG_SOFTMAX's logarithm in a factor of two."""


def _back(ctx: Context, made: relax.Expr, order: tuple[int, ...], quant: Quant | None) -> relax.Expr:
    """``made`` with its axes where they were."""
    return made if order == tuple(range(len(order))) else ctx.emit(dialect.Transpose(perm=order), made, quant=quant)


@lowers(rows.CumulativeSum)
def lower_cumulative_sum(ctx: Context, group, out: Quant) -> relax.Expr:
    """A 1x1 convolution with ones below the diagonal."""
    attrs, x = ctx.view.value[group.root].attrs, ctx.value(group.inputs[0])
    turned, back = axis_last(ctx, x.expr, int(attrs.axis) % len(static_shape(group.root)), x.quant)
    shape = static_shape(turned)
    length = shape[-1]
    flat = reshape(ctx, turned, (1, 1, math.prod(shape[:-1]), length), x.quant)
    ones = np.tri(length, k=-1 if bool(attrs.exclusive) else 0, dtype=np.int8).reshape(length, 1, 1, length)
    scale = multiplier(x.quant.scale / out.scale)
    vectors = [
        np.zeros(length, np.int32),
        np.full(length, scale["mult"], np.int32),
        np.full(length, scale["shift"], np.int8),
    ]
    op = dialect.Conv2d(
        strides=(1, 1),
        padding=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=1,
        in_zp=x.quant.zero_point,
        w_zp=0,
        **clamp_codes(bounds_of(ctx.view, group.members), out),
    )
    sums = ctx.emit(op, flat, relax.const(ones), *(relax.const(v) for v in vectors), quant=out)
    return _back(ctx, reshape(ctx, sums, shape, out), back, out)


@lowers(rows.LogSoftmax)
def lower_log_softmax(ctx: Context, group, out: Quant) -> relax.Expr:
    x = ctx.value(group.inputs[0])
    axis = int(ctx.view.value[group.root].attrs.axis) % len(static_shape(group.root))
    turned, back = axis_last(ctx, x.expr, axis, x.quant)
    lut = np.rint(2.0**22 * np.exp(-x.quant.scale * np.arange(256))).astype(np.int32)
    factors = x.quant.scale / out.scale, math.log(2) / LOG_PARTS / out.scale
    shift = int(np.clip(math.floor(math.log2((2**30 - 1) / max(factors))), 0, 40))
    x_mult, log_mult = (min(round(f * 2.0**shift), 2**30 - 1) for f in factors)
    op = dialect.LogSoftmax(x_mult=x_mult, log_mult=log_mult, shift=shift)
    return _back(ctx, ctx.emit(op, turned, relax.const(lut), quant=out), back, out)


def _top(ctx: Context, group, positions: bool, quant: Quant | None) -> relax.Expr:
    """The least elements are the largest of the codes' complements, which are in the other order."""
    attrs, x = ctx.view.value[group.root].attrs, ctx.value(group.inputs[0])
    shape = static_shape(group.inputs[0])
    turned, back = axis_last(ctx, x.expr, int(attrs.axis) % len(shape), x.quant)
    complement = (~CODES).astype(np.int8)
    if not bool(attrs.largest):
        turned = ctx.table(turned, complement, None)
    k = static_shape(group.output)[int(attrs.axis)]
    found = ctx.emit(dialect.TopK(k=k, positions=positions), turned, quant=quant)
    if not bool(attrs.largest) and not positions:
        found = ctx.table(found, complement, quant)
    return _back(ctx, found, back, quant)


@lowers(rows.TopValues)
def lower_top_values(ctx: Context, group, out: Quant) -> relax.Expr:
    x = ctx.value(group.inputs[0])
    found = _top(ctx, group, False, x.quant)
    if x.quant == out:
        return found
    return ctx.table(found, out.codes(x.quant.real(CODES)), out)


@lowers(rows.TopPositions)
def lower_top_positions(ctx: Context, group, out: Quant | None = None) -> relax.Expr:
    return _top(ctx, group, True, None)


@lowers(rows.ShareOfSum)
def lower_share_of_sum(ctx: Context, group, out: Quant) -> relax.Expr:
    """Magnitudes are codes from -128 on. A softmax whose table gives the magnitudes back divides by their sum: one
    element more, of code 127, is the largest of every row and counts as nearly nothing. The share has ``out``'s scale,
    and the sign comes back by a product."""
    x = ctx.value(group.inputs[0])
    _, axis, _ = extreme.sum_along(ctx.view, group.root, magnitudes=True)
    turned, back = axis_last(ctx, x.expr, axis, x.quant)
    shape = static_shape(turned)
    length = shape[-1]
    steps = CODES - x.quant.zero_point
    held = np.minimum(np.abs(steps), 254)  # 255 is the added element's code
    sizes = ctx.table(turned, (held - 128).astype(np.int8), None)
    more = ctx.emit(dialect.Pad(pad_width=(0, 0) * (len(shape) - 1) + (0, 1), value=127), sizes)
    lut = np.array([1, *(254 - np.arange(255) << 14)], np.int32)
    unsigned = Quant(out.scale, -128)
    shares = ctx.emit(
        dialect.Softmax(**dividing_multiplier(1.0 / out.scale, int(lut.max()) * length)),
        more,
        relax.const(lut),
        quant=unsigned,
    )
    whole = ((0,) * len(shape), shape, (1,) * len(shape))
    shares = ctx.emit(dialect.Slice(begin=whole[0], end=whole[1], strides=whole[2]), shares, quant=unsigned)
    signs = ctx.table(turned, np.sign(steps).astype(np.int8), None)
    op = dialect.Mul(a_zp=-128, b_zp=0, **multiplier(1.0))
    return _back(ctx, ctx.emit(op, shares, signs, quant=out), back, out)


@lowers(rows.SquaredDifference)
def lower_squared_difference(ctx: Context, group, out: Quant) -> relax.Expr:
    """The difference in int16, over the largest it can be; ROTATE multiplies it by itself, with sines of 0."""
    difference = rows.squared_difference(ctx.view, group.root)
    a, b = (ctx.value(arg) for arg in ctx.view.value[difference].args)
    reach = sum(v.quant.scale * max(127 - v.quant.zero_point, v.quant.zero_point + 128) for v in (a, b))
    wide = Quant(reach / 32767, 0, wide=True)
    scales = add_multipliers(a.quant.scale / wide.scale, -b.quant.scale / wide.scale)
    made = ctx.emit(
        dialect.AddWide(a_zp=a.quant.zero_point, b_zp=b.quant.zero_point, **scales), a.expr, b.expr, quant=wide
    )
    shape = static_shape(made)
    odd = math.prod(shape) % 2 == 1
    if odd:
        made = ctx.emit(dialect.Concat(axis=len(shape) - 1), made, made, quant=wide)
    paired = static_shape(made)
    if paired[-1] % 2:
        made = reshape(ctx, made, (math.prod(shape) // 2, 2), wide)
    op = dialect.Rotate(
        wide=False,
        interleaved=True,
        **multiplier(wide.scale**2 / out.scale),
        **clamp_codes(bounds_of(ctx.view, group.members), out),
    )
    squares = ctx.emit(op, made, made, relax.const(np.zeros(1, np.int16)), quant=out)
    if odd:
        begin = (0,) * len(shape)
        return ctx.emit(dialect.Slice(begin=begin, end=shape, strides=(1,) * len(shape)), squares, quant=out)
    return reshape(ctx, squares, shape, out)
