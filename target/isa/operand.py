"""Operand descriptors: where a tensor lies in the unified memory and how its elements are laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import ProgramError

MAX_RANK = 6
MAX_ADDRESS = 2**32  # exclusive: addresses are u32
MAX_DIM = 2**32 - 1
MAX_STRIDE = 2**31 - 1


class DType(IntEnum):
    """Element types of the unified memory, little-endian."""

    I8 = 0
    U8 = 1
    I16 = 2
    I32 = 3

    @property
    def numpy(self) -> np.dtype:
        return _NUMPY[self]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _NUMPY[self].itemsize

    @classmethod
    def of(cls, dtype) -> DType:
        """The element type of a NumPy dtype or its name (``"int8"``). Errors: ProgramError for any other type."""
        for member, known in _NUMPY.items():
            if np.dtype(dtype) == known:
                return member
        raise ProgramError(
            f"the chip has no element type {np.dtype(dtype).name}", available=", ".join(d.name for d in _NUMPY.values())
        )


_NUMPY: dict[DType, np.dtype] = {
    DType.I8: np.dtype("<i1"),
    DType.U8: np.dtype("<u1"),
    DType.I16: np.dtype("<i2"),
    DType.I32: np.dtype("<i4"),
}


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Row-major strides in bytes of a dense tensor."""
    strides, step = [], itemsize
    for dim in reversed(shape):
        strides.append(step)
        step *= dim
    return tuple(reversed(strides))


@dataclass(frozen=True)
class Operand:
    """A tensor in the unified memory.

    addr : byte address of element (0, ..., 0). dtype : DType. shape : 1 to 6 dimensions, each >= 1.
    strides : bytes from one index to the next per axis; 0 repeats (broadcasts) the axis. codec : how elements are
    coded: with any but RAW the operand is rows in slots (`target.isa.coded`) or a stream of weights
    (`target.isa.weights`); ``stored`` says which bytes those are. Errors: ProgramError when a value cannot be encoded.
    """

    addr: int
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    codec: Codec = Codec.RAW

    def __post_init__(self):
        put = object.__setattr__
        put(self, "addr", int(self.addr))
        put(self, "dtype", _member(DType, self.dtype, "element type"))
        put(self, "codec", _member(Codec, self.codec, "codec"))
        put(self, "shape", tuple(map(int, self.shape)))
        put(self, "strides", tuple(map(int, self.strides)))
        if not 0 <= self.addr < MAX_ADDRESS:
            raise ProgramError(f"operand address {self.addr} is not an unsigned 32-bit number")
        if not 1 <= len(self.shape) <= MAX_RANK or len(self.shape) != len(self.strides):
            raise ProgramError(
                f"operand shape {self.shape} with strides {self.strides}",
                required=f"1 to {MAX_RANK} dimensions, one stride each",
            )
        if min(self.shape) < 1 or max(self.shape) > MAX_DIM:
            raise ProgramError(f"operand shape {self.shape} has a dimension outside 1..{MAX_DIM}")
        if min(self.strides) < -MAX_STRIDE or max(self.strides) > MAX_STRIDE:
            raise ProgramError(f"operand strides {self.strides} do not fit signed 32 bits")

    @property
    def rank(self) -> int:
        return len(self.shape)

    @cached_property
    def stored(self) -> Operand:
        """What lies in memory: the operand itself, its slots uint8[H, S], or its stream uint8[S]."""
        if self.codec.of_weights and self.rank >= 2:
            return Operand(self.addr, DType.U8, (max(1, self.strides[0]),), (1,))
        if self.codec == Codec.RAW or self.rank != 4:
            return self
        return Operand(self.addr, DType.U8, (self.shape[1], max(1, self.strides[1])), (self.strides[1], 1))

    @property
    def elements(self) -> int:
        """Number of indices (a broadcast axis counts each repetition)."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements (broadcast repetitions counted)."""
        return self.elements * self.dtype.itemsize

    @cached_property
    def distinct_bytes(self) -> int:
        """Bytes of the elements without broadcast repetitions: what one reading of the tensor moves."""
        if self.codec != Codec.RAW:
            return (
                self.elements
            )  # costs count elements; `coded.with_coding` puts slots in their place, the tensor engine streams
        return math.prod(d for d, s in zip(self.shape, self.strides) if s) * self.dtype.itemsize

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Half-open byte range ``(lowest, highest + 1)`` that holds every element; lowest may be < 0 for a wrong
        operand."""
        if self.stored is not self:
            return self.stored.extent
        reach = [(d - 1) * s for d, s in zip(self.shape, self.strides)]
        low = self.addr + sum(r for r in reach if r < 0)
        return low, self.addr + sum(r for r in reach if r > 0) + self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Dense and row-major (axes of length 1 may carry any stride)."""
        if self.stored is not self:
            return self.stored.is_contiguous
        expected = contiguous_strides(self.shape, self.dtype.itemsize)
        return all(d == 1 or s == e for d, s, e in zip(self.shape, self.strides, expected))

    @cached_property
    def is_injective(self) -> bool:
        """No two indices share a byte, shown by nested axes (each stride clears everything below it): required of
        outputs."""
        if self.stored is not self:
            return self.stored.is_injective
        reach = self.dtype.itemsize
        for stride, dim in sorted((abs(s), d) for d, s in zip(self.shape, self.strides) if d > 1):
            if stride < reach:
                return False
            reach = stride * (dim - 1) + reach
        return True

    @property
    def inner_run_bytes(self) -> int:
        """Length in bytes of the longest contiguous run ending at the last axis."""
        run = self.dtype.itemsize
        for dim, stride in zip(reversed(self.shape), reversed(self.strides)):
            if dim > 1 and stride != run:
                break
            run *= dim
        return run

    def touched(self, low: int, high: int) -> np.ndarray:
        """bool[high - low]: which bytes of ``[low, high)``, a range around ``extent``, hold elements."""
        if self.stored is not self:
            return self.stored.touched(low, high)
        mark = np.zeros(high - low, np.uint8)
        view = np.ndarray(self.shape + (self.dtype.itemsize,), np.uint8, mark, self.addr - low, self.strides + (1,))
        view[...] = 1
        return mark.astype(bool)


def contiguous(addr: int, dtype, shape) -> Operand:
    """A dense row-major operand; dtype is a DType or a NumPy dtype (name)."""
    dtype = dtype if isinstance(dtype, DType) else DType.of(dtype)
    shape = tuple(map(int, shape))
    return Operand(addr, dtype, shape, contiguous_strides(shape, dtype.itemsize))


def overlap(a: Operand, b: Operand) -> bool:
    """Whether two operands share a byte; exact (interleaved members of a concat do not)."""
    if a.extent[0] >= b.extent[1] or b.extent[0] >= a.extent[1]:
        return False
    if a.is_contiguous and b.is_contiguous:
        return True
    low, high = min(a.extent[0], b.extent[0]), max(a.extent[1], b.extent[1])
    return bool(np.any(a.touched(low, high) & b.touched(low, high)))


def _member(enum, value, what: str):
    try:
        return enum(value)
    except ValueError:
        raise ProgramError(
            f"unknown {what} {value}", available=", ".join(f"{m.name}={m.value}" for m in enum)
        ) from None
