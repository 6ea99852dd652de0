"""Lowering of a network's end in 16 bits (`wide_tail`): with one scale by the rules of all groups, to int16; where each
tensor joined has a scale of its own as movement of int16 codes, which are scaled element by element behind the
chip."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate_call
from tvm_ergo.relay_passes.micro.lower_context import LOWERINGS, CannotLower, Context, Quant, Value
from tvm_ergo.relay_passes.micro.wide_tail import MIXED
from tvm_ergo.relay_passes.support import movement
from tvm_ergo.relay_passes.support.rule import Group
from tvm_ergo.relay_passes.support.view import static_shape

CODES = Quant(0.0, 0, True)
"""Codes whose scales differ: reports find no scale in them."""


def quant_of(ctx: Context, wide: dict[str, float], group: Group) -> Quant | None:
    """The quantization of a result that has 16 bits and one scale, where its inputs are on the chip."""
    scale = wide.get(str(group.output.name), MIXED)
    return None if scale == MIXED or any(v not in ctx.int8 for v in group.inputs) else Quant(scale, 0, True)


def lower_mixed(ctx: Context, wide: dict[str, float], group: Group) -> bool:
    """A movement of tensors that keep scales of their own; False where it is none, or an input is not on the chip.

    Errors: CannotLower where it brings in constants.
    """
    if wide.get(str(group.output.name)) != MIXED or any(v not in ctx.int8 for v in group.inputs):
        return False
    if not _brings_nothing(ctx, group):
        raise CannotLower(
            "it joins constants to results of different scales",
            "none needed: it moves results behind the last arithmetic, and costs no accuracy",
        )
    before, ctx.group = {v: ctx.int8[v] for v in group.inputs}, group
    parts = {v: _codes(ctx, value, static_shape(v)) for v, value in before.items()}
    ctx.int8.update(parts)
    try:
        moved = LOWERINGS[group.rule](ctx, group, CODES)
    finally:
        ctx.int8.update(before)
    ctx.int8[group.output] = Value(moved, CODES, _units(ctx, group, parts))
    return True


def _brings_nothing(ctx: Context, group: Group) -> bool:
    call = ctx.view.value[group.root]
    if group.rule is movement.Pad and str(call.attrs.pad_mode) == "constant":
        return float(call.attrs.pad_value) == 0.0
    return group.op not in ("concat", "stack") or all(ctx.view.const(f) is None for f in ctx.view.fields(call.args[0]))


def _codes(ctx: Context, value: Value, shape: tuple[int, ...]) -> Value:
    """int16 codes without zero point (of int8 exactly), and what each is worth."""
    if value.units is not None:
        return value
    own = Quant(value.quant.scale, 0, True)
    return Value(ctx.requantize(value, own), CODES, np.full(shape, value.quant.scale, np.float32))


def _units(ctx: Context, group: Group, parts: dict[relax.Var, Value]) -> np.ndarray:
    """The inputs' units, moved as the group moves its tensors."""
    env = {v: value.units for v, value in parts.items()}

    def evaluated(expr):
        if isinstance(expr, relax.Var) and expr in env:
            return env[expr]
        value = ctx.view.value[expr] if isinstance(expr, relax.Var) else expr
        if isinstance(value, relax.Tuple):
            return tuple(evaluated(f) for f in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return evaluated(value.tuple_value)[int(value.index)]
        if isinstance(value, relax.ShapeExpr):
            return tuple(int(d) for d in value.values)
        if isinstance(value, relax.Call):
            return evaluate_call(value, [evaluated(a) for a in value.args])
        return value.value if not (const := ctx.view.const(value)) else const.stored

    return np.ascontiguousarray(evaluated(group.output), np.float32)


def real(ctx: Context, value: Value, name: str) -> relax.Expr:
    """What a tensor of different scales leaves the chip as: float32, scaled by the smallest constant that does it."""
    units = value.units
    for axis in range(units.ndim):
        first = units.take([0], axis)
        units = first if (units == first).all() else units
    codes = ctx.builder.emit(relax.op.astype(value.expr, "float32"), name_hint=f"{name}_codes")
    return ctx.builder.emit(relax.op.multiply(codes, relax.const(units)), name_hint=name)
