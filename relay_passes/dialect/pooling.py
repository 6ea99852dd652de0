"""Window pooling, reductions over axes, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import te

from tvm_ergo.relay_passes.dialect import arithmetic, reduction, regions
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Coding, Rows, Tables, Traits

SOFTMAX_ENTRY_BITS = 23
SOFTMAX_MAX_SHIFT = 25
"""e <= sum(e) and mult < 2**24: from here on every quotient is below 1/2 and rounds to 0, so larger shifts mean the
same."""
AVERAGE_MAX_SHIFT = 33
"""|sum| <= 255 * count and mult < 2**24: likewise."""
_INT63 = 2**63


@dataclass(frozen=True)
class _Pool(ErgoOp):
    """A window over [N,H,W,C]; every window holds at least one element of the input."""

    def _dilation(self) -> tuple[int, ...]:
        return getattr(self, "dilation", (1, 1))

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        self.require(len(shapes[0]) == 4, "activation is not [N,H,W,C]", "rank 4", shapes[0])
        for name in ("pool", "strides"):
            value = getattr(self, name)
            self.require(len(value) == 2 and min(value) >= 1, f"bad {name}", "two, >= 1", value)
        self.require(
            len(self._dilation()) == 2 and min(self._dilation()) >= 1, "bad dilation", "two, >= 1", self._dilation()
        )
        self.require(
            len(self.padding) == 4 and min(self.padding) >= 0, "bad padding", "four (t,l,b,r), >= 0", self.padding
        )
        self.require_clip()
        batch, height, width, channels = shapes[0]
        sizes = [self._size(axis, dim) for axis, dim in enumerate((height, width))]
        self._check_fields()
        return [((batch, *sizes, channels), "int8")]

    def _size(self, axis: int, dim: int) -> int:
        pool, stride, dilation = self.pool[axis], self.strides[axis], self._dilation()[axis]
        before, after = self.padding[axis], self.padding[axis + 2]
        reach = (pool - 1) * dilation + 1
        self.require(
            dim + before + after >= reach,
            "the window does not fit the padded input",
            f"<= {dim + before + after}",
            reach,
        )
        size = (dim + before + after - reach) // stride + 1
        for out in range(size):
            rows = range(out * stride - before, out * stride - before + reach, dilation)
            self.require(
                any(0 <= row < dim for row in rows),
                "a pooling window lies wholly in the padding",
                "at least one input element in each window",
                f"output row or column {out}",
            )
        return size

    def _check_fields(self) -> None:
        """Further checks of the op's own fields."""

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        boxes = [
            regions.window(
                out_region[1 + a], shapes[0][1 + a], self.pool[a], self.strides[a], self.padding[a], self._dilation()[a]
            )
            for a in (0, 1)
        ]
        return [(out_region[0], boxes[0], boxes[1], out_region[3])]


@ergo_op("max_pool2d")
@dataclass(frozen=True)
class MaxPool2d(_Pool):
    """Largest element of each window; padding never wins. x i8[N,H,W,C] -> i8[N,OH,OW,C]."""

    traits = Traits(
        uniform=True, rows=Rows.WINDOW, keeps_zero=True, output_table=Tables.TENSOR, coding=Coding({0: None}, None)
    )

    arg_names = ("x",)
    pool: tuple[int, ...]
    strides: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, ...] = (1, 1)

    def compute(self, x: te.Tensor) -> te.Tensor:
        return reduction.max_pool(x, self.pool, self.strides, self.padding, self.dilation)


@ergo_op("avg_pool2d")
@dataclass(frozen=True)
class AvgPool2d(_Pool):
    """``clip(out_zp + rounding_divide(sum(x-in_zp)*mult, count<<shift), lo, hi)``; count is the window's elements
    inside the input, or all of them with count_include_pad. x i8[N,H,W,C] -> i8[N,OH,OW,C]."""

    traits = Traits(uniform=True, rows=Rows.WINDOW, output_table=Tables.TENSOR, coding=Coding({0: "in_zp"}, "out_zp"))

    arg_names = ("x",)
    pool: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    count_include_pad: bool
    in_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def _check_fields(self) -> None:
        self.require_int8(in_zp=self.in_zp)
        self.require_multiplier(self.mult, self.shift)
        count = self.pool[0] * self.pool[1]
        self.require(
            (2 * count) << AVERAGE_MAX_SHIFT < _INT63, "the window is too large", "fewer than 2**29 elements", count
        )

    def compute(self, x: te.Tensor) -> te.Tensor:
        return reduction.avg_pool(x, self, min(self.shift, AVERAGE_MAX_SHIFT))


@dataclass(frozen=True)
class _Reduce(ErgoOp):
    """Over ``axes`` (non-negative, ascending), which stay as 1 with keepdims."""

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 1)
        self.require_dtypes(dtypes, ("int8",))
        rank = len(shapes[0])
        valid = self.axes and list(self.axes) == sorted(set(self.axes)) and self.axes[0] >= 0 and self.axes[-1] < rank
        self.require(bool(valid), "bad axes", f"ascending, in 0..{rank - 1}", self.axes)
        self.require_clip()
        self._check_fields()
        shape = tuple(
            1 if axis in self.axes else dim
            for axis, dim in enumerate(shapes[0])
            if self.keepdims or axis not in self.axes
        )
        return [(shape, "int8")]

    def _check_fields(self) -> None:
        """Further checks of the op's own fields."""

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        boxes, position = [], 0
        for axis, dim in enumerate(shapes[0]):
            if axis in self.axes:
                boxes.append((0, dim))
                position += self.keepdims
            else:
                boxes.append(out_region[position])
                position += 1
        return [tuple(boxes)]


@ergo_op("reduce_sum")
@dataclass(frozen=True)
class ReduceSum(_Reduce):
    """``requantize(sum(x - in_zp))``; a mean has 1/count folded into mult and shift. x i8 -> i8."""

    traits = Traits(rows=Rows.REDUCED)

    arg_names = ("x",)
    axes: tuple[int, ...]
    keepdims: bool
    in_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def _check_fields(self) -> None:
        self.require_int8(in_zp=self.in_zp)
        self.require_multiplier(self.mult, self.shift)

    def compute(self, x: te.Tensor) -> te.Tensor:
        acc = reduction.reduce(x, self.axes, self.keepdims, te.sum, lambda v: arithmetic.centred(v, self.in_zp), "sum")
        return arithmetic.unary(
            acc, lambda v: arithmetic.requantize(v, self.mult, self.shift, self.out_zp, self.lo, self.hi), "requantize"
        )


@ergo_op("reduce_max")
@dataclass(frozen=True)
class ReduceMax(_Reduce):
    """Largest element over axes. x i8 -> i8, same quantization."""

    traits = Traits(rows=Rows.REDUCED)

    arg_names = ("x",)
    axes: tuple[int, ...]
    keepdims: bool

    def compute(self, x: te.Tensor) -> te.Tensor:
        return reduction.reduce(x, self.axes, self.keepdims, te.max, lambda v: v, "reduce_max")


@ergo_op("reduce_min")
@dataclass(frozen=True)
class ReduceMin(_Reduce):
    """Smallest element over axes. x i8 -> i8, same quantization."""

    traits = Traits(rows=Rows.REDUCED)

    arg_names = ("x",)
    axes: tuple[int, ...]
    keepdims: bool

    def compute(self, x: te.Tensor) -> te.Tensor:
        return reduction.reduce(x, self.axes, self.keepdims, te.min, lambda v: v, "reduce_min")


@ergo_op("softmax")
@dataclass(frozen=True)
class Softmax(ErgoOp):
    """Over the last axis: ``e = lut[max - x]``, ``clip(out_zp + rounding_divide(e*mult, sum(e)<<shift), lo, hi)``.

    x i8[...,K], lut i32[256] with 0 <= lut < 2**23 -> i8[...,K]. A row whose entries are all 0 gives out_zp.
    """

    traits = Traits(uniform=True, rows=Rows.WHOLE)

    arg_names = ("x", "lut")
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("int8", "int32"))
        x, lut = shapes
        self.require(len(x) >= 1, "softmax needs an axis", "rank >= 1", x)
        self.require_shape("lut", lut, (256,))
        self.require_multiplier(self.mult, self.shift)
        self.require_clip()
        self.require(
            (2 * x[-1]) << (SOFTMAX_ENTRY_BITS + SOFTMAX_MAX_SHIFT) < _INT63, "the row is too long", "K < 2**14", x[-1]
        )
        return [(tuple(x), "int8")]

    def compute(self, x: te.Tensor, lut: te.Tensor) -> te.Tensor:
        return reduction.softmax(x, lut, self, min(self.shift, SOFTMAX_MAX_SHIFT))

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        last = out_region[-1]
        row = (0, shapes[0][-1]) if last[0] < last[1] else (0, 0)
        return [tuple(out_region[:-1]) + (row,), ((0, 256),)]
