"""Lowering of operators whose input or result has 16 bits (TFLite int16x8, ONNX QDQ with 16-bit activations).

Layers, sums and products are within 1 LSB of the float QDQ form, as with 8 bits. Tables have the fewest entries with
which every one of the 65,536 values comes within 1 LSB of the operator's own, straight lines between them."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS
from tvm_ergo.relay_passes.micro.lower_context import (
    NEEDS_INT8,
    CannotLower,
    Context,
    Quant,
    Value,
    clamp_either,
    multiplier,
)
from tvm_ergo.relay_passes.support import elementwise, linear, spatial
from tvm_ergo.relay_passes.support.epilogue import CLAMPS, bounds_of, clamp_bounds
from tvm_ergo.relay_passes.support.rule import Group
from tvm_ergo.target.isa.int16 import SUM_LIMIT
from tvm_ergo.target.machine import kernels
from tvm_ergo.target.numerics import MAX_SHIFT

KNOWN = (
    linear.Conv2d,
    linear.Dense,
    elementwise.BinaryElementwise,
    elementwise.UnaryTable,
    spatial.Resize2d,
    *spatial.AVERAGES,
)
"""Rules with a form in 16 bits; all movement has one."""
NO_SUMS = (
    "it reads 16 bits and its result is not quantized: sums of 40 bits do not leave the chip",
    "quantize its result in the model",
)
CODES = np.arange(-32768, 32768)
STEPS = range(11, -1, -1)
"""Bits between two entries of a table, from 33 entries to one each."""


def concerned(ctx: Context, group: Group, out: Quant | None) -> bool:
    """Whether an input, or the result, has 16 bits."""
    wide = any(v in ctx.int8 and ctx.int8[v].quant.wide for v in group.inputs)
    return wide or (out is not None and out.wide)


def require_known(ctx: Context, group: Group, out: Quant | None) -> None:
    """Errors: CannotLower for operators that have no form in 16 bits."""
    if group.copies or group.rule in KNOWN:
        return
    if any(v in ctx.int8 and ctx.int8[v].quant.wide for v in group.inputs) or (out is not None and out.wide):
        raise CannotLower(f"the chip has no {group.op.removeprefix('nn.')} of 16 bits", NEEDS_INT8)


def from_uint16(builder: relax.BlockBuilder, expr: relax.Expr, name: str) -> relax.Expr:
    """int16 of uint16 integers, shifted by 32768, on the host: the chip's elements are signed."""
    wide = builder.emit(relax.op.astype(expr, "int32"), name_hint=f"{name}_int32")
    moved = builder.emit(relax.op.subtract(wide, relax.const(np.int32(32768))), name_hint=f"{name}_moved")
    return builder.emit(relax.op.astype(moved, "int16"), name_hint=f"{name}_to_int16")


def to_uint16(builder: relax.BlockBuilder, expr: relax.Expr, name: str) -> relax.Expr:
    """The other way."""
    wide = builder.emit(relax.op.astype(expr, "int32"), name_hint=f"{name}_int32")
    moved = builder.emit(relax.op.add(wide, relax.const(np.int32(32768))), name_hint=f"{name}_moved")
    return builder.emit(relax.op.astype(moved, "uint16"), name_hint=f"{name}_to_uint16")


def prove_sums(weights, in_zp: int) -> None:
    """No input can exceed CONV_16's sums: by the largest weights, as the instruction itself asks. Errors:
    CannotLower."""
    products = weights.ints[0].size
    largest = max(127 - weights.zero_point, weights.zero_point + 128)
    worst = products * largest * max(32767 - in_zp, in_zp + 32768) + 2**31
    if worst >= SUM_LIMIT:
        raise CannotLower(
            f"its sums of {products} products of 16 bits may exceed 40 bits", "split the layer along its input channels"
        )


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


def lower_binary(ctx: Context, group: Group, out: Quant) -> relax.Expr:
    """Sums, differences, products; a division by a constant is a product."""
    if group.op not in ("add", "subtract", "multiply"):
        raise CannotLower(f"the chip has no {group.op} of 16 bits", NEEDS_INT8)
    a, b = (_operand(ctx, arg) for arg in ctx.view.value[group.root].args)
    fields = {"a_zp": a.quant.zero_point, "b_zp": b.quant.zero_point}
    fields |= clamp_either(bounds_of(ctx.view, group.members), out)
    if group.op == "multiply":
        op = dialect.Mul16(**fields, **multiplier(a.quant.scale * b.quant.scale / out.scale))
    else:
        sign = 1.0 if group.op == "add" else -1.0
        op = dialect.Add16(**fields, **add_multipliers(a.quant.scale / out.scale, sign * b.quant.scale / out.scale))
    return ctx.emit(op, a.expr, b.expr, quant=out)


def _operand(ctx: Context, expr: relax.Expr) -> Value:
    const = None if expr in ctx.int8 else ctx.view.const(expr)
    return ctx.value(expr) if const is None else ctx.constant(const, wide=True)


def split_zero(zero_point: int) -> tuple[int, int]:
    """``high, low`` of 8 bits with ``256 * high + low`` the zero point. Errors: CannotLower."""
    high = (zero_point + 128) >> 8
    if high > 127:
        raise CannotLower("its zero point is beyond 32639", NEEDS_INT8)
    return high, zero_point - 256 * high


def lower_table(ctx: Context, group: Group, x: Value, out: Quant) -> relax.Expr:
    """Clamps by RESCALE_16, all else by TABLE_16."""
    if all(ctx.view.op(m) in CLAMPS for m in group.members) and _clamped(ctx, group):
        bounds = bounds_of(ctx.view, (group.inputs[0], *group.members))
        scale = multiplier(x.quant.scale / out.scale)
        op = dialect.Rescale16(in_zp=x.quant.zero_point, **scale, **clamp_either(bounds, out))
        return ctx.emit(op, x.expr, quant=out)
    real = elementwise.UnaryTable.evaluate(ctx.view, group, x.quant.real(CODES))
    if np.ndim(real) > 1:
        raise CannotLower("it has a constant a channel, and a table of 16 bits serves all", NEEDS_INT8)
    wanted = np.broadcast_to(out.codes(real), CODES.shape).astype(np.int64)
    lut, step = shortest_table(wanted)
    op = dialect.Table16(step=step, wide=out.wide)
    return ctx.emit(op, x.expr, relax.const(lut), quant=out)


def _clamped(ctx: Context, group: Group) -> bool:
    before = (group.inputs[0], *group.members)
    return all(clamp_bounds(ctx.view, var, source) is not None for source, var in zip(before, before[1:]))


def shortest_table(wanted: np.ndarray) -> tuple[np.ndarray, int]:
    """``(lut int16, step)``: the fewest entries of ``wanted`` int64[65536] with which TABLE_16 comes within 1 of all of
    it."""
    padded = np.append(wanted, 2 * wanted[-1] - wanted[-2])
    low, high = wanted.min(), wanted.max()
    for step in STEPS:
        lut = np.clip(padded[:: 1 << step], low, high).astype(np.int16)
        found = kernels.table_16(CODES.astype(np.int16), lut, step=step)
        if np.abs(found.astype(np.int64) - wanted).max() <= (1 if step else 0):
            break
    return lut, step
