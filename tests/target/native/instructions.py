"""Random instructions of every kind that the native runtime knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from tvm_ergo.target.codecs.slots import SlotLayout
from tvm_ergo.target.isa import (
    Accumulate,
    Add,
    Conv,
    ConvTranspose,
    Copy,
    CpuCall,
    CpuFunction,
    Decode,
    Depthwise,
    DType,
    Encode,
    Fill,
    MatMul,
    MaxMin,
    MaxMinKind,
    Mul,
    Operand,
    Pool,
    PoolKind,
    Receive,
    Reduce,
    ReduceKind,
    Requantize,
    Resize,
    ResizeScaled,
    Softmax,
    Table,
    contiguous,
)
from tvm_ergo.target.isa.geometry import transposed_shape, window_shape

from .attention import BUILDERS as MORE
from .bits import BUILDERS as BITS
from .post_instructions import POST
from .scene import SLOT_CODECS, Scene, zero_points


def _conv(s: Scene):
    groups = s.draw(st.sampled_from([1, 1, 2, 3]))
    cg, og, kernel = (
        s.draw(st.sampled_from([1, 2, 3, 4, 5, 17, 70])),
        s.draw(st.sampled_from([1, 2, 7, 16, 33])),
        (s.int(1, 3), s.int(1, 3)),
    )
    n = s.draw(st.sampled_from([1, 1, 2]))
    shape = (n, s.int(1, 6), s.int(1, 7), cg * groups)
    window, (oh, ow) = s.window(kernel, shape)
    zps, clip, o = dict(in_zp=s.draw(zero_points), w_zp=s.draw(zero_points)), s.clip(), og * groups
    x = s.slots(shape, zps["in_zp"], True) if n == 1 and s.int(0, 3) == 0 else s.place(shape)
    out = (
        s.slots((1, oh, ow, o), clip["out_zp"], False)
        if n == 1 and s.int(0, 3) == 0
        else s.place((n, oh, ow, o), s.draw(st.sampled_from(["int8", "int8", "int16", "int32"])))
    )
    return Conv(x=x, w=s.weights((o, *kernel, cg)), **s.per_channel(o), out=out, groups=groups, **window, **zps, **clip)


def _depthwise(s: Scene):
    c, kernel = s.draw(st.sampled_from([1, 3, 8, 16, 31, 64, 65, 130])), (s.int(1, 4), s.int(1, 3))
    shape = (s.draw(st.sampled_from([1, 1, 2])), s.int(1, 6), s.int(1, 7), c)
    window, hw = s.window(kernel, shape)
    zps, clip = dict(in_zp=s.draw(zero_points), w_zp=s.draw(zero_points)), s.clip()
    alone = shape[0] == 1
    x = s.slots(shape, zps["in_zp"], True) if alone and s.int(0, 3) == 0 else s.place(shape)
    out = (
        s.slots((1, *hw, c), clip["out_zp"], False)
        if alone and s.int(0, 3) == 0
        else s.place((shape[0], *hw, c), s.draw(st.sampled_from(["int8", "int8", "int32"])))
    )
    return Depthwise(x=x, w=s.weights((*kernel, c)), **s.per_channel(c), out=out, **window, **zps, **clip)


def _transpose(s: Scene):
    strides, c, o = (s.int(1, 3), s.int(1, 3)), s.int(1, 6), s.draw(st.sampled_from([1, 3, 7, 20]))
    least = strides if s.int(0, 3) else (1, 1)  # phases that no tap reaches have no fast kernel
    kernel, shape = tuple(s.int(low, 4) for low in least), (s.int(1, 2), s.int(1, 4), s.int(1, 4), c)
    dilation = s.draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (2, 1), (1, 2)]))
    padding = tuple(s.int(0, 1) for _ in range(4))
    more = tuple(s.int(0, 1) for _ in range(2))
    out = transposed_shape(shape[1:3], kernel, strides, padding, more, dilation)
    if min(out) < 1:
        padding, out = (0, 0, 0, 0), transposed_shape(shape[1:3], kernel, strides, (0, 0, 0, 0), more, dilation)
    return ConvTranspose(
        x=s.place(shape),
        w=s.weights((o, *kernel, c)),
        **s.per_channel(o),
        out=s.place((shape[0], *out, o), s.draw(st.sampled_from(["int8", "int32"]))),
        strides=strides,
        padding=padding,
        output_padding=more,
        dilation=dilation,
        in_zp=s.draw(zero_points),
        w_zp=s.draw(zero_points),
        **s.clip(),
    )


def _matmul(s: Scene):
    m, k, n, batch = (
        s.draw(st.sampled_from([1, 3, 6, 13, 30])),
        s.draw(st.sampled_from([1, 3, 8, 65])),
        s.draw(st.sampled_from([1, 5, 7, 17, 33, 70])),
        tuple(s.int(1, 3) for _ in range(s.int(0, 2))),
    )
    swap = s.draw(st.booleans())
    left, right = (tuple(d if s.int(0, 2) else 1 for d in batch) for _ in range(2))
    b = (*right, n, k) if swap else (*right, k, n)
    batch = np.broadcast_shapes(left, right)
    return MatMul(
        a=s.place((*left, m, k)),
        b=s.weights(b),
        out=s.place((*batch, m, n), s.draw(st.sampled_from(["int8", "int16", "int32"]))),
        transpose_b=swap,
        a_zp=s.draw(zero_points),
        b_zp=s.draw(zero_points),
        **s.scale(),
    )


def _two(s: Scene, a_zp: int, b_zp: int, out_zp: int, may_code: bool) -> dict:
    rank = s.int(1, 5)
    shape = tuple(s.int(1, 5) for _ in range(rank))
    if may_code and s.int(0, 2) == 0:
        shape = (1, *shape[:1], s.int(1, 5), s.int(1, 6))
        sides = [s.slots(shape, zp, True) if s.draw(st.booleans()) else s.place(shape) for zp in (a_zp, b_zp)]
        return dict(
            a=sides[0], b=sides[1], out=s.slots(shape, out_zp, False) if s.draw(st.booleans()) else s.place(shape)
        )
    out = s.place(shape)
    in_place = s.int(0, 3)
    return dict(a=out if in_place == 0 else s.repeated(shape), b=out if in_place == 1 else s.repeated(shape), out=out)


def _add(s: Scene):
    zps, clip, most = dict(a_zp=s.draw(zero_points), b_zp=s.draw(zero_points)), s.clip(), 2**21 - 1
    mults = dict(
        a_mult=s.draw(st.sampled_from([most, -most, 12345, 0])), b_mult=s.draw(st.sampled_from([most, -most, -777]))
    )
    return Add(
        **_two(s, *zps.values(), clip["out_zp"], True),
        **zps,
        **mults,
        shift=s.draw(st.one_of(st.integers(0, 62), st.integers(14, 24))),
        **clip,
    )


def _mul(s: Scene):
    zps, scale = dict(a_zp=s.draw(zero_points), b_zp=s.draw(zero_points)), s.scale()
    return Mul(**_two(s, *zps.values(), scale["out_zp"], True), **zps, **scale)


def _maxmin(s: Scene):
    return MaxMin(**_two(s, 0, 0, 0, False), kind=s.draw(st.sampled_from(MaxMinKind)))


def _table(s: Scene):
    shape, kinds = tuple(s.int(1, 6) for _ in range(s.int(1, 4))), st.sampled_from(["int8", "uint8"])
    x, result = s.place(shape, s.draw(kinds)), s.draw(kinds)
    out = Operand(x.addr, DType.of(result), x.shape, x.strides) if s.int(0, 2) == 0 else s.place(shape, result)
    return Table(x=x, lut=s.place((256,) if s.draw(st.booleans()) else (shape[-1], 256), result), out=out)


def _pool(s: Scene):
    kind = s.draw(st.sampled_from(PoolKind))
    shape, size = (
        (s.draw(st.sampled_from([1, 1, 2])), s.int(1, 6), s.int(1, 6), s.draw(st.sampled_from([1, 3, 64, 70]))),
        (s.int(1, 3), s.int(1, 3)),
    )
    size = tuple(min(k, d) for k, d in zip(size, shape[1:3]))
    padding, strides = tuple(s.int(0, size[i % 2] - 1) for i in range(4)), (s.int(1, 3), s.int(1, 3))
    hw = window_shape(shape[1:3], size, strides, padding, (1, 1))
    in_zp, scale, alone = s.draw(zero_points), s.scale(), shape[0] == 1
    x = s.slots(shape, in_zp, True) if alone and s.int(0, 3) == 0 else s.place(shape)
    out = (
        s.slots((1, *hw, shape[3]), scale["out_zp"], False)
        if alone and s.int(0, 3) == 0
        else s.place((shape[0], *hw, shape[3]))
    )
    return Pool(
        x=x,
        out=out,
        kind=kind,
        pool=size,
        strides=strides,
        padding=padding,
        dilation=(1, 1),
        count_include_pad=s.draw(st.booleans()),
        in_zp=in_zp,
        **scale,
    )


def _reduce(s: Scene):
    shape = tuple(s.int(1, 6) for _ in range(s.int(1, 4)))
    axes, keep = tuple(sorted(s.draw(st.sets(st.integers(0, len(shape) - 1))))), s.draw(st.booleans())
    kept = tuple(1 if axis in axes else d for axis, d in enumerate(shape) if keep or axis not in axes) or (1,)
    return Reduce(
        x=s.place(shape),
        out=s.place(kept),
        kind=s.draw(st.sampled_from(ReduceKind)),
        axes=axes,
        keepdims=keep,
        in_zp=s.draw(zero_points),
        **s.scale(),
    )


def _softmax(s: Scene):
    shape, lut = tuple(s.int(1, 5) for _ in range(s.int(1, 3))), s.place((256,), "int32")
    s.memory.view(lut)[...] = s.rng.integers(0, s.draw(st.sampled_from([2, 2**15, 2**23])), 256)
    return Softmax(x=s.place(shape), lut=lut, out=s.place(shape), **s.scale())


def _resize(s: Scene, scaled: bool = False):
    shape, hw = (s.int(1, 2), s.int(1, 4), s.int(1, 4), s.int(1, 5)), (s.int(1, 5), s.int(1, 5))
    taps = [s.place((length, 3), "int32") for length in hw]
    for operand, size in zip(taps, shape[1:3]):
        length = operand.shape[0]
        s.memory.view(operand)[...] = np.stack(
            [
                s.rng.integers(0, size, length),
                s.rng.integers(0, size, length),
                s.rng.choice([0, 1, 1024, 2048], length),
            ],
            1,
        )
    fields = {"x": s.place(shape), "rows": taps[0], "cols": taps[1], "out": s.place((shape[0], *hw, shape[3]))}
    if not scaled:
        return Resize(**fields)
    lo = s.int(-128, 100)
    ends = {"in_zp": s.int(-128, 127), "out_zp": s.int(-128, 127), "lo": lo, "hi": s.int(lo, 127)}
    return ResizeScaled(**fields, mult=s.int(0, 2**24 - 1), shift=s.int(0, 40), **ends)


def _resize_scaled(s: Scene):
    return _resize(s, True)


def _running(s: Scene):
    n, c = s.int(1, 2), s.int(1, 6)
    return Accumulate(
        x=s.place((n, s.int(1, 4), s.int(1, 4), c)),
        acc=s.place((n, 1, 1, c), "int32"),
        first=s.draw(st.booleans()),
        in_zp=s.draw(zero_points),
    )


def _requantize(s: Scene):
    shape = tuple(s.int(1, 5) for _ in range(s.int(1, 3)))
    return Requantize(x=s.place(shape, "int32"), out=s.place(shape), **s.scale())


def _copy(s: Scene):
    shape, dtype = (
        tuple(s.int(1, 5) for _ in range(s.int(1, 6))),
        s.draw(st.sampled_from(["int8", "uint8", "int16", "int32"])),
    )
    return Copy(src=s.place(shape, dtype), out=s.place(shape, dtype))


def _fill(s: Scene):
    dtype, value = s.draw(st.sampled_from([("int8", -128), ("uint8", 255), ("int16", -300), ("int32", 70000)]))
    return Fill(out=s.place(tuple(s.int(1, 5) for _ in range(s.int(1, 4))), dtype), value=value)


def _receive(s: Scene):
    shape = tuple(s.int(1, 5) for _ in range(s.int(1, 4)))
    dense = contiguous(0, DType.I8, (*shape[:-1], shape[-1] + s.int(0, 2)))
    s.memory.streams = {1: s.rng.integers(-128, 128, 2000).astype(np.int8)}
    return Receive(port=1, offset=s.int(0, 9), steps=(*dense.strides, *[0] * (6 - len(shape))), out=s.place(shape))


def _encode(s: Scene):
    shape, rows = (s.int(1, 6), s.int(1, 6), s.int(1, 9)), s.int(1, 4)
    x, zero_point = s.place(shape), s.draw(zero_points)
    s.memory.view(x)[...] = s.rows(shape, zero_point)
    raw = min(rows, shape[0]) * shape[1] * shape[2]
    size = s.draw(st.sampled_from([4, 5, 4 + raw // 3, 4 + raw // 2, 4 + raw, 9 + raw]))
    slots = s.place((-(-shape[0] // rows), size), "uint8", plain=True)
    return Encode(x=x, out=slots, codec=s.draw(st.sampled_from(SLOT_CODECS)), tile_rows=rows, zero_point=zero_point)


def _decode(s: Scene):
    height, width, channels, rows = s.int(1, 7), s.int(1, 6), s.int(1, 9), s.int(1, 4)
    codec, zero_point, tiles = s.draw(st.sampled_from(SLOT_CODECS)), s.draw(zero_points), -(-height // rows)
    layout = SlotLayout(
        codec,
        rows,
        4 + s.draw(st.sampled_from([1, rows * width * channels // 2 + 1, rows * width * channels])),
        zero_point,
    )
    slots = s.place((tiles, layout.slot_bytes), "uint8", plain=True)
    s.memory.view(slots)[...] = layout.encode(s.rows((height, width, channels), zero_point))
    last = height - (tiles - 1) * rows
    skip = s.int(0, min(rows - 1, height - 1))
    cut = s.int(0, min(last - 1, height - skip - 1))
    return Decode(
        x=slots,
        out=s.place((height - skip - cut, width, channels)),
        codec=codec,
        tile_rows=rows,
        last_rows=last,
        skip=skip,
        zero_point=zero_point,
    )


def _argmax(s: Scene):
    shape = tuple(s.int(1, 6) for _ in range(s.int(1, 4)))
    return CpuCall(
        function=CpuFunction.ARGMAX,
        inputs=[s.place(shape, s.draw(st.sampled_from(["int8", "uint8"])))],
        outputs=[s.place(shape[:-1] or (1,), "int32")],
        params=(),
    )


def _top_rows(s: Scene):
    shape = tuple(s.int(1, 6) for _ in range(s.int(1, 4)))
    return CpuCall(
        function=CpuFunction.TOP_ROWS,
        inputs=[s.place(shape)],
        outputs=[s.place((*shape[:-1], s.int(1, shape[-1])), s.draw(st.sampled_from(["int8", "int32"])))],
        params=(),
    )


def _log_softmax(s: Scene):
    shape, lut = tuple(s.int(1, 6) for _ in range(s.int(1, 4))), s.place((256,), "int32")
    s.memory.view(lut)[...] = s.rng.integers(0, 2 ** s.int(1, 23), 256)
    lo = s.int(-128, 127)
    return CpuCall(
        function=CpuFunction.LOG_SOFTMAX,
        inputs=[s.place(shape), lut],
        outputs=[s.place(shape)],
        params=(
            s.int(0, 2**30 - 1),
            s.int(0, 2 ** s.int(1, 30) - 1),
            s.int(0, 40),
            s.int(-128, 127),
            lo,
            s.int(lo, 127),
        ),
    )


def _gather(s: Scene):
    table, dtype = (s.int(1, 7), s.int(1, 5)), s.draw(st.sampled_from(["int8", "int32"]))
    shape = tuple(s.int(1, 4) for _ in range(s.int(1, 3)))
    indices = s.place(shape, "int32")
    s.memory.view(indices)[...] = s.rng.integers(0, table[0], shape)
    out = shape[:-1] if shape[-1] == 1 and s.draw(st.booleans()) else shape
    return CpuCall(
        function=CpuFunction.GATHER_ROWS,
        inputs=[s.place(table, dtype), indices],
        outputs=[s.place((*out, table[1]), dtype)],
        params=(),
    )


BUILDERS = {
    "conv": _conv,
    "depthwise": _depthwise,
    "conv_transpose": _transpose,
    "matmul": _matmul,
    "add": _add,
    "mul": _mul,
    "maxmin": _maxmin,
    "table": _table,
    "pool": _pool,
    "reduce": _reduce,
    "softmax": _softmax,
    "resize": _resize,
    "resize scaled": _resize_scaled,
    "accumulate": _running,
    "requantize": _requantize,
    "copy": _copy,
    "fill": _fill,
    "receive": _receive,
    "encode": _encode,
    "decode": _decode,
    "argmax": _argmax,
    "top_rows": _top_rows,
    "log_softmax": _log_softmax,
    "gather_rows": _gather,
    **MORE,
    **BITS,
    **POST,
}


def _with_table(s: Scene, instruction):
    """Sometimes the same with a table in its output stage, where it may have one."""
    if not instruction.OUTPUT_TABLE or instruction.out.dtype != DType.I8 or s.int(0, 2):
        return instruction
    table = s.place((256,) if s.draw(st.booleans()) else (instruction.out.shape[-1], 256))
    return replace(instruction, table=[table], table_zp=s.draw(zero_points))


@st.composite
def scenes(draw, kind: str):
    """(memory, instruction): the instruction's preconditions hold."""
    scene = Scene(draw)
    instruction = _with_table(scene, BUILDERS[kind](scene))
    instruction.check()
    return scene.memory, instruction
