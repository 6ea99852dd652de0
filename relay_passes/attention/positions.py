"""Rows of tables, rotation and repeated heads: finders of `sites` that have to do with positions and heads."""

from __future__ import annotations

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.attention.sites import Embedding, Repeat, Rotary, call_of, scalar_and_other
from tvm_ergo.relay_passes.support.epilogue import scalar_const
from tvm_ergo.relay_passes.support.view import FunctionView, immediates, static_shape


def find_embedding(view: FunctionView, var: relax.Var) -> Embedding | None:
    call = call_of(view, var, "take")
    if call is None or call.attrs.axis is None or int(call.attrs.axis) != 0:
        return None
    table = view.const(call.args[0])
    if table is None or len(table.shape) != 2 or view.const(call.args[1]) is not None:
        return None
    ids = _wrapped(view, call.args[1], table.shape[0])
    if table.scale is not None and (table.per_tensor or table.axis == 0):
        codes = table.stored.astype(np.int64) - table.spread(table.zero_point)
        if codes.min(initial=0) >= -128 and codes.max(initial=0) <= 127:
            return Embedding(
                codes.astype(np.int8), ids, np.broadcast_to(table.scale.astype(np.float64), codes.shape[:1])
            )
    return Embedding(table.real(), ids)


def _wrapped(view: FunctionView, ids, rows: int):
    """The numbers before ``where(ids < 0, ids + rows, ids)``, which the chip does itself."""
    call = call_of(view, ids, "where")
    added = None if call is None else call_of(view, call.args[1], "add")
    if (
        added is not None
        and call_of(view, call.args[0], "less") is not None
        and added.args[0] == call.args[2]
        and scalar_const(view, added.args[1]) == rows
    ):
        return call.args[2]
    return ids


def find_rotary(view: FunctionView, var: relax.Var) -> Rotary | None:
    call = call_of(view, var, "add")
    if call is None:
        return None
    products = [_by_constant(view, arg) for arg in call.args]
    if None in products:
        return None
    for (x, cos), (turned, sin) in (products, products[::-1]):
        found = _by_matrix(view, x, turned) or _by_halves(view, x, turned)
        if found is not None and static_shape(x) == static_shape(var):
            order, signs = found
            length = len(order)
            for interleaved, wanted in (
                (True, np.arange(length) ^ 1),
                (False, (np.arange(length) + length // 2) % length),
            ):
                if np.array_equal(order, wanted):
                    return Rotary(x, cos, sin * signs, interleaved)
    return None


def _by_constant(view: FunctionView, expr):
    """``(x, constant)`` of a product with a constant tensor."""
    call = call_of(view, expr, "multiply")
    for x, factor in (call.args, call.args[::-1]) if call is not None else ():
        const = view.const(factor)
        if const is not None and isinstance(x, relax.Var) and view.const(x) is None:
            return x, const.real()
    return None


def _by_matrix(view: FunctionView, x, turned):
    """``(partner of each, sign)`` where ``turned`` is x times a matrix with one 1 or -1 in each column."""
    call = call_of(view, turned, "matmul")
    matrix = None if call is None or call.args[0] != x else view.const(call.args[1])
    if matrix is None or len(matrix.shape) != 2 or matrix.shape[0] % 2:
        return None
    real = matrix.real()
    if not np.array_equal(np.abs(real).sum(0), np.ones(len(real))) or not np.isin(real, (-1, 0, 1)).all():
        return None
    order = np.abs(real).argmax(0)
    return order, real[order, np.arange(len(order))]


def _by_halves(view: FunctionView, x, turned):
    """``concat(-x[half:], x[:half])``."""
    call = call_of(view, turned, "concat")
    length = static_shape(x)[-1] if static_shape(x) else 0
    if call is None or length % 2:
        return None
    fields = view.fields(call.args[0])
    if (
        len(fields) != 2
        or call.attrs.axis is None
        or int(call.attrs.axis) % len(static_shape(turned)) != len(static_shape(turned)) - 1
    ):
        return None
    first = call_of(view, fields[0], "negative")
    first = first.args[0] if first is not None else _negated(view, fields[0])
    half = length // 2
    if first is None or _part(view, first, x) != (half, length) or _part(view, fields[1], x) != (0, half):
        return None
    return (np.arange(length) + half) % length, np.where(np.arange(length) < half, -1.0, 1.0)


def _negated(view: FunctionView, expr):
    call = call_of(view, expr, "multiply")
    pair = None if call is None else scalar_and_other(view, call)
    return pair[1] if pair is not None and pair[0] == -1.0 else None


def _part(view: FunctionView, expr, x) -> tuple[int, int] | None:
    """The interval of the last axis that ``expr`` is of x: a slice, or a part of a split in two."""
    rank, length = len(static_shape(x)), static_shape(x)[-1]
    call = call_of(view, expr, "strided_slice")
    if call is not None and call.args[0] == x:
        axes, begins, ends = (immediates(a) for a in call.args[1:4])
        if [a % rank for a in axes] == [rank - 1] and (len(call.args) < 5 or immediates(call.args[4]) == (1,)):
            return slice(begins[0], ends[0]).indices(length)[:2]
    value = view.value.get(expr) if isinstance(expr, relax.Var) else None
    if isinstance(value, relax.TupleGetItem):
        source = value.tuple_value
        split = call_of(view, source, "split")
        half = static_shape(expr)[-1]
        if split is not None and split.args[0] == x and int(split.attrs.axis) % rank == rank - 1 and 2 * half == length:
            return int(value.index) * half, (int(value.index) + 1) * half
    return None


def find_repeat(view: FunctionView, var: relax.Var) -> Repeat | None:
    """Repeated heads: a take of every index several times, a repeat, or expand and reshape."""
    call = call_of(view, var, "take")
    if (
        call is not None
        and call.attrs.axis is not None
        and (numbers := view.const(call.args[1])) is not None
        and view.const(call.args[0]) is None
    ):
        shape, axis = static_shape(call.args[0]), int(call.attrs.axis) % len(static_shape(call.args[0]))
        times = numbers.stored.size // shape[axis]
        if (
            times > 1
            and numbers.stored.ndim == 1
            and np.array_equal(numbers.stored, np.repeat(np.arange(shape[axis]), times))
        ):
            return Repeat(call.args[0], axis, times)
    call = call_of(view, var, "repeat")
    if call is not None and call.attrs.axis is not None:
        return Repeat(call.args[0], int(call.attrs.axis) % len(static_shape(var)), int(call.attrs.repeats))
    call = call_of(view, var, "reshape")
    spread = None if call is None else call_of(view, call.args[0], "broadcast_to")
    if spread is None:
        return None
    before, wide, shape = static_shape(spread.args[0]), static_shape(call.args[0]), static_shape(var)
    for axis in range(1, len(wide)):
        if (
            before[axis] == 1
            and wide[axis] > 1
            and before == (*wide[:axis], 1, *wide[axis + 1 :])
            and shape == (*wide[: axis - 1], wide[axis - 1] * wide[axis], *wide[axis + 1 :])
        ):
            inner = call_of(view, spread.args[0], "reshape", "expand_dims")
            if inner is not None and static_shape(inner.args[0]) == (*before[:axis], *before[axis + 1 :]):
                return Repeat(inner.args[0], axis - 1, wide[axis])
    return None
