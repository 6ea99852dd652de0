"""Elementwise instructions of the vector engine: arithmetic with rescaling, maximum and minimum, tables."""

from __future__ import annotations

from enum import IntEnum

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div, engine_cost
from tvm_ergo.target.isa.fields import I8, Choice, Int, Tensor
from tvm_ergo.target.isa.geometry import broadcast_to
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import HI, I8_ONLY, LO, MULT, OUT_ZP, SHIFT

BYTES = (DType.I8, DType.U8)
SIGNED_MULT = Int("i32", -(2**21) + 1, 2**21 - 1, "signed input multiplier")


class MaxMinKind(IntEnum):
    MAX = 0
    MIN = 1


@instruction(0x10, Engine.VECTOR)
class Add(Instruction):
    """``clip(out_zp + ((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift rounded half up)``; a and b broadcast to out's
    shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    a_mult, b_mult, shift = SIGNED_MULT, SIGNED_MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
    CODED = {"a": "a_zp", "b": "b_zp", "out": "out_zp"}
    IN_PLACE = ("a", "b")
    OUTPUT_TABLE = True

    def check_rules(self, dims):
        self.check_clip()
        _check_broadcast(self)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.add(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("a_zp", "b_zp", "a_mult", "b_mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass. Per element: two zero points, two input multiplications, sum, rounding and output zero point, two
        clips. A broadcast operand is read once."""
        n = self.out.elements
        events = {Event.ALU_8: 4 * n, Event.RESCALE_9X22: 2 * n, Event.ACC_ADD_32: 3 * n}
        return _elementwise_cost(chip.vector, self, events)


@instruction(0x11, Engine.VECTOR)
class Mul(Instruction):
    """``requantize((a-a_zp)*(b-b_zp))``; a and b broadcast to out's shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    a_zp = I8("zero point of a")
    b_zp = I8("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI
    CODED = {"a": "a_zp", "b": "b_zp", "out": "out_zp"}
    IN_PLACE = ("a", "b")
    OUTPUT_TABLE = True

    def check_rules(self, dims):
        self.check_clip()
        _check_broadcast(self)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.mul(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("a_zp", "b_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass. Per element: two zero points, one product, one requantization. A broadcast operand is read once."""
        n = self.out.elements
        return _elementwise_cost(chip.vector, self, {Event.ALU_8: 2 * n, Event.MUL_8X8: n, Event.REQUANT: n})


@instruction(0x12, Engine.VECTOR)
class MaxMin(Instruction):
    """Elementwise maximum or minimum of two tensors with the same quantization; a and b broadcast to out's shape."""

    a = Tensor("*", I8_ONLY, "left")
    b = Tensor("*", I8_ONLY, "right")
    out = Tensor("*", I8_ONLY, "output", out=True)
    kind = Choice(MaxMinKind, "which of the two")
    IN_PLACE = ("a", "b")

    def check_rules(self, dims):
        _check_broadcast(self)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernel = {MaxMinKind.MAX: kernels.maximum, MaxMinKind.MIN: kernels.minimum}[self.kind]
        kernel(memory.view(self.a), memory.view(self.b), out=memory.view(self.out))

    def cost(self, chip) -> Cost:
        """One pass, one comparison per element. A broadcast operand is read once."""
        return _elementwise_cost(chip.vector, self, {Event.ALU_8: self.out.elements})


@instruction(0x13, Engine.VECTOR)
class Table(Instruction):
    """``out = lut[(c,) x + 128]`` for int8 x, ``lut[(c,) x]`` for uint8 x: any 8-bit activation or requantization."""

    x = Tensor("*", BYTES, "input, [..., C]")
    lut = Tensor("*", BYTES, "[256], or [C, 256] one table per channel")
    out = Tensor("*", BYTES, "output, the lut's element type", out=True)
    IN_PLACE = ("x",)

    def check_rules(self, dims):
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(
            self.lut.dtype == self.out.dtype,
            "the output has the wrong element type",
            self.lut.dtype.name,
            self.out.dtype.name,
        )
        self.require(
            self.lut.shape in ((256,), (self.x.shape[-1], 256)),
            "the lut has the wrong shape",
            f"[256] or [{self.x.shape[-1]}, 256]",
            self.lut.shape,
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.table(memory.view(self.x), memory.view(self.lut), out=memory.view(self.out))

    def cost(self, chip) -> Cost:
        """One look-up per element on the table lanes. The tables are first loaded next to the lanes, once: with one
        table per channel the engine goes channel by channel."""
        engine, n = chip.vector, self.out.elements
        events = {Event.LUT_READ: n, Event.LOCAL_WRITE_BYTE: self.lut.size_bytes}
        return engine_cost(
            engine, ceil_div(n, engine.table_lanes), self.x.distinct_bytes + self.lut.size_bytes, n, events
        )


def _check_broadcast(ins) -> None:
    for name in ("a", "b"):
        shape = getattr(ins, name).shape
        ins.require(
            broadcast_to(shape, ins.out.shape), f"{name} does not broadcast to the output's shape", ins.out.shape, shape
        )


def _elementwise_cost(engine, ins, events: dict[Event, int]) -> Cost:
    """One pass over the output on all lanes."""
    n = ins.out.elements
    return engine_cost(engine, ceil_div(n, engine.lanes), ins.a.distinct_bytes + ins.b.distinct_bytes, n, events)
