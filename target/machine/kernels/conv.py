"""Convolutions: im2col and float32 BLAS where provably exact.

A float32 sum of integer products is exact, in any order and with or without FMA, while no partial sum can exceed 2**24
(for a BLAS that sums plain products, as the common ones do). With the input's zero point folded into the bias, the
partial sums of output channel o are at most ``128 * sum |w[o] - w_zp|``. Where that is too large, the reduction axis is
cut into chunks that each satisfy it, and the chunks' results are added in float64 (exact below 2**53). Padding writes
the input's zero point, so that padded taps contribute ``(in_zp - in_zp) * w = 0``."""

from __future__ import annotations

import math

import numpy as np

from tvm_ergo.target.machine.kernels.depthwise import PreparedDepthwise
from tvm_ergo.target.machine.kernels.rescale import Rescale
from tvm_ergo.target.machine.kernels.windows import output_size, pad_nhwc, stuff_zeros, transpose_padding, windows
from tvm_ergo.target.machine.kernels.workers import can_split_blas, run_all, single_threaded_blas, thread_count
from tvm_ergo.target.machine.kernels.workspace import scratch

FLOAT32_EXACT = 1 << 24
INPUT_BOUND = 128  # of an int8 activation, its zero point folded into the bias
IM2COL_ELEMENTS = 1 << 19  # of one band's patch matrix (2 MiB): large enough for BLAS, small enough for the caches
SPLIT_MACS = 1 << 23  # a smaller product is not worth distributing over threads


def magnitude_sum(weights: np.ndarray, axis: int) -> np.ndarray:
    """int64 sums of absolute values; ``weights`` wide enough for its own absolute values (int16 for int8 weights)."""
    return np.abs(weights).sum(axis=axis, dtype=np.int64)


def exact_chunks(weights: np.ndarray, input_bound: int = INPUT_BOUND) -> list[tuple[int, int]]:
    """Cuts the rows of ``weights`` (integers, [K, O]) into ranges whose float32 matrix product with int8 data is exact
    for every column."""
    if magnitude_sum(weights, axis=0).max(initial=0) * input_bound <= FLOAT32_EXACT:
        return [(0, len(weights))]
    total = np.abs(weights).cumsum(axis=0, dtype=np.int64) * input_bound
    chunks, begin, base = [], 0, np.zeros(weights.shape[1], np.int64)
    while begin < len(weights):
        over = (total[begin:] - base > FLOAT32_EXACT).any(axis=1)
        end = begin + int(over.argmax()) if over.any() else len(weights)
        chunks.append((begin, end))
        begin, base = end, total[end - 1]
    return chunks


class _Gemm:
    """One group: ``patches [M, K] -> acc [M, O]``, and the rescale to int8."""

    def __init__(self, weights: np.ndarray, bias, mult, shift, in_zp, out_zp, lo, hi):
        """``weights`` int16 [K, O] with their zero point subtracted; bias, mult, shift [O]."""
        self.weights = np.ascontiguousarray(weights, np.float32)
        self.chunks = exact_chunks(weights)
        bound = magnitude_sum(weights, axis=0) * INPUT_BOUND
        folded = np.asarray(bias, np.int64) - int(in_zp) * weights.sum(axis=0, dtype=np.int64)
        self.rescale = Rescale(mult, shift, out_zp, lo, hi, acc_bound=bound, bias=folded, channels=weights.shape[1])

    def __call__(self, patches: np.ndarray, out: np.ndarray) -> None:
        """``patches`` float32 [M, K] contiguous, ``out`` int8 or int32 [M, O] contiguous."""
        rows, channels = len(patches), self.weights.shape[1]
        acc = scratch("acc", (rows, channels), np.float32)
        if len(self.chunks) == 1:
            np.matmul(patches, self.weights, out=acc)
        else:
            total = scratch("acc64", (rows, channels), np.float64)
            for number, (begin, end) in enumerate(self.chunks):
                np.matmul(patches[:, begin:end], self.weights[begin:end], out=acc)
                total[...] = acc if number == 0 else total + acc
            acc = total
        self.rescale(acc, out)


class PreparedConv:
    """A conv2d with constant weights, ready to run: float32 [K, O] matrices, folded bias, proven chunks, rescale.

    Parameters are those of ``conv2d``. Calling it with ``x i8[N,H,W,C]`` gives ``i8[N,OH,OW,O]``, written into ``out``
    when given."""

    def __init__(self, w, bias, mult, shift, *, strides, padding, dilation, groups, in_zp, w_zp, out_zp, lo, hi):
        o, kh, kw, cg = w.shape
        self.kernel, self.strides, self.padding, self.dilation = (
            (kh, kw),
            tuple(strides),
            tuple(padding),
            tuple(dilation),
        )
        self.groups, self.in_zp, self.out_channels, self.group_channels = groups, in_zp, o, cg
        self.depthwise, per_group = None, o // groups
        if groups > 1 and cg == 1:
            self.depthwise = PreparedDepthwise(
                np.ascontiguousarray(w[..., 0].transpose(1, 2, 0)),
                bias,
                mult,
                shift,
                strides=strides,
                padding=padding,
                dilation=dilation,
                in_zp=in_zp,
                w_zp=w_zp,
                out_zp=out_zp,
                lo=lo,
                hi=hi,
            )
            return
        matrix = w.astype(np.int16).reshape(o, kh * kw * cg).T - np.int16(w_zp)
        bias, mult, shift = (np.broadcast_to(np.asarray(v), (o,)) for v in (bias, mult, shift))
        self.gemms = []
        for g in range(groups):
            part = slice(g * per_group, (g + 1) * per_group)
            self.gemms.append(_Gemm(matrix[:, part], bias[part], mult[part], shift[part], in_zp, out_zp, lo, hi))

    def out_shape(self, x_shape) -> tuple[int, int, int, int]:
        n, h, w, _ = x_shape
        top, left, bottom, right = self.padding
        return (
            n,
            output_size(h, self.kernel[0], self.strides[0], top, bottom, self.dilation[0]),
            output_size(w, self.kernel[1], self.strides[1], left, right, self.dilation[1]),
            self.out_channels,
        )

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if self.depthwise is not None:
            repeats = self.out_channels // x.shape[3]
            return self.depthwise(x if repeats == 1 else np.repeat(x, repeats, axis=3), out)
        shape = self.out_shape(x.shape)
        if out is None:
            out = np.empty(shape, np.int8)
        target = out if out.flags.c_contiguous else scratch("conv_out", shape, out.dtype)
        rows = target.reshape(-1, self.out_channels)
        padded = pad_nhwc(x, self.padding, self.in_zp)
        for g, gemm in enumerate(self.gemms):
            self._run_group(padded[..., g * self.group_channels : (g + 1) * self.group_channels], gemm, shape, rows, g)
        if target is not out:
            out[...] = target
        return out

    def _run_group(self, x: np.ndarray, gemm: _Gemm, shape, rows: np.ndarray, g: int) -> None:
        per_group = self.out_channels // self.groups
        view = windows(x, self.kernel, self.strides, self.dilation)

        def run(band: tuple[slice, slice]) -> None:
            patches, begin = im2col(view, band)
            part = slice(begin, begin + len(patches))
            if self.groups == 1:
                gemm(patches, rows[part])
            else:
                result = scratch("group_out", (len(patches), per_group), rows.dtype)
                gemm(patches, result)
                rows[part, g * per_group : (g + 1) * per_group] = result

        for_bands(view.shape, per_group, run)


def for_bands(shape: tuple[int, ...], channels: int, run) -> None:
    """``run(band)`` for bands that cover windows of ``shape``; on all threads where the product with ``channels``
    columns is worth it."""
    if math.prod(shape) * channels < SPLIT_MACS or not can_split_blas():
        run_all(run, patch_bands(shape), parallel=False)
    else:
        with single_threaded_blas():
            run_all(run, patch_bands(shape, thread_count()))


def patch_bands(shape: tuple[int, ...], parts: int = 1) -> list[tuple[slice, slice]]:
    """Cuts windows ``[N,OH,OW,kh,kw,C]`` into at least ``parts`` bands (images, output rows) whose patch matrices fit
    the caches."""
    n, oh, ow, depth = *shape[:3], math.prod(shape[3:])
    step = max(1, max(IM2COL_ELEMENTS, 256 * depth) // (ow * depth))  # output rows a band
    images = max(1, step // oh)
    if n < parts:
        images, step = 1, min(step, -(-oh // parts))
    else:
        images = min(images, -(-n // parts))
    return [
        (slice(i, i + images), slice(row, min(row + step, oh)))
        for i in range(0, n, images)
        for row in range(0, oh, step)
    ]


def im2col(view: np.ndarray, band: tuple[slice, slice]) -> tuple[np.ndarray, int]:
    """``(patches float32 [M, kh*kw*C], first row)`` of a band: M consecutive output positions."""
    part = view[band]
    patches = scratch("patches", part.shape, np.float32)
    np.copyto(patches, part, casting="unsafe")
    return patches.reshape(math.prod(part.shape[:3]), -1), (band[0].start * view.shape[1] + band[1].start) * view.shape[
        2
    ]


def conv2d(
    x,
    w,
    bias,
    mult,
    shift,
    *,
    strides=(1, 1),
    padding=(0, 0, 0, 0),
    dilation=(1, 1),
    groups=1,
    in_zp=0,
    w_zp=0,
    out_zp=0,
    lo=-128,
    hi=127,
    out=None,
) -> np.ndarray:
    """``x i8[N,H,W,C], w i8[O,kh,kw,C/groups], bias i32[O], mult i32[O], shift i8[O] -> i8[N,OH,OW,O]``.

    ``acc = bias + sum (x - in_zp) * (w - w_zp)`` over the taps inside the input, then ``numerics.requantize`` per
    channel. padding is (top, left, bottom, right). ``out`` may be a strided view; it must not overlap ``x``; an int32
    ``out`` receives the raw accumulators, bias included. Errors: MachineError when the window does not fit."""
    return PreparedConv(
        w,
        bias,
        mult,
        shift,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
        in_zp=in_zp,
        w_zp=w_zp,
        out_zp=out_zp,
        lo=lo,
        hi=hi,
    )(x, out)


class PreparedConvTranspose:
    """A transposed convolution with constant weights: a stride-1 convolution of the zero-stuffed input with the flipped
    kernel."""

    def __init__(
        self, w, bias, mult, shift, *, strides, padding, output_padding, dilation, in_zp, w_zp, out_zp, lo, hi
    ):
        kernel = w.shape[1:3]
        self.strides, self.in_zp = tuple(strides), in_zp
        self.conv = PreparedConv(
            w[:, ::-1, ::-1],
            bias,
            mult,
            shift,
            strides=(1, 1),
            dilation=dilation,
            groups=1,
            in_zp=in_zp,
            w_zp=w_zp,
            padding=transpose_padding(kernel, dilation, padding, output_padding),
            out_zp=out_zp,
            lo=lo,
            hi=hi,
        )

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return self.conv(stuff_zeros(x, self.strides, self.in_zp), out)


def conv2d_transpose(
    x,
    w,
    bias,
    mult,
    shift,
    *,
    strides=(1, 1),
    padding=(0, 0, 0, 0),
    output_padding=(0, 0),
    dilation=(1, 1),
    in_zp=0,
    w_zp=0,
    out_zp=0,
    lo=-128,
    hi=127,
    out=None,
) -> np.ndarray:
    """``x i8[N,H,W,C], w i8[O,kh,kw,C] -> i8[N,OH,OW,O]`` with ``acc[oh,ow,o] +=
    (x[ih,iw,c]-in_zp)*(w[o,i,j,c]-w_zp)``, ``oh = ih*sh - top + i*dh``, ``OH = (H-1)*sh - top - bottom + (kh-1)*dh + 1
    + output_padding``; then as ``conv2d``."""
    return PreparedConvTranspose(
        w,
        bias,
        mult,
        shift,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        in_zp=in_zp,
        w_zp=w_zp,
        out_zp=out_zp,
        lo=lo,
        hi=hi,
    )(x, out)
