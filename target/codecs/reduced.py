"""Reduced precision with rate control: every tile meets a byte budget, by dropping as few low bits as that takes.

Payload: u8 dropped bits d (0..8), then the levels ``q = round((x + 128) / 2**d)`` (clipped to 8-d bits), either all in
8-d bits, or as a mask of those that differ from the zero point's level and these in 8-d bits (flag 0x80 on the first
byte), whichever is shorter. The zero point's level decodes to the zero point exactly. d = 8 stores nothing and decodes
to the zero point. So a buffer of `worst_case_bytes` never overflows, whatever the data; `dropped_bits` tells what it
cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import (
    INDEX_BYTES,
    ActivationCodec,
    Event,
    Shape,
    SymbolCost,
    broken,
    fold_table,
    unfold_table,
)
from tvm_ergo.target.codecs.bits import Sections, pack, packed_bytes, unpack
from tvm_ergo.target.errors import InputError

MASKED = 0x80


@dataclass(frozen=True)
class ReducedCodec(ActivationCodec):
    """Lossy. budget_bits: bits per value of every tile, header byte included (a tile always gets its one header
    byte)."""

    codec: ClassVar[Codec] = Codec.REDUCED
    lossless: ClassVar[bool] = False
    COST: ClassVar[SymbolCost] = SymbolCost(
        0.125,
        {Event.ALU_8: 5},
        "assumption: eight values a cycle; per value zero test, running count, rounding "
        "addition, shift, clip; the encoder counts magnitudes in a first pass",
    )
    budget_bits: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.budget_bits:
            raise InputError(f"a budget of {self.budget_bits} bits per value", required="more than 0")

    def budget_bytes(self, tile: Shape) -> int:
        """Bytes of one tile's payload at most."""
        count = math.prod(tile)
        return min(max(1, int(self.budget_bits * count / 8)), 1 + count)

    def worst_case_bytes(self, shape: Shape) -> int:
        return sum(INDEX_BYTES + self.budget_bytes(tile) for tile in self.tile_shapes(shape))

    def max_error(self, shape: Shape) -> int:
        """Certified for every input: the error of the bits that the densest data would make it drop."""
        worst = max(
            next(d for d in range(9) if self._plain_bytes(math.prod(tile), d) <= self.budget_bytes(tile))
            for tile in self.tile_shapes(shape)
        )
        codes = np.arange(256)
        # a tile of fewer low bits dropped may err more at single values than one of more: take the largest of all
        return max(
            int(np.abs(self._restored(_rounded(codes, d), d).astype(int) - codes).max()) for d in range(worst + 1)
        )

    def dropped_bits(self, data: bytes, shape: Shape) -> list[int]:
        """Low bits dropped per stored tile: what the budget cost on this data."""
        return [data[begin] & ~MASKED for begin, _, _ in self.index(data, shape)]

    @staticmethod
    def _plain_bytes(count: int, dropped: int) -> int:
        return 1 + packed_bytes(count * (8 - dropped))

    def encode_tiles(self, tiles):
        order = unfold_table(self.zero_point).astype(np.int64) + 128  # distances would mix the signs when rounded
        return [self._encode(order[tile.ravel()], self.budget_bytes(tile.shape)) for tile in tiles]

    def _encode(self, u: np.ndarray, budget: int) -> bytes:
        """u: x + 128."""
        for dropped in range(9):
            q, width = _rounded(u, dropped), 8 - dropped
            mask = q != self._zero_level(dropped)
            masked = 1 + packed_bytes(u.size) + packed_bytes(int(np.count_nonzero(mask)) * width)
            plain = self._plain_bytes(u.size, dropped)
            if min(masked, plain) <= budget:
                break
        if plain <= masked:
            return bytes([dropped]) + pack(q, np.full(q.size, width))
        return bytes([dropped | MASKED]) + np.packbits(mask).tobytes() + pack(q[mask], np.full(int(mask.sum()), width))

    def decode_tiles(self, payloads, shapes):
        fold = fold_table(self.zero_point)
        return [
            fold[self._decode(payload, math.prod(shape))].reshape(shape) for payload, shape in zip(payloads, shapes)
        ]

    def _decode(self, payload: bytes, count: int) -> np.ndarray:
        parts = Sections(payload)
        head = parts.take(1)[0]
        dropped = head & ~MASKED
        if dropped > 8:
            raise broken(f"{dropped} dropped bits")
        if not head & MASKED:
            return self._restored(unpack(parts.rest(), np.full(count, 8 - dropped)), dropped)
        mask = np.unpackbits(np.frombuffer(parts.take(packed_bytes(count)), np.uint8), count=count).astype(bool)
        q = np.full(count, self._zero_level(dropped))
        q[mask] = unpack(parts.rest(), np.full(int(mask.sum()), 8 - dropped))
        return self._restored(q, dropped)

    def _zero_level(self, dropped: int) -> int:
        return int(_rounded(np.array([self.zero_point + 128]), dropped)[0])

    def _restored(self, q: np.ndarray, dropped: int) -> np.ndarray:
        return np.where(q == self._zero_level(dropped), self.zero_point + 128, q << dropped).astype(np.uint8)


def _rounded(u: np.ndarray, dropped: int) -> np.ndarray:
    """Level of each code: rounded to a multiple of ``2**dropped``, the largest level clipped to its field."""
    return np.minimum((u + (1 << dropped >> 1)) >> dropped, (1 << (8 - dropped)) - 1)
