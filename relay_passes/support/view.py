"""A read-only view of a Relax dataflow function: definitions, uses, shapes, and the values of constant
subexpressions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from tvm import relax, tirx
from tvm.ir.expr import GenericConst as TensorConst

from tvm_ergo.target.errors import ModelError


@dataclass(frozen=True)
class ConstTensor:
    """A compile-time tensor. ``stored`` is the array in the file.

    If ``scale`` is not None the tensor is quantized and its real value is ``scale * (stored - zero_point)``; scale and
    zero point are 1-D of length 1, or of the length of ``axis`` (non-negative)."""

    stored: np.ndarray
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def per_tensor(self) -> bool:
        return self.scale is not None and self.scale.size == 1 and self.zero_point.size == 1

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Scale or zero point, shaped to broadcast against ``stored``."""
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if i == self.axis else 1 for i in range(self.stored.ndim)])

    def real(self) -> np.ndarray:
        """The real values, float64 (of float32 scales, as stored)."""
        if self.scale is None:
            return self.stored.astype(np.float64)
        return (self.stored.astype(np.float64) - self.spread(self.zero_point)) * self.spread(
            self.scale.astype(np.float64)
        )

    def reshape(self, shape: tuple[int, ...]) -> ConstTensor | None:
        """The same tensor in another shape; None if the quantized axis would not survive."""
        if self.scale is None or self.scale.size == 1:
            return replace(self, stored=self.stored.reshape(shape))
        before = int(np.prod(self.shape[: self.axis]))
        for axis, size in enumerate(shape):
            if size == self.shape[self.axis] and int(np.prod(shape[:axis])) == before:
                return replace(self, stored=self.stored.reshape(shape), axis=axis)
        return None

    def transpose(self, perm: tuple[int, ...]) -> ConstTensor:
        return replace(self, stored=self.stored.transpose(perm), axis=perm.index(self.axis) if self.stored.ndim else 0)


def static_shape(expr) -> tuple[int, ...] | None:
    """The shape in elements, or None when unknown or symbolic."""
    shape = getattr(getattr(expr, "ty", None), "shape", None)
    if shape is None:
        return None
    dims = list(getattr(shape, "values", shape))
    if not all(isinstance(d, (int, tirx.IntImm)) for d in dims):
        return None
    return tuple(int(d) for d in dims)


def dtype_of(expr) -> str:
    """``"float32"``, ``"int8"`` ...; empty for tuples and unknown types."""
    dtype = getattr(getattr(expr, "ty", None), "dtype", None)
    return str(dtype) if dtype is not None else ""


def op_name(expr) -> str:
    """``"relax.add"`` for a call of an operator, else the kind of expression."""
    if isinstance(expr, relax.Call):
        return getattr(expr.op, "name", None) or getattr(expr.op, "name_hint", "call")
    return type(expr).__name__


def scalar(expr) -> float | None:
    """The number in an immediate (clip bounds and the like)."""
    return float(expr.value) if isinstance(expr, (tirx.IntImm, tirx.FloatImm)) else None


def immediates(expr) -> tuple[int, ...]:
    """The integers of a tuple or shape expression."""
    fields = expr.values if isinstance(expr, relax.ShapeExpr) else expr.fields
    return tuple(int(scalar(f)) for f in fields)


@dataclass
class FunctionView:
    """Definitions and uses of ``func``'s one dataflow block.

    ``order`` are the bound variables in order, ``uses[v]`` the variables whose binding reads ``v`` (once per binding),
    ``outputs`` the variables the function returns.
    """

    func: relax.Function
    order: list[relax.Var] = field(default_factory=list)
    value: dict[relax.Var, relax.Expr] = field(default_factory=dict)
    uses: dict[relax.Var, list[relax.Var]] = field(default_factory=dict)
    outputs: set[relax.Var] = field(default_factory=set)
    position: dict[relax.Var, int] = field(default_factory=dict)
    _consts: dict[relax.Var, ConstTensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        blocks = getattr(self.func.body, "blocks", None)
        if blocks is None:
            raise ModelError(
                "the function has no binding block",
                where="main",
                remedy="normalise the module first (relax.transform.Normalize)",
            )
        for block in blocks:
            for binding in block.bindings:
                self._bind(binding)
        self.outputs = set(variables(self._resolve(self.func.body.body)))

    def _bind(self, binding) -> None:
        self.position[binding.var] = len(self.order)
        self.order.append(binding.var)
        self.value[binding.var] = binding.value
        for source in dict.fromkeys(variables(binding.value)):
            self.uses.setdefault(source, []).append(binding.var)

    def _resolve(self, expr):
        """Follow aliases (the output variable of a dataflow block is often a copy or a tuple)."""
        while isinstance(expr, relax.Var) and isinstance(self.value.get(expr), (relax.Var, relax.Tuple)):
            expr = self.value[expr]
        return relax.Tuple([self._resolve(f) for f in expr.fields]) if isinstance(expr, relax.Tuple) else expr

    def op(self, var) -> str:
        """Operator name of the binding of ``var``; empty for parameters."""
        return op_name(self.value[var]) if var in self.value else ""

    def reads(self, var) -> list[relax.Var]:
        """The variables the binding of ``var`` reads, in order, tuples bound to a variable followed."""
        found = []
        for source in variables(self.value[var]):
            bound = self.value.get(source)
            found += variables(bound) if isinstance(bound, relax.Tuple) else [source]
        return found

    def users(self, var) -> list[relax.Var]:
        return self.uses.get(var, [])

    def only_user(self, var) -> relax.Var | None:
        """The single binding that reads ``var``, or None (also None when the function returns it)."""
        users = self.users(var)
        return users[0] if len(users) == 1 and var not in self.outputs else None

    def fields(self, expr) -> list[relax.Expr]:
        """The members of a tuple given inline or through a variable."""
        if isinstance(expr, relax.Var):
            expr = self.value[expr]
        return list(expr.fields)

    def const(self, expr) -> ConstTensor | None:
        """The value of a constant, or of a subexpression of constants (dequantize, reshape, permute_dims ...)."""
        if isinstance(expr, TensorConst):
            return ConstTensor(expr.value.numpy())
        if not isinstance(expr, relax.Var) or expr not in self.value:
            return None
        if expr not in self._consts:
            self._consts[expr] = self._fold(expr)
        return self._consts[expr]

    def _fold(self, var) -> ConstTensor | None:
        call = self.value[var]
        if isinstance(call, (relax.Var, TensorConst)):
            return self.const(call)
        if not isinstance(call, relax.Call) or not call.args:
            return None
        name, source = op_name(call), self.const(call.args[0])
        if source is None:
            return None
        if name == "relax.dequantize":
            return self._fold_dequantize(call, source)
        if name == "relax.permute_dims":
            axes, rank = call.attrs.axes, source.stored.ndim
            return source.transpose(
                tuple(int(a) % rank for a in axes) if axes is not None else tuple(range(rank))[::-1]
            )
        if name in ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten"):
            return source.reshape(static_shape(var))
        if name == "relax.astype" and source.scale is None:
            return ConstTensor(source.stored.astype(dtype_of(var)))
        return None

    def _fold_dequantize(self, call, source: ConstTensor) -> ConstTensor | None:
        scale, zero_point = self.const(call.args[1]), self.const(call.args[2])
        if scale is None or zero_point is None or source.scale is not None:
            return None
        axis = int(call.attrs.axis) % max(source.stored.ndim, 1)
        return ConstTensor(
            source.stored, scale.stored.reshape(-1), zero_point.stored.reshape(-1).astype(np.int64), axis
        )


def variables(expr) -> list[relax.Var]:
    """The tensor variables an expression of a normalised binding reads, in order."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        return [v for f in expr.fields for v in variables(f)]
    if isinstance(expr, relax.TupleGetItem):
        return variables(expr.tuple_value)
    if isinstance(expr, relax.Call):
        return [v for a in expr.args for v in variables(a)]
    return []
