"""Instructions of the vector engine that gather: pooling, reductions, softmax, resize."""

from __future__ import annotations

import math
from enum import IntEnum

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div, engine_cost
from tvm_ergo.target.isa.fields import I8, U8, Choice, Flag, Int, Ints, Tensor
from tvm_ergo.target.isa.geometry import every_window_meets_input, window_shape
from tvm_ergo.target.isa.operand import MAX_RANK
from tvm_ergo.target.isa.tensor import EXTENT, HI, I8_ONLY, I32_ONLY, LO, MULT, OUT_ZP, SHIFT, STEP


class PoolKind(IntEnum):
    MAX = 0
    AVG = 1


class ReduceKind(IntEnum):
    SUM = 0
    MAX = 1
    MIN = 2


@instruction(0x14, Engine.VECTOR)
class Pool(Instruction):
    """Max pooling (padding never wins) or average pooling: ``out_zp + rounding_divide(sum(x-in_zp)*mult,
    count<<shift)``.

    For MAX the quantization fields mean nothing: dilation applies to MAX only.
    """

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)
    kind = Choice(PoolKind, "which pooling")
    pool = Ints(STEP, 2, "window rows, columns")
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns; 1,1 for AVG")
    count_include_pad = Flag("AVG: divide by the whole window also at the border")
    in_zp = I8("AVG: input zero point; MAX: only of a compressed x")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    CODED = {"x": "in_zp", "out": "out_zp"}
    OUTPUT_TABLE = True

    def check_rules(self, dims):
        self.check_clip()
        self.require(
            self.kind != PoolKind.AVG or self.dilation == (1, 1),
            "average pooling has no dilation",
            (1, 1),
            self.dilation,
        )
        expected = window_shape(self.x.shape[1:3], self.pool, self.strides, self.padding, self.dilation)
        self.require(
            self.out.shape[1:3] == expected and min(expected) > 0,
            "the output has the wrong size",
            expected,
            self.out.shape[1:3],
        )
        for axis in (0, 1):  # an empty window has no maximum and no count to divide by
            self.require(
                every_window_meets_input(
                    self.x.shape[1 + axis],
                    self.pool[axis],
                    self.strides[axis],
                    self.padding[axis],
                    self.dilation[axis],
                    expected[axis],
                ),
                "a window lies in the padding entirely",
                available=f"pool {self.pool}, padding {self.padding}",
            )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        x, out, window = memory.view(self.x), memory.view(self.out), self.values("pool", "strides", "padding")
        if self.kind == PoolKind.MAX:
            kernels.max_pool2d(x, dilation=self.dilation, out=out, **window)
        else:
            kernels.avg_pool2d(
                x, out=out, **window, **self.values("count_include_pad", "in_zp", "mult", "shift", "out_zp", "lo", "hi")
            )

    def cost(self, chip) -> Cost:
        """One pass per window tap; AVG then multiplies and divides once per output on the divide lanes. Traffic:
        columns of a window are shared in registers, rows are not: every input row is read once for each window row that
        meets it."""
        engine, n, taps = chip.vector, self.out.elements, math.prod(self.pool)
        cycles, events = ceil_div(n, engine.lanes) * taps, {Event.ALU_8: n * taps}
        if self.kind == PoolKind.AVG:
            cycles += ceil_div(n, engine.divide_lanes)
            events = {Event.ACC_ADD_32: n * taps, Event.REQUANT: n, Event.DIVIDE: n}
        read = min(n * taps, self.x.distinct_bytes * self.read_again(chip))
        return engine_cost(engine, cycles, read, n, events)

    def read_again(self, chip) -> int:
        return ceil_div(self.pool[0], self.strides[0])


@instruction(0x15, Engine.VECTOR)
class Reduce(Instruction):
    """Sum (requantized; a mean has 1/count in mult), maximum or minimum over axes."""

    x = Tensor("*", I8_ONLY, "input")
    out = Tensor("*", I8_ONLY, "output", out=True)
    kind = Choice(ReduceKind, "which reduction")
    axes = Ints(Int("u8", 0, MAX_RANK - 1), None, "reduced axes, ascending", MAX_RANK)
    keepdims = Flag("reduced axes stay with length 1")
    in_zp = I8("SUM: input zero point")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        rank = self.x.rank
        self.require(
            list(self.axes) == sorted(set(self.axes)) and all(a < rank for a in self.axes),
            "wrong axes",
            f"ascending, different, below {rank}",
            self.axes,
        )
        kept = tuple(
            1 if axis in self.axes else d
            for axis, d in enumerate(self.x.shape)
            if self.keepdims or axis not in self.axes
        ) or (1,)
        self.require(self.out.shape == kept, "the output has the wrong shape", kept, self.out.shape)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        # keepdims: a full reduction without them would have rank 0, which no operand has
        x, out = memory.view(self.x), memory.view(self.out)
        if self.kind == ReduceKind.SUM:
            result = kernels.reduce_sum(
                x, axes=self.axes, keepdims=True, **self.values("in_zp", "mult", "shift", "out_zp", "lo", "hi")
            )
        else:
            kernel = {ReduceKind.MAX: kernels.reduce_max, ReduceKind.MIN: kernels.reduce_min}[self.kind]
            result = kernel(x, axes=self.axes, keepdims=True)
        out[...] = result.reshape(out.shape)

    def cost(self, chip) -> Cost:
        """One pass over the input; each byte is read once. SUM requantizes each output."""
        engine, elements, n = chip.vector, self.x.elements, self.out.elements
        add = self.kind == ReduceKind.SUM
        events = {Event.ACC_ADD_32: elements, Event.REQUANT: n} if add else {Event.ALU_8: elements}
        cycles = ceil_div(elements, engine.lanes) + ceil_div(n, engine.lanes)
        return engine_cost(engine, cycles, self.x.distinct_bytes, n, events)


@instruction(0x16, Engine.VECTOR)
class Softmax(Instruction):
    """Softmax over the last axis: ``e = lut[max-x]``, ``out_zp + rounding_divide(e*mult, sum(e)<<shift)``."""

    x = Tensor("*", I8_ONLY, "input, [..., K]")
    lut = Tensor("256", I32_ONLY, "exponentials, non-negative, < 2**23")
    out = Tensor("*", I8_ONLY, "output, x's shape", out=True)
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(
            self.x.shape[-1] < 2**14,
            "the last axis is too long: products must fit 64 bits",
            "below 2**14",
            self.x.shape[-1],
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.softmax(
            memory.view(self.x),
            memory.view(self.lut),
            out=memory.view(self.out),
            **self.values("mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """Three passes that each read x: maximum; look-up and sum; look-up again, multiply, divide. The table is loaded
        once."""
        engine, n = chip.vector, self.out.elements
        cycles = ceil_div(n, engine.lanes) + 2 * ceil_div(n, engine.table_lanes) + ceil_div(n, engine.divide_lanes)
        events = {
            Event.ALU_8: 3 * n,
            Event.LUT_READ: 2 * n,
            Event.ACC_ADD_32: n,
            Event.REQUANT: n,
            Event.DIVIDE: n,
            Event.LOCAL_WRITE_BYTE: self.lut.size_bytes,
        }
        return engine_cost(engine, cycles, 3 * self.x.distinct_bytes + self.lut.size_bytes, n, events)


@instruction(0x17, Engine.VECTOR)
class Resize(Instruction):
    """Separable resize: per output row and column (low index, high index, weight of high in 0..2048), rounded ``>>
    22``."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    rows = Tensor("OH 3", I32_ONLY, "row taps")
    cols = Tensor("OW 3", I32_ONLY, "column taps")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        rows, cols = memory.view(self.rows), memory.view(self.cols)
        for taps, size, name in ((rows, self.x.shape[1], "rows"), (cols, self.x.shape[2], "cols")):
            if taps.min() < 0 or taps[:, :2].max() >= size or taps[:, 2].max() > 2048:
                raise MachineError(
                    f"RESIZE got {name} outside its input",
                    where=self.to_text(),
                    required=f"indices 0..{size - 1}, weights 0..2048",
                )
        kernels.resize2d(memory.view(self.x), rows, cols, out=memory.view(self.out), **self.scaling())

    def scaling(self) -> dict[str, int]:
        """What the sums are multiplied by and shifted to; nothing here."""
        return {}

    def cost(self, chip) -> Cost:
        """Four products and additions per output, four passes, four bytes read, nearest or not: the weights are
        data."""
        engine, n = chip.vector, self.out.elements
        events = {Event.RESCALE_9X22: 4 * n, Event.ACC_ADD_32: 4 * n}
        return engine_cost(
            engine, 4 * ceil_div(n, engine.lanes), 4 * n + self.rows.size_bytes + self.cols.size_bytes, n, events
        )


@instruction(0x2C, Engine.VECTOR, "RESIZE_SCALED")
class ResizeScaled(Resize):
    """RESIZE into another quantization, rounded once: ``clip(out_zp + floor(acc * mult / 2**(22 + shift) + 1/2))``,
    acc the weighted sum of ``x - in_zp``."""

    x = Tensor("N H W C", I8_ONLY, "input, NHWC")
    rows = Tensor("OH 3", I32_ONLY, "row taps")
    cols = Tensor("OW 3", I32_ONLY, "column taps")
    out = Tensor("N OH OW C", I8_ONLY, "output, NHWC", out=True)
    in_zp = I8("zero point of x")
    mult = MULT
    shift = U8("right shift behind the one by 22", 0, 40)
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()

    def scaling(self) -> dict[str, int]:
        return {"scaled": True, **self.values("in_zp", "mult", "shift", "out_zp", "lo", "hi")}

    def cost(self, chip) -> Cost:
        """As RESIZE, with one more pass: the multiplication and rounding of each output."""
        plain, engine, n = super().cost(chip), chip.vector, self.out.elements
        events = {**plain.events, Event.REQUANT: n}
        return Cost(plain.cycles + ceil_div(n, engine.lanes), events)
