"""Patterns of transformers in a float normal form: what exporters spread over a dozen operators and the chip does in
one.

Each finder takes a view and a variable and gives the site whose result the variable is, or None. Masks have a file of
their own (`masks`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.support.epilogue import scalar_const
from tvm_ergo.relay_passes.support.view import FunctionView, static_shape

MOVES_ONLY = (
    "relax.reshape",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.flatten",
    "relax.broadcast_to",
    "relax.astype",
)


@dataclass(frozen=True, eq=False)
class Norm:
    """``(x - mean) / sqrt(variance + eps) * gamma + beta`` over the last axis; without ``centre`` the root mean square
    instead.

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
    """Rows of a constant matrix by the numbers in ``ids``. scales: of each row [V], where the table is quantized:
    ``table`` are its int8 codes then."""

    table: np.ndarray
    ids: relax.Expr
    scales: np.ndarray | None = None


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


# ---- normalization --------------------------------------------------------------------------------------------------
def find_norm(view: FunctionView, var: relax.Var) -> tuple[relax.Var, Norm] | None:
    """``(the last variable of it, Norm)`` for a normalization whose quotient is ``var``: its factor and summand are
    taken in."""
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
    return last, Norm(
        found.x, found.centre, found.eps, gamma, beta + (0 if last is var or summand is None else summand)
    )


def _channel_constant(view: FunctionView, var: relax.Var, length: int, op: str):
    """``(the only reader of var, its constant)`` where that multiplies or adds one number a channel; ``(var, neutral)``
    elsewhere."""
    neutral = 1.0 if op == "multiply" else 0.0
    user = view.only_user(var)
    call = call_of(view, user, op)
    if call is None:
        return var, neutral
    for arg in call.args:
        const = view.const(arg)
        if (
            const is not None
            and const.stored.size in (1, length)
            and (const.stored.size == 1 or const.shape[-1] == length)
        ):
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
    length, layer = int(np.prod(shape[axes[0] :])), view.op(var) == "relax.nn.layer_norm"
    gamma = params[0].real().reshape(-1) if not layer or bool(call.attrs.scale) else np.ones(length)
    beta = params[1].real().reshape(-1) if layer and bool(call.attrs.center) else np.zeros(length)
    return Norm(
        call.args[0],
        layer,
        float(call.attrs.epsilon),
        gamma,
        beta,
        (*shape[: axes[0]], length) if len(axes) > 1 else None,
    )


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
        if (
            inner is not None
            and scalar_const(view, inner.args[0]) == 1.0
            and (root := call_of(view, inner.args[1], "sqrt")) is not None
        ):
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
    return (
        call.attrs.axis is not None
        and [int(a) % rank for a in call.attrs.axis] == [rank - 1]
        and static_shape(result)[-1:] == (1,)
    )


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
    if (
        total is None
        or not _over_last_axis(view, total, call_root.args[0])
        or _squared(view, total.args[0]) != call.args[0]
    ):
        return None
    return Norm(call.args[0], False, 0.0, np.full(length, length**-0.5), np.zeros(length))


def _of_groups(view: FunctionView, var: relax.Var) -> Norm | None:
    """A group normalization of [N, C, ...] whose factors are 1: exporters multiply behind it, one channel after the
    other."""
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
        calls = [
            call_of(view, variance, "variance"),
            call_of(view, difference.args[1], "mean") if difference is not None else None,
        ]
        if None in calls or any(call.args[0] != difference.args[0] or call.attrs.axis is None for call in calls):
            continue
        shape = static_shape(x)
        axes = [sorted(int(a) % len(shape) for a in call.attrs.axis) for call in calls]
        if axes[0] == axes[1] == list(range(axes[0][0], len(shape))):
            return _rows(difference.args[0], eps, (*shape[: axes[0][0]], int(np.prod(shape[axes[0][0] :]))))
    return None


def _rows(x, eps: float, shape: tuple[int, ...]) -> Norm:
    return Norm(x, True, eps, np.ones(1), np.zeros(1), shape)
