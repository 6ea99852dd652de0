"""NumPy meaning of the integer dialect: the kernels of the instruction set, so that a lowered network can be measured
without compiling it."""

from __future__ import annotations

import dataclasses

import numpy as np

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.interpreter_ops import OPERATORS
from tvm_ergo.target.machine import kernels

_NO_ZERO_POINT = ("maximum", "minimum", "table", "table_16", "max_pool2d", "reduce_max", "reduce_min")
_COMMON = ("name", "out_scale")


def _movement(op: dialect.ErgoOp, *xs: np.ndarray) -> np.ndarray | None:
    if isinstance(op, dialect.Reshape):
        return xs[0].reshape(op.shape)
    if isinstance(op, dialect.Transpose):
        return xs[0].transpose(op.perm)
    if isinstance(op, dialect.Concat):
        return np.concatenate(xs, axis=op.axis)
    if isinstance(op, dialect.Slice):
        return xs[0][tuple(slice(b, e, s) for b, e, s in zip(op.begin, op.end, op.strides))]
    if isinstance(op, dialect.Pad):
        return np.pad(xs[0], list(zip(op.pad_width[::2], op.pad_width[1::2])), constant_values=op.value)
    return None


class _Rule:
    """Evaluates calls of one op; what a call says is read once."""

    def __init__(self):
        self._known: dict = {}

    def __call__(self, call, *arrays):
        if call not in self._known:
            op = dialect.from_call(call.call)
            skipped = (*_COMMON, *(("out_zp",) if op.op_name in _NO_ZERO_POINT else ()))
            self._known[call] = (
                op,
                {f.name: getattr(op, f.name) for f in dataclasses.fields(op) if f.name not in skipped},
            )
        op, fields = self._known[call]
        moved = _movement(op, *arrays)
        return moved if moved is not None else getattr(kernels, op.op_name)(*arrays, **fields)


def register() -> None:
    """Enter a rule for every op of the dialect that a network can contain."""
    for name, op in dialect.OPS.items():
        if op.in_models:
            OPERATORS.setdefault(op.relax_name(), _Rule())


register()
