"""Instructions of the vector engine for reductions that see their input band by band: sums that wait as int32,
requantized at the end."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target import numerics
from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div, engine_cost
from tvm_ergo.target.isa.fields import I8, Flag, Tensor
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import HI, LO, MULT, OUT_ZP, SHIFT


@instruction(0x18, Engine.VECTOR)
class Accumulate(Instruction):
    """``acc += sum(x - in_zp)`` over rows and columns, per channel; with ``first`` the sum starts from 0. Wraps around
    like any int32 addition."""

    IN_PLACE = ("acc",)

    x = Tensor("N H W C", (DType.I8,), "input, NHWC")
    acc = Tensor("N 1 1 C", (DType.I32,), "sums; read unless first", out=True)
    first = Flag("nothing was summed before")
    in_zp = I8("input zero point")

    def reads(self):
        return super().reads() + ([] if self.first else [self.acc])

    def execute(self, memory) -> None:
        x, acc = memory.view(self.x), memory.view(self.acc)
        total = x.sum(axis=(1, 2), keepdims=True, dtype=np.int64) - self.in_zp * x.shape[1] * x.shape[2]
        acc[...] = (total if self.first else acc + total).astype(np.int32)

    def cost(self, chip) -> Cost:
        """One pass over the input; the sums are read and written once."""
        engine, elements = chip.vector, self.x.elements
        sums = self.acc.size_bytes
        return engine_cost(
            engine,
            ceil_div(elements, engine.lanes),
            self.x.distinct_bytes + (0 if self.first else sums),
            sums,
            {Event.ACC_ADD_32: elements},
        )


@instruction(0x19, Engine.VECTOR)
class Requantize(Instruction):
    """int32 sums to int8: ``clip(out_zp + rounding_shift(x * mult, shift), lo, hi)``, element by element."""

    x = Tensor("*", (DType.I32,), "sums")
    out = Tensor("*", (DType.I8,), "output, x's shape", out=True)
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.require(
            self.x.shape == self.out.shape, "input and output have different shapes", self.x.shape, self.out.shape
        )

    def execute(self, memory) -> None:
        x = memory.view(self.x).astype(np.int64)
        memory.view(self.out)[...] = numerics.requantize(x, self.mult, self.shift, self.out_zp, self.lo, self.hi)

    def cost(self, chip) -> Cost:
        """One requantization each, a lane each."""
        engine, n = chip.vector, self.out.elements
        return engine_cost(engine, ceil_div(n, engine.lanes), 4 * n, n, {Event.REQUANT: n})
