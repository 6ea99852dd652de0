"""Ops on whole rows, which attention is made of: norm, exp_rows, weighted_mean, rotate, gather_rows. Instructions of
the same names: `target.isa.rows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import te, tirx

from tvm_ergo.relay_passes.dialect import arithmetic, contraction, reduction, regions
from tvm_ergo.relay_passes.dialect.arithmetic import int64
from tvm_ergo.relay_passes.dialect.base import ErgoOp, Region, Shape, ergo_op
from tvm_ergo.relay_passes.dialect.traits import Rows, Traits
from tvm_ergo.relay_passes.dialect.wide import ELEMENTS, _Elementwise, finish, requantize, saturate, width

MAX_ROW = {"int8": 2**20, "int16": 2**14}


def _whole_rows(out_region: Region, length: int) -> Region:
    """The rows that hold the elements of a box."""
    begin, end = out_region[-1]
    return (*out_region[:-1], (0, length) if begin < end else (0, 0))


@ergo_op("norm")
@dataclass(frozen=True)
class Norm(_Elementwise, ErgoOp):
    """Layer (``centre``) or RMS normalization of rows, in integers: the formula of the instruction NORM.

    x i8 or i16[..., C], gamma i16[C] or [1], beta i32[C] or [1] -> i16 where ``wide``, else i8. eps: epsilon in units
    of C*C*(step of x)**2."""

    traits = Traits(uniform=True, rows=Rows.WHOLE)

    arg_names = ("x", "gamma", "beta")
    wide: bool
    centre: bool
    in_zp: int
    eps: int
    eps_shift: int
    beta_shift: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, (ELEMENTS, "int16", "int32"))
        length = shapes[0][-1] if shapes[0] else 0
        most = MAX_ROW[dtypes[0]]
        self.require(0 < length < most, "bad row length", f"1..{most - 1}", length)
        for name, shape in zip(("gamma", "beta"), shapes[1:]):
            self.require_shape(name, shape, (1,) if tuple(shape) == (1,) else (length,))
        self.require_zero_point("in_zp", dtypes[0], self.in_zp)
        self.require_zero_point("out_zp", width(self.wide), self.out_zp)
        self.require(
            0 <= self.eps < 2**32 and 0 <= self.eps_shift <= 28,
            "bad epsilon",
            "below 2**32, shifted by at most 28",
            (self.eps, self.eps_shift),
        )
        self.require(
            0 <= self.shift <= 62 and 0 <= self.beta_shift <= 24,
            "bad shift",
            "0..62, 0..24",
            (self.shift, self.beta_shift),
        )
        self.require_clip()
        return [(tuple(shapes[0]), width(self.wide))]

    def compute(self, x: te.Tensor, gamma: te.Tensor, beta: te.Tensor) -> te.Tensor:
        length, last = int(x.shape[-1]), len(x.shape) - 1
        value = lambda v: int64(arithmetic.centred(v, self.in_zp))  # noqa: E731
        squares = reduction.reduce(x, [last], True, te.sum, lambda v: value(v) * value(v), "squares")
        total = reduction.reduce(x, [last], True, te.sum, value, "total")
        mean = (lambda *row: total(*row)) if self.centre else (lambda *row: int64(0))
        spread = te.compute(
            squares.shape,
            lambda *row: arithmetic.larger(
                int64(length) * squares(*row) - mean(*row) * mean(*row) + int64(self.eps << self.eps_shift), int64(1)
            ),
            name="spread",
        )
        power = te.compute(squares.shape, lambda *row: _quarter_power(spread(*row)), name="power")
        root = te.compute(squares.shape, lambda *row: _reciprocal_root(spread(*row), power(*row)), name="root")

        def element(*index):
            row = (*index[:-1], 0)
            distance = int64(length) * value(x(*index)) - mean(*row)
            t = arithmetic.rounding_shift(distance * root(*row), power(*row) + int64(17))
            factor, summand = (tensor(0 if int(tensor.shape[0]) == 1 else index[-1]) for tensor in (gamma, beta))
            scaled = t * int64(factor) + (int64(summand) << int64(self.beta_shift))
            return finish(arithmetic.rounding_shift(scaled, self.shift), self)

        return te.compute(x.shape, element, name="norm")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [
            _whole_rows(out_region, shapes[0][-1]),
            *(regions.broadcast(out_region[-1:], shape) for shape in shapes[1:]),
        ]


def _quarter_power(spread: tirx.Expr) -> tirx.Expr:
    """k with ``spread / 4**k`` in 2**30..2**32-1, of an int64 from 1 to below 2**62: how many of those bounds it
    reaches."""
    reached = int64(-15)
    for k in range(-14, 16):
        reached = reached + tirx.Select(spread >= int64(1 << (30 + 2 * k)), int64(1), int64(0))
    return reached


def _reciprocal_root(spread: tirx.Expr, power: tirx.Expr) -> tirx.Expr:
    """``isqrt(2**62 // v)``, v = spread / 4**power; the root of a number of at most 33 bits, whose double is exact and
    rounded right."""
    up, down = (arithmetic.larger(p, int64(0)) * int64(2) for p in (power * int64(-1), power))
    quotient = tirx.floordiv(int64(1 << 62), (spread << up) >> down)
    return tirx.sqrt(quotient.astype("float64")).astype("int64")


@ergo_op("exp_rows")
@dataclass(frozen=True)
class ExpRows(ErgoOp):
    """Softmax before its division, under a mask: the formula of the instruction EXP_ROWS.

    x i16[..., M, K] with 8 fraction bits of log2 units, lut i32[256], and perhaps a mask i8 that broadcasts to x ->
    u8[..., M, K]. Elements are valid where the mask is nonzero and, with ``causal``, up to the row's number plus
    ``offset``; others are 0, and so are rows without any."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x", "lut", "*mask")
    causal: bool = False
    offset: int = 0

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require(len(shapes) in (2, 3), "wrong number of tensors", "2, or 3 with a mask", len(shapes))
        self.require(
            tuple(dtypes) == ("int16", "int32", "int8")[: len(dtypes)],
            "wrong dtypes",
            "int16, int32 and int8",
            list(dtypes),
        )
        self.require(len(shapes[0]) >= 2, "the rows have no number", "rank >= 2", shapes[0])
        self.require_shape("lut", shapes[1], (256,))
        for mask in shapes[2:]:
            self.require(
                regions.broadcast_shape(shapes[0], mask) == tuple(shapes[0]),
                "the mask does not broadcast to x",
                shapes[0],
                mask,
            )
        self.require(-(2**20) <= self.offset <= 2**20, "bad offset", "up to 2**20", self.offset)
        return [(tuple(shapes[0]), "uint8")]

    def compute(self, x: te.Tensor, lut: te.Tensor, *mask: te.Tensor) -> te.Tensor:
        shape, lowest = [int(d) for d in x.shape], tirx.const(-32768, "int32")
        k = te.reduce_axis((0, shape[-1]), "k")

        def valid(index):
            conditions = []
            if self.causal:
                conditions.append(index[-1] <= index[-2] + self.offset)
            for tensor in mask:
                offset = len(shape) - len(tensor.shape)
                place = [0 if int(d) == 1 else index[offset + axis] for axis, d in enumerate(tensor.shape)]
                conditions.append(tensor(*place) != tirx.const(0, "int8"))
            return tirx.all(*conditions) if conditions else tirx.const(True, "bool")

        def known(*index):
            return tirx.Select(valid(index), x(*index).astype("int32"), lowest)

        candidates = te.compute(shape, known, name="candidates")
        largest = te.compute(shape[:-1], lambda *row: te.max(candidates(*row, k), axis=k), name="largest")

        def element(*index):
            distance = arithmetic.larger(largest(*index[:-1]) - x(*index).astype("int32"), tirx.const(0, "int32"))
            power = lut(distance & 255) >> arithmetic.smaller(distance >> 8, tirx.const(31, "int32"))
            rounded = arithmetic.smaller((power + 64) >> 7, tirx.const(255, "int32"))
            return tirx.Select(valid(index), rounded, tirx.const(0, "int32")).astype("uint8")

        return te.compute(shape, element, name="exp_rows")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        rows = _whole_rows(out_region, shapes[0][-1])
        return [rows, ((0, 256),), *(regions.broadcast(rows, mask) for mask in shapes[2:])]


@ergo_op("weighted_mean")
@dataclass(frozen=True)
class WeightedMean(ErgoOp):
    """Means of b's rows with the weights in a's: the formula of the instruction WEIGHTED_MEAN.

    a u8[..., M, K], b i8[..., K, N], batch dimensions broadcast -> [..., M, N], i16 where ``wide``, else i8. mult,
    shift: of means with 8 fraction bits."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("a", "b")
    wide: bool
    b_zp: int
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 2)
        self.require_dtypes(dtypes, ("uint8", "int8"))
        a, b = shapes
        self.require(min(len(a), len(b)) >= 2, "operands are not matrices", "rank >= 2", f"{a} and {b}")
        self.require(a[-1] == b[-2], "inner dimensions differ", f"K = {a[-1]}", f"K = {b[-2]}")
        self.require(a[-1] < 2**15, "the inner dimension is too long", "below 2**15", a[-1])
        batch = regions.broadcast_shape(a[:-2], b[:-2])
        self.require(batch is not None, "batch dimensions do not broadcast", "equal or 1", f"{a[:-2]} and {b[:-2]}")
        self.require_int8(b_zp=self.b_zp)
        self.require_multiplier(self.mult, self.shift)
        self.require_clip()
        self.require(not self.wide or self.out_zp == 0, "an int16 tensor has a zero point", 0, self.out_zp)
        return [((*batch, a[-2], b[-1]), width(self.wide))]

    def compute(self, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        acc = contraction.matmul(a, b, False, 0, self.b_zp)
        weight = reduction.reduce(a, [len(a.shape) - 1], True, te.sum, int64, "weight")
        offset = len(acc.shape) - len(a.shape)

        def element(*index):
            row = [0 if int(d) == 1 else index[offset + axis] for axis, d in enumerate(a.shape[:-1])]
            share = tirx.floordiv(int64(1 << 30), arithmetic.larger(weight(*row, 0), int64(1)))
            return requantize(arithmetic.rounding_shift(int64(acc(*index)) * share, 22), self)

        return te.compute(acc.shape, element, name="weighted_mean")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        a, b = shapes
        batch, rows, columns, depth = out_region[:-2], out_region[-2], out_region[-1], (0, shapes[0][-1])
        return [regions.broadcast(batch, a[:-2]) + (rows, depth), regions.broadcast(batch, b[:-2]) + (depth, columns)]

    def macs(self, shapes: Sequence[Shape]) -> int:
        ((shape, _),) = self.infer(shapes, ("uint8", "int8"))
        return prod(shape) * shapes[0][-1]


@ergo_op("rotate")
@dataclass(frozen=True)
class Rotate(ErgoOp):
    """Rotary position embedding: ``clip(out_zp + floor((x * cos + y * sin) * mult / 2**shift + 1/2))``, y the partner
    of x in its row.

    x, cos, sin i16[..., D], cos and sin broadcast to x -> i16 where ``wide``, else i8. ``interleaved``: partners are
    neighbours, else D/2 apart."""

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("x", "cos", "sin")
    wide: bool
    interleaved: bool
    mult: int
    shift: int
    lo: int = -128
    hi: int = 127

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, ("int16", "int16", "int16"))
        x = tuple(shapes[0])
        self.require(len(x) >= 1 and x[-1] % 2 == 0, "the rows have no pairs", "an even length", x)
        for name, shape in zip(("cos", "sin"), shapes[1:]):
            self.require(regions.broadcast_shape(x, shape) == x, f"{name} does not broadcast to x", x, shape)
        self.require_multiplier(self.mult, self.shift)
        self.require_clip()
        self.require(not self.wide or self.out_zp == 0, "an int16 tensor has a zero point", 0, self.out_zp)
        return [(x, width(self.wide))]

    def compute(self, x: te.Tensor, cos: te.Tensor, sin: te.Tensor) -> te.Tensor:
        length = int(x.shape[-1])

        def element(*index):
            last = index[-1]
            partner = (
                last + 1 - 2 * tirx.floormod(last, 2) if self.interleaved else tirx.floormod(last + length // 2, length)
            )

            def factor(tensor):
                offset = len(index) - len(tensor.shape)
                return int64(
                    tensor(*[0 if int(d) == 1 else index[offset + axis] for axis, d in enumerate(tensor.shape)])
                )

            return requantize(int64(x(*index)) * factor(cos) + int64(x(*index[:-1], partner)) * factor(sin), self)

        return te.compute(x.shape, element, name="rotate")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        return [_whole_rows(out_region, shapes[0][-1]), *(regions.broadcast(out_region, shape) for shape in shapes[1:])]


@ergo_op("gather_rows")
@dataclass(frozen=True)
class GatherRows(ErgoOp):
    """Rows of a table by number: ``sat16(floor(table[i] * mult[i] / 2**shift + 1/2))``; negative numbers count from the
    end, others are clipped.

    table i8[V, C], mult i32[V], ids i32[...] -> i16[..., C].
    """

    traits = Traits(rows=Rows.WHOLE)

    arg_names = ("table", "mult", "ids")
    shift: int

    def infer(self, shapes: Sequence[Shape], dtypes: Sequence[str]) -> list[tuple[Shape, str]]:
        self.require_count(shapes, 3)
        self.require_dtypes(dtypes, ("int8", "int32", "int32"))
        self.require(len(shapes[0]) == 2, "the table is no matrix", "rank 2", shapes[0])
        self.require_shape("mult", shapes[1], shapes[0][:1])
        self.require(len(shapes[2]) >= 1, "ids have no axis", "rank >= 1", shapes[2])
        self.require(0 <= self.shift <= 62, "shift out of range", "0..62", self.shift)
        self.require(self.out_zp == 0, "an int16 tensor has a zero point", 0, self.out_zp)
        return [((*shapes[2], shapes[0][1]), "int16")]

    def compute(self, table: te.Tensor, mult: te.Tensor, ids: te.Tensor) -> te.Tensor:
        rows = int(table.shape[0])

        def element(*index):
            number = ids(*index[:-1])
            number = tirx.Select(number < 0, number + rows, number)
            row = arithmetic.larger(arithmetic.smaller(number, tirx.const(rows - 1, "int32")), tirx.const(0, "int32"))
            return saturate(arithmetic.rounding_shift(int64(table(row, index[-1])) * int64(mult(row)), self.shift))

        return te.compute((*ids.shape, table.shape[1]), element, name="gather_rows")

    def input_regions(self, out_region: Region, shapes: Sequence[Shape], values=None) -> list[Region]:
        rows = (0, shapes[0][0])
        return [(rows, out_region[-1]), (rows,), tuple(out_region[:-1])]
