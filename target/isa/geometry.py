"""Output sizes of windows, shared by the preconditions of convolutions and pooling."""

from __future__ import annotations

import numpy as np


def window_positions(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    """How often a dilated window of ``kernel`` taps fits ``size`` elements with padding; <= 0 when it does not."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def window_shape(hw, kernel, strides, padding, dilation) -> tuple[int, int]:
    """(OH, OW) of a window over (H, W); padding (top, left, bottom, right)."""
    top, left, bottom, right = padding
    return (
        window_positions(hw[0], kernel[0], strides[0], top, bottom, dilation[0]),
        window_positions(hw[1], kernel[1], strides[1], left, right, dilation[1]),
    )


def every_window_meets_input(size: int, kernel: int, stride: int, before: int, dilation: int, positions: int) -> bool:
    """Whether each of ``positions`` windows along an axis has a tap inside ``[0, size)``."""
    taps = np.arange(positions)[:, None] * stride - before + np.arange(kernel) * dilation
    return bool(np.all(np.any((taps >= 0) & (taps < size), axis=1)))


def transposed_shape(hw, kernel, strides, padding, output_padding, dilation) -> tuple[int, int]:
    """(OH, OW) of a transposed convolution: ``(H-1)*sh - top - bottom + (kh-1)*dh + 1 + output_padding``."""
    top, left, bottom, right = padding
    cut = (top + bottom, left + right)
    oh, ow = ((hw[i] - 1) * strides[i] - cut[i] + (kernel[i] - 1) * dilation[i] + 1 + output_padding[i] for i in (0, 1))
    return oh, ow


def broadcast_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether ``shape`` broadcasts to ``target`` under NumPy's rule."""
    return len(shape) <= len(target) and all(s in (1, t) for s, t in zip(reversed(shape), reversed(target)))
