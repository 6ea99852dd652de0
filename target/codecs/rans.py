"""Static entropy coding of distance codes: range asymmetric numeral systems (Duda, 2013) over tables of sixteen
symbols.

A distance code u is a symbol (0..3 exactly, then two per octave) and the raw bits below it. The symbol's probability
stands in a table that is chosen by the channel's group and by the *level* of the sum of the left and the upper code of
the same channel: what is small beside small values costs little, and nothing has to be learned on the way.
Probabilities are multiples of 2**-12.

The channels of a pixel are coded in groups of K, one in each of K lanes. Payload of a tile: u32 final state of each
lane, then the 16-bit words in the order in which the decoder's lanes ask for them (little-endian). Before the tile's
first row and column nothing is known: the upper code stands for a missing left one and the other way round, 0 for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ergo.target.codecs import native
from tvm_ergo.target.codecs.base import broken
from tvm_ergo.target.codecs.bits import BIT_LENGTH
from tvm_ergo.target.errors import InputError

SYMBOLS, LEVELS = 16, 18
TOTAL_BITS = 12
START = 1 << 16  # state of a lane before its last symbol was coded
LANE_VALUES, MAX_LANES = 2048, 32  # a lane costs four bytes
RAW_BITS = np.maximum(BIT_LENGTH - 2, 0)  # of each code 0..255
SYMBOL = np.where(np.arange(256) < 4, np.arange(256), 4 + 2 * (BIT_LENGTH - 3) + (np.arange(256) >> RAW_BITS & 1))
FIRST = np.array([int(np.argmax(SYMBOL == s)) for s in range(SYMBOLS)])  # smallest code of each symbol
SYMBOL_RAW_BITS = RAW_BITS[FIRST]
_SUM_BITS = np.array([v.bit_length() for v in range(511)])
LEVEL = np.where(
    np.arange(511) < 4, np.arange(511), 4 + 2 * (_SUM_BITS - 3) + (np.arange(511) >> np.maximum(_SUM_BITS - 2, 0) & 1)
)

UNFINISHED = "its words do not end with its last value"


def lanes_of(shape: tuple[int, int, int]) -> int:
    """Lanes of a tile of this shape."""
    return max(1, min(shape[2], MAX_LANES, math.prod(shape) // LANE_VALUES))


@dataclass(frozen=True, eq=False)
class Tables:
    """frequencies : int64[groups, LEVELS, SYMBOLS], at least 1 each, ``2**TOTAL_BITS`` in every row. group :
    int64[channels], the group of each channel; None: group 0 for all."""

    frequencies: np.ndarray
    group: np.ndarray | None = None

    def __post_init__(self):
        f = self.frequencies
        if (
            f.ndim != 3
            or f.shape[1:] != (LEVELS, SYMBOLS)
            or not len(f)
            or f.min() < 1
            or (f.sum(axis=2) != 1 << TOTAL_BITS).any()
        ):
            raise InputError(
                "no frequencies of a static code",
                required=f"[groups, {LEVELS}, {SYMBOLS}], at least 1, {1 << TOTAL_BITS} in every row",
            )
        if self.group is not None and (self.group.ndim != 1 or ((self.group < 0) | (self.group >= len(f))).any()):
            raise InputError("a channel of a group that has no table", required=f"0 to {len(f) - 1}")

    @cached_property
    def begins(self) -> np.ndarray:
        """int64[rows, SYMBOLS]: where each symbol's interval begins; a row per (group, level)."""
        flat = self.frequencies.reshape(-1, SYMBOLS)
        return np.cumsum(flat, axis=1) - flat

    @cached_property
    def symbol_at(self) -> np.ndarray:
        """uint8[rows, 2**TOTAL_BITS]: the symbol whose interval holds a slot."""
        symbols = np.tile(np.arange(SYMBOLS, dtype=np.uint8), self.begins.shape[0])
        return np.repeat(symbols, self.frequencies.ravel()).reshape(-1, 1 << TOTAL_BITS)

    @cached_property
    def native(self) -> dict[int, list[np.ndarray]]:
        """By channels, the tables that the compiled coder takes."""
        return {}

    def native_for(self, channels: int) -> list[np.ndarray]:
        if channels not in self.native:
            shared = [
                np.ascontiguousarray(t, np.int32)
                for t in (self.first_row(channels), LEVEL, SYMBOL_RAW_BITS, FIRST, SYMBOL)
            ]
            self.native[channels] = [
                *(np.ascontiguousarray(t, np.int32) for t in (self.frequencies, self.begins)),
                self.symbol_at,
                *shared,
            ]
        return self.native[channels]

    def first_row(self, channels: int) -> np.ndarray:
        """int64[channels]: row of level 0 of each channel's group."""
        return np.zeros(channels, np.int64) if self.group is None else self.group * LEVELS


def sums(values: np.ndarray) -> np.ndarray:
    """int64[tiles, H, W, C]: left plus upper code of every code of tiles uint8[tiles, H, W, C]."""
    left, up = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int64)
    left[:, :, 1:], up[:, 1:] = values[:, :, :-1], values[:, :-1]
    left[:, :, 0], up[:, 0] = up[:, :, 0], left[:, 0]
    return left + up


def encode(values: np.ndarray, tables: Tables) -> list[bytes]:
    """Payloads of tiles uint8[tiles, H, W, C]. All tiles and lanes run together, from the last code to the first."""
    tiles, height, width, channels = values.shape
    lanes = lanes_of(values.shape[1:])
    if native.library():
        return [native.rans_encode(tile, lanes, tables.native_for(channels)) for tile in values]
    rows = tables.first_row(channels) + LEVEL[sums(values)]
    symbols = SYMBOL[values]

    def stepwise(array, filler):
        """[tiles, H, W, C] to [steps, tiles, lanes]; lanes without a channel get what changes no state."""
        padded = np.pad(array, ((0, 0), (0, 0), (0, 0), (0, -channels % lanes)), constant_values=filler)
        return np.moveaxis(padded.reshape(tiles, -1, lanes), 1, 0)

    frequency = stepwise(tables.frequencies.reshape(-1, SYMBOLS)[rows, symbols], 1 << TOTAL_BITS)
    begin = stepwise(tables.begins[rows, symbols], 0)
    raw_bits = stepwise(RAW_BITS[values], 0)
    raw = stepwise(values & ((1 << RAW_BITS[values]) - 1), 0)
    state = np.full((tiles, lanes), START, np.int64)
    asked, words = np.empty((2 * len(raw), tiles, lanes), bool), np.empty((2 * len(raw), tiles, lanes), np.uint16)
    for step in reversed(range(len(raw))):
        for half, limit in ((1, 1 << (32 - raw_bits[step])), (0, frequency[step] << (32 - TOTAL_BITS))):
            place = 2 * step + half
            np.greater_equal(state, limit, out=asked[place])
            words[place] = state & 0xFFFF
            state = np.where(asked[place], state >> 16, state)
            if half:
                state = state << raw_bits[step] | raw[step]
            else:
                quotient, rest = np.divmod(state, frequency[step])
                state = (quotient << TOTAL_BITS) + rest + begin[step]
    return [state[t].astype("<u4").tobytes() + words[:, t][asked[:, t]].astype("<u2").tobytes() for t in range(tiles)]


def decode(payloads: list[bytes], shape: tuple[int, int, int], tables: Tables) -> np.ndarray:
    """uint8[tiles, H, W, C]. Errors: ProgramError where a payload does not end exactly with its last code."""
    height, width, channels = shape
    lanes = lanes_of(shape)
    if any(len(p) < 4 * lanes or len(p) % 2 for p in payloads):
        raise broken("it ends too early")
    if native.library():
        return np.stack([_whole(native.rans_decode(p, lanes, shape, tables.native_for(channels))) for p in payloads])
    reader, first = _Reader(payloads, lanes), tables.first_row(channels)
    values = np.zeros((len(payloads), height, width, channels), np.int64)
    frequencies = tables.frequencies.reshape(-1, SYMBOLS)
    for y in range(height):
        for x in range(width):
            left = values[:, y, x - 1] if x else values[:, y - 1, x] if y else np.zeros_like(values[:, 0, 0])
            rows = first + LEVEL[left + (values[:, y - 1, x] if y else left)]
            for c in range(0, channels, reader.lanes):
                now = slice(c, min(c + reader.lanes, channels))
                slot = reader.low(TOTAL_BITS, now.stop - c)
                symbol = tables.symbol_at[rows[:, now], slot].astype(np.int64)
                reader.took(frequencies[rows[:, now], symbol], slot - tables.begins[rows[:, now], symbol])
                values[:, y, x, now] = FIRST[symbol] + reader.raw(SYMBOL_RAW_BITS[symbol])
    reader.finish()
    return values.astype(np.uint8)


def _whole(values: np.ndarray | None) -> np.ndarray:
    if values is None:
        raise broken(UNFINISHED)
    return values


class _Reader:
    """The lanes' states and the words they take. Reads are within the payloads, whatever these hold."""

    def __init__(self, payloads: list[bytes], lanes: int):
        self.lanes, head = lanes, 4 * lanes
        self.state = np.array([np.frombuffer(p, "<u4", lanes) for p in payloads], np.int64)
        self.length = np.array([(len(p) - head) // 2 for p in payloads])
        self.words = np.zeros((len(payloads), int(self.length.max(initial=0)) + lanes), np.int64)
        for row, payload in zip(self.words, payloads):
            row[: (len(payload) - head) // 2] = np.frombuffer(payload, "<u2", offset=head)
        self.at = np.zeros(len(payloads), np.int64)

    def low(self, bits: int, lanes: int) -> np.ndarray:
        """The lowest bits of the states of the first lanes."""
        self.active = lanes
        return self.state[:, :lanes] & ((1 << bits) - 1)

    def took(self, frequency, offset) -> None:
        """The symbol that was read leaves the states."""
        self._refill(frequency * (self.state[:, : self.active] >> TOTAL_BITS) + offset)

    def raw(self, bits) -> np.ndarray:
        """So many bits of each active lane."""
        state = self.state[:, : self.active]
        value = state & ((1 << bits) - 1)
        self._refill(state >> bits)
        return value

    def _refill(self, state) -> None:
        need = state < START
        if need.any():
            count = np.cumsum(need, axis=1)
            place = self.at[:, None] + count - 1
            self.at += count[:, -1]
            if (self.at > self.length).any():
                raise broken(UNFINISHED)
            state = np.where(need, state << 16 | np.take_along_axis(self.words, np.maximum(place, 0), axis=1), state)
        self.state[:, : self.active] = state

    def finish(self) -> None:
        if (self.at != self.length).any() or (self.state != START).any():
            raise broken(UNFINISHED)
