"""Operators that an exporter wrote out in smaller ones: softmax, and rows of a matrix by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (
    Call,
    Constant,
    Expr,
    Rewriter,
    Var,
    array_of,
    const,
    dtype_of,
    ints,
    op_name,
    shape_of,
)

INTEGERS = ("int32", "int64", "int8", "uint8", "int16", "uint16")
SAME_BYTES = ("relax.reshape", "relax.expand_dims", "relax.squeeze")


@tvm.transform.module_pass(opt_level=0, name="ergo.Recognize")
@dataclass(frozen=True)
class Recognize:
    """``exp(y) / sum(exp(y))`` is softmax, with or without the maximum subtracted before; the matrix product of a
    comparison of numbers with 0, 1, 2, ... is the rows with these numbers.

    The matrix gets a last row of zeros, which numbers beyond it (and -1) read, as the comparison makes them zeros."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Recognizer(mod).run()


class _Recognizer(Rewriter):
    def rewrite(self, var: Var, value: Expr) -> Expr:
        rule = {"relax.divide": self._softmax, "relax.matmul": self._rows}.get(op_name(value))
        made = rule(value) if rule is not None else None
        return value if made is None else made

    # softmax
    def _softmax(self, value: Call) -> Expr | None:
        over = self.defined(value.args[0], "relax.exp")
        below = self._spread(value.args[1], "relax.sum", value.args[0])
        if over is None or below is None:
            return None
        y = over.args[0]
        less = self.defined(y, "relax.subtract")
        if less is not None and self._spread(less.args[1], "relax.max", less.args[0]) is not None:
            y = less.args[0]
        return relax.op.nn.softmax(y, axis=-1)

    def _spread(self, expr: Expr, reduction: str, of: Expr) -> Call | None:
        """The reduction of ``of`` over its last axis that ``expr`` is, one value a row, in whatever spelling."""
        shape = shape_of(of)
        if not shape or shape_of(expr) not in (shape, (*shape[:-1], 1)):
            return None
        while True:
            call = self.defined(expr)
            name = op_name(call) if call is not None else ""
            if name == "relax.broadcast_to" and shape_of(call.args[0]) in (shape, (*shape[:-1], 1)):
                expr = call.args[0]
            elif name in SAME_BYTES and shape_of(call) == (*shape[:-1], 1):
                expr = call.args[0]
            elif name == "relax.maximum" and _is(call.args[1], -np.inf):
                expr = call.args[0]
            else:
                break
        if name != reduction or call.args[0] != of or call.attrs.axis is None:
            return None
        return call if [a % len(shape) for a in ints(call.attrs.axis)] == [len(shape) - 1] else None

    # rows by number
    def _rows(self, value: Call) -> Expr | None:
        hot, matrix = value.args
        if not isinstance(matrix, Constant) or len(shape_of(matrix)) != 2 or dtype_of(matrix) != "float32":
            return None
        ids = self._numbers(hot)
        if ids is None:
            return None
        ids = ids if dtype_of(ids) in ("int32", "int64") else self.emit(relax.op.astype(ids, "int32"))
        rows = array_of(matrix)
        return relax.op.take(const(np.concatenate([rows, np.zeros_like(rows[:1])])), ids, axis=0, mode="clip")

    def _numbers(self, hot: Expr) -> Expr | None:
        """The numbers [...] of which ``hot`` [..., n] is the comparison with 0 to n - 1."""
        cast = self.defined(hot, "relax.astype")
        equal = self.defined(cast.args[0], "relax.equal") if cast is not None else None
        if equal is None:
            return None
        shape = shape_of(hot)
        for ids, order in (equal.args, equal.args[::-1]):
            if isinstance(order, Constant) and dtype_of(ids) in INTEGERS and _counts(array_of(order), shape):
                while True:
                    call = self.defined(ids)
                    if op_name(call) == "relax.broadcast_to" and shape_of(call.args[0]) == (*shape[:-1], 1):
                        ids = call.args[0]
                    else:
                        break
                if shape_of(ids) == (*shape[:-1], 1):
                    return self.emit(relax.op.reshape(ids, shape[:-1]))
        return None


def _is(expr: Expr, number: float) -> bool:
    return isinstance(expr, Constant) and array_of(expr).size == 1 and float(array_of(expr).reshape(-1)[0]) == number


def _counts(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether an array counts 0, 1, 2, ... along the last axis, in all places alike."""
    return (
        array.ndim > 0
        and array.shape[-1] == shape[-1]
        and bool((np.broadcast_to(array, shape) == np.arange(shape[-1])).all())
    )
