"""Ops on tensors of signs, packed eight to a byte along the channels: uint8[..., ceil(C/8)].

Channel c is bit ``c % 8`` of byte ``c // 8``; a set bit is +1, a cleared one -1. Surplus bits of the last byte are
ignored where they are read and cleared where they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.linear import _Windowed
from tvm_ergo.relay_passes.dialect.pooling import MaxPool2d
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits

MOST_PRODUCTS = 2**15 - 1
"""Signs that one sum may have: it and its thresholds are 16 bits."""


def packed_bytes(channels: int) -> int:
    return -(-channels // 8)


def _channels_of(interval: tuple[int, int], channels: int) -> tuple[int, int]:
    """The channels that lie in so many bytes."""
    return min(8 * interval[0], channels), min(8 * interval[1], channels)


def _int32(value: int) -> tirx.Expr:
    return tirx.const(value, "int32")


def _packed(channels: int, bit) -> tirx.Expr:
    """uint8 of eight neighbouring ``bit(channel) -> boolean``, those from ``channels`` on cleared."""
    total = _int32(0)
    for number in range(8):
        inside, value = bit(number)
        total = total + tirx.if_then_else(tirx.all(inside, value), _int32(1 << number), _int32(0))
    return total.astype("uint8")


def _popcount(value: tirx.Expr) -> tirx.Expr:
    """Set bits of an int32 in 0..255."""
    value = value - ((value >> _int32(1)) & _int32(0x55))
    value = (value & _int32(0x33)) + ((value >> _int32(2)) & _int32(0x33))
    return (value + (value >> _int32(4))) & _int32(0x0F)


@ergo_op("binarize")
@dataclass(frozen=True)
class Binarize(ErgoOp):
    """Signs of int8 values: bit c is set where ``low[c] <= x <= high[c]``. x i8[..., C], low, high i8[C] ->
    u8[..., ceil(C/8)].

    A threshold passed upwards has high 127, one passed downwards low -128; low above high: never."""

    traits = Traits(uniform=True, rows=Rows.SAME)

    arg_names = ("x", "low", "high")

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, ("int8",) * 3)
        self.require(len(shapes[0]) >= 1, "signs need channels", "rank >= 1", shapes[0])
        for name, shape in zip(self.arg_names[1:], shapes[1:], strict=True):
            self.require_shape(name, shape, (shapes[0][-1],))
        return [((*shapes[0][:-1], packed_bytes(shapes[0][-1])), "uint8")]

    def compute(self, x: te.Tensor, low: te.Tensor, high: te.Tensor) -> te.Tensor:
        channels = int(x.shape[-1])

        def value(*index):
            def bit(number):
                c = index[-1] * 8 + number
                at = tirx.Min(c, channels - 1)
                element = x(*index[:-1], at)
                return c < channels, tirx.all(low(at) <= element, element <= high(at))

            return _packed(channels, bit)

        return te.compute((*x.shape[:-1], packed_bytes(channels)), value, name="binarize")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        channels = _channels_of(out_region[-1], shapes[0][-1])
        return [(*out_region[:-1], channels), (channels,), (channels,)]


@dataclass(frozen=True)
class _Products(_Windowed):
    """What both convolutions of signs share."""

    def _check(self, shapes: Sequence[Shape], dtypes: Sequence[str], expected: tuple[str, ...]) -> tuple[int, int]:
        """Rows and columns of the result."""
        self.require_count(shapes, len(expected))
        self.require_dtypes(dtypes, expected)
        self.require(len(shapes[0]) == 4 and len(shapes[1]) == 4, "not [N,H,W,B] and OHWI", "rank 4", shapes[:2])
        self.require(len(self.strides) == 2 and min(self.strides) >= 1, "bad strides", "two, >= 1", self.strides)
        self.require(len(self.padding) == 4 and min(self.padding) >= 0, "bad padding", "four, >= 0", self.padding)
        self.require(len(self.dilation) == 2 and min(self.dilation) >= 1, "bad dilation", "two, >= 1", self.dilation)
        self.require(self.channels >= 1, "no channels", ">= 1", self.channels)
        self.require(self.pad_value in (-1, 0, 1), "padding is neither a sign nor nothing", "-1, 0, 1", self.pad_value)
        for name, shape in (("x", shapes[0]), ("w", shapes[1])):
            size = packed_bytes(self.channels)
            self.require(shape[3] == size, f"bytes of a pixel of {name}", size, shape[3])
        products = self.channels * shapes[1][1] * shapes[1][2]
        self.require(products <= MOST_PRODUCTS, "a sum has too many products", f"<= {MOST_PRODUCTS}", products)
        for name, shape in zip(self.arg_names[2:], shapes[2:], strict=True):
            self.require_shape(name, shape, (shapes[1][0],))
        reach = [(k - 1) * d + 1 for k, d in zip(shapes[1][1:3], self.dilation, strict=True)]
        inside = all(self.padding[a] < reach[a] and self.padding[a + 2] < reach[a] for a in (0, 1))
        self.require(inside, "windows may lie in the padding entirely", f"padding < {reach}", self.padding)
        return self._window_size(shapes[0][1], shapes[0][2], shapes[1][1:3])

    def _dots(self, x: te.Tensor, w: te.Tensor, by_bytes: bool = False) -> te.Tensor:
        """int32[N,OH,OW,O]: products of signs summed; ``by_bytes``: int32[N,OH,OW,ceil(O/8),8]."""
        batch, height, width, size = (int(d) for d in x.shape)
        kh, kw = int(w.shape[1]), int(w.shape[2])
        top, left, bottom, right = self.padding
        outside = {-1: 0, 0: -1, 1: 255}[self.pad_value]

        def padded(n, h, v, b):
            inside = tirx.all(h >= top, h < top + height, v >= left, v < left + width)
            element = x(n, tirx.Max(h - top, 0), tirx.Max(v - left, 0), b).astype("int32")
            return tirx.if_then_else(inside, element, _int32(outside)) if any(self.padding) else element

        shape = (batch, height + top + bottom, width + left + right, size)
        field = te.compute(shape, padded, name="padded_signs")
        i, j, b = (te.reduce_axis((0, extent), name) for extent, name in ((kh, "i"), (kw, "j"), (size, "b")))
        last = self.channels - 8 * (size - 1)

        def value(n, h, v, o):
            element = field(
                n, h * self.strides[0] + i * self.dilation[0], v * self.strides[1] + j * self.dilation[1], b
            )
            used = tirx.if_then_else(b == size - 1, _int32(last), _int32(8))
            mask = tirx.if_then_else(b == size - 1, _int32((1 << last) - 1), _int32(255))
            differ = _popcount((element ^ w(o, i, j, b).astype("int32")) & mask)
            return te.sum(tirx.if_then_else(element < 0, _int32(0), used - differ * 2), axis=(i, j, b))

        rows, cols = self._window_size(height, width, (kh, kw))
        out_channels = int(w.shape[0])
        if not by_bytes:
            return te.compute((batch, rows, cols, out_channels), value, name="dots")

        def grouped(n, h, v, p, k):
            return value(n, h, v, tirx.Min(p * 8 + k, out_channels - 1))

        return te.compute((batch, rows, cols, packed_bytes(out_channels), 8), grouped, name="dots")

    def _regions(self, out_region: Region, shapes: Sequence[Shape], channels: tuple[int, int]) -> list[Region]:
        x, w = shapes[0], shapes[1]
        rows, cols = self._spatial_regions(out_region, x, (w[1], w[2]))
        taps = (channels, (0, w[1]), (0, w[2]), (0, w[3]))
        return [(out_region[0], rows, cols, (0, x[3])), taps, *[(channels,)] * (len(shapes) - 2)]

    def products(self, shapes: Sequence[Shape]) -> int:
        """Products of signs, taps in the padding included: of the binary engine, so none of them is a MAC."""
        rows, cols = self._window_size(shapes[0][1], shapes[0][2], shapes[1][1:3])
        return shapes[0][0] * rows * cols * prod(shapes[1][:3]) * self.channels


@ergo_op("binary_conv2d")
@dataclass(frozen=True)
class BinaryConv2d(_Products):
    """Convolution of signs with signs: bit o is set where ``low[o] <= sum <= high[o]``.

    x u8[N,H,W,B], w u8[O,kh,kw,B], B = ceil(channels/8), low, high i16[O] -> u8[N,OH,OW,ceil(O/8)]. Taps in the padding
    count ``pad_value`` (0: nothing). Dense layers are 1x1. Batch norm and sign are the thresholds."""

    traits = Traits(uniform=True, rows=Rows.WINDOW, kernel_axis=1)

    arg_names = ("x", "w", "low", "high")
    channels: int = 1
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)
    pad_value: int = 0

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        rows, cols = self._check(shapes, dtypes, ("uint8", "uint8", "int16", "int16"))
        return [((shapes[0][0], rows, cols, packed_bytes(shapes[1][0])), "uint8")]

    def compute(self, x: te.Tensor, w: te.Tensor, low: te.Tensor, high: te.Tensor) -> te.Tensor:
        dots, out_channels = self._dots(x, w, by_bytes=True), int(w.shape[0])
        k = te.reduce_axis((0, 8), "k")

        def value(n, h, v, p):
            total, o = dots(n, h, v, p, k), p * 8 + k
            at = tirx.Min(o, out_channels - 1)
            passed = tirx.all(low(at).astype("int32") <= total, total <= high(at).astype("int32"))
            bit = tirx.if_then_else(tirx.all(o < out_channels, passed), _int32(1) << k.var, _int32(0))
            return te.sum(bit, axis=k)

        packed = te.compute(dots.shape[:4], value, name="thresholds")
        return te.compute(packed.shape, lambda *index: packed(*index).astype("uint8"), name="packed")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return self._regions(out_region, shapes, _channels_of(out_region[3], shapes[1][0]))


@dataclass(frozen=True)
class _Sum(_Products):
    """Sums for neighbours that are no signs: ``bias[o] + scale[o] * sum``."""

    def _acc(self, dots: te.Tensor, scale: te.Tensor, bias: te.Tensor, *index) -> tirx.Expr:
        o = index[-1]
        return arithmetic.int64(dots(*index)) * arithmetic.int64(scale(o)) + arithmetic.int64(bias(o))

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return self._regions(out_region, shapes, out_region[3])


@ergo_op("binary_conv2d_sum")
@dataclass(frozen=True)
class BinaryConv2dSum(_Sum):
    """Convolution of signs with signs into int8: ``requantize(bias[o] + scale[o] * sum)``.

    x u8[N,H,W,B], w u8[O,kh,kw,B], scale i16[O], bias i32[O], mult i32[O], shift i8[O] -> i8[N,OH,OW,O]."""

    traits = Traits(uniform=True, rows=Rows.WINDOW, kernel_axis=1)

    arg_names = ("x", "w", "scale", "bias", "mult", "shift")
    channels: int = 1
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)
    pad_value: int = 0
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        rows, cols = self._check(shapes, dtypes, ("uint8", "uint8", "int16", "int32", "int32", "int8"))
        self.require_clip()
        return [((shapes[0][0], rows, cols, shapes[1][0]), "int8")]

    def compute(self, x, w, scale, bias, mult, shift) -> te.Tensor:
        dots = self._dots(x, w)

        def value(*index):
            total = self._acc(dots, scale, bias, *index) * arithmetic.int64(mult(index[-1]))
            rounded = arithmetic.rounding_shift(total, shift(index[-1]))
            return arithmetic.finish(rounded, self.out_zp, self.lo, self.hi)

        return te.compute(dots.shape, value, name="requantize")


@ergo_op("binary_conv2d_accumulate")
@dataclass(frozen=True)
class BinaryConv2dAccumulate(BinaryConv2dSum):
    """binary_conv2d_sum without requantization: i32 ``bias[o] + scale[o] * sum``; mult, shift, lo, hi are not used."""

    traits = Traits(rows=Rows.WHOLE)

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        return [(shape, "int32") for shape, _ in super().infer(shapes, dtypes)]

    def compute(self, x, w, scale, bias, mult, shift) -> te.Tensor:
        dots = self._dots(x, w)
        return te.compute(
            dots.shape, lambda *index: self._acc(dots, scale, bias, *index).astype("int32"), name="accumulators"
        )


@ergo_op("binary_max_pool2d")
@dataclass(frozen=True)
class BinaryMaxPool2d(MaxPool2d):
    """Largest sign of each window, of packed signs: OR of its bytes; padding never wins. x u8[N,H,W,B] ->
    u8[N,OH,OW,B]."""

    traits = Traits(uniform=True, rows=Rows.WINDOW)

    arg_names = ("x",)

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_dtypes(dtypes, ("uint8",))
        return [(shape, "uint8") for shape, _ in super().infer(shapes, ("int8",) * len(dtypes))]

    def compute(self, x: te.Tensor) -> te.Tensor:
        top, left = self.padding[:2]
        height, width = int(x.shape[1]), int(x.shape[2])
        ((shape, _),) = self.infer([tuple(int(d) for d in x.shape)], ["uint8"])

        def value(n, oh, ow, b):
            total = _int32(0)
            for i in range(self.pool[0]):
                for j in range(self.pool[1]):
                    h = oh * self.strides[0] - top + i * self.dilation[0]
                    v = ow * self.strides[1] - left + j * self.dilation[1]
                    inside = tirx.all(h >= 0, h < height, v >= 0, v < width)
                    at = tirx.Min(tirx.Max(h, 0), height - 1), tirx.Min(tirx.Max(v, 0), width - 1)
                    total = total | tirx.if_then_else(inside, x(n, *at, b).astype("int32"), _int32(0))
            return total.astype("uint8")

        return te.compute(shape, value, name="binary_max_pool2d")
