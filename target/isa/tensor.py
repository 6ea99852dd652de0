"""Instructions of the tensor engine: convolutions and matrix products with int32 accumulation and requantization."""

from __future__ import annotations

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.fields import I8, U8, U16, U32, Flag, Int, Ints, Tensor
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.numerics import MAX_SHIFT, MULTIPLIER_BITS

I8_ONLY, I32_ONLY = (DType.I8,), (DType.I32,)
EXTENT = Int("u16", 0, 2**16 - 1)
STEP = Int("u16", 1, 2**16 - 1)
MULT = U32("requantization multiplier", 0, 2**MULTIPLIER_BITS - 1)
SHIFT = U8("requantization right shift", 0, MAX_SHIFT)
OUT_ZP, LO, HI = I8("output zero point"), I8("lower clip bound"), I8("upper clip bound, >= lo")


@instruction(0x01, Engine.TENSOR)
class Conv(Instruction):
    """Convolution with per-channel requantization; padded taps contribute 0. Dense layers are 1x1 convolutions."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("O KH KW CG", I8_ONLY, "weights, OHWI; CG = C / groups")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW O", I8_ONLY, "output, NHWC", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    groups = U16("channel groups", 1)
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x02, Engine.TENSOR)
class Depthwise(Instruction):
    """Depthwise convolution, multiplier 1, with per-channel requantization; padded taps contribute 0."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("KH KW C", I8_ONLY, "weights, HWC")
    bias = Tensor("C", I32_ONLY, "bias at scale s_in * s_w[c]")
    mult = Tensor("C", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("C", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x03, Engine.TENSOR, "CONV_TRANSPOSE")
class ConvTranspose(Instruction):
    """Transposed convolution: ``out[ih*sh - top + i*dh] += (x[ih]-in_zp) * (w[i]-w_zp)``, then per-channel requantization."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    w = Tensor("O KH KW C", I8_ONLY, "weights, OHWI")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW O", I8_ONLY, "output, NHWC", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right: what is cut off the full result")
    output_padding = Ints(EXTENT, 2, "rows, columns added at bottom and right")
    dilation = Ints(STEP, 2, "rows, columns")
    in_zp = I8("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x04, Engine.TENSOR)
class MatMul(Instruction):
    """Product of two activation tensors over broadcasting batch axes, one requantization for all elements."""

    a = Tensor("*", I8_ONLY, "left, [..., M, K]")
    b = Tensor("*", I8_ONLY, "right, [..., K, N], or [..., N, K] with transpose_b")
    out = Tensor("*", I8_ONLY, "output, [..., M, N]", out=True)
    transpose_b = Flag("b is stored [..., N, K]")
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
