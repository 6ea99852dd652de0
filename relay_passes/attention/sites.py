"""Patterns of transformers in a float normal form: what exporters spread over a dozen operators and the chip does in one.

Each finder takes a view and a variable and gives the site whose result the variable is, or None. Masks have a file of their own (`masks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.support.epilogue import scalar_const
from tvm_ergo.relay_passes.support.view import FunctionView, immediates, static_shape

MOVES_ONLY = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.flatten", "relax.broadcast_to", "relax.astype")


@dataclass(frozen=True, eq=False)
class Norm:
    """``(x - mean) / sqrt(variance + eps) * gamma + beta`` over the last axis; without ``centre`` the root mean square instead.

    shape: of x, so that what is normalized together is its last axis; None where it is already.
    """

    x: relax.Var
    centre: bool
    eps: float
    gamma: np.ndarray
    beta: np.ndarray
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Embedding:
    """Rows of a constant matrix by the numbers in ``ids``."""

    table: np.ndarray
    ids: relax.Expr


@dataclass(frozen=True, eq=False)
class Rotary:
    """``x * cos + partner(x) * sin``, signs in sin."""

    x: relax.Var
    cos: np.ndarray
    sin: np.ndarray
    interleaved: bool


@dataclass(frozen=True, eq=False)
class Repeat:
    """Every index of ``axis`` of x ``times`` over, side by side: heads that share keys and values."""

    x: relax.Var
    axis: int
    times: int


def call_of(view: FunctionView, expr, *names: str):
    """The call bound to ``expr`` if its operator is one of ``names`` (without ``relax.``), else None."""
    if isinstance(expr, relax.Var) and view.op(expr) in {f"relax.{n}" for n in names}:
        return view.value[expr]
    return None


def scalar_and_other(view: FunctionView, call) -> tuple[float, relax.Expr] | None:
    """The number and the other operand of a commutative call with a one-element constant."""
    for number, other in (call.args, call.args[::-1]):
        value = scalar_const(view, number)
        if value is not None and isinstance(other, relax.Var):
            return value, other
    return None


def unmoved(view: FunctionView, expr):
    """``expr`` before reshapes, broadcasts and casts."""
    while (call := call_of(view, expr, *(n.removeprefix("relax.") for n in MOVES_ONLY))) is not None:
        expr = call.args[0]
    return expr


# ---- normalization --------------------------------------------------------------------------------------------------------------
def find_norm(view: FunctionView, var: relax.Var) -> tuple[relax.Var, Norm] | None:
    """``(the last variable of it, Norm)`` for a normalization whose quotient is ``var``: its factor and summand are taken in."""
    found = _operator(view, var) or _quotient(view, var) or _unit_length(view, var)
    if found is None:
        found = _of_groups(view, var) or _of_trailing_axes(view, var)
    if found is None or found.shape is not None:
        return None if found is None else (var, found)
    length = static_shape(var)[-1]
    gamma, beta = found.gamma, found.beta
    last, factor = _channel_constant(view, var, length, "multiply")
    gamma, beta = gamma * factor, beta * factor
    last, summand = _channel_constant(view, last, length, "add")
    return last, Norm(found.x, found.centre, found.eps, gamma, beta + (0 if last is var or summand is None else summand))


def _channel_constant(view: FunctionView, var: relax.Var, length: int, op: str):
    """``(the only reader of var, its constant)`` where that multiplies or adds one number a channel; ``(var, neutral)`` elsewhere."""
    neutral = 1.0 if op == "multiply" else 0.0
    user = view.only_user(var)
    call = call_of(view, user, op)
    if call is None:
        return var, neutral
    for arg in call.args:
        const = view.const(arg)
        if const is not None and const.stored.size in (1, length) and (const.stored.size == 1 or const.shape[-1] == length):
            return user, const.real().reshape(-1)
    return var, neutral


def _operator(view: FunctionView, var: relax.Var) -> Norm | None:
    call = call_of(view, var, "nn.layer_norm", "nn.rms_norm")
    if call is None:
        return None
    shape = static_shape(var)
    axes, params = sorted(int(a) % len(shape) for a in call.attrs.axes), [view.const(a) for a in call.args[1:]]
    if axes != list(range(axes[0], len(shape))) or any(p is None for p in params):
        return None
    length, layer = int(np.prod(shape[axes[0]:])), view.op(var) == "relax.nn.layer_norm"
    gamma = params[0].real().reshape(-1) if not layer or bool(call.attrs.scale) else np.ones(length)
    beta = params[1].real().reshape(-1) if layer and bool(call.attrs.center) else np.zeros(length)
    return Norm(call.args[0], layer, float(call.attrs.epsilon), gamma, beta, (*shape[:axes[0]], length) if len(axes) > 1 else None)


def _quotient(view: FunctionView, var: relax.Var) -> Norm | None:
    """``x / sqrt(mean(x * x) + eps)``, in any of its spellings; x may be ``y - mean(y)``."""
    for x, spread in _quotients(view, var):
        added = call_of(view, spread, "add")
        eps, mean = (scalar_and_other(view, added) or (0.0, None)) if added is not None else (0.0, spread)
        call = call_of(view, mean, "mean")
        if call is None or not _over_last_axis(view, call, mean) or _squared(view, call.args[0]) != x:
            continue
        length = static_shape(var)[-1]
        centred = _centred(view, x)
        return Norm(x if centred is None else centred, centred is not None, eps, np.ones(length), np.zeros(length))
    return None


def _quotients(view: FunctionView, var: relax.Var):
    """``(x, s)`` for every reading of ``var`` as ``x / sqrt(s)``."""
    call = call_of(view, var, "divide")
    if call is not None:
        root = call_of(view, unmoved(view, call.args[1]), "sqrt")
        if root is not None:
            yield call.args[0], root.args[0]
    call = call_of(view, var, "multiply")
    for x, factor in (call.args, call.args[::-1]) if call is not None else ():
        inner = call_of(view, factor, "rsqrt")
        if inner is not None:
            yield x, inner.args[0]
        inner = call_of(view, factor, "divide")
        if inner is not None and scalar_const(view, inner.args[0]) == 1.0 and (root := call_of(view, inner.args[1], "sqrt")) is not None:
            yield x, root.args[0]
        inner = call_of(view, factor, "power")
        if inner is not None and scalar_const(view, inner.args[1]) == -0.5:
            yield x, inner.args[0]


def _squared(view: FunctionView, expr):
    call = call_of(view, expr, "multiply", "square", "power")
    if call is None or len(call.args) == 2 and call.args[0] != call.args[1] and scalar_const(view, call.args[1]) != 2.0:
        return None
    return call.args[0]


def _over_last_axis(view: FunctionView, call, result) -> bool:
    rank = len(static_shape(call.args[0]))
    return call.attrs.axis is not None and [int(a) % rank for a in call.attrs.axis] == [rank - 1] and static_shape(result)[-1:] == (1,)


def _centred(view: FunctionView, x):
    """y where x is ``y - mean(y)`` over the last axis."""
    call = call_of(view, x, "subtract")
    mean = None if call is None else call_of(view, call.args[1], "mean")
    if mean is None or mean.args[0] != call.args[0] or not _over_last_axis(view, mean, call.args[1]):
        return None
    return call.args[0]


def _unit_length(view: FunctionView, var: relax.Var) -> Norm | None:
    """``x / sqrt(sum(x * x))`` over the last axis, guarded against 0 by a maximum, a clip or a where."""
    call = call_of(view, var, "divide")
    if call is None:
        return None
    length, root = static_shape(var)[-1], unmoved(view, call.args[1])
    while (guard := call_of(view, root, "maximum", "clip", "where")) is not None:
        root = unmoved(view, guard.args[2] if view.op(root) == "relax.where" else guard.args[0])
    call_root = call_of(view, root, "sqrt")
    total = None if call_root is None else call_of(view, call_root.args[0], "sum")
    if total is None or not _over_last_axis(view, total, call_root.args[0]) or _squared(view, total.args[0]) != call.args[0]:
        return None
    return Norm(call.args[0], False, 0.0, np.full(length, length**-0.5), np.zeros(length))


def _of_groups(view: FunctionView, var: relax.Var) -> Norm | None:
    """A group normalization of [N, C, ...] whose factors are 1: exporters multiply behind it, one channel after the other."""
    call = call_of(view, var, "nn.group_norm")
    if call is None or int(call.attrs.channel_axis) != 1 or bool(call.attrs.scale) or bool(call.attrs.center):
        return None
    shape, groups = static_shape(var), int(call.attrs.num_groups)
    if sorted(int(a) % len(shape) for a in call.attrs.axes) != list(range(2, len(shape))):
        return None
    return _rows(call.args[0], float(call.attrs.epsilon), (shape[0], groups, int(np.prod(shape[1:])) // groups))


def _of_trailing_axes(view: FunctionView, var: relax.Var) -> Norm | None:
    """``(x - mean) / sqrt(variance + eps)`` over the last axes, one or more: instance normalization."""
    for x, spread in _quotients(view, var):
        added, difference = call_of(view, spread, "add"), call_of(view, x, "subtract")
        eps, variance = (scalar_and_other(view, added) or (0.0, None)) if added is not None else (0.0, spread)
        calls = [call_of(view, variance, "variance"), call_of(view, difference.args[1], "mean") if difference is not None else None]
        if None in calls or any(call.args[0] != difference.args[0] or call.attrs.axis is None for call in calls):
            continue
        shape = static_shape(x)
        axes = [sorted(int(a) % len(shape) for a in call.attrs.axis) for call in calls]
        if axes[0] == axes[1] == list(range(axes[0][0], len(shape))):
            return _rows(difference.args[0], eps, (*shape[:axes[0][0]], int(np.prod(shape[axes[0][0]:]))))
    return None


def _rows(x, eps: float, shape: tuple[int, ...]) -> Norm:
    return Norm(x, True, eps, np.ones(1), np.zeros(1), shape)


# ---- rows of tables, rotation, repeated heads ------------------------------------------------------------------------------------
def find_embedding(view: FunctionView, var: relax.Var) -> Embedding | None:
    call = call_of(view, var, "take")
    if call is None or call.attrs.axis is None or int(call.attrs.axis) != 0:
        return None
    table = view.const(call.args[0])
    if table is None or len(table.shape) != 2 or view.const(call.args[1]) is not None:
        return None
    return Embedding(table.real(), _wrapped(view, call.args[1], table.shape[0]))


def _wrapped(view: FunctionView, ids, rows: int):
    """The numbers before ``where(ids < 0, ids + rows, ids)``, which the chip does itself."""
    call = call_of(view, ids, "where")
    added = None if call is None else call_of(view, call.args[1], "add")
    if added is not None and call_of(view, call.args[0], "less") is not None and added.args[0] == call.args[2] and scalar_const(view, added.args[1]) == rows:
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
            for interleaved, wanted in ((True, np.arange(length) ^ 1), (False, (np.arange(length) + length // 2) % length)):
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
    if len(fields) != 2 or call.attrs.axis is None or int(call.attrs.axis) % len(static_shape(turned)) != len(static_shape(turned)) - 1:
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
    if call is not None and call.attrs.axis is not None and (numbers := view.const(call.args[1])) is not None and view.const(call.args[0]) is None:
        shape, axis = static_shape(call.args[0]), int(call.attrs.axis) % len(static_shape(call.args[0]))
        times = numbers.stored.size // shape[axis]
        if times > 1 and numbers.stored.ndim == 1 and np.array_equal(numbers.stored, np.repeat(np.arange(shape[axis]), times)):
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
        if before[axis] == 1 and wide[axis] > 1 and before == (*wide[:axis], 1, *wide[axis + 1:]) and shape == (
                *wide[:axis - 1], wide[axis - 1] * wide[axis], *wide[axis + 1:]):
            inner = call_of(view, spread.args[0], "reshape", "expand_dims")
            if inner is not None and static_shape(inner.args[0]) == (*before[:axis], *before[axis + 1:]):
                return Repeat(inner.args[0], axis - 1, wide[axis])
    return None
