"""Tensors of float16 and bfloat16 as float32, which holds every value of both: the chip computes in integers, the host
in float32."""

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
    Tuple,
    Var,
    array_of,
    assemble,
    body_of,
    const,
    dtype_of,
    is_tensor,
    op_name,
    with_operands,
)

_HALVES = ("float16", "bfloat16")


def _is_half(expr: Expr) -> bool:
    return is_tensor(expr) and dtype_of(expr) in _HALVES


@tvm.transform.module_pass(opt_level=0, name="ergo.WidenHalves")
@dataclass(frozen=True)
class WidenHalves:
    """Inputs and outputs keep their type; what a float16 runtime rounds in between is not rounded. Calls that name
    their result's type name float32."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        widener = _Widener(mod)
        exprs = [
            *widener.func.params,
            *(v for v, _ in widener.source),
            *(a for _, value in widener.source if isinstance(value, Call) for a in value.args),
        ]
        return widener.run() if any(_is_half(e) for e in exprs) else mod


class _Widener(Rewriter):
    def run(self) -> tvm.IRModule:
        for param in self.func.params:
            if _is_half(param):
                self.replaced[param] = self.emit(relax.op.astype(param, "float32"), f"{param.name}_float32")
        for var, value in self.source:
            self._hint = var.name
            self.replaced[var] = self.emit(self.wide(var, with_operands(value, self.replacement)), var.name)
        body = body_of(self.func)
        body = next((value for var, value in self.source if var.same_as(body) and isinstance(value, Tuple)), body)
        fields = list(body.fields) if isinstance(body, Tuple) else [body]
        made = [self.back(old) for old in fields]
        return assemble(self.mod, self.func, self.bindings, Tuple(made) if isinstance(body, Tuple) else made[0])

    def back(self, old: Expr) -> Expr:
        new = self.constant(with_operands(old, self.replacement))
        return (
            self.emit(relax.op.astype(new, dtype_of(old)), f"{getattr(old, 'name', 'output')}_{dtype_of(old)}")
            if _is_half(old)
            else new
        )

    @staticmethod
    def constant(expr: Expr) -> Expr:
        if isinstance(expr, Constant) and _is_half(expr):
            return const(array_of(expr).astype(np.float32))
        return Tuple([_Widener.constant(f) for f in expr.fields]) if isinstance(expr, Tuple) else expr

    def wide(self, var: Var, value: Expr) -> Expr:
        """The binding's value with operands of float32."""
        if not isinstance(value, Call):
            return self.constant(value)
        args, a, name = [self.constant(x) for x in value.args], value.attrs, op_name(value)
        if name == "relax.astype" and str(a.dtype) in _HALVES:
            return args[0] if dtype_of(args[0]) == "float32" else relax.op.astype(args[0], "float32")
        if name == "relax.matmul":
            return relax.op.matmul(
                *args, out_dtype=None if str(a.out_dtype) in ("", "None", *_HALVES) else str(a.out_dtype)
            )
        if name == "relax.dequantize" and str(a.out_dtype) in _HALVES:
            return relax.op.dequantize(*args, axis=int(a.axis), out_dtype="float32")
        return Call(value.op, args, a, value.ty_args)
