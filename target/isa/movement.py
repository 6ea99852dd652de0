"""Instructions of the data mover: any permutation, slice or concatenation is a copy between two strided operands."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div
from tvm_ergo.target.isa.fields import I32, U16, U32, Ints, Tensor
from tvm_ergo.target.isa.operand import DType, Operand


@instruction(0x20, Engine.DMA)
class Copy(Instruction):
    """``out = src``, element by element: equal shapes and element types, any strides on both sides."""

    src = Tensor("*", tuple(DType), "source; stride 0 repeats")
    out = Tensor("*", tuple(DType), "destination", out=True)

    def check_rules(self, dims):
        self.require(
            self.src.shape == self.out.shape,
            "source and destination have different shapes",
            self.src.shape,
            self.out.shape,
        )
        self.require(
            self.src.dtype == self.out.dtype,
            "source and destination have different element types",
            self.src.dtype.name,
            self.out.dtype.name,
        )

    def execute(self, memory) -> None:
        memory.view(self.out)[...] = memory.view(self.src)

    def cost(self, chip) -> Cost:
        """Runs that are contiguous on both sides move bytes_per_cycle at a time; each run starts a new cycle. A
        repeated source is read each time."""
        return _move(chip.dma, self.out.size_bytes, min(self.src.inner_run_bytes, self.out.inner_run_bytes), reads=True)


@instruction(0x21, Engine.DMA)
class Fill(Instruction):
    """Every element of ``out`` becomes ``value``."""

    out = Tensor("*", tuple(DType), "destination", out=True)
    value = I32("the element's value, in out's range")

    def check_rules(self, dims):
        limits = np.iinfo(self.out.dtype.numpy)
        self.require(
            limits.min <= self.value <= limits.max,
            "the value does not fit the element type",
            f"{limits.min}..{limits.max}",
            self.value,
        )

    def execute(self, memory) -> None:
        memory.view(self.out)[...] = self.value

    def cost(self, chip) -> Cost:
        """As COPY, without reading."""
        return _move(chip.dma, self.out.size_bytes, self.out.inner_run_bytes, reads=False)


@instruction(0x24, Engine.DMA)
class Receive(Instruction):
    """The next elements of a streamed input port (a camera's rows) are written to ``out``; the frame is never in the
    memory as a whole.

    Element ``i`` of out is the one at byte ``offset + sum(i * steps)`` of the port's dense row-major array. A sender
    does not repeat itself: every byte is received at most once, in order of ``offset``; bytes that are skipped are
    lost."""

    port = U16("number of the input port")
    offset = U32("byte of the port's array that holds out's first element")
    steps = Ints(U32("bytes of the port's array from one index to the next"), 6, "per axis of out, then zeros")
    out = Tensor("*", tuple(DType), "destination", out=True)

    def check_rules(self, dims):
        self.require(not any(self.steps[self.out.rank :]), "steps of axes that out does not have", "0", self.steps)

    @property
    def source(self) -> Operand:
        """Where out's elements lie in the port's array."""
        return Operand(self.offset, self.out.dtype, self.out.shape, self.steps[: self.out.rank])

    def execute(self, memory) -> None:
        memory.view(self.out)[...] = memory.received(self.port, self.source)

    def cost(self, chip) -> Cost:
        """As FILL: the sender's interface is not the chip's memory. How long the sender takes is not counted."""
        return _move(chip.dma, self.out.size_bytes, self.out.inner_run_bytes, reads=False)


def _move(dma, size_bytes: int, run_bytes: int, reads: bool) -> Cost:
    cycles = dma.issue_cycles + size_bytes // run_bytes * ceil_div(run_bytes, dma.bytes_per_cycle)
    events = {Event.SRAM_READ_BYTE: size_bytes} if reads else {}
    return Cost(cycles, {**events, Event.SRAM_WRITE_BYTE: size_bytes, Event.INSTRUCTION: 1})
