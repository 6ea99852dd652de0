"""Elementwise ops: rescaled sums and products, extrema, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te

from tvm_ergo.relay_passes.dialect import arithmetic, regions
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Coding, Rows, Tables, Traits

ADD_MULTIPLIER_BITS = 21


@dataclass(frozen=True)
class _Binary(ErgoOp):
    """Two int8 operands, NumPy broadcasting."""

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("int8", "int8"))
        shape = regions.broadcast_shape(*shapes)
        self.require(
            shape is not None, "operands do not broadcast", "dimensions equal or 1", f"{shapes[0]} and {shapes[1]}"
        )
        self.require_clip()
        self._check_fields()
        return [(shape, "int8")]

    def _check_fields(self) -> None:
        """Further checks of the op's own fields."""

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [regions.broadcast(out_region, shape) for shape in shapes]


@ergo_op("add")
@dataclass(frozen=True)
class Add(_Binary):
    """``clip(out_zp + floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift + 1/2), lo, hi)``; subtraction has b_mult <
    0.

    a, b i8, broadcasting -> i8. Multipliers are signed, abs < 2**21.
    """

    traits = Traits(
        uniform=True,
        rows=Rows.SAME,
        in_place=(0, 1),
        output_table=Tables.TENSOR,
        coding=Coding({0: "a_zp", 1: "b_zp"}, "out_zp", whole_shape=True),
    )

    arg_names = ("a", "b")
    a_zp: int
    b_zp: int
    a_mult: int
    b_mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def _check_fields(self) -> None:
        self.require_int8(a_zp=self.a_zp, b_zp=self.b_zp)
        self.require_multiplier(self.a_mult, self.shift, ADD_MULTIPLIER_BITS, signed=True)
        self.require_multiplier(self.b_mult, self.shift, ADD_MULTIPLIER_BITS, signed=True)

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        def value(p, q):
            total = arithmetic.centred(p, self.a_zp) * arithmetic.int64(self.a_mult) + arithmetic.centred(
                q, self.b_zp
            ) * arithmetic.int64(self.b_mult)
            return arithmetic.finish(arithmetic.rounding_shift(total, self.shift), self.out_zp, self.lo, self.hi)

        return arithmetic.binary(a, b, value, "add")


@ergo_op("mul")
@dataclass(frozen=True)
class Mul(_Binary):
    """``requantize((a-a_zp) * (b-b_zp))``. a, b i8, broadcasting -> i8."""

    traits = Traits(
        uniform=True,
        rows=Rows.SAME,
        in_place=(0, 1),
        output_table=Tables.TENSOR,
        coding=Coding({0: "a_zp", 1: "b_zp"}, "out_zp", whole_shape=True),
    )

    arg_names = ("a", "b")
    a_zp: int
    b_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def _check_fields(self) -> None:
        self.require_int8(a_zp=self.a_zp, b_zp=self.b_zp)
        self.require_multiplier(self.mult, self.shift)

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        def value(p, q):
            product = arithmetic.centred(p, self.a_zp) * arithmetic.centred(q, self.b_zp)
            return arithmetic.requantize(product, self.mult, self.shift, self.out_zp, self.lo, self.hi)

        return arithmetic.binary(a, b, value, "mul")


@ergo_op("maximum")
@dataclass(frozen=True)
class Maximum(_Binary):
    """The larger element; both operands and the output share one quantization. a, b i8, broadcasting -> i8."""

    traits = Traits(uniform=True, rows=Rows.SAME, in_place=(0, 1))

    arg_names = ("a", "b")

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return arithmetic.binary(a, b, arithmetic.larger, "maximum")


@ergo_op("minimum")
@dataclass(frozen=True)
class Minimum(_Binary):
    """The smaller element; both operands and the output share one quantization. a, b i8, broadcasting -> i8."""

    traits = Traits(uniform=True, rows=Rows.SAME, in_place=(0, 1))

    arg_names = ("a", "b")

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        return arithmetic.binary(a, b, arithmetic.smaller, "minimum")


@ergo_op("table")
@dataclass(frozen=True)
class Table(ErgoOp):
    """``lut[x + 128]`` for i8, ``lut[x]`` for u8: any activation, any requantization; one table a channel for PReLU.

    x i8 or u8 [...,C], lut i8 or u8 [256] or [C,256] -> lut's dtype, x's shape.
    """

    traits = Traits(uniform=True, rows=Rows.SAME, in_place=(0,))

    arg_names = ("x", "lut")

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, (("int8", "uint8"), ("int8", "uint8")))
        x, lut = shapes
        if len(lut) == 1:
            self.require_shape("lut", lut, (256,))
        else:
            self.require(len(x) >= 1, "a table a channel needs a channel axis", "rank >= 1", x)
            self.require_shape("lut", lut, (x[-1], 256))
        return [(tuple(x), dtypes[1])]

    def compute(self, x: te.Tensor, lut: te.Tensor) -> te.Tensor:
        offset = 128 if str(x.dtype) == "int8" else 0

        def value(*index):
            entry = x(*index).astype("int32") + offset
            return lut(entry) if len(lut.shape) == 1 else lut(index[-1], entry)

        return te.compute(x.shape, value, name="table")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        lut = ((0, 256),) if len(shapes[1]) == 1 else (out_region[-1], (0, 256))
        return [tuple(out_region), lut]
