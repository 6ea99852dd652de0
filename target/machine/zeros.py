"""Products of the tensor engine that have a zero operand, counted in a run: what an array that isolates its multipliers
from zeros saves.

Such an array holds back a product whose input equals its zero point (padding too) or whose weight does, so that neither
multiplier nor adder switches: data gating as in Eyeriss (Chen et al., JSSC 2017: 45 % of a processing element's power).
It takes as long as ever. `TensorEngine.zero_gating` is the share of such a product's energy that is saved. A product of
input position p and output channel o at tap t and channel c is not zero where both operands are not, so a convolution
has ``sum over (t, c) of A[t, c] * B[t, c]`` of them: positions whose input is not zero, times channels whose weight is
not. Instructions' costs and every figure made without a run count all products in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_ergo.target.chip import Chip, Point
from tvm_ergo.target.isa import Conv, ConvTranspose, Depthwise, Event, Instruction, MatMul
from tvm_ergo.target.isa.coded import coded_operands
from tvm_ergo.target.machine.memory import Memory


@dataclass
class ZeroProducts:
    """A watcher of `Machine.run`. products, zeros : of all runs it watched; by_instruction : zeros of each."""

    products: int = 0
    zeros: int = 0
    by_instruction: dict[int, int] = field(default_factory=dict)

    def __call__(self, index: int, instruction: Instruction, memory: Memory) -> None:
        count = COUNTS.get(type(instruction))
        if count is None:
            return
        memory.open([c for c in coded_operands(instruction) if not c.out])
        products, others = count(instruction, memory)
        memory.open([])
        self.products += products
        self.zeros += products - others
        self.by_instruction[index] = self.by_instruction.get(index, 0) + products - others

    @property
    def share(self) -> float:
        """Of all products, 0..1."""
        return self.zeros / self.products if self.products else 0.0

    def saved_pj(self, chip: Chip, point: Point | str | None = None) -> float:
        """Of all runs together."""
        return chip.tensor.zero_gating * chip.energy_pj(
            {Event.MAC_8X8: self.zeros, Event.ACC_ADD_32: self.zeros}, point
        )


def _tap(size: int, out: int, first: int, stride: int) -> slice:
    """Of ``out`` positions ``first + i * stride``, those inside ``[0, size)``."""
    skipped = max(0, -(first // stride))
    begin = first + skipped * stride
    inside = max(0, min(out - skipped, -(-(size - begin) // stride)))
    return slice(begin, begin + inside * stride, stride) if inside else slice(0, 0)


def _positions(instruction, memory: Memory, kernel: tuple[int, int]) -> np.ndarray:
    """int64[kh, kw, C]: output positions at which each tap meets an input that is not zero."""
    x, i = memory.view(instruction.x), instruction
    active, (_, height, width, channels), (_, out_h, out_w, _) = x != i.in_zp, i.x.shape, i.out.shape
    found = np.zeros((*kernel, channels), np.int64)
    for row in range(kernel[0]):
        lines = active[:, _tap(height, out_h, row * i.dilation[0] - i.padding[0], i.strides[0])]
        for column in range(kernel[1]):
            met = lines[:, :, _tap(width, out_w, column * i.dilation[1] - i.padding[1], i.strides[1])]
            found[row, column] = met.sum(axis=(0, 1, 2), dtype=np.int64)
    return found


def _conv(i: Conv, memory: Memory) -> tuple[int, int]:
    o, kh, kw, cg = i.w.shape
    positions = _positions(i, memory, (kh, kw)).reshape(kh, kw, i.groups, cg)
    weights = (memory.view(i.w) != i.w_zp).reshape(i.groups, o // i.groups, kh, kw, cg).sum(axis=1, dtype=np.int64)
    return i.out.elements * kh * kw * cg, int((positions.transpose(2, 0, 1, 3) * weights).sum())


def _depthwise(i: Depthwise, memory: Memory) -> tuple[int, int]:
    kh, kw, _ = i.w.shape
    return i.out.elements * kh * kw, int((_positions(i, memory, (kh, kw)) * (memory.view(i.w) != i.w_zp)).sum())


def _transposed(i: ConvTranspose, memory: Memory) -> tuple[int, int]:
    """Every input position meets every tap, as the engine computes it."""
    inputs = (memory.view(i.x) != i.in_zp).sum(axis=(0, 1, 2), dtype=np.int64)
    weights = (memory.view(i.w) != i.w_zp).sum(axis=(0, 1, 2), dtype=np.int64)
    return i.x.elements * i.w.elements // i.x.shape[-1], int((inputs * weights).sum())


def _matmul(i: MatMul, memory: Memory) -> tuple[int, int]:
    batch, k = i.out.shape[:-2], i.a.shape[-1]
    left = (memory.view(i.a) != i.a_zp).sum(axis=-2, dtype=np.int64)
    right = (memory.view(i.b) != i.b_zp).sum(axis=-2 if i.transpose_b else -1, dtype=np.int64)
    pairs = np.broadcast_to(left * right, (*batch, k))
    return i.out.elements * k, int(pairs.sum())


COUNTS: dict[type, Callable[[Any, Memory], tuple[int, int]]] = {
    Conv: _conv,
    Depthwise: _depthwise,
    ConvTranspose: _transposed,
    MatMul: _matmul,
}
"""(products, those without a zero operand), of an instruction that was just executed."""
