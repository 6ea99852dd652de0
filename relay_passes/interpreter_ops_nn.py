"""NumPy meaning of the neural-network operators of Relax: convolutions, products, pooling, normalization, resize.

Everything is brought to NHWC activations and OHWI weights first. Float32 convolutions of one group and depthwise ones
are the kernels' ``conv2d_float``; the rest (groups, other number types) is im2col and one product per group, a
multiply-add per tap if depthwise."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tvm_ergo.relay_passes.interpreter_ops import operator
from tvm_ergo.relay_passes.relax_utils import ints, shape_of
from tvm_ergo.target.errors import UnsupportedError
from tvm_ergo.target.machine.kernels.float_reference import conv2d_float


def permutation(source: str, destination: str) -> tuple[int, ...]:
    """Axes argument of ``transpose`` from layout ``source`` to ``destination`` ("NCHW", "NHWC" -> (0, 2, 3, 1))."""
    if sorted(source) != sorted(destination):
        raise UnsupportedError(f"layout {source!r} cannot be turned into {destination!r}", where="layout")
    return tuple(source.index(axis) for axis in destination)


def pad4(padding) -> tuple[int, int, int, int]:
    """Relax padding (1, 2 or 4 numbers) as (top, left, bottom, right)."""
    p = ints(padding)
    return p * 4 if len(p) == 1 else (p[0], p[1], p[0], p[1]) if len(p) == 2 else p


def pair(values) -> tuple[int, int]:
    """One or two numbers as (vertical, horizontal)."""
    v = ints(values)
    return (v[0], v[0]) if len(v) == 1 else v


def _padded(x: np.ndarray, padding, value=0.0) -> np.ndarray:
    t, left, b, r = padding
    return x if not any(padding) else np.pad(x, ((0, 0), (t, b), (left, r), (0, 0)), constant_values=value)


def _windows(x: np.ndarray, kernel, strides, dilation) -> np.ndarray:
    """View [N,OH,OW,C,kh,kw] of the windows of an already padded x [N,H,W,C]."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, strides, dilation
    view = sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(1, 2))
    return view[:, ::sh, ::sw, :, ::dh, ::dw]


def conv2d_nhwc(
    x: np.ndarray, w: np.ndarray, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups: int = 1
) -> np.ndarray:
    """Convolution of x [N,H,W,C] with w [O,kh,kw,C/groups]; padding (t, l, b, r). Returns [N,OH,OW,O]."""
    out_channels, kh, kw, depth = w.shape
    depthwise = groups > 1 and depth == 1 and groups == out_channels
    if x.dtype == w.dtype == np.float32 and groups == 1 and w.shape[1:3] == strides == (1, 1) and not any(padding):
        return (x.reshape(-1, depth) @ w.reshape(out_channels, depth).T).reshape(*x.shape[:3], out_channels)
    if x.dtype == w.dtype == np.float32 and (depthwise or groups == 1):
        return conv2d_float(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)
    x = _padded(x, padding)
    if depthwise:
        return _depthwise(x, w, strides, dilation)
    if (kh, kw) == (1, 1):
        columns = x[:, :: strides[0], :: strides[1], :][..., None, None]
    else:
        columns = _windows(x, (kh, kw), strides, dilation)
    n, oh, ow = columns.shape[:3]
    out = np.empty((n, oh, ow, out_channels), np.result_type(x, w))
    per_group = out_channels // groups
    for g in range(groups):
        block = (
            columns[:, :, :, g * depth : (g + 1) * depth]
            .transpose(0, 1, 2, 4, 5, 3)
            .reshape(n * oh * ow, kh * kw * depth)
        )
        part = slice(g * per_group, (g + 1) * per_group)
        out[..., part] = (block @ w[part].reshape(per_group, -1).T).reshape(n, oh, ow, per_group)
    return out


def _depthwise(x: np.ndarray, w: np.ndarray, strides, dilation) -> np.ndarray:
    channels, kh, kw, _ = w.shape
    oh = (x.shape[1] - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (x.shape[2] - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    out = np.zeros((x.shape[0], oh, ow, channels), np.result_type(x, w))
    product = np.empty_like(out)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dilation[0], j * dilation[1]
            tap = x[
                :,
                top : top + (oh - 1) * strides[0] + 1 : strides[0],
                left : left + (ow - 1) * strides[1] + 1 : strides[1],
            ]
            out += np.multiply(tap, np.ascontiguousarray(w[:, i, j, 0]), out=product)
    return out


def conv2d_transpose_nhwc(x, w, strides, padding, output_padding, dilation, groups: int = 1) -> np.ndarray:
    """Transposed convolution of x [N,H,W,C] with w [O,kh,kw,C/groups ...]; each input pixel adds its scaled kernel."""
    n, h, width, channels = x.shape
    out_channels, kh, kw, depth = w.shape
    full_h = (h - 1) * strides[0] + (kh - 1) * dilation[0] + 1
    full_w = (width - 1) * strides[1] + (kw - 1) * dilation[1] + 1
    t, left, b, r = padding
    out = np.zeros((n, full_h + output_padding[0], full_w + output_padding[1], out_channels), np.float32)
    per_group = out_channels // groups
    for g in range(groups):
        part, source = slice(g * per_group, (g + 1) * per_group), x[..., g * depth : (g + 1) * depth]
        for i in range(kh):
            for j in range(kw):
                di, dj = i * dilation[0], j * dilation[1]
                out[
                    :,
                    di : di + (h - 1) * strides[0] + 1 : strides[0],
                    dj : dj + (width - 1) * strides[1] + 1 : strides[1],
                    part,
                ] += source @ w[part, i, j].T
    return out[:, t : out.shape[1] - b, left : out.shape[2] - r]


@operator("nn.conv2d")
def _conv2d(call, x, w):
    a = call.attrs
    x, w = x.transpose(permutation(str(a.data_layout), "NHWC")), w.transpose(permutation(str(a.kernel_layout), "OHWI"))
    out = conv2d_nhwc(x, w, pair(a.strides), pad4(a.padding), pair(a.dilation), int(a.groups))
    return out.transpose(permutation("NHWC", str(a.out_layout) or str(a.data_layout)))


@operator("nn.conv2d_transpose")
def _conv2d_transpose(call, x, w):
    a = call.attrs
    groups = int(a.groups)
    x, w = x.transpose(permutation(str(a.data_layout), "NHWC")), w.transpose(permutation(str(a.kernel_layout), "OHWI"))
    if groups > 1:  # Relax: O is per group, I is all input channels; here O is all and I is per group
        w = np.concatenate(np.split(w, groups, axis=3), axis=0)
    out = conv2d_transpose_nhwc(
        x, w, pair(a.strides), pad4(a.padding), pair(a.output_padding), pair(a.dilation), groups
    )
    return out.transpose(permutation("NHWC", str(a.out_layout) or str(a.data_layout)))


@operator("matmul")
def _matmul(call, a, b):
    return np.matmul(a, b)


@operator("nn.batch_matmul")
def _batch_matmul(call, a, b):
    return np.matmul(a, b)


def _pool_geometry(call, x):
    """NHWC input, kernel, strides, dilation, padding grown so that the declared output size comes out (ceil mode)."""
    a = call.attrs
    x = x.transpose(permutation(str(a.layout), "NHWC"))
    kernel, strides, dilation, (t, left, b, r) = pair(a.pool_size), pair(a.strides), pair(a.dilation), pad4(a.padding)
    out = [shape_of(call)[str(a.out_layout or a.layout).index(axis)] for axis in "HW"]
    need = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in zip(out, strides, kernel, dilation)]
    extra = (max(0, need[0] - x.shape[1] - t - b), max(0, need[1] - x.shape[2] - left - r))
    return x, kernel, strides, dilation, (t, left, b, r), extra


@operator("nn.max_pool2d")
def _max_pool2d(call, x):
    x, kernel, strides, dilation, (t, left, b, r), (eb, er) = _pool_geometry(call, x)
    lowest = np.iinfo(x.dtype).min if np.issubdtype(x.dtype, np.integer) else -np.inf
    x = _padded(x, (t, left, b + eb, r + er), lowest)
    out = _windows(x, kernel, strides, dilation).max(axis=(4, 5))
    return out.transpose(permutation("NHWC", str(call.attrs.layout)))


@operator("nn.avg_pool2d")
def _avg_pool2d(call, x):
    x, kernel, strides, dilation, (t, left, b, r), (eb, er) = _pool_geometry(call, x)
    ones = np.ones((1, *x.shape[1:3], 1), np.float32)
    if bool(call.attrs.count_include_pad):
        ones = _padded(ones, (t, left, b, r), 1.0)
        ones = _padded(ones, (0, 0, eb, er))
    else:
        ones = _padded(ones, (t, left, b + eb, r + er))
    total = _windows(_padded(x, (t, left, b + eb, r + er)), kernel, strides, dilation).sum(axis=(4, 5))
    count = _windows(ones, kernel, strides, dilation).sum(axis=(4, 5))
    out = total / np.maximum(count, 1) if np.issubdtype(x.dtype, np.floating) else (total // count).astype(x.dtype)
    return out.transpose(permutation("NHWC", str(call.attrs.layout)))


@operator("nn.adaptive_avg_pool2d")
def _adaptive_avg_pool2d(call, x):
    layout = str(call.attrs.layout)
    x = x.transpose(permutation(layout, "NHWC"))
    size = call.attrs.output_size
    oh, ow = x.shape[1:3] if size is None else pair(size)
    rows = [(i * x.shape[1] // oh, -(-(i + 1) * x.shape[1] // oh)) for i in range(oh)]
    cols = [(i * x.shape[2] // ow, -(-(i + 1) * x.shape[2] // ow)) for i in range(ow)]
    out = np.stack([np.stack([x[:, a:b, c:d].mean(axis=(1, 2)) for c, d in cols], 1) for a, b in rows], 1)
    return out.transpose(permutation("NHWC", layout))


@operator("nn.batch_norm")
def _batch_norm(call, x, gamma, beta, mean, variance):
    shape = [-1 if i == int(call.attrs.axis) % x.ndim else 1 for i in range(x.ndim)]
    scale, shift = batch_norm_scale_shift(call, gamma, beta, mean, variance)
    return x * scale.reshape(shape) + shift.reshape(shape), mean, variance


def batch_norm_scale_shift(call, gamma, beta, mean, variance) -> tuple[np.ndarray, np.ndarray]:
    """``(scale, shift)`` float32 [C] with batch_norm(x) == x * scale + shift (inference), computed in float64."""
    deviation = np.sqrt(variance.astype(np.float64) + float(call.attrs.epsilon))
    scale = (gamma.astype(np.float64) if bool(call.attrs.scale) else 1.0) / deviation
    shift = (beta.astype(np.float64) if bool(call.attrs.center) else 0.0) - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


@operator("nn.layer_norm")
def _layer_norm(call, x, gamma, beta):
    axes = ints(call.attrs.axes)
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    out = centred / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + x.dtype.type(call.attrs.epsilon))
    return out * gamma + beta


@operator("image.resize2d")
def _resize2d(call, x, size, *_):
    a = call.attrs
    layout = str(a.layout)
    x = x.transpose(permutation(layout, "NHWC"))
    method, mode, rounding = str(a.method), str(a.coordinate_transformation_mode), str(a.rounding_method)
    out = x
    for axis, length in zip((1, 2), size):
        low, high, weight = resize_taps(x.shape[axis], int(length), method, mode, rounding)
        if method == "nearest_neighbor":
            out = out.take(low, axis=axis)
        else:
            shape = [-1 if i == axis else 1 for i in range(4)]
            weight = weight.astype(np.float32).reshape(shape)
            out = out.take(low, axis=axis) * (1 - weight) + out.take(high, axis=axis) * weight
    return out.transpose(permutation("NHWC", layout))


def resize_taps(
    size: int, length: int, method: str, mode: str, rounding: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(low, high, weight of high)`` for resizing one axis from ``size`` to ``length`` elements; float64 weights in
    0..1.

    method: "nearest_neighbor" or "linear"; mode, rounding: ONNX Resize's coordinate_transformation_mode and
    nearest_mode. Errors: UnsupportedError for other methods and modes."""
    i = np.arange(length, dtype=np.float64)
    scale = size / length
    at = {
        "half_pixel": (i + 0.5) * scale - 0.5,
        "asymmetric": i * scale,
        "tf_half_pixel_for_nn": (i + 0.5) * scale,
        "pytorch_half_pixel": (i + 0.5) * scale - 0.5 if length > 1 else i * 0,
        "align_corners": i * ((size - 1) / (length - 1) if length > 1 else 0),
    }.get(mode)
    if at is None or method not in ("nearest_neighbor", "linear"):
        raise UnsupportedError(
            f"resize method {method!r} with coordinates {mode!r} has no evaluation rule", where="relax.image.resize2d"
        )
    if method == "nearest_neighbor":
        epsilon = 1e-5  # TVM's guard: coordinates that are whole numbers but for rounding
        index = {
            "round": np.round,
            "round_prefer_floor": lambda v: np.ceil(v - 0.5),
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
            "floor": lambda v: np.floor(v + epsilon),
            "ceil": lambda v: np.ceil(v - epsilon),
            "": lambda v: np.floor(v + epsilon),
        }.get(rounding)
        if index is None:
            raise UnsupportedError(f"resize rounding {rounding!r} has no evaluation rule", where="relax.image.resize2d")
        low = np.clip(index(at), 0, size - 1).astype(np.int64)
        return low, low, np.zeros(length)
    at = np.clip(at, 0, size - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), at - low
