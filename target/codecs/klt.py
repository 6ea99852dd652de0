"""Low-rank projection of the channels (KLT) at a fixed rate, with a bound that holds for every input.

Each pixel of C values becomes a few integer coordinates, learned from calibration data (`klt_learn`): of d = x - zero
point

    z_j = clip(round(P_j d / 2**s_j), to width_j bits)          P_j int8[C]
    y   = clip(zero point + round(sum over j of Q_j z_j / 2**f_j), -128, 127)          Q_j int8[C]

The transform and the allocation of more bits to coordinates of more energy are those of transform coding (Huang and
Schultheiss 1963; for activations Chmiel et al. 2019, who code the coordinates with Huffman's code instead of at a fixed
width). Nothing bounds what a projection takes from data it was not learned from. So the encoder decodes each pixel
again, and one that is off by more than ``tolerance`` anywhere (or that plain rounding to the same number of bits
represents better) is stored as C values of equally fewer bits.

Payload of a tile: one bit per pixel (1: coordinates), padded to a byte; then all pixels in ``bits_per_pixel`` bits
each, padded to a byte."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import INDEX_BYTES, ActivationCodec, Event, Shape, SymbolCost, broken, fold, unfold
from tvm_ergo.target.codecs.bits import Sections, packed_bytes
from tvm_ergo.target.errors import InputError
from tvm_ergo.target.numerics import rounding_shift

MAX_SHIFT = 24


@dataclass(frozen=True)
class Coordinate:
    """One coordinate: bits it is stored in (1..8), and its rows of the two integer matrices with their shifts
    (0..24)."""

    width: int
    analysis: tuple[int, ...]
    analysis_shift: int
    synthesis: tuple[int, ...]
    synthesis_shift: int

    def __post_init__(self):
        rows = (*self.analysis, *self.synthesis)
        if (
            not 1 <= self.width <= 8
            or len(self.analysis) != len(self.synthesis)
            or not all(-128 <= v <= 127 for v in rows)
            or not all(0 <= s <= MAX_SHIFT for s in (self.analysis_shift, self.synthesis_shift))
        ):
            raise InputError(
                "a coordinate cannot be computed",
                required=f"1 to 8 bits, two int8 rows of one length, shifts 0 to {MAX_SHIFT}",
                available=f"{self.width} bits, rows of {len(self.analysis)} and {len(self.synthesis)}, "
                f"shifts {self.analysis_shift} and {self.synthesis_shift}",
            )


@dataclass(frozen=True)
class KltError:
    """What coding did to given data, in quantization steps. projected: share of the pixels stored as coordinates."""

    largest: int
    mean_squared: float
    projected: float


@dataclass(frozen=True)
class KltCodec(ActivationCodec):
    """Lossy. coordinates: of a pixel, at least one; tolerance: largest error of a pixel stored so, 0 to 255 steps."""

    codec: ClassVar[Codec] = Codec.KLT
    lossless: ClassVar[bool] = False
    COST: ClassVar[SymbolCost] = SymbolCost(
        1 / 64,
        {Event.MUL_8X8: 2, Event.ACC_ADD_32: 2},
        "assumption: per value and coordinate; the matrix array does "
        "64 products a cycle for the codec; encoding is a projection and a trial expansion, decoding half of it",
    )
    tile_rows: int = 1
    coordinates: tuple[Coordinate, ...] = ()
    tolerance: int = 32

    def __post_init__(self):
        super().__post_init__()
        if not self.coordinates or len({len(c.analysis) for c in self.coordinates}) != 1 or not self.channels:
            raise InputError(
                "a projection needs coordinates over the same channels",
                available=f"{len(self.coordinates)} coordinates",
                remedy="learn them: tvm_ergo.target.codecs.klt_learn.learn(pixels, zero_point, bits_per_pixel)",
            )
        if self.bits_per_pixel >= 8 * self.channels:
            raise InputError(
                "this projection would not save anything",
                required=f"fewer than {8 * self.channels} bits per pixel",
                available=f"{self.bits_per_pixel}",
            )
        if not 0 <= self.tolerance <= 255:
            raise InputError(f"a tolerance of {self.tolerance} steps", required="0 to 255")

    @property
    def channels(self) -> int:
        return len(self.coordinates[0].analysis)

    @property
    def bits_per_pixel(self) -> int:
        return sum(c.width for c in self.coordinates)

    @property
    def symbol_cost(self) -> SymbolCost:
        """Of one value under all coordinates."""
        k = len(self.coordinates)
        return SymbolCost(
            k * self.COST.cycles, {event: k * n for event, n in self.COST.events.items()}, self.COST.source
        )

    def worst_case_bytes(self, shape: Shape) -> int:
        """Exactly the bytes of every tensor of this shape."""
        return sum(INDEX_BYTES + self._tile_bytes(tile) for tile in self.tile_shapes(shape))

    def max_error(self, shape: Shape) -> int:
        """Certified for every input: the encoder has seen what the decoder makes of each pixel."""
        return max(self.tolerance, self.rounding_error)

    @property
    def rounding_error(self) -> int:
        """Largest error of a pixel that is stored as values of fewer bits."""
        codes = np.arange(256)
        return int(np.abs(self._restored(self._levels(codes)) - codes).max())

    def error_of(self, x: np.ndarray) -> KltError:
        """What is lost of int8[H, W, C]."""
        coded = [
            self._choose(tile)
            for tile in (
                x[y : y + self.tile_rows].reshape(-1, self.channels) for y in range(0, x.shape[0], self.tile_rows)
            )
        ]
        back = self.decode(self.encode(x), x.shape)
        wrong = back.astype(np.int64) - x
        return KltError(
            int(np.abs(wrong).max()),
            float(np.mean(wrong**2)),
            float(np.mean(np.concatenate([mask for mask, *_ in coded]))),
        )

    def tile_shapes(self, shape: Shape) -> list[Shape]:
        self._check(shape)
        return super().tile_shapes(shape)

    def _check(self, shape) -> None:
        if len(shape) == 3 and shape[2] != self.channels:
            raise InputError(f"a projection of {self.channels} channels on a tensor of {shape[2]}")

    def encode_tiles(self, tiles):
        for tile in tiles:
            self._check(tile.shape)
        return [self._encode(unfold(tile, self.zero_point).reshape(-1, tile.shape[2])) for tile in tiles]

    def decode_tiles(self, payloads, shapes):
        return [
            fold(self._decode(payload, shape).reshape(shape), self.zero_point)
            for payload, shape in zip(payloads, shapes)
        ]

    def _tile_bytes(self, tile: Shape) -> int:
        pixels = tile[0] * tile[1]
        return packed_bytes(pixels) + packed_bytes(pixels * self.bits_per_pixel)

    # ---- the two forms of a pixel ----
    @cached_property
    def _matrices(self) -> tuple[np.ndarray, ...]:
        """analysis [C,k], its shifts [k], lower and upper bounds of z [k], synthesis [k,C] at the common shift, that
        shift."""
        common = max(c.synthesis_shift for c in self.coordinates)
        half = np.array([1 << c.width >> 1 for c in self.coordinates], np.int64)
        synthesis = np.array(
            [[v << (common - c.synthesis_shift) for v in c.synthesis] for c in self.coordinates], np.int64
        )
        return (
            np.array([c.analysis for c in self.coordinates], np.int64).T,
            np.array([c.analysis_shift for c in self.coordinates]),
            -half,
            half - 1,
            synthesis,
            common,
        )

    def project(self, x: np.ndarray) -> np.ndarray:
        """Coordinates int64 [n,k] of pixels int8 [n,C]."""
        analysis, shifts, low, high, _, _ = self._matrices
        return np.clip(rounding_shift(_product(x.astype(np.int64) - self.zero_point, analysis), shifts), low, high)

    def expand(self, z: np.ndarray) -> np.ndarray:
        """Pixels int64 [n,C], within int8, of coordinates [n,k]."""
        *_, synthesis, common = self._matrices
        return np.clip(self.zero_point + rounding_shift(_product(z, synthesis), common), -128, 127)

    @property
    def _rounded_bits(self) -> int:
        """Bits of each value in a pixel that is stored as such."""
        return self.bits_per_pixel // self.channels

    def _levels(self, u: np.ndarray) -> np.ndarray:
        """Level of each x + 128; the lowest and the highest are 0 and 255."""
        top = (1 << self._rounded_bits) - 1
        return (2 * u.astype(np.int64) * top + 255) // 510

    def _restored(self, level: np.ndarray) -> np.ndarray:
        top = (1 << self._rounded_bits) - 1
        return (2 * level.astype(np.int64) * 255 + top) // (2 * top) if top else np.full(level.shape, 128, np.int64)

    def _choose(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(which pixels of x [n,C] are stored as coordinates, all coordinates, all levels)."""
        z, levels = self.project(x), self._levels(x.astype(np.int64) + 128)
        off, rounded = self.expand(z) - x, self._restored(levels) - 128 - x
        within = np.abs(off).max(axis=1) <= self.tolerance
        return within & (np.square(off).sum(axis=1) <= np.square(rounded).sum(axis=1)), z, levels

    def _encode(self, x: np.ndarray) -> bytes:
        mask, z, levels = self._choose(x)
        half = np.array([1 << c.width >> 1 for c in self.coordinates])
        projected = np.concatenate([_bits(z[:, j] + half[j], c.width) for j, c in enumerate(self.coordinates)], axis=1)
        plain = np.zeros_like(projected)
        fields = _bits(levels.reshape(-1), self._rounded_bits).reshape(len(x), -1)
        plain[:, : fields.shape[1]] = fields
        return np.packbits(mask).tobytes() + np.packbits(np.where(mask[:, None], projected, plain)).tobytes()

    def _decode(self, payload: bytes, tile: Shape) -> np.ndarray:
        """int8 [n,C]."""
        pixels = tile[0] * tile[1]
        if len(payload) != self._tile_bytes(tile):
            raise broken("its length is not that of its pixels")
        parts = Sections(payload)
        mask = np.unpackbits(np.frombuffer(parts.take(packed_bytes(pixels)), np.uint8), count=pixels).astype(bool)
        bits = np.unpackbits(np.frombuffer(parts.rest(), np.uint8), count=pixels * self.bits_per_pixel).reshape(
            pixels, -1
        )
        ends = np.cumsum([c.width for c in self.coordinates])
        z = np.stack(
            [_values(bits[:, end - c.width : end]) - (1 << c.width >> 1) for c, end in zip(self.coordinates, ends)],
            axis=1,
        )
        levels = _values(bits[:, : self.channels * self._rounded_bits].reshape(pixels, self.channels, -1))
        return np.where(mask[:, None], self.expand(z), self._restored(levels) - 128).astype(np.int8)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer product [n,k]; through float64, which holds sums below 2**53 exactly and is fast."""
    bound = int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0)) * len(b)
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64) if bound < 1 << 53 else a @ b


def _bits(values: np.ndarray, width: int) -> np.ndarray:
    """uint8 [n,width], most significant first, of n values."""
    return (values[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8)


def _values(bits: np.ndarray) -> np.ndarray:
    """int64 [...] of bits [...,width]."""
    return bits.astype(np.int64) @ (1 << np.arange(bits.shape[-1] - 1, -1, -1, dtype=np.int64))
