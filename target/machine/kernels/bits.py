"""Tensors of signs, eight to a byte: packing, convolution by XNOR and popcount, pooling.

Channel c is bit ``c % 8`` of byte ``c // 8``; a set bit is +1, a cleared one -1. Surplus bits of the last byte are
ignored where they are read and cleared where they are written."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target import numerics
from tvm_ergo.target.machine.kernels.windows import pad_nhwc, windows


def pack_bits(bits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """uint8[..., ceil(C/8)] of bool[..., C]."""
    packed = np.packbits(bits, axis=-1, bitorder="little")
    if out is None:
        return packed
    out[...] = packed
    return out


def signs(packed: np.ndarray, channels: int) -> np.ndarray:
    """float32[..., channels] of +1 and -1."""
    bits = np.unpackbits(packed, axis=-1, count=channels, bitorder="little")
    return bits.astype(np.float32) * 2 - 1


def binarize(x: np.ndarray, low: np.ndarray, high: np.ndarray, *, out: np.ndarray | None = None, **_) -> np.ndarray:
    """Bits ``low[c] <= x <= high[c]``, packed. x int8[..., C], low and high int8[C]."""
    return pack_bits((x >= low) & (x <= high), out)


def dots(x: np.ndarray, w: np.ndarray, *, channels: int, strides, padding, dilation, pad_value: int) -> np.ndarray:
    """int32[N,OH,OW,O]: products of signs summed over a window; padded taps count ``pad_value`` (0: nothing).

    x uint8[N,H,W,B], w uint8[O,kh,kw,B], B = ceil(channels/8). Exact: sums of at most 2**24 signs in float32."""
    view = windows(pad_nhwc(signs(x, channels), padding, np.float32(pad_value)), w.shape[1:3], strides, dilation)
    matrix = signs(w, channels).reshape(w.shape[0], -1).T
    return (view.reshape(-1, matrix.shape[0]) @ matrix).astype(np.int32).reshape(*view.shape[:3], w.shape[0])


def binary_conv2d(x, w, low, high, *, out: np.ndarray | None = None, **window) -> np.ndarray:
    """Bits ``low[o] <= dot <= high[o]``, packed."""
    total = dots(x, w, **_only(window))
    return pack_bits((total >= low) & (total <= high), out)


def binary_conv2d_sum(
    x, w, scale, bias, mult, shift, *, out_zp: int, lo: int, hi: int, out: np.ndarray | None = None, **window
) -> np.ndarray:
    """int8 ``requantize(bias[o] + scale[o] * dot)``; of an int32 ``out`` the sum itself, which wraps around."""
    acc = dots(x, w, **_only(window)).astype(np.int64) * scale + bias
    if out is not None and out.dtype == np.int32:
        out[...] = acc.astype(np.int32)
        return out
    result = numerics.requantize(acc, mult, shift, out_zp, lo, hi)
    if out is None:
        return result
    out[...] = result
    return out


def binary_conv2d_accumulate(x, w, scale, bias, mult, shift, **fields) -> np.ndarray:
    """``binary_conv2d_sum`` before its requantization."""
    return (dots(x, w, **_only(fields)).astype(np.int64) * scale + bias).astype(np.int32)


def _only(fields: dict) -> dict:
    return {name: fields[name] for name in ("channels", "strides", "padding", "dilation", "pad_value")}


def binary_max_pool2d(x, *, pool, strides, padding, dilation, out: np.ndarray | None = None, **_) -> np.ndarray:
    """The largest sign of each window, all eight of a byte at once: OR. Padding never wins."""
    view = windows(pad_nhwc(x, padding, np.uint8(0)), pool, strides, dilation)
    result = np.bitwise_or.reduce(view, axis=(3, 4))
    if out is None:
        return result
    out[...] = result
    return out
