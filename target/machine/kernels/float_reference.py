"""Float32 forms of the kernels, on the same window code: for interpreting float models (calibration, comparison), not
for the chip."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.conv import for_bands, im2col
from tvm_ergo.target.machine.kernels.depthwise import DepthwiseTaps
from tvm_ergo.target.machine.kernels.pool import pooled_size, window_counts, window_sum
from tvm_ergo.target.machine.kernels.windows import output_size, pad_nhwc, stuff_zeros, tap, transpose_padding, windows


def conv2d_float(x, w, bias=None, *, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1) -> np.ndarray:
    """``x f32[N,H,W,C], w f32[O,kh,kw,C/groups], bias f32[O] or None -> f32[N,OH,OW,O]``; padding is (top, left,
    bottom, right)."""
    o, kh, kw, cg = w.shape
    n, height, width, channels = x.shape
    if groups > 1 and cg == 1:
        repeated = x if o == channels else np.repeat(x, o // channels, axis=3)
        return depthwise_float(
            repeated, w[..., 0].transpose(1, 2, 0), bias, strides=strides, padding=padding, dilation=dilation
        )
    shape = (
        n,
        output_size(height, kh, strides[0], padding[0], padding[2], dilation[0]),
        output_size(width, kw, strides[1], padding[1], padding[3], dilation[1]),
        o,
    )
    out = np.empty(shape, np.float32)
    rows, per_group, padded = out.reshape(-1, o), o // groups, pad_nhwc(x, padding, 0.0)
    matrix = np.ascontiguousarray(np.asarray(w, np.float32).reshape(o, -1).T)
    for g in range(groups):
        columns = slice(g * per_group, (g + 1) * per_group)
        view = windows(padded[..., g * cg : (g + 1) * cg], (kh, kw), strides, dilation)

        def run(band, view=view, columns=columns) -> None:
            patches, begin = im2col(view, band)
            rows[begin : begin + len(patches), columns] = patches @ matrix[:, columns]

        for_bands(view.shape, per_group, run)
    if bias is not None:
        out += np.asarray(bias, np.float32)
    return out


def depthwise_float(x, w, bias=None, *, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1)) -> np.ndarray:
    """``x f32[N,H,W,C], w f32[kh,kw,C], bias f32[C] or None -> f32[N,OH,OW,C]``."""
    taps = DepthwiseTaps(w, strides, dilation, np.float32)
    padded = pad_nhwc(x, padding, 0.0)
    n, height, width, c = padded.shape
    out = np.empty(
        (
            n,
            output_size(height, w.shape[0], strides[0], 0, 0, dilation[0]),
            output_size(width, w.shape[1], strides[1], 0, 0, dilation[1]),
            c,
        ),
        np.float32,
    )
    for image, result in zip(padded, out):

        def store(row: int, acc: np.ndarray, result=result) -> None:
            result[row : row + len(acc)] = acc.reshape(len(acc), -1, c)

        taps.apply(image, store)
    if bias is not None:
        out += np.asarray(bias, np.float32)
    return out


def conv2d_transpose_float(
    x, w, bias=None, *, strides=(1, 1), padding=(0, 0, 0, 0), output_padding=(0, 0), dilation=(1, 1)
) -> np.ndarray:
    """``x f32[N,H,W,C], w f32[O,kh,kw,C] -> f32[N,OH,OW,O]``, geometry of ``conv2d_transpose``."""
    around = transpose_padding(w.shape[1:3], dilation, padding, output_padding)
    return conv2d_float(stuff_zeros(x, strides, 0.0), w[:, ::-1, ::-1], bias, padding=around, dilation=dilation)


def max_pool2d_float(x, *, pool, strides, padding=(0, 0, 0, 0), dilation=(1, 1)) -> np.ndarray:
    """``x f32[N,H,W,C] -> f32[N,OH,OW,C]``; padding is minus infinity."""
    out_hw = pooled_size(x.shape, pool, strides, padding, dilation)
    padded = pad_nhwc(x, padding, -np.inf)
    out = tap(padded, 0, 0, out_hw, strides, dilation).copy()
    for i in range(pool[0]):
        for j in range(pool[1]):
            np.maximum(out, tap(padded, i, j, out_hw, strides, dilation), out=out)
    return out


def avg_pool2d_float(x, *, pool, strides, padding=(0, 0, 0, 0), count_include_pad=False) -> np.ndarray:
    """``x f32[N,H,W,C] -> f32[N,OH,OW,C]``."""
    count = pool[0] * pool[1] if count_include_pad else window_counts(x.shape, pool, strides, padding)
    return (window_sum(x, pool, strides, padding, 0.0, np.float32) / count).astype(np.float32)
