"""Rows of a larger tensor: at a position that is known at run time only (instructions TAKE_ROWS, PUT_ROWS), and in at
the end (SHIFT_ROWS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.movement import MOVABLE_DTYPES
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits


def _first(position: te.Tensor, whole: int, rows: int) -> tirx.Expr:
    last = tirx.const(whole - rows, "int32")
    return arithmetic.larger(arithmetic.smaller(position(0), last), tirx.const(0, "int32"))


@ergo_op("take_rows")
@dataclass(frozen=True)
class TakeRows(ErgoOp):
    """``x[..., p : p + rows, :]``, p the position, moved so that all rows lie inside.

    x [..., R, C] of any integer type, position i32[1] -> [..., rows, C]."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x", "position")
    rows: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, (MOVABLE_DTYPES, "int32"))
        x = tuple(shapes[0])
        self.require_shape("position", shapes[1], (1,))
        self.require(len(x) >= 2, "x has no rows", "rank >= 2", x)
        self.require(1 <= self.rows <= x[-2], "more rows than x has", f"1..{x[-2]}", self.rows)
        return [((*x[:-2], self.rows, x[-1]), dtypes[0])]

    def compute(self, x: te.Tensor, position: te.Tensor) -> te.Tensor:
        shape = [int(d) for d in x.shape]

        def element(*index):
            return x(*index[:-2], index[-2] + _first(position, shape[-2], self.rows), index[-1])

        return te.compute((*shape[:-2], self.rows, shape[-1]), element, name="take_rows")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [(*out_region[:-2], (0, shapes[0][-2]), out_region[-1]), ((0, 1),)]


@ergo_op("put_rows")
@dataclass(frozen=True)
class PutRows(ErgoOp):
    """x with ``rows`` in the place of its own from the position on, which is moved so that all of them lie inside.

    x [..., R, C] of any integer type, rows [..., M, C] of the same, position i32[1] -> x's shape."""

    traits = Traits(rows=Rows.WHOLE, in_place=(0,), renews=True)

    arg_names = ("x", "rows", "position")

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, (MOVABLE_DTYPES, MOVABLE_DTYPES, "int32"))
        x, rows = (tuple(s) for s in shapes[:2])
        self.require_shape("position", shapes[2], (1,))
        self.require(dtypes[0] == dtypes[1], "x and rows have different dtypes", dtypes[0], dtypes[1])
        self.require(len(x) >= 2 and len(rows) == len(x), "x has no rows", "rank >= 2, the same for both", (x, rows))
        fits = (*x[:-2], x[-1]) == (*rows[:-2], rows[-1]) and rows[-2] <= x[-2]
        self.require(fits, "the rows do not fit x", f"at most {x[-2]} rows of {x}", rows)
        return [(x, dtypes[0])]

    def compute(self, x: te.Tensor, rows: te.Tensor, position: te.Tensor) -> te.Tensor:
        count = int(rows.shape[-2])

        def element(*index):
            row = index[-2] - _first(position, int(x.shape[-2]), count)
            inside = tirx.all(row >= 0, row < count)
            return tirx.if_then_else(inside, rows(*index[:-2], row, index[-1]), x(*index))

        return te.compute(x.shape, element, name="put_rows")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [tuple(out_region), (*out_region[:-2], (0, shapes[1][-2]), out_region[-1]), ((0, 1),)]


@ergo_op("shift_rows")
@dataclass(frozen=True)
class ShiftRows(ErgoOp):
    """The last R rows of x and rows one after the other, R those of x: a window that moves on.

    x [.., R, ..] of any integer type with R rows along ``axis``, rows [.., n, ..] of the same -> x's shape."""

    traits = Traits(rows=Rows.WHOLE, in_place=(0,), renews=True)

    arg_names = ("x", "rows")
    axis: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, (MOVABLE_DTYPES, MOVABLE_DTYPES))
        x, rows = (tuple(s) for s in shapes)
        self.require(dtypes[0] == dtypes[1], "x and rows have different dtypes", dtypes[0], dtypes[1])
        self.require(0 <= self.axis < len(x), "bad axis", f"0..{len(x) - 1}", self.axis)
        self.require(len(rows) == len(x), "x and rows differ in rank", len(x), len(rows))
        expected = tuple(rows[a] if a == self.axis else d for a, d in enumerate(x))
        self.require_shape("rows", rows, expected)
        self.require(1 <= rows[self.axis] <= x[self.axis], "the rows do not fit x", f"1..{x[self.axis]} rows", rows)
        return [(x, dtypes[0])]

    def compute(self, x: te.Tensor, rows: te.Tensor) -> te.Tensor:
        length, new = int(x.shape[self.axis]), int(rows.shape[self.axis])

        def element(*index):
            at = index[self.axis] + new
            moved, fresh = (
                tuple(row if a == self.axis else i for a, i in enumerate(index)) for row in (at, at - length)
            )
            return tirx.if_then_else(at < length, x(*moved), rows(*fresh))

        return te.compute(x.shape, element, name="shift_rows")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [
            tuple((0, shape[self.axis]) if a == self.axis else box for a, box in enumerate(out_region))
            for shape in shapes
        ]
