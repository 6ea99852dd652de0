"""Instructions of the data mover: any permutation, slice or concatenation is a copy between two strided operands."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div
from tvm_ergo.target.isa.fields import I32, Tensor
from tvm_ergo.target.isa.operand import DType


@instruction(0x20, Engine.DMA)
class Copy(Instruction):
    """``out = src``, element by element: equal shapes and element types, any strides on both sides."""

    src = Tensor("*", tuple(DType), "source; stride 0 repeats")
    out = Tensor("*", tuple(DType), "destination", out=True)

    def check_rules(self, dims):
        self.require(self.src.shape == self.out.shape, "source and destination have different shapes", self.src.shape, self.out.shape)
        self.require(self.src.dtype == self.out.dtype, "source and destination have different element types", self.src.dtype.name,
                     self.out.dtype.name)

    def execute(self, memory) -> None:
        memory.view(self.out)[...] = memory.view(self.src)

    def cost(self, chip) -> Cost:
        """Runs that are contiguous on both sides move bytes_per_cycle at a time; each run starts a new cycle. A repeated
        source is read each time."""
        return _move(chip.dma, self.out.size_bytes, min(self.src.inner_run_bytes, self.out.inner_run_bytes), reads=True)


@instruction(0x21, Engine.DMA)
class Fill(Instruction):
    """Every element of ``out`` becomes ``value``."""

    out = Tensor("*", tuple(DType), "destination", out=True)
    value = I32("the element's value, in out's range")

    def check_rules(self, dims):
        limits = np.iinfo(self.out.dtype.numpy)
        self.require(limits.min <= self.value <= limits.max, "the value does not fit the element type", f"{limits.min}..{limits.max}",
                     self.value)

    def execute(self, memory) -> None:
        memory.view(self.out)[...] = self.value

    def cost(self, chip) -> Cost:
        """As COPY, without reading."""
        return _move(chip.dma, self.out.size_bytes, self.out.inner_run_bytes, reads=False)


def _move(dma, size_bytes: int, run_bytes: int, reads: bool) -> Cost:
    cycles = dma.issue_cycles + size_bytes // run_bytes * ceil_div(run_bytes, dma.bytes_per_cycle)
    events = {Event.SRAM_READ_BYTE: size_bytes} if reads else {}
    return Cost(cycles, {**events, Event.SRAM_WRITE_BYTE: size_bytes, Event.INSTRUCTION: 1})
