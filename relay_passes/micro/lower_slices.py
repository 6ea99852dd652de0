"""Elements of an axis in another order, for tensors of 16 bits: as slices and concats, since resizing tables take 8.

What repeats every element as often (nearest upsampling, broadcasting) is a concat with itself along an axis of its own;
all else is cut where the order breaks off. Where that makes too many parts, the operator has no form in 16 bits."""

from __future__ import annotations

from tvm import relax

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.micro.lower_context import CannotLower, Context, Quant
from tvm_ergo.relay_passes.micro.lower_linear import reshape
from tvm_ergo.relay_passes.support.view import static_shape

MOST_PARTS = 256
"""Copies of one axis."""


def repeated(indices: list[int]) -> tuple[list[int], int]:
    """``(once, times)``: the indices with each of them named once where all come equally often, one behind another."""
    for times in range(len(indices), 1, -1):
        once = indices[::times]
        if len(indices) % times == 0 and [i for i in once for _ in range(times)] == indices:
            return once, times
    return indices, 1


def runs(indices: list[int]) -> list[tuple[int, int, int]]:
    """``(begin, end, stride)`` of slices that one behind another are ``indices``; strides are positive."""
    found, at = [], 0
    while at < len(indices):
        stride = indices[at + 1] - indices[at] if at + 1 < len(indices) else 1
        stride, last = (stride, at + 1) if stride > 0 and at + 1 < len(indices) else (1, at)
        while last + 1 < len(indices) and last > at and indices[last + 1] - indices[last] == stride:
            last += 1
        found.append((indices[at], indices[last] + 1, stride))
        at = last + 1
    return found


def parts(indices: list[int]) -> int:
    """Copies they take."""
    once, times = repeated(indices)
    return times + len(runs(once))


def by_slices(ctx: Context, x: relax.Expr, indices: dict[int, list[int]], out: Quant) -> relax.Expr:
    """``x`` with the elements of each axis in ``indices`` in that order. Errors: CannotLower where it takes more than
    ``MOST_PARTS`` copies of an axis."""
    for axis, order in indices.items():
        if parts(order) > MOST_PARTS:
            raise CannotLower(
                f"in 16 bits it is copied in {parts(order)} parts, and at most {MOST_PARTS} are made",
                "quantize it to 8 bits",
            )
        once, times = repeated(order)
        x = _repeat(ctx, _ordered(ctx, x, axis, once, out), axis, times, out)
    return x


def _ordered(ctx: Context, x, axis: int, order: list[int], out: Quant):
    shape, pieces = static_shape(x), []
    if order == list(range(shape[axis])):
        return x
    for begin, end, stride in runs(order):
        first, last, steps = [0] * len(shape), list(shape), [1] * len(shape)
        first[axis], last[axis], steps[axis] = begin, end, stride
        op = dialect.Slice(begin=tuple(first), end=tuple(last), strides=tuple(steps))
        pieces.append(ctx.emit(op, x, quant=out))
    return pieces[0] if len(pieces) == 1 else ctx.emit(dialect.Concat(axis=axis), *pieces, quant=out)


def _repeat(ctx: Context, x, axis: int, times: int, out: Quant):
    if times == 1:
        return x
    shape = static_shape(x)
    apart = reshape(ctx, x, (*shape[: axis + 1], 1, *shape[axis + 1 :]), out)
    joined = ctx.emit(dialect.Concat(axis=axis + 1), *[apart] * times, quant=out)
    return reshape(ctx, joined, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]), out)
