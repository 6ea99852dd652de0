"""A memory of random bytes, and operands in it: views, coded rows, coded weights, parameters."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.codecs.weights import WeightCodes, encode
from tvm_ergo.target.isa import DType, Operand, contiguous
from tvm_ergo.target.isa.coded import coded
from tvm_ergo.target.isa.geometry import window_shape
from tvm_ergo.target.isa.weights import coded_weights
from tvm_ergo.target.machine.memory import Memory

MEMORY_BYTES = 1 << 18
SLOT_CODECS = [Codec.BITMASK, Codec.BITPLANE, Codec.CONTEXT, Codec.STATIC, Codec.PREDICT]
WEIGHT_CODECS = [Codec.HUFFMAN, Codec.HUFFMAN_RUNS, Codec.RUNS, Codec.CABAC, Codec.PACKED]
zero_points = st.sampled_from([-128, 127, 0, -5, 3])


class Scene:
    """A memory and places in it. draw : of a hypothesis composite."""

    def __init__(self, draw):
        self.draw, self.next = draw, 64
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.memory = Memory(MEMORY_BYTES)
        kind = draw(st.sampled_from(["any", "any", "extreme"]))
        values = self.rng.integers(0, 256, MEMORY_BYTES)
        self.memory.bytes[:] = values if kind == "any" else np.where(values & 1, 128, 127)

    def int(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def place(self, shape, dtype="int8", plain=False) -> Operand:
        """Dense, a slice of something wider, with permuted axes, or reversed."""
        dtype, shape = DType.of(dtype), tuple(shape)
        how = "dense" if plain else self.draw(st.sampled_from(["dense", "dense", "wider", "permuted", "reversed"]))
        order = self.draw(st.permutations(range(len(shape)))) if how == "permuted" else range(len(shape))
        wider = self.int(1, 5) if how == "wider" else 0
        lengths = [shape[axis] for axis in order]
        dense = contiguous(self.next, dtype, (*lengths[:-1], lengths[-1] + wider))
        self.next += (dense.size_bytes + 31) // 16 * 16
        assert self.next < MEMORY_BYTES
        strides = [0] * len(shape)
        for axis, stride in zip(order, dense.strides):
            strides[axis] = stride
        addr = dense.addr + wider // 2 * dtype.itemsize
        if how == "reversed":
            axis = self.int(0, len(shape) - 1)
            addr, strides[axis] = addr + (shape[axis] - 1) * strides[axis], -strides[axis]
        return Operand(addr, dtype, shape, tuple(strides))

    def repeated(self, shape, dtype="int8") -> Operand:
        """Some axes broadcast, leading ones perhaps left out."""
        shape = tuple(shape)[self.int(0, len(shape) - 1) :]
        return self.place([d if self.draw(st.booleans()) else 1 for d in shape], dtype)

    def slots(self, shape, zero_point: int, filled: bool) -> Operand:
        """A coded operand int8[1, H, W, C]; ``filled`` with rows that an encoder wrote."""
        codec, (_, h, w, c) = self.draw(st.sampled_from(SLOT_CODECS)), shape
        size = self.draw(st.sampled_from([4, 5, 4 + w * c // 2, 4 + w * c, 8 + w * c]))
        operand = coded(self.next, tuple(shape), codec, size)
        self.next += (h * size + 31) // 16 * 16
        if filled:
            rows = self.rows((h, w, c), zero_point)
            self.memory.bytes[operand.addr : operand.addr + h * size] = (
                SlotLayout(codec, 1, size, zero_point).encode(rows).ravel()
            )
        return operand

    def rows(self, shape, zero_point: int) -> np.ndarray:
        """Values that codecs like and dislike."""
        values = self.rng.normal(0, self.draw(st.sampled_from([0.3, 5, 80])), shape)
        return np.clip(np.rint(values) + zero_point, -128, 127).astype(np.int8)

    def stream(self, shape) -> Operand:
        """Coded weights."""
        values = self.rows(shape, 0)
        codes = encode(
            WeightCodes.of(values, self.int(1, 6)), self.draw(st.sampled_from(WEIGHT_CODECS)), self.int(1, 3)
        )
        operand = coded_weights(self.next, tuple(shape), codes)
        self.memory.bytes[self.next : self.next + len(codes.data)] = np.frombuffer(codes.data, np.uint8)
        self.next += (len(codes.data) + 31) // 16 * 16
        return operand

    def weights(self, shape) -> Operand:
        return self.stream(shape) if self.draw(st.sampled_from([False, False, True])) else self.place(shape)

    def per_channel(self, channels: int) -> dict:
        found = dict(
            bias=self.place((channels,), "int32"), mult=self.place((channels,), "int32"), shift=self.place((channels,))
        )
        wide = self.draw(st.booleans())
        self.memory.view(found["bias"])[...] = self.rng.integers(
            -(2**31) if wide else -20000, 2**31 if wide else 20000, channels
        )
        self.memory.view(found["mult"])[...] = self.rng.integers(0, 2**24, channels)
        self.memory.view(found["shift"])[...] = (
            self.rng.integers(0, 63, channels) if wide else self.rng.integers(26, 36, channels)
        )
        return found

    def clip(self) -> dict:
        lo = self.int(-128, 127)
        return dict(
            out_zp=self.draw(zero_points),
            lo=self.draw(st.sampled_from([-128, lo])),
            hi=self.draw(st.sampled_from([127, max(lo, 100)])),
        )

    def scale(self) -> dict:
        return dict(
            mult=self.int(0, 2**24 - 1),
            shift=self.draw(st.one_of(st.integers(0, 62), st.integers(22, 34))),
            **self.clip(),
        )

    def window(self, kernel, x_shape) -> tuple[dict, tuple[int, int]]:
        """Strides, padding, dilation that leave an output, and its height and width."""
        for _ in range(20):
            found = dict(
                strides=(self.int(1, 3), self.int(1, 3)),
                padding=tuple(self.int(0, 3) for _ in range(4)),
                dilation=(self.int(1, 2), self.int(1, 3)),
            )
            out = window_shape(x_shape[1:3], kernel, found["strides"], found["padding"], found["dilation"])
            if min(out) > 0:
                return found, out
        found = dict(strides=(1, 1), padding=(kernel[0], kernel[1]) * 2, dilation=(1, 1))
        return found, window_shape(x_shape[1:3], kernel, *found.values())
