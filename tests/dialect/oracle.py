"""The slow, obvious twin of every op: NumPy int64 and Python loops, written from docs/architecture.md section 2."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import isqrt

import numpy as np

from tvm_ergo.relay_passes import dialect
from tvm_ergo.relay_passes.dialect import ErgoOp
from tvm_ergo.target import numerics


def run(op: ErgoOp, arrays: list[np.ndarray]) -> np.ndarray:
    """The value of ``op`` on all its arguments."""
    return globals()[f"_{op.op_name}"](op, *arrays)


def _taps(op, x, kernel, oh, ow):
    """``(i, j, ih, iw)`` of the taps of output (oh, ow) that lie inside the input."""
    dilation = getattr(op, "dilation", (1, 1))
    for i, j in product(range(kernel[0]), range(kernel[1])):
        ih = oh * op.strides[0] - op.padding[0] + i * dilation[0]
        iw = ow * op.strides[1] - op.padding[1] + j * dilation[1]
        if 0 <= ih < x.shape[1] and 0 <= iw < x.shape[2]:
            yield i, j, ih, iw


def _size(op, x, kernel):
    dilation = getattr(op, "dilation", (1, 1))
    return [
        (x.shape[1 + a] + op.padding[a] + op.padding[a + 2] - (kernel[a] - 1) * dilation[a] - 1) // op.strides[a] + 1
        for a in (0, 1)
    ]


def _conv2d(op, x, w, bias, mult, shift):
    rows, cols = _size(op, x, w.shape[1:3])
    acc = np.zeros((x.shape[0], rows, cols, w.shape[0]), np.int64) + bias.astype(np.int64)
    depth, per_group = w.shape[3], w.shape[0] // op.groups
    centred, weights = x.astype(np.int64) - op.in_zp, w.astype(np.int64) - op.w_zp
    for oh, ow, o in product(range(rows), range(cols), range(w.shape[0])):
        begin = o // per_group * depth
        for i, j, ih, iw in _taps(op, x, w.shape[1:3], oh, ow):
            acc[:, oh, ow, o] += (centred[:, ih, iw, begin : begin + depth] * weights[o, i, j]).sum(axis=-1)
    return numerics.requantize(acc, mult, shift, op.out_zp, op.lo, op.hi)


def _depthwise_conv2d(op, x, w, bias, mult, shift):
    rows, cols = _size(op, x, w.shape[:2])
    acc = np.zeros((x.shape[0], rows, cols, w.shape[2]), np.int64) + bias.astype(np.int64)
    for oh, ow in product(range(rows), range(cols)):
        for i, j, ih, iw in _taps(op, x, w.shape[:2], oh, ow):
            acc[:, oh, ow] += (x[:, ih, iw].astype(np.int64) - op.in_zp) * (w[i, j].astype(np.int64) - op.w_zp)
    return numerics.requantize(acc, mult, shift, op.out_zp, op.lo, op.hi)


def _conv2d_transpose(op, x, w, bias, mult, shift):
    batch, height, width, _ = x.shape
    out_channels, kh, kw, _ = w.shape
    size = [
        (dim - 1) * op.strides[a]
        + (k - 1) * op.dilation[a]
        + 1
        + op.output_padding[a]
        - op.padding[a]
        - op.padding[a + 2]
        for a, (dim, k) in enumerate(((height, kh), (width, kw)))
    ]
    acc = np.zeros((batch, *size, out_channels), np.int64) + bias.astype(np.int64)
    for ih, iw, i, j in product(range(height), range(width), range(kh), range(kw)):
        oh = ih * op.strides[0] - op.padding[0] + i * op.dilation[0]
        ow = iw * op.strides[1] - op.padding[1] + j * op.dilation[1]
        if 0 <= oh < size[0] and 0 <= ow < size[1]:
            acc[:, oh, ow] += (x[:, ih, iw].astype(np.int64) - op.in_zp) @ (w[:, i, j].astype(np.int64) - op.w_zp).T
    return numerics.requantize(acc, mult, shift, op.out_zp, op.lo, op.hi)


def _matmul(op, a, b):
    b = np.swapaxes(b, -1, -2) if op.transpose_b else b
    acc = np.matmul(a.astype(np.int64) - op.a_zp, b.astype(np.int64) - op.b_zp)
    return numerics.requantize(acc, op.mult, op.shift, op.out_zp, op.lo, op.hi)


def _add(op, a, b):
    total = (a.astype(np.int64) - op.a_zp) * op.a_mult + (b.astype(np.int64) - op.b_zp) * op.b_mult
    return np.clip(numerics.rounding_shift(total, op.shift) + op.out_zp, op.lo, op.hi).astype(np.int8)


def _mul(op, a, b):
    return numerics.requantize(
        (a.astype(np.int64) - op.a_zp) * (b.astype(np.int64) - op.b_zp), op.mult, op.shift, op.out_zp, op.lo, op.hi
    )


def _maximum(op, a, b):
    return np.maximum(a, b)


def _minimum(op, a, b):
    return np.minimum(a, b)


def _table(op, x, lut):
    index = x.astype(np.int64) + (128 if x.dtype == np.int8 else 0)
    return lut[index] if lut.ndim == 1 else lut[np.arange(x.shape[-1]), index]


def _max_pool2d(op, x):
    rows, cols = _size(op, x, op.pool)
    out = np.empty((x.shape[0], rows, cols, x.shape[3]), np.int8)
    for oh, ow in product(range(rows), range(cols)):
        out[:, oh, ow] = np.max([x[:, ih, iw] for _, _, ih, iw in _taps(op, x, op.pool, oh, ow)], axis=0)
    return out


def _divide(numerator: int, denominator: int) -> int:
    """Rounding division in unbounded integers."""
    return (2 * int(numerator) + int(denominator)) // (2 * int(denominator))


def _avg_pool2d(op, x):
    rows, cols = _size(op, x, op.pool)
    out = np.empty((x.shape[0], rows, cols, x.shape[3]), np.int8)
    for n, oh, ow, c in product(range(x.shape[0]), range(rows), range(cols), range(x.shape[3])):
        taps = [int(x[n, ih, iw, c]) - op.in_zp for _, _, ih, iw in _taps(op, x, op.pool, oh, ow)]
        count = op.pool[0] * op.pool[1] if op.count_include_pad else len(taps)
        out[n, oh, ow, c] = min(max(op.out_zp + _divide(sum(taps) * op.mult, count << op.shift), op.lo), op.hi)
    return out


def _reduce_sum(op, x):
    acc = (x.astype(np.int64) - op.in_zp).sum(axis=op.axes, keepdims=op.keepdims)
    return np.asarray(numerics.requantize(acc, op.mult, op.shift, op.out_zp, op.lo, op.hi))


def _reduce_max(op, x):
    return np.asarray(x.max(axis=op.axes, keepdims=op.keepdims))


def _reduce_min(op, x):
    return np.asarray(x.min(axis=op.axes, keepdims=op.keepdims))


def _argmax(op, x):
    out = np.empty(x.shape[:-1], np.int32)
    for index in np.ndindex(out.shape):
        row = [int(v) for v in x[index]]
        out[index] = row.index(max(row))
    return out


def _topk(op, x):
    out = np.empty((*x.shape[:-1], op.k), np.int32 if op.positions else np.int8)
    for index in np.ndindex(x.shape[:-1]):
        places = sorted(range(x.shape[-1]), key=lambda i, row=x[index]: (-int(row[i]), i))[: op.k]
        out[index] = places if op.positions else x[index][places]
    return out


def _bits_of_log2(number):
    """``log2(number)`` with 16 fraction bits, from 31 bits of the number, each squaring rounded down to as many."""
    power = number.bit_length() - 1
    value, bits = Fraction(number * 2**30 // 2**power, 2**30), power
    for _ in range(16):
        value = Fraction(value * value * 2**30 // 1, 2**30)
        bits *= 2
        if value >= 2:
            value, bits = Fraction(value * 2**29 // 1, 2**30), bits + 1
    return bits


def _log_softmax(op, x, lut):
    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        distances = [int(x[index].max()) - int(v) for v in x[index]]
        log = _bits_of_log2(max(sum(int(lut[d]) for d in distances), 1)) - 22 * 2**16
        for i, d in enumerate(distances):
            rounded = (Fraction(-(d * op.x_mult + log * op.log_mult), 2**op.shift) + Fraction(1, 2)).__floor__()
            out[(*index, i)] = min(max(rounded + op.out_zp, op.lo), op.hi)
    return out


def _softmax(op, x, lut):
    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        e = [int(lut[int(x[index].max()) - int(v)]) for v in x[index]]
        out[index] = [min(max(op.out_zp + _divide(v * op.mult, sum(e) << op.shift), op.lo), op.hi) for v in e]
    return out


def _resize2d(op, x, rows, cols):
    def blend(low, high, weight):
        return low * (2048 - weight) + high * weight

    out = np.empty((x.shape[0], len(rows), len(cols), x.shape[3]), np.int8)
    wide = x.astype(np.int64)
    for oh, ow in product(range(len(rows)), range(len(cols))):
        (r0, r1, rw), (c0, c1, cw) = rows[oh].astype(np.int64), cols[ow].astype(np.int64)
        acc = blend(blend(wide[:, r0, c0], wide[:, r0, c1], cw), blend(wide[:, r1, c0], wide[:, r1, c1], cw), rw)
        if op.scaled:
            total = (acc - op.in_zp * 2**22).astype(object) * op.mult
            rounded = (2 * total + 2 ** (22 + op.shift)) // 2 ** (23 + op.shift)
            out[:, oh, ow] = np.clip(rounded + op.out_zp, op.lo, op.hi).astype(np.int8)
        else:
            out[:, oh, ow] = (acc + 2**21) >> 22
    return out


def _pad(op, x):
    return np.pad(x, np.reshape(op.pad_width, (-1, 2)), constant_values=op.value)


def _concat(op, *xs):
    return np.concatenate(xs, axis=op.axis)


def _slice(op, x):
    return x[tuple(slice(b, e, s) for b, e, s in zip(op.begin, op.end, op.strides, strict=True))]


def _transpose(op, x):
    return x.transpose(op.perm)


def _reshape(op, x):
    return x.reshape(op.shape)


_receive = _transpose


def _round(value: int, shift: int) -> int:
    """``floor(value / 2**shift + 1/2)`` of a Python integer."""
    return (2 * value + (1 << shift)) >> (shift + 1)


def _ends(op, value: int, wide: bool) -> int:
    return min(max(value, -32768), 32767) if wide else min(max(value + op.out_zp, op.lo), op.hi)


def _conv2d_wide(op, x, w, bias, mult, shift):
    acc = _accumulators(op, x, w, bias)
    scaled = numerics.rounding_shift(acc * mult.astype(np.int64), shift)
    return np.clip(scaled, -32768, 32767).astype(np.int16)


def _accumulators(op, x, w, bias):
    """Of a convolution: its int8 results with all multipliers 1 would be clipped, so they are summed here."""
    rows, cols = _size(op, x, w.shape[1:3])
    acc = np.zeros((x.shape[0], rows, cols, w.shape[0]), np.int64) + bias.astype(np.int64)
    depth, per_group = w.shape[3], w.shape[0] // op.groups
    for oh, ow, o in product(range(rows), range(cols), range(w.shape[0])):
        begin = o // per_group * depth
        for i, j, ih, iw in _taps(op, x, w.shape[1:3], oh, ow):
            acc[:, oh, ow, o] += (
                (x[:, ih, iw, begin : begin + depth].astype(np.int64) - op.in_zp)
                * (w[o, i, j].astype(np.int64) - op.w_zp)
            ).sum(axis=-1)
    return acc


def _matmul_wide(op, a, b):
    right = np.swapaxes(b, -1, -2) if op.transpose_b else b
    acc = np.matmul(a.astype(np.int64) - op.a_zp, right.astype(np.int64) - op.b_zp)
    return np.clip(numerics.rounding_shift(acc * op.mult, op.shift), -32768, 32767).astype(np.int16)


def _elements(function, shape, *arrays, dtype):
    out = np.empty(shape, dtype)
    arrays = [np.broadcast_to(a, shape) for a in arrays]
    for index in np.ndindex(shape):
        out[index] = function(*(int(a[index]) for a in arrays))
    return out


def _add_wide(op, a, b):
    def value(p, q):
        return _ends(op, _round((p - op.a_zp) * op.a_mult + (q - op.b_zp) * op.b_mult, op.shift), True)

    return _elements(value, np.broadcast_shapes(a.shape, b.shape), a, b, dtype=np.int16)


def _ends_16(op, value):
    return min(max(value + op.out_zp, op.lo), op.hi)


def _conv2d_16(op, x, w, bias, mult, shift):
    rows, cols = _size(op, x, w.shape[1:3])
    acc = np.zeros((x.shape[0], rows, cols, w.shape[0]), np.int64) + bias.astype(np.int64)
    depth, per_group = w.shape[3], w.shape[0] // op.groups
    centred, weights = x.astype(np.int64) - op.in_zp, w.astype(np.int64) - op.w_zp
    for oh, ow, o in product(range(rows), range(cols), range(w.shape[0])):
        begin = o // per_group * depth
        for i, j, ih, iw in _taps(op, x, w.shape[1:3], oh, ow):
            acc[:, oh, ow, o] += (centred[:, ih, iw, begin : begin + depth] * weights[o, i, j]).sum(axis=-1)
    scaled = numerics.rounding_shift(acc * mult.astype(np.int64), shift)
    return np.clip(scaled + op.out_zp, op.lo, op.hi).astype(np.int16 if op.wide else np.int8)


def _pair_16(op, a, b, function):
    shape, dtype = np.broadcast_shapes(a.shape, b.shape), np.int16 if op.wide else np.int8
    return _elements(
        lambda p, q: _ends_16(op, _round(function(p - op.a_zp, q - op.b_zp), op.shift)), shape, a, b, dtype=dtype
    )


def _add_16(op, a, b):
    return _pair_16(op, a, b, lambda p, q: p * op.a_mult + q * op.b_mult)


def _mul_16(op, a, b):
    return _pair_16(op, a, b, lambda p, q: p * q * op.mult)


def _rescale_16(op, x):
    return _elements(
        lambda v: _ends_16(op, _round((v - op.in_zp) * op.mult, op.shift)),
        x.shape,
        x,
        dtype=np.int16 if op.wide else np.int8,
    )


def _table_16(op, x, lut):
    def value(v):
        index, rest = divmod(v + 32768, 2**op.step)
        return int(lut[index]) + _round((int(lut[index + 1]) - int(lut[index])) * rest, op.step)

    return _elements(value, x.shape, x, dtype=np.int16 if op.wide else np.int8)


def _rescale(op, x):
    return _elements(
        lambda v: _ends(op, _round((v - op.in_zp) * op.mult, op.shift), op.wide),
        x.shape,
        x,
        dtype=np.int16 if op.wide else np.int8,
    )


def _norm(op, x, gamma, beta):
    out = np.empty(x.shape, np.int16 if op.wide else np.int8)
    gamma, beta = (np.broadcast_to(v, x.shape[-1:]) for v in (gamma, beta))
    for row in np.ndindex(x.shape[:-1]):
        values = [int(v) - op.in_zp for v in x[row]]
        length, total = len(values), sum(values) if op.centre else 0
        spread = max(1, length * sum(v * v for v in values) - total * total + (op.eps << op.eps_shift))
        k = next(k for k in range(-20, 20) if 2**30 <= Fraction(spread) / Fraction(4) ** k < 2**32)
        root = isqrt(2**62 // int(Fraction(spread) / Fraction(4) ** k))
        for c, v in enumerate(values):
            t = _round((length * v - total) * root, 17 + k)
            out[(*row, c)] = _ends(op, _round(t * int(gamma[c]) + (int(beta[c]) << op.beta_shift), op.shift), op.wide)
    return out


def _exp_rows(op, x, lut, *mask):
    out = np.zeros(x.shape, np.uint8)
    kept = np.broadcast_to(mask[0], x.shape) != 0 if mask else np.ones(x.shape, bool)
    for row in np.ndindex(x.shape[:-1]):
        valid = [k for k in range(x.shape[-1]) if kept[(*row, k)] and (not op.causal or k <= row[-1] + op.offset)]
        for k in valid:
            distance = max(int(x[(*row, j)]) for j in valid) - int(x[(*row, k)])
            out[(*row, k)] = min(_round(int(lut[distance % 256]) >> min(distance // 256, 31), 7), 255)
    return out


def _weighted_mean(op, a, b):
    acc = np.matmul(a.astype(np.int64), b.astype(np.int64) - op.b_zp)
    weight = np.maximum(1, a.astype(np.int64).sum(-1, keepdims=True))
    return _elements(
        lambda v, s: _ends(op, _round(_round(v * (2**30 // s), 22) * op.mult, op.shift), op.wide),
        acc.shape,
        acc,
        weight,
        dtype=np.int16 if op.wide else np.int8,
    )


def _rotate(op, x, cos, sin):
    length = x.shape[-1]
    order = [i ^ 1 if op.interleaved else (i + length // 2) % length for i in range(length)]
    return _elements(
        lambda v, y, c, s: _ends(op, _round((v * c + y * s) * op.mult, op.shift), op.wide),
        x.shape,
        x,
        x[..., order],
        cos,
        sin,
        dtype=np.int16 if op.wide else np.int8,
    )


def _gather_rows(op, table, mult, ids):
    out = np.empty((*ids.shape, table.shape[1]), np.int16)
    for index in np.ndindex(ids.shape):
        row = int(ids[index])
        row = min(max(row + len(table) if row < 0 else row, 0), len(table) - 1)
        out[index] = [_ends(op, _round(int(v) * int(mult[row]), op.shift), True) for v in table[row]]
    return out


def _take_rows(op, x, position):
    first = min(max(int(position[0]), 0), x.shape[-2] - op.rows)
    return np.stack([x[..., first + i, :] for i in range(op.rows)], axis=-2)


def _put_rows(op, x, rows, position):
    out, first = x.copy(), min(max(int(position[0]), 0), x.shape[-2] - rows.shape[-2])
    for i in range(rows.shape[-2]):
        out[..., first + i, :] = rows[..., i, :]
    return out


def _shift_rows(op, x, rows):
    both = [np.take(t, [i], axis=op.axis) for t in (x, rows) for i in range(t.shape[op.axis])]
    return np.concatenate(both[-x.shape[op.axis] :], axis=op.axis)


def _sign(packed, channel):
    return 1 if packed[channel // 8] >> (channel % 8) & 1 else -1


def _packed(bits):
    packed = np.zeros((*bits.shape[:-1], -(-bits.shape[-1] // 8)), np.uint8)
    for place in np.argwhere(bits):
        packed[(*place[:-1], place[-1] // 8)] |= 1 << place[-1] % 8
    return packed


def _binarize(op, x, low, high):
    return _packed((x >= low) & (x <= high))


def _signs(packed, channels):
    rows = [[_sign(row, c) for c in range(channels)] for row in packed.reshape(-1, packed.shape[-1]).astype(int)]
    return np.array(rows, np.int64).reshape(*packed.shape[:-1], channels)


def _dots(op, x, w):
    rows, cols = _size(op, x, w.shape[1:3])
    total = np.zeros((x.shape[0], rows, cols, w.shape[0]), np.int64)
    x, w = _signs(x, op.channels), _signs(w, op.channels)
    for oh, ow in product(range(rows), range(cols)):
        inside = {(i, j): (ih, iw) for i, j, ih, iw in _taps(op, x, w.shape[1:3], oh, ow)}
        for i, j in product(range(w.shape[1]), range(w.shape[2])):
            at = inside.get((i, j))
            total[:, oh, ow] += (op.pad_value * w[:, i, j]).sum(-1) if at is None else x[:, at[0], at[1]] @ w[:, i, j].T
    return total


def _binary_conv2d(op, x, w, low, high):
    total = _dots(op, x, w)
    return _packed((total >= low) & (total <= high))


def _binary_conv2d_sum(op, x, w, scale, bias, mult, shift):
    return numerics.requantize(_dots(op, x, w) * scale + bias, mult, shift, op.out_zp, op.lo, op.hi)


def _binary_conv2d_accumulate(op, x, w, scale, bias, mult, shift):
    return (_dots(op, x, w) * scale + bias).astype(np.int32)


def _binary_max_pool2d(op, x):
    return _packed(_max_pool2d(op, _signs(x, 8 * x.shape[-1]).astype(np.int8)) > 0)


assert all(f"_{name}" in globals() for name, op in dialect.OPS.items() if op.in_models)
