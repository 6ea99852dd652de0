"""A sum over rows and columns in two ops, so that rows can be given up as soon as they are summed: the compiler makes
them from reduce_sum.

Models never contain them (`codegen.space.accumulate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits


@ergo_op("running_sum")
@dataclass(frozen=True)
class RunningSum(ErgoOp):
    """Row h of the output is ``sum(x - in_zp)`` over the rows up to h and all columns: i8[1,H,W,C] -> i32[1,H,1,C].

    On the chip all rows of the output lie in one place: the sums so far.
    """

    traits = Traits(rows=Rows.SAME, accumulates=True)

    arg_names = ("x",)
    in_models = False
    in_zp: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        self.require_int8(in_zp=self.in_zp)
        self.require(len(shapes[0]) == 4 and shapes[0][0] == 1, "not one picture", "[1, H, W, C]", shapes[0])
        self.require(
            shapes[0][1] * shapes[0][2] < 2**23, "more elements than int32 sums hold", "H * W < 2**23", shapes[0]
        )
        return [((1, shapes[0][1], 1, shapes[0][3]), "int32")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        _, height, width, channels = (int(d) for d in x.shape)
        row, column = te.reduce_axis((0, height), "row"), te.reduce_axis((0, width), "column")
        return te.compute(
            (1, height, 1, channels),
            lambda n, h, _, c: te.sum(
                tirx.if_then_else(
                    row <= h, arithmetic.centred(x(n, row, column, c), self.in_zp), tirx.const(0, "int32")
                ),
                axis=[row, column],
            ),
            name="running_sum",
        )

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        """The rows that the rows before do not hold in themselves: bands must run in order, each once."""
        return [(out_region[0], out_region[1], (0, shapes[0][2]), out_region[3])]


@ergo_op("requantize_last")
@dataclass(frozen=True)
class RequantizeLast(ErgoOp):
    """``requantize`` of the last row: i32[1,H,1,C] -> i8[1,1,1,C] with keepdims, else i8[1,C]."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x",)
    in_models = False
    keepdims: bool
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int32",))
        self.require_clip()
        self.require_multiplier(self.mult, self.shift)
        self.require(
            len(shapes[0]) == 4 and shapes[0][0] == shapes[0][2] == 1, "not running sums", "[1, H, 1, C]", shapes[0]
        )
        return [((1, 1, 1, shapes[0][3]) if self.keepdims else (1, shapes[0][3]), "int8")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        height, channels = int(x.shape[1]), int(x.shape[3])
        shape = (1, 1, 1, channels) if self.keepdims else (1, channels)
        return te.compute(
            shape,
            lambda *index: arithmetic.requantize(
                x(0, height - 1, 0, index[-1]), self.mult, self.shift, self.out_zp, self.lo, self.hi
            ),
            name="requantize_last",
        )

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        height = shapes[0][1]
        return [((0, 1), (height - 1, height), (0, 1), out_region[-1])]
