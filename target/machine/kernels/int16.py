"""16-bit activations with zero points of their own: what CONV_16, ADD_16, MUL_16, RESCALE_16 and TABLE_16 mean."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.machine.kernels.wide import result
from tvm_ergo.target.machine.kernels.windows import output_size
from tvm_ergo.target.numerics import rounding_shift


def _finish(value: np.ndarray, out: np.ndarray, out_zp: int, lo: int, hi: int) -> np.ndarray:
    """``clip(value + out_zp, lo, hi)`` of int64 values."""
    np.copyto(out, np.clip(value + out_zp, lo, hi), casting="unsafe")
    return out


class PreparedConv16:
    """A convolution with constant weights, ready to run: a product per tap, in float64 (exact: below 2**53)."""

    def __init__(self, w, bias, mult, shift, *, strides, padding, dilation, groups, in_zp, w_zp, out_zp, lo, hi):
        o, kh, kw, depth = w.shape
        weights = (w.astype(np.float64) - w_zp).reshape(groups, o // groups, kh, kw, depth)
        self.weights = np.ascontiguousarray(weights.transpose(2, 3, 0, 4, 1))  # [kh, kw, G, C/G, O/G]
        self.bias, self.mult, self.shift = (np.asarray(v, np.int64) for v in (bias, mult, shift))
        self.strides, self.padding, self.dilation = tuple(strides), tuple(padding), tuple(dilation)
        self.in_zp, self.ends = in_zp, (out_zp, lo, hi)

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        value = rounding_shift(self.sums(x) * self.mult, self.shift)
        return _finish(value, out, *self.ends)

    def sums(self, x: np.ndarray) -> np.ndarray:
        """int64[N, OH, OW, O], bias included."""
        (kh, kw, groups, depth, per_group), (n, h, w, _) = self.weights.shape, x.shape
        (sh, sw), (dh, dw), (top, left, bottom, right) = self.strides, self.dilation, self.padding
        oh, ow = output_size(h, kh, sh, top, bottom, dh), output_size(w, kw, sw, left, right, dw)
        padded = np.zeros((n, h + top + bottom, w + left + right, groups, depth))
        padded[:, top : top + h, left : left + w] = (x.astype(np.int64) - self.in_zp).reshape(n, h, w, groups, depth)
        acc = np.zeros((groups, n * oh * ow, per_group))
        for i, j in np.ndindex(kh, kw):
            rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            tap = padded[:, rows, j * dw : j * dw + (ow - 1) * sw + 1 : sw].reshape(n * oh * ow, groups, depth)
            acc += np.matmul(tap.transpose(1, 0, 2), self.weights[i, j])
        total = acc.transpose(1, 0, 2).reshape(n, oh, ow, groups * per_group)
        return total.astype(np.int64) + self.bias


def conv2d_16(x, w, bias, mult, shift, *, wide, strides=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), **fields):
    """``x i8 or i16[N,H,W,C], w i8[O,kh,kw,C/groups] -> [N,OH,OW,O]``, i16 where ``wide``, else i8; see CONV_16."""
    conv = PreparedConv16(w, bias, mult, shift, strides=strides, padding=padding, dilation=dilation, **fields)
    sides = [
        output_size(x.shape[1 + a], w.shape[1 + a], strides[a], padding[a], padding[2 + a], dilation[a]) for a in (0, 1)
    ]
    return conv(x, np.empty((x.shape[0], *sides, w.shape[0]), np.int16 if wide else np.int8))


def add_16(a, b, *, wide=True, a_zp, b_zp, a_mult, b_mult, shift, out_zp, lo, hi, out=None) -> np.ndarray:
    """``clip(out_zp + floor(((a-a_zp)*a_mult + (b-b_zp)*b_mult) / 2**shift + 1/2), lo, hi)``, broadcasting."""
    out = result(out, np.broadcast_shapes(a.shape, b.shape) if out is None else out.shape, wide)
    total = (a.astype(np.int64) - a_zp) * a_mult + (b.astype(np.int64) - b_zp) * b_mult
    return _finish(rounding_shift(total, shift), out, out_zp, lo, hi)


def mul_16(a, b, *, wide=True, a_zp, b_zp, mult, shift, out_zp, lo, hi, out=None) -> np.ndarray:
    """``clip(out_zp + floor((a-a_zp)*(b-b_zp)*mult / 2**shift + 1/2), lo, hi)``, broadcasting."""
    out = result(out, np.broadcast_shapes(a.shape, b.shape) if out is None else out.shape, wide)
    product = (a.astype(np.int64) - a_zp) * (b.astype(np.int64) - b_zp)
    return _finish(rounding_shift(product * mult, shift), out, out_zp, lo, hi)


def rescale_16(x, *, wide=True, in_zp, mult, shift, out_zp, lo, hi, out=None) -> np.ndarray:
    """``clip(out_zp + floor((x - in_zp) * mult / 2**shift + 1/2), lo, hi)``."""
    out = result(out, x.shape, wide)
    return _finish(rounding_shift((x.astype(np.int64) - in_zp) * mult, shift), out, out_zp, lo, hi)


def table_16(x, lut, *, wide=True, step, out=None) -> np.ndarray:
    """``lut[i] + floor((lut[i+1] - lut[i]) * (u - (i << step)) / 2**step + 1/2)``, ``u = x + 32768``,
    ``i = u >> step``."""
    out = result(out, x.shape, wide)
    u, values = x.astype(np.int64) + 32768, lut.astype(np.int64)
    index = u >> step
    slope = (values[index + 1] - values[index]) * (u - (index << step))
    np.copyto(out, values[index] + rounding_shift(slope, step), casting="unsafe")
    return out
