"""Instructions on whole rows, which attention is made of: normalization, exponentials under a mask, weighted means,
rotation, gathering."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, MatrixWork, ceil_div, engine_cost, plus
from tvm_ergo.target.isa.fields import I8, I32, U8, U32, Flag, Tensor, Tensors
from tvm_ergo.target.isa.geometry import broadcast_to
from tvm_ergo.target.isa.operand import DType
from tvm_ergo.target.isa.tensor import HI, I8_ONLY, I32_ONLY, LO, MULT, OUT_ZP, SHIFT
from tvm_ergo.target.isa.wide import ELEMENTS, WIDE_ONLY, halves

MAX_ROW = {DType.I8: 2**20, DType.I16: 2**14}  # elements of a row: sums of squares times their number stay below 2**60
EXPONENTIAL_BITS = 8  # fraction bits of what EXP_ROWS takes


@instruction(0x1C, Engine.VECTOR)
class Norm(Instruction):
    """Layer or RMS normalization of the rows of x[..., C], in integers.

    With X = x - in_zp: S = sum X*X; m = sum X if centre, else 0; V = max(1, C*S - m*m + (eps << eps_shift)); D = C*X -
    m. V = v * 4**k with v in 2**30..2**32-1 (bits below drop), r = isqrt(2**62 // v), t = floor(D * r / 2**(17 + k) +
    1/2): X over its deviation (root mean square), 14 fraction bits. out = clip(out_zp + floor((t * gamma + (beta <<
    beta_shift)) / 2**shift + 1/2)). Of an int16 output the bounds are those of its type."""

    x = Tensor("*", ELEMENTS, "input, [..., C]; C < 2**14 of int16, < 2**20 of int8")
    gamma = Tensor("C", WIDE_ONLY, "factor of each channel")
    beta = Tensor("C", I32_ONLY, "summand of each channel")
    out = Tensor("*", ELEMENTS, "output, x's shape", out=True)
    centre = Flag("the row's mean is subtracted: layer normalization")
    in_zp = I8("zero point of x; 0 where it is int16")
    eps = U32("epsilon in units of C*C*(step of x)**2, before its shift")
    eps_shift = U8("left shift of eps", 0, 28)
    beta_shift = U8("left shift of beta", 0, 24)
    shift, out_zp, lo, hi = SHIFT, OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(self.x.shape[-1] == dims["C"], "gamma has the wrong length", self.x.shape[-1], dims["C"])
        most = MAX_ROW[self.x.dtype]
        self.require(
            self.x.shape[-1] < most, "the rows are too long: sums must fit 64 bits", f"below {most}", self.x.shape[-1]
        )
        self.require(self.x.dtype == DType.I8 or self.in_zp == 0, "x is int16 and has a zero point", 0)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.norm(
            memory.view(self.x),
            memory.view(self.gamma),
            memory.view(self.beta),
            out=memory.view(self.out),
            **self.values("centre", "in_zp", "eps", "eps_shift", "beta_shift", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """Two passes that each read x. First: square and two sums (a 16-bit square is four 8-bit products). Second: two
        wide multiplications with rounding, each counted as a requantization, half the lanes. Per row a division and a
        root, which takes the divider once more."""
        engine, n = chip.vector, self.out.elements
        rows, half = n // self.x.shape[-1], halves(self.x, self.out)
        cycles = (
            ceil_div(half * n, engine.lanes)
            + 2 * ceil_div(2 * n, engine.lanes)
            + 2 * ceil_div(rows, engine.divide_lanes)
        )
        squares, factors = (
            self.x.dtype.itemsize**2,
            max(2, self.gamma.distinct_bytes) + max(4, self.beta.distinct_bytes),
        )
        events = {
            Event.MUL_8X8: squares * n,
            Event.ACC_ADD_32: (squares + 2) * n,
            Event.REQUANT: 2 * n,
            Event.DIVIDE: 2 * rows,
            Event.LOCAL_WRITE_BYTE: factors,
        }
        read = 2 * self.x.distinct_bytes + factors
        return engine_cost(engine, cycles, read, self.out.size_bytes, events)


@instruction(0x1D, Engine.VECTOR, "EXP_ROWS")
class ExpRows(Instruction):
    """Softmax before its division: per row of x[..., M, K] the exponentials relative to the largest valid element, 255
    for that.

    x has 8 fraction bits of log2 units. Element k of row m is valid if every mask is nonzero there and, if causal, k <=
    m + offset. With d = max over the valid ones - x: e = lut[d mod 2**8] >> min(d >> 8, 31), out = min(floor(e / 2**7 +
    1/2), 255); 0 where not valid, so rows without a valid element are 0. lut[i] = round(2**15 * 2**(-i / 256)) makes it
    2**-d."""

    x = Tensor("*", WIDE_ONLY, "input, [..., M, K]")
    lut = Tensor("256", I32_ONLY, "exponentials, 0..2**15")
    mask = Tensors("int8 masks that broadcast to x: none or one", most=1)
    out = Tensor("*", (DType.U8,), "output, x's shape", out=True)
    causal = Flag("later elements than the row's number plus offset are not valid")
    offset = I32("of causal", -(2**20), 2**20)

    def check_rules(self, dims):
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(self.x.rank >= 2, "the rows have no number", "rank 2 or more", self.x.shape)
        for mask in self.mask:
            self.require(mask.dtype == DType.I8, "the mask has the wrong element type", "I8", mask.dtype.name)
            self.require(
                broadcast_to(mask.shape, self.x.shape), "the mask does not broadcast to x", self.x.shape, mask.shape
            )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.exp_rows(
            memory.view(self.x),
            memory.view(self.lut),
            *(memory.view(mask) for mask in self.mask),
            out=memory.view(self.out),
            **self.values("causal", "offset"),
        )

    def valid(self) -> int:
        """Elements that causal leaves; what a mask leaves depends on data and is not counted off."""
        rows, length = self.x.shape[-2:]
        if not self.causal:
            return self.x.elements
        kept = int(np.clip(np.arange(rows) + 1 + self.offset, 0, length).sum())
        return self.x.elements // (rows * length) * kept

    def cost(self, chip) -> Cost:
        """Two passes over what causal leaves: the maximum at half the lanes (16 bits), then difference, look-up, shift
        and clip on the table lanes. The rest of a row is only written. The table is loaded once."""
        engine, n = chip.vector, self.valid()
        cycles = ceil_div(2 * n, engine.lanes) + ceil_div(n, engine.table_lanes)
        events = {
            Event.ALU_8: 8 * n,
            Event.LUT_READ: n,
            Event.ACC_ADD_32: n,
            Event.LOCAL_WRITE_BYTE: self.lut.size_bytes,
        }
        read = 4 * n + self.lut.size_bytes + sum(mask.distinct_bytes for mask in self.mask)
        return engine_cost(engine, cycles, read, self.out.size_bytes, events)


@instruction(0x05, Engine.TENSOR, "WEIGHTED_MEAN")
class WeightedMean(Instruction):
    """Means of the rows of b with the weights in a's rows: what comes behind EXP_ROWS, and mean pooling under a mask.

    acc = sum over k of a[m,k] * (b[k,n] - b_zp), s = max(1, sum over k of a[m,k]), acc = floor(acc * (2**30 // s) /
    2**22 + 1/2), out = clip(out_zp + floor(acc * mult / 2**shift + 1/2)): the mean has 8 fraction bits before it is
    requantized. Of an int16 output the bounds are those of its type, and out_zp, lo and hi are not used. A row without
    weights gives the mean 0."""

    a = Tensor("*", (DType.U8,), "weights, [..., M, K], K < 2**15")
    b = Tensor("*", I8_ONLY, "values, [..., K, N]")
    out = Tensor("*", ELEMENTS, "output, [..., M, N]", out=True)
    b_zp = I8("zero point of b")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.require(min(self.a.rank, self.b.rank, self.out.rank) >= 2, "matrices have at least two axes")
        (m, k), (bk, n) = self.a.shape[-2:], self.b.shape[-2:]
        self.require(k == bk, "the inner axes differ", f"K = {k}", bk)
        self.require(k < 2**15, "the inner axis is too long: sums must fit 32 bits", f"below {2**15}", k)
        self.require(self.out.shape[-2:] == (m, n), "the output has the wrong size", (m, n), self.out.shape[-2:])
        batch = self.out.shape[:-2]
        self.require(
            all(broadcast_to(t.shape[:-2], batch) for t in (self.a, self.b))
            and math.prod(batch) == math.prod(np.broadcast_shapes(self.a.shape[:-2], self.b.shape[:-2])),
            "the batch axes do not broadcast to the output's",
            batch,
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.weighted_mean(
            memory.view(self.a),
            memory.view(self.b),
            out=memory.view(self.out),
            **self.values("b_zp", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """As MATMUL with one column more, of ones, for the sums; per row a division, per result a second requantization
        (counted beside the array: its results leave it more slowly than the requantizers take them)."""
        array, (m, n), k = chip.tensor, self.out.shape[-2:], self.a.shape[-1]
        repeat = math.prod(self.out.shape[:-2])
        work = MatrixWork(
            pixels=m,
            channels=n,
            depth=k,
            steps=ceil_div(k, array.input_lanes),
            input_bytes=m * k,
            weight_bytes=k * n,
            repeat=repeat,
        )
        cost = work.cost(array, 0, self.b, self.out)
        extra = {Event.ACC_ADD_32: repeat * m * k, Event.DIVIDE: repeat * m, Event.REQUANT: self.out.elements}
        return Cost(cost.cycles, plus(cost.events, extra))


@instruction(0x1E, Engine.VECTOR)
class Rotate(Instruction):
    """Rotary position embedding: ``clip(out_zp + (x * cos + y * sin) * mult / 2**shift rounded half up)``, cos and sin
    with 14 fraction bits.

    y is x's partner in its row of D: with ``interleaved`` its neighbour (0 and 1, 2 and 3, ...), else the element D/2
    further, modulo D. The sign of the first partner's sine is in sin. Of an int16 output the bounds are those of its
    type, and out_zp, lo and hi are not used."""

    x = Tensor("*", WIDE_ONLY, "input, [..., D], D even")
    cos = Tensor("*", WIDE_ONLY, "factors of x, broadcast to x's shape")
    sin = Tensor("*", WIDE_ONLY, "factors of the partner, broadcast to x's shape")
    out = Tensor("*", ELEMENTS, "output, x's shape", out=True)
    interleaved = Flag("partners are neighbours")
    mult, shift = MULT, SHIFT
    out_zp, lo, hi = OUT_ZP, LO, HI

    def check_rules(self, dims):
        self.check_clip()
        self.require(self.x.shape == self.out.shape, "the output has the wrong shape", self.x.shape, self.out.shape)
        self.require(self.x.shape[-1] % 2 == 0, "the rows have no pairs", "an even length", self.x.shape[-1])
        for name in ("cos", "sin"):
            shape = getattr(self, name).shape
            self.require(broadcast_to(shape, self.x.shape), f"{name} does not broadcast to x", self.x.shape, shape)

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.rotate(
            memory.view(self.x),
            memory.view(self.cos),
            memory.view(self.sin),
            out=memory.view(self.out),
            **self.values("interleaved", "mult", "shift", "out_zp", "lo", "hi"),
        )

    def cost(self, chip) -> Cost:
        """One pass at a quarter of the lanes: two 16-bit products (four 8-bit ones each), their sum, one
        requantization."""
        engine, n = chip.vector, self.out.elements
        events = {Event.MUL_8X8: 8 * n, Event.ACC_ADD_32: 7 * n, Event.REQUANT: n}
        read = self.x.distinct_bytes + self.cos.distinct_bytes + self.sin.distinct_bytes
        return engine_cost(engine, ceil_div(4 * n, engine.lanes), read, self.out.size_bytes, events)


@instruction(0x1F, Engine.VECTOR)
class Gather(Instruction):
    """Rows of a table by number, each with a scale of its own: ``sat16(table[i] * mult[i] / 2**shift rounded half
    up)``.

    i is ids' element; a negative one counts from the end; what is still outside becomes the nearest row. Each
    multiplier 0..2**24-1."""

    table = Tensor("V C", I8_ONLY, "rows")
    mult = Tensor("V", I32_ONLY, "multiplier of each row")
    ids = Tensor("*", I32_ONLY, "row numbers, out's shape without its last axis")
    out = Tensor("*", WIDE_ONLY, "output, [..., C]", out=True)
    shift = SHIFT

    def check_rules(self, dims):
        self.require(
            self.out.shape == (*self.ids.shape, dims["C"]),
            "the output has the wrong shape",
            (*self.ids.shape, dims["C"]),
            self.out.shape,
        )

    def execute(self, memory) -> None:
        from tvm_ergo.target.machine import kernels

        kernels.gather_rows(
            memory.view(self.table),
            memory.view(self.mult),
            memory.view(self.ids),
            out=memory.view(self.out),
            shift=self.shift,
        )

    def cost(self, chip) -> Cost:
        """Row by row: each starts a new cycle; half the lanes. Per row its number and its multiplier are read, per
        element one product and rounding."""
        engine, (*_, c), rows = chip.vector, self.out.shape, self.ids.elements
        events = {Event.RESCALE_9X22: rows * c, Event.ACC_ADD_32: rows * c, Event.ALU_8: 2 * rows * c}
        return engine_cost(engine, rows * ceil_div(2 * c, engine.lanes), rows * (c + 8), self.out.size_bytes, events)
