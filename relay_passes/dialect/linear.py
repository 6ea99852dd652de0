"""Convolutions and matrix products: int8 operands, int32 accumulators, requantized to int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import relax, te

from tvm_ergo.relay_passes.dialect import contraction, regions
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Coding, Rows, Tables, Traits

_CONV_DTYPES = ("int8", "int8", "int32", "int32", "int8")


@dataclass(frozen=True)
class _Windowed(ErgoOp):
    """What the convolutions share: a window of taps over [N,H,W,C] and a per-channel requantization."""

    def _check_window(self, shapes: Sequence[Shape], dtypes: Sequence[str], w_rank: int) -> None:
        self.require_count(shapes, 5)
        self.require_dtypes(dtypes, _CONV_DTYPES)
        self.require(len(shapes[0]) == 4, "activation is not [N,H,W,C]", "rank 4", shapes[0])
        self.require(len(shapes[1]) == w_rank, "wrong rank of the weights", w_rank, shapes[1])
        self.require(len(self.strides) == 2 and min(self.strides) >= 1, "bad strides", "two, >= 1", self.strides)
        self.require(
            len(self.padding) == 4 and min(self.padding) >= 0, "bad padding", "four (t,l,b,r), >= 0", self.padding
        )
        self.require(len(self.dilation) == 2 and min(self.dilation) >= 1, "bad dilation", "two, >= 1", self.dilation)
        self.require_int8(in_zp=self.in_zp, w_zp=self.w_zp)
        self.require_clip()

    def _check_channel_vectors(self, shapes: Sequence[Shape], channels: int) -> None:
        for name, shape in zip(self.arg_names[2:], shapes[2:], strict=True):
            self.require_shape(name, shape, (channels,))

    def _window_size(self, height: int, width: int, kernel: tuple[int, int]) -> tuple[int, int]:
        top, left, bottom, right = self.padding
        sizes = []
        for dim, k, stride, dilation, pad in (
            (height, kernel[0], self.strides[0], self.dilation[0], top + bottom),
            (width, kernel[1], self.strides[1], self.dilation[1], left + right),
        ):
            reach = (k - 1) * dilation + 1
            self.require(
                dim + pad >= reach, "the window does not fit the padded input", f"<= {dim + pad} rows", f"{reach} rows"
            )
            sizes.append((dim + pad - reach) // stride + 1)
        return sizes[0], sizes[1]

    def _spatial_regions(
        self, out_region: Region, shape: Shape, kernel: tuple[int, int], carry=regions.window
    ) -> tuple:
        rows = carry(out_region[1], shape[1], kernel[0], self.strides[0], self.padding[0], self.dilation[0])
        cols = carry(out_region[2], shape[2], kernel[1], self.strides[1], self.padding[1], self.dilation[1])
        return rows, cols


@ergo_op("conv2d")
@dataclass(frozen=True)
class Conv2d(_Windowed):
    """Convolution with groups: ``acc = bias + sum (x - in_zp) * (w - w_zp)``, padded taps contribute 0.

    x i8[N,H,W,C], w i8[O,kh,kw,C/groups], bias i32[O], mult i32[O], shift i8[O] -> i8[N,OH,OW,O].
    """

    traits = Traits(
        uniform=True,
        rows=Rows.WINDOW,
        kernel_axis=1,
        output_table=Tables.CHANNEL,
        coding=Coding({0: "in_zp"}, "out_zp"),
    )

    arg_names = ("x", "w", "bias", "mult", "shift")
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    in_zp: int = 0
    w_zp: int = 0
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self._check_window(shapes, dtypes, 4)
        (batch, height, width, channels), (out_channels, kh, kw, group_channels) = shapes[0], shapes[1]
        self.require(
            self.groups >= 1 and channels % self.groups == 0 and out_channels % self.groups == 0,
            "groups do not divide the channels",
            f"a divisor of {channels} and {out_channels}",
            self.groups,
        )
        self.require(
            group_channels == channels // self.groups,
            "weights do not fit the input channels",
            f"{channels // self.groups} (C/groups)",
            group_channels,
        )
        self._check_channel_vectors(shapes, out_channels)
        return [((batch, *self._window_size(height, width, (kh, kw)), out_channels), "int8")]

    def compute(self, x: te.Tensor, w: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor) -> te.Tensor:
        return self.compute_packed(x, contraction.pack_conv(w, self.groups), bias, mult, shift)

    def compute_packed(
        self, x: te.Tensor, packed: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor
    ) -> te.Tensor:
        """``compute`` with weights packed by ``contraction.pack_conv``."""
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.conv(
            padded, packed, int(bias.shape[0]), self.strides, self.dilation, self.groups, self.in_zp, self.w_zp
        )
        return contraction.requantize_channels(acc, bias, mult, shift, self)

    def legalize(self, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return contraction.legalize_packed(self, builder, call, lambda w: contraction.pack_conv_numpy(w, self.groups))

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        x, w = shapes[0], shapes[1]
        rows, cols = self._spatial_regions(out_region, x, (w[1], w[2]))
        begin, end = out_region[3]
        per_group_out, per_group_in = w[0] // self.groups, w[3]
        channels = (
            (begin // per_group_out * per_group_in, (end - 1) // per_group_out * per_group_in + per_group_in)
            if begin < end
            else (0, 0)
        )
        taps = (out_region[3], (0, w[1]), (0, w[2]), (0, w[3]))
        return [(out_region[0], rows, cols, channels), taps, *[(out_region[3],)] * 3]

    def macs(self, shapes: Sequence[Shape]) -> int:
        ((shape, _),) = self.infer(shapes, _CONV_DTYPES)
        return prod(shape) * prod(shapes[1][1:])


@ergo_op("depthwise_conv2d")
@dataclass(frozen=True)
class DepthwiseConv2d(_Windowed):
    """Depthwise convolution, one filter a channel.

    x i8[N,H,W,C], w i8[kh,kw,C], bias i32[C], mult i32[C], shift i8[C] -> i8[N,OH,OW,C].
    """

    traits = Traits(
        uniform=True,
        rows=Rows.WINDOW,
        kernel_axis=0,
        output_table=Tables.CHANNEL,
        coding=Coding({0: "in_zp"}, "out_zp"),
    )

    arg_names = ("x", "w", "bias", "mult", "shift")
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)
    in_zp: int = 0
    w_zp: int = 0
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self._check_window(shapes, dtypes, 3)
        (batch, height, width, channels), (kh, kw, w_channels) = shapes[0], shapes[1]
        self.require(w_channels == channels, "weights do not fit the input channels", channels, w_channels)
        self._check_channel_vectors(shapes, channels)
        return [((batch, *self._window_size(height, width, (kh, kw)), channels), "int8")]

    def compute(self, x: te.Tensor, w: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor) -> te.Tensor:
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.depthwise(padded, w, self.strides, self.dilation, self.in_zp, self.w_zp)
        return contraction.requantize_channels(acc, bias, mult, shift, self)

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        x, w = shapes[0], shapes[1]
        rows, cols = self._spatial_regions(out_region, x, (w[0], w[1]))
        return [
            (out_region[0], rows, cols, out_region[3]),
            ((0, w[0]), (0, w[1]), out_region[3]),
            *[(out_region[3],)] * 3,
        ]

    def macs(self, shapes: Sequence[Shape]) -> int:
        ((shape, _),) = self.infer(shapes, _CONV_DTYPES)
        return prod(shape) * shapes[1][0] * shapes[1][1]


@ergo_op("conv2d_transpose")
@dataclass(frozen=True)
class Conv2dTranspose(_Windowed):
    """Transposed convolution: ``out[oh,ow,o] += (x[ih,iw,c]-in_zp) * (w[o,i,j,c]-w_zp)``, oh = ih*sh - pt + i*dh.

    x i8[N,H,W,C], w i8[O,kh,kw,C], bias, mult i32[O], shift i8[O] -> i8[N,OH,OW,O],
    OH = (H-1)*sh + (kh-1)*dh + 1 + output_padding - pt - pb.
    """

    traits = Traits(rows=Rows.WHOLE, output_table=Tables.CHANNEL)

    arg_names = ("x", "w", "bias", "mult", "shift")
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    output_padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    in_zp: int = 0
    w_zp: int = 0
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self._check_window(shapes, dtypes, 4)
        (batch, height, width, channels), (out_channels, kh, kw, w_channels) = shapes[0], shapes[1]
        self.require(w_channels == channels, "weights do not fit the input channels", channels, w_channels)
        self.require(
            len(self.output_padding) == 2 and min(self.output_padding) >= 0,
            "bad output padding",
            "two, >= 0",
            self.output_padding,
        )
        self._check_channel_vectors(shapes, out_channels)
        sizes = self._out_size((height, width), (kh, kw))
        self.require(min(sizes) >= 1, "padding removes the whole output", "at least one row and column", sizes)
        return [((batch, *sizes, out_channels), "int8")]

    def _out_size(self, size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
        rows, cols = (
            (size[a] - 1) * self.strides[a]
            + (kernel[a] - 1) * self.dilation[a]
            + 1
            + self.output_padding[a]
            - self.padding[a]
            - self.padding[a + 2]
            for a in (0, 1)
        )
        return rows, cols

    def compute(self, x: te.Tensor, w: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor) -> te.Tensor:
        return self.compute_packed(x, contraction.pack_conv(w, 1, flip=True), bias, mult, shift)

    def compute_packed(
        self, x: te.Tensor, packed: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor
    ) -> te.Tensor:
        """``compute`` with weights packed and mirrored by ``contraction.pack_conv``."""
        kernel = (int(packed.shape[1]), int(packed.shape[2]))
        sizes = self._out_size((int(x.shape[1]), int(x.shape[2])), kernel)
        spread = contraction.spread_rows(x, self.strides, self.padding, self.dilation, kernel, sizes, self.in_zp)
        acc = contraction.conv(spread, packed, int(bias.shape[0]), (1, 1), self.dilation, 1, self.in_zp, self.w_zp)
        return contraction.requantize_channels(acc, bias, mult, shift, self)

    def legalize(self, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        return contraction.legalize_packed(self, builder, call, lambda w: contraction.pack_conv_numpy(w, 1, flip=True))

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        x, w = shapes[0], shapes[1]
        rows, cols = self._spatial_regions(out_region, x, (w[1], w[2]), regions.transposed_window)
        taps = (out_region[3], (0, w[1]), (0, w[2]), (0, w[3]))
        return [(out_region[0], rows, cols, (0, x[3])), taps, *[(out_region[3],)] * 3]

    def macs(self, shapes: Sequence[Shape]) -> int:
        return prod(shapes[0]) * prod(shapes[1][:3])


@ergo_op("matmul")
@dataclass(frozen=True)
class MatMul(ErgoOp):
    """Product of two activations: ``requantize(sum_k (a - a_zp) * (b - b_zp))``.

    a i8[...,M,K], b i8[...,K,N] ([...,N,K] with transpose_b) -> i8[...,M,N]; batch dimensions broadcast.
    """

    traits = Traits(rows=Rows.WHOLE, output_table=Tables.TENSOR)

    arg_names = ("a", "b")
    transpose_b: bool
    a_zp: int
    b_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("int8", "int8"))
        a, b = shapes
        self.require(min(len(a), len(b)) >= 2, "operands are not matrices", "rank >= 2", f"{a} and {b}")
        depth_b, columns = (b[-1], b[-2]) if self.transpose_b else (b[-2], b[-1])
        self.require(a[-1] == depth_b, "inner dimensions differ", f"K = {a[-1]}", f"K = {depth_b}")
        batch = regions.broadcast_shape(a[:-2], b[:-2])
        self.require(batch is not None, "batch dimensions do not broadcast", "equal or 1", f"{a[:-2]} and {b[:-2]}")
        self.require_int8(a_zp=self.a_zp, b_zp=self.b_zp)
        self.require_multiplier(self.mult, self.shift)
        self.require_clip()
        return [((*batch, a[-2], columns), "int8")]

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        acc = contraction.matmul(a, b, self.transpose_b, self.a_zp, self.b_zp)
        return contraction.requantize_scalar(acc, self)

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        a, b = shapes
        batch, rows, columns = out_region[:-2], out_region[-2], out_region[-1]
        depth = (0, a[-1])
        b_matrix = (columns, depth) if self.transpose_b else (depth, columns)
        return [regions.broadcast(batch, a[:-2]) + (rows, depth), regions.broadcast(batch, b[:-2]) + b_matrix]

    def macs(self, shapes: Sequence[Shape]) -> int:
        ((shape, _),) = self.infer(shapes, ("int8", "int8"))
        return prod(shape) * shapes[0][-1]
