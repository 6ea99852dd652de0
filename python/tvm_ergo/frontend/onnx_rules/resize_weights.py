"""What ONNX's Resize computes along one axis, as a matrix: every output element is a weighted sum of input elements.

Definitions: ONNX Operators.md, Resize (opset 11 to 19). Coordinates are computed in float32, as ONNX Runtime does, so
that nearest neighbours agree at ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

F = np.float32


@dataclass(frozen=True)
class Method:
    """The attributes of a Resize that say how values are found; defaults are ONNX's.

    region : (start, end) of the axis in normalized coordinates; only mode tf_crop_and_resize reads it.
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    region: tuple[float, float] = (0.0, 1.0)


def coordinates(size: int, length: int, scale: float, method: Method) -> np.ndarray:
    """Where in the input each output element lies, float32[length]."""
    x, scale, name = np.arange(length, dtype=F), F(scale), method.coordinates
    if scale == 1 and size == length:  # ONNX Runtime does not crop such an axis either
        return x
    if name == "tf_crop_and_resize":
        start, end = F(method.region[0]), F(method.region[1])
        if length > 1:
            return start * F(size - 1) + x * (end - start) * F(size - 1) / F(length - 1)
        return np.array([F(0.5) * (start + end) * F(size - 1)], F)
    if name == "asymmetric":
        return x / scale
    if name == "align_corners":
        return x * F(size - 1) / F(length - 1) if length > 1 else np.zeros(1, F)
    if name == "pytorch_half_pixel" and length == 1:
        return np.zeros(1, F)
    if name == "tf_half_pixel_for_nn":
        return (x + F(0.5)) / scale
    if name == "half_pixel_symmetric":
        adjustment = F(length) / (scale * F(size))
        centre = F(size) / F(2)
        return (float(centre * (F(1) - adjustment)) + (x + 0.5).astype(np.float64) / float(scale) - 0.5).astype(
            F
        )  # its halves are doubles
    if name in ("half_pixel", "pytorch_half_pixel"):
        return (x + F(0.5)) / scale - F(0.5)
    raise ValueError(f"coordinate_transformation_mode {name!r}")


def nearest_index(at: np.ndarray, size: int, rounding: str) -> np.ndarray:
    """The input element nearest to each coordinate, int64."""
    rounded = {
        "round_prefer_floor": lambda v: np.ceil(v - F(0.5)),
        "round_prefer_ceil": lambda v: np.floor(v + F(0.5)),
        "floor": np.floor,
        "ceil": np.ceil,
    }[rounding](at)
    return np.clip(rounded, 0, size - 1).astype(np.int64)


def weights(size: int, length: int, scale: float, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """``(matrix float64[length, size], outside bool[length])``; ``outside``: the element lies beyond the region's
    image."""
    at = coordinates(size, length, scale, method)
    outside = (at < 0) | (at > size - 1) if method.coordinates == "tf_crop_and_resize" else np.zeros(length, bool)
    if method.mode == "nearest":
        matrix = np.zeros((length, size))
        matrix[np.arange(length), nearest_index(at, size, method.nearest)] = 1
    elif method.antialias:
        matrix = _filtered(size, length, scale, at, method)
    elif method.mode == "linear":
        matrix = _linear(size, at)
    elif method.mode == "cubic":
        matrix = _cubic(size, at, method)
    else:
        raise ValueError(f"mode {method.mode!r}")
    return matrix, outside


def _linear(size: int, at: np.ndarray) -> np.ndarray:
    at = np.clip(at, 0, size - 1).astype(np.float64)
    low = np.floor(at).astype(np.int64)
    matrix, rows = np.zeros((len(at), size)), np.arange(len(at))
    np.add.at(matrix, (rows, low), 1 - (at - low))
    np.add.at(matrix, (rows, np.minimum(low + 1, size - 1)), at - low)
    return matrix


def _cubic_kernel(t: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (IEEE Trans. ASSP 29, 1981) at distances t."""
    t = np.abs(t)
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _cubic(size: int, at: np.ndarray, method: Method) -> np.ndarray:
    at = at.astype(np.float64)
    first, rows = np.floor(at).astype(np.int64), np.arange(len(at))
    matrix = np.zeros((len(at), size))
    for tap in range(-1, 3):
        index, weight = first + tap, _cubic_kernel(at - (first + tap), method.cubic_a)
        if method.exclude_outside:
            weight = np.where((index < 0) | (index >= size), 0.0, weight)
        np.add.at(matrix, (rows, np.clip(index, 0, size - 1)), weight)
    return matrix / matrix.sum(axis=1, keepdims=True) if method.exclude_outside else matrix


def _filtered(size: int, length: int, scale: float, at: np.ndarray, method: Method) -> np.ndarray:
    """Antialiasing: when shrinking, the kernel is stretched by 1 / scale and its weights sum to one; those beyond the
    edge count for the edge, or, with exclude_outside, not at all."""
    stretch = max(1.0, 1.0 / scale)
    support = (1.0 if method.mode == "linear" else 2.0) * stretch
    matrix = np.zeros((length, size))
    for row, centre in enumerate(at.astype(np.float64) + 0.5):
        index = np.arange(int(np.floor(centre - support + 0.5)), int(np.floor(centre + support + 0.5)))
        t = (index + 0.5 - centre) / stretch
        w = np.maximum(1 - np.abs(t), 0) if method.mode == "linear" else _cubic_kernel(t, method.cubic_a)
        if method.exclude_outside:
            w = np.where((index < 0) | (index >= size), 0.0, w)
        np.add.at(matrix[row], np.clip(index, 0, size - 1), w / w.sum())
    return matrix
