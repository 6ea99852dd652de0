"""Lowering of data movement: exact, the quantization passes through."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.interpreter_ops import slices_of
from tvm_ergo.relay_passes.micro.lower_context import Context, Quant, lowers
from tvm_ergo.relay_passes.micro.lower_linear import reshape
from tvm_ergo.relay_passes.micro.lower_slices import by_slices
from tvm_ergo.relay_passes.support import movement
from tvm_ergo.relay_passes.support.view import immediates, static_shape


def _input(ctx: Context, group, out: Quant) -> relax.Expr:
    return ctx.requantize(ctx.value(group.inputs[0]), out)


def by_table(ctx: Context, x: relax.Expr, indices: dict[int, list[int]], out: Quant) -> relax.Expr:
    """``x`` with the elements of each axis in ``indices`` read in that order: resizing tables without interpolation,
    two neighbouring axes at a time (of 16 bits: slices, `lower_slices`). Errors: CannotLower for too many of them."""
    if out.wide:
        return by_slices(ctx, x, indices, out)
    axes = sorted(indices)
    while axes:
        shape = static_shape(x)
        first = axes.pop(0)
        pair = [first, axes.pop(0)] if axes and axes[0] == first + 1 else [first]
        end = pair[-1] + 1
        picture = (
            math.prod(shape[:first]),
            shape[first],
            shape[first + 1] if len(pair) == 2 else 1,
            math.prod(shape[end:]),
        )
        tables = [np.array([(i, i, 0) for i in indices[a]], np.int32) for a in pair] + [np.zeros((1, 3), np.int32)] * (
            2 - len(pair)
        )
        moved = ctx.emit(
            dialect.Resize2d(), reshape(ctx, x, picture, out), *(relax.const(t) for t in tables), quant=out
        )
        x = reshape(ctx, moved, (*shape[:first], *(len(indices[a]) for a in pair), *shape[end:]), out)
    return x


@lowers(movement.Reshape)
def lower_reshape(ctx: Context, group, out: Quant) -> relax.Expr:
    return reshape(ctx, _input(ctx, group, out), static_shape(group.output), out)


@lowers(movement.BroadcastTo)
def lower_broadcast(ctx: Context, group, out: Quant) -> relax.Expr:
    before, after = static_shape(group.inputs[0]), static_shape(group.output)
    before = (1,) * (len(after) - len(before)) + before
    x = reshape(ctx, _input(ctx, group, out), before, out)
    return by_table(ctx, x, {a: [0] * n for a, n in enumerate(after) if before[a] != n}, out)


@lowers(movement.Transpose)
def lower_transpose(ctx: Context, group, out: Quant) -> relax.Expr:
    rank, axes = len(static_shape(group.output)), ctx.view.value[group.root].attrs.axes
    perm = tuple(int(a) % rank for a in axes) if axes is not None else tuple(range(rank))[::-1]
    return ctx.emit(dialect.Transpose(perm=perm), _input(ctx, group, out), quant=out)


@lowers(movement.PixelShuffle)
def lower_pixel_shuffle(ctx: Context, group, out: Quant) -> relax.Expr:
    """[N, C*r*r, H, W] -> [N, C, H*r, W*r]."""
    r = int(ctx.view.value[group.root].attrs.upscale_factor)
    *batch, c, h, w = static_shape(group.inputs[0])
    n = int(np.prod(batch))
    split = reshape(ctx, _input(ctx, group, out), (n * (c // (r * r)), r, r, h, w), out)
    mixed = ctx.emit(dialect.Transpose(perm=(0, 3, 1, 4, 2)), split, quant=out)
    return reshape(ctx, mixed, static_shape(group.output), out)


@lowers(movement.StridedSlice)
def lower_slice(ctx: Context, group, out: Quant) -> relax.Expr:
    args, shape = ctx.view.value[group.root].args, static_shape(group.inputs[0])
    axes, begins, ends = (immediates(a) for a in args[1:4])
    steps = immediates(args[4]) if len(args) > 4 else (1,) * len(axes)
    if any(s < 0 for s in steps):
        parts = enumerate(slices_of(len(shape), shape, axes, begins, ends, steps))
        indices = {a: list(range(shape[a]))[part] for a, part in parts}
        return by_table(
            ctx, _input(ctx, group, out), {a: i for a, i in indices.items() if i != list(range(shape[a]))}, out
        )
    begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, b, e, s in zip(axes, begins, ends, steps, strict=True):
        begin[axis], end[axis], strides[axis] = slice(b, e, s).indices(shape[axis])
    return ctx.emit(
        dialect.Slice(begin=tuple(begin), end=tuple(end), strides=tuple(strides)), _input(ctx, group, out), quant=out
    )


@lowers(movement.Flip)
def lower_flip(ctx: Context, group, out: Quant) -> relax.Expr:
    shape = static_shape(group.inputs[0])
    axis = int(ctx.view.value[group.root].attrs.axis) % len(shape)
    return by_table(ctx, _input(ctx, group, out), {axis: list(range(shape[axis]))[::-1]}, out)


@lowers(movement.Take)
def lower_take(ctx: Context, group, out: Quant) -> relax.Expr:
    shape, progression = static_shape(group.inputs[0]), movement.take_slice(ctx.view, group)
    if progression is None:
        axis, indices = movement.take_indices(ctx.view, group)
        return reshape(
            ctx, by_table(ctx, _input(ctx, group, out), {axis: indices}, out), static_shape(group.output), out
        )
    axis, first, last, stride = progression
    begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], end[axis], strides[axis] = first, last, stride
    part = ctx.emit(
        dialect.Slice(begin=tuple(begin), end=tuple(end), strides=tuple(strides)), _input(ctx, group, out), quant=out
    )
    return reshape(ctx, part, static_shape(group.output), out)


@lowers(movement.Split)
def lower_split(ctx: Context, group, out: Quant) -> relax.Expr:
    call, part, shape = ctx.view.value[group.root], ctx.view.value[group.output], static_shape(group.inputs[0])
    axis = int(call.attrs.axis) % len(shape)
    sections = call.attrs.indices_or_sections
    if isinstance(sections, int) or not hasattr(sections, "__len__"):
        size = -(-shape[axis] // int(sections))
        edges = [min(i * size, shape[axis]) for i in range(int(sections) + 1)]
    else:
        edges = [0, *(int(i) for i in sections), shape[axis]]
    begin, end = [0] * len(shape), list(shape)
    begin[axis], end[axis] = edges[int(part.index)], edges[int(part.index) + 1]
    return ctx.emit(
        dialect.Slice(begin=tuple(begin), end=tuple(end), strides=(1,) * len(shape)), _input(ctx, group, out), quant=out
    )


@lowers(movement.Concat)
def lower_concat(ctx: Context, group, out: Quant) -> relax.Expr:
    """Inputs of another scale go through a table first; constants are quantized to the output's scale directly. A stack
    is a concat of its inputs with one more axis."""
    call, parts, shape = ctx.view.value[group.root], [], static_shape(group.output)
    axis = int(call.attrs.axis) % len(shape) if call.attrs.axis is not None else 0
    for field in ctx.view.fields(call.args[0]):
        const = ctx.view.const(field)
        parts.append(
            relax.const(out.codes(const.real())) if const is not None else ctx.requantize(ctx.value(field), out)
        )
    if group.op == "stack":
        parts = [reshape(ctx, part, (*shape[:axis], 1, *shape[axis + 1 :]), out) for part in parts]
    return ctx.emit(dialect.Concat(axis=axis), *parts, quant=out)


@lowers(movement.Pad)
def lower_pad(ctx: Context, group, out: Quant) -> relax.Expr:
    attrs = ctx.view.value[group.root].attrs
    mode = movement.PAD_INDICES.get(str(attrs.pad_mode))
    if mode is not None:
        width = [
            (int(attrs.pad_width[2 * a]), int(attrs.pad_width[2 * a + 1])) for a in range(len(attrs.pad_width) // 2)
        ]
        indices = {
            a: np.pad(np.arange(n), w, mode=mode).tolist()
            for a, (n, w) in enumerate(zip(static_shape(group.inputs[0]), width))
            if any(w)
        }
        return by_table(ctx, _input(ctx, group, out), indices, out)
    value = int(out.codes(np.float64(float(attrs.pad_value))))
    return ctx.emit(
        dialect.Pad(pad_width=tuple(int(w) for w in attrs.pad_width), value=value), _input(ctx, group, out), quant=out
    )
