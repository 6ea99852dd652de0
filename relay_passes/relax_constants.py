"""Moving the data of constants, plain or quantized, inside a :class:`~tvm_ergo.relay_passes.relax_utils.Rewriter`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import Call, Constant, Expr, Rewriter, array_of, const, shape_of


def quantized_constant(rewriter: Rewriter, expr: Expr) -> Call | None:
    """The ``dequantize(const, const, const)`` call behind ``expr``, else None."""
    call = rewriter.defined(expr, "relax.dequantize")
    return call if call is not None and all(isinstance(a, Constant) for a in call.args) else None


def map_constant(
    rewriter: Rewriter, expr: Expr, move: Callable[[np.ndarray], np.ndarray], hint: str = ""
) -> Expr | None:
    """Apply a data movement to a constant or into a ``dequantize(const)``; None if ``expr`` is neither.

    The quantization axis of a per-channel constant is found again by moving a tensor of channel indices along.
    Returns None too when the moved channels no longer lie along one axis.
    """
    if isinstance(expr, Constant):
        return const(move(array_of(expr)))
    call = quantized_constant(rewriter, expr)
    if call is None:
        return None
    data, axis = array_of(call.args[0]), int(call.attrs.axis)
    moved = move(data)
    count = max(math.prod(shape_of(a)) for a in call.args[1:])
    if count > 1:
        axis = moved_axis(data.shape, axis % data.ndim, move)
        if axis is None:
            return None
    else:
        axis = max(moved.ndim - 1, 0)
    return rewriter.emit(
        relax.op.dequantize(const(moved), call.args[1], call.args[2], axis=axis, out_dtype=str(call.attrs.out_dtype)),
        hint or expr.name,
    )


def moved_axis(shape: Sequence[int], axis: int, move: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Where axis ``axis`` of a tensor lies after a movement; None if it is no longer one axis."""
    index = np.broadcast_to(np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
    moved = move(np.ascontiguousarray(index))
    for a in range(moved.ndim):
        expected = np.arange(moved.shape[a]).reshape([-1 if i == a else 1 for i in range(moved.ndim)])
        if moved.shape[a] == shape[axis] and np.array_equal(moved, np.broadcast_to(expected, moved.shape)):
            return a
    return None


def permuted(rewriter: Rewriter, expr: Expr, axes: Sequence[int], hint: str = "") -> Expr:
    """``expr`` transposed: folded into constants, nothing for the identity, otherwise a ``permute_dims``."""
    axes = tuple(axes)
    if axes == tuple(range(len(axes))):
        return expr
    done = map_constant(rewriter, expr, lambda a: a.transpose(axes), hint)
    return done if done is not None else rewriter.emit(relax.op.permute_dims(expr, list(axes)), hint)


def reshaped(rewriter: Rewriter, expr: Expr, shape: Sequence[int], hint: str = "") -> Expr:
    """``expr`` in another shape: folded into constants, nothing for the same shape, otherwise a ``reshape``."""
    shape = tuple(int(d) for d in shape)
    if shape == shape_of(expr):
        return expr
    done = map_constant(rewriter, expr, lambda a: a.reshape(shape), hint)
    return done if done is not None else rewriter.emit(relax.op.reshape(expr, shape), hint)
