"""Means, sums and average poolings whose input or result has 16 bits: layers of weights 1 (CONV_16), whose sums of 40
bits are exact, rounded once.

A reduction over neighbouring axes is a window as high as they are over one channel: a byte of weights a summed element.
A pooling is a depthwise layer; every window has to divide by the same count."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Context, Quant, clamp_either, multiplier
from tvm_ergo.relay_passes.micro.lower_linear import reshape
from tvm_ergo.relay_passes.support import spatial
from tvm_ergo.relay_passes.support.epilogue import bounds_of
from tvm_ergo.relay_passes.support.rule import Group
from tvm_ergo.relay_passes.support.view import FunctionView, static_shape

MOST_SUMMED = 2**14
"""Elements of a sum: below CONV_16's limit for any zero point."""
NOT_SO = "it sums over axes that are no neighbours, more than 16,384 elements, or windows of different counts"


def reduced(view: FunctionView, group: Group) -> tuple[int, ...] | None:
    """The axes that are summed as a whole; None for windows."""
    if group.rule is spatial.ReduceSum:
        return spatial.reduced_axes(view.value[group.root], len(static_shape(group.inputs[0])))
    whole = group.rule is spatial.AdaptiveAvgPool2d and static_shape(group.root)[1:3] == (1, 1)
    return (1, 2) if whole else None


def has_form(view: FunctionView, group: Group) -> bool:
    """Whether a group of `spatial.AVERAGES` can be done in 16 bits."""
    axes, shape = reduced(view, group), static_shape(group.inputs[0])
    if axes is not None:
        count = math.prod(shape[a] for a in axes)
        return bool(axes) and axes == tuple(range(axes[0], axes[-1] + 1)) and count <= MOST_SUMMED
    attrs = view.value[group.root].attrs
    if group.rule is spatial.AdaptiveAvgPool2d:
        return True
    padded = any(int(p) for p in attrs.padding) and not attrs.count_include_pad
    return (
        math.prod(int(v) for v in attrs.pool_size) <= MOST_SUMMED
        and not padded
        and not any(spatial.ceil_padding(shape, static_shape(group.root), attrs))
    )


def lower_sum(ctx: Context, group: Group, out: Quant, axes: tuple[int, ...], divisor: int) -> relax.Expr:
    """The sum over ``axes``, divided."""
    if not has_form(ctx.view, group):
        raise CannotLower(NOT_SO, "compute it in 8 bits")
    x, shape = ctx.value(group.inputs[0]), static_shape(group.inputs[0])
    before, count = math.prod(shape[: axes[0]]), math.prod(shape[a] for a in axes)
    rows = reshape(ctx, x.expr, (before, count, math.prod(shape[axes[-1] + 1 :]), 1), x.quant)
    scale = x.quant.scale / out.scale / divisor
    result = _layer(ctx, group, rows, x.quant, out, np.ones((1, count, 1, 1), np.int8), scale)
    return reshape(ctx, result, static_shape(group.output), out)


def lower_windows(ctx: Context, group: Group, out: Quant, window: dict) -> relax.Expr:
    """The mean of every window. window : pool, strides and padding."""
    if not has_form(ctx.view, group):
        raise CannotLower(NOT_SO, "compute it in 8 bits")
    x, channels, pool = ctx.value(group.inputs[0]), static_shape(group.inputs[0])[3], window["pool"]
    placed = {"strides": window["strides"], "padding": window["padding"], "groups": channels}
    scale = x.quant.scale / out.scale / math.prod(pool)
    return _layer(ctx, group, x.expr, x.quant, out, np.ones((channels, *pool, 1), np.int8), scale, **placed)


def _layer(ctx: Context, group: Group, x, quant: Quant, out: Quant, ones: np.ndarray, scale: float, **placed):
    fields, channels = multiplier(scale), len(ones)
    vectors = (
        np.zeros(channels, np.int32),
        np.full(channels, fields["mult"], np.int32),
        np.full(channels, fields["shift"], np.int8),
    )
    op = dialect.Conv2d16(in_zp=quant.zero_point, **placed, **clamp_either(bounds_of(ctx.view, group.members), out))
    return ctx.emit(op, x, relax.const(ones), *map(relax.const, vectors), quant=out)
