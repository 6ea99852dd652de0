"""Instructions on rows: normalization, exponentials under a mask, weighted means, rotation, gathering. Formulas:
`target.isa.rows`."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.matmul import magnitude
from tvm_ergo.target.machine.kernels.wide import finish, result
from tvm_ergo.target.numerics import rounding_shift

FLOAT32_EXACT = 1 << 24
RECIPROCAL_BITS, MEAN_BITS = 30, 22


def norm(
    x,
    gamma,
    beta,
    *,
    wide=False,
    centre,
    in_zp=0,
    eps=0,
    eps_shift=0,
    beta_shift=0,
    shift=0,
    out_zp=0,
    lo=-128,
    hi=127,
    out=None,
) -> np.ndarray:
    """``x i8 or i16[..., C], gamma i16[C], beta i32[C] -> i8 or i16[..., C]``, rows over their deviation."""
    out = result(out, x.shape, wide)
    values, length = x.astype(np.int64) - in_zp, x.shape[-1]
    total = values.sum(-1, keepdims=True) if centre else np.int64(0)
    spread = np.maximum(
        1,
        length * np.einsum("...c,...c->...", values, values)[..., None] - total * total + (int(eps) << int(eps_shift)),
    )
    exponent = (
        np.frexp(spread.astype(np.float64))[1].astype(np.int64) - 31
    )  # of 2**30 it is 0; rounding to 53 bits may carry: corrected below
    exponent -= spread < np.int64(1) << np.clip(exponent + 30, 0, 62)
    k = exponent >> 1
    v = (spread << (2 * np.maximum(-k, 0))) >> (2 * np.maximum(k, 0))
    root = np.floor(np.sqrt(((1 << 62) // v).astype(np.float64))).astype(np.int64)  # exact: the numbers are below 2**53
    t = rounding_shift((length * values - total) * root, 17 + k)
    return finish(
        rounding_shift(t * gamma.astype(np.int64) + (beta.astype(np.int64) << beta_shift), shift), out, out_zp, lo, hi
    )


def exp_rows(x, lut, *mask, causal=False, offset=0, out_zp=0, out=None) -> np.ndarray:
    """``x i16[..., M, K], lut i32[256], mask i8 -> u8[..., M, K]``: exponentials relative to the row's largest valid
    element."""
    out = np.empty(x.shape, np.uint8) if out is None else out
    valid = None
    if causal:
        rows, length = x.shape[-2:]
        valid = np.arange(length) <= np.arange(rows)[:, None] + offset
    for kept in mask:
        valid = kept != 0 if valid is None else valid & (kept != 0)
    values = x.astype(np.int32)
    known = values if valid is None else np.where(valid, values, np.int32(-32768))
    distance = known.max(-1, keepdims=True) - values
    power = lut[distance & 255] >> np.clip(distance >> 8, 0, 31)
    np.minimum((power + 64) >> 7, 255, out=power)
    np.copyto(out, power if valid is None else np.where(valid, power, 0), casting="unsafe")
    return out


def weighted_mean(a, b, *, wide=False, b_zp=0, mult=0, shift=0, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``a u8[..., M, K], b i8[..., K, N] -> i8 or i16[..., M, N]``: means of b's rows with the weights in a's."""
    left, right, depth = a.astype(np.float32), b.astype(np.float32), a.shape[-1]
    right -= np.float32(b_zp)
    step = max(1, FLOAT32_EXACT // (255 * magnitude(b_zp)))
    acc = np.int64(0)
    for k in range(0, depth, step):
        acc = acc + np.matmul(left[..., k : k + step], right[..., k : k + step, :]).astype(np.int64)
    weight = np.maximum(1, a.sum(-1, keepdims=True, dtype=np.int64))
    mean = rounding_shift(acc * ((1 << RECIPROCAL_BITS) // weight), MEAN_BITS)
    return finish(rounding_shift(mean * mult, shift), result(out, mean.shape, wide), out_zp, lo, hi)


def rotate(x, cos, sin, *, wide=False, interleaved, mult=0, shift=0, out_zp=0, lo=-128, hi=127, out=None) -> np.ndarray:
    """``x, cos, sin i16[..., D] -> i8 or i16[..., D]``: x times cosines and its partners times sines."""
    partner = (
        x.reshape(*x.shape[:-1], -1, 2)[..., ::-1].reshape(x.shape)
        if interleaved
        else np.roll(x, x.shape[-1] // 2, axis=-1)
    )
    total = x.astype(np.int64) * cos + partner.astype(np.int64) * sin
    return finish(rounding_shift(total * mult, shift), result(out, x.shape, wide), out_zp, lo, hi)


def gather_rows(table, mult, ids, *, shift=0, out_zp=0, out=None) -> np.ndarray:
    """``table i8[V, C], mult i32[V], ids i32[...] -> i16[..., C]``: rows by number, each times its multiplier."""
    index = ids.astype(np.int64)
    index = np.clip(np.where(index < 0, index + len(table), index), 0, len(table) - 1)
    out = np.empty((*ids.shape, table.shape[-1]), np.int16) if out is None else out
    return finish(
        rounding_shift(table[index].astype(np.int64) * mult[index].astype(np.int64)[..., None], shift), out, 0, 0, 0
    )
