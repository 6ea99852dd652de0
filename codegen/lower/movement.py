"""Lowering of ops that move elements: nothing where source and result are the same place, else the data mover."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from tvm_ergo.codegen.graph import Node, Region
from tvm_ergo.codegen.lower.base import Emitter, lowers
from tvm_ergo.codegen.strided import View
from tvm_ergo.codegen.views import interior, member_regions, moved_view
from tvm_ergo.relay_passes import dialect
from tvm_ergo.target.isa import Receive


def _intersect(a: Region, b: Region) -> Region | None:
    box = tuple((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return box if all(begin < end for begin, end in box) else None


def _relative(box: Region, origin: Region) -> Region:
    return tuple((begin - o, end - o) for (begin, end), (o, _) in zip(box, origin, strict=True))


def _move_part(emit: Emitter, source: int, target: int, part: Region, region: Region) -> None:
    """Moves what ``region`` of the target takes from a source that fills the box ``part`` of it."""
    box = _intersect(part, region)
    if box is not None:
        emit.move(emit.view(source, _relative(box, part)), emit.view(target, box), emit.dtype(target))


@lowers(dialect.Concat)
def concat(node: Node, region: Region, emit: Emitter) -> None:
    """A COPY for each member that was not written in place."""
    for t, part in zip(node.inputs, member_regions(emit.graph, node), strict=True):
        _move_part(emit, t, node.outputs[0], part, region)


@lowers(dialect.Pad)
def pad(node: Node, region: Region, emit: Emitter) -> None:
    """FILLs of the border (two slabs an axis, each inside the earlier axes' interior), and a COPY unless written in
    place."""
    out, inside = node.outputs[0], interior(emit.graph, node)
    rest = list(region)
    for axis, (begin, end) in enumerate(inside):
        low, high = rest[axis]
        for slab in ((low, min(high, begin)), (max(low, end), high)):
            if slab[0] < slab[1]:
                emit.fill(emit.view(out, (*rest[:axis], slab, *rest[axis + 1 :])), node.op.value, emit.dtype(out))
        rest[axis] = (max(low, begin), min(high, end))
        if rest[axis][0] >= rest[axis][1]:
            return
    _move_part(emit, node.inputs[0], out, inside, region)


@lowers(dialect.Receive)
def receive(node: Node, region: Region, emit: Emitter) -> None:
    """A RECEIVE of a streamed input; a COPY (or nothing) of one that is there already."""
    t, out = node.inputs[0], node.outputs[0]
    if t not in emit.graph.streams:
        rearrange(node, region, emit)
        return
    tensor = emit.graph.tensors[t]
    source = moved_view(node.op, View.dense(t, tensor.shape, tensor.itemsize)).box(region)
    emit(
        Receive,
        port=emit.graph.inputs.index(t),
        offset=source.offset,
        steps=(*source.strides, *(0,) * (6 - len(source.strides))),
        out=emit.operand(out, region),
    )


@lowers(dialect.Slice)
@lowers(dialect.Transpose)
def rearrange(node: Node, region: Region, emit: Emitter) -> None:
    source = moved_view(node.op, emit.view(node.inputs[0]))
    emit.move(source.box(region), emit.view(node.outputs[0], region), emit.dtype(node.outputs[0]))


@lowers(dialect.Reshape)
def reshape(node: Node, region: Region, emit: Emitter) -> None:
    """One COPY where strides can express the reshape on one of the two sides, else one for each box of a row-major
    run."""
    (t,), out = node.inputs, node.outputs[0]
    source, target, dtype = emit.view(t), emit.view(out), emit.dtype(out)
    reshaped = source.reshape(target.shape)
    if reshaped is not None:
        emit.move(reshaped.box(region), target.box(region), dtype)
        return
    other_way = target.reshape(source.shape)
    if other_way is not None and region == emit.graph.tensors[out].region:
        emit.move(source, other_way, dtype)
        return
    for begin, end, row in _runs(target, region):
        for box, first in _boxes(begin, end, source.shape):
            part = source.box(box)
            count = math.prod(part.shape)
            piece = row.box(((first - begin, first - begin + count),)).reshape(part.shape)
            emit.move(part, piece, dtype)


def _runs(target: View, region: Region) -> Iterator[tuple[int, int, View]]:
    """``(begin, end, view)``: row-major element numbers of each run along the last axis of a box, as views of rank
    1."""
    weights = View.dense(0, target.shape, 1).strides
    for index in itertools.product(*(range(b, e) for b, e in region[:-1])):
        begin = sum(i * w for i, w in zip(index, weights, strict=False)) + region[-1][0]
        row = target.box((*((i, i + 1) for i in index), region[-1])).reshape((region[-1][1] - region[-1][0],))
        yield begin, begin + region[-1][1] - region[-1][0], row


def _boxes(begin: int, end: int, shape: tuple[int, ...]) -> Iterator[tuple[Region, int]]:
    """Cuts row-major elements ``[begin, end)`` of ``shape`` into boxes that are row-major runs, with each one's first
    element."""
    if begin >= end:
        return
    if len(shape) == 1:
        yield ((begin, end),), begin
        return
    block = math.prod(shape[1:])
    first, last = begin // block, (end - 1) // block
    whole = (first + (begin % block != 0), end // block)
    if first == last and whole[0] >= whole[1]:
        yield from _inner(first, begin, end, shape, block)
        return
    if begin % block:
        yield from _inner(first, begin, (first + 1) * block, shape, block)
    if whole[0] < whole[1]:
        yield (whole, *((0, extent) for extent in shape[1:])), whole[0] * block
    if end % block:
        yield from _inner(last, last * block, end, shape, block)


def _inner(row: int, begin: int, end: int, shape: tuple[int, ...], block: int) -> Iterator[tuple[Region, int]]:
    for box, first in _boxes(begin - row * block, end - row * block, shape[1:]):
        yield ((row, row + 1), *box), first + row * block
