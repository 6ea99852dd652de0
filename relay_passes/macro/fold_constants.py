"""Constant folding with NumPy; quantized constants stay quantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.interpreter import evaluate_call
from tvm_ergo.relay_passes.interpreter_ops import OPERATORS
from tvm_ergo.relay_passes.relax_constants import map_constant, quantized_constant
from tvm_ergo.relay_passes.relax_utils import (
    Constant,
    Expr,
    Rewriter,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    const,
    infer,
    op_name,
    shape_of,
)

_MOVES = frozenset(
    f"relax.{n}"
    for n in (
        "reshape",
        "permute_dims",
        "expand_dims",
        "squeeze",
        "flatten",
        "broadcast_to",
        "tile",
        "repeat",
        "strided_slice",
        "take",
    )
)
_JOINED = frozenset(("relax.concat", "relax.stack"))
"""Of stored constants: what reads the result may be a layer that takes weights as stored."""


@tvm.transform.module_pass(opt_level=0, name="ergo.FoldConstants")
@dataclass(frozen=True)
class FoldConstants:
    """Every call whose operands are all constant becomes a constant.

    ``dequantize(const)`` is kept, because it carries a quantization; data movement of it moves into its integers,
    arithmetic and quantization read its real values. The shape of a static tensor is a constant."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Folder(mod).run()


class _Folder(Rewriter):
    def rewrite(self, var: Var, value: Expr) -> Expr:
        if isinstance(value, TupleGetItem):
            fields = self.definition.get(value.tuple_value)
            return fields.fields[int(value.index)] if isinstance(fields, Tuple) else value
        name = op_name(value)
        if name == "relax.shape_of":
            return relax.ShapeExpr(shape_of(value.args[0]))
        if name in _MOVES:
            typed, others = infer(value), [_value(a) for a in value.args[1:]]
            known = all(o is not None for o in others)
            moved = (
                map_constant(self, value.args[0], lambda a: evaluate_call(typed, [a, *others]), var.name)
                if known
                else None
            )
            return moved if moved is not None else value
        if name in ("", "relax.dequantize") or name not in OPERATORS:
            return value
        operands = [self._real(a) if name not in _JOINED else _value(a) for a in value.args]
        if not operands or any(o is None for o in operands):
            return value
        result = evaluate_call(infer(value), operands)
        if isinstance(result, tuple):
            return Tuple([const(r) for r in result])
        return const(np.asarray(result))

    def _real(self, expr: Expr):
        """The value of a constant operand, a stored one's real values too."""
        call = quantized_constant(self, expr)
        return evaluate_call(infer(call), [array_of(a) for a in call.args]) if call is not None else _value(expr)


def _value(expr: Expr):
    """A constant operand's value: array, tuple of arrays or ints, number; None when it is not constant."""
    if isinstance(expr, Constant):
        return array_of(expr)
    if isinstance(expr, relax.ShapeExpr):
        return tuple(int(d) for d in expr.values)
    if isinstance(expr, (tvm.tirx.IntImm, tvm.tirx.FloatImm)):
        return expr.value
    if isinstance(expr, Tuple):
        fields = [_value(f) for f in expr.fields]
        return None if any(f is None for f in fields) else tuple(fields)
    return None
