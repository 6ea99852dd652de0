"""TE definitions of pooling, reductions over axes and softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, contraction

if TYPE_CHECKING:
    from tvm_ergo.relay_passes.dialect.pooling import AvgPool2d, Softmax

INT8_MIN = -128


def _window(padded: te.Tensor, pool, strides, dilation, reducer, value: Callable, name: str) -> te.Tensor:
    batch, height, width, channels = (int(d) for d in padded.shape)
    rows = (height - (pool[0] - 1) * dilation[0] - 1) // strides[0] + 1
    cols = (width - (pool[1] - 1) * dilation[1] - 1) // strides[1] + 1
    i, j = te.reduce_axis((0, pool[0]), "i"), te.reduce_axis((0, pool[1]), "j")
    return te.compute(
        (batch, rows, cols, channels),
        lambda n, h, w, c: reducer(
            value(padded(n, h * strides[0] + i * dilation[0], w * strides[1] + j * dilation[1], c)), axis=[i, j]
        ),
        name=name,
    )


def max_pool(x: te.Tensor, pool, strides, padding, dilation) -> te.Tensor:
    """Largest element of each window; the padding is int8's least value, so it never exceeds an element."""
    padded = contraction.pad_rows(x, padding, INT8_MIN)
    return _window(padded, pool, strides, dilation, te.max, lambda v: v, "max_pool")


def avg_pool(x: te.Tensor, op: AvgPool2d, shift: int) -> te.Tensor:
    """Average of each window with one rounding; see AvgPool2d."""
    padded = contraction.pad_rows(x, op.padding, op.in_zp)
    total = _window(padded, op.pool, op.strides, (1, 1), te.sum, lambda v: arithmetic.centred(v, op.in_zp), "pool_sum")

    def inside(position, axis: int):
        """How many rows (columns) of the window at output ``position`` are in the input."""
        if op.count_include_pad or (op.padding[axis] == 0 and op.padding[axis + 2] == 0):
            return tirx.const(op.pool[axis], "int64")
        begin = position.astype("int64") * arithmetic.int64(op.strides[axis]) - arithmetic.int64(op.padding[axis])
        end = arithmetic.smaller(begin + arithmetic.int64(op.pool[axis]), arithmetic.int64(int(x.shape[axis + 1])))
        return end - arithmetic.larger(begin, arithmetic.int64(0))

    def element(n, h, w, c):
        divisor = (inside(h, 0) * inside(w, 1)) << arithmetic.int64(shift)
        scaled = arithmetic.rounding_divide(arithmetic.int64(total(n, h, w, c)) * arithmetic.int64(op.mult), divisor)
        return arithmetic.finish(scaled, op.out_zp, op.lo, op.hi)

    return te.compute(total.shape, element, name="average")


def reduce(x: te.Tensor, axes: Sequence[int], keepdims: bool, reducer, value: Callable, name: str) -> te.Tensor:
    """``reducer`` of ``value(element)`` over ``axes``."""
    shape = [int(d) for d in x.shape]
    reduced = {axis: te.reduce_axis((0, shape[axis]), f"k{axis}") for axis in axes}
    kept = [axis for axis in range(len(shape)) if axis not in reduced]
    out_shape = (
        [1 if axis in reduced else shape[axis] for axis in range(len(shape))]
        if keepdims
        else [shape[axis] for axis in kept]
    )

    def element(*index):
        position = {axis: index[axis] if keepdims else index[i] for i, axis in enumerate(kept)}
        return reducer(
            value(x(*[reduced.get(axis, position.get(axis)) for axis in range(len(shape))])),
            axis=list(reduced.values()),
        )

    return te.compute(tuple(out_shape), element, name=name)


def softmax(x: te.Tensor, lut: te.Tensor, op: Softmax, shift: int) -> te.Tensor:
    """Softmax over the last axis with a table of exponentials; the sum is int64 (K entries below 2**23)."""
    last = len(x.shape) - 1
    largest = reduce(x, [last], True, te.max, lambda v: v, "row_max")
    exponent = te.compute(
        x.shape, lambda *i: lut(largest(*i[:-1], 0).astype("int32") - x(*i).astype("int32")), name="exponent"
    )
    total = reduce(exponent, [last], True, te.sum, arithmetic.int64, "row_sum")

    def element(*index):
        numerator = arithmetic.int64(exponent(*index)) * arithmetic.int64(op.mult)
        divisor = arithmetic.larger(total(*index[:-1], 0), arithmetic.int64(1)) << arithmetic.int64(shift)
        scaled = arithmetic.rounding_divide(numerator, divisor)
        return arithmetic.finish(scaled, op.out_zp, op.lo, op.hi)

    return te.compute(x.shape, element, name="softmax")
