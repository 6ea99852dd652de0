"""Per-channel products and sums after a linear operator (batch norm, mostly) move into its weight and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from tvm_ergo.relay_passes.relax_utils import (LINEAR_OPS, Call, Constant, Expr, Rewriter, Var, array_of, const, dtype_of, op_name,
                                               shape_of)


@dataclass(frozen=True)
class _Linear:
    """A linear operator as it stands: the call, and the bias already added to it."""

    call: Call
    name: str
    bias: np.ndarray | None

    @property
    def channels(self) -> int:
        shape = shape_of(self.call.args[1])
        return shape[-1] if op_name(self.call) == "relax.matmul" else shape[0]

    def scaled(self, factor: np.ndarray) -> Call:
        """The same operator with output channel ``o`` multiplied by ``factor[o]``."""
        weight = array_of(self.call.args[1])
        shape = (1,) * (weight.ndim - 1) + (-1,) if op_name(self.call) == "relax.matmul" else (-1,) + (1,) * (weight.ndim - 1)
        return Call(self.call.op, [self.call.args[0], const((weight * factor.reshape(shape)).astype(np.float32))], self.call.attrs)


@tvm.transform.module_pass(opt_level=0, name="ergo.FoldScale")
@dataclass(frozen=True)
class FoldScale:
    """``(x @ w + b) * s + t`` becomes ``x @ (w*s) + (b*s + t)`` where w is a float constant and nobody else reads the parts.

    Expects NHWC/OHWI convolutions, [K,N] matrices, and 1-D constants (FlattenConstants). Grouped transposed convolutions are left.
    Products are formed in float32; the result differs from the source by rounding only.
    """

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Folder(mod).run()


class _Folder(Rewriter):
    def __init__(self, mod: tvm.IRModule):
        super().__init__(mod)
        self.linear: dict[Var, _Linear] = {}

    def rewrite(self, var: Var, value: Expr) -> Expr:
        name = op_name(value)
        if name in LINEAR_OPS and _foldable(value):
            return self._bind(var, _Linear(value, var.name, None))
        if name not in ("relax.add", "relax.multiply"):
            return value
        a, b = value.args
        linear = self.linear.get(a) if isinstance(a, Var) else None
        if linear is None or not self.single_use(a) or not isinstance(b, Constant) or dtype_of(b) != "float32":
            return value
        constant = array_of(b)
        if constant.shape not in ((), (1,), (linear.channels,)):
            return value
        constant = np.broadcast_to(constant.reshape(-1) if constant.ndim else constant, (linear.channels,))
        if name == "relax.add":
            bias = constant if linear.bias is None else linear.bias + constant
            return self._bind(var, _Linear(linear.call, linear.name, bias))
        bias = None if linear.bias is None else linear.bias * constant
        return self._bind(var, _Linear(linear.scaled(constant), linear.name, bias))

    def _bind(self, var: Var, linear: _Linear) -> Var:
        product = self.emit(linear.call, linear.name if linear.bias is not None or linear.name == var.name else var.name)
        made = product if linear.bias is None else self.emit(relax.op.add(product, const(linear.bias.astype(np.float32))), var.name)
        self.linear[made] = linear
        return made


def _foldable(call: Call) -> bool:
    weight = call.args[1]
    if not isinstance(weight, Constant) or dtype_of(weight) != "float32":
        return False
    if op_name(call) == "relax.matmul":
        return len(shape_of(weight)) == 2
    if str(call.attrs.kernel_layout) != "OHWI" or str(call.attrs.data_layout) != "NHWC":
        return False
    return op_name(call) == "relax.nn.conv2d" or int(call.attrs.groups) == 1
