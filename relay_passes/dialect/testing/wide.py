"""Random instances of the ops with 16-bit tensors and of those on rows."""

from __future__ import annotations

import dataclasses

import numpy as np

from tvm_ergo.relay_passes.dialect.base import Shape
from tvm_ergo.relay_passes.dialect.positions import PutRows, ShiftRows, TakeRows
from tvm_ergo.relay_passes.dialect.rows import ExpRows, GatherRows, Norm, Rotate, WeightedMean
from tvm_ergo.relay_passes.dialect.testing import simple
from tvm_ergo.relay_passes.dialect.testing.source import (
    INT8_STD,
    MAKERS,
    RandomCall,
    Source,
    any_shape,
    maker,
    random_array,
)
from tvm_ergo.relay_passes.dialect.wide import AddWide, Conv2dWide, MatMulWide, Rescale

INT16_STD = INT8_STD * 256
EXPONENTIALS = np.rint(2.0**15 * 2.0 ** (-np.arange(256) / 256)).astype(np.int32)


def _widened(case: RandomCall, cls: type) -> RandomCall:
    """The same call with an int16 result."""
    fields = {field.name: getattr(case.op, field.name) for field in dataclasses.fields(cls)}
    return RandomCall(cls(**{**fields, "out_zp": 0}), case.shapes, case.dtypes, case.constants)


@maker("conv2d_wide")
def _conv2d_wide(source: Source, shape: Shape | None) -> RandomCall:
    return _widened(MAKERS["conv2d"](source, shape), Conv2dWide)


@maker("matmul_wide")
def _matmul_wide(source: Source, shape: Shape | None) -> RandomCall:
    return _widened(MAKERS["matmul"](source, shape), MatMulWide)


def _tail(source: Source, scale: float) -> dict:
    """Fields of a requantization to either width."""
    wide = source.chance(50)
    fields = simple._scalar_tail(source, scale * (256 if wide else 1))
    return {**fields, "wide": wide, "out_zp": 0 if wide else fields["out_zp"]}


@maker("add_wide")
def _add_wide(source: Source, shape: Shape | None) -> RandomCall:
    case = MAKERS["add"](source, shape)
    dtypes = (source.choice(("int8", "int16")) if shape is None else "int8", source.choice(("int8", "int16")))
    zps = [getattr(case.op, name) if dtype == "int8" else 0 for name, dtype in zip(("a_zp", "b_zp"), dtypes)]
    op = AddWide(a_zp=zps[0], b_zp=zps[1], a_mult=case.op.a_mult, b_mult=case.op.b_mult, shift=case.op.shift)
    return RandomCall(op, case.shapes, dtypes)


@maker("rescale")
def _rescale(source: Source, shape: Shape | None) -> RandomCall:
    dtype = source.choice(("int8", "int16")) if shape is None else "int8"
    op = Rescale(
        in_zp=source.zero_point() if dtype == "int8" else 0, **_tail(source, 1.0 if dtype == "int8" else 1 / 256)
    )
    return RandomCall(op, (any_shape(source, shape),), (dtype,))


@maker("norm")
def _norm(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    dtype = source.choice(("int8", "int16")) if shape is None else "int8"
    wide = source.chance(50)
    lo, hi = source.clip()
    eps = source.choice((0, 1, 2**32 - 1, source.integer(0, 2**20)))
    beta = (
        random_array(source.rng, x[-1:], "int32")
        if source.chance(20)
        else source.rng.integers(-(2**20), 2**20, x[-1:]).astype(np.int32)
    )
    op = Norm(
        wide=wide,
        centre=source.chance(50),
        in_zp=source.zero_point() if dtype == "int8" else 0,
        eps=eps,
        eps_shift=source.choice((0, 0, 28, 9)),
        beta_shift=source.choice((0, 8, 24)),
        shift=source.choice((source.integer(16, 26), 0, 62)),
        lo=lo,
        hi=hi,
        out_zp=0 if wide else source.zero_point(),
    )
    gamma, beta = random_array(source.rng, x[-1:], "int16"), beta[:1] if source.chance(20) else beta
    gamma = gamma[:1] if source.chance(20) else gamma
    return RandomCall(op, (x, gamma.shape, beta.shape), (dtype, "int16", "int32"), {1: gamma, 2: beta})


def _rows(source: Source) -> Shape:
    return (*(source.integer(1, 3) for _ in range(source.integer(0, 2))), source.integer(1, 6), source.integer(1, 9))


@maker("exp_rows")
def _exp_rows(source: Source, shape: Shape | None) -> RandomCall:
    x = shape or _rows(source)
    shapes, dtypes = (x, (256,)), ("int16", "int32")
    constants = {1: EXPONENTIALS}
    if source.chance(60):
        mask = tuple(dim if source.chance(60) else 1 for dim in x)[source.integer(0, len(x) - 1) :]
        shapes, dtypes = (*shapes, mask), (*dtypes, "int8")
        if source.chance(50):
            constants[2] = source.rng.integers(0, 2, mask).astype(np.int8)
    return RandomCall(
        ExpRows(causal=source.chance(50), offset=source.choice((0, 0, 1, -1, 5, -20))), shapes, dtypes, constants
    )


@maker("weighted_mean")
def _weighted_mean(source: Source, shape: Shape | None) -> RandomCall:
    case = MAKERS["matmul"](source, shape)
    a, b = case.shapes
    b = (*b[:-2], b[-1], b[-2]) if case.op.transpose_b else b
    op = WeightedMean(b_zp=case.op.b_zp, **_tail(source, 50.0 / INT8_STD / 256))
    return RandomCall(op, (a, b), ("uint8", "int8"))


@maker("rotate")
def _rotate(source: Source, shape: Shape | None) -> RandomCall:
    x = any_shape(source, shape)
    x = (*x[:-1], 2 * x[-1])
    factors = tuple(dim if source.chance(60) else 1 for dim in x)
    op = Rotate(interleaved=source.chance(50), **_tail(source, 50.0 / INT16_STD / 2**14))
    return RandomCall(op, (x, factors, factors), ("int16",) * 3)


@maker("gather_rows")
def _gather_rows(source: Source, shape: Shape | None) -> RandomCall:
    table = (source.integer(1, 9), source.integer(1, 9))
    ids = any_shape(source, shape, 1, 3)
    mult = source.rng.integers(0, 2**24, table[:1]).astype(np.int32)
    values = random_array(source.rng, table, "int8")
    constants = {0: values, 1: mult}
    if source.chance(50):
        constants[2] = source.rng.integers(-table[0] - 2, table[0] + 2, ids).astype(np.int32)
    return RandomCall(
        GatherRows(shift=source.choice((16, 20, 0, 40))),
        (table, mult.shape, ids),
        ("int8", "int32", "int32"),
        constants,
    )


def _position(source: Source, constants: dict, place: int) -> None:
    """Sometimes known, sometimes outside."""
    if source.chance(50):
        constants[place] = np.array([source.choice((0, 1, 3, 100, -5, 2**31 - 1))], np.int32)


@maker("take_rows")
def _take_rows(source: Source, shape: Shape | None) -> RandomCall:
    x, constants = shape or _rows(source), {}
    _position(source, constants, 1)
    dtype = "int8" if shape else source.choice(("int8", "uint8", "int16", "int32"))
    return RandomCall(TakeRows(rows=source.integer(1, x[-2])), (x, (1,)), (dtype, "int32"), constants)


@maker("put_rows")
def _put_rows(source: Source, shape: Shape | None) -> RandomCall:
    x, constants = shape or _rows(source), {}
    _position(source, constants, 2)
    dtype = "int8" if shape else source.choice(("int8", "uint8", "int16", "int32"))
    rows = (*x[:-2], source.integer(1, x[-2]), x[-1])
    return RandomCall(PutRows(), (x, rows, (1,)), (dtype, dtype, "int32"), constants)


@maker("shift_rows")
def _shift_rows(source: Source, shape: Shape | None) -> RandomCall:
    x = shape or _rows(source)
    axis = source.integer(0, len(x) - 1)
    dtype = "int8" if shape else source.choice(("int8", "uint8", "int16", "int32"))
    rows = tuple(source.integer(1, d) if a == axis else d for a, d in enumerate(x))
    return RandomCall(ShiftRows(axis=axis), (x, rows), (dtype, dtype), {})
