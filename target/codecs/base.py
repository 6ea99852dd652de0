"""What every activation codec is: a tensor int8[H, W, C] in, an index of tile sizes and independently decodable tiles
out.

A tile is a band of ``tile_rows`` whole rows. The stored tensor is, little-endian,

    u32 per tile: payload length in bytes, bit 31 set where the tile is stored raw
    the payloads, one after the other

A tile that would not become smaller is stored raw, so that a stored tensor never exceeds its plain size by more than
the index. Codecs work on unsigned distances from the zero point (`fold`), so that after a ReLU no bit is spent on a
sign."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import InputError, ProgramError
from tvm_ergo.target.events import Event
from tvm_ergo.target.sums import added

INDEX_BYTES = 4  # per tile
RAW_TILE = 1 << 31
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class SymbolCost:
    """What coding or decoding one value takes in hardware: ``cycles`` of one coder lane, and how often each event
    happens.

    Energy follows from the chip's table (`Chip.energy`), which carries its own sources. source : where the counts come
    from."""

    cycles: float
    events: dict[Event, float]
    source: str

    def pj(self, energy_pj: dict[Event, float]) -> float:
        """Energy of one value, from pJ per event."""
        return added(count * energy_pj[event] for event, count in self.events.items())


@cache
def fold_table(zero_point: int) -> np.ndarray:
    """uint8[256]: ``table[x + 128]`` is the unsigned distance code of int8 ``x``, a bijection that maps the zero point
    to 0.

    Where both signs exist they alternate (+1, -1, +2, ...); values for which only one sign exists follow in order. With
    zero point -128 it is ``x + 128``.
    """
    if not -128 <= zero_point <= 127:
        raise InputError(f"zero point {zero_point} is not an int8")
    d = np.arange(-128, 128) - zero_point
    both = min(zero_point + 128, 127 - zero_point)
    near = np.where(d > 0, 2 * d - 1, -2 * d)
    return np.where(np.abs(d) <= both, near, np.abs(d) + both).astype(np.uint8)


@cache
def unfold_table(zero_point: int) -> np.ndarray:
    """int8[256], the inverse of `fold_table`."""
    table = np.empty(256, np.int8)
    table[fold_table(zero_point)] = np.arange(-128, 128)
    return table


def fold(x: np.ndarray, zero_point: int) -> np.ndarray:
    """int8 to unsigned distance codes, uint8, same shape."""
    return fold_table(zero_point)[x.astype(np.int16) + 128]


def unfold(u: np.ndarray, zero_point: int) -> np.ndarray:
    """The inverse of `fold`."""
    return unfold_table(zero_point)[u]


@dataclass(frozen=True)
class ActivationCodec(ABC):
    """Fields: zero_point (the value coded most cheaply), tile_rows (rows per independently decodable tile)."""

    codec: ClassVar[Codec]
    lossless: ClassVar[bool] = True
    predicts_in_time: ClassVar[bool] = False
    """Whether it takes ``previous``: a tensor of the same shape that the decoder has too, such as the frame before this
    one."""
    COST: ClassVar[SymbolCost]

    zero_point: int = -128
    tile_rows: int = 8

    def __post_init__(self):
        fold_table(self.zero_point)
        if self.tile_rows < 1:
            raise InputError(f"tiles of {self.tile_rows} rows", required="at least 1 row")

    @abstractmethod
    def encode_tiles(self, tiles: list[np.ndarray]) -> Sequence[bytes | None]:
        """Payloads of tiles uint8[rows, W, C] of distance codes; None where the codec knows that raw is smaller. A
        codec that predicts in time also takes the previous tensor's tiles: ``encode_tiles(tiles, previous)``, and the
        same when decoding."""

    def payload_bytes(self, tiles: list[np.ndarray]) -> list[int | None]:
        """Lengths of what `encode_tiles` gives, for statistics; codecs that can tell without coding do."""
        return [None if payload is None else len(payload) for payload in self.encode_tiles(tiles)]

    @abstractmethod
    def decode_tiles(self, payloads: list[bytes], shapes: list[Shape]) -> list[np.ndarray]:
        """The inverse: uint8[rows, W, C] per payload. Errors: ProgramError for a payload that cannot be one of that
        shape."""

    def lanes(self, tile: Shape) -> int:
        """Coders that work on one tile of this shape at once; ``COST.cycles`` is the time of one of them."""
        return 1

    def max_error(self, shape: Shape) -> int:
        """Largest difference between a value and its decoded self, in quantization steps: 0 for a lossless codec."""
        return 0

    def worst_case_bytes(self, shape: Shape) -> int:
        """Upper bound of ``len(encode(x))`` over every x of this shape."""
        return math.prod(_checked(shape)) + INDEX_BYTES * len(self.tile_shapes(shape))

    def tile_shapes(self, shape: Shape) -> list[Shape]:
        """Shapes of the tiles, top to bottom."""
        height, width, channels = _checked(shape)
        return [(min(self.tile_rows, height - y), width, channels) for y in range(0, height, self.tile_rows)]

    def encode(self, x: np.ndarray, previous: np.ndarray | None = None) -> bytes:
        """int8[H, W, C] to bytes. Errors: InputError for another dtype or rank, an empty tensor, or a previous one that
        does not fit."""
        if x.dtype != np.int8:
            raise InputError("activation codecs take int8 tensors", available=str(x.dtype))
        return self.encode_many([x], None if previous is None else [previous])[0]

    def encode_many(self, tensors: list[np.ndarray], previous: list[np.ndarray] | None = None) -> list[bytes]:
        """`encode` of several tensors at once: their tiles run in lockstep, which is how NumPy becomes fast."""
        for x in tensors:
            _checked(x.shape)
        tiles = [tile for x in tensors for tile in self._tiles(x, 0, x.shape[0])]
        if previous is None:
            coded = self.encode_tiles(tiles)
        else:
            coded = self.encode_tiles(
                tiles,
                [
                    t
                    for p, x in zip(previous, tensors, strict=True)
                    for t in self._previous_tiles(p, x.shape, 0, x.shape[0])
                ],
            )
        payloads = iter(zip(tiles, coded))
        return [self._assemble([next(payloads) for _ in self.tile_shapes(x.shape)]) for x in tensors]

    def _tiles(self, x: np.ndarray, begin: int, end: int) -> list[np.ndarray]:
        u = fold(x[begin:end], self.zero_point)
        return [u[y : y + self.tile_rows] for y in range(0, len(u), self.tile_rows)]

    def _previous_tiles(self, previous: np.ndarray, shape: Shape, begin: int, end: int) -> list[np.ndarray]:
        if not self.predicts_in_time:
            raise InputError(f"{self.codec.name} takes no previous tensor", remedy="use a codec that predicts in time")
        if previous.shape != tuple(shape) or previous.dtype != np.int8:
            raise InputError(
                "the previous tensor does not fit",
                required=f"int8{list(shape)}",
                available=f"{previous.dtype}{list(previous.shape)}",
            )
        return self._tiles(previous, begin, end)

    def _assemble(self, coded: list[tuple[np.ndarray, bytes | None]]) -> bytes:
        index, parts = [], []
        for tile, payload in coded:
            raw = payload is None or (len(payload) >= tile.size and self.lossless)
            parts.append(unfold(tile, self.zero_point).tobytes() if raw else payload)
            index.append(len(parts[-1]) | (RAW_TILE if raw else 0))
        return np.array(index, "<u4").tobytes() + b"".join(parts)

    def index(self, data: bytes, shape: Shape) -> list[tuple[int, int, bool]]:
        """(begin, end, raw) of each tile's payload in ``data``. Errors: ProgramError where index and length
        disagree."""
        tiles = self.tile_shapes(shape)
        if len(data) < INDEX_BYTES * len(tiles):
            raise ProgramError(
                "a coded tensor is shorter than its index",
                required=f"{INDEX_BYTES * len(tiles)} bytes",
                available=f"{len(data)} bytes",
            )
        begin, entries = INDEX_BYTES * len(tiles), []
        for entry, tile in zip(np.frombuffer(data, "<u4", len(tiles)).tolist(), tiles):
            length, raw = entry & (RAW_TILE - 1), bool(entry & RAW_TILE)
            if raw and length != math.prod(tile):
                raise ProgramError(
                    "a raw tile has the wrong length", required=f"{math.prod(tile)} bytes", available=f"{length} bytes"
                )
            entries.append((begin, begin + length, raw))
            begin += length
        if begin != len(data):
            raise ProgramError(
                "a coded tensor's index and length disagree", required=f"{begin} bytes", available=f"{len(data)} bytes"
            )
        return entries

    def decode(self, data: bytes, shape: Shape, previous: np.ndarray | None = None) -> np.ndarray:
        """Bytes to int8[H, W, C]. Errors: ProgramError for a stream that cannot be one of that shape."""
        return self.decode_rows(data, shape, 0, shape[0], previous)

    def decode_rows(
        self, data: bytes, shape: Shape, begin: int, end: int, previous: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows [begin, end) of the tensor, decoding only the tiles that hold them. previous : the whole previous
        tensor, or None."""
        if not 0 <= begin < end <= shape[0]:
            raise InputError(f"rows [{begin}, {end}) of a tensor of {shape[0]} rows")
        first, last = begin // self.tile_rows, -(-end // self.tile_rows)
        entries = self.index(data, shape)[first:last]
        shapes = self.tile_shapes(shape)[first:last]
        coded = [i for i, (_, _, raw) in enumerate(entries) if not raw]
        wanted = [bytes(data[slice(*entries[i][:2])]) for i in coded], [shapes[i] for i in coded]
        if previous is None:
            decoded = dict(zip(coded, self.decode_tiles(*wanted)))
        else:
            before = self._previous_tiles(previous, shape, first * self.tile_rows, last * self.tile_rows)
            decoded = dict(zip(coded, self.decode_tiles(*wanted, [before[i] for i in coded])))
        rows = []
        for i, (start, stop, raw) in enumerate(entries):
            rows.append(
                np.frombuffer(data, np.int8, stop - start, start).reshape(shapes[i])
                if raw
                else unfold(decoded[i], self.zero_point)
            )
        skip = begin - first * self.tile_rows
        return np.concatenate(rows)[skip : skip + end - begin]


def _checked(shape) -> Shape:
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(
            f"a tensor of shape {tuple(shape)} cannot be coded", required="three dimensions [H, W, C], none empty"
        )
    return tuple(shape)


def broken(what: str) -> ProgramError:
    """The error of a payload that no encoder wrote."""
    return ProgramError(f"a coded tile is broken: {what}", remedy="check codec, shape and address of the operand")
