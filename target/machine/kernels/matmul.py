"""Matrix product of two activations, in exact float32 BLAS chunks."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.conv import FLOAT32_EXACT
from tvm_ergo.target.machine.kernels.rescale import Rescale


def magnitude(zero_point: int) -> int:
    """The largest ``|q - zero_point|`` of an int8 ``q``."""
    return max(127 - int(zero_point), int(zero_point) + 128)


def matmul(
    a, b, *, transpose_b=False, a_zp=0, b_zp=0, mult=0, shift=0, out_zp=0, lo=-128, hi=127, out=None
) -> np.ndarray:
    """``a i8[...,M,K], b i8[...,K,N]`` (``[...,N,K]`` with transpose_b) ``-> i8[...,M,N]``, batch axes equal or 1.

    ``acc = sum (a - a_zp) * (b - b_zp)``, then ``numerics.requantize`` with mult and shift, scalars or [N].
    An int32 ``out`` receives the raw accumulators.
    """
    left, right = a.astype(np.float32), (np.swapaxes(b, -1, -2) if transpose_b else b).astype(np.float32)
    left -= np.float32(a_zp)
    right -= np.float32(b_zp)
    depth, product_bound = a.shape[-1], magnitude(a_zp) * magnitude(b_zp)
    step = FLOAT32_EXACT // product_bound
    if depth <= step:
        acc = np.matmul(left, right)
    else:
        acc = 0
        for k in range(0, depth, step):
            acc = np.matmul(left[..., k : k + step], right[..., k : k + step, :]).astype(np.float64) + acc
    channels = acc.shape[-1] if np.size(mult) > 1 or np.size(shift) > 1 else 1
    result = (
        out
        if out is not None and out.flags.c_contiguous
        else np.empty(acc.shape, np.int8 if out is None else out.dtype)
    )
    Rescale(mult, shift, out_zp, lo, hi, acc_bound=depth * product_bound, channels=channels)(acc, result)
    if out is None or result is out:
        return result
    out[...] = result
    return out
