"""Ops on 16-bit activations with zero points of their own: what networks quantized to 16 bits are made of (TFLite
int16x8, ONNX QDQ with 16-bit activations). ``wide``: the result is int16, else int8; ``lo``, ``hi``, ``out_zp`` lie in
its range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, contraction, regions
from tvm_ergo.relay_passes.dialect.arithmetic import int64
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS
from tvm_ergo.relay_passes.dialect.linear import Conv2d
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits
from tvm_ergo.relay_passes.dialect.wide import ELEMENTS, width
from tvm_ergo.target.isa.int16 import LIMITS, MAX_TABLE_BITS, SUM_LIMIT, largest_sum
from tvm_ergo.target.isa.operand import DType


def ends(value: tirx.Expr, op) -> tirx.Expr:
    """``clip(value + out_zp, lo, hi)`` of an int64 value, in the width of the op's result."""
    clipped = arithmetic.larger(arithmetic.smaller(value + int64(op.out_zp), int64(op.hi)), int64(op.lo))
    return clipped.astype(width(op.wide))


class _Ends:
    """What the ops here check."""

    def require_ends(self) -> None:
        low, high = LIMITS[DType.of(width(self.wide))]
        self.require(low <= self.lo <= self.hi <= high, "bad clip bounds", f"in {low}..{high}", (self.lo, self.hi))
        self.require(low <= self.out_zp <= high, "output zero point out of range", f"{low}..{high}", self.out_zp)

    def require_zero(self, name: str, dtype: str, value: int) -> None:
        low, high = LIMITS[DType.of(dtype)]
        self.require(low <= value <= high, f"{name} is no {dtype} value", f"{low}..{high}", value)


@ergo_op("conv2d_16")
@dataclass(frozen=True)
class Conv2d16(_Ends, Conv2d):
    """conv2d of i8 or i16 activations with 8-bit weights, sums exact in 40 bits: ``clip(out_zp + floor(acc * mult /
    2**shift + 1/2), lo, hi)``; the formula of the instruction CONV_16.

    x i8 or i16[N,H,W,C], w i8[O,kh,kw,C/groups], bias i32[O], mult i32[O], shift i8[O] -> [N,OH,OW,O].
    """

    traits = Traits(uniform=True, rows=Rows.WHOLE)

    wide: bool = True

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 5)
        self.require(dtypes[0] in ELEMENTS, "wrong dtype of x", " or ".join(ELEMENTS), dtypes[0])
        results = super().infer(shapes, ("int8", *dtypes[1:]))
        self.require_zero("in_zp", dtypes[0], self.in_zp)
        reach = largest_sum(shapes[1], DType.of(dtypes[0]), self.in_zp, self.w_zp)
        self.require(reach < SUM_LIMIT, "the sums may exceed their 40 bits", f"below {SUM_LIMIT}", reach)
        return [(shape, width(self.wide)) for shape, _ in results]

    def require_int8(self, **zero_points: int) -> None:
        super().require_int8(w_zp=self.w_zp)

    def require_clip(self) -> None:
        self.require_ends()

    def compute_packed(
        self, x: te.Tensor, packed: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor
    ) -> te.Tensor:
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.conv(
            padded,
            packed,
            int(bias.shape[0]),
            self.strides,
            self.dilation,
            self.groups,
            self.in_zp,
            self.w_zp,
            dtype="int64",
        )

        def value(n, h, w, o):
            total = (acc(n, h, w, o) + int64(bias(o))) * int64(mult(o))
            return ends(arithmetic.rounding_shift(total, shift(o)), self)

        return te.compute((*acc.shape[:3], bias.shape[0]), value, name="requantize")

    def macs(self, shapes: Sequence[Shape]) -> int:
        size = self._window_size(*shapes[0][1:3], shapes[1][1:3])
        return shapes[0][0] * prod(size) * prod(shapes[1])


class _Pair(_Ends, ErgoOp):
    """Two operands of 8 or 16 bits that broadcast."""

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, (ELEMENTS, ELEMENTS))
        shape = regions.broadcast_shape(*shapes)
        self.require(shape is not None, "shapes do not broadcast", "equal or 1", f"{shapes[0]} and {shapes[1]}")
        self.require_zero("a_zp", dtypes[0], self.a_zp)
        self.require_zero("b_zp", dtypes[1], self.b_zp)
        self.require_scales()
        self.require_ends()
        return [(shape, width(self.wide))]

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        def value(p, q):
            total = self.total(int64(p) - int64(self.a_zp), int64(q) - int64(self.b_zp))
            return ends(arithmetic.rounding_shift(total, self.shift), self)

        return arithmetic.binary(a, b, value, self.op_name)

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [regions.broadcast(out_region, shape) for shape in shapes]


@ergo_op("add_16")
@dataclass(frozen=True)
class Add16(_Pair):
    """``clip(out_zp + floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift + 1/2), lo, hi)``. a, b i8 or i16,
    broadcasting."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0, 1))

    arg_names = ("a", "b")
    a_zp: int
    b_zp: int
    a_mult: int
    b_mult: int
    shift: int
    lo: int = -32768
    hi: int = 32767
    wide: bool = True

    def require_scales(self) -> None:
        for mult in (self.a_mult, self.b_mult):
            self.require_multiplier(mult, self.shift, ADD_MULTIPLIER_BITS, signed=True)

    def total(self, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        return a * int64(self.a_mult) + b * int64(self.b_mult)


@ergo_op("mul_16")
@dataclass(frozen=True)
class Mul16(_Pair):
    """``clip(out_zp + floor((a-a_zp)*(b-b_zp)*mult / 2**shift + 1/2), lo, hi)``. a, b i8 or i16, broadcasting."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0, 1))

    arg_names = ("a", "b")
    a_zp: int
    b_zp: int
    mult: int
    shift: int
    lo: int = -32768
    hi: int = 32767
    wide: bool = True

    def require_scales(self) -> None:
        self.require_multiplier(self.mult, self.shift)

    def total(self, a: tirx.Expr, b: tirx.Expr) -> tirx.Expr:
        return a * b * int64(self.mult)


@ergo_op("rescale_16")
@dataclass(frozen=True)
class Rescale16(_Ends, ErgoOp):
    """``clip(out_zp + floor((x - in_zp) * mult / 2**shift + 1/2), lo, hi)``. x i8 or i16."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0,))

    arg_names = ("x",)
    in_zp: int
    mult: int
    shift: int
    lo: int = -32768
    hi: int = 32767
    wide: bool = True

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, (ELEMENTS,))
        self.require_zero("in_zp", dtypes[0], self.in_zp)
        self.require_multiplier(self.mult, self.shift)
        self.require_ends()
        return [(tuple(shapes[0]), width(self.wide))]

    def compute(self, x: te.Tensor) -> te.Tensor:
        def value(v):
            total = (int64(v) - int64(self.in_zp)) * int64(self.mult)
            return ends(arithmetic.rounding_shift(total, self.shift), self)

        return arithmetic.unary(x, value, "rescale_16")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [tuple(out_region)]


@ergo_op("table_16")
@dataclass(frozen=True)
class Table16(ErgoOp):
    """Straight between the entries of a table: the formula of the instruction TABLE_16. x i16, lut i16[2**(16 - step) +
    1] -> i16 where ``wide``, else i8 (then the entries are int8 values)."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0,))

    arg_names = ("x", "lut")
    step: int
    wide: bool = True

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("int16", "int16"))
        self.require(0 <= self.step < MAX_TABLE_BITS, "bad step", f"0..{MAX_TABLE_BITS - 1}", self.step)
        self.require_shape("lut", shapes[1], ((1 << (16 - self.step)) + 1,))
        return [(tuple(shapes[0]), width(self.wide))]

    def compute(self, x: te.Tensor, lut: te.Tensor) -> te.Tensor:
        def value(v):
            u = v.astype("int32") + tirx.const(32768, "int32")
            index = u >> tirx.const(self.step, "int32")
            low, high = int64(lut(index)), int64(lut(index + tirx.const(1, "int32")))
            rest = int64(u) - (int64(index) << int64(self.step))
            return (low + arithmetic.rounding_shift((high - low) * rest, self.step)).astype(width(self.wide))

        return arithmetic.unary(x, value, "table_16")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [tuple(out_region), ((0, shapes[1][0]),)]
