"""Depthwise convolution: one multiply-add of whole rows per tap, in float32 (exact: 128 * sum |w| <= 2**24, else
float64).

Columns are split by phase (column modulo stride) while they are converted from int8, so that every tap of every stride
reads contiguous rows of ``OW * C`` floats; the weights are tiled to such rows. A band of rows stays in the cache over
all taps."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.rescale import Rescale
from tvm_ergo.target.machine.kernels.windows import output_size, pad_nhwc
from tvm_ergo.target.machine.kernels.workers import run_all, thread_count
from tvm_ergo.target.machine.kernels.workspace import scratch

BAND_ELEMENTS = 1 << 15  # accumulators of one band: 128 KiB, beside the product buffer and the input rows
SPLIT_ELEMENTS = 1 << 16  # fewer outputs are not worth distributing over threads


class DepthwiseTaps:
    """The multiply-add loop: ``x [H, W, C]`` padded, of any number type -> accumulators, for weights ``[kh, kw, C]`` in
    dtype ``real``."""

    def __init__(self, weights: np.ndarray, strides, dilation, real):
        self.weights, self.strides, self.dilation, self.real = (
            np.asarray(weights, real),
            tuple(strides),
            tuple(dilation),
            real,
        )
        self._tiles: dict[int, np.ndarray] = {}

    def _tile(self, out_width: int) -> np.ndarray:
        if out_width not in self._tiles:
            self._tiles[out_width] = np.tile(self.weights, (1, 1, out_width))
        return self._tiles[out_width]

    def apply(self, x: np.ndarray, sink) -> None:
        """Calls ``sink(first output row, acc [rows, OW * C])`` for every band of one padded image, on several
        threads."""
        (kh, kw, c), (sh, sw), (dh, dw) = self.weights.shape, self.strides, self.dilation
        oh, ow = output_size(x.shape[0], kh, sh, 0, 0, dh), output_size(x.shape[1], kw, sw, 0, 0, dw)
        step = max(1, BAND_ELEMENTS // (ow * c))
        if oh * ow * c >= SPLIT_ELEMENTS:
            step = min(step, -(-oh // thread_count()))
        tile = self._tile(ow)

        def run(row: int) -> None:
            count = min(step, oh - row)
            phases = self._phases(x[row * sh : row * sh + (count - 1) * sh + (kh - 1) * dh + 1])
            acc = scratch("depthwise_acc", (count, ow * c), self.real)
            product = scratch("depthwise_product", (count, ow * c), self.real)
            for i in range(kh):
                for j in range(kw):
                    begin = j * dw // sw * c
                    rows = phases[j * dw % sw][i * dh : i * dh + (count - 1) * sh + 1 : sh, begin : begin + ow * c]
                    np.multiply(rows, tile[i, j], out=product if i or j else acc)
                    if i or j:
                        acc += product
            sink(row, acc)

        run_all(run, range(0, oh, step), oh * ow * c >= SPLIT_ELEMENTS)

    def _phases(self, x: np.ndarray) -> list[np.ndarray]:
        result = []
        for phase in range(self.strides[1]):
            part = x[:, phase :: self.strides[1]]
            buffer = scratch(f"depthwise_phase{phase}", part.shape, self.real)
            np.copyto(buffer, part, casting="unsafe")
            result.append(buffer.reshape(len(part), -1))
        return result


class PreparedDepthwise:
    """A depthwise_conv2d with constant weights, ready to run. Parameters are those of ``depthwise_conv2d``."""

    def __init__(self, w, bias, mult, shift, *, strides, padding, dilation, in_zp, w_zp, out_zp, lo, hi):
        weights = w.astype(np.int64) - int(w_zp)
        bound = 128 * np.abs(weights).sum(axis=(0, 1))
        self.padding, self.in_zp = tuple(padding), in_zp
        self.taps = DepthwiseTaps(
            weights, strides, dilation, np.float32 if bound.max(initial=0) <= 1 << 24 else np.float64
        )
        folded = np.asarray(bias, np.int64) - int(in_zp) * weights.sum(axis=(0, 1))
        self.rescale = Rescale(mult, shift, out_zp, lo, hi, acc_bound=bound, bias=folded, channels=w.shape[2])

    def out_shape(self, x_shape) -> tuple[int, int, int, int]:
        (n, h, w, c), (kh, kw, _) = x_shape, self.taps.weights.shape
        top, left, bottom, right = self.padding
        (sh, sw), (dh, dw) = self.taps.strides, self.taps.dilation
        return n, output_size(h, kh, sh, top, bottom, dh), output_size(w, kw, sw, left, right, dw), c

    def __call__(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        shape = self.out_shape(x.shape)
        if out is None:
            out = np.empty(shape, np.int8)
        target = out if out.flags.c_contiguous else scratch("conv_out", shape, out.dtype)
        padded = pad_nhwc(x, self.padding, self.in_zp)
        for image, result in zip(padded, target):
            self.taps.apply(image, lambda row, acc, result=result: self.rescale(acc, result[row : row + len(acc)]))
        if target is not out:
            out[...] = target
        return out


def depthwise_conv2d(
    x,
    w,
    bias,
    mult,
    shift,
    *,
    strides=(1, 1),
    padding=(0, 0, 0, 0),
    dilation=(1, 1),
    in_zp=0,
    w_zp=0,
    out_zp=0,
    lo=-128,
    hi=127,
    out=None,
) -> np.ndarray:
    """``x i8[N,H,W,C], w i8[kh,kw,C], bias i32[C], mult i32[C], shift i8[C] -> i8[N,OH,OW,C]``: ``conv2d`` per
    channel."""
    return PreparedDepthwise(
        w,
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
    )(x, out)
