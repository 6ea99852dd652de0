"""Lowering of layers with constant weights and of products of activations.

Difference from the float QDQ form: the accumulator is exact here, while the float form rounds sums; the scale is a
float32 times a float32, kept to 24 bits; ties round up here and to even there. Together at most 1 LSB, where the exact
result lies within float rounding of a tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro import lower_int16
from tvm_ergo.relay_passes.micro.lower_context import (
    CannotLower,
    Context,
    Note,
    Quant,
    clamp_codes,
    clamp_either,
    lowers,
    multiplier,
)
from tvm_ergo.relay_passes.micro.lower_transposed import transposed
from tvm_ergo.relay_passes.micro.structured_scales import structured_scale
from tvm_ergo.relay_passes.support import linear
from tvm_ergo.relay_passes.support.view import ConstTensor, static_shape
from tvm_ergo.target.numerics import quantize_multipliers

BIAS_LIMIT = 2**30
"""Magnitude of the bias of a channel that had to be rescaled: the other half of int32 is left to the products."""
NEEDS_INT8_WEIGHTS = "quantize the weights to 8 bits (activations may keep 16)"
BIAS_SCALE_TOLERANCE = 1e-6
"""A stored int32 bias is taken as it is when its scale is float32(s_in * s_w): 8 times float32's rounding."""


@dataclass(frozen=True)
class Weights:
    """Integers of a linear layer. ints: int8 [O, ...], scale: float64 [O], bias: int64 [O]."""

    ints: np.ndarray
    zero_point: int
    scale: np.ndarray
    bias: np.ndarray
    rescaled: int


def quantize_weights(
    weight: ConstTensor, bias: ConstTensor | None, in_scale: float, in_zp: int = 0, wide: bool = False
) -> Weights:
    """int8 weights per output channel (axis 0) and the bias at ``in_scale * scale``.

    Float weights become symmetric int8 over each channel's largest magnitude, or on the grid they lie on
    (`structured_scales`). A channel that would overflow int32 because of its bias (its weights are nearly nothing
    beside it) gets a coarser scale: its weights lose low bits that cannot reach the output. ``wide``: the input is
    int16, whose sums have 40 bits; only the bias itself must fit int32. Errors: CannotLower for weights of more than
    8 bits."""
    channels = weight.shape[0]
    if weight.scale is None:
        real = weight.real()
        peak, structured = np.abs(real.reshape(channels, -1)).max(axis=1), structured_scale(real)
        scale = (
            (np.where(peak > 0, peak / 127, 1.0) if structured is None else structured)
            .astype(np.float32)
            .astype(np.float64)
        )
        ints, zero_point = np.clip(np.rint(real / _spread(scale, real)), -127, 127).astype(np.int64), 0
    else:
        if weight.stored.dtype.itemsize != 1:
            raise CannotLower(
                f"its weights are {weight.stored.dtype}, and those of the chip are int8", NEEDS_INT8_WEIGHTS
            )
        shift = 128 if weight.stored.dtype == np.uint8 else 0
        scale = np.broadcast_to(weight.scale.astype(np.float64), (channels,)).copy()
        ints, zero_point = weight.stored.astype(np.int64) - shift, int(weight.zero_point[0]) - shift
    steps = _bias_steps(bias, in_scale * scale)
    overflows = np.abs(steps) + (0 if wide else _reach(ints, zero_point, in_zp)) >= 2**31
    factor = np.where(overflows, np.maximum(np.abs(steps) / BIAS_LIMIT, 1.0), 1.0)
    if (factor > 1).any():
        ints = np.rint((ints - zero_point) / _spread(factor, ints)).astype(np.int64) + zero_point
        scale, steps = scale * factor, steps / factor
    return Weights(ints.astype(np.int8), zero_point, scale, np.rint(steps).astype(np.int64), int((factor > 1).sum()))


def _spread(vector: np.ndarray, like: np.ndarray) -> np.ndarray:
    return vector.reshape([-1] + [1] * (like.ndim - 1))


def _bias_steps(bias: ConstTensor | None, scale: np.ndarray) -> np.ndarray:
    """The bias in units of ``scale`` float64 [O]: as stored where its own scale is that, else real / scale."""
    if bias is None:
        return np.zeros(scale.shape)
    if bias.scale is not None and bias.stored.dtype == np.int32 and not bias.zero_point.any():
        stored_scale = np.broadcast_to(bias.scale.astype(np.float64), scale.shape)
        if (np.abs(stored_scale - scale) <= BIAS_SCALE_TOLERANCE * scale).all():
            return np.broadcast_to(bias.stored.astype(np.float64), scale.shape)
    return np.broadcast_to(bias.real(), scale.shape) / scale


def _reach(ints: np.ndarray, zero_point: int, in_zp: int) -> np.ndarray:
    """The largest magnitude the products of each channel can sum to, int64 [O]."""
    taps = np.abs(ints.astype(np.int64) - zero_point).reshape(len(ints), -1).sum(axis=1)
    return taps * max(127 - in_zp, in_zp + 128)


def prove_accumulator(weights: Weights, in_zp: int) -> None:
    """No input can overflow the int32 accumulator: ``|bias| + sum|w - w_zp| * max|x - in_zp| < 2**31``, else
    CannotLower."""
    worst = int((np.abs(weights.bias) + _reach(weights.ints, weights.zero_point, in_zp)).max())
    if worst >= 2**31:
        raise CannotLower(
            f"its accumulator can reach {worst}, beyond int32 ({2**31 - 1})", "split the layer along its input channels"
        )


def _prepare(
    ctx: Context, group, out: Quant, x_quant: Quant, parts
) -> tuple[Weights, list[relax.Expr], dict[str, int]]:
    """Weights, the bias/mult/shift tensors, and the common scalar fields."""
    wide = x_quant.wide
    weights = quantize_weights(parts.weight, parts.bias, x_quant.scale, x_quant.zero_point, wide)
    (lower_int16.prove_sums if wide else prove_accumulator)(weights, x_quant.zero_point)
    if weights.rescaled:
        ctx.notes.append(
            Note(group.name, f"{weights.rescaled} channels with negligible weights rescaled so that their bias fits")
        )
    try:
        mult, shift = quantize_multipliers(x_quant.scale * weights.scale / out.scale)
    except ValueError as error:
        raise CannotLower(str(error), "check the scales of the quantized model") from error
    vectors = [relax.const(weights.bias.astype(np.int32)), relax.const(mult), relax.const(shift)]
    ends = clamp_either(parts.bounds, out) if _in_16(x_quant, parts, out) else clamp_codes(parts.bounds, out)
    return weights, vectors, {"in_zp": x_quant.zero_point, "w_zp": weights.zero_point, **ends}


def _in_16(x_quant: Quant, parts, out: Quant) -> bool:
    """Whether it takes the instruction whose input or result have 16 bits with a zero point or bounds of their own."""
    open_ended = np.isneginf(parts.bounds.low) and np.isposinf(parts.bounds.high)
    return x_quant.wide or out.wide and (out.zero_point != 0 or not open_ended)


def lower_wide(ctx: Context, group) -> tuple[relax.Expr, np.ndarray, tuple[int, ...]] | None:
    """A convolution or dense layer whose result nothing quantizes: ``(int32 accumulators, real value of one unit per
    channel, shape)``.

    Logits and box regressions leave the chip so: with 8 bits, 1,000 logits put the best two on one level in 4
    (ResNet-18) and 5 (MobileNetV2) of the first 200 images of imagenet_nips17. None for other layers, and for those
    with a clip. Errors: CannotLower as for the quantized form."""
    if group.rule not in (linear.Conv2d, linear.Dense):
        return None
    parts = group.rule.parts(ctx.view, group)
    if not (np.isneginf(parts.bounds.low) and np.isposinf(parts.bounds.high)):
        return None
    x, shape = ctx.value(parts.x), static_shape(parts.x)
    if x.quant.wide:
        raise CannotLower(*lower_int16.NO_SUMS)
    weights = quantize_weights(parts.weight, parts.bias, x.quant.scale, x.quant.zero_point)
    prove_accumulator(weights, x.quant.zero_point)
    units, zp = len(weights.ints), {"in_zp": x.quant.zero_point, "w_zp": weights.zero_point}
    vectors = [
        relax.const(weights.bias.astype(np.int32)),
        relax.const(np.zeros(units, np.int32)),
        relax.const(np.zeros(units, np.int8)),
    ]
    unit = x.quant.scale * weights.scale
    if group.rule is linear.Dense:
        rows = int(np.prod(shape[:-1]))
        flat = reshape(ctx, x.expr, (1, 1, rows, shape[-1]), x.quant)
        ints = np.ascontiguousarray(weights.ints).reshape(units, 1, 1, shape[-1])
        return ctx.emit(dialect.Conv2dAccumulate(**zp), flat, relax.const(ints), *vectors), unit, (*shape[:-1], units)
    attrs = parts.call.attrs
    fields = {"strides": _ints(attrs.strides), "padding": _ints(attrs.padding), "dilation": _ints(attrs.dilation), **zp}
    groups = int(attrs.groups)
    if groups == shape[3] == units and groups > 1:
        ints = np.ascontiguousarray(weights.ints[..., 0].transpose(1, 2, 0))
        result = ctx.emit(dialect.DepthwiseConv2dAccumulate(**fields), x.expr, relax.const(ints), *vectors)
    else:
        result = ctx.emit(
            dialect.Conv2dAccumulate(groups=groups, **fields),
            x.expr,
            relax.const(np.ascontiguousarray(weights.ints)),
            *vectors,
        )
    return result, unit, static_shape(result)


def _ints(values) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


@lowers(linear.Conv2d)
def lower_conv2d(ctx: Context, group, out: Quant) -> relax.Expr:
    """Depthwise with multiplier 1 has its own instruction; every other grouping is conv2d."""
    parts = linear.Conv2d.parts(ctx.view, group)
    x, attrs = ctx.value(parts.x), parts.call.attrs
    weights, vectors, fields = _prepare(ctx, group, out, x.quant, parts)
    fields |= {"strides": _ints(attrs.strides), "padding": _ints(attrs.padding), "dilation": _ints(attrs.dilation)}
    groups, channels = int(attrs.groups), static_shape(parts.x)[3]
    if groups == channels and groups > 1 and weights.ints.shape[0] == channels and not out.wide and not x.quant.wide:
        ints = np.ascontiguousarray(weights.ints[..., 0].transpose(1, 2, 0))
        return ctx.emit(dialect.DepthwiseConv2d(**fields), x.expr, relax.const(ints), *vectors, quant=out)
    ints = np.ascontiguousarray(weights.ints)
    return ctx.emit(_conv(x.quant, parts, out)(groups=groups, **fields), x.expr, relax.const(ints), *vectors, quant=out)


def _conv(x_quant: Quant, parts, out: Quant) -> type[dialect.Conv2d]:
    if _in_16(x_quant, parts, out):
        return dialect.Conv2d16
    return dialect.Conv2dWide if out.wide else dialect.Conv2d


@lowers(linear.Conv2dTranspose)
def lower_conv2d_transpose(ctx: Context, group, out: Quant) -> relax.Expr:
    parts = linear.Conv2dTranspose.parts(ctx.view, group)
    x, attrs = ctx.value(parts.x), parts.call.attrs
    weights, vectors, fields = _prepare(ctx, group, out, x.quant, parts)
    op = dialect.Conv2dTranspose(
        strides=_ints(attrs.strides),
        padding=_ints(attrs.padding),
        dilation=_ints(attrs.dilation),
        output_padding=_ints(attrs.output_padding),
        **fields,
    )
    return transposed(ctx, op, x, int(attrs.groups), weights.ints, vectors, out)


@lowers(linear.Dense)
def lower_dense(ctx: Context, group, out: Quant) -> relax.Expr:
    """A dense layer is a 1x1 convolution over M positions: x [..., K] as [1, 1, M, K], weights [N, 1, 1, K]."""
    parts = linear.Dense.parts(ctx.view, group)
    x, shape = ctx.value(parts.x), static_shape(parts.x)
    weights, vectors, fields = _prepare(ctx, group, out, x.quant, parts)
    units, depth = weights.ints.shape
    rows = int(np.prod(shape[:-1]))
    flat = reshape(ctx, x.expr, (1, 1, rows, depth), x.quant)
    ints = np.ascontiguousarray(weights.ints).reshape(units, 1, 1, depth)
    result = ctx.emit(_conv(x.quant, parts, out)(**fields), flat, relax.const(ints), *vectors, quant=out)
    return reshape(ctx, result, (*shape[:-1], units), out)


def reshape(ctx: Context, expr: relax.Expr, shape: tuple[int, ...], quant: Quant) -> relax.Expr:
    """``expr`` in another shape; itself where it has it. Reshapes of reshapes are one (the skipped one dies if nothing
    else reads it)."""
    expr = ctx.reshaped.get(expr, expr)
    if static_shape(expr) == tuple(shape):
        return expr
    result = ctx.emit(dialect.Reshape(shape=tuple(shape)), expr, quant=quant)
    ctx.reshaped[result] = expr
    return result


@lowers(linear.MatMul)
def lower_matmul(ctx: Context, group, out: Quant) -> relax.Expr:
    parts = linear.MatMul.parts(ctx.view, group)
    a, b = ctx.value(parts.a), ctx.value(parts.b)
    scale = multiplier(a.quant.scale * b.quant.scale * parts.scale / out.scale)
    op = dialect.MatMul(
        transpose_b=parts.transpose_b,
        a_zp=a.quant.zero_point,
        b_zp=b.quant.zero_point,
        **scale,
        **clamp_codes(parts.bounds, out),
    )
    return ctx.emit(op, a.expr, b.expr, quant=out)
