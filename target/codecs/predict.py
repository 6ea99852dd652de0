"""Prediction in space and in time for smooth maps and camera frames; what differs from the prediction goes into the
static entropy code.

Per tile the best of six predictions is taken, named by the payload's first byte:
  bit 0      joint: the error just made in the previous channel of the pixel is expected again (colours change together)
  bits 1..2  0: the median of left, upper and their gradient sum (LOCO-I's predictor; Weinberger, Seroussi,
                Sapiro, 2000), within the tensor
             1: the same place of the tensor before this one ("previous")
             2: that, plus the median predictor applied to the differences between the two tensors
A residual is taken modulo 256, folded by size and coded by `rans` with the built-in tables: the residuals to the left
and above tell how large it will be. Everything is an integer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, rans
from tvm_ergo.target.codecs.base import ActivationCodec, Event, SymbolCost, broken, fold_table, unfold_table
from tvm_ergo.target.codecs.static import by_shape
from tvm_ergo.target.codecs.static_default import RESIDUALS

JOINT, SPACE, TIME, BOTH = 1, 0, 2, 4
START = 128  # what stands for the neighbours of a tile's first pixel
SIZE = fold_table(0)  # residual + 128 -> distance code
RESIDUAL = unfold_table(0).astype(np.int64)  # distance code -> residual


@dataclass(frozen=True)
class PredictCodec(ActivationCodec):
    """Lossless; values are taken in their natural order, so zero_point does not change the size. Takes a previous
    tensor."""

    codec: ClassVar[Codec] = Codec.PREDICT
    predicts_in_time: ClassVar[bool] = True
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {Event.LUT_READ: 1, Event.MUL_8X8: 6, Event.LOCAL_READ_BYTE: 6, Event.LOCAL_WRITE_BYTE: 2, Event.ALU_8: 22},
        "assumption: the static code's value (see `static`) and per value three neighbours and two residuals read, "
        "value and residual kept, eight byte operations of "
        "the predictor; an encoder that tries all six predictions does these six times",
    )

    def encode_tiles(self, tiles, previous=None):
        results, alike = [None] * len(tiles), by_shape([tile.shape for tile in tiles])
        for chosen in alike.values():
            x = self._ordered([tiles[i] for i in chosen])
            before = None if previous is None else self._ordered([previous[i] for i in chosen])
            modes, codes = best(x, before)
            for i, mode, payload in zip(chosen, modes, rans.encode(codes, RESIDUALS)):
                results[i] = bytes([mode]) + payload
        return results

    def decode_tiles(self, payloads, shapes, previous=None):
        if any(not payload or payload[0] >= BOTH + 2 for payload in payloads):
            raise broken("it names no prediction")
        if previous is None and any(payload[0] >= TIME for payload in payloads):
            raise broken("it was predicted from a previous tensor, and none is given")
        results, fold = [None] * len(shapes), fold_table(self.zero_point)
        for shape, chosen in by_shape(shapes).items():
            residuals = RESIDUAL[rans.decode([payloads[i][1:] for i in chosen], shape, RESIDUALS)]
            before = None if previous is None else self._ordered([previous[i] for i in chosen])
            modes = np.array([payloads[i][0] for i in chosen])
            for mode in np.unique(modes):
                these = np.flatnonzero(modes == mode)
                for i, tile in zip(
                    these, restored(residuals[these], int(mode), None if before is None else before[these])
                ):
                    results[chosen[i]] = fold[tile]
        return results

    def _ordered(self, tiles) -> np.ndarray:
        """int64[tiles, H, W, C] of x + 128, from distance codes."""
        return unfold_table(self.zero_point)[np.stack(tiles)].astype(np.int64) + 128


def best(x: np.ndarray, before: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(uint8[tiles] modes, uint8[tiles, H, W, C] distance codes of the residuals); by the least sum of logarithms, the
    first where equal."""
    modes = [mode + joint for mode in ((SPACE,) if before is None else (SPACE, TIME, BOTH)) for joint in (0, JOINT)]
    codes = np.stack([SIZE[(x - predicted(x, mode, before) + 128) % 256] for mode in modes])
    bits = np.array([int(v + 1).bit_length() for v in range(256)])[codes].sum(axis=(2, 3, 4))
    chosen = np.argmin(bits, axis=0)
    return np.array(modes)[chosen], codes[chosen, np.arange(len(x))]


def predicted(x: np.ndarray, mode: int, before: np.ndarray | None) -> np.ndarray:
    """int64, prediction of every value (any integer: residuals are taken modulo 256)."""
    if mode & ~JOINT == TIME:
        expected = before.copy()
    else:
        offset = before if mode & BOTH else START
        expected = offset + median(*neighbours(x - offset))
    if mode & JOINT:
        expected[..., 1:] += (x - expected)[..., :-1].copy()
    return expected


def neighbours(d: np.ndarray):
    """Left, upper and upper left value of every value of tiles [tiles, H, W, C]; what lies outside: the upper for a
    left one and the other way round, 0 for both."""
    left, up, corner = np.zeros_like(d), np.zeros_like(d), np.zeros_like(d)
    left[:, :, 1:], up[:, 1:], corner[:, 1:, 1:] = d[:, :, :-1], d[:, :-1], d[:, :-1, :-1]
    left[:, :, 0], up[:, 0] = up[:, :, 0], left[:, 0]
    corner[:, 0, :], corner[:, :, 0] = up[:, 0], up[:, :, 0]
    return left, up, corner


def median(left, up, corner) -> np.ndarray:
    """The median of left, up and left + up - corner."""
    return np.clip(left + up - corner, np.minimum(left, up), np.maximum(left, up))


def restored(residuals: np.ndarray, mode: int, before: np.ndarray | None) -> np.ndarray:
    """int64[tiles, H, W, C] in 0..255: the values with these residuals."""
    errors = (
        np.cumsum(residuals, axis=3) if mode & JOINT else residuals
    )  # modulo 256, of the prediction without other channels
    if mode & ~JOINT == TIME:
        return (before + errors) % 256
    x = np.zeros_like(residuals)
    offset = before if mode & BOTH else np.broadcast_to(START, x.shape)
    d, zero = np.zeros_like(x), np.zeros_like(x[:, 0, 0])
    for y in range(x.shape[1]):
        for column in range(x.shape[2]):
            left = d[:, y, column - 1] if column else d[:, y - 1, column] if y else zero
            up = d[:, y - 1, column] if y else left
            corner = d[:, y - 1, column - 1] if y and column else up
            expected = offset[:, y, column] + median(left, up, corner)
            x[:, y, column] = (expected + errors[:, y, column]) % 256
            d[:, y, column] = x[:, y, column] - offset[:, y, column]
    return x
