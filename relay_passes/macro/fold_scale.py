"""Per-channel products and sums after a linear operator (batch norm, mostly) move into its weight and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_constants import quantized_constant
from tvm_ergo.relay_passes.relax_utils import (
    LINEAR_OPS,
    Call,
    Constant,
    Expr,
    Rewriter,
    Var,
    array_of,
    const,
    dtype_of,
    op_name,
    shape_of,
)


@dataclass(frozen=True)
class _Quantized:
    """A quantized weight: integers, one scale per output channel (float32), one zero point, and the axis of the output
    channels."""

    stored: np.ndarray
    scale: np.ndarray
    zero_point: int
    axis: int

    def scaled(self, factor: np.ndarray) -> _Quantized | None:
        """The weight whose channel ``o`` is ``factor[o]`` times as large, exactly: scales are positive, so a negative
        factor turns the integers over.

        None where the turned integers do not fit their type.
        """
        shape = [-1 if i == self.axis else 1 for i in range(self.stored.ndim)]
        turned = (
            np.sign(factor).astype(np.int64).reshape(shape) * (self.stored.astype(np.int64) - self.zero_point)
            + self.zero_point
        )
        limits = np.iinfo(self.stored.dtype)
        if turned.min() < limits.min or turned.max() > limits.max:
            return None
        scale = np.where(factor == 0, self.scale, self.scale * np.abs(factor)).astype(np.float32)
        return (
            _Quantized(turned.astype(self.stored.dtype), scale, self.zero_point, self.axis)
            if (scale > 0).all()
            else None
        )

    def dequantized(self) -> Expr:
        zero_points = np.full(self.scale.shape, self.zero_point, self.stored.dtype)
        return relax.op.dequantize(const(self.stored), const(self.scale), const(zero_points), axis=self.axis)


@dataclass(frozen=True)
class _Linear:
    """A linear operator as it stands: the call, the bias already added to it, and its weight where that is
    quantized."""

    call: Call
    name: str
    bias: np.ndarray | None
    quantized: _Quantized | None = None

    @property
    def channels(self) -> int:
        shape = shape_of(self.call.args[1])
        return shape[-1] if op_name(self.call) == "relax.matmul" else shape[0]

    def scaled(self, factor: np.ndarray) -> _Linear | None:
        """The same operator with output channel ``o`` multiplied by ``factor[o]``, bias included; None where its weight
        cannot take it."""
        bias = None if self.bias is None else self.bias * factor
        if self.quantized is not None:
            weight = self.quantized.scaled(factor)
            made = (
                None
                if weight is None
                else Call(self.call.op, [self.call.args[0], weight.dequantized()], self.call.attrs)
            )
            return None if made is None else _Linear(made, self.name, bias, weight)
        weight = array_of(self.call.args[1])
        shape = (
            (1,) * (weight.ndim - 1) + (-1,)
            if op_name(self.call) == "relax.matmul"
            else (-1,) + (1,) * (weight.ndim - 1)
        )
        made = Call(
            self.call.op,
            [self.call.args[0], const((weight * factor.reshape(shape)).astype(np.float32))],
            self.call.attrs,
        )
        return _Linear(made, self.name, bias)


@tvm.transform.module_pass(opt_level=0, name="ergo.FoldScale")
@dataclass(frozen=True)
class FoldScale:
    """``(x @ w + b) * s + t`` becomes ``x @ (w*s) + (b*s + t)`` where w is a constant and nobody else reads the parts.

    Expects NHWC/OHWI convolutions, [K,N] matrices, and 1-D constants (FlattenConstants). Grouped transposed
    convolutions are left. Products are formed in float32; the result differs from the source by rounding only. A
    quantized weight keeps its integers: its scales take the factor. A quantized bias that nothing is folded into stays
    as it is stored."""

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Folder(mod).run()


class _Folder(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.linear: dict[Var, _Linear] = {}

    def rewrite(self, var: Var, value: Expr) -> Expr:
        name = op_name(value)
        if name in LINEAR_OPS and _foldable(value):
            if isinstance(value.args[1], Constant) and dtype_of(value.args[1]) == "float32":
                return self._bind(var, _Linear(value, var.name, None))
            weight = self._quantized_weight(value)
            if weight is not None:
                made = self.emit(value, var.name)
                self.linear[made] = _Linear(value, var.name, None, weight)
                return made
        if name not in ("relax.add", "relax.multiply"):
            return value
        a, b = value.args
        linear = self.linear.get(a) if isinstance(a, Var) else None
        if linear is None or not self.single_use(a):
            return value
        constant = self._per_channel(b, linear.channels)
        if constant is None:
            return value
        if name == "relax.add":
            bias = constant if linear.bias is None else linear.bias + constant
            folded = _Linear(linear.call, linear.name, bias, linear.quantized)
            if (
                quantized_constant(self, b) is not None and linear.bias is None
            ):  # kept as stored until something is folded into it
                made = self.emit(value, var.name)
                self.linear[made] = folded
                return made
            return self._bind(var, folded)
        scaled = linear.scaled(constant)
        return value if scaled is None else self._bind(var, scaled)

    def _per_channel(self, expr: Expr, channels: int) -> np.ndarray | None:
        """The float32 value of a constant operand, plain or dequantized, one per output channel; None for anything
        else."""
        call = quantized_constant(self, expr)
        if call is not None:
            stored, scale, zero_point = (array_of(a) for a in call.args)
            array = (stored.astype(np.float64) - zero_point).astype(np.float32) * scale if stored.ndim <= 1 else None
        else:
            array = array_of(expr) if isinstance(expr, Constant) and dtype_of(expr) == "float32" else None
        if array is None or array.shape not in ((), (1,), (channels,)):
            return None
        return np.broadcast_to(array.reshape(-1) if array.ndim else array, (channels,))

    def _quantized_weight(self, call: Call) -> _Quantized | None:
        """The weight of a linear operator as integers with one scale per output channel; None for other
        quantizations."""
        weight = quantized_constant(self, call.args[1])
        if weight is None:
            return None
        stored, scale, zero_point = (array_of(a) for a in weight.args)
        axis = stored.ndim - 1 if op_name(call) == "relax.matmul" else 0
        channels = stored.shape[axis]
        along = scale.size == 1 or int(weight.attrs.axis) % stored.ndim == axis
        if (
            str(stored.dtype) not in ("int8", "uint8")
            or not along
            or np.unique(zero_point).size != 1
            or scale.size not in (1, channels)
        ):
            return None
        return _Quantized(
            stored,
            np.broadcast_to(scale.reshape(-1), (channels,)).astype(np.float32),
            int(zero_point.reshape(-1)[0]),
            axis,
        )

    def _bind(self, var: Var, linear: _Linear) -> Var:
        """Emits the operator and its bias under the source's names."""
        call = linear.call
        if isinstance(call.args[1], Call):  # a weight that was scaled: its integers under a name of their own
            call = Call(call.op, [call.args[0], self.emit(call.args[1], f"{linear.name}_weight")], call.attrs)
            linear = _Linear(call, linear.name, linear.bias, linear.quantized)
        product = self.emit(call, linear.name if linear.bias is not None or linear.name == var.name else var.name)
        made = (
            product
            if linear.bias is None
            else self.emit(relax.op.add(product, const(linear.bias.astype(np.float32))), var.name)
        )
        self.linear[made] = linear
        return made


def _foldable(call: Call) -> bool:
    weight = call.args[1]
    if op_name(call) == "relax.matmul":
        return len(shape_of(weight)) == 2 and len(shape_of(call.args[0])) >= 2
    if str(call.attrs.kernel_layout) != "OHWI" or str(call.attrs.data_layout) != "NHWC":
        return False
    return op_name(call) == "relax.nn.conv2d" or int(call.attrs.groups) == 1
