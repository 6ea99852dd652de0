"""Geometry shared by convolutions and pooling: output sizes, padding, and sliding-window views."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine.kernels.workspace import scratch


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """Positions of a dilated window of ``kernel`` taps on ``size`` elements with padding. Errors: MachineError when
    there is none."""
    count = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    if count < 1:
        raise MachineError(
            "a window is larger than its padded input",
            required=f"{(kernel - 1) * dilation + 1} elements",
            available=f"{size} + padding ({before}, {after})",
        )
    return count


def pad_nhwc(x: np.ndarray, padding: tuple[int, int, int, int], value) -> np.ndarray:
    """``x [N,H,W,C]`` with (top, left, bottom, right) more rows and columns of ``value``; negative padding crops. May
    return ``x`` itself."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, h, w, c = x.shape
    rows, columns = h + top + bottom, w + left + right
    # where the input lands; a crop beyond the data leaves nothing of it
    row, column = (
        slice(max(0, top), max(0, top, min(rows, top + h))),
        slice(max(0, left), max(0, left, min(columns, left + w))),
    )
    out = scratch("pad", (n, rows, columns, c), x.dtype)
    out[:, : row.start], out[:, row.stop :] = value, value
    out[:, row, : column.start], out[:, row, column.stop :] = value, value
    out[:, row, column] = x[:, row.start - top : row.stop - top, column.start - left : column.stop - left]
    return out


def windows(x: np.ndarray, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]) -> np.ndarray:
    """The view ``[N,OH,OW,kh,kw,C]`` of the already padded ``x [N,H,W,C]``."""
    n, h, w, c = x.shape
    oh = output_size(h, kernel[0], strides[0], 0, 0, dilation[0])
    ow = output_size(w, kernel[1], strides[1], 0, 0, dilation[1])
    sn, sh, sw, sc = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (n, oh, ow, *kernel, c),
        (sn, sh * strides[0], sw * strides[1], sh * dilation[0], sw * dilation[1], sc),
        writeable=False,
    )


def tap(
    x: np.ndarray, i: int, j: int, out_hw: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]
) -> np.ndarray:
    """The view ``[N,OH,OW,C]`` of the elements of padded ``x`` that meet tap (i, j) of the window."""
    top, left = i * dilation[0], j * dilation[1]
    return x[
        :,
        top : top + (out_hw[0] - 1) * strides[0] + 1 : strides[0],
        left : left + (out_hw[1] - 1) * strides[1] + 1 : strides[1],
    ]


def stuff_zeros(x: np.ndarray, strides: tuple[int, int], value) -> np.ndarray:
    """``x [N,H,W,C]`` with ``strides - 1`` elements of ``value`` between neighbours: turns a transposed convolution
    into a convolution."""
    if tuple(strides) == (1, 1):
        return x
    n, h, w, c = x.shape
    out = np.full((n, (h - 1) * strides[0] + 1, (w - 1) * strides[1] + 1, c), value, x.dtype)
    out[:, :: strides[0], :: strides[1]] = x
    return out


def transpose_padding(kernel, dilation, padding, output_padding) -> tuple[int, int, int, int]:
    """Padding of the stride-1 convolution with the flipped kernel that equals a transposed convolution on the
    zero-stuffed input."""
    reach_h, reach_w = (kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1]
    top, left, bottom, right = padding
    return reach_h - top, reach_w - left, reach_h - bottom + output_padding[0], reach_w - right + output_padding[1]
