"""Lowering of poolings, reductions, softmax and resizing.

Extrema are exact. Averages and sums differ from the float QDQ form by at most 1 LSB (ties). Softmax's exponentials
carry 22 bits: at most 1 LSB. Interpolation weights carry 11 bits: at most 1 LSB."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro import lower_averages, lower_int16
from tvm_ergo.relay_passes.micro.lower_context import (
    NEEDS_INT8,
    CannotLower,
    Context,
    Quant,
    Value,
    clamp_codes,
    dividing_multiplier,
    lowers,
    multiplier,
)
from tvm_ergo.relay_passes.micro.lower_linear import reshape
from tvm_ergo.relay_passes.micro.lower_slices import MOST_PARTS, by_slices, parts
from tvm_ergo.relay_passes.support import spatial
from tvm_ergo.relay_passes.support.epilogue import bounds_of
from tvm_ergo.relay_passes.support.view import static_shape

EXP_BITS = 22
RESIZE_WEIGHT = 2048
_EDGE = 1e-5
"""TVM's guard against rounding at whole coordinates in floor and ceil; kept, so that both pick the same pixel."""


def _window(ctx: Context, group) -> dict[str, tuple[int, ...]]:
    """pool, strides and padding, the overhang of ceil mode added to the padding."""
    attrs = ctx.view.value[group.root].attrs
    below, right = spatial.ceil_padding(static_shape(group.inputs[0]), static_shape(group.root), attrs)
    top, left, bottom, last = (int(p) for p in attrs.padding)
    return {
        "pool": tuple(int(v) for v in attrs.pool_size),
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": (top, left, bottom + below, last + right),
    }


@lowers(spatial.MaxPool2d)
def lower_max_pool(ctx: Context, group, out: Quant) -> relax.Expr:
    dilation = tuple(int(v) for v in ctx.view.value[group.root].attrs.dilation)
    op = dialect.MaxPool2d(**_window(ctx, group), dilation=dilation)
    return ctx.emit(op, ctx.requantize(ctx.value(group.inputs[0]), out), quant=out)


@lowers(spatial.AvgPool2d)
def lower_avg_pool(ctx: Context, group, out: Quant) -> relax.Expr:
    window = _window(ctx, group)
    return _average(ctx, group, out, window, bool(ctx.view.value[group.root].attrs.count_include_pad))


def _average(ctx: Context, group, out: Quant, window: dict, include_pad: bool) -> relax.Expr:
    x = ctx.value(group.inputs[0])
    if lower_int16.concerned(ctx, group, out):
        return lower_averages.lower_windows(ctx, group, out, window)
    scale = dividing_multiplier(x.quant.scale / out.scale, math.prod(window["pool"]))
    op = dialect.AvgPool2d(
        **window,
        count_include_pad=include_pad,
        in_zp=x.quant.zero_point,
        **scale,
        **clamp_codes(bounds_of(ctx.view, group.members), out),
    )
    return ctx.emit(op, x.expr, quant=out)


@lowers(spatial.AdaptiveAvgPool2d)
def lower_adaptive(ctx: Context, group, out: Quant) -> relax.Expr:
    (_, h, w, _), (_, oh, ow, _) = static_shape(group.inputs[0]), static_shape(group.root)
    if (oh, ow) == (1, 1):
        return _reduce_sum(ctx, group, out, (1, 2), True, h * w)
    pool = (h // oh, w // ow)
    return _average(ctx, group, out, {"pool": pool, "strides": pool, "padding": (0, 0, 0, 0)}, False)


@lowers(spatial.ReduceSum)
def lower_reduce_sum(ctx: Context, group, out: Quant) -> relax.Expr:
    call, shape = ctx.view.value[group.root], static_shape(group.inputs[0])
    axes = spatial.reduced_axes(call, len(shape))
    count = math.prod(shape[a] for a in axes) if group.op == "mean" else 1
    return _reduce_sum(ctx, group, out, axes, bool(call.attrs.keepdims), count)


def _reduce_sum(ctx: Context, group, out: Quant, axes, keepdims: bool, count: int) -> relax.Expr:
    """``count`` divides the sum: it is folded into the multiplier."""
    x = ctx.value(group.inputs[0])
    if lower_int16.concerned(ctx, group, out):
        return lower_averages.lower_sum(ctx, group, out, axes, count)
    op = dialect.ReduceSum(
        axes=axes,
        keepdims=keepdims,
        in_zp=x.quant.zero_point,
        **multiplier(x.quant.scale / out.scale / count),
        **clamp_codes(bounds_of(ctx.view, group.members), out),
    )
    return ctx.emit(op, x.expr, quant=out)


@lowers(spatial.ReduceExtreme)
def lower_reduce_extreme(ctx: Context, group, out: Quant) -> relax.Expr:
    call, rank = ctx.view.value[group.root], len(static_shape(group.inputs[0]))
    kind = dialect.ReduceMax if group.op == "max" else dialect.ReduceMin
    op = kind(axes=spatial.reduced_axes(call, rank), keepdims=bool(call.attrs.keepdims))
    return ctx.emit(op, ctx.requantize(ctx.value(group.inputs[0]), out), quant=out)


@lowers(spatial.Softmax)
def lower_softmax(ctx: Context, group, out: Quant) -> relax.Expr:
    x, length = ctx.value(group.inputs[0]), static_shape(group.root)[-1]
    lut = np.rint(2.0**EXP_BITS * np.exp(-x.quant.scale * np.arange(256))).astype(np.int32)
    return ctx.emit(
        dialect.Softmax(**dividing_multiplier(1.0 / out.scale, length << EXP_BITS)), x.expr, relax.const(lut), quant=out
    )


@lowers(spatial.Resize2d)
def lower_resize(ctx: Context, group, out: Quant) -> relax.Expr:
    attrs = ctx.view.value[group.root].attrs
    mode, method, rounding = str(attrs.coordinate_transformation_mode), str(attrs.method), str(attrs.rounding_method)
    (_, h, w, _), (_, oh, ow, _) = static_shape(group.inputs[0]), static_shape(group.root)
    given, scaling = ctx.value(group.inputs[0]), {}
    if lower_int16.concerned(ctx, group, out):
        return _resize_16(ctx, group, given, out)
    clamp = clamp_codes(bounds_of(ctx.view, group.members), out)
    bounded = bool(clamp) and tuple(clamp.values()) != (-128, 127)
    if bounded and (h, w) == (oh, ow):
        lut = np.clip(out.codes(given.quant.real(np.arange(-128, 128))), clamp["lo"], clamp["hi"]).astype(np.int8)
        given = Value(ctx.table(given.expr, lut, out), out)
    elif method == "linear" and (given.quant != out or bounded):
        scale = multiplier(given.quant.scale / out.scale)
        excess = max(0, scale["shift"] - dialect.movement.RESIZE_MAX_SHIFT)
        scaling = {"scaled": True, "in_zp": given.quant.zero_point, "mult": scale["mult"] >> excess}
        scaling = {**scaling, "shift": scale["shift"] - excess, **clamp}
    x = given.expr if scaling else ctx.requantize(given, out)
    if (h, w) == (oh, ow) and mode != "tf_half_pixel_for_nn":
        return reshape(ctx, x, (static_shape(x)[0], h, w, static_shape(x)[3]), out)
    rows, cols = (relax.const(resize_table(i, o, mode, method, rounding)) for i, o in ((h, oh), (w, ow)))
    return ctx.emit(dialect.Resize2d(**scaling), x, rows, cols, quant=out)


def nearest_indices(view, group) -> dict[int, list[int]] | None:
    """The pixel read for every row and column, by axis, where they are not all in order; None for interpolation."""
    attrs = view.value[group.root].attrs
    if str(attrs.method) == "linear":
        return None
    how = str(attrs.coordinate_transformation_mode), str(attrs.method), str(attrs.rounding_method)
    (_, h, w, _), (_, oh, ow, _) = static_shape(group.inputs[0]), static_shape(group.root)
    order = {a: resize_table(i, o, *how)[:, 0].tolist() for a, i, o in ((1, h, oh), (2, w, ow))}
    return {a: found for a, found in order.items() if found != list(range((h, w)[a - 1]))}


def moves_16(view, group) -> bool:
    """Whether a resize has a form in 16 bits: all but interpolation and what takes too many copies."""
    found = nearest_indices(view, group)
    return found is not None and all(parts(order) <= MOST_PARTS for order in found.values())


def _resize_16(ctx: Context, group, x: Value, out: Quant) -> relax.Expr:
    indices = nearest_indices(ctx.view, group)
    if indices is None:
        raise CannotLower("the chip has no interpolation of 16 bits", NEEDS_INT8)
    return by_slices(ctx, ctx.requantize(x, out), indices, out)


def source_coordinates(size: int, out_size: int, mode: str) -> np.ndarray:
    """The input coordinate of every output pixel, float64[out_size] (ONNX Resize, coordinate_transformation_mode)."""
    x, ratio = np.arange(out_size, dtype=np.float64), size / out_size
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out_size > 1):
        return (x + 0.5) * ratio - 0.5
    if mode == "align_corners":
        return x * (size - 1) / (out_size - 1) if out_size > 1 else np.zeros(1)
    if mode == "pytorch_half_pixel":
        return np.zeros(1)
    return (x + 0.5) * ratio if mode == "tf_half_pixel_for_nn" else x * ratio


def resize_table(size: int, out_size: int, mode: str, method: str, rounding: str) -> np.ndarray:
    """int32[out_size, 3]: low index, high index, weight of the high one in 0..2048."""
    at = source_coordinates(size, out_size, mode)
    if method == "linear":
        low = np.floor(at)
        weight = np.rint((at - low) * RESIZE_WEIGHT)
        pair = np.clip(np.stack([low, low + 1]), 0, size - 1)
        return np.stack([*pair, weight], axis=1).astype(np.int32)
    nearest = {
        "round": lambda: np.rint(at),
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "ceil": lambda: np.ceil(at - _EDGE),
        "floor": lambda: np.floor(at + _EDGE),
    }
    default = "round" if mode == "align_corners" else "floor"
    index = np.clip(nearest[rounding or default](), 0, size - 1)
    return np.stack([index, index, np.zeros_like(index)], axis=1).astype(np.int32)
