"""Preconditions, meaning and cost of the instructions."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ergo.target import numerics
from tvm_ergo.target.chip import chip
from tvm_ergo.target.codecs.registry import CODECS
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.isa import (
    OPCODES,
    Add,
    Codec,
    Conv,
    Copy,
    Decode,
    DType,
    Encode,
    Event,
    Operand,
    PoolKind,
    contiguous,
    decode,
    parse,
)
from tvm_ergo.target.isa.cost import MatrixWork
from tvm_ergo.target.isa.geometry import every_window_meets_input, transposed_shape, window_positions

from . import slots_twin
from .isa_samples import SPARSE_DENSE, TestMemory, fill_parameters, samples

SAMPLES = samples()
both = pytest.mark.parametrize("name", SAMPLES)


def test_every_instruction_has_a_sample():
    assert {type(ins) for ins in SAMPLES.values()} == set(OPCODES.values())


def run(ins, seed=0):
    memory = TestMemory(seed)
    fill_parameters(ins, memory, seed)
    before = memory.bytes.copy()
    ins.execute(memory)
    return memory, before


@both
def test_execute_writes_exactly_its_outputs(name):
    ins = SAMPLES[name]
    ins.check()
    assert decode(ins.encode())[0] == ins == parse(ins.to_text())
    memory, before = run(ins)
    declared = np.zeros(len(before), bool)
    for operand in ins.writes():
        declared[operand.extent[0] : operand.extent[1]] |= operand.touched(*operand.extent)
    changed = memory.bytes != before
    assert not np.any(changed & ~declared), "wrote outside its outputs"
    assert changed.any() or name == "halt"


def padded(x, padding, value):
    top, left, bottom, right = padding
    return np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def expected_conv(ins, view, channel_inputs, weight):
    """One output at a time. channel_inputs(o): slice of input channels; weight(o): [kh, kw, channels]."""
    x = padded(view(ins.x), ins.padding, ins.in_zp) - ins.in_zp
    (sh, sw), (dh, dw) = ins.strides, ins.dilation
    out = np.zeros(ins.out.shape, np.int8)
    for n, i, j, o in np.ndindex(*ins.out.shape):
        w = weight(o).astype(np.int64) - ins.w_zp
        window = x[
            n,
            i * sh : i * sh + (w.shape[0] - 1) * dh + 1 : dh,
            j * sw : j * sw + (w.shape[1] - 1) * dw + 1 : dw,
            channel_inputs(o),
        ]
        acc = int(view(ins.bias)[o]) + int(np.sum(window * w))
        out[n, i, j, o] = numerics.requantize(
            np.array(acc), int(view(ins.mult)[o]), int(view(ins.shift)[o]), ins.out_zp, ins.lo, ins.hi
        )
    return out


def ends_16(ins, value):
    return np.clip(value + ins.out_zp, ins.lo, ins.hi).astype(ins.out.dtype.numpy)


def expected_conv_16(ins, view):
    """The sample's: two groups of two input and three output channels, strides 2 and 1."""
    x = padded(view(ins.x), ins.padding, ins.in_zp) - ins.in_zp
    acc = np.zeros(ins.out.shape, np.int64)
    for n, i, j, o in np.ndindex(*ins.out.shape):
        window = x[n, 2 * i : 2 * i + 3, j : j + 2, o // 3 * 2 : o // 3 * 2 + 2]
        acc[n, i, j, o] = int(view(ins.bias)[o]) + np.sum(window * (view(ins.w)[o].astype(np.int64) - ins.w_zp))
    return ends_16(ins, numerics.rounding_shift(acc * view(ins.mult).astype(np.int64), view(ins.shift)))


def packed(bits):
    return np.packbits(bits, axis=-1, bitorder="little")


def sums_of_signs(ins, view):
    """One output at a time; x and w as +1, -1, what is padded as the instruction says."""
    signs = [
        np.unpackbits(view(t), axis=-1, bitorder="little")[..., : ins.channels].astype(np.int64) * 2 - 1
        for t in (ins.x, ins.w)
    ]
    x, w, (sh, sw), (dh, dw) = padded(signs[0], ins.padding, ins.pad_value), signs[1], ins.strides, ins.dilation
    out = np.zeros((*ins.out.shape[:3], len(w)), np.int64)
    for n, i, j, o in np.ndindex(*out.shape):
        rows = slice(i * sh, i * sh + (w.shape[1] - 1) * dh + 1, dh)
        out[n, i, j, o] = np.sum(x[n, rows, j * sw : j * sw + (w.shape[2] - 1) * dw + 1 : dw] * w[o])
    return out


def meaning(name, ins, view):
    """The definition of each sample in plain NumPy."""
    requant = lambda acc: numerics.requantize(acc, ins.mult, ins.shift, ins.out_zp, ins.lo, ins.hi)  # noqa: E731
    wide = lambda operand: view(operand).astype(np.int64)  # noqa: E731
    match name:
        case "conv":
            return expected_conv(ins, view, lambda o: slice(o // 3 * 2, o // 3 * 2 + 2), lambda o: view(ins.w)[o])
        case "depthwise":
            return expected_conv(ins, view, lambda o: slice(o, o + 1), lambda o: view(ins.w)[:, :, o : o + 1])
        case "conv_transpose":
            acc = np.zeros((1, 9, 9, 6), np.int64)
            for i, j, ki, kj in np.ndindex(3, 4, 3, 2):
                acc[0, i * 2 + ki, j + kj] += (wide(ins.w)[:, ki, kj] - ins.w_zp) @ (wide(ins.x)[0, i, j] - ins.in_zp)
            return numerics.requantize(
                acc[:, 1:7, 0:4] + view(ins.bias), view(ins.mult), view(ins.shift), ins.out_zp, ins.lo, ins.hi
            )
        case "matmul":
            return requant((wide(ins.a) - ins.a_zp) @ np.swapaxes(wide(ins.b) - ins.b_zp, -1, -2))
        case "binarize":
            return packed((view(ins.low) <= view(ins.x)) & (view(ins.x) <= view(ins.high)))
        case "binary_pool":
            x = np.pad(view(ins.x), ((0, 0), (1, 1), (1, 1), (0, 0)))
            return np.array(
                [
                    [np.bitwise_or.reduce(x[0, 2 * i : 2 * i + 3, j : j + 2], axis=(0, 1)) for j in range(8)]
                    for i in range(3)
                ]
            )[None]
        case "xnor":
            dots = sums_of_signs(ins, view)
            return packed((view(ins.low) <= dots) & (dots <= view(ins.high)))
        case "xnor_sum":
            acc = sums_of_signs(ins, view) * wide(ins.scale) + wide(ins.bias)
            return numerics.requantize(acc, view(ins.mult), view(ins.shift), ins.out_zp, ins.lo, ins.hi)
        case "spmv":
            acc = (wide(ins.x) - ins.in_zp) @ SPARSE_DENSE.astype(np.int64).T + view(ins.bias)
            return numerics.requantize(acc, view(ins.mult), view(ins.shift), ins.out_zp, ins.lo, ins.hi)
        case "add":
            acc = (wide(ins.a) - ins.a_zp) * ins.a_mult + (wide(ins.b) - ins.b_zp) * ins.b_mult
            return numerics.requantize(acc, 1, ins.shift, ins.out_zp, ins.lo, ins.hi)
        case "mul":
            return requant((wide(ins.a) - ins.a_zp) * (wide(ins.b) - ins.b_zp))
        case "maximum":
            return np.maximum(view(ins.a), view(ins.b))
        case "minimum":
            return np.minimum(view(ins.a), view(ins.b))
        case "table":
            return np.array(
                [[view(ins.lut)[c, int(view(ins.x)[r, c]) + 128] for c in range(4)] for r in range(3)], np.uint8
            )
        case "max_pool" | "avg_pool":
            return expected_pool(ins, view)
        case "mean":
            return requant((wide(ins.x) - ins.in_zp).sum(axis=(1, 2)))
        case "reduce_max":
            return view(ins.x).max(keepdims=True)
        case "reduce_min":
            return view(ins.x).min().reshape(1)
        case "softmax":
            e = view(ins.lut)[view(ins.x).max(-1, keepdims=True).astype(int) - view(ins.x)].astype(np.int64)
            return np.clip(
                numerics.rounding_divide(e * ins.mult, e.sum(-1, keepdims=True) << ins.shift) + ins.out_zp,
                ins.lo,
                ins.hi,
            ).astype(np.int8)
        case "resize scaled":
            (r0, r1, rw), (c0, c1, cw) = view(ins.rows).T, view(ins.cols).T
            columns = (wide(ins.x) - ins.in_zp)[:, :, c0] * (2048 - cw)[:, None]
            columns = columns + (wide(ins.x) - ins.in_zp)[:, :, c1] * cw[:, None]
            total = columns[:, r0] * (2048 - rw)[:, None, None] + columns[:, r1] * rw[:, None, None]
            return numerics.requantize(total, ins.mult, 22 + ins.shift, ins.out_zp, ins.lo, ins.hi)
        case "resize":
            (r0, r1, rw), (c0, c1, cw) = view(ins.rows).T, view(ins.cols).T
            columns = wide(ins.x)[:, :, c0] * (2048 - cw)[:, None] + wide(ins.x)[:, :, c1] * cw[:, None]
            return (
                (columns[:, r0] * (2048 - rw)[:, None, None] + columns[:, r1] * rw[:, None, None] + 2**21) >> 22
            ).astype(np.int8)
        case "copy":
            return view(ins.src)
        case "accumulate" | "accumulate first":
            sums = np.zeros(ins.acc.shape, np.int64) if ins.first else wide(ins.acc)
            return (sums + (wide(ins.x) - ins.in_zp).sum(axis=(1, 2), keepdims=True)).astype(np.int32)
        case "requantize":
            return requant(wide(ins.x))
        case "receive":
            stream = np.random.default_rng(ins.port).integers(0, 256, 1 << 16, dtype=np.uint8).view(np.int8)
            out = np.zeros(ins.out.shape, np.int8)
            for index in np.ndindex(*out.shape):
                out[index] = stream[ins.offset + sum(i * s for i, s in zip(index, ins.steps))]
            return out
        case "fill":
            return np.full(ins.out.shape, ins.value, np.int32)
        case "encode":
            return np.concatenate(
                [slots_twin.encode(view(ins.x)[y : y + 2], ins.codec, 20, ins.zero_point)[None] for y in (0, 2, 4)]
            )
        case "decode":
            slots = view(ins.x)
            return np.concatenate(
                [slots_twin.decode(s, (h, 3, 4), ins.codec, ins.zero_point) for s, h in zip(slots, (2, 1))]
            )[1:3]
        case "conv_16":
            return expected_conv_16(ins, view)
        case "add_16" | "mul_16":
            a, b = wide(ins.a) - ins.a_zp, wide(ins.b) - ins.b_zp
            acc = a * ins.a_mult + b * ins.b_mult if name == "add_16" else a * b * ins.mult
            return ends_16(ins, numerics.rounding_shift(acc, ins.shift))
        case "rescale_16":
            return requant(wide(ins.x) - ins.in_zp)
        case "table_16":
            u = wide(ins.x) + 32768
            low, high = wide(ins.lut)[u // 128], wide(ins.lut)[u // 128 + 1]
            return ((128 * low + (high - low) * (u % 128) + 64) // 128).astype(np.int16)
        case "add_wide":
            acc = (wide(ins.a) - ins.a_zp) * ins.a_mult + (wide(ins.b) - ins.b_zp) * ins.b_mult
            return sat16(numerics.rounding_shift(acc, ins.shift))
        case "rescale":
            return requant(wide(ins.x) - ins.in_zp)
        case "norm":
            return expected_norm(ins, wide(ins.x), wide(ins.gamma), wide(ins.beta))
        case "exp_rows":
            return expected_exponentials(ins, view(ins.x), view(ins.lut), view(ins.mask[0]))
        case "weighted_mean":
            share = 2**30 // np.maximum(1, wide(ins.a).sum(-1, keepdims=True))
            means = numerics.rounding_shift(wide(ins.a) @ (wide(ins.b) - ins.b_zp) * share, 22)
            return sat16(numerics.rounding_shift(means * ins.mult, ins.shift))
        case "rotate":
            return requant(wide(ins.x) * wide(ins.cos) + wide(ins.x)[:, [1, 0, 3, 2, 5, 4]] * wide(ins.sin))
        case "gather":
            rows = np.array([[6, 2, 6], [0, 6, 0]])
            return sat16(numerics.rounding_shift(wide(ins.table)[rows] * wide(ins.mult)[rows][..., None], ins.shift))
        case "take_rows":
            return view(ins.src)[:, 4:6]
        case "put_rows":
            return np.concatenate([view(ins.out)[:, :4], view(ins.src), view(ins.out)[:, 6:]], axis=1)
        case "shift_rows":
            return np.concatenate([view(ins.out)[:, 2:], view(ins.src)], axis=1)
        case "top_rows":
            return np.argsort(-wide(ins.inputs[0]), axis=-1, kind="stable")[:, :4]
        case "log_softmax":
            x, e = wide(ins.inputs[0]), wide(ins.inputs[1]) / 2**22
            distance = x.max(-1, keepdims=True) - x
            log2 = np.floor(np.log2(e[distance].sum(-1, keepdims=True)) * 2**16)
            return np.clip(np.floor(127.5 - (distance * 2.0**26 + log2 * 700) / 2**26), -128, 127)
        case "argmax":
            return view(ins.inputs[0]).argmax(-1)
        case "gather_rows":
            return view(ins.inputs[0])[view(ins.inputs[1])]


def sat16(value):
    return np.clip(value, -32768, 32767).astype(np.int16)


def expected_norm(ins, x, gamma, beta):
    """Layer normalization of int16 rows, in Python integers."""
    out = np.empty(x.shape, np.int16)
    for n, row in enumerate(x.tolist()):
        spread = len(row) * sum(v * v for v in row) - sum(row) ** 2 + (ins.eps << ins.eps_shift)
        k = (spread.bit_length() - 31) // 2
        root = math.isqrt(2**62 // (spread >> 2 * k if k > 0 else spread << -2 * k))
        t = [((len(row) * v - sum(row)) * root + 2 ** (16 + k)) >> 17 + k for v in row]
        out[n] = sat16(
            np.array(
                [
                    (v * g + (b << ins.beta_shift) + 2 ** (ins.shift - 1)) >> ins.shift
                    for v, g, b in zip(t, gamma.tolist(), beta.tolist())
                ]
            )
        )
    return out


def expected_exponentials(ins, x, lut, mask):
    out = np.zeros(x.shape, np.uint8)
    for n, m in np.ndindex(*x.shape[:2]):
        valid = [k for k in range(x.shape[2]) if mask[k] and k <= m + ins.offset]
        for k in valid:
            distance = max(int(x[n, m, j]) for j in valid) - int(x[n, m, k])
            out[n, m, k] = min(((int(lut[distance % 256]) >> min(distance // 256, 31)) + 64) >> 7, 255)
    return out


def expected_pool(ins, view):
    real = padded(np.ones(ins.x.shape, np.int8), ins.padding, 0) > 0
    x = padded(view(ins.x), ins.padding, 0)
    out = np.zeros(ins.out.shape, np.int8)
    for n, i, j, c in np.ndindex(*ins.out.shape):
        rows, cols = (
            range(p * s, p * s + (k - 1) * d + 1, d) for p, s, k, d in zip((i, j), ins.strides, ins.pool, ins.dilation)
        )
        values = [x[n, r, q, c] for r in rows for q in cols if real[n, r, q, c]]
        if ins.kind == PoolKind.MAX:
            out[n, i, j, c] = max(values)
        else:
            total = (sum(values) - ins.in_zp * len(values)) * ins.mult
            out[n, i, j, c] = np.clip(
                numerics.rounding_divide(total, len(values) << ins.shift) + ins.out_zp, ins.lo, ins.hi
            )
    return out


@pytest.mark.parametrize("name", [n for n in SAMPLES if n != "halt"])
@pytest.mark.parametrize("seed", [1, 2])
def test_meaning(name, seed):
    ins = SAMPLES[name]
    memory, before = run(ins, seed)
    view = lambda operand: np.ndarray(operand.shape, operand.dtype.numpy, before, operand.addr, operand.strides)  # noqa: E731
    expected = meaning(name, ins, view)
    result = memory.view(ins.writes()[0])
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(expected)) > 3 or expected.size < 12 or name == "fill", (
        "the sample is too tame to show anything"
    )


@pytest.mark.parametrize("name", ["conv", "depthwise", "conv_transpose", "matmul"])
def test_int32_outputs_take_the_raw_accumulators(name):
    """Requantizing them by hand gives the int8 result."""
    ins = SAMPLES[name]
    raw = replace(ins, out=contiguous(50000, "int32", ins.out.shape))
    raw.check()
    (memory, _), (small, _) = run(raw), run(ins)
    acc = memory.view(raw.out)
    mult, shift = (ins.mult, ins.shift) if name == "matmul" else (memory.view(ins.mult), memory.view(ins.shift))
    np.testing.assert_array_equal(
        numerics.requantize(acc, mult, shift, ins.out_zp, ins.lo, ins.hi), small.view(ins.out)
    )
    ergo = chip("ergo")
    assert Event.REQUANT not in raw.cost(ergo).events and ins.cost(ergo).events[Event.REQUANT] == ins.out.elements
    assert raw.cost(ergo).events[Event.SRAM_WRITE_BYTE] == 4 * ins.out.elements


@pytest.mark.parametrize("name", ["conv", "matmul"])
def test_int16_outputs_are_clipped_to_their_range(name):
    """The raw accumulators requantized by hand; multipliers that leave the int16 range now and then."""
    shift = {"shift": 23} if name == "matmul" else {}
    ins = replace(SAMPLES[name], **shift)
    raw, wide = (replace(ins, out=contiguous(50000, dtype, ins.out.shape)) for dtype in ("int32", "int16"))
    wide.check()

    def executed(instruction):
        memory = TestMemory(3)
        fill_parameters(instruction, memory, 3)
        if name == "conv":
            memory.view(instruction.shift)[...] = [22, 23, 24, 25, 30, 62]
        instruction.execute(memory)
        return memory

    memory = executed(raw)
    mult, shift = (ins.mult, ins.shift) if name == "matmul" else (memory.view(ins.mult), memory.view(ins.shift))
    expected = sat16(numerics.rounding_shift(memory.view(raw.out).astype(np.int64) * mult, shift))
    np.testing.assert_array_equal(executed(wide).view(wide.out), expected)
    assert np.abs(expected.astype(int)).max() > 1000


BROKEN = {
    "16-bit zero point of 8 bits": ("add_16", dict(b_zp=200)),
    "16-bit shape": ("mul_16", dict(b=contiguous(60000, "int16", (4,)))),
    "16-bit bounds of 8 bits": ("rescale_16", dict(hi=200)),
    "16-bit shapes differ": ("rescale_16", dict(out=contiguous(60000, "int8", (5, 3)))),
    "length of a 16-bit table": ("table_16", dict(step=8)),
    "16-bit groups": ("conv_16", dict(groups=1)),
    "16-bit exchanged clip": ("conv_16", dict(lo=5, hi=4)),
    "add_wide zero point": ("add_wide", dict(a_zp=1)),
    "add_wide shape": ("add_wide", dict(b=contiguous(60000, "int8", (4,)))),
    "rescale zero point": ("rescale", dict(in_zp=1)),
    "rescale shape": ("rescale", dict(out=contiguous(60000, "int8", (5, 3)))),
    "norm's gamma": ("norm", dict(gamma=contiguous(60000, "int16", (4,)), beta=contiguous(61000, "int32", (4,)))),
    "norm's output": ("norm", dict(out=contiguous(60000, "int16", (5, 3)))),
    "norm zero point": ("norm", dict(in_zp=1)),
    "mask's shape": ("exp_rows", dict(mask=[contiguous(60000, "int8", (5,))])),
    "mask's type": ("exp_rows", dict(mask=[contiguous(60000, "uint8", (6,))])),
    "weights' type": ("weighted_mean", dict(a=contiguous(60000, "int8", (2, 1, 4, 5)))),
    "weighted inner axis": ("weighted_mean", dict(b=contiguous(60000, "int8", (3, 4, 6)))),
    "odd pairs": ("rotate", dict(x=contiguous(60000, "int16", (3, 5)), out=contiguous(61000, "int8", (3, 5)))),
    "cosines": ("rotate", dict(cos=contiguous(60000, "int16", (2, 6)))),
    "gathered shape": ("gather", dict(out=contiguous(60000, "int16", (2, 4)))),
    "wrong output size": ("conv", dict(strides=(1, 1))),
    "groups": ("conv", dict(groups=1)),
    "exchanged clip": ("conv", dict(lo=5, hi=4)),
    "weights' channels": ("depthwise", dict(w=contiguous(60000, "int8", (3, 2, 5)))),
    "type": ("conv", dict(x=contiguous(60000, "uint8", (1, 6, 7, 4)))),
    "rank": ("conv", dict(x=contiguous(60000, "int8", (6, 7, 4)))),
    "unaligned": ("conv", dict(bias=contiguous(60001, "int32", (6,)))),
    "bias length": ("conv", dict(bias=contiguous(60000, "int32", (5,)))),
    "transposed size": ("conv_transpose", dict(output_padding=(0, 0))),
    "inner axis": ("matmul", dict(transpose_b=False)),
    "batch": ("matmul", dict(b=contiguous(60000, "int8", (4, 6, 5)))),
    "broadcast": ("add", dict(b=contiguous(60000, "int8", (4,)))),
    "lut": ("table", dict(lut=contiguous(60000, "uint8", (5, 256)))),
    "lut type": ("table", dict(lut=contiguous(60000, "int8", (256,)))),
    "dilated average": ("avg_pool", dict(dilation=(1, 2))),
    "empty window": ("max_pool", dict(padding=(4, 0, 0, 1), out=contiguous(60000, "int8", (1, 4, 6, 4)))),
    "axes twice": ("mean", dict(axes=(1, 1))),
    "axis": ("mean", dict(axes=(1, 5))),
    "kept axes": ("mean", dict(keepdims=True)),
    "softmax shape": ("softmax", dict(out=contiguous(60000, "int8", (3, 9)))),
    "taps": ("resize", dict(rows=contiguous(60000, "int32", (6, 2)))),
    "copy shape": ("copy", dict(out=contiguous(60000, "int16", (4, 5, 6)))),
    "copy type": ("copy", dict(out=contiguous(60000, "int32", (5, 4, 6)))),
    "fill range": ("fill", dict(out=contiguous(60000, "int8", (3, 4)))),
    "argmax type": ("argmax", dict(outputs=[contiguous(60000, "int8", (3,))])),
    "argmax parameters": ("argmax", dict(params=(1,))),
    "gather shape": ("gather_rows", dict(outputs=[contiguous(60000, "int8", (2, 3, 5))])),
    "codec without slots": ("encode", dict(codec=Codec.RAW)),
    "lossy codec": ("decode", dict(codec=Codec.REDUCED)),
    "number of slots": ("encode", dict(tile_rows=3)),
    "slot below a header": ("encode", dict(out=contiguous(60000, "uint8", (3, 3)))),
    "slot with gaps": ("encode", dict(out=Operand(60000, DType.U8, (3, 20), (60, 2)))),
    "rows beyond the slots": ("decode", dict(skip=2)),
    "last tile too high": ("decode", dict(last_rows=3)),
    "a tile for nothing": ("decode", dict(out=contiguous(60000, "int8", (1, 3, 4)), skip=0, last_rows=2)),
    "a tile skipped": ("decode", dict(out=contiguous(60000, "int8", (1, 3, 4)), skip=2)),
    "accumulate shape": ("accumulate", dict(acc=contiguous(60000, "int32", (2, 1, 1, 4)))),
    "accumulate onto its input": (
        "accumulate first",
        dict(acc=contiguous(SAMPLES["accumulate first"].x.addr // 4 * 4, "int32", (1, 1, 1, 5))),
    ),
    "requantize shape": ("requantize", dict(out=contiguous(60000, "int8", (3, 4)))),
    "receive steps": ("receive", dict(steps=(300, 1, 100, 1, 0, 0))),
    "coded weights": ("conv", dict(w=Operand(60000, DType.I8, (6, 3, 2, 2), (0, 9, 0, 0), Codec.BITMASK))),
    "coded table": ("table", dict(x=Operand(60000, DType.I8, (3, 4), (4, 1), Codec.BITMASK))),
    "coded strides": ("conv", dict(x=Operand(60000, DType.I8, (1, 6, 7, 4), (168, 28, 4, 1), Codec.BITMASK))),
    "coded without slots": ("conv", dict(x=Operand(60000, DType.I8, (1, 6, 7, 4), (0, 28, 0, 0), Codec.REDUCED))),
    "coded below a header": ("conv", dict(x=Operand(60000, DType.I8, (1, 6, 7, 4), (0, 3, 0, 0), Codec.BITMASK))),
    "coded backwards": ("conv", dict(x=Operand(60000, DType.I8, (1, 6, 7, 4), (0, -9, 0, 0), Codec.BITMASK))),
    "coded pictures": ("depthwise", dict(x=Operand(60000, DType.I8, (2, 6, 7, 4), (0, 28, 0, 0), Codec.BITMASK))),
    "coded accumulators": ("conv", dict(out=Operand(60000, DType.I32, (1, 3, 7, 6), (0, 28, 0, 0), Codec.BITMASK))),
    "coded output on input": (
        "depthwise",
        dict(
            x=Operand(60000, DType.I8, (1, 6, 7, 4), (0, 28, 0, 0), Codec.BITMASK),
            out=Operand(60100, DType.I8, (1, 3, 7, 4), (0, 28, 0, 0), Codec.BITMASK),
        ),
    ),
    "self overlap": ("copy", dict(out=Operand(60000, DType.I16, (5, 4, 6), (0, 12, 2)))),
    "output on input": ("conv", dict(out=contiguous(SAMPLES["conv"].x.addr, "int8", (1, 3, 7, 6)))),
    "shifted in place": ("maximum", dict(out=contiguous(SAMPLES["maximum"].a.addr + 1, "int8", (3, 4)))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_preconditions_are_refused(case):
    name, change = BROKEN[case]
    with pytest.raises(ProgramError) as caught:
        replace(SAMPLES[name], **change).check()
    assert SAMPLES[name].MNEMONIC in str(caught.value)


def test_in_place_is_allowed_where_it_is_safe():
    add = SAMPLES["add"]
    replace(add, out=add.a).check()
    with pytest.raises(ProgramError, match="overlaps an input"):
        table = SAMPLES["table"]
        replace(
            table,
            lut=contiguous(0, "int8", (256,)),
            x=contiguous(512, "int8", (256,)),
            out=contiguous(0, "int8", (256,)),
        ).check()


def test_slots_that_no_encoder_wrote():
    memory = TestMemory()
    with pytest.raises(MachineError, match="broken"):
        SAMPLES["decode"].execute(memory)


@pytest.mark.parametrize("codec", [Codec.BITMASK, Codec.BITPLANE, Codec.CONTEXT])
def test_cost_of_coding_follows_the_codec(codec):
    """Cycles of the codec's lanes tile by tile, at least those of the port; whole slots pass it; events as the codec
    states them."""
    ergo, rows, width, channels = chip("ergo"), 20, 16, 48
    encode = Encode(
        x=contiguous(0, "int8", (rows, width, channels)),
        out=contiguous(20000, "uint8", (3, 500)),
        codec=codec,
        tile_rows=8,
        zero_point=0,
    )
    decode_ = Decode(x=encode.out, out=encode.x, codec=codec, tile_rows=8, last_rows=4, skip=0, zero_point=0)
    coder = CODECS[codec](0, 8)
    per_row = width * channels * coder.COST.cycles
    busy = 2 * 8 * per_row / coder.lanes((8, width, channels)) + 4 * per_row / coder.lanes((4, width, channels))
    for ins in (encode, decode_):
        ins.check()
        cost = ins.cost(ergo)
        assert (
            0 <= cost.cycles - ergo.dma.issue_cycles - max(busy, rows * width * channels / ergo.dma.bytes_per_cycle) < 4
        )
        assert cost.events[Event.ALU_8] == coder.COST.events[Event.ALU_8] * rows * width * channels
    assert encode.cost(ergo).events[Event.SRAM_WRITE_BYTE] == decode_.cost(ergo).events[Event.SRAM_READ_BYTE] == 1500


def test_data_outside_the_tables_raises():
    for name, operand in (("resize", SAMPLES["resize"].rows), ("gather_rows", SAMPLES["gather_rows"].inputs[1])):
        memory = TestMemory()
        fill_parameters(SAMPLES[name], memory)
        memory.view(operand)[0] = 99
        with pytest.raises(MachineError, match="outside"):
            SAMPLES[name].execute(memory)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_window_sizes_by_counting(size, kernel, stride, before, after, dilation, extra):
    starts = [s for s in range(-before, size + after, stride) if s + (kernel - 1) * dilation < size + after]
    positions = window_positions(size, kernel, stride, before, after, dilation)
    assert max(0, positions) == len(starts)
    meets = all(any(0 <= s + k * dilation < size for k in range(kernel)) for s in starts)
    assert every_window_meets_input(size, kernel, stride, before, dilation, max(0, positions)) == meets
    reached = {i * stride + k * dilation for i in range(size) for k in range(kernel)}
    full = max(reached) + 1 - before - after + extra
    assert transposed_shape(
        (size, size), (kernel,) * 2, (stride,) * 2, (before, before, after, after), (extra,) * 2, (dilation,) * 2
    ) == (full, full)


# ---- cost -----------------------------------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("chip_name", ["ergo/1", "ergo/2"])
def test_costs_are_positive_and_traffic_is_at_least_the_operands(name, chip_name):
    ins = SAMPLES[name]
    cost = ins.cost(chip(chip_name))
    assert (
        cost.cycles > 0
        and all(isinstance(n, int) and n > 0 for n in cost.events.values())
        and set(cost.events) <= set(Event)
    )
    assert cost.events[Event.INSTRUCTION] == 1
    moved = ins.src if name == "put_rows" else None  # the other rows stay
    written = sum(o.size_bytes for o in ins.writes()) if moved is None else moved.size_bytes
    assert cost.events.get(Event.SRAM_WRITE_BYTE, 0) == written
    if name not in (
        "max_pool",
        "avg_pool",
        "gather_rows",
        "gather",
        "take_rows",
    ):  # windows may skip input, a gather reads all it is charged
        assert cost.events.get(Event.SRAM_READ_BYTE, 0) >= sum(o.distinct_bytes for o in ins.reads())


def conv(h, c, o, kernel=1, groups=1):
    x, w = contiguous(0, "int8", (1, h, h, c)), contiguous(0, "int8", (o, kernel, kernel, c // groups))
    i32, i8 = contiguous(0, "int32", (o,)), contiguous(0, "int8", (o,))
    return Conv(
        x=x,
        w=w,
        bias=i32,
        mult=i32,
        shift=i8,
        out=contiguous(0, "int8", (1, h, h, o)),
        strides=(1, 1),
        padding=(kernel // 2,) * 4,
        dilation=(1, 1),
        groups=groups,
        in_zp=0,
        w_zp=0,
        out_zp=0,
        lo=-128,
        hi=127,
    )


def test_full_lanes_reach_the_peak_and_odd_sizes_lose_by_rounding_up():
    ergo = chip("ergo/1")
    full = conv(32, 64, 64, 3)
    macs = 32 * 32 * 64 * 64 * 9
    assert full.cost(ergo).events[Event.MAC_8X8] == macs
    assert full.cost(ergo).cycles == ergo.tensor.issue_cycles + macs // ergo.tensor.macs_per_cycle
    one_more = conv(32, 64, 65, 3)  # a whole tile of output lanes for one channel
    assert (
        one_more.cost(ergo).cycles - ergo.tensor.issue_cycles
        == 3 * (full.cost(ergo).cycles - ergo.tensor.issue_cycles) // 2
    )


def test_a_dense_layer_is_bound_by_reading_its_weights():
    ergo = chip("ergo/1")
    cost = conv(1, 1024, 1024).cost(ergo)
    assert cost.events[Event.SRAM_READ_BYTE] == 1024 * 1024 + 1024 + 9 * 1024
    assert cost.cycles == ergo.tensor.issue_cycles + -(
        -cost.events[Event.SRAM_READ_BYTE] // ergo.tensor.read_bytes_per_cycle
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 300), st.integers(1, 3000), st.integers(1, 300_000))
def test_traffic_reads_everything_at_least_once_and_never_more_than_without_buffers(
    pixels, channels, depth, input_bytes
):
    array = chip("ergo/1").tensor
    work = MatrixWork(pixels, channels, depth, depth, input_bytes, channels * depth)
    inputs, weights = work.traffic(array)
    assert inputs >= input_bytes and weights >= channels * depth
    tiles, groups = -(-channels // array.output_lanes), -(-pixels // array.pixel_lanes)
    assert inputs <= input_bytes * tiles
    assert weights <= channels * depth * max(groups, -(-input_bytes // array.input_buffer_bytes))
    everything_fits = input_bytes <= array.input_buffer_bytes and channels * depth <= array.weight_buffer_bytes
    if everything_fits:
        assert (inputs, weights) == (input_bytes, channels * depth)


def test_depthwise_uses_its_share_of_the_array():
    """Never faster than depthwise_taps of the input lanes allow."""
    for ergo in (chip("ergo/1"), chip("ergo/2")):
        cost, array = SAMPLES["depthwise"].cost(ergo), ergo.tensor
        peak = array.output_lanes * array.pixel_lanes * array.depthwise_taps
        assert cost.cycles >= cost.events[Event.MAC_8X8] / peak


def test_short_runs_cost_the_data_mover_more():
    ergo = chip("ergo/1")
    dense = Copy(src=contiguous(0, "int8", (64, 64)), out=contiguous(4096, "int8", (64, 64)))
    transposed = replace(dense, src=Operand(0, DType.I8, (64, 64), (1, 64)))
    assert dense.cost(ergo).cycles == ergo.dma.issue_cycles + 4096 // ergo.dma.bytes_per_cycle
    assert transposed.cost(ergo).cycles == ergo.dma.issue_cycles + 4096


def test_broadcast_operands_are_read_once():
    x, b = contiguous(0, "int8", (1, 8, 8, 16)), Operand(2000, DType.I8, (1, 8, 8, 16), (0, 0, 0, 1))
    add = Add(
        a=x,
        b=b,
        out=contiguous(4096, "int8", (1, 8, 8, 16)),
        a_zp=0,
        b_zp=0,
        a_mult=1,
        b_mult=1,
        shift=0,
        out_zp=0,
        lo=-128,
        hi=127,
    )
    add.check()
    assert add.cost(chip("ergo")).events[Event.SRAM_READ_BYTE] == 1024 + 16
    assert b.codec == Codec.RAW


def test_slots_that_hold_more_than_any_tensor_are_refused():
    """A tile may be higher than the rows wanted of it: a few bytes would ask for gigabytes."""

    def make(tile_rows):
        return Decode(
            x=contiguous(0, DType.U8, (1, 64)),
            out=contiguous(64, DType.I8, (1, 1024, 64)),
            codec=Codec.STATIC,
            tile_rows=tile_rows,
            last_rows=tile_rows,
            skip=0,
            zero_point=0,
        )

    make(1024).check()
    with pytest.raises(ProgramError, match="too many values in the slots"):
        make(1025).check()
