"""Requantization of whole arrays, equal to ``numerics.requantize`` to the bit, in float64 where that is provably exact.

With scale ``s = mult * 2**-shift`` the result is ``clip(floor(acc*s + bias*s + 1/2 + zp))``. Every term is an integer
multiple of ``2**-shift``; a float64 holds such a number exactly while its integer is below 2**53. So the float path is
exact for a channel when ``(|acc| + |bias|) * mult + (|zp| + 128) * 2**shift + 2**(shift-1) < 2**53``. Channels that are
so small that they round to 0 for every accumulator are replaced by scale 0; if any other channel fails the test, the
whole array takes the int64 path."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target import numerics
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.machine.kernels.workspace import BAND_ELEMENTS, scratch

FLOAT64_EXACT = 1 << 53
TILE_ELEMENTS = 1024  # channel vectors are repeated to rows of about this length: numpy pays a fixed price per row


class Rescale:
    """``acc [M, C] -> int8 [M, C]``, or int16, prepared once for one layer.

    Parameters: mult, shift, bias: scalars or [C] integers; out_zp, lo, hi: int8 range; acc_bound: scalar or [C], a
    proven bound of ``|acc|`` without the bias. ``acc`` may be float32, float64 or an integer type, holding integers.
    Errors: MachineError for a multiplier outside 0..2**24-1 or a shift outside 0..62 (they may come from memory)."""

    def __init__(self, mult, shift, out_zp: int, lo: int, hi: int, *, acc_bound, bias=0, channels: int | None = None):
        fields = [np.asarray(v, np.int64).reshape(-1) for v in (mult, shift, bias, acc_bound)]
        channels = channels or max(f.size for f in fields)
        self.mult, self.shift, self.bias, bound = (np.broadcast_to(f, (channels,)).copy() for f in fields)
        self.channels, self.out_zp, self.lo, self.hi = channels, int(out_zp), int(lo), int(hi)
        # Python integers: the bound itself must not wrap.
        limit = (1 << numerics.MULTIPLIER_BITS) - 1
        for what, values, most in (("multiplier", self.mult, limit), ("shift", self.shift, numerics.MAX_SHIFT)):
            if values.size and (values.min() < 0 or values.max() > most):
                raise MachineError(
                    f"a requantization {what} is out of range",
                    required=f"0..{most}",
                    available=f"{values.min()}..{values.max()}",
                )
        scale, offset, self.exact_float = np.empty(channels), np.empty(channels), True
        for c, (m, s, b, a) in enumerate(
            zip(self.mult.tolist(), self.shift.tolist(), self.bias.tolist(), bound.tolist())
        ):
            if s and (a + abs(b)) * abs(m) < 1 << (s - 1):
                m, s, b = 0, 0, 0
            half = (1 << s) >> 1
            if (a + abs(b)) * abs(m) + ((abs(self.out_zp) + 128) << s) + half >= FLOAT64_EXACT or a >= FLOAT64_EXACT:
                self.exact_float = False
                break
            scale[c] = m * 2.0**-s
            offset[c] = (b * m + ((self.out_zp + 128) << s) + half) * 2.0**-s
        if self.exact_float:
            repeat = max(1, TILE_ELEMENTS // channels)
            uniform = channels == 1 or (scale.min() == scale.max() and offset.min() == offset.max())
            self.repeat = repeat
            self.scale = scale[0] if uniform else np.tile(scale, repeat)
            self.offset = offset[0] if uniform else np.tile(offset, repeat)
            self.uniform = uniform

    def __call__(self, acc: np.ndarray, out: np.ndarray) -> np.ndarray:
        """``acc`` C-contiguous, any shape whose size is a multiple of C with channels innermost; ``out`` int8,
        C-contiguous, same size.

        An int32 ``out`` receives the raw accumulators, bias included (the compiler proves that they fit).
        """
        if out.dtype == np.int32:
            np.copyto(
                out.reshape(-1, self.channels),
                acc.reshape(-1, self.channels).astype(np.int64) + self.bias,
                casting="unsafe",
            )
            return out
        if out.dtype == np.int16:
            return self._wide(acc.reshape(-1, self.channels), out.reshape(-1, self.channels), out)
        acc, out = acc.reshape(-1), out.reshape(-1)
        for begin in range(0, acc.size, self._band()):
            part = slice(begin, begin + self._band())
            if self.exact_float:
                self._float_band(acc[part], out[part])
            else:
                self._int_band(acc[part], out[part])
        return out

    def _wide(self, acc: np.ndarray, rows: np.ndarray, out: np.ndarray) -> np.ndarray:
        """int16 of ``acc [M, C]``, zero point 0, clipped to the type's range, into ``rows``, which is ``out``."""
        for begin in range(0, len(acc), step := max(1, BAND_ELEMENTS // self.channels)):
            part = slice(begin, begin + step)
            if self.exact_float:
                scale, offset = (v if self.uniform else v[: self.channels] for v in (self.scale, self.offset))
                y = acc[part] * np.asarray(scale, np.float64)
                y += offset - (self.out_zp + 128.0)  # exact: both are multiples of 2**-shift below 2**53
                np.copyto(rows[part], np.clip(np.floor(y, out=y), -32768, 32767, out=y), casting="unsafe")
            else:
                total = acc[part].astype(np.int64) + self.bias
                rows[part] = np.clip(numerics.rounding_shift(total * self.mult, self.shift), -32768, 32767)
        return out

    def _band(self) -> int:
        row = self.channels * (self.repeat if self.exact_float else 1)
        return max(1, BAND_ELEMENTS // row) * row

    def _float_band(self, acc: np.ndarray, out: np.ndarray) -> None:
        y = scratch("rescale", acc.shape, np.float64)
        row = self.channels * self.repeat
        whole = acc.size // row * row
        np.copyto(y, acc, casting="unsafe")  # copy, then multiply in place: faster than one multiply of mixed types
        if self.uniform:
            y *= self.scale
            y += self.offset
        else:
            rows, rest = y[:whole].reshape(-1, row), y[whole:]
            rows *= self.scale
            rows += self.offset
            rest *= self.scale[: rest.size]
            rest += self.offset[: rest.size]
        # Offset by 128 the numbers are non-negative after the clip, so the truncating cast is the floor.
        np.clip(y, self.lo + 128.0, self.hi + 128.5, out=y)
        np.copyto(out.view(np.uint8), y, casting="unsafe")
        np.bitwise_xor(out.view(np.uint8), 0x80, out=out.view(np.uint8))

    def _int_band(self, acc: np.ndarray, out: np.ndarray) -> None:
        total = acc.astype(np.int64).reshape(-1, self.channels) + self.bias
        out.reshape(-1, self.channels)[...] = numerics.requantize(
            total, self.mult, self.shift, self.out_zp, self.lo, self.hi
        )


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """``numerics.rounding_divide`` of int64 arrays, in float64 where that is exact; the result is float64 or int64,
    whole numbers.

    With a = 2*numerator + denominator and b = 2*denominator the result is floor(a / b). A quotient that is not whole is
    at least 1/b away from the next whole number; the division's rounding error is at most |a / b| * 2**-53, smaller
    than that while |a| < 2**53."""
    most = 2 * max(abs(int(numerator.min(initial=0))), abs(int(numerator.max(initial=0)))) + 2 * int(denominator.max())
    if most >= FLOAT64_EXACT:
        return numerics.rounding_divide(numerator, denominator)
    quotient = np.multiply(numerator, 2.0)
    quotient += denominator
    quotient /= np.multiply(denominator, 2.0)
    return np.floor(quotient, out=quotient)
