"""Ops that move elements without changing them, and resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, regions
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Move, Rows, Traits

MOVABLE_DTYPES = ("int8", "uint8", "int16", "int32")
RESIZE_WEIGHT_BITS = 11
RESIZE_MAX_SHIFT = 40  # behind the weights' 22 bits


@dataclass(frozen=True)
class _Move(ErgoOp):
    """One tensor in, any integer dtype, the same dtype out."""

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, (MOVABLE_DTYPES,))
        return [(self._moved_shape(tuple(shapes[0])), dtypes[0])]

    def _moved_shape(self, shape: Shape) -> Shape:
        raise NotImplementedError


@ergo_op("pad")
@dataclass(frozen=True)
class Pad(_Move):
    """Constant padding; pad_width is flat, (before, after) for each axis. x -> every axis longer by both."""

    traits = Traits(rows=Rows.SAME, move=Move.JOIN)

    arg_names = ("x",)
    pad_width: tuple[int, ...]
    value: int = 0

    def _moved_shape(self, shape: Shape) -> Shape:
        self.require(
            len(self.pad_width) == 2 * len(shape) and min(self.pad_width, default=0) >= 0,
            "bad pad_width",
            f"{2 * len(shape)} numbers >= 0",
            self.pad_width,
        )
        return tuple(dim + self.pad_width[2 * i] + self.pad_width[2 * i + 1] for i, dim in enumerate(shape))

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        outputs = super().infer(shapes, dtypes)
        limits = np.iinfo(dtypes[0])
        self.require(
            limits.min <= self.value <= limits.max,
            "pad value does not fit the dtype",
            f"{limits.min}..{limits.max}",
            self.value,
        )
        return outputs

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = self._moved_shape(tuple(int(d) for d in x.shape))
        value = tirx.const(self.value, x.dtype)

        def element(*index):
            source = [i - self.pad_width[2 * axis] for axis, i in enumerate(index)]
            inside = [
                tirx.all(s >= 0, s < dim)
                for axis, (s, dim) in enumerate(zip(source, x.shape, strict=True))
                if self.pad_width[2 * axis] or self.pad_width[2 * axis + 1]
            ]
            return tirx.if_then_else(tirx.all(*inside), x(*source), value) if inside else x(*source)

        return te.compute(shape, element, name="pad")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [
            tuple(
                regions.clip((begin - self.pad_width[2 * i], end - self.pad_width[2 * i]), dim)
                if begin < end
                else (0, 0)
                for i, ((begin, end), dim) in enumerate(zip(out_region, shapes[0], strict=True))
            )
        ]


@ergo_op("concat")
@dataclass(frozen=True)
class Concat(ErgoOp):
    """Tensors one after another along ``axis`` (non-negative); all share one dtype and one quantization."""

    traits = Traits(rows=Rows.SAME, move=Move.JOIN, keeps_zero=True)

    arg_names = ("*xs",)
    axis: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require(len(shapes) >= 1, "nothing to concatenate", "at least one tensor", 0)
        self.require(
            len(set(dtypes)) == 1 and dtypes[0] in MOVABLE_DTYPES,
            "dtypes differ or are not integers",
            f"one of {', '.join(MOVABLE_DTYPES)}",
            list(dtypes),
        )
        rank = len(shapes[0])
        self.require(0 <= self.axis < rank, "bad axis", f"0..{rank - 1}", self.axis)
        frames = {tuple(shape[: self.axis]) + (0,) + tuple(shape[self.axis + 1 :]) for shape in shapes}
        self.require(
            len(frames) == 1, "shapes differ outside the axis", f"equal but for axis {self.axis}", list(shapes)
        )
        total = sum(shape[self.axis] for shape in shapes)
        return [(tuple(shapes[0][: self.axis]) + (total,) + tuple(shapes[0][self.axis + 1 :]), dtypes[0])]

    def compute(self, *xs: te.Tensor) -> te.Tensor:
        ((shape, _),) = self.infer([tuple(int(d) for d in x.shape) for x in xs], [str(x.dtype) for x in xs])

        def element(*index):
            begin, result = 0, None
            starts = []
            for x in xs:
                starts.append(begin)
                begin += int(x.shape[self.axis])
            for x, start in reversed(list(zip(xs, starts, strict=True))):
                source = [i - start if axis == self.axis else i for axis, i in enumerate(index)]
                result = (
                    x(*source)
                    if result is None
                    else tirx.if_then_else(index[self.axis] < start + int(x.shape[self.axis]), x(*source), result)
                )
            return result

        return te.compute(shape, element, name="concat")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        boxes, start = [], 0
        for shape in shapes:
            begin, end = out_region[self.axis]
            part = regions.clip((begin - start, end - start), shape[self.axis])
            boxes.append(tuple(out_region[: self.axis]) + (part,) + tuple(out_region[self.axis + 1 :]))
            start += shape[self.axis]
        return boxes


@ergo_op("slice")
@dataclass(frozen=True)
class Slice(_Move):
    """``x[begin:end:strides]`` per axis, 0 <= begin < end <= dim, positive strides."""

    traits = Traits(rows=Rows.SAME, move=Move.PART, keeps_zero=True)

    arg_names = ("x",)
    begin: tuple[int, ...]
    end: tuple[int, ...]
    strides: tuple[int, ...]

    def _moved_shape(self, shape: Shape) -> Shape:
        self.require(
            len(self.begin) == len(self.end) == len(self.strides) == len(shape),
            "begin, end, strides do not fit the rank",
            len(shape),
            f"{self.begin}, {self.end}, {self.strides}",
        )
        good = all(
            0 <= b < e <= dim and s >= 1 for b, e, s, dim in zip(self.begin, self.end, self.strides, shape, strict=True)
        )
        self.require(
            good,
            "slice outside the tensor or empty",
            f"0 <= begin < end <= {shape}, strides >= 1",
            f"{self.begin}, {self.end}, {self.strides}",
        )
        return tuple(-(-(e - b) // s) for b, e, s in zip(self.begin, self.end, self.strides, strict=True))

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = self._moved_shape(tuple(int(d) for d in x.shape))
        return te.compute(
            shape,
            lambda *index: x(*[b + i * s for i, b, s in zip(index, self.begin, self.strides, strict=True)]),
            name="slice",
        )

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [
            tuple(
                (b + begin * s, b + (end - 1) * s + 1) if begin < end else (0, 0)
                for (begin, end), b, s in zip(out_region, self.begin, self.strides, strict=True)
            )
        ]


@dataclass(frozen=True)
class _Permuted(_Move):
    """The axes of a tensor in another order."""

    arg_names = ("x",)
    perm: tuple[int, ...]

    def _moved_shape(self, shape: Shape) -> Shape:
        self.require(
            sorted(self.perm) == list(range(len(shape))),
            "not a permutation of the axes",
            f"of 0..{len(shape) - 1}",
            self.perm,
        )
        return tuple(shape[axis] for axis in self.perm)

    def compute(self, x: te.Tensor) -> te.Tensor:
        shape = self._moved_shape(tuple(int(d) for d in x.shape))
        return te.compute(
            shape, lambda *index: x(*[index[self.perm.index(axis)] for axis in range(len(shape))]), name="transpose"
        )

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [tuple(out_region[self.perm.index(axis)] for axis in range(len(self.perm)))]


@ergo_op("transpose")
@dataclass(frozen=True)
class Transpose(_Permuted):
    """Axis i of the output is axis ``perm[i]`` of the input."""

    traits = Traits(rows=Rows.WHOLE, move=Move.RELABEL, keeps_zero=True)


@ergo_op("receive")
@dataclass(frozen=True)
class Receive(_Permuted):
    """An input whose rows arrive while the network runs (a camera's), its axes in the order ``perm``; as a value it is
    the transpose.

    On the chip the tensor it reads is never in the memory: instructions take the rows from the sender as they are
    needed."""

    traits = Traits(rows=Rows.SAME, once=True)

    in_models = False


@ergo_op("reshape")
@dataclass(frozen=True)
class Reshape(_Move):
    """The same elements in row-major order under another ``shape`` (all dimensions given)."""

    traits = Traits(rows=Rows.WHOLE, move=Move.RELABEL, keeps_zero=True)

    arg_names = ("x",)
    shape: tuple[int, ...]

    def _moved_shape(self, shape: Shape) -> Shape:
        self.require(
            prod(shape) == prod(self.shape) and min(self.shape, default=1) >= 0,
            "element counts differ",
            prod(shape),
            self.shape,
        )
        return self.shape

    def compute(self, x: te.Tensor) -> te.Tensor:
        old = [int(d) for d in x.shape]

        def element(*index):
            flat = tirx.const(0, "int64")
            for i, dim in zip(index, self.shape, strict=True):
                flat = flat * dim + i
            source = []
            for dim in reversed(old):
                source.append(flat % dim)
                flat = flat // dim
            return x(*reversed(source))

        return te.compute(self.shape, element, name="reshape")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [regions.box_of_flat(regions.flat_interval(out_region, self.shape), shapes[0])]


@ergo_op("resize2d")
@dataclass(frozen=True)
class Resize2d(ErgoOp):
    """Separable interpolation with 11-bit weights: ``(acc + 2**21) >> 22``; where ``scaled`` into another
    quantization: ``clip(out_zp + floor(acc * mult / 2**(22 + shift) + 1/2))`` of the sum of ``x - in_zp``.

    x i8[N,H,W,C], rows i32[OH,3], cols i32[OW,3] -> i8[N,OH,OW,C]; a row of ``rows`` is (low index, high index, weight
    of high in 0..2048). Nearest has weight 0."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x", "rows", "cols")
    scaled: bool = False
    in_zp: int = 0
    mult: int = 0
    shift: int = 0
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, ("int8", "int32", "int32"))
        x, rows, cols = shapes
        self.require(len(x) == 4, "activation is not [N,H,W,C]", "rank 4", x)
        self.require_shape("rows", rows, (rows[0] if rows else 0, 3))
        self.require_shape("cols", cols, (cols[0] if cols else 0, 3))
        self.require_int8(in_zp=self.in_zp)
        self.require_multiplier(self.mult, self.shift)
        self.require(self.shift <= RESIZE_MAX_SHIFT, "shift out of range", f"0..{RESIZE_MAX_SHIFT}", self.shift)
        self.require_clip()
        return [((x[0], rows[0], cols[0], x[3]), "int8")]

    def compute(self, x: te.Tensor, rows: te.Tensor, cols: te.Tensor) -> te.Tensor:
        one = 2**RESIZE_WEIGHT_BITS

        def element(n, h, w, c):
            def pixel(i, j):
                return arithmetic.centred(x(n, rows(h, i), cols(w, j), c), self.in_zp if self.scaled else 0)

            low = pixel(0, 0) * (one - cols(w, 2)) + pixel(0, 1) * cols(w, 2)
            high = pixel(1, 0) * (one - cols(w, 2)) + pixel(1, 1) * cols(w, 2)
            total = low * (one - rows(h, 2)) + high * rows(h, 2)
            if self.scaled:
                shift = 2 * RESIZE_WEIGHT_BITS + self.shift
                return arithmetic.requantize(total, self.mult, shift, self.out_zp, self.lo, self.hi)
            return ((total + (1 << (2 * RESIZE_WEIGHT_BITS - 1))) >> (2 * RESIZE_WEIGHT_BITS)).astype("int8")

        return te.compute((x.shape[0], rows.shape[0], cols.shape[0], x.shape[3]), element, name="resize")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        """Without the row and column tables in ``values`` every row and column may be read."""
        boxes = []
        for axis in (1, 2):
            begin, end = out_region[axis]
            table = None if values is None else values[axis]
            if begin >= end:
                boxes.append((0, 0))
            elif table is None:
                boxes.append((0, shapes[0][axis]))
            else:
                used = np.asarray(table)[begin:end]
                boxes.append((int(used[:, :2].min()), int(used[:, :2].max()) + 1))
        return [(out_region[0], boxes[0], boxes[1], out_region[3]), (out_region[1], (0, 3)), (out_region[2], (0, 3))]
