"""Layers of the support rules in both widths: dense layers, sums, movements; all others in int8 by the rules of
``lower_quantized``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.attention.values import Value, add_fields, wide_quant
from tvm_ergo.relay_passes.micro import lower_quantized  # noqa: F401  (its import registers the shared rules)
from tvm_ergo.relay_passes.micro.lower_context import LOWERINGS, CannotLower, clamp_codes, clamp_either, multiplier
from tvm_ergo.relay_passes.micro.lower_context import Value as Narrow
from tvm_ergo.relay_passes.micro.lower_int16 import CODES, shortest_table
from tvm_ergo.relay_passes.micro.observe import Range
from tvm_ergo.relay_passes.micro.weights import BIAS_LIMIT, bias_scales, quantize_bias, quantize_weight
from tvm_ergo.relay_passes.support import elementwise, linear
from tvm_ergo.relay_passes.support.epilogue import bounds_of
from tvm_ergo.relay_passes.support.view import static_shape
from tvm_ergo.target.isa.int16 import SUM_LIMIT
from tvm_ergo.target.numerics import quantize_multipliers


def dense(low, var, group, wide: bool) -> Value:
    """A 1x1 convolution over all rows, to either width; behind a norm its weights carry the norm's factors."""
    parts = linear.Dense.parts(low.view, group)
    clamped = not (np.isneginf(parts.bounds.low) and np.isposinf(parts.bounds.high))
    wide = wide and not clamped
    x = low.value(parts.x, str(parts.x.name) in low.seen.sixteen)
    quant, shape = low.quant(var, wide), static_shape(parts.x)
    units, depth = parts.weight.shape
    bias = np.zeros(units) if parts.bias is None else np.broadcast_to(parts.bias.real().reshape(-1), (units,))
    stored, scale = _integers(low, parts, bias, x)
    ints = quantize_bias(bias, bias_scales(x.scale, scale))
    _prove_sums(x, stored, ints)
    try:
        mult, shift = quantize_multipliers(x.scale * scale.astype(np.float64) / quant.scale)
    except ValueError as error:
        raise CannotLower(str(error), "check the calibration data") from error
    rows = low.write.reshaped_to(x, (1, 1, int(np.prod(shape[:-1])), depth))
    if x.wide:
        op = dialect.Conv2d16(in_zp=0, **clamp_either(parts.bounds, replace(quant, wide=wide)))
    elif wide:
        op = dialect.Conv2dWide(in_zp=x.zero_point)
    else:
        op = dialect.Conv2d(in_zp=x.zero_point, **clamp_codes(parts.bounds, quant))
    constants = [relax.const(v) for v in (np.ascontiguousarray(stored).reshape(units, 1, 1, depth), ints, mult, shift)]
    return low.write.reshaped_to(
        low.write.made(op, rows.expr, *constants, quant=quant, wide=wide), (*shape[:-1], units), part=""
    )


def _prove_sums(x: Value, stored: np.ndarray, bias: np.ndarray) -> None:
    """Weights int8 [N, K], bias int32 [N]. Errors: CannotLower where sums can leave the accumulator of the width that
    is read."""
    if x.wide:
        reach, limit, width = 32768, SUM_LIMIT, "40 bits"
    else:
        reach, limit, width = max(127 - x.zero_point, 128 + x.zero_point), 2**31, "int32"
    if int((np.abs(stored.astype(np.int64)).sum(axis=1) * reach + np.abs(bias.astype(np.int64))).max()) >= limit:
        raise CannotLower(f"its accumulator can leave {width}", "split the layer along its input channels")


def _integers(low, parts, bias: np.ndarray, x: Value) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights [N, K] and a scale a channel [N]: those that there are, where they are integers already and nothing
    is to be moved into them."""
    weight, input_scale = parts.weight, x.scale
    factors = np.ones(1) if x.wide else low.migration(parts.x)
    if weight.stored.dtype == np.int8 and (weight.per_tensor or weight.scale is not None and weight.axis == 0):
        scale = np.broadcast_to(weight.scale.astype(np.float32), (len(bias),))
        kept = not weight.zero_point.any() and (factors == 1).all() and (weight.stored > -128).all()
        if kept and (np.abs(bias) <= BIAS_LIMIT * input_scale * scale.astype(np.float64)).all():
            return weight.stored, scale
    return quantize_weight(weight.real() * factors, 0, low.weight_scale, bias, input_scale)


def curve(low, var, group, wide: bool) -> Value:
    """A function of one tensor: from int16 to int16 where its readers want that (`sixteen`), else in int8."""
    if str(var.name) not in low.seen.sixteen:
        return shared_rule(low, var, group)
    x, quant = low.value(group.inputs[0], True), low.quant(var, True)
    real = elementwise.UnaryTable.evaluate(low.view, group, x.quant.real(CODES))
    if np.ndim(real) > 1:  # a table of 16 bits serves all channels
        return shared_rule(low, var, group)
    lut, step = shortest_table(np.clip(np.rint(real / quant.scale), -32768, 32767).astype(np.int64))
    return low.write.made(dialect.Table16(step=step, wide=True), x.expr, relax.const(lut), quant=quant, wide=True)


def binary(low, var, group, wide: bool) -> Value:
    """Sums of int16 tensors, in int16; products where their readers want that (`sixteen`); everything else in int8."""
    bounds = bounds_of(low.view, group.members)
    if group.op == "multiply" and str(var.name) in low.seen.sixteen:
        return _product(low, var, group, bounds)
    if (
        group.op not in ("add", "subtract")
        or not (np.isneginf(bounds.low) and np.isposinf(bounds.high))
        or low.view.value[group.root].args[0] == low.view.value[group.root].args[1]
    ):
        return shared_rule(low, var, group)
    quant = low.quant(var, True)
    a, b = (_summand(low, group.root, place) for place in (0, 1))
    fields = add_fields(a.scale / quant.scale, (1 if group.op == "add" else -1) * b.scale / quant.scale)
    return low.write.made(
        dialect.AddWide(a_zp=a.zero_point, b_zp=b.zero_point, **fields), a.expr, b.expr, quant=quant, wide=True
    )


def _product(low, var, group, bounds) -> Value:
    """From int16 to int16."""
    a, b = (low.value(arg, True) for arg in low.view.value[group.root].args)
    quant = low.quant(var, True)
    fields = clamp_either(bounds, replace(quant, wide=True)) | multiplier(a.scale * b.scale / quant.scale)
    op = dialect.Mul16(a_zp=a.zero_point, b_zp=b.zero_point, **fields)
    return low.write.made(op, a.expr, b.expr, quant=quant, wide=True)


def _summand(low, var, place: int) -> Value:
    """The ``place``-th operand of the sum bound to ``var``; a constant in the scale that it has for all tokens."""
    expr = low.view.value[var].args[place]
    const = low.view.const(expr)
    if const is None:
        return low.value(expr, True)
    whole = low.whole_constant(var, place).real()
    quant = wide_quant(Range(float(whole.min()), float(whole.max())))
    return Value(low.rows_of(var, whole, const.real(), lambda v: wide_codes(v, quant)), quant, True)


def wide_codes(real: np.ndarray, quant) -> np.ndarray:
    return np.clip(np.rint(real / quant.scale), -32768, 32767).astype(np.int16)


LAYERS = {linear.Dense: dense, elementwise.BinaryElementwise: binary, elementwise.UnaryTable: curve}


def carry(low, group, wide: bool) -> Value:
    """A movement, in the width asked for; what a concat joins gets the scale of its result."""
    inputs = {v: low.value(v, wide) for v in group.inputs}
    constants = group.op in ("concat", "stack") and any(
        low.view.const(f) is not None for f in low.view.fields(low.view.value[group.root].args[0])
    )
    if wide and constants:
        return carry(low, group, False)
    first = next(iter(inputs.values()))
    quant = first.quant if len(inputs) == 1 and not constants else low.quant(group.output, wide)
    return Value(_by_shared_rule(low, group, inputs, quant), quant, wide)


def transposed(low, var, wide: bool) -> Value:
    value, rank = low.value(low.view.value[var].args[0], wide), len(static_shape(var))
    axes = low.view.value[var].attrs.axes
    perm = tuple(int(a) % rank for a in axes) if axes is not None else tuple(range(rank))[::-1]
    return low.write.made(dialect.Transpose(perm=perm), value.expr, quant=value.quant, wide=wide)


def shared_rule(low, var, group) -> Value:
    """In int8, by the rule that QDQ networks are lowered with."""
    inputs = {v: low.value(v, False) for v in group.inputs}
    quant = low.quant(var, False)
    return Value(_by_shared_rule(low, group, inputs, quant), quant, False)


def _by_shared_rule(low, group, inputs: dict, quant) -> relax.Expr:
    write = low.write
    write.int8.update({v: Narrow(value.expr, value.quant) for v, value in inputs.items()})
    before, write.group = write.group, group
    try:
        return LOWERINGS[group.rule](write, group, quant)
    finally:
        write.group = before
