"""Random instructions of 16-bit elements, of attention, and of the sparse engine."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tvm_ergo.target.codecs.eie import EieFormat, Pointers, encode
from tvm_ergo.target.isa import (
    Add16,
    AddWide,
    Conv16,
    DType,
    ExpRows,
    Gather,
    Mul16,
    Norm,
    PutRows,
    Rescale,
    Rescale16,
    Rotate,
    ShiftRows,
    Spmv,
    Table16,
    TakeRows,
    WeightedMean,
    contiguous,
)
from tvm_ergo.target.isa.geometry import window_shape

from .scene import Scene, zero_points

ELEMENTS = st.sampled_from(["int8", "int16"])


def _zero(s: Scene, operand) -> int:
    return s.draw(zero_points) if operand.dtype == DType.I8 else 0


def _shape(s: Scene, last=(1, 3, 8, 64, 70, 130), axes: int = 3) -> tuple[int, ...]:
    return (*(s.int(1, 4) for _ in range(s.int(0, axes))), s.draw(st.sampled_from(last)))


def _add_wide(s: Scene):
    shape = _shape(s)
    out = s.place(shape, "int16")
    a, b = (out if s.int(0, 4) == 0 else s.repeated(shape, s.draw(ELEMENTS)) for _ in range(2))
    mults = {f"{side}_mult": s.draw(st.sampled_from([2**21 - 1, 1 - 2**21, 12345, -777, 0])) for side in "ab"}
    return AddWide(a=a, b=b, out=out, a_zp=_zero(s, a), b_zp=_zero(s, b), **mults, shift=s.int(0, 62))


def _zero_16(s: Scene, operand) -> int:
    return s.draw(zero_points) * (1 if operand.dtype == DType.I8 else s.draw(st.sampled_from([1, 250])))


def _ends_16(s: Scene, out) -> dict[str, int]:
    low, high = (-128, 127) if out.dtype == DType.I8 else (-32768, 32767)
    lo = s.draw(st.sampled_from([low, low // 3]))
    return {"out_zp": _zero_16(s, out), "lo": lo, "hi": s.draw(st.sampled_from([high, high // 2]))}


def _conv_16(s: Scene):
    groups, kernel, strides, dilation = s.int(1, 3), (s.int(1, 3), s.int(1, 3)), (s.int(1, 2), 1), (1, s.int(1, 2))
    depth, out_channels = s.int(1, 5), groups * s.int(1, 4)
    padding = tuple(s.int(0, kernel[i % 2] - 1) for i in range(4))
    x = s.place((s.int(1, 2), s.int(3, 6), s.int(5, 7), groups * depth), s.draw(ELEMENTS))
    size = window_shape(x.shape[1:3], kernel, strides, padding, dilation)
    w = s.weights((out_channels, *kernel, depth))
    out = s.place((x.shape[0], *size, out_channels), s.draw(ELEMENTS))
    window = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    zero_points_of = {"in_zp": _zero_16(s, x), "w_zp": s.draw(zero_points)}
    return Conv16(x=x, w=w, out=out, **s.per_channel(out_channels), **window, **zero_points_of, **_ends_16(s, out))


def _pair_16(s: Scene, product: bool):
    shape = _shape(s)
    out = s.place(shape, s.draw(ELEMENTS))
    a, b = (out if s.int(0, 4) == 0 else s.repeated(shape, s.draw(ELEMENTS)) for _ in range(2))
    ends = {"a_zp": _zero_16(s, a), "b_zp": _zero_16(s, b), "shift": s.int(0, 62), **_ends_16(s, out)}
    if product:
        return Mul16(a=a, b=b, out=out, mult=s.draw(st.sampled_from([2**24 - 1, 12345, 0])), **ends)
    mults = {f"{side}_mult": s.draw(st.sampled_from([2**21 - 1, 1 - 2**21, 12345, -777, 0])) for side in "ab"}
    return Add16(a=a, b=b, out=out, **mults, **ends)


def _rescale_16(s: Scene):
    x = s.place(_shape(s), s.draw(ELEMENTS))
    out = x if s.int(0, 3) == 0 else s.place(x.shape, s.draw(ELEMENTS))
    mult = s.draw(st.sampled_from([2**24 - 1, 2**23, 12345, 0]))
    return Rescale16(x=x, out=out, in_zp=_zero_16(s, x), mult=mult, shift=s.int(0, 62), **_ends_16(s, out))


def _table_16(s: Scene):
    step = s.draw(st.sampled_from([7, 8, 9, 15]))
    x, lut = s.place(_shape(s), "int16"), s.place(((1 << (16 - step)) + 1,), "int16")
    out = x if s.int(0, 3) == 0 else s.place(x.shape, s.draw(ELEMENTS))
    return Table16(x=x, lut=lut, out=out, step=step)


def _rescale(s: Scene):
    x = s.place(_shape(s), s.draw(ELEMENTS))
    out = x if s.int(0, 3) == 0 else s.place(x.shape, s.draw(ELEMENTS))
    return Rescale(x=x, out=out, in_zp=_zero(s, x), **s.scale())


def _norm(s: Scene):
    x = s.place(_shape(s), s.draw(ELEMENTS))
    length = x.shape[-1]
    if s.int(0, 4) == 0:
        s.memory.view(x)[...] = s.int(-128, 127)  # no deviation
    gamma, beta = s.place((length,), "int16"), s.place((length,), "int32")
    scale = s.scale()
    del scale["mult"]
    return Norm(
        x=x,
        gamma=gamma,
        beta=beta,
        out=s.place(x.shape, s.draw(ELEMENTS)),
        centre=s.draw(st.booleans()),
        in_zp=_zero(s, x),
        eps=s.draw(st.sampled_from([0, 1, 2**32 - 1, 12345])),
        eps_shift=s.int(0, 28),
        beta_shift=s.int(0, 24),
        **scale,
    )


def _exp_rows(s: Scene):
    shape = (*(s.int(1, 3) for _ in range(s.int(0, 3))), s.int(1, 6), s.draw(st.sampled_from([1, 5, 64, 70])))
    x, lut = s.place(shape, "int16"), s.place((256,), "int32")
    if s.int(0, 3):  # as the compiler makes it; else any numbers
        s.memory.view(lut)[...] = np.round(2**15 * 2 ** (-np.arange(256) / 256))
    if s.draw(st.booleans()):
        s.memory.view(x)[...] = s.rng.integers(-900, 900, shape)
    mask = [s.repeated(shape)] if s.draw(st.booleans()) else []
    for operand in mask:
        s.memory.view(operand)[...] = s.rng.integers(0, 2, operand.shape) * s.draw(st.sampled_from([0, 1, -1]))
    return ExpRows(
        x=x,
        lut=lut,
        mask=mask,
        out=s.place(shape, "uint8"),
        causal=s.draw(st.booleans()),
        offset=s.draw(st.sampled_from([-3, 0, 1, 2, 100, -(2**20), 2**20])),
    )


def _weighted_mean(s: Scene):
    m, k, n = (
        s.draw(st.sampled_from([1, 3, 13, 30])),
        s.draw(st.sampled_from([1, 3, 8, 65])),
        s.draw(st.sampled_from([1, 7, 64, 70])),
    )
    batch = tuple(s.int(1, 3) for _ in range(s.int(0, 2)))
    left, right = (tuple(d if s.int(0, 2) else 1 for d in batch) for _ in range(2))
    a = s.place((*left, m, k), "uint8")
    if s.draw(st.booleans()):
        s.memory.view(a)[...] *= s.rng.integers(0, 2, a.shape).astype(np.uint8) * s.int(0, 1)
    return WeightedMean(
        a=a,
        b=s.place((*right, k, n)),
        out=s.place((*np.broadcast_shapes(left, right), m, n), s.draw(ELEMENTS)),
        b_zp=s.draw(zero_points),
        **s.scale(),
    )


def _rotate(s: Scene):
    shape = _shape(s, (2, 4, 64, 70, 130, 140))
    return Rotate(
        x=s.place(shape, "int16"),
        cos=s.repeated(shape, "int16"),
        sin=s.repeated(shape, "int16"),
        out=s.place(shape, s.draw(ELEMENTS)),
        interleaved=s.draw(st.booleans()),
        **s.scale(),
    )


def _gather(s: Scene):
    rows, c = s.int(1, 7), s.draw(st.sampled_from([1, 5, 64, 70]))
    shape = tuple(s.int(1, 4) for _ in range(s.int(1, 3)))
    ids, mult = s.place(shape, "int32"), s.place((rows,), "int32")
    if s.int(0, 3):
        s.memory.view(ids)[...] = s.rng.integers(-rows - 1, rows + 2, shape)
    s.memory.view(mult)[...] = s.rng.integers(0, 2**24, rows)
    return Gather(
        table=s.place((rows, c)), mult=mult, ids=ids, out=s.place((*shape, c), "int16"), shift=s.scale()["shift"]
    )


def _spmv(s: Scene):
    rows, columns, vectors = s.int(1, 40), s.int(1, 40), s.int(1, 3)
    values = np.setdiff1d(s.rng.integers(-128, 128, 15), 0)
    matrix = s.rng.choice(values, (rows, columns)) * (s.rng.random((rows, columns)) < s.draw(st.floats(0, 1)))
    form = EieFormat(s.draw(st.sampled_from([64, 1, 3, 8])), 4, s.int(0, 6), s.draw(st.sampled_from(Pointers)))
    place = None
    if s.draw(st.booleans()):
        place = s.rng.permutation(-(-rows // form.pes) * form.pes)[:rows]
    stored = encode(matrix.astype(np.int8), form, place)
    w = contiguous(s.next, "uint8", (len(stored.data),))
    s.memory.bytes[s.next : s.next + len(stored.data)] = np.frombuffer(stored.data, np.uint8)
    s.next += (len(stored.data) + 31) // 16 * 16
    x = s.place((vectors, columns))
    clip, in_zp = s.clip(), s.draw(zero_points)
    view = s.memory.view(x)
    view[s.rng.random(view.shape) < 0.5] = in_zp
    return Spmv(
        x=x,
        w=w,
        **s.per_channel(rows),
        out=s.place((vectors, rows), s.draw(st.sampled_from(["int8", "int32"]))),
        in_zp=in_zp,
        **clip,
        entries=stored.entries,
        entry_bits=form.entry_bits,
        columns_per_word=stored.columns_per_word,
        expected=500,
    )


def _rows(s: Scene, put: bool):
    batch, columns, rows = tuple(s.int(1, 3) for _ in range(s.int(0, 2))), s.int(1, 9), s.int(1, 4)
    dtype, whole = s.draw(st.sampled_from(["int8", "uint8", "int16", "int32"])), rows + s.int(0, 4)
    large, small = s.place((*batch, whole, columns), dtype), s.place((*batch, rows, columns), dtype)
    position = s.place((1,), "int32")
    if s.int(0, 3):
        s.memory.view(position)[...] = s.int(-2, whole + 1)
    return (
        PutRows(src=small, position=position, out=large) if put else TakeRows(src=large, position=position, out=small)
    )


def _shift_rows(s: Scene):
    shape, axis = tuple(s.int(1, 6) for _ in range(s.int(1, 4))), s.int(0, 3)
    axis %= len(shape)
    fresh = tuple(s.int(1, d) if a == axis else d for a, d in enumerate(shape))
    dtype = s.draw(st.sampled_from(["int8", "uint8", "int16", "int32"]))
    return ShiftRows(src=s.place(fresh, dtype), out=s.place(shape, dtype), axis=axis)


BUILDERS = {
    "shift_rows": _shift_rows,
    "take_rows": lambda s: _rows(s, False),
    "put_rows": lambda s: _rows(s, True),
    "add_wide": _add_wide,
    "conv_16": _conv_16,
    "add_16": lambda s: _pair_16(s, False),
    "mul_16": lambda s: _pair_16(s, True),
    "rescale_16": _rescale_16,
    "table_16": _table_16,
    "rescale": _rescale,
    "norm": _norm,
    "exp_rows": _exp_rows,
    "weighted_mean": _weighted_mean,
    "rotate": _rotate,
    "gather": _gather,
    "spmv": _spmv,
}
