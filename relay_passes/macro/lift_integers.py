"""Operators on quantized integers become operators on reals between dequantize and quantize."""

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
    TupleGetItem,
    Var,
    array_of,
    const,
    dtype_of,
    infer,
    ints,
    is_tensor,
    op_name,
    shape_of,
)

_LIFTED = frozenset(
    f"relax.{n}"
    for n in (
        "reshape",
        "permute_dims",
        "expand_dims",
        "squeeze",
        "flatten",
        "strided_slice",
        "nn.max_pool2d",
        "nn.avg_pool2d",
        "take",
        "image.resize2d",
        "max",
        "min",
        "nn.pad",
        "clip",
        "concat",
        "mean",
        "split",
    )
)
_STORED = ("int8", "uint8", "int16", "uint16")
_AVERAGES = ("relax.nn.avg_pool2d", "relax.mean")


@dataclass(frozen=True)
class _Quantization:
    scale: Constant
    zero_point: Constant
    dtype: str

    def dequantize(self, x: Expr) -> Call:
        return relax.op.dequantize(x, self.scale, self.zero_point, axis=max(len(shape_of(x)) - 1, 0))

    def quantize(self, x: Expr) -> Call:
        return relax.op.quantize(
            x, self.scale, self.zero_point, axis=max(len(shape_of(x)) - 1, 0), out_dtype=self.dtype
        )

    def real(self, stored: float) -> float:
        """The real value of an integer, in float32 arithmetic."""
        return float(
            np.float32(stored - float(array_of(self.zero_point).reshape(-1)[0])) * array_of(self.scale).reshape(-1)[0]
        )

    @property
    def zero(self) -> float:
        return float(array_of(self.zero_point).reshape(-1)[0])


@tvm.transform.module_pass(opt_level=0, name="ergo.LiftIntegers")
@dataclass(frozen=True)
class LiftIntegers:
    """``move(q)`` becomes ``quantize(move(dequantize(q)))`` with q's own scale and zero point, which is exact.

    Covers data movement (of a split, each part), pooling and clips on int8/uint8. A clip right after a quantize moves
    before it, as relu or clip with real bounds (dropped if it spans the type). Average pooling on widened integers
    (TFLite's form) rounds half to even afterwards, where TFLite rounds half away from zero: at most one step apart, at
    ties. Averages of integers whose scale nothing names are those of the integers, rounded (an average is the same in
    every scale); on widened integers they would be truncated. ``dequantize(take(constant, numbers))`` takes real rows.
    """

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Lifter(mod).run()


class _Lifter(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.known: dict[Var, _Quantization] = {}
        self.wide: dict[Var, Expr] = {}
        self.behind: dict[Var, _Quantization] = {}
        self.parts: dict[Var, _Quantization] = {}  # tuples of reals, whose fields are to be quantized
        for var, value in reversed(self.source):
            name = op_name(value)
            data = value.args[0] if name and value.args else None
            if name == "relax.dequantize" and isinstance(data, Var) and _per_tensor(value):
                self.behind[data] = _Quantization(value.args[1], value.args[2], dtype_of(data))
            elif isinstance(value, TupleGetItem) and var in self.behind and isinstance(value.tuple_value, Var):
                self.behind.setdefault(value.tuple_value, self.behind[var])
            elif (
                (name in _LIFTED or name == "relax.astype")
                and isinstance(data, Var)
                and var in self.behind
                and is_tensor(data)
            ):
                if dtype_of(data) in (*_STORED, "int32"):
                    q = self.behind[var]
                    self.behind.setdefault(data, q)

    def rewrite(self, var: Var, value: Expr) -> Expr:
        name = op_name(value)
        if isinstance(value, TupleGetItem) and value.tuple_value in self.parts:
            quantization = self.parts[value.tuple_value]
            return self._remember(quantization.quantize(self.emit(value, f"{var.name}_real")), quantization, var)
        if name == "relax.quantize" and _per_tensor(value):
            return self._remember(value, _Quantization(value.args[1], value.args[2], str(value.attrs.out_dtype)), var)
        if name == "relax.astype":
            return self._astype(value)
        if name == "relax.dequantize":
            return self._rows(var, value)
        if name not in _LIFTED:
            return value
        data = list(value.args[0].fields) if isinstance(value.args[0], Tuple) else [value.args[0]]
        stored = [self.wide.get(d, d) for d in data]
        if any(not isinstance(d, Var) or dtype_of(d) not in _STORED for d in stored):
            return value
        quantization = self._same_quantization(stored)
        if (
            quantization is None
            and name in _AVERAGES
            and all(d in self.wide for d in data)
            and not any(map(self._quantization, stored))
        ):
            quantization = _Quantization(
                const(np.float32(1)), const(np.array(0, dtype_of(stored[0]))), dtype_of(stored[0])
            )
        if quantization is None:
            return value
        lifted = self._lift(var, value, name, stored, quantization)
        if isinstance(lifted, Var):
            return lifted
        if name == "relax.split":
            new = self.emit(lifted, var.name)
            self.parts[new] = quantization
            return new
        return self._remember(quantization.quantize(self.emit(lifted, f"{var.name}_real")), quantization, var)

    def _rows(self, var: Var, value: Call) -> Call:
        """Rows taken from a constant table of integers are taken from its real numbers."""
        take = self.defined(value.args[0], "relax.take")
        if take is None or not isinstance(take.args[0], Constant) or not _per_tensor(value):
            return value
        if dtype_of(take.args[0]) not in _STORED or take.attrs.axis is None:
            return value
        table = self.emit(relax.op.dequantize(take.args[0], *value.args[1:], axis=0), f"{var.name}_table")
        return infer(Call(take.op, [table, *take.args[1:]], take.attrs))

    def _remember(self, call: Call, quantization: _Quantization, var: Var) -> Var:
        new = self.emit(call, var.name)
        self.known[new] = quantization
        return new

    def _astype(self, value: Call) -> Expr:
        data, target = value.args[0], str(value.attrs.dtype)
        if not isinstance(data, Var):
            return value
        if target == "int32" and dtype_of(data) in _STORED:
            new = self.emit(value)
            self.wide[new] = data
            return new
        if target == dtype_of(data):
            return data
        return self.wide[data] if data in self.wide and dtype_of(self.wide[data]) == target else value

    def _quantization(self, new: Var) -> _Quantization | None:
        return self.known.get(new) or self.behind.get(self.origin.get(new))

    def _same_quantization(self, stored: list[Var]) -> _Quantization | None:
        found = [self._quantization(d) for d in stored]
        if any(q is None for q in found):
            return None
        first = found[0]
        same = all(np.array_equal(array_of(q.scale), array_of(first.scale)) and q.zero == first.zero for q in found)
        return _Quantization(first.scale, first.zero_point, dtype_of(stored[0])) if same else None

    def _lift(self, var: Var, value: Call, name: str, stored: list[Var], quantization: _Quantization) -> Expr:
        if name == "relax.clip":
            return self._clip(value, stored[0], quantization)
        reals = [self.emit(quantization.dequantize(d), f"{var.name}_in") for d in stored]
        if name == "relax.nn.pad":
            fill = quantization.real(float(value.attrs.pad_value))
            return relax.op.nn.pad(reals[0], list(ints(value.attrs.pad_width)), str(value.attrs.pad_mode), fill)
        first = Tuple(reals) if isinstance(value.args[0], Tuple) else reals[0]
        return infer(Call(value.op, [first, *value.args[1:]], value.attrs))

    def _clip(self, value: Call, stored: Var, quantization: _Quantization) -> Expr:
        limits = np.iinfo(quantization.dtype)
        low, high = max(float(value.args[1].value), limits.min), min(float(value.args[2].value), limits.max)
        if low == limits.min and high == limits.max:
            return stored
        quantize = self.defined(stored, "relax.quantize")
        real = quantize.args[0] if quantize is not None else self.emit(quantization.dequantize(stored))
        if high == limits.max:
            return (
                relax.op.nn.relu(real)
                if low == quantization.zero
                else relax.op.maximum(real, const(np.float32(quantization.real(low))))
            )
        if low == limits.min and low != quantization.zero:
            return relax.op.minimum(real, const(np.float32(quantization.real(high))))
        return relax.op.clip(real, quantization.real(low), quantization.real(high))


def _per_tensor(call: Call) -> bool:
    return all(isinstance(a, Constant) and array_of(a).size == 1 for a in call.args[1:3])
