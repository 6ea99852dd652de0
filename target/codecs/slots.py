"""A compressed tensor in memory: tiles of whole rows, each in a slot of fixed size, so that rows are addressed and
nothing can overflow.

int8[H, W, C] becomes uint8[T, S]: T = ceil(H / tile_rows) tiles in slots of S bytes. A slot is

    u32, little-endian: length of the payload (bits 0..26), dropped bits d (27..30), packed (31)
    the payload: the codec's, or (packed) every value in 8 - d bits, whichever is shorter; zeros up to the slot's end

A tile whose payload does not fit is stored in fewer bits, as few dropped as it takes (1..8, tile by tile): values
become levels that are multiples of ``2**d`` away from the zero point, which itself stays exact. With d = 8 only the
header is left, so every slot of at least HEADER_BYTES holds every tile. A slot of HEADER_BYTES more than the tile never
drops anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import ActivationCodec, Shape, SymbolCost, broken
from tvm_ergo.target.codecs.bits import pack, packed_bytes, unpack
from tvm_ergo.target.codecs.registry import CODECS
from tvm_ergo.target.errors import InputError

HEADER_BYTES = 4
LENGTH_BITS, DROPPED_BITS = 27, 4
PACKED = 1 << 31
MAX_SLOT_BYTES = (1 << LENGTH_BITS) - 1
MOST_DROPPED = 8
SLOT_CODECS = tuple(codec for codec, cls in CODECS.items() if cls.lossless)
"""Codecs whose payloads slots may hold; dropping bits is the slot's own business."""


@cache
def level_tables(zero_point: int, dropped: int) -> tuple[np.ndarray, np.ndarray]:
    """``(codes uint8[256] of x + 128, values int8[2**(8 - dropped)] of codes)``; code 0 is the zero point, both ways.

    Levels count from the zero point in steps of ``2**dropped``, rounded to nearest; where one more level than codes
    would be needed, the outermost joins its neighbour. Codes alternate between the signs (+1, -1, ...) as in
    `base.fold_table`. A code's value is the middle of what it stands for."""
    distance = np.arange(-128, 128) - zero_point
    level = (distance + (1 << dropped >> 1)) >> dropped
    below, above = -int(level[0]), int(level[-1])
    if below + above + 1 > 1 << (8 - dropped):
        below, above = (below, above - 1) if above >= below else (below - 1, above)
    level = np.clip(level, -below, above)
    both, size = min(below, above), np.abs(level)
    codes = np.where(size <= both, np.where(level > 0, 2 * size - 1, 2 * size), size + both).astype(np.uint8)
    values = np.full(1 << (8 - dropped), zero_point, np.int8)
    for code in np.unique(codes[codes > 0]):
        members = np.flatnonzero(codes == code) - 128
        values[code] = (int(members[0]) + int(members[-1]) + 1) >> 1
    return codes, values


@cache
def level_error(zero_point: int, dropped: int) -> int:
    """Largest difference between a value and its level's value, in steps."""
    codes, values = level_tables(zero_point, dropped)
    return int(np.abs(values[codes].astype(int) - np.arange(-128, 128)).max())


@dataclass(frozen=True)
class SlotLayout:
    """How a tensor lies in slots.

    codec : of the payloads, one of SLOT_CODECS. tile_rows : rows a tile. slot_bytes : S, header included. zero_point :
    int8, the value coded most cheaply and always exactly. Errors: InputError for values outside their ranges."""

    codec: Codec
    tile_rows: int
    slot_bytes: int
    zero_point: int = -128

    def __post_init__(self):
        if self.codec not in SLOT_CODECS:
            raise InputError(
                f"{self.codec!r} is not a codec of slots", available=", ".join(c.name for c in SLOT_CODECS)
            )
        if not HEADER_BYTES <= self.slot_bytes <= MAX_SLOT_BYTES:
            raise InputError(f"slots of {self.slot_bytes} bytes", required=f"{HEADER_BYTES}..{MAX_SLOT_BYTES} bytes")
        self.coder  # its ranges

    @cached_property
    def coder(self) -> ActivationCodec:
        return CODECS[self.codec](zero_point=self.zero_point, tile_rows=self.tile_rows)

    @property
    def cost(self) -> SymbolCost:
        """Of one value."""
        return self.coder.COST

    def tiles(self, rows: int) -> int:
        """Tiles of a tensor of so many rows."""
        return -(-rows // self.tile_rows)

    def stored_bytes(self, shape: Shape) -> int:
        """Bytes of the compressed tensor, whatever the data."""
        return self.tiles(shape[0]) * self.slot_bytes

    def max_error(self, shape: Shape) -> int:
        """Certified for every input: largest difference between a value and its decoded self, in steps."""
        count = math.prod(self.coder.tile_shapes(shape)[0])
        worst = next(
            d for d in range(MOST_DROPPED + 1) if HEADER_BYTES + packed_bytes(count * (8 - d)) <= self.slot_bytes
        )
        return max(level_error(self.zero_point, d) for d in range(worst + 1))

    def coded_bytes(self, x: np.ndarray) -> np.ndarray:
        """int64[T]: bytes of slot that each tile of int8[H, W, C] needs in order to lose nothing."""
        tiles = self._cut(x)
        codes = [level_tables(self.zero_point, 0)[0][tile.astype(np.int16) + 128] for tile in tiles]
        return np.array(
            [
                HEADER_BYTES + (u.size if size is None else min(size, u.size))
                for u, size in zip(codes, self.coder.payload_bytes(codes))
            ],
            np.int64,
        )

    def encode(self, x: np.ndarray) -> np.ndarray:
        """int8[H, W, C] to uint8[T, S]. Errors: InputError for another rank, or an empty tensor."""
        tiles = self._cut(x)
        slots, pending = np.zeros((len(tiles), self.slot_bytes), np.uint8), list(range(len(tiles)))
        for dropped in range(MOST_DROPPED + 1):
            table = level_tables(self.zero_point, dropped)[0]
            codes = [table[tiles[i].astype(np.int16) + 128] for i in pending]
            coded = self.coder.encode_tiles(codes) if dropped < MOST_DROPPED else [None] * len(codes)
            missed = []
            for i, u, payload in zip(pending, codes, coded, strict=True):
                content, head = self._payload(u, payload, dropped)
                if HEADER_BYTES + len(content) > self.slot_bytes:
                    missed.append(i)
                    continue
                slots[i, : HEADER_BYTES + len(content)] = np.frombuffer(
                    np.array(head, "<u4").tobytes() + content, np.uint8
                )
            pending = missed
            if not pending:
                break
        return slots

    def _cut(self, x: np.ndarray) -> list[np.ndarray]:
        self.coder.tile_shapes(x.shape)  # checks the shape
        return [x[y : y + self.tile_rows] for y in range(0, x.shape[0], self.tile_rows)]

    @staticmethod
    def _payload(u: np.ndarray, coded: bytes | None, dropped: int) -> tuple[bytes, int]:
        """``(payload, header)`` of a tile's codes: the codec's bytes or packed, whichever is shorter."""
        width = 8 - dropped
        is_packed = coded is None or len(coded) >= packed_bytes(u.size * width)
        content = pack(u, np.full(u.size, width)) if is_packed else coded
        return content, len(content) | dropped << LENGTH_BITS | (PACKED if is_packed else 0)

    def header(self, slot: np.ndarray) -> tuple[int, int, bool]:
        """``(length, dropped bits, packed)`` of uint8[S]. Errors: ProgramError for one that no encoder wrote."""
        head = int.from_bytes(slot[:HEADER_BYTES].tobytes(), "little")
        length, dropped = head & MAX_SLOT_BYTES, head >> LENGTH_BITS & (1 << DROPPED_BITS) - 1
        if length > self.slot_bytes - HEADER_BYTES or dropped > MOST_DROPPED:
            raise broken(f"its slot's header {head:#010x} claims {length} bytes and {dropped} dropped bits")
        return length, dropped, bool(head & PACKED)

    def dropped(self, slots: np.ndarray) -> np.ndarray:
        """int64[T]: bits that each tile of uint8[T, S] lost. Errors: ProgramError."""
        return np.array([self.header(slot)[1] for slot in slots], np.int64)

    def decode(self, slots: np.ndarray, shape: Shape) -> np.ndarray:
        """uint8[T, S] to int8[H, W, C]. Errors: ProgramError for bytes that no encoder wrote."""
        shapes = self.coder.tile_shapes(shape)
        if slots.shape != (len(shapes), self.slot_bytes):
            raise InputError(
                "slots do not fit the tensor",
                required=f"uint8{[len(shapes), self.slot_bytes]}",
                available=f"{slots.dtype}{list(slots.shape)}",
            )
        heads = [self.header(slot) for slot in slots]
        payloads = [slot[HEADER_BYTES : HEADER_BYTES + length].tobytes() for slot, (length, _, _) in zip(slots, heads)]
        coded = [i for i, (_, _, is_packed) in enumerate(heads) if not is_packed]
        codes = dict(
            zip(coded, self.coder.decode_tiles([payloads[i] for i in coded], [shapes[i] for i in coded]), strict=True)
        )
        rows = []
        for i, (_, dropped, is_packed) in enumerate(heads):
            u = (
                unpack(payloads[i], np.full(math.prod(shapes[i]), 8 - dropped)).reshape(shapes[i])
                if is_packed
                else codes[i]
            )
            values = level_tables(self.zero_point, dropped)[1]
            if u.size and int(u.max()) >= values.size:
                raise broken(f"a level beyond its {8 - dropped} bits")
            rows.append(values[u])
        return np.concatenate(rows)


def lossless_slot_bytes(tile: Shape) -> int:
    """The slot with which a tile of this shape never loses anything."""
    return HEADER_BYTES + math.prod(tile)
