"""Random convolutions and matrix products."""

from __future__ import annotations

import numpy as np

from tvm_ergo.relay_passes.dialect.base import ErgoOp, Shape
from tvm_ergo.relay_passes.dialect.linear import Conv2d, Conv2dTranspose, DepthwiseConv2d, MatMul
from tvm_ergo.relay_passes.dialect.testing.source import INT8_STD, RandomCall, Source, image_shape, maker, random_array


def _window_fields(source: Source, x: Shape, kernel: tuple[int, int]) -> dict:
    """Strides, dilation and padding such that the window fits."""
    dilation = tuple(source.choice((1, 1, 2)) for _ in range(2))
    reach = [(kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)]
    before = [source.integer(0, kernel[a] - 1) for a in (0, 1)]
    after = [max(source.integer(0, kernel[a] - 1), reach[a] - x[1 + a] - before[a]) for a in (0, 1)]
    return {
        "strides": tuple(source.integer(1, 3) for _ in range(2)),
        "dilation": dilation,
        "padding": (before[0], before[1], after[0], after[1]),
    }


def _conv_tail(source: Source, w_shape: Shape, taps: int, channels: int) -> dict[int, np.ndarray]:
    weights = random_array(source.rng, w_shape, "int8", extreme=source.chance(15))
    bias = source.rng.integers(-(2**14), 2**14, channels).astype(np.int32)
    mult, shift = source.multipliers(50.0 / (INT8_STD * INT8_STD * taps**0.5), channels)
    return {1: weights, 2: bias, 3: mult, 4: shift}


def _conv_call(op: ErgoOp, x: Shape, constants: dict[int, np.ndarray]) -> RandomCall:
    return RandomCall(
        op,
        (x, *(c.shape for c in constants.values())),
        ("int8", *(str(c.dtype) for c in constants.values())),
        constants,
    )


def _conv_fields(source: Source) -> dict:
    lo, hi = source.clip()
    return {
        "in_zp": source.zero_point(),
        "w_zp": source.choice((0, 0, 0, -128, 127, 5)),
        "out_zp": source.zero_point(),
        "lo": lo,
        "hi": hi,
    }


@maker("conv2d")
def _conv2d(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape)
    groups = source.choice([d for d in range(1, x[3] + 1) if x[3] % d == 0]) if source.chance(35) else 1
    kernel = (source.integer(1, 3), source.integer(1, 3))
    out_channels = groups * (source.integer(1, 3) if groups > 1 else source.integer(1, 40))
    fields = _window_fields(source, x, kernel)
    depth = x[3] // groups
    constants = _conv_tail(source, (out_channels, *kernel, depth), kernel[0] * kernel[1] * depth, out_channels)
    return _conv_call(Conv2d(groups=groups, **fields, **_conv_fields(source)), x, constants)


@maker("depthwise_conv2d")
def _depthwise(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape, channels=40)
    kernel = (source.integer(1, 3), source.integer(1, 3))
    fields = _window_fields(source, x, kernel)
    constants = _conv_tail(source, (*kernel, x[3]), kernel[0] * kernel[1], x[3])
    return _conv_call(DepthwiseConv2d(**fields, **_conv_fields(source)), x, constants)


@maker("conv2d_transpose")
def _transpose_conv(source: Source, shape: Shape | None) -> RandomCall:
    x = image_shape(source, shape, high=6, channels=12)
    kernel = (source.integer(1, 4), source.integer(1, 4))
    strides, dilation = tuple(source.integer(1, 3) for _ in range(2)), tuple(source.choice((1, 1, 2)) for _ in range(2))
    full = [(x[1 + a] - 1) * strides[a] + (kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)]
    before = [source.integer(0, min(kernel[a] - 1, full[a] - 1)) for a in (0, 1)]
    after = [source.integer(0, min(kernel[a] - 1, full[a] - 1 - before[a])) for a in (0, 1)]
    out_channels = source.integer(1, 20)
    constants = _conv_tail(source, (out_channels, *kernel, x[3]), kernel[0] * kernel[1] * x[3], out_channels)
    op = Conv2dTranspose(
        strides=strides,
        dilation=dilation,
        padding=(*before, *after),
        **_conv_fields(source),
        output_padding=tuple(source.integer(0, strides[a] - 1) for a in (0, 1)),
    )
    return _conv_call(op, x, constants)


@maker("matmul")
def _matmul(source: Source, shape: Shape | None) -> RandomCall:
    a = shape or tuple(source.integer(1, 3) for _ in range(source.integer(0, 2))) + (
        source.integer(1, 9),
        source.integer(1, 20),
    )
    batch = tuple(source.choice((1, dim)) for dim in a[:-2])
    columns, turned = source.integer(1, 40), source.chance(50)
    b = batch + ((columns, a[-1]) if turned else (a[-1], columns))
    mult, shift = source.multiplier(50.0 / (INT8_STD * INT8_STD * a[-1] ** 0.5))
    lo, hi = source.clip()
    op = MatMul(
        transpose_b=turned,
        a_zp=source.zero_point(),
        b_zp=source.zero_point(),
        mult=mult,
        shift=shift,
        lo=lo,
        hi=hi,
        out_zp=source.zero_point(),
    )
    return RandomCall(op, (a, b), ("int8", "int8"))
