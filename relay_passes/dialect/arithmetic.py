"""The chip's fixed-point arithmetic in TE: the mirror of ``tvm_ergo.target.numerics``, in int64 wherever int32 could
overflow."""

from __future__ import annotations

from collections.abc import Callable

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import regions


def int64(value) -> tirx.Expr:
    """``value`` (Python int or integer expression) as int64."""
    return tirx.const(value, "int64") if isinstance(value, int) else value.astype("int64")


def centred(value: tirx.Expr, zero_point: int) -> tirx.Expr:
    """int32 ``value - zero_point``; a float32 value (the CPU's float convolutions) is left as it is."""
    if str(value.ty) == "float32":
        return value
    value = value.astype("int32")
    return value - tirx.const(zero_point, "int32") if zero_point else value


def rounding_shift(value: tirx.Expr, shift) -> tirx.Expr:
    """int64 ``floor(value / 2**shift + 1/2)``; shift an int or an integer expression, 0..62."""
    if isinstance(shift, int):
        return (int64(value) + int64((1 << shift) >> 1)) >> int64(shift)
    half = (int64(1) << int64(shift)) >> int64(1)
    return (int64(value) + half) >> int64(shift)


def rounding_divide(numerator: tirx.Expr, denominator: tirx.Expr) -> tirx.Expr:
    """int64 ``floor(numerator / denominator + 1/2)``, denominator > 0; the floor is a true one for negative
    numerators."""
    numerator, denominator = int64(numerator), int64(denominator)
    return tirx.floordiv(numerator * int64(2) + denominator, denominator * int64(2))


def finish(value: tirx.Expr, zero_point: int, lo: int, hi: int) -> tirx.Expr:
    """int8 ``clip(value + zero_point, lo, hi)`` of an int64 value."""
    return larger(smaller(value + int64(zero_point), int64(hi)), int64(lo)).astype("int8")


def requantize(acc: tirx.Expr, mult, shift, zero_point: int, lo: int, hi: int) -> tirx.Expr:
    """int8 ``clip(zero_point + floor(acc * mult / 2**shift + 1/2), lo, hi)`` of an int32 accumulator."""
    return finish(rounding_shift(int64(acc) * int64(mult), shift), zero_point, lo, hi)


def larger(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    return tirx.Max(a, b)


def smaller(a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
    return tirx.Min(a, b)


def binary(a: te.Tensor, b: te.Tensor, value: Callable, name: str) -> te.Tensor:
    """``value(a_element, b_element)`` under NumPy broadcasting."""
    shape = regions.broadcast_shape([int(d) for d in a.shape], [int(d) for d in b.shape])

    def read(tensor, index):
        offset = len(shape) - len(tensor.shape)
        return tensor(*[0 if int(dim) == 1 else index[offset + axis] for axis, dim in enumerate(tensor.shape)])

    return te.compute(shape, lambda *index: value(read(a, index), read(b, index)), name=name)


def unary(x: te.Tensor, value: Callable, name: str) -> te.Tensor:
    """``value(element)`` for every element."""
    return te.compute(x.shape, lambda *index: value(x(*index)), name=name)
