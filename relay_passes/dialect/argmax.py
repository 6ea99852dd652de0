"""The position of the largest element of each row: the CPU's library function ARGMAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits

MAX_LENGTH = 2**24


@ergo_op("argmax")
@dataclass(frozen=True)
class Argmax(ErgoOp):
    """Number of the first largest element along the last axis. x i8[...,K] -> i32[...]."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x",)

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        length = shapes[0][-1] if shapes[0] else 0
        self.require(0 < length < MAX_LENGTH, "bad row length", f"1..{MAX_LENGTH - 1}", length)
        return [(tuple(shapes[0][:-1]), "int32")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        *rows, length = (int(d) for d in x.shape)
        k, again = te.reduce_axis((0, length), "k"), te.reduce_axis((0, length), "again")
        largest = te.compute(rows, lambda *row: te.max(x(*row, k), axis=k), name="largest")

        def place(*row):
            number = again.var.astype("int32")
            return te.min(tirx.Select(x(*row, again) == largest(*row), number, tirx.const(length, "int32")), axis=again)

        return te.compute(rows, place, name="argmax")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        empty = any(begin >= end for begin, end in out_region)
        return [(*out_region, (0, 0) if empty else (0, shapes[0][-1]))]
