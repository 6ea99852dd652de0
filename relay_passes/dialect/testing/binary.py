"""Random instances of the ops on packed signs."""

from __future__ import annotations

import numpy as np

from tvm_ergo.relay_passes.dialect import binary
from tvm_ergo.relay_passes.dialect.base import Shape
from tvm_ergo.relay_passes.dialect.testing.linear import _window_fields
from tvm_ergo.relay_passes.dialect.testing.source import MAKERS, RandomCall, Source, any_shape, image_shape, maker


@maker("binarize")
def _binarize(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    x = (*x[:-1], x[-1] if shape else source.integer(1, 20))
    low, high = (source.rng.integers(-128, 128, x[-1:]).astype(np.int8) for _ in range(2))
    upward, downward = source.rng.random(x[-1]) < 0.4, source.rng.random(x[-1]) < 0.3
    constants = {1: np.where(downward, -128, low).astype(np.int8), 2: np.where(upward, 127, high).astype(np.int8)}
    return RandomCall(binary.Binarize(), (x, x[-1:], x[-1:]), ("int8",) * 3, constants)


def _products(source: Source, shape: Shape | None) -> tuple[Shape, np.ndarray, dict]:
    x = image_shape(source, shape, channels=4)
    kernel = (source.integer(1, 3), source.integer(1, 3))
    fields = _window_fields(source, x, kernel)
    channels = 8 * (x[3] - 1) + source.integer(1, 8)
    w = source.rng.integers(0, 256, (source.integer(1, 20), *kernel, x[3])).astype(np.uint8)
    return x, w, {**fields, "channels": channels, "pad_value": source.choice((-1, 0, 1))}


@maker("binary_conv2d")
def _binary_conv2d(source: Source, shape: Shape | None) -> RandomCall:
    x, w, fields = _products(source, shape)
    most = fields["channels"] * w.shape[1] * w.shape[2]
    low, high = (source.rng.integers(-most - 1, most + 2, w.shape[0]).astype(np.int16) for _ in range(2))
    upward, downward = source.rng.random(w.shape[0]) < 0.5, source.rng.random(w.shape[0]) < 0.3
    constants = {1: w, 2: np.where(downward, -(2**15), low), 3: np.where(upward, 2**15 - 1, high)}
    constants = {i: c.astype(np.uint8 if i == 1 else np.int16) for i, c in constants.items()}
    dtypes = ("uint8", "uint8", "int16", "int16")
    shapes = (x, *(c.shape for c in constants.values()))
    return RandomCall(binary.BinaryConv2d(**fields), shapes, dtypes, constants)


def _sum(source: Source, shape: Shape | None, cls: type) -> RandomCall:
    x, w, fields = _products(source, shape)
    count, depth = w.shape[0], fields["channels"] * w.shape[1] * w.shape[2]
    scale = source.rng.integers(-128, 129, count).astype(np.int16)
    scale = np.full(count, source.choice((-(2**15), 2**15 - 1)), np.int16) if source.chance(10) else scale
    mult, shift = source.multipliers(50.0 / (74 * depth**0.5), count)
    bias = source.rng.integers(-500, 500, count).astype(np.int32)
    constants = {1: w, 2: scale, 3: bias, 4: mult, 5: shift}
    lo, hi = source.clip()
    op = cls(**fields, lo=lo, hi=hi, out_zp=source.zero_point())
    shapes, dtypes = (x, *(c.shape for c in constants.values())), ("uint8", *(str(c.dtype) for c in constants.values()))
    return RandomCall(op, shapes, dtypes, constants)


@maker("binary_conv2d_sum")
def _binary_conv2d_sum(source: Source, shape: Shape | None) -> RandomCall:
    return _sum(source, shape, binary.BinaryConv2dSum)


@maker("binary_conv2d_accumulate")
def _binary_conv2d_accumulate(source: Source, shape: Shape | None) -> RandomCall:
    return _sum(source, shape, binary.BinaryConv2dAccumulate)


@maker("binary_max_pool2d")
def _binary_max_pool2d(source: Source, shape: Shape | None) -> RandomCall:
    case = MAKERS["max_pool2d"](source, shape)
    fields = {name: getattr(case.op, name) for name in ("pool", "strides", "padding", "dilation")}
    return RandomCall(binary.BinaryMaxPool2d(**fields), case.shapes, ("uint8",))
