"""Strided views: where the elements of a tensor lie inside a buffer, and how slicing, permuting and reshaping change
that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm_ergo.target.isa import Operand, overlap

Region = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class View:
    """Element ``(i, j, ...)`` lies at byte ``offset + i * strides[0] + j * strides[1] + ...`` of buffer ``root``.

    root : the id of the tensor that owns the buffer (-1: the whole memory). offset, strides : bytes. itemsize : bytes
    per element."""

    root: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    @staticmethod
    def dense(root: int, shape: Sequence[int], itemsize: int, offset: int = 0) -> View:
        """A row-major view that fills its buffer."""
        strides, step = [], itemsize
        for extent in reversed(shape):
            strides.append(step)
            step *= extent
        return View(root, offset, tuple(shape), tuple(reversed(strides)), itemsize)

    @property
    def is_dense(self) -> bool:
        """Row-major without gaps (axes of length 1 may have any stride)."""
        wanted = View.dense(self.root, self.shape, self.itemsize, self.offset).strides
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, wanted, strict=True))

    def box(self, region: Region, steps: Sequence[int] | None = None) -> View:
        """The sub-box ``region`` (half-open per axis), every ``steps``-th element of it."""
        steps = steps or (1,) * len(self.shape)
        shape = tuple(max(0, -(-(end - begin) // step)) for (begin, end), step in zip(region, steps, strict=True))
        offset = self.offset + sum(begin * stride for (begin, _), stride in zip(region, self.strides, strict=True))
        return self._like(self.root, offset, shape, tuple(s * k for s, k in zip(self.strides, steps, strict=True)))

    def permute(self, perm: Sequence[int]) -> View:
        """Axis i of the result is axis ``perm[i]`` of this."""
        return replace(self, shape=tuple(self.shape[p] for p in perm), strides=tuple(self.strides[p] for p in perm))

    def broadcast(self, shape: Sequence[int]) -> View:
        """NumPy broadcasting to ``shape``: repeated axes get stride 0."""
        missing = len(shape) - len(self.shape)
        own = ((1,) * missing + self.shape, (0,) * missing + self.strides)
        strides = tuple(0 if n == 1 and want != 1 else s for n, s, want in zip(*own, shape, strict=True))
        return replace(self, shape=tuple(shape), strides=strides)

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements in the same order under another shape, or None where strides cannot express that."""
        runs = _merged(self)
        strides, at = [0] * len(shape), 0
        for count, stride in runs:
            first, total = at, 1
            while at < len(shape) and (total < count or shape[at] == 1):
                total *= shape[at]
                at += 1
            if total != count:
                return None
            for axis in range(at - 1, first - 1, -1):
                strides[axis] = stride
                stride *= shape[axis]
        return replace(self, shape=tuple(shape), strides=tuple(strides))

    def moved(self, root: int, by: int) -> View:
        """The same view in another buffer, ``by`` bytes further."""
        return self._like(root, self.offset + by, self.shape, self.strides)

    def _like(self, root: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
        """As ``dataclasses.replace``, which takes several times as long."""
        return View(root, offset, shape, strides, self.itemsize)

    def same_place(self, other: View) -> bool:
        """Whether each element of both lies at the same bytes."""
        return (self.root, self.offset, self.shape, self.itemsize) == (
            other.root,
            other.offset,
            other.shape,
            other.itemsize,
        ) and all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, other.strides, strict=True))

    def operand(self, dtype) -> Operand:
        """The instruction operand at these addresses; a scalar becomes shape (1,). ``root`` must be the memory.

        Axes of length 1 get the stride they would have in a dense tensor, so that the same place is the same operand.
        """
        strides, dense = [], self.itemsize
        for extent, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            strides.append(dense if extent == 1 else stride)
            dense = strides[-1] * extent
        return Operand(self.offset, dtype, self.shape or (1,), tuple(reversed(strides)) or (self.itemsize,))


def collapse(views: Sequence[View]) -> list[View]:
    """Views of one shape with axes of length 1 dropped and neighbouring axes merged where every view allows it."""
    shape = views[0].shape
    axes: list[list[int]] = []  # [length, stride in view 0, stride in view 1, ...]
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        strides = [v.strides[axis] for v in views]
        if axes and all(outer == length * inner for outer, inner in zip(axes[-1][1:], strides, strict=True)):
            axes[-1] = [axes[-1][0] * length, *strides]
        else:
            axes.append([length, *strides])
    axes = axes or [[1, *(v.itemsize for v in views)]]
    return [
        replace(v, shape=tuple(a[0] for a in axes), strides=tuple(a[1 + i] for a in axes)) for i, v in enumerate(views)
    ]


def _merged(view: View) -> list[tuple[int, int]]:
    """``(count, stride)`` of the longest runs of axes that lie evenly spaced; at least one."""
    merged = collapse([view])[0]
    return list(zip(merged.shape, merged.strides, strict=True))


def operands_overlap(a: Operand, b: Operand) -> bool:
    """Whether two operands share a byte. Exact; quick where the strides nest alike, else the ISA's byte map."""
    if a.extent[0] >= b.extent[1] or b.extent[0] >= a.extent[1]:
        return False
    if a.is_contiguous and b.is_contiguous:
        return True
    for dense, other in ((a, b), (b, a)):
        if dense.is_contiguous and min(other.strides) >= 0 and other.is_injective:
            return _hits(_axes(other), other.addr, other.dtype.itemsize, *dense.extent)
    if a.dtype.itemsize == b.dtype.itemsize and min(a.strides + b.strides) >= 0:
        answer = _lattices_meet(a, b)
        if answer is not None:
            return answer
    return overlap(a, b)


def _axes(operand: Operand) -> list[tuple[int, int]]:
    """``(stride, count)`` by falling stride, without axes of length 1 or stride 0."""
    return sorted(((s, n) for n, s in zip(operand.shape, operand.strides, strict=True) if n > 1 and s), reverse=True)


def _hits(axes: list[tuple[int, int]], start: int, itemsize: int, low: int, high: int) -> bool:
    """Whether the nested lattice from ``start`` has a byte in ``[low, high)``."""
    end = start + sum(s * (n - 1) for s, n in axes) + itemsize
    if end <= low or start >= high:
        return False
    if start >= low or not axes:
        return True  # the first element itself, or the only one
    (stride, count), inner = axes[0], axes[1:]
    block = max(0, (low - start) // stride)  # blocks before this one end below low: the axes nest
    return any(_hits(inner, start + k * stride, itemsize, low, high) for k in (block, block + 1) if k < count)


def _lattices_meet(a: Operand, b: Operand) -> bool | None:
    """Overlap of two lattices over the union of their strides; None where those do not nest."""
    counts = {}
    for index, operand in enumerate((a, b)):
        for stride, count in _axes(operand):
            pair = counts.setdefault(stride, [1, 1])
            pair[index] = 1 + (pair[index] - 1) + (count - 1)
    reach = a.dtype.itemsize
    for stride in sorted(counts):
        if stride < reach:
            return None
        reach += stride * (max(counts[stride]) - 1)
    levels = sorted(((s, na, nb) for s, (na, nb) in counts.items()), reverse=True)
    return _meet(levels, b.addr - a.addr, a.dtype.itemsize)


def _meet(levels: list[tuple[int, int, int]], distance: int, itemsize: int) -> bool:
    """Whether ``sum((ia - ib) * stride) == distance`` up to less than one element, with ``0 <= ia < na``, ``0 <= ib <
    nb``."""
    if not levels:
        return abs(distance) < itemsize
    (stride, na, nb), inner = levels[0], levels[1:]
    step = distance // stride
    return any(-nb < k < na and _meet(inner, distance - k * stride, itemsize) for k in (step, step + 1))


def elements(region: Region) -> int:
    """Number of elements of a box."""
    return math.prod(max(0, end - begin) for begin, end in region)
