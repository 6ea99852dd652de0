"""Zero runs and bit planes, in the manner of EBPC (Cavigelli, Rutishauser, Benini, 2019), laid out for random access.

EBPC codes zero runs and, of the nonzero values in blocks of eight, the bit planes that are not all zero. So does this,
with two differences: runs of zeros are a two-level map (one bit per 16 values, 16 bits where not all are zero), so that
every offset follows from a population count; and magnitudes are unsigned distances from the zero point less one, no
sign plane.

Payload, over the tile's values in channel-major order (neighbours in a block are neighbours in the map of one channel):
group map, the maps of occupied groups, 4 bits per block of eight nonzero values = planes it stores, then the blocks'
magnitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import ActivationCodec, Event, SymbolCost, broken
from tvm_ergo.target.codecs.bits import Sections, bit_length, pack, packed_bytes, unpack

GROUP = 16  # values per bit of the upper map
BLOCK = 8  # nonzero values that share a number of planes
PLANE_BITS = 4  # 0..8 planes


@dataclass(frozen=True)
class BitplaneCodec(ActivationCodec):
    """Lossless; two rows per tile by default."""

    codec: ClassVar[Codec] = Codec.BITPLANE
    COST: ClassVar[SymbolCost] = SymbolCost(
        0.125,
        {Event.ALU_8: 4},
        "assumption: one block of eight values a cycle, as EBPC's hardware takes a "
        "plane a cycle; per value zero test, maximum, shift and merge",
    )
    tile_rows: int = 2

    def encode_tiles(self, tiles):
        return [self._encode(np.moveaxis(tile, 2, 0).ravel()) for tile in tiles]

    def payload_bytes(self, tiles):
        return [self._length(*self._analysed(np.moveaxis(tile, 2, 0).ravel())) for tile in tiles]

    @staticmethod
    def _length(groups, occupied, kept, planes) -> int:
        last = (kept.size - 1) % BLOCK + 1  # values of the last block
        bits = BLOCK * int(planes.sum()) - ((BLOCK - last) * int(planes[-1]) if planes.size else 0)
        return (
            packed_bytes(len(groups))
            + 2 * int(occupied.sum())
            + packed_bytes(PLANE_BITS * planes.size)
            + packed_bytes(bits)
        )

    @staticmethod
    def _analysed(u: np.ndarray):
        """bool[n, GROUP] map of nonzero values, bool[n] occupied groups, magnitudes less one of the nonzero ones,
        planes of each block."""
        padded = np.concatenate([u, np.zeros(-u.size % GROUP, np.uint8)])
        groups = (padded != 0).reshape(-1, GROUP)
        kept = padded[padded != 0] - 1
        blocks = np.concatenate([kept, np.zeros(-kept.size % BLOCK, np.uint8)]).reshape(-1, BLOCK)
        return groups, groups.any(axis=1), kept, bit_length(blocks.max(axis=1, initial=0))

    def _encode(self, u: np.ndarray) -> bytes:
        groups, occupied, kept, planes = self._analysed(u)
        return (
            np.packbits(occupied).tobytes()
            + np.packbits(groups[occupied]).tobytes()
            + pack(planes, np.full(planes.size, PLANE_BITS))
            + pack(kept, np.repeat(planes, BLOCK)[: kept.size])
        )

    def decode_tiles(self, payloads, shapes):
        return [
            np.moveaxis(self._decode(payload, math.prod(shape)).reshape(shape[2], *shape[:2]), 0, 2)
            for payload, shape in zip(payloads, shapes)
        ]

    def _decode(self, payload: bytes, count: int) -> np.ndarray:
        parts, total = Sections(payload), -(-count // GROUP)
        occupied = np.unpackbits(np.frombuffer(parts.take(packed_bytes(total)), np.uint8), count=total).astype(bool)
        mask = np.zeros((total, GROUP), bool)
        mask[occupied] = np.unpackbits(np.frombuffer(parts.take(2 * int(occupied.sum())), np.uint8)).reshape(-1, GROUP)
        if mask.ravel()[count:].any():
            raise broken("nonzero values beyond its end")
        kept = int(mask.sum())
        blocks = -(-kept // BLOCK)
        planes = unpack(parts.take(packed_bytes(PLANE_BITS * blocks)), np.full(blocks, PLANE_BITS))
        if planes.max(initial=0) > 8:
            raise broken(f"a block of {planes.max()} bit planes")
        values = unpack(parts.rest(), np.repeat(planes, BLOCK)[:kept])
        if values.max(initial=0) > 254:
            raise broken("a magnitude above 255")
        u = np.zeros(total * GROUP, np.uint8)
        u[mask.ravel()] = values + 1
        return u[:count]
