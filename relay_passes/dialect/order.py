"""The largest elements of each row, the logarithm of a softmax: the CPU's library functions TOP_ROWS, LOG_SOFTMAX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, reduction
from tvm_ergo.relay_passes.dialect.arithmetic import int64
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits

MAX_ROW = 2**14
"""Longer rows: the definition compares every element with every other."""


def _rows(out_region: Region, length: int) -> Region:
    empty = any(begin >= end for begin, end in out_region)
    return (*out_region[:-1], (0, 0) if empty else (0, length))


@ergo_op("topk")
@dataclass(frozen=True)
class TopK(ErgoOp):
    """The k largest elements of each row in falling order, of equal ones the first before: x i8[...,K] -> i8[...,k], or
    with ``positions`` where they stand, i32."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x",)
    k: int
    positions: bool

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        length = shapes[0][-1] if shapes[0] else 0
        self.require(0 < length < MAX_ROW, "bad row length", f"1..{MAX_ROW - 1}", length)
        self.require(0 < self.k <= length, "bad count", f"1..{length}", self.k)
        return [((*shapes[0][:-1], self.k), "int32" if self.positions else "int8")]

    def compute(self, x: te.Tensor) -> te.Tensor:
        """An element's rank is how many stand before it."""
        *rows, length = (int(d) for d in x.shape)
        other, k = te.reduce_axis((0, length), "other"), te.reduce_axis((0, length), "k")

        def before(*index):
            mine, theirs = x(*index), x(*index[:-1], other)
            first = tirx.any(theirs > mine, tirx.all(theirs == mine, other.var < index[-1]))
            return te.sum(tirx.Select(first, tirx.const(1, "int32"), tirx.const(0, "int32")), axis=other)

        rank = te.compute(x.shape, before, name="rank")

        def element(*index):
            what = k.var.astype("int32") if self.positions else x(*index[:-1], k).astype("int32")
            here = rank(*index[:-1], k) == index[-1].astype("int32")
            return te.sum(tirx.Select(here, what, tirx.const(0, "int32")), axis=k)

        found = te.compute((*rows, self.k), element, name="topk")
        if self.positions:
            return found
        return te.compute(found.shape, lambda *index: found(*index).astype("int8"), name="topk_values")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [_rows(out_region, shapes[0][-1])]


@ergo_op("log_softmax")
@dataclass(frozen=True)
class LogSoftmax(ErgoOp):
    """Logarithm of the softmax over the last axis: the formula of the library's function LOG_SOFTMAX.

    x i8[...,K], lut i32[256] (exponentials with 22 fraction bits) -> i8."""

    traits = Traits(uniform=True, rows=Rows.WHOLE)

    arg_names = ("x", "lut")
    x_mult: int
    log_mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("int8", "int32"))
        length = shapes[0][-1] if shapes[0] else 0
        self.require(0 < length < MAX_ROW, "bad row length", f"1..{MAX_ROW - 1}", length)
        self.require_shape("lut", shapes[1], (256,))
        self.require_clip()
        most = max(self.x_mult, self.log_mult)
        self.require(min(self.x_mult, self.log_mult) >= 0 and most < 2**30, "bad multiplier", "0..2**30 - 1", most)
        self.require(0 <= self.shift <= 40, "bad shift", "0..40", self.shift)
        return [(tuple(shapes[0]), "int8")]

    def compute(self, x: te.Tensor, lut: te.Tensor) -> te.Tensor:
        last = len(x.shape) - 1
        largest = reduction.reduce(x, [last], True, te.max, lambda v: v, "row_max")
        distance = te.compute(
            x.shape, lambda *i: largest(*i[:-1], 0).astype("int32") - x(*i).astype("int32"), name="distance"
        )
        exponent = te.compute(x.shape, lambda *i: lut(distance(*i)), name="exponent")
        total = reduction.reduce(exponent, [last], True, te.sum, int64, "row_sum")
        logarithm = _log2(total)

        def element(*index):
            relative = logarithm(*index[:-1], 0) - int64(22 << 16)
            value = int64(distance(*index)) * int64(self.x_mult) + relative * int64(self.log_mult)
            rounded = arithmetic.rounding_shift(value * int64(-1), self.shift)
            return arithmetic.finish(rounded, self.out_zp, self.lo, self.hi)

        return te.compute(x.shape, element, name="log_softmax")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [_rows(out_region, shapes[0][-1]), ((0, 256),)]


def _log2(total: te.Tensor) -> te.Tensor:
    """Of int64 numbers below 2**40 (0 counts as 1), with 16 fraction bits: a state holds 32 bits of mantissa, then the
    result."""

    def start(*index):
        value = arithmetic.larger(total(*index), int64(1))
        power = int64(0)
        for k in range(1, 41):
            power = power + tirx.Select(value >= int64(1 << k), int64(1), int64(0))
        up, down = (arithmetic.larger(p, int64(0)) for p in (int64(30) - power, power - int64(30)))
        return (power << int64(32)) | ((value << up) >> down)

    state = te.compute(total.shape, start, name="log_start")
    for _ in range(16):
        state = _log2_bit(state)
    return te.compute(total.shape, lambda *index: state(*index) >> int64(32), name="log")


def _log2_bit(state: te.Tensor) -> te.Tensor:
    """One bit more of the result: the mantissa is squared, and halved where that reached 2."""

    def step(*index):
        mantissa = state(*index) & int64(2**32 - 1)
        squared = (mantissa * mantissa) >> int64(30)
        bit = squared >> int64(31)
        result = ((state(*index) >> int64(32)) << int64(1)) + bit
        return (result << int64(32)) | (squared >> bit)

    return te.compute(state.shape, step, name="log_step")
