"""Random instances of the ops on 16-bit activations with zero points."""

from __future__ import annotations

import dataclasses

import numpy as np

from tvm_ergo.relay_passes.dialect.base import Shape
from tvm_ergo.relay_passes.dialect.int16 import Add16, Conv2d16, Mul16, Rescale16, Table16
from tvm_ergo.relay_passes.dialect.testing.source import MAKERS, RandomCall, Source, any_shape, maker, random_array
from tvm_ergo.relay_passes.dialect.testing.wide import INT16_STD
from tvm_ergo.relay_passes.dialect.wide import ELEMENTS


def _zero(source: Source, dtype: str) -> int:
    return source.zero_point() * (1 if dtype == "int8" else source.choice((0, 1, 250)))


def _ends(source: Source, wide: bool) -> dict:
    """Zero point and bounds of the result."""
    scale = 256 if wide else 1
    lo, hi = source.clip()
    return {"wide": wide, "out_zp": _zero(source, "int16" if wide else "int8"), "lo": lo * scale, "hi": hi * scale}


def _dtype(source: Source, shape: Shape | None) -> str:
    return source.choice(ELEMENTS) if shape is None else "int8"


@maker("conv2d_16")
def _conv2d_16(source: Source, shape: Shape | None) -> RandomCall:
    case, dtype = MAKERS["conv2d"](source, shape), _dtype(source, shape)
    fields = {field.name: getattr(case.op, field.name) for field in dataclasses.fields(case.op)}
    op = Conv2d16(**{**fields, **_ends(source, source.chance(60)), "in_zp": _zero(source, dtype)})
    constants = dict(case.constants)
    if dtype == "int16":
        constants[4] = np.minimum(constants[4].astype(int) + 8, 62).astype(np.int8)
    return RandomCall(op, case.shapes, (dtype, *case.dtypes[1:]), constants)


def _pair(source: Source, shape: Shape | None, name: str) -> tuple[RandomCall, tuple[str, str], dict]:
    case, dtypes = MAKERS[name](source, shape), (_dtype(source, shape), source.choice(ELEMENTS))
    zps = {"a_zp": _zero(source, dtypes[0]), "b_zp": _zero(source, dtypes[1])}
    return case, dtypes, {**zps, **_ends(source, source.chance(60))}


@maker("add_16")
def _add_16(source: Source, shape: Shape | None) -> RandomCall:
    case, dtypes, fields = _pair(source, shape, "add")
    op = Add16(a_mult=case.op.a_mult, b_mult=case.op.b_mult, shift=case.op.shift, **fields)
    return RandomCall(op, case.shapes, dtypes)


@maker("mul_16")
def _mul_16(source: Source, shape: Shape | None) -> RandomCall:
    case, dtypes, fields = _pair(source, shape, "mul")
    shift = min(62, case.op.shift + 8 * dtypes.count("int16"))
    return RandomCall(Mul16(mult=case.op.mult, shift=shift, **fields), case.shapes, dtypes)


@maker("rescale_16")
def _rescale_16(source: Source, shape: Shape | None) -> RandomCall:
    dtype, fields = _dtype(source, shape), _ends(source, source.chance(60))
    spread = 50.0 / INT16_STD * (1 if dtype == "int16" else 256) * (256 if fields["wide"] else 1)
    mult, shift = (int(v[0]) for v in source.multipliers(spread, 1))
    op = Rescale16(in_zp=_zero(source, dtype), mult=mult, shift=shift, **fields)
    return RandomCall(op, (any_shape(source, shape),), (dtype,))


@maker("table_16")
def _table_16(source: Source, shape: Shape | None) -> RandomCall:
    step, wide = source.choice((0, 7, 7, 8, 15)), source.chance(70)
    lut = random_array(source.rng, ((1 << (16 - step)) + 1,), "int16", source.chance(20)) >> (0 if wide else 8)
    return RandomCall(Table16(step=step, wide=wide), (any_shape(source, None), lut.shape), ("int16", "int16"), {1: lut})
