"""NumPy meaning of Relax operators that make tensors from nothing or by repetition, and of shapes as values."""

from __future__ import annotations

import numpy as np

from tvm_ergo.relay_passes.interpreter_ops import operator
from tvm_ergo.relay_passes.relax_utils import dtype_of, ints


@operator("tile")
def _tile(call, x):
    return np.tile(x, ints(call.attrs.repeats))


@operator("repeat")
def _repeat(call, x):
    return np.repeat(x, int(call.attrs.repeats), axis=None if call.attrs.axis is None else int(call.attrs.axis))


@operator("full")
def _full(call, shape, value):
    return np.full(shape, value, dtype_of(call))


@operator("full_like", "zeros_like", "ones_like")
def _full_like(call, x, *value):
    fill = value[0] if value else (0 if "zeros" in call.op.name else 1)
    return np.full(x.shape, fill, dtype_of(call))


@operator("zeros", "ones")
def _filled(call, shape):
    return np.full(shape, 0 if "zeros" in call.op.name else 1, dtype_of(call))


@operator("arange")
def _arange(call, start, stop, step):
    return np.arange(start, stop, step, dtype_of(call))


@operator("shape_of")
def _shape_of(call, x):
    return tuple(x.shape)


@operator("shape_to_tensor")
def _shape_to_tensor(call, shape):
    return np.asarray(shape, np.int64)


@operator("tril")
def _tril(call, x, k):
    return np.tril(x, int(k))


@operator("triu")
def _triu(call, x, k):
    return np.triu(x, int(k))
