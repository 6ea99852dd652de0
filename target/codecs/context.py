"""Context-modelled adaptive binary arithmetic coding: three adaptive predictions of every binary decision, mixed.

A magnitude is written as its bit length in unary (0, 1, 2-3, 4-7, ...), then the bits below its leading one. Every such decision
is predicted by three adaptive probabilities, chosen by
  1. the left and the upper value of the same channel,
  2. the channel,
  3. the upper right value and a gradient prediction of the same channel,
and mixed in the logistic domain by weights that learn on line, one set per decision and local magnitude (the method of the
paq/lpaq family: Mahoney, 2005; contexts and integer arithmetic are ours). Everything starts from "nothing known" in each
tile, so the codec needs no tables from calibration and a tile needs no other.

Lanes: the channels of a pixel are coded in groups of K, one in each of K lanes with an arithmetic coder of its own; predictions of a group
use the state before it. Where several lanes of a group update the same state, the last lane's update stands.

Payload: u16 length of each lane's stream (little-endian), the streams. All arithmetic is on integers, so decoders agree to the bit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, native
from tvm_ergo.target.codecs.arithmetic import LONGEST_STREAM, LaneDecoder, LaneEncoder
from tvm_ergo.target.codecs.base import ActivationCodec, Event, Shape, SymbolCost, broken
from tvm_ergo.target.codecs.bits import BIT_LENGTH, Sections

LANE_VALUES = 2048  # values per lane at least: a lane costs 2 to 3 bytes
MAX_LANES = 32
LEFT_UP, CORNER = 14, (10, 16)  # levels of the quantized neighbours in contexts 1 and 3
SHARED = LEFT_UP * LEFT_UP + CORNER[0] * CORNER[1]
WEIGHT_SETS = 9
INPUTS = 3
BIAS = 77  # constant fourth input of the mixer, 0.3 in units of 1/256
FIRST_WEIGHT = 19661  # 0.3 in units of 2**-16
LEARNING = 5  # weight step, 0.02 in the mixer's units
LIMIT = 60  # observations after which a probability adapts at a constant rate
DOMAIN = 2047  # stretch domain +-8 in units of 1/256

UNARY = 0  # decision "longer than k bits", k = 0..8
SECOND = 9 - 2  # + bit length 2..8: the bit below the leading one
THIRD = 16 - 6  # + 2 * bit length 3..8 + the bit above
LOWER = {4: 28, 5: 29, 6: 31, 7: 34, 8: 38}  # bit length -> decision of its fourth bit; the following bits follow
DECISIONS = 43


@cache
def tables() -> dict[str, np.ndarray]:
    """stretch int64[4096] of p >> 4; squash int64[4095] to 16 bits; rate int64[LIMIT + 1]; level int64[2041] of sums of neighbours."""
    p = (np.arange(4096) + 0.5) / 4096
    stretch = np.clip(np.rint(np.log(p / (1 - p)) * 256), -DOMAIN, DOMAIN).astype(np.int64)
    squash = np.rint(65536 / (1 + np.exp(-np.arange(-DOMAIN, DOMAIN + 1) / 256))).astype(np.int64)
    rate = np.floor(65536 / (np.arange(LIMIT + 1) + 1.6)).astype(np.int64)
    value = np.arange(8 * 255 + 1)
    length = np.array([int(v).bit_length() for v in value])
    level = np.where(value < 4, value, 4 + 2 * (length - 3) + (value >> np.maximum(length - 2, 0) & 1)).astype(np.int64)
    lower = np.zeros(9, np.int64)
    lower[list(LOWER)] = list(LOWER.values())
    return {"stretch": stretch, "squash": squash, "rate": rate, "level": level, "lower": lower}


@cache
def native_tables() -> list[np.ndarray]:
    """The tables that the compiled coder takes: int32 stretch, squash, rate, level."""
    return [np.ascontiguousarray(tables()[name], np.int32) for name in ("stretch", "squash", "rate", "level")]


def lanes_of(shape: tuple[int, int, int]) -> int:
    """Lanes of a tile of this shape."""
    return max(1, min(shape[2], MAX_LANES, math.prod(shape) // LANE_VALUES))


def lane_streams(payload: bytes, lanes: int) -> list[bytes]:
    """The stream of each lane. Errors: ProgramError where the lengths do not fit the payload."""
    parts = Sections(payload)
    streams = [parts.take(size) for size in np.frombuffer(parts.take(2 * lanes), "<u2").tolist()]
    if parts.rest():
        raise broken("bytes that belong to no lane")
    return streams


@dataclass(frozen=True)
class ContextCodec(ActivationCodec):
    """Lossless; tiles of eight rows: smaller tiles cost more, because each tile learns anew."""

    codec: ClassVar[Codec] = Codec.CONTEXT
    COST: ClassVar[SymbolCost] = SymbolCost(
        5.0, {Event.LOCAL_READ_BYTE: 5 * 17, Event.LOCAL_WRITE_BYTE: 5 * 17, Event.LUT_READ: 5 * 4, Event.MAC_8X8: 5 * 4 * 2 * 4, Event.ALU_8: 5 * 16},
        "assumption: one decision per lane and cycle, pipelined; 5 decisions a value (counted on SqueezeNet 1.0's activations at 7 bits, six images: 3.63); per decision three "
        "3-byte states and four 2-byte weights read and written, three stretch and one squash look-up, eight 16 x 16 bit products (four 8 x 8 each)")

    def lanes(self, tile: Shape) -> int:
        return lanes_of(tile)

    def encode_tiles(self, tiles):
        if native.library():
            return [native.encode(tile, lanes_of(tile.shape), native_tables()) for tile in tiles]
        return self._in_lockstep([tile.shape for tile in tiles],
                                 lambda chosen, shape: _Coder(shape, len(chosen)).encode(np.stack([tiles[i] for i in chosen])))

    def decode_tiles(self, payloads, shapes):
        if native.library():
            return [native.decode(lane_streams(payload, lanes_of(shape)), shape, native_tables()) for payload, shape in zip(payloads, shapes)]
        return self._in_lockstep(shapes, lambda chosen, shape: list(_Coder(shape, len(chosen)).decode([payloads[i] for i in chosen])))

    @staticmethod
    def _in_lockstep(shapes, run):
        """``run`` over the tiles of each shape together."""
        results, alike = [None] * len(shapes), defaultdict(list)
        for i, shape in enumerate(shapes):
            alike[shape].append(i)
        for shape, chosen in alike.items():
            for i, result in zip(chosen, run(chosen, shape)):
                results[i] = result
        return results


class _Coder:
    """Model and walk of ``tiles`` tiles of one shape. Encoding and decoding differ in where a decision's bit comes from."""

    def __init__(self, shape, tiles: int):
        self.rows, self.width, self.channels = shape
        self.lanes, self.tiles = lanes_of(shape), tiles
        per_tile = (SHARED + self.channels) * DECISIONS
        self.tile = np.repeat(np.arange(tiles), self.lanes)
        self.first_state = self.tile * per_tile
        self.state = np.full(tiles * per_tile, 32768 << 8, np.int64)  # probability of a one << 8 | observations
        self.weights = np.full((INPUTS + 1, tiles * WEIGHT_SETS * DECISIONS), FIRST_WEIGHT, np.int64)
        self.weights[INPUTS] = 0
        self.values = np.zeros((tiles, self.rows, self.width, self.channels), np.int64)
        self.known: np.ndarray | None = None
        for name, table in tables().items():
            setattr(self, name, table)

    def encode(self, tiles: np.ndarray) -> list[bytes | None]:
        self.known, self.coder = tiles.astype(np.int64), LaneEncoder(self.tiles * self.lanes)
        self._walk()
        streams = self.coder.finish()
        return [self._payload(streams[i:i + self.lanes]) for i in range(0, len(streams), self.lanes)]

    @staticmethod
    def _payload(streams: list[bytes]) -> bytes | None:
        sizes = [len(s) for s in streams]
        return None if max(sizes) > LONGEST_STREAM else np.array(sizes, "<u2").tobytes() + b"".join(streams)

    def decode(self, payloads: list[bytes]) -> np.ndarray:
        streams = [stream for payload in payloads for stream in lane_streams(payload, self.lanes)]
        self.coder = LaneDecoder(streams)
        self._walk()
        return self.values.astype(np.uint8)

    def _walk(self) -> None:
        place = np.tile(np.arange(self.lanes), self.tiles)
        for y in range(self.rows):
            for x in range(self.width):
                for first in range(0, self.channels, self.lanes):
                    active = np.flatnonzero(first + place < self.channels)
                    channel, tile = first + place[active], self.tile[active]
                    context, weight_set = self._contexts(y, x, tile, channel)
                    known = None if self.known is None else self.known[tile, y, x, channel]
                    self.values[tile, y, x, channel] = self._magnitude(active, context + self.first_state[active],
                                                                       (tile * WEIGHT_SETS + weight_set) * DECISIONS, known)

    def _contexts(self, y: int, x: int, tile, channel):
        """int64[3, lanes] first state of each context, int64[lanes] weight set. Missing neighbours repeat the nearest known one."""
        values, level = self.values, self.level
        left = values[tile, y, x - 1, channel] if x else values[tile, y - 1, x, channel] if y else np.zeros_like(channel)
        up = values[tile, y - 1, x, channel] if y else left
        up_left = values[tile, y - 1, x - 1, channel] if y and x else up
        up_right = values[tile, y - 1, x + 1, channel] if y and x + 1 < self.width else up
        left2 = values[tile, y, x - 2, channel] if x > 1 else left
        up2 = values[tile, y - 2, x, channel] if y > 1 else up
        gradient = np.clip(left + up - up_left, np.minimum(left, up), np.maximum(left, up))
        low, high = np.minimum(level[left], LEFT_UP - 1), np.minimum(level[up], LEFT_UP - 1)
        corner = np.minimum(level[up_right], CORNER[0] - 1) * CORNER[1] + np.minimum(level[(2 * gradient + left + up) >> 2], CORNER[1] - 1)
        context = np.stack([low * LEFT_UP + high, LEFT_UP * LEFT_UP + corner, SHARED + channel]) * DECISIONS
        local = level[2 * (left + up) + up_left + up_right + left2 + up2]
        return context, np.minimum(local >> 1, WEIGHT_SETS - 1)

    def _magnitude(self, active, context, weights, known):
        """Codes one value in each active lane."""
        length = np.zeros(active.size, np.int64)
        target = None if known is None else BIT_LENGTH[known]
        going = np.arange(active.size)
        for k in range(9):
            if not going.size or k == 8:
                break
            bits = self._decide(active, context, weights, going, UNARY + k, None if target is None else (target[going] > k).astype(np.int64))
            going = going[bits == 1]
            length[going] = k + 1
        value = (length > 0).astype(np.int64)
        for depth in range(7):
            going = np.flatnonzero(length >= depth + 2)
            if not going.size:
                break
            size = length[going]
            node = SECOND + size if depth == 0 else THIRD + 2 * size + (value[going] & 1) if depth == 1 else self.lower[size] + depth - 2
            bits = None if known is None else known[going] >> (size - 2 - depth) & 1
            value[going] = value[going] << 1 | self._decide(active, context, weights, going, node, bits)
        return value

    def _decide(self, active, context, weights, going, node, bits):
        """One decision in each of the lanes ``active[going]``: predict, code, learn. Returns the bits."""
        states = context[:, going] + node
        sets = weights[going] + node
        state = self.state[states]
        p = state >> 8
        x = np.empty((INPUTS + 1, going.size), np.int64)
        x[:INPUTS] = self.stretch[p >> 4]
        x[INPUTS] = BIAS
        w = self.weights[:, sets]
        mixed = np.minimum(np.maximum((w * x).sum(axis=0) >> 16, -DOMAIN), DOMAIN)
        p1 = self.squash[mixed + DOMAIN]
        bits = self.coder.code(active[going], p1, bits)
        target = bits << 16
        self.weights[:, sets] = w + ((x * ((target - p1) * LEARNING) + 32768) >> 16)
        seen = state & 255
        p = np.minimum(np.maximum(p + ((target - p) * self.rate[seen] >> 16), 32), 65503)
        self.state[states] = p << 8 | np.minimum(seen + 1, LIMIT)
        return bits
