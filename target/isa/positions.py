"""Instructions of the data mover on rows of a larger tensor: at a row that is known at run time only, what a network
that writes token by token needs of its caches of keys and values, and of tables by position; and in at the end, what a
network over a moving window needs of the rows that it keeps."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, plus
from tvm_ergo.target.isa.fields import U16, Tensor
from tvm_ergo.target.isa.movement import _move
from tvm_ergo.target.isa.operand import DType, Operand
from tvm_ergo.target.isa.tensor import I32_ONLY

POSITION_BYTES = 4


def first_row(position: np.ndarray, whole: int, rows: int) -> int:
    """The row a position means: so many rows begin there and end inside."""
    return int(np.clip(int(position.reshape(-1)[0]), 0, whole - rows))


class _Rows(Instruction):
    """A box of rows of axis -2 of a larger tensor."""

    def check_rules(self, dims):
        large, small = (self.src, self.out) if self.src.shape[-2:-1] >= self.out.shape[-2:-1] else (self.out, self.src)
        self.require(min(large.rank, small.rank) >= 2, "the rows have no axis", "rank 2 or more", small.shape)
        fits = large.shape[:-2] == small.shape[:-2] and large.shape[-1] == small.shape[-1]
        self.require(fits, "the sides differ in more than their rows", large.shape, small.shape)
        self.require(
            self.src.dtype == self.out.dtype,
            "source and destination have different element types",
            self.src.dtype.name,
            self.out.dtype.name,
        )

    def _cost(self, chip, large: Operand, small: Operand) -> Cost:
        """As COPY of the rows that move; the position is read first."""
        box = Operand(large.addr, large.dtype, small.shape, large.strides)
        cost = _move(chip.dma, small.size_bytes, min(box.inner_run_bytes, small.inner_run_bytes), reads=True)
        return Cost(cost.cycles + 1, plus(cost.events, {Event.SRAM_READ_BYTE: POSITION_BYTES}))


@instruction(0x25, Engine.DMA, "TAKE_ROWS")
class TakeRows(_Rows):
    """``out[..., i, :] = src[..., p + i, :]``: rows from a position in the memory on, p = min(max(position, 0), rows of
    src - rows of out)."""

    src = Tensor("*", tuple(DType), "source, [..., R, C]")
    position = Tensor("1", I32_ONLY, "number of the first row")
    out = Tensor("*", tuple(DType), "destination, [..., M, C], M <= R", out=True)

    def check_rules(self, dims):
        super().check_rules(dims)
        self.require(
            self.src.shape[-2] >= self.out.shape[-2], "more rows than there are", self.src.shape, self.out.shape
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.take_rows(memory.view(self.src), memory.view(self.position), out=memory.view(self.out))

    def cost(self, chip) -> Cost:
        """As COPY of the rows that move; the position is read first."""
        return self._cost(chip, self.src, self.out)


@instruction(0x26, Engine.DMA, "PUT_ROWS")
class PutRows(_Rows):
    """``out[..., p + i, :] = src[..., i, :]``: rows to a position on, p = min(max(position, 0), rows of out - rows of
    src); the others stay as they are."""

    src = Tensor("*", tuple(DType), "source, [..., M, C]")
    position = Tensor("1", I32_ONLY, "number of the first row")
    out = Tensor("*", tuple(DType), "destination, [..., R, C], M <= R", out=True)

    def check_rules(self, dims):
        super().check_rules(dims)
        self.require(
            self.src.shape[-2] <= self.out.shape[-2], "more rows than there are", self.out.shape, self.src.shape
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        out = memory.view(self.out)
        kernels.put_rows(out, memory.view(self.src), memory.view(self.position), out=out)

    def cost(self, chip) -> Cost:
        """As COPY of the rows that move; the position is read first."""
        return self._cost(chip, self.out, self.src)


@instruction(0x27, Engine.DMA, "SHIFT_ROWS")
class ShiftRows(Instruction):
    """The rows of ``out`` along ``axis`` move to the front by as many as src has, which become the last: ``out[i] =
    out[i + n]``, then ``out[R - n + i] = src[i]``, n rows of src and R of out. Rows are moved first to last, so that
    none is written before it was read."""

    IN_PLACE = ("out",)

    src = Tensor("*", tuple(DType), "the new rows, n of them along axis")
    out = Tensor("*", tuple(DType), "R rows along axis, n <= R; read and written", out=True)
    axis = U16("the axis that counts rows")

    def check_rules(self, dims):
        self.require(self.src.rank == self.out.rank, "the sides differ in rank", self.out.rank, self.src.rank)
        self.require(self.axis < self.out.rank, "there is no such axis", f"below {self.out.rank}", self.axis)
        others = [tuple(d for a, d in enumerate(o.shape) if a != self.axis) for o in (self.src, self.out)]
        self.require(others[0] == others[1], "the sides differ in more than their rows", self.out.shape, self.src.shape)
        same = self.src.dtype == self.out.dtype
        self.require(same, "the sides have different element types", self.out.dtype.name, self.src.dtype.name)
        rows = self.out.shape[self.axis]
        self.require(self.src.shape[self.axis] <= rows, "more new rows than there are", rows, self.src.shape)

    def reads(self) -> list[Operand]:
        return [*super().reads(), self.out]

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        out = memory.view(self.out)
        kernels.shift_rows(out, memory.view(self.src), axis=self.axis, out=out)

    def cost(self, chip) -> Cost:
        """As COPY to all of out; all of out and of src is read."""
        row = Operand(
            self.out.addr,
            self.out.dtype,
            tuple(1 if a == self.axis else d for a, d in enumerate(self.out.shape)),
            self.out.strides,
        )
        cost = _move(chip.dma, self.out.size_bytes, row.inner_run_bytes, reads=True)
        return Cost(cost.cycles, plus(cost.events, {Event.SRAM_READ_BYTE: self.src.size_bytes}))
