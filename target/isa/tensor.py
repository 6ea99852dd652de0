"""Instructions of the tensor engine: convolutions and matrix products with int32 accumulation and requantization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import (
    Cost,
    Event,
    MatrixWork,
    ceil_div,
    engine_cost,
    plus,
    requantizations,
    weight_reading,
)
from tvm_ergo.target.isa.fields import I8, U8, U16, U32, Flag, Int, Ints, Tensor
from tvm_ergo.target.isa.geometry import broadcast_to, transposed_shape, window_shape
from tvm_ergo.target.isa.operand import DType, Operand
from tvm_ergo.target.numerics import MAX_SHIFT, MULTIPLIER_BITS

I8_ONLY, I32_ONLY, RESULT = (DType.I8,), (DType.I32,), (DType.I8, DType.I32)
RESULT_OR_WIDE = (DType.I8, DType.I16, DType.I32)
EXTENT = Int("u16", 0, 2**16 - 1)
STEP = Int("u16", 1, 2**16 - 1)
MULT = U32("requantization multiplier", 0, 2**MULTIPLIER_BITS - 1)
SHIFT = U8("requantization right shift", 0, MAX_SHIFT)
OUT_ZP, LO, HI = I8("output zero point"), I8("lower clip bound"), I8("upper clip bound, >= lo")
PARAMETER_BYTES = 9  # of one output channel: bias i32, multiplier i32, shift i8


class _PerChannel(Instruction):
    """What the three convolutions share: constant weights, prepared once; they may be a stream of coded ones."""

    WEIGHTS = ("w",)

    if TYPE_CHECKING:  # what the classes below declare
        x: Operand
        w: Operand
        bias: Operand
        mult: Operand
        shift: Operand
        out: Operand

    def run(self, memory, prepared_kernel: type, *scalars: str) -> None:
        """Execute with a kernel object that unpacked the weights; the memory keeps it while they are constant."""
        operands = [self.w, self.bias, self.mult, self.shift]

        def unpack():
            names = ("strides", "padding", "dilation", "in_zp", "w_zp", "out_zp", "lo", "hi", *scalars)
            return prepared_kernel(*(memory.view(operand).copy() for operand in operands), **self.values(*names))

        memory.prepared(self, operands, unpack)(memory.view(self.x), memory.view(self.out))

    def check_output(self, expected: tuple[int, int]) -> None:
        self.check_clip()
        self.require(
            self.out.shape[1:3] == expected and min(expected) > 0,
            "the output has the wrong size",
            expected,
            self.out.shape[1:3],
        )


@instruction(0x01, Engine.TENSOR)
class Conv(_PerChannel):
    """Convolution with per-channel requantization; padded taps contribute 0. Dense layers are 1x1 convolutions."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("O KH KW CG", I8_ONLY, "weights, OHWI; CG = C / groups")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor(
        "N OH OW O",
        RESULT_OR_WIDE,
        "output, NHWC; int16: clipped to its range; int32: the accumulators, not requantized",
        out=True,
    )
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    groups = U16("channel groups", 1)
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI

    OUTPUT_TABLE = True
    CODED = {"x": "in_zp", "out": "out_zp"}

    def check_rules(self, dims):
        self.require(
            dims["C"] == dims["CG"] * self.groups and dims["O"] % self.groups == 0,
            "groups do not divide the channels",
            f"C = {self.groups} x {dims['CG']}, O divisible by {self.groups}",
            f"C={dims['C']}, O={dims['O']}",
        )
        self.check_output(window_shape(self.x.shape[1:3], self.w.shape[1:3], self.strides, self.padding, self.dilation))

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine.kernels import PreparedConv

        self.run(memory, PreparedConv, "groups")

    def cost(self, chip) -> Cost:
        """Array: K = kh*kw*CG products, a kernel row's kw*CG neighbouring bytes filling the input lanes (dilation 1),
        so few channels still use them; output pixels of all rows fill the pixel lanes. Each group runs on its own.
        Traffic: MatrixWork."""
        return self._work(chip.tensor).cost(chip.tensor, PARAMETER_BYTES * self.w.shape[0], self.w, self.out)

    def read_again(self, chip) -> int:
        work = self._work(chip.tensor)
        return ceil_div(work.traffic(chip.tensor)[0], work.input_bytes * work.repeat)

    def _work(self, array) -> MatrixWork:
        (o, kh, kw, cg), (n, h, w, _) = self.w.shape, self.x.shape
        steps = kh * (
            ceil_div(kw * cg, array.input_lanes) if self.dilation[1] == 1 else kw * ceil_div(cg, array.input_lanes)
        )
        shared_rows = max(0, (kh - 1) * self.dilation[0] + 1 - self.strides[0])
        return MatrixWork(
            pixels=n * self.out.shape[1] * self.out.shape[2],
            channels=o // self.groups,
            depth=kh * kw * cg,
            steps=steps,
            input_bytes=n * h * w * cg,
            weight_bytes=o // self.groups * kh * kw * cg,
            halo_bytes=shared_rows * w * cg,
            repeat=self.groups,
        )


@instruction(0x02, Engine.TENSOR)
class Depthwise(_PerChannel):
    """Depthwise convolution, multiplier 1, with per-channel requantization; padded taps contribute 0."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("KH KW C", I8_ONLY, "weights, HWC")
    bias = Tensor("C", I32_ONLY, "bias at scale s_in * s_w[c]")
    mult = Tensor("C", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("C", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW C", RESULT, "output, NHWC; int32: the accumulators, not requantized", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI

    OUTPUT_TABLE = True
    CODED = {"x": "in_zp", "out": "out_zp"}

    def check_rules(self, dims):
        self.check_output(window_shape(self.x.shape[1:3], self.w.shape[:2], self.strides, self.padding, self.dilation))

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine.kernels import PreparedDepthwise

        self.run(memory, PreparedDepthwise)

    def cost(self, chip) -> Cost:
        """Array: channels on the output lanes, pixels on the pixel lanes, depthwise_taps of the input lanes on kernel
        taps; the rest is idle. Traffic: weights once; inputs once if kh rows of one channel tile fit the input buffer,
        else once per overlap."""
        array, (kh, kw, c), pixels = chip.tensor, self.w.shape, math.prod(self.out.shape[:3])
        groups = ceil_div(pixels, array.pixel_lanes)
        cycles = ceil_div(c, array.output_lanes) * groups * ceil_div(kh * kw, array.depthwise_taps)
        inputs = self.x.distinct_bytes * self.read_again(chip)
        macs = pixels * c * kh * kw
        events = {
            Event.MAC_8X8: macs,
            Event.ACC_ADD_32: macs,
            Event.REQUANT: requantizations(self.out),
            Event.LOCAL_READ_BYTE: macs + c * kh * kw * groups,
            Event.LOCAL_WRITE_BYTE: inputs + self.w.size_bytes,
        }
        read, decode_cycles, decode_events = weight_reading(array, self.w, self.w.size_bytes)
        return engine_cost(
            array,
            max(cycles, decode_cycles),
            inputs + read + PARAMETER_BYTES * c,
            self.out.size_bytes,
            plus(events, decode_events),
        )

    def read_again(self, chip) -> int:
        (kh, _, c), array = self.w.shape, chip.tensor
        rows_fit = ((kh - 1) * self.dilation[0] + 1) * self.x.shape[2] * min(
            c, array.output_lanes
        ) <= array.input_buffer_bytes
        return 1 if rows_fit else ceil_div(kh, self.strides[0])


@instruction(0x03, Engine.TENSOR, "CONV_TRANSPOSE")
class ConvTranspose(_PerChannel):
    """Transposed convolution: ``out[ih*sh - top + i*dh] += (x[ih]-in_zp) * (w[i]-w_zp)``, then per-channel
    requantization."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("O KH KW C", I8_ONLY, "weights, OHWI")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW O", RESULT, "output, NHWC", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right: what is cut off the full result")
    output_padding = Ints(EXTENT, 2, "rows, columns added at bottom and right")
    dilation = Ints(STEP, 2, "rows, columns")
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI

    OUTPUT_TABLE = True

    def check_rules(self, dims):
        self.check_output(
            transposed_shape(
                self.x.shape[1:3], self.w.shape[1:3], self.strides, self.padding, self.output_padding, self.dilation
            )
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine.kernels import PreparedConvTranspose

        self.run(memory, PreparedConvTranspose, "output_padding")

    def cost(self, chip) -> Cost:
        """Array: as a gather over the output phases, no product with a stuffed zero: kh*kw*C*O products per input
        pixel, input pixels on the pixel lanes. Traffic: MatrixWork, output rows overlapping like a convolution's input
        rows."""
        array, (o, kh, kw, c), (n, h, w, _) = chip.tensor, self.w.shape, self.x.shape
        work = MatrixWork(
            pixels=n * h * w,
            channels=o,
            depth=kh * kw * c,
            steps=kh * kw * ceil_div(c, array.input_lanes),
            input_bytes=n * h * w * c,
            weight_bytes=o * kh * kw * c,
            halo_bytes=ceil_div(kh - 1, self.strides[0]) * w * c,
        )
        return work.cost(array, PARAMETER_BYTES * o, self.w, self.out)


@instruction(0x04, Engine.TENSOR)
class MatMul(Instruction):
    """Product of two activation tensors over broadcasting batch axes, one requantization for all elements."""

    a = Tensor("*", I8_ONLY, "left, [..., M, K]")
    b = Tensor("*", I8_ONLY, "right, [..., K, N], or [..., N, K] with transpose_b")
    out = Tensor(
        "*",
        RESULT_OR_WIDE,
        "output, [..., M, N]; int16: clipped to its range; int32: the accumulators, not requantized",
        out=True,
    )
    transpose_b = Flag("b is stored [..., N, K]")
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    OUTPUT_TABLE = True
    WEIGHTS = ("b",)

    def check_rules(self, dims):
        self.check_clip()
        self.require(min(self.a.rank, self.b.rank, self.out.rank) >= 2, "matrices have at least two axes")
        (m, k), (bk, n) = self.a.shape[-2:], self.b.shape[-2:][::-1] if self.transpose_b else self.b.shape[-2:]
        self.require(k == bk, "the inner axes differ", f"K = {k}", bk)
        self.require(self.out.shape[-2:] == (m, n), "the output has the wrong size", (m, n), self.out.shape[-2:])
        batch = self.out.shape[:-2]
        self.require(
            all(broadcast_to(t.shape[:-2], batch) for t in (self.a, self.b))
            and math.prod(batch) == math.prod(np.broadcast_shapes(self.a.shape[:-2], self.b.shape[:-2])),
            "the batch axes do not broadcast to the output's",
            batch,
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        out = memory.view(self.out)
        a, b = memory.view(self.a), memory.view(self.b)
        kernels.matmul(
            a.reshape((1,) * (out.ndim - a.ndim) + a.shape),
            b,
            out=out,
            **self.values("transpose_b", "a_zp", "b_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """Array: rows of a on the pixel lanes, columns of b on the output lanes, K on the input lanes, batch by batch;
        b is the stationary side. Traffic: MatrixWork."""
        array, (m, n), k = chip.tensor, self.out.shape[-2:], self.a.shape[-1]
        work = MatrixWork(
            pixels=m,
            channels=n,
            depth=k,
            steps=ceil_div(k, array.input_lanes),
            input_bytes=m * k,
            weight_bytes=k * n,
            repeat=math.prod(self.out.shape[:-2]),
        )
        return work.cost(array, 0, self.b, self.out)
