"""TE definitions of the contractions, in the form the CPU schedule (``relay_passes/cpu.py``) vectorizes.

A convolution is three stages: padding (with the zero point, so that padded taps contribute 0), an int32 accumulator
over *packed* weights, the requantization. Packed weights are [O/v, kh, kw, C/groups, v]: v output channels lie side by
side, so one broadcast activation meets one vector of weights. OHWI constants are packed once, when the call is
legalized; other weights are packed by a stage of the PrimFunc."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax, te, tirx

from tvm_ergo.relay_passes import compat
from tvm_ergo.relay_passes.dialect import arithmetic, regions

MAX_LANES = 32
LANES_ANNOTATION = "ergo.lanes"
"""Block annotation for the CPU schedule: how many of the innermost channels lie side by side in the packed weights."""


def lanes(out_channels: int, groups: int) -> int:
    """Output channels in one packed vector: a divisor of the channels of a group; without groups 16 or 32, which
    may leave unused lanes at the end."""
    if groups > 1:
        per_group = out_channels // groups
        return max(d for d in range(1, MAX_LANES + 1) if per_group % d == 0)
    if out_channels < 16:
        return out_channels
    return 32 if -(-out_channels // 32) * 32 == -(-out_channels // 16) * 16 else 16


def pack_conv_numpy(weights: np.ndarray, groups: int, flip: bool = False) -> np.ndarray:
    """OHWI weights as [ceil(O/v), kh, kw, C/groups, v], missing channels 0; ``flip`` mirrors the taps."""
    out_channels, kh, kw, depth = weights.shape
    v = lanes(out_channels, groups)
    blocks = -(-out_channels // v)
    padded = np.zeros((blocks * v, kh, kw, depth), weights.dtype)
    padded[:out_channels] = weights[:, ::-1, ::-1] if flip else weights
    return np.ascontiguousarray(padded.reshape(blocks, v, kh, kw, depth).transpose(0, 2, 3, 4, 1))


def pack_conv(weights: te.Tensor, groups: int, flip: bool = False) -> te.Tensor:
    """``pack_conv_numpy`` as a TE stage."""
    out_channels, kh, kw, depth = (int(d) for d in weights.shape)
    v = lanes(out_channels, groups)
    blocks = -(-out_channels // v)

    def element(block, i, j, c, lane):
        o = block * v + lane
        value = weights(o, kh - 1 - i, kw - 1 - j, c) if flip else weights(o, i, j, c)
        return (
            value
            if blocks * v == out_channels
            else tirx.if_then_else(o < out_channels, value, tirx.const(0, weights.dtype))
        )

    return te.compute((blocks, kh, kw, depth, v), element, name="pack")


def legalize_packed(
    op, builder: relax.BlockBuilder, call: relax.Call, pack: Callable[[np.ndarray], np.ndarray]
) -> relax.Expr:
    """``call_tir`` of ``op`` with its weights (argument 1) packed now if they are a constant."""
    x, weights, *vectors = call.args
    hint = f"ergo_{op.op_name}"
    array = compat.constant_array(weights)
    if array is None:
        return builder.call_te(op.compute, x, weights, *vectors, primfunc_name_hint=hint)
    packed = relax.const(pack(array))
    return builder.call_te(op.compute_packed, x, packed, *vectors, primfunc_name_hint=hint)


def pad_rows(x: te.Tensor, padding: tuple[int, ...], value: int) -> te.Tensor:
    """[N,H,W,C] padded by (t,l,b,r) with ``value``; ``x`` itself where there is nothing to pad."""
    if not any(padding):
        return x
    top, left, bottom, right = padding
    batch, height, width, channels = (int(d) for d in x.shape)

    def element(n, h, w, c):
        inside = tirx.all(h >= top, h < top + height, w >= left, w < left + width)
        return tirx.if_then_else(inside, x(n, h - top, w - left, c), tirx.const(value, x.dtype))

    return te.compute((batch, height + top + bottom, width + left + right, channels), element, name="pad_rows")


def spread_rows(x: te.Tensor, strides, padding, dilation, kernel, sizes, value: int) -> te.Tensor:
    """The input of a transposed convolution with ``strides - 1`` rows and columns of ``value`` between its own, so that
    a stride-1 convolution with mirrored taps gives the result of ``sizes`` rows and columns."""
    batch, height, width, channels = (int(d) for d in x.shape)
    reach = [(kernel[a] - 1) * dilation[a] for a in (0, 1)]

    def element(n, h, w, c):
        conditions, source = [], []
        for axis, (position, dim) in enumerate(((h, height), (w, width))):
            spread = position + (padding[axis] - reach[axis])
            conditions += [
                spread >= 0,
                spread < (dim - 1) * strides[axis] + 1,
                tirx.floormod(spread, strides[axis]) == 0,
            ]
            source.append(tirx.floordiv(spread, strides[axis]))
        return tirx.if_then_else(tirx.all(*conditions), x(n, *source, c), tirx.const(value, x.dtype))

    return te.compute((batch, sizes[0] + reach[0], sizes[1] + reach[1], channels), element, name="spread_rows")


def _out_size(padded: te.Tensor, kernel, strides, dilation) -> tuple[int, int]:
    return tuple((int(padded.shape[1 + a]) - (kernel[a] - 1) * dilation[a] - 1) // strides[a] + 1 for a in (0, 1))


def conv(
    padded: te.Tensor,
    packed: te.Tensor,
    out_channels: int,
    strides,
    dilation,
    groups: int,
    in_zp: int,
    w_zp: int,
    dtype: str = "int32",
) -> te.Tensor:
    """Accumulators of ``dtype`` [N, OH, OW, ceil(O/v)*v] of a padded input and packed weights."""
    blocks, kh, kw, depth, v = (int(d) for d in packed.shape)
    rows, cols = _out_size(padded, (kh, kw), strides, dilation)
    per_group = out_channels // groups
    i, j, c = (te.reduce_axis((0, extent), name) for extent, name in ((kh, "i"), (kw, "j"), (depth, "c")))

    def element(n, h, w, o):
        channel = c if groups == 1 else tirx.floordiv(o, per_group) * depth + c
        x = padded(n, h * strides[0] + i * dilation[0], w * strides[1] + j * dilation[1], channel)
        weight = packed(tirx.floordiv(o, v), i, j, c, tirx.floormod(o, v))
        product = arithmetic.centred(x, in_zp) * arithmetic.centred(weight, w_zp)
        return te.sum(product if dtype == "int32" else arithmetic.int64(product), axis=[i, j, c])

    return te.compute(
        (int(padded.shape[0]), rows, cols, blocks * v), element, name="accumulate", attrs={LANES_ANNOTATION: v}
    )


def depthwise(padded: te.Tensor, w: te.Tensor, strides, dilation, in_zp: int, w_zp: int) -> te.Tensor:
    """int32 accumulators [N,OH,OW,C] of a padded input and one filter a channel, [kh,kw,C]."""
    kh, kw, channels = (int(d) for d in w.shape)
    rows, cols = _out_size(padded, (kh, kw), strides, dilation)
    i, j = te.reduce_axis((0, kh), "i"), te.reduce_axis((0, kw), "j")
    return te.compute(
        (int(padded.shape[0]), rows, cols, channels),
        lambda n, h, x, c: te.sum(
            arithmetic.centred(padded(n, h * strides[0] + i * dilation[0], x * strides[1] + j * dilation[1], c), in_zp)
            * arithmetic.centred(w(i, j, c), w_zp),
            axis=[i, j],
        ),
        name="accumulate",
    )


def matmul(a: te.Tensor, b: te.Tensor, transpose_b: bool, a_zp: int, b_zp: int) -> te.Tensor:
    """int32 accumulators [...,M,N]; a transposed ``b`` is first turned so that columns lie side by side."""
    if transpose_b:
        turned = (*b.shape[:-2], b.shape[-1], b.shape[-2])
        source = b
        b = te.compute(turned, lambda *i: source(*i[:-2], i[-1], i[-2]), name="pack")
    batch = regions.broadcast_shape([int(d) for d in a.shape[:-2]], [int(d) for d in b.shape[:-2]])
    k = te.reduce_axis((0, int(a.shape[-1])), "k")

    def read(tensor, index, row, column):
        offset = len(batch) - (len(tensor.shape) - 2)
        return tensor(
            *[0 if int(dim) == 1 else index[offset + axis] for axis, dim in enumerate(tensor.shape[:-2])], row, column
        )

    def element(*index):
        *outer, row, column = index
        return te.sum(
            arithmetic.centred(read(a, outer, row, k), a_zp) * arithmetic.centred(read(b, outer, k, column), b_zp),
            axis=k,
        )

    return te.compute((*batch, int(a.shape[-2]), int(b.shape[-1])), element, name="accumulate")


def requantize_channels(acc: te.Tensor, bias: te.Tensor, mult: te.Tensor, shift: te.Tensor, op) -> te.Tensor:
    """int8 of ``acc + bias``, multiplier and shift per channel; unused accumulator lanes are dropped."""
    shape = (*acc.shape[:-1], bias.shape[0])
    return te.compute(
        shape,
        lambda n, h, w, o: arithmetic.requantize(acc(n, h, w, o) + bias(o), mult(o), shift(o), op.out_zp, op.lo, op.hi),
        name="requantize",
    )


def requantize_scalar(acc: te.Tensor, op) -> te.Tensor:
    """int8 of ``acc`` with one multiplier and shift."""
    return arithmetic.unary(
        acc, lambda v: arithmetic.requantize(v, op.mult, op.shift, op.out_zp, op.lo, op.hi), "requantize"
    )
