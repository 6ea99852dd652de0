"""Boxes: half-open ``(begin, end)`` intervals per axis, and how windows, broadcasting and reductions carry them
back."""

from __future__ import annotations

from collections.abc import Sequence

Interval = tuple[int, int]
Region = tuple[Interval, ...]


def full(shape: Sequence[int]) -> Region:
    """The box of a whole tensor."""
    return tuple((0, int(dim)) for dim in shape)


def is_empty(region: Region) -> bool:
    return any(begin >= end for begin, end in region)


def clip(interval: Interval, dim: int) -> Interval:
    """The part of ``interval`` inside ``[0, dim)``; an empty one is ``(b, b)`` with b inside."""
    begin = min(max(interval[0], 0), dim)
    return begin, max(begin, min(interval[1], dim))


def window(interval: Interval, dim: int, kernel: int, stride: int, before: int, dilation: int) -> Interval:
    """Rows of an input of ``dim`` rows that the output rows ``interval`` of a sliding window read."""
    begin, end = interval
    if begin >= end:
        return 0, 0
    return clip((begin * stride - before, (end - 1) * stride - before + (kernel - 1) * dilation + 1), dim)


def transposed_window(interval: Interval, dim: int, kernel: int, stride: int, before: int, dilation: int) -> Interval:
    """Rows of the input that reach the output rows ``interval`` of a transposed window:
    ``out = in * stride - before + tap * dilation``, tap in ``[0, kernel)``."""
    begin, end = interval
    if begin >= end:
        return 0, 0
    low = -(-(begin + before - (kernel - 1) * dilation) // stride)
    high = (end - 1 + before) // stride + 1
    return clip((low, high), dim)


def broadcast(out_region: Region, shape: Sequence[int]) -> Region:
    """The box of an operand of ``shape`` broadcast (NumPy rules) into the output."""
    offset = len(out_region) - len(shape)
    boxes = []
    for axis, dim in enumerate(shape):
        begin, end = out_region[axis + offset]
        boxes.append((begin, end) if dim != 1 else (0, min(1, max(0, end - begin))))
    return tuple(boxes)


def flat_interval(region: Region, shape: Sequence[int]) -> Interval:
    """First and one past the last element of the box in row-major order."""
    if is_empty(region):
        return 0, 0
    first = last = 0
    for (begin, end), dim in zip(region, shape, strict=True):
        first, last = first * dim + begin, last * dim + end - 1
    return first, last + 1


def box_of_flat(interval: Interval, shape: Sequence[int]) -> Region:
    """The smallest box of ``shape`` that holds the row-major elements ``interval``."""
    begin, end = interval
    if begin >= end:
        return tuple((0, 0) for _ in shape)
    first, last, boxes = begin, end - 1, []
    whole = False
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    for dim, stride in zip(shape, strides, strict=True):
        low, high = first // stride, last // stride
        boxes.append((0, dim) if whole else (low, high + 1))
        whole = whole or low != high
        first, last = first % stride, last % stride
    return tuple(boxes)


def broadcast_shape(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...] | None:
    """NumPy's broadcast of two shapes, None where there is none."""
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    if any(p != q and 1 not in (p, q) for p, q in zip(a, b, strict=True)):
        return None
    return tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))
