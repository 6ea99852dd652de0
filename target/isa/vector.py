"""Instructions of the vector engine: elementwise arithmetic, tables, pooling, reductions, softmax, resize."""

from __future__ import annotations

from enum import IntEnum

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.fields import I8, Choice, Flag, Int, Ints, Tensor
from tvm_ergo.target.isa.operand import MAX_RANK, DType
from tvm_ergo.target.isa.tensor import EXTENT, HI, I8_ONLY, I32_ONLY, LO, MULT, OUT_ZP, SHIFT, STEP

BYTES = (DType.I8, DType.U8)
SIGNED_MULT = Int("i32", -(2**21) + 1, 2**21 - 1, "signed input multiplier")


class MaxMinKind(IntEnum):
    MAX = 0
    MIN = 1


class PoolKind(IntEnum):
    MAX = 0
    AVG = 1


class ReduceKind(IntEnum):
    SUM = 0
    MAX = 1
    MIN = 2


@instruction(0x10, Engine.VECTOR)
class Add(Instruction):
    """``clip(out_zp + ((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift rounded half up)``; a and b broadcast to out's shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    a_mult, b_mult, shift = SIGNED_MULT, SIGNED_MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
    IN_PLACE = True


@instruction(0x11, Engine.VECTOR)
class Mul(Instruction):
    """``requantize((a-a_zp)*(b-b_zp))``; a and b broadcast to out's shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
    IN_PLACE = True


@instruction(0x12, Engine.VECTOR)
class MaxMin(Instruction):
    """Elementwise maximum or minimum of two tensors with the same quantization; a and b broadcast to out's shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    kind = Choice(MaxMinKind, "which of the two")
    IN_PLACE = True


@instruction(0x13, Engine.VECTOR)
class Table(Instruction):
    """``out = lut[(c,) x + 128]`` for int8 x, ``lut[(c,) x]`` for uint8 x: any 8-bit activation or requantization."""

    x = Tensor("*", BYTES, "input, [..., C]")
    lut = Tensor("*", BYTES, "[256], or [C, 256] one table per channel")
    out = Tensor("*", BYTES, "output, the lut's element type", out=True)
    IN_PLACE = True


@instruction(0x14, Engine.VECTOR)
class Pool(Instruction):
    """Max pooling (padding never wins) or average pooling: ``out_zp + rounding_divide(sum(x-in_zp)*mult, count<<shift)``.

    For MAX the quantization fields mean nothing: dilation applies to MAX only.
    """

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)
    kind = Choice(PoolKind, "which pooling")
    pool = Ints(STEP, 2, "window rows, columns")
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns; 1,1 for AVG")
    count_include_pad = Flag("AVG: divide by the whole window also at the border")
    in_zp = I8("AVG: input zero point")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x15, Engine.VECTOR)
class Reduce(Instruction):
    """Sum (requantized; a mean has 1/count in mult), maximum or minimum over axes."""

    x = Tensor("*", I8_ONLY, "input")
    out = Tensor("*", I8_ONLY, "output", out=True)
    kind = Choice(ReduceKind, "which reduction")
    axes = Ints(Int("u8", 0, MAX_RANK - 1), None, "reduced axes, ascending", MAX_RANK)
    keepdims = Flag("reduced axes stay with length 1")
    in_zp = I8("SUM: input zero point")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x16, Engine.VECTOR)
class Softmax(Instruction):
    """Softmax over the last axis: ``e = lut[max-x]``, ``out_zp + rounding_divide(e*mult, sum(e)<<shift)``."""

    x = Tensor("*", I8_ONLY, "input, [..., K]")
    lut = Tensor("256", I32_ONLY, "exponentials, non-negative, < 2**23")
    out = Tensor("*", I8_ONLY, "output, x's shape", out=True)
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI


@instruction(0x17, Engine.VECTOR)
class Resize(Instruction):
    """Separable resize: per output row and column (low index, high index, weight of high in 0..2048), rounded ``>> 22``."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    rows = Tensor("OH 3", I32_ONLY, "row taps")
    cols = Tensor("OW 3", I32_ONLY, "column taps")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)
