"""Zero-value bitmask: one bit per value says whether it differs from the zero point; the nonzero ones follow, packed.

Payload: u8 width w (bits of the tile's largest magnitude), the mask in element order, then each nonzero magnitude in w
bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import ActivationCodec, Event, SymbolCost, broken
from tvm_ergo.target.codecs.bits import Sections, pack, packed_bytes, unpack


@dataclass(frozen=True)
class BitmaskCodec(ActivationCodec):
    """Lossless; one row per tile by default, because nothing is learned from one row for the next."""

    codec: ClassVar[Codec] = Codec.BITMASK
    COST: ClassVar[SymbolCost] = SymbolCost(
        0.125,
        {Event.ALU_8: 2},
        "assumption: eight values a cycle; per value one comparison with zero "
        "and one selection by the mask's running count",
    )
    tile_rows: int = 1

    def encode_tiles(self, tiles):
        return [self._encode(tile.ravel()) for tile in tiles]

    def _encode(self, u: np.ndarray) -> bytes:
        width = int(u.max()).bit_length()
        mask = u != 0
        kept = u[mask]
        return bytes([width]) + np.packbits(mask).tobytes() + pack(kept, np.full(kept.size, width))

    def payload_bytes(self, tiles):
        return [
            1 + packed_bytes(t.size) + packed_bytes(int(np.count_nonzero(t)) * int(t.max()).bit_length()) for t in tiles
        ]

    def decode_tiles(self, payloads, shapes):
        return [self._decode(payload, math.prod(shape)).reshape(shape) for payload, shape in zip(payloads, shapes)]

    def _decode(self, payload: bytes, count: int) -> np.ndarray:
        parts = Sections(payload)
        width = parts.take(1)[0]
        if width > 8:
            raise broken(f"magnitudes of {width} bits")
        mask = np.unpackbits(np.frombuffer(parts.take(packed_bytes(count)), np.uint8), count=count).astype(bool)
        u = np.zeros(count, np.uint8)
        u[mask] = unpack(parts.rest(), np.full(int(mask.sum()), width))
        return u
