"""Instructions of the vector engine on 16-bit elements: what a residual stream needs where 8 bits are too few.

A 16-bit element takes the place of two 8-bit ones: half as many elements a cycle, and each 9 x 22 bit product twice.
"""

from __future__ import annotations

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div, engine_cost
from tvm_ergo.target.isa.elementwise import SIGNED_MULT
from tvm_ergo.target.isa.fields import I8, Tensor
from tvm_ergo.target.isa.geometry import broadcast_to
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import HI, LO, MULT, OUT_ZP, SHIFT

ELEMENTS, WIDE_ONLY = (DType.I8, DType.I16), (DType.I16,)


def halves(*operands) -> int:
    """2 where one of them is 16 bits wide: an element then takes two lanes."""
    return max(operand.dtype.itemsize for operand in operands)


@instruction(0x1A, Engine.VECTOR, "ADD_WIDE")
class AddWide(Instruction):
    """``sat16(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift rounded half up)``; a and b broadcast to out's shape."""

    a = Tensor("*", ELEMENTS, "left")
    b = Tensor("*", ELEMENTS, "right")
    out = Tensor("*", WIDE_ONLY, "output, zero point 0", out=True)
    a_zp = I8("zero point of a; 0 where it is int16")
    b_zp = I8("zero point of b; 0 where it is int16")
    a_mult, b_mult, shift = SIGNED_MULT, SIGNED_MULT, SHIFT
    IN_PLACE = ("a", "b")

    def check_rules(self, dims):
        for name in ("a", "b"):
            operand = getattr(self, name)
            self.require(
                broadcast_to(operand.shape, self.out.shape),
                f"{name} does not broadcast to the output's shape",
                self.out.shape,
                operand.shape,
            )
            self.require(
                operand.dtype == DType.I8 or getattr(self, f"{name}_zp") == 0,
                f"{name} is int16 and has a zero point",
                0,
            )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.add_wide(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("a_zp", "b_zp", "a_mult", "b_mult", "shift"),
        )

    def cost(self, chip) -> Cost:
        """One pass at half the lanes. Per element: the input multiplications in halves, their sums, rounding and clip
        in 32 bits. A broadcast operand is read once."""
        engine, n = chip.vector, self.out.elements
        parts = self.a.dtype.itemsize + self.b.dtype.itemsize
        events = {Event.RESCALE_9X22: parts * n, Event.ACC_ADD_32: (parts + 1) * n, Event.ALU_8: 4 * n}
        return engine_cost(
            engine, ceil_div(2 * n, engine.lanes), self.a.distinct_bytes + self.b.distinct_bytes, 2 * n, events
        )


@instruction(0x1B, Engine.VECTOR, "RESCALE")
class Rescale(Instruction):
    """``clip(out_zp + (x - in_zp) * mult / 2**shift rounded half up)``: from 8 to 16 bits or back. Of an int16 output
    the bounds are those of its type, and out_zp, lo and hi are not used."""

    x = Tensor("*", ELEMENTS, "input")
    out = Tensor("*", ELEMENTS, "output, x's shape", out=True)
    in_zp = I8("zero point of x; 0 where it is int16")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
    IN_PLACE = ("x",)

    def check_rules(self, dims):
        self.check_clip()
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(self.x.dtype == DType.I8 or self.in_zp == 0, "x is int16 and has a zero point", 0)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.rescale(
            memory.view(self.x),
            out=memory.view(self.out),
            **self.values("in_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass, at half the lanes where a side is int16; one requantization per element."""
        engine, n, half = chip.vector, self.out.elements, halves(self.x, self.out)
        events = {Event.ALU_8: half * n, Event.REQUANT: n}
        return engine_cost(engine, ceil_div(half * n, engine.lanes), self.x.distinct_bytes, self.out.size_bytes, events)
