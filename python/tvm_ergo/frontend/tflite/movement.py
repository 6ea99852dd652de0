"""Operators that move values and change none: shapes, slices, joins, padding."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from tvm_ergo.frontend.tflite.activation import FUSED, fused
from tvm_ergo.frontend.tflite.converter import Converter, Node, is_quantized
from tvm_ergo.frontend.tflite.registry import operator
from tvm_ergo.relay_passes.relax_utils import Constant, Expr, const, dtype_of, shape_of

MOST_COPIES = 64
"""TILE and BROADCAST_TO of as many parts become a concatenation, which the chip has; of more they run on the host."""


def _axis(node: Node, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise node.refuse(
            f"has the axis {axis} where a tensor has {rank} dimensions", remedy="the file is damaged; convert it again"
        )
    return axis % rank


@operator("RESHAPE", options="ReshapeOptions", handled="new_shape")
def reshape(c: Converter, node: Node) -> None:
    """The shape is that of input 1, else of the option; one computed at run time is taken from the output tensor where
    that gives it."""
    shape = shape_of(c.stored(node, 0))
    if node.has(1) and isinstance(c.stored(node, 1), Constant):
        wanted = c.ints(node, 1, "a shape")
    elif node.has(1):
        wanted = list(node.output().shape)
        if -1 in wanted or math.prod(wanted) != math.prod(shape):
            c.ints(node, 1, "a shape")
    else:
        wanted = [int(d) for d in node.opt["new_shape"]]
    if wanted.count(-1) == 1:
        rest = math.prod(d for d in wanted if d != -1)
        wanted[wanted.index(-1)] = math.prod(shape) // rest if rest else 0
    if any(d < 0 for d in wanted) or math.prod(wanted) != math.prod(shape):
        raise node.refuse(
            f"makes {wanted} of {list(shape)}",
            required="as many elements",
            remedy="the file is damaged; convert it again",
        )
    c.move(node, lambda x: relax.op.reshape(x, wanted))


@operator("SQUEEZE", options="SqueezeOptions", handled="squeeze_dims")
def squeeze(c: Converter, node: Node) -> None:
    shape = shape_of(c.stored(node, 0))
    dims = {_axis(node, int(d), len(shape)) for d in node.opt["squeeze_dims"]} or {
        i for i, d in enumerate(shape) if d == 1
    }
    if any(shape[d] != 1 for d in dims):
        raise node.refuse(
            f"drops dimensions {sorted(dims)} of {list(shape)}",
            required="dimensions of 1",
            remedy="the file is damaged; convert it again",
        )
    c.move(node, lambda x: relax.op.reshape(x, [d for i, d in enumerate(shape) if i not in dims]))


@operator("EXPAND_DIMS", options="ExpandDimsOptions")
def expand_dims(c: Converter, node: Node) -> None:
    shape, (axis,) = list(shape_of(c.stored(node, 0))), c.ints(node, 1, "an axis")
    axis = _axis(node, axis, len(shape) + 1)
    c.move(node, lambda x: relax.op.reshape(x, [*shape[:axis], 1, *shape[axis:]]))


@operator("TRANSPOSE", options="TransposeOptions")
def transpose(c: Converter, node: Node) -> None:
    rank, perm = len(shape_of(c.stored(node, 0))), c.ints(node, 1, "an order of axes")
    perm = [_axis(node, p, rank) for p in perm]
    if sorted(perm) != list(range(rank)):
        raise node.refuse(
            f"has the order of axes {perm}", required="each once", remedy="the file is damaged; convert it again"
        )
    c.move(node, lambda x: relax.op.permute_dims(x, perm))


# ---- slices ----
def sliced(c: Converter, x: Expr, ranges: list[range]) -> Expr:
    """The elements of ``x`` at ``ranges``, one per axis."""
    shape = shape_of(x)
    for axis in [a for a, r in enumerate(ranges) if r.step < 0 and len(r) > 1]:
        x = c.emit(relax.op.flip(x, axis))
        r = ranges[axis]
        ranges = [
            *ranges[:axis],
            range(shape[axis] - 1 - r.start, shape[axis] - 1 - r[-1] + 1, -r.step),
            *ranges[axis + 1 :],
        ]
    axes = [a for a, r in enumerate(ranges) if r != range(shape[a])]
    if not axes:
        return x
    begin, end = (
        [ranges[a].start for a in axes],
        [ranges[a][-1] + 1 if len(ranges[a]) else ranges[a].start for a in axes],
    )
    return c.emit(relax.op.strided_slice(x, axes, begin, end, [max(ranges[a].step, 1) for a in axes]))


def _part(c: Converter, node: Node, axis: int, first: int, size: int, k: int, i: int = 0, shape=None) -> None:
    """Output ``k``: ``size`` elements from ``first`` along an axis, in ``shape`` if that is given."""

    def function(x):
        ranges = [range(d) for d in shape_of(x)]
        ranges[axis] = range(first, first + size)
        part = sliced(c, x, ranges)
        return part if shape is None else c.emit(relax.op.reshape(part, shape))

    c.bind(node.output(k), c.moved(node, c.stored(node, i), node.input(i), function))


@operator("SLICE", options="SliceOptions")
def slice_(c: Converter, node: Node) -> None:
    shape, begin, size = shape_of(c.stored(node, 0)), c.ints(node, 1, "a start"), c.ints(node, 2, "a size")
    ranges = [range(b, d if s == -1 else b + s) for b, s, d in zip(begin, size, shape, strict=True)]
    if any(r.start < 0 or r.stop > d or r.stop < r.start for r, d in zip(ranges, shape)):
        raise node.refuse(f"takes {size} from {begin} of {list(shape)}", remedy="the file is damaged; convert it again")
    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), lambda x: sliced(c, x, ranges)))


@operator(
    "STRIDED_SLICE",
    options="StridedSliceOptions",
    handled="begin_mask end_mask ellipsis_mask new_axis_mask shrink_axis_mask offset",
)
def strided_slice(c: Converter, node: Node) -> None:
    shape = shape_of(c.stored(node, 0))
    begin, end, steps = (c.ints(node, i, what) for i, what in ((1, "a start"), (2, "an end"), (3, "strides")))
    if 0 in steps or not len(begin) == len(end) == len(steps):
        raise node.refuse(
            f"has the strides {steps}", required="numbers other than 0", remedy="the file is damaged; convert it again"
        )
    ranges, result = _strided_ranges(node, shape, begin, end, steps)
    c.bind(
        node.output(),
        c.moved(
            node, c.stored(node, 0), node.input(0), lambda x: c.emit(relax.op.reshape(sliced(c, x, ranges), result))
        ),
    )


def _strided_ranges(node: Node, shape, begin, end, steps) -> tuple[list[range], list[int]]:
    """The range of every axis and the result's shape, by the masks of StridedSlice (bit i: entry i of begin, end,
    strides)."""

    def bit(name: str, i: int) -> bool:
        return bool(int(node.opt[name]) >> i & 1)

    fresh = sum(bit("new_axis_mask", i) for i in range(len(begin)) if not bit("ellipsis_mask", i))
    spanned = len(shape) - (len(begin) - fresh - any(bit("ellipsis_mask", i) for i in range(len(begin))))
    ranges, result, axis = [], [], 0
    for i, (b, e, s) in enumerate(zip(begin, end, steps)):
        if bit("ellipsis_mask", i):
            ranges += [range(shape[a]) for a in range(axis, axis + spanned)]
            result += shape[axis : axis + spanned]
            axis += spanned
        elif bit("new_axis_mask", i):
            result.append(1)
        else:
            size = shape[axis]
            if bit("shrink_axis_mask", i):
                ranges.append(range(at := _axis(node, b, size), at + 1))
            else:
                e = b + e if node.opt["offset"] else e
                taken = range(
                    *slice(None if bit("begin_mask", i) else b, None if bit("end_mask", i) else e, s).indices(size)
                )
                ranges.append(taken)
                result.append(len(taken))
            axis += 1
    ranges += [range(d) for d in shape[axis:]]
    return ranges, [*result, *shape[axis:]]


def _split(c: Converter, node: Node, i: int, axis: int, sizes: list[int]) -> None:
    first = 0
    for k, size in enumerate(sizes):
        _part(c, node, axis, first, size, k, i)
        first += size


@operator("SPLIT", options="SplitOptions", handled="num_splits")
def split(c: Converter, node: Node) -> None:
    shape, parts = shape_of(c.stored(node, 1)), len(node.op.outputs)
    axis = _axis(node, c.ints(node, 0, "an axis")[0], len(shape))
    if parts < 1 or shape[axis] % parts or int(node.opt["num_splits"]) not in (0, parts):
        raise node.refuse(
            f"cuts {shape[axis]} elements into {parts} equal parts", remedy="the file is damaged; convert it again"
        )
    _split(c, node, 1, axis, [shape[axis] // parts] * parts)


@operator("SPLIT_V", options="SplitVOptions", handled="num_splits")
def split_v(c: Converter, node: Node) -> None:
    shape, sizes = shape_of(c.stored(node, 0)), c.ints(node, 1, "sizes")
    axis = _axis(node, c.ints(node, 2, "an axis")[0], len(shape))
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[axis] - sum(s for s in sizes if s != -1)
    if min(sizes, default=-1) < 0 or sum(sizes) != shape[axis] or len(sizes) != len(node.op.outputs):
        raise node.refuse(f"cuts {shape[axis]} elements into {sizes}", remedy="the file is damaged; convert it again")
    _split(c, node, 0, axis, sizes)


@operator("UNPACK", options="UnpackOptions", handled="num axis")
def unpack(c: Converter, node: Node) -> None:
    shape = list(shape_of(c.stored(node, 0)))
    axis = _axis(node, int(node.opt["axis"]), len(shape))
    if len(node.op.outputs) != shape[axis]:
        raise node.refuse(
            f"gives {len(node.op.outputs)} parts of {shape[axis]} elements",
            remedy="the file is damaged; convert it again",
        )
    for k in range(shape[axis]):
        _part(c, node, axis, k, 1, k, shape=shape[:axis] + shape[axis + 1 :])


# ---- joins ----
def joined(c: Converter, parts: list[Expr], axis: int) -> Expr:
    return parts[0] if len(parts) == 1 else c.emit(relax.op.concat(parts, axis))


@operator("CONCATENATION", options="ConcatenationOptions", handled=f"axis {FUSED}")
def concatenation(c: Converter, node: Node) -> None:
    parts = [c.real(node, i) for i in range(len(node.op.inputs))]
    c.store(node, fused(c, node, joined(c, parts, _axis(node, int(node.opt["axis"]), len(shape_of(parts[0]))))))


@operator("PACK", options="PackOptions", handled="values_count axis")
def pack(c: Converter, node: Node) -> None:
    parts = [c.real(node, i) for i in range(len(node.op.inputs))]
    shape = list(shape_of(parts[0]))
    axis = _axis(node, int(node.opt["axis"]), len(shape) + 1)
    c.store(node, joined(c, [c.emit(relax.op.reshape(p, [*shape[:axis], 1, *shape[axis:]])) for p in parts], axis))


def repeated(c: Converter, x: Expr, counts: list[int]) -> Expr:
    """``x`` repeated ``counts[axis]`` times along every axis."""
    if isinstance(x, Constant) or math.prod(counts) > MOST_COPIES:
        return c.emit(relax.op.tile(x, counts))
    for axis, count in enumerate(counts):
        x = joined(c, [x] * count, axis)
    return x


@operator("TILE", options="TileOptions")
def tile(c: Converter, node: Node) -> None:
    counts = c.ints(node, 1, "counts")
    if any(n < 1 for n in counts) or len(counts) != len(shape_of(c.stored(node, 0))):
        raise node.refuse(f"repeats {counts} times", required="at least 1 for every dimension")
    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), lambda x: repeated(c, x, counts)))


@operator("BROADCAST_TO", options="BroadcastToOptions")
def broadcast_to(c: Converter, node: Node) -> None:
    wanted, shape = c.ints(node, 1, "a shape"), shape_of(c.stored(node, 0))
    full = [1] * (len(wanted) - len(shape)) + list(shape)
    if len(full) != len(wanted) or any(d not in (1, w) or w < 1 for d, w in zip(full, wanted)):
        raise node.refuse(f"makes {wanted} of {list(shape)}", remedy="the file is damaged; convert it again")
    counts = [w // d for d, w in zip(full, wanted)]
    c.bind(
        node.output(),
        c.moved(
            node, c.stored(node, 0), node.input(0), lambda x: repeated(c, c.emit(relax.op.reshape(x, full)), counts)
        ),
    )


@operator("REVERSE_V2", options="ReverseV2Options")
def reverse(c: Converter, node: Node) -> None:
    rank = len(shape_of(c.stored(node, 0)))
    axes = [_axis(node, a, rank) for a in c.ints(node, 1, "axes")]

    def function(x):
        for axis in axes:
            x = c.emit(relax.op.flip(x, axis))
        return x

    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), function))


# ---- padding ----
def _widths(c: Converter, node: Node, rank: int) -> list[int]:
    widths = c.ints(node, 1, "widths")
    if len(widths) != 2 * rank or min(widths, default=0) < 0:
        raise node.refuse(
            f"has the widths {widths}",
            required=f"{2 * rank} numbers of at least 0",
            remedy="the file is damaged; convert it again",
        )
    return widths


@operator("PAD", "PADV2", options="PadOptions")
def pad(c: Converter, node: Node) -> None:
    """Zeros, or the number of input 2 (stored with a scale of its own, or with the input's)."""
    x = c.real(node, 0)
    value = 0.0
    if node.has(2):
        number = c.array(node, 2, "a value").reshape(-1)[0]
        q = node.input(2).quantization or node.input(0).quantization
        quantized = is_quantized(node.input(0)) and number.dtype.kind in "iu"
        value = float((int(number) - int(q.zero_point[0])) * np.float64(q.scale[0])) if quantized else float(number)
    c.store(node, c.emit(relax.op.nn.pad(x, _widths(c, node, len(shape_of(x))), "constant", value)))


@operator("MIRROR_PAD", options="MirrorPadOptions", handled="mode")
def mirror_pad(c: Converter, node: Node) -> None:
    """Mode REFLECT leaves the edge out, SYMMETRIC repeats it."""
    shape = shape_of(c.stored(node, 0))
    widths, symmetric = _widths(c, node, len(shape)), int(node.opt["mode"]) == 1
    for axis, size in enumerate(shape):
        if max(widths[2 * axis : 2 * axis + 2]) > size - (0 if symmetric else 1):
            raise node.refuse(
                f"mirrors {widths[2 * axis : 2 * axis + 2]} of {size} elements",
                remedy="the file is damaged; convert it again",
            )

    def function(x):
        if not symmetric:
            return c.emit(relax.op.nn.pad(x, widths, "reflect"))
        for axis, size in enumerate(shape):
            before, behind = widths[2 * axis : 2 * axis + 2]
            if before or behind:
                index = [*range(before - 1, -1, -1), *range(size), *range(size - 1, size - 1 - behind, -1)]
                x = c.emit(relax.op.take(x, const(np.array(index, np.int32)), axis, "clip"))
        return x

    c.bind(node.output(), c.moved(node, c.stored(node, 0), node.input(0), function))


@operator("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(c: Converter, node: Node) -> None:
    """Written where a constant says; the start is moved so that all fits."""
    x, update = c.real(node, 0), c.real(node, 1)
    shape, part = shape_of(x), shape_of(update)
    start = [max(0, min(s, d - p)) for s, d, p in zip(c.ints(node, 2, "a start"), shape, part)]
    mask = np.zeros(shape, bool)
    mask[tuple(slice(s, s + p) for s, p in zip(start, part))] = True
    widths = [w for s, d, p in zip(start, shape, part) for w in (s, d - s - p)]
    if dtype_of(x) != "float32":
        raise node.refuse(f"writes into {dtype_of(x)}", required="real numbers")
    c.store(node, c.emit(relax.op.where(const(mask), c.emit(relax.op.nn.pad(update, widths)), x)))
