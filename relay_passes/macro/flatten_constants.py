"""Constant operands in their smallest shape: per-channel ones 1-D, single numbers scalar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tvm

from tvm_ergo.relay_passes.interpreter_ops import ELEMENTWISE_BINARY
from tvm_ergo.relay_passes.relax_constants import map_constant, quantized_constant
from tvm_ergo.relay_passes.relax_utils import (
    LINEAR_OPS,
    Call,
    Constant,
    Expr,
    Rewriter,
    Var,
    array_of,
    const,
    op_name,
    shape_of,
)


@tvm.transform.module_pass(opt_level=0, name="ergo.FlattenConstants")
@dataclass(frozen=True)
class FlattenConstants:
    """The right, constant operand of an elementwise operator loses its leading ones (``[1,1,1,C]`` -> ``[C]``).

    A single number becomes a scalar; added to a linear operator, it becomes the bias of every channel, 1-D.
    """

    def transform_module(self, mod: tvm.IRModule, ctx) -> tvm.IRModule:
        return _Flattener(mod).run()


class _Flattener(Rewriter):
    def rewrite(self, var: Var, value: Expr) -> Expr:
        if op_name(value) not in ELEMENTWISE_BINARY or not isinstance(value, Call):
            return value
        a, b = value.args
        if not (isinstance(b, Constant) or quantized_constant(self, b) is not None) or isinstance(a, Constant):
            return value
        shape, other = shape_of(b), shape_of(a)
        biased = op_name(value) == "relax.add" and op_name(self.definition.get(a)) in LINEAR_OPS
        size = int(np.prod(shape))
        if size == 1 and len(other) >= len(shape):
            target = (1,) if biased and other[-1] == 1 else ()
            if biased and other[-1] != 1 and isinstance(b, Constant):
                return Call(value.op, [a, const(np.broadcast_to(array_of(b).reshape(-1), (other[-1],)))], value.attrs)
            if biased and other[-1] != 1:
                target = (1,)
        else:
            ones = next((i for i, d in enumerate(shape) if d != 1), len(shape))
            target = shape[min(ones, max(len(shape) - 1, 0)) :] if len(other) >= len(shape) else shape
        if target == shape:
            return value
        moved = map_constant(self, b, lambda array: array.reshape(target), f"{var.name}_constant")
        return value if moved is None else Call(value.op, [a, moved], value.attrs)
