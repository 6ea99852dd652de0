"""Instructions on 16-bit activations with zero points of their own: convolutions with 8-bit weights, sums, products,
requantization, tables.

A 16-bit operand takes the place of two 8-bit ones: half as many elements a cycle, and each product twice. Zero points
and clip bounds are 16 bits wide; of an int8 tensor they lie in its range."""

from __future__ import annotations

import math

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import (
    Cost,
    Event,
    MatrixWork,
    ceil_div,
    engine_cost,
    plus,
    requantizations,
    weight_reading,
)
from tvm_ergo.target.isa.elementwise import SIGNED_MULT, _check_broadcast
from tvm_ergo.target.isa.fields import I8, U16, Int, Ints, Tensor
from tvm_ergo.target.isa.geometry import window_shape
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import EXTENT, I8_ONLY, I32_ONLY, MULT, PARAMETER_BYTES, SHIFT, STEP, _PerChannel
from tvm_ergo.target.isa.wide import ELEMENTS, halves

LIMITS = {DType.I8: (-128, 127), DType.I16: (-32768, 32767)}
MAX_TABLE_BITS = 16
SUM_LIMIT = 2**38
"""Sums of CONV_16 stay below: 24 bits of multiplier more are 62."""


def I16(doc):
    return Int("i16", -32768, 32767, doc)


ZP, LO, HI = I16("output zero point"), I16("lower clip bound"), I16("upper clip bound, >= lo")


def largest_sum(weights_shape, dtype: DType, in_zp: int, w_zp: int) -> int:
    """No sum of a window of weights OHWI is larger in magnitude, the bias of 32 bits included."""
    (low, high), products = LIMITS[dtype], math.prod(weights_shape[1:])
    return products * max(high - in_zp, in_zp - low) * max(127 - w_zp, w_zp + 128) + 2**31


def _check_ends(ins) -> None:
    """The clip bounds are in order and lie in the output's type, as the zero points do in theirs."""
    low, high = LIMITS[ins.out.dtype]
    ins.require(
        low <= ins.lo <= ins.hi <= high,
        "the clip bounds are no interval of the output's type",
        f"{low} <= lo <= hi <= {high}",
        f"lo={ins.lo}, hi={ins.hi}",
    )
    for name, operand in (("a_zp", "a"), ("b_zp", "b"), ("in_zp", "x"), ("out_zp", "out")):
        if name in ins.FIELDS:
            low, high = LIMITS[getattr(ins, operand).dtype]
            ins.require(
                low <= getattr(ins, name) <= high,
                f"{name} is no value of {operand}'s type",
                f"{low}..{high}",
                getattr(ins, name),
            )


@instruction(0x06, Engine.TENSOR, "CONV_16")
class Conv16(_PerChannel):
    """Convolution of 8-bit or 16-bit activations with 8-bit weights into 8 or 16 bits: ``acc = bias + sum (x - in_zp) *
    (w - w_zp)`` exact in 40 bits, then ``clip(out_zp + acc * mult / 2**shift rounded half up, lo, hi)`` per channel;
    padded taps contribute 0.

    groups = C: depthwise; 1x1: dense layers. Windows whose sums could reach 2**38 are refused: without zero points
    those of 65,024 products."""

    x = Tensor("N H W C", ELEMENTS, "input, NHWC")
    w = Tensor("O KH KW CG", I8_ONLY, "weights, OHWI; CG = C / groups")
    bias = Tensor("O", I32_ONLY, "bias at scale s_in * s_w[o]")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW O", ELEMENTS, "output, NHWC", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    groups = U16("channel groups", 1)
    in_zp = I16("input zero point")
    w_zp = I8("weight zero point")
    out_zp, lo, hi = ZP, LO, HI

    def check_rules(self, dims):
        _check_ends(self)
        self.require(
            dims["C"] == dims["CG"] * self.groups and dims["O"] % self.groups == 0,
            "groups do not divide the channels",
            f"C = {self.groups} x {dims['CG']}, O divisible by {self.groups}",
            f"C={dims['C']}, O={dims['O']}",
        )
        reach = largest_sum(self.w.shape, self.x.dtype, self.in_zp, self.w_zp)
        self.require(reach < SUM_LIMIT, "the sums may exceed their 40 bits", f"below {SUM_LIMIT}", reach)
        self.check_output(window_shape(self.x.shape[1:3], self.w.shape[1:3], self.strides, self.padding, self.dilation))

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine.kernels import PreparedConv16

        self.run(memory, PreparedConv16, "groups")

    def cost(self, chip) -> Cost:
        """As CONV (DEPTHWISE where groups = C), each half of a 16-bit input an input of its own: twice the products,
        sums, steps and input bytes; weights are read once, and are held for both halves."""
        if self.groups == self.x.shape[3] == self.w.shape[0] and self.groups > 1:
            return self._depthwise_cost(chip.tensor)
        return self._work(chip.tensor).cost(chip.tensor, PARAMETER_BYTES * self.w.shape[0], self.w, self.out)

    def read_again(self, chip) -> int:
        work = self._work(chip.tensor)
        return ceil_div(work.traffic(chip.tensor)[0], work.input_bytes * work.repeat)

    def _work(self, array) -> MatrixWork:
        (o, kh, kw, cg), (n, h, w, _), parts = self.w.shape, self.x.shape, self.x.dtype.itemsize
        steps = kh * (
            ceil_div(kw * cg, array.input_lanes) if self.dilation[1] == 1 else kw * ceil_div(cg, array.input_lanes)
        )
        shared_rows = max(0, (kh - 1) * self.dilation[0] + 1 - self.strides[0])
        return MatrixWork(
            pixels=n * self.out.shape[1] * self.out.shape[2],
            channels=o // self.groups,
            depth=parts * kh * kw * cg,
            steps=parts * steps,
            input_bytes=parts * n * h * w * cg,
            weight_bytes=o // self.groups * kh * kw * cg,
            halo_bytes=parts * shared_rows * w * cg,
            repeat=self.groups,
        )

    def _depthwise_cost(self, array) -> Cost:
        (c, kh, kw, _), pixels, parts = self.w.shape, math.prod(self.out.shape[:3]), self.x.dtype.itemsize
        groups = ceil_div(pixels, array.pixel_lanes)
        cycles = parts * ceil_div(c, array.output_lanes) * groups * ceil_div(kh * kw, array.depthwise_taps)
        rows = parts * ((kh - 1) * self.dilation[0] + 1) * self.x.shape[2] * min(c, array.output_lanes)
        inputs = self.x.distinct_bytes * (1 if rows <= array.input_buffer_bytes else ceil_div(kh, self.strides[0]))
        macs = parts * pixels * c * kh * kw
        events = {
            Event.MAC_8X8: macs,
            Event.ACC_ADD_32: macs,
            Event.REQUANT: requantizations(self.out),
            Event.LOCAL_READ_BYTE: macs + parts * c * kh * kw * groups,
            Event.LOCAL_WRITE_BYTE: inputs + self.w.elements,
        }
        read, decode_cycles, decode_events = weight_reading(array, self.w, self.w.elements)
        return engine_cost(
            array,
            max(cycles, decode_cycles),
            inputs + read + PARAMETER_BYTES * c,
            self.out.size_bytes,
            plus(events, decode_events),
        )


@instruction(0x28, Engine.VECTOR, "ADD_16")
class Add16(Instruction):
    """``clip(out_zp + ((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift rounded half up, lo, hi)`` of 8-bit or 16-bit a
    and b, which broadcast to out's shape. A negative multiplier subtracts."""

    a = Tensor("*", ELEMENTS, "left")
    b = Tensor("*", ELEMENTS, "right")
    out = Tensor("*", ELEMENTS, "output", out=True)
    a_zp, b_zp = I16("zero point of a"), I16("zero point of b")
    a_mult, b_mult, shift = SIGNED_MULT, SIGNED_MULT, SHIFT
    out_zp, lo, hi = ZP, LO, HI
    IN_PLACE = ("a", "b")

    def check_rules(self, dims):
        _check_ends(self)
        _check_broadcast(self)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.add_16(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("a_zp", "b_zp", "a_mult", "b_mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass, at half the lanes where a tensor is 16 bits wide. Per element: the input multiplications in halves,
        their sums, rounding and clip in 32 bits. A broadcast operand is read once."""
        n, parts = self.out.elements, self.a.dtype.itemsize + self.b.dtype.itemsize
        events = {Event.RESCALE_9X22: parts * n, Event.ACC_ADD_32: (parts + 1) * n, Event.ALU_8: 4 * n}
        return _pass(chip.vector, self, (self.a, self.b), events)


@instruction(0x29, Engine.VECTOR, "MUL_16")
class Mul16(Instruction):
    """``clip(out_zp + (a-a_zp)*(b-b_zp)*mult / 2**shift rounded half up, lo, hi)`` of 8-bit or 16-bit a and b, which
    broadcast to out's shape."""

    a = Tensor("*", ELEMENTS, "left")
    b = Tensor("*", ELEMENTS, "right")
    out = Tensor("*", ELEMENTS, "output", out=True)
    a_zp, b_zp = I16("zero point of a"), I16("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = ZP, LO, HI
    IN_PLACE = ("a", "b")

    def check_rules(self, dims):
        _check_ends(self)
        _check_broadcast(self)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.mul_16(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("a_zp", "b_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass, at half the lanes where a tensor is 16 bits wide. Per element: the product in parts of 8 bits, and
        one requantization."""
        n, parts = self.out.elements, self.a.dtype.itemsize * self.b.dtype.itemsize
        return _pass(chip.vector, self, (self.a, self.b), {Event.MAC_8X8: parts * n, Event.REQUANT: n})


@instruction(0x2A, Engine.VECTOR, "RESCALE_16")
class Rescale16(Instruction):
    """``clip(out_zp + (x - in_zp) * mult / 2**shift rounded half up, lo, hi)``: into another quantization, 8 or 16
    bits; a clamp."""

    x = Tensor("*", ELEMENTS, "input")
    out = Tensor("*", ELEMENTS, "output, x's shape", out=True)
    in_zp = I16("zero point of x")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = ZP, LO, HI
    IN_PLACE = ("x",)

    def check_rules(self, dims):
        _check_ends(self)
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.rescale_16(
            memory.view(self.x),
            out=memory.view(self.out),
            **self.values("in_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass, at half the lanes where a side is 16 bits wide; one requantization per element."""
        n = self.out.elements
        return _pass(chip.vector, self, (self.x,), {Event.ALU_8: halves(self.x, self.out) * n, Event.REQUANT: n})


@instruction(0x2B, Engine.VECTOR, "TABLE_16")
class Table16(Instruction):
    """A function of 16-bit x, straight between the entries of its table: ``u = x + 32768``, ``i = u >> step``,
    ``out = lut[i] + ((lut[i+1] - lut[i]) * (u - (i << step)) / 2**step rounded half up)``; 16 - step bits of u choose
    the entry, and step 0 is one entry a value."""

    x = Tensor("*", (DType.I16,), "input")
    lut = Tensor("L", (DType.I16,), "2**(16 - step) + 1 values")
    out = Tensor("*", ELEMENTS, "output, x's shape; int8: entries are values of int8", out=True)
    step = Int("u8", 0, MAX_TABLE_BITS - 1, "bits of x between two entries")
    IN_PLACE = ("x",)

    def check_rules(self, dims):
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        entries = (1 << (16 - self.step)) + 1
        self.require(dims["L"] == entries, "the lut has the wrong length", entries, dims["L"])

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.table_16(memory.view(self.x), memory.view(self.lut), out=memory.view(self.out), step=self.step)

    def cost(self, chip) -> Cost:
        """Two look-ups per element on the table lanes, a product of 16 bits in halves and a sum. The table is loaded
        next to the lanes, once."""
        engine, n = chip.vector, self.out.elements
        events = {
            Event.LUT_READ: 2 * n,
            Event.RESCALE_9X22: 2 * n,
            Event.ACC_ADD_32: 2 * n,
            Event.LOCAL_WRITE_BYTE: self.lut.size_bytes,
        }
        return engine_cost(
            engine,
            2 * ceil_div(n, engine.table_lanes),
            self.x.distinct_bytes + self.lut.size_bytes,
            self.out.size_bytes,
            events,
        )


def _pass(engine, ins, inputs, events: dict[Event, int]) -> Cost:
    """One pass over the output, each 16-bit element on two lanes."""
    lanes = halves(ins.out, *inputs) * ins.out.elements
    read = sum(operand.distinct_bytes for operand in inputs)
    return engine_cost(engine, ceil_div(lanes, engine.lanes), read, ins.out.size_bytes, events)
