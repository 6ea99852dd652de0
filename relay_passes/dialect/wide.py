"""Ops with 16-bit tensors: linear ops whose result is int16, sums of int16, and the way from one width to the other.

int16 tensors have zero point 0 and are clipped to their type's range; ``lo``, ``hi`` and ``out_zp`` mean nothing for
them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, contraction, regions
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.elementwise import ADD_MULTIPLIER_BITS
from tvm_ergo.relay_passes.dialect.linear import Conv2d, MatMul
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits

ELEMENTS = ("int8", "int16")


def saturate(value: tirx.Expr) -> tirx.Expr:
    """int16 of an int64 value, clipped to the type's range."""
    return arithmetic.larger(arithmetic.smaller(value, arithmetic.int64(32767)), arithmetic.int64(-32768)).astype(
        "int16"
    )


def finish(value: tirx.Expr, op) -> tirx.Expr:
    """int16 or int8 of an int64 value, as ``op.wide`` says."""
    return saturate(value) if op.wide else arithmetic.finish(value, op.out_zp, op.lo, op.hi)


def requantize(acc: tirx.Expr, op) -> tirx.Expr:
    """``finish`` of ``acc * op.mult / 2**op.shift``, rounded half up."""
    return finish(arithmetic.rounding_shift(arithmetic.int64(acc) * arithmetic.int64(op.mult), op.shift), op)


def width(wide: bool) -> str:
    return "int16" if wide else "int8"


class _WideResult:
    """Replaces the int8 result type by int16."""

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        results = super().infer(shapes, dtypes)
        self.require(self.out_zp == 0, "an int16 tensor has a zero point", 0, self.out_zp)
        return [(shape, "int16") for shape, _ in results]


@ergo_op("conv2d_wide")
@dataclass(frozen=True)
class Conv2dWide(_WideResult, Conv2d):
    """conv2d with an int16 result: ``sat16(floor(acc * mult / 2**shift + 1/2))``; lo and hi are not used."""

    traits = Traits(uniform=True, rows=Rows.WHOLE)

    def compute_packed(
        self, x: te.Tensor, packed: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor
    ) -> te.Tensor:
        padded = contraction.pad_rows(x, self.padding, self.in_zp)
        acc = contraction.conv(
            padded, packed, int(bias.shape[0]), self.strides, self.dilation, self.groups, self.in_zp, self.w_zp
        )

        def value(n, h, w, o):
            total = arithmetic.int64(acc(n, h, w, o) + bias(o)) * arithmetic.int64(mult(o))
            return saturate(arithmetic.rounding_shift(total, shift(o)))

        return te.compute(
            (*acc.shape[:3], bias.shape[0]), value, name="requantize"
        )  # the accumulators may have lanes left over


@ergo_op("matmul_wide")
@dataclass(frozen=True)
class MatMulWide(_WideResult, MatMul):
    """matmul with an int16 result: ``sat16(floor(acc * mult / 2**shift + 1/2))``; lo and hi are not used."""

    traits = Traits(rows=Rows.WHOLE)

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        acc = contraction.matmul(a, b, self.transpose_b, self.a_zp, self.b_zp)
        return arithmetic.unary(
            acc,
            lambda v: saturate(
                arithmetic.rounding_shift(arithmetic.int64(v) * arithmetic.int64(self.mult), self.shift)
            ),
            "requantize",
        )


class _Elementwise:
    """What ops on int8 or int16 elements check."""

    def require_zero_point(self, name: str, dtype: str, value: int) -> None:
        self.require_int8(**{name: value})
        self.require(dtype == "int8" or value == 0, f"{name} of an int16 tensor", 0, value)


@ergo_op("add_wide")
@dataclass(frozen=True)
class AddWide(_Elementwise, ErgoOp):
    """``sat16(floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift + 1/2))``. a, b i8 or i16, broadcasting -> i16."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0, 1))

    arg_names = ("a", "b")
    a_zp: int
    b_zp: int
    a_mult: int
    b_mult: int
    shift: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, (ELEMENTS, ELEMENTS))
        shape = regions.broadcast_shape(*shapes)
        self.require(shape is not None, "shapes do not broadcast", "equal or 1", f"{shapes[0]} and {shapes[1]}")
        self.require_zero_point("a_zp", dtypes[0], self.a_zp)
        self.require_zero_point("b_zp", dtypes[1], self.b_zp)
        for mult in (self.a_mult, self.b_mult):
            self.require_multiplier(mult, self.shift, ADD_MULTIPLIER_BITS, signed=True)
        self.require(self.out_zp == 0, "an int16 tensor has a zero point", 0, self.out_zp)
        return [(shape, "int16")]

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        def value(p, q):
            total = arithmetic.int64(arithmetic.centred(p, self.a_zp)) * arithmetic.int64(
                self.a_mult
            ) + arithmetic.int64(arithmetic.centred(q, self.b_zp)) * arithmetic.int64(self.b_mult)
            return saturate(arithmetic.rounding_shift(total, self.shift))

        return arithmetic.binary(a, b, value, "add_wide")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [regions.broadcast(out_region, shape) for shape in shapes]


@ergo_op("rescale")
@dataclass(frozen=True)
class Rescale(_Elementwise, ErgoOp):
    """``clip(out_zp + floor((x - in_zp) * mult / 2**shift + 1/2))``. x i8 or i16 -> i16 where ``wide``, else i8."""

    traits = Traits(uniform=True, rows=Rows.WHOLE, in_place=(0,))

    arg_names = ("x",)
    wide: bool
    in_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, (ELEMENTS,))
        self.require_zero_point("in_zp", dtypes[0], self.in_zp)
        self.require_multiplier(self.mult, self.shift)
        self.require_clip()
        self.require_zero_point("out_zp", width(self.wide), self.out_zp)
        return [(tuple(shapes[0]), width(self.wide))]

    def compute(self, x: te.Tensor) -> te.Tensor:
        return arithmetic.unary(x, lambda v: requantize(arithmetic.centred(v, self.in_zp), self), "rescale")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [tuple(out_region)]
