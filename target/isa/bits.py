"""Instructions on tensors of signs, packed eight to a byte along the channels.

Channel c is bit ``c % 8`` of byte ``c // 8``; a set bit is +1, a cleared one -1. Surplus bits of the last byte are
ignored where they are read and cleared where they are written. To the memory such a tensor is uint8[..., ceil(C/8)]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, MatrixWork, ceil_div, engine_cost
from tvm_ergo.target.isa.fields import U32, Int, Ints, Tensor
from tvm_ergo.target.isa.geometry import every_window_meets_input, window_shape
from tvm_ergo.target.isa.operand import DType, Operand
from tvm_ergo.target.isa.tensor import EXTENT, HI, I8_ONLY, I32_ONLY, LO, OUT_ZP, STEP

U8_ONLY, I16_ONLY = (DType.U8,), (DType.I16,)
MOST_PRODUCTS = 2**15 - 1
"""Signs that one sum may have: it and its thresholds are 16 bits."""
CHANNELS = U32("input channels: bits of a pixel", 1)
PAD_VALUE = Int("i8", -1, 1, "what padded taps count: a sign, or 0: nothing")


@instruction(0x4A, Engine.VECTOR)
class Binarize(Instruction):
    """Signs of int8 values by an interval a channel: bit c is set where ``low[c] <= x <= high[c]``.

    A threshold that is passed upwards has high 127, one downwards low -128; low above high: never."""

    x = Tensor("*", I8_ONLY, "input, [..., C]")
    low = Tensor("C", I8_ONLY, "least value that gives +1")
    high = Tensor("C", I8_ONLY, "largest value that gives +1")
    out = Tensor("*", U8_ONLY, "signs, [..., ceil(C/8)]", out=True)

    def check_rules(self, dims):
        expected = (*self.x.shape[:-1], ceil_div(self.x.shape[-1], 8))
        self.require(self.x.shape[-1] == dims["C"], "a threshold for each channel", self.x.shape[-1], dims["C"])
        self.require(self.out.shape == expected, "the output has the wrong shape", expected, self.out.shape)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.binarize(memory.view(self.x), memory.view(self.low), memory.view(self.high), out=memory.view(self.out))

    def cost(self, chip) -> Cost:
        """One pass over the input, two comparisons an element; thresholds are read once."""
        engine, n = chip.vector, self.x.elements
        read = self.x.distinct_bytes + self.low.size_bytes + self.high.size_bytes
        return engine_cost(engine, ceil_div(n, engine.lanes), read, self.out.size_bytes, {Event.ALU_8: 2 * n})


@instruction(0x4B, Engine.VECTOR, "BINARY_POOL")
class BinaryPool(Instruction):
    """Max pooling of packed signs: OR of the window's bytes; padding never wins."""

    x = Tensor("N H W B", U8_ONLY, "signs, NHWC, eight channels to a byte")
    out = Tensor("N OH OW B", U8_ONLY, "signs, NHWC", out=True)
    pool = Ints(STEP, 2, "window rows, columns")
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")

    def check_rules(self, dims):
        _check_size(self, self.pool)
        for axis in (0, 1):
            self.require(
                every_window_meets_input(
                    self.x.shape[1 + axis],
                    self.pool[axis],
                    self.strides[axis],
                    self.padding[axis],
                    self.dilation[axis],
                    self.out.shape[1 + axis],
                ),
                "a window lies in the padding entirely",
                available=f"pool {self.pool}, padding {self.padding}",
            )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        fields = self.values("pool", "strides", "padding", "dilation")
        kernels.binary_max_pool2d(memory.view(self.x), out=memory.view(self.out), **fields)

    def cost(self, chip) -> Cost:
        """One pass per window tap, a byte of eight signs a lane; rows are read once for each window row that meets
        them."""
        engine, n, taps = chip.vector, self.out.elements, math.prod(self.pool)
        read = min(n * taps, self.x.distinct_bytes * self.read_again(chip))
        return engine_cost(engine, ceil_div(n, engine.lanes) * taps, read, n, {Event.ALU_8: n * taps})

    def read_again(self, chip) -> int:
        return ceil_div(self.pool[0], self.strides[0])


def _check_size(ins, kernel: tuple[int, ...]) -> None:
    expected = window_shape(ins.x.shape[1:3], kernel, ins.strides, ins.padding, ins.dilation)
    self_shape = ins.out.shape[1:3]
    ins.require(self_shape == expected and min(expected) > 0, "the output has the wrong size", expected, self_shape)


class _Products(Instruction):
    """What both convolutions of signs share."""

    if TYPE_CHECKING:  # what the classes below declare
        x: Operand
        w: Operand
        out: Operand
        channels: int
        strides: tuple[int, ...]
        dilation: tuple[int, ...]

    def check_products(self, dims) -> None:
        _check_size(self, self.w.shape[1:3])
        self.require(dims["B"] == ceil_div(self.channels, 8), "bytes of a pixel", ceil_div(self.channels, 8), dims["B"])
        products = self.channels * dims["KH"] * dims["KW"]
        self.require(products <= MOST_PRODUCTS, "a sum has too many products", f"<= {MOST_PRODUCTS}", products)

    def window(self) -> dict:
        return self.values("channels", "strides", "padding", "dilation", "pad_value")

    def work(self, chip) -> MatrixWork:
        array, (o, kh, kw, b), (n, h, w, _) = engine_of(chip), self.w.shape, self.x.shape
        word = array.input_lanes // 8
        steps = kh * (ceil_div(kw * b, word) if self.dilation[1] == 1 else kw * ceil_div(b, word))
        halo = max(0, (kh - 1) * self.dilation[0] + 1 - self.strides[0]) * w * b
        return MatrixWork(
            pixels=n * self.out.shape[1] * self.out.shape[2],
            channels=o,
            depth=kh * kw * b,
            steps=steps,
            input_bytes=n * h * w * b,
            weight_bytes=o * kh * kw * b,
            halo_bytes=halo,
        )

    def products_cost(self, chip, parameter_bytes: int, last: dict[Event, int]) -> Cost:
        array, work = engine_of(chip), self.work(chip)
        results = work.pixels * work.channels
        inputs, weights = work.traffic(array)
        reads = work.depth * (
            work.pixels * ceil_div(work.channels, array.output_lanes)
            + work.channels * ceil_div(work.pixels, array.pixel_lanes)
        )
        spilled = 4 * results * (work.weight_chunks(array) - 1)
        events = {
            Event.XNOR_POPCOUNT: results * self.channels * self.w.shape[1] * self.w.shape[2],
            Event.LOCAL_READ_BYTE: reads + spilled,
            Event.LOCAL_WRITE_BYTE: inputs + weights + spilled,
            **last,
        }
        events[Event.ACC_ADD_32] = events.get(Event.ACC_ADD_32, 0) + results * work.steps
        return engine_cost(array, work.cycles(array), inputs + weights + parameter_bytes, self.out.size_bytes, events)

    def read_again(self, chip) -> int:
        work = self.work(chip)
        return ceil_div(work.traffic(engine_of(chip))[0], work.input_bytes)


def engine_of(chip):
    """The chip's binary engine. Errors: MachineError where it has none."""
    if chip.binary is None:
        raise MachineError(
            "the chip has no engine for packed signs",
            where=chip.name,
            required="the part 'binary' in the chip file",
            remedy="compile with binary=False (--no-binary): the same network in int8",
        )
    return chip.binary


@instruction(0x48, Engine.BINARY)
class Xnor(_Products):
    """Convolution of signs with signs, thresholds for each channel, signs again: bit o is set where
    ``low[o] <= sum <= high[o]``; the sum of products is ``taps * channels - 2 * popcount(x ^ w)``.

    Batch norm and sign are the thresholds. Taps in the padding count ``pad_value``. Dense layers are 1x1."""

    x = Tensor("N H W B", U8_ONLY, "signs, NHWC, eight channels to a byte")
    w = Tensor("O KH KW B", U8_ONLY, "signs of the weights, OHWI")
    low = Tensor("O", I16_ONLY, "least sum that gives +1")
    high = Tensor("O", I16_ONLY, "largest sum that gives +1; below low: none does")
    out = Tensor("N OH OW P", U8_ONLY, "signs, NHWC; P = ceil(O/8)", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    channels = CHANNELS
    pad_value = PAD_VALUE

    def check_rules(self, dims):
        self.check_products(dims)
        self.require(dims["P"] == ceil_div(dims["O"], 8), "bytes of a pixel", ceil_div(dims["O"], 8), dims["P"])

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        operands = (memory.view(t) for t in (self.x, self.w, self.low, self.high))
        kernels.binary_conv2d(*operands, out=memory.view(self.out), **self.window())

    def cost(self, chip) -> Cost:
        """Array: input_lanes bits of kernel rows x output_lanes channels x pixel_lanes pixels a cycle, traffic as the
        tensor engine's (MatrixWork, in bytes). Per product one XNOR_POPCOUNT, per word one addition to the sum, per
        result two comparisons counted as additions."""
        results = self.w.shape[0] * math.prod(self.out.shape[:3])
        return self.products_cost(chip, 4 * self.w.shape[0], {Event.ACC_ADD_32: 2 * results})


@instruction(0x49, Engine.BINARY, "XNOR_SUM")
class XnorSum(_Products):
    """Convolution of signs with signs for neighbours in int8: ``requantize(bias[o] + scale[o] * sum)``, or the int32
    ``bias[o] + scale[o] * sum`` itself."""

    x = Tensor("N H W B", U8_ONLY, "signs, NHWC, eight channels to a byte")
    w = Tensor("O KH KW B", U8_ONLY, "signs of the weights, OHWI")
    scale = Tensor("O", I16_ONLY, "what a product counts")
    bias = Tensor("O", I32_ONLY, "bias")
    mult = Tensor("O", I32_ONLY, "requantization multipliers, each in 0..2**24-1")
    shift = Tensor("O", I8_ONLY, "requantization right shifts, each in 0..62")
    out = Tensor("N OH OW O", (DType.I8, DType.I32), "output, NHWC; int32: not requantized", out=True)
    strides = Ints(STEP, 2, "rows, columns")
    padding = Ints(EXTENT, 4, "top, left, bottom, right")
    dilation = Ints(STEP, 2, "rows, columns")
    channels = CHANNELS
    pad_value = PAD_VALUE
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.check_products(dims)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        operands = (memory.view(t) for t in (self.x, self.w, self.scale, self.bias, self.mult, self.shift))
        fields = {**self.window(), **self.values("out_zp", "lo", "hi")}
        kernels.binary_conv2d_sum(*operands, out=memory.view(self.out), **fields)

    def cost(self, chip) -> Cost:
        """As XNOR; in place of the comparisons a 32-bit addition of the bias and, of int8 results, a multiplication by
        the scale and a requantization each."""
        results = self.out.elements
        last = {Event.ACC_ADD_32: results, Event.RESCALE_9X22: results}
        if self.out.dtype == DType.I8:
            last[Event.REQUANT] = results
        return self.products_cost(chip, 15 * self.w.shape[0], last)
