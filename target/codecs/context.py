"""Context-modelled adaptive binary arithmetic coding: three adaptive predictions of every binary decision, mixed.

A distance code is written as its bit length in unary (0, 1, 2-3, 4-7, ...), then the bits below its leading one (of a
signed tensor the last of them is the sign). Every such decision is predicted by three adaptive probabilities, chosen by
  1. the left and the upper value of the same channel,
  2. the channel,
  3. a gradient prediction from the same channel and how much its neighbourhood varies; here also by the first two bits
  already coded,
and mixed in the logistic domain by weights that learn on line, one set per decision and local magnitude (the method of
the paq/lpaq family: Mahoney, 2005; contexts and integer arithmetic are ours). Everything starts from "nothing known" in
each tile, so the codec needs no tables from calibration and a tile needs no other.

Lanes: the channels of a pixel are coded in groups of K, one in each of K lanes with an arithmetic coder of its own;
predictions of a group use the state before it. Where several lanes of a group update the same state, the last lane's
update stands.

Payload: u16 length of each lane's stream (little-endian), the streams. All arithmetic is on integers, so decoders agree
to the bit."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, native
from tvm_ergo.target.codecs.arithmetic import LONGEST_STREAM, LaneDecoder, LaneEncoder
from tvm_ergo.target.codecs.base import ActivationCodec, Event, Shape, SymbolCost, broken
from tvm_ergo.target.codecs.bits import BIT_LENGTH, Sections
from tvm_ergo.target.codecs.context_tables import (
    BIAS,
    COARSE,
    DOMAIN,
    FINE,
    FIRST_WEIGHT,
    INPUTS,
    KEPT,
    LEARNING,
    LIMIT,
    OFFSET,
    PLACES,
    SIDES,
    UNREST,
    WEIGHT_SETS,
    decision_tables,
    signed,
    tables,
)

LANE_VALUES = 4096  # values per lane at least: a lane costs 2 to 3 bytes, and lanes that learn side by side learn less
MAX_LANES = 32
SHARED = SIDES * SIDES * COARSE + PLACES * (len(UNREST) + 1) * FINE  # states before those of the channels


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
    """Lossless; tiles of eight rows: smaller tiles cost more, because each tile learns anew. zero_point also tells
    whether signs exist."""

    codec: ClassVar[Codec] = Codec.CONTEXT
    COST: ClassVar[SymbolCost] = SymbolCost(
        5.0,
        {
            Event.LOCAL_READ_BYTE: 5 * 17,
            Event.LOCAL_WRITE_BYTE: 5 * 17,
            Event.LUT_READ: 5 * 4,
            Event.MUL_8X8: 5 * 4 * 2 * 4,
            Event.ALU_8: 5 * 16,
        },
        "assumption: one decision per lane and cycle, pipelined; 5 decisions a value (counted at 7 bits: SqueezeNet "
        "1.0 3.6, ResNet-18 5.8, MobileNetV1 0.25 8.4); per decision three "
        "3-byte states and four 2-byte weights read and written, three stretch and one squash look-up, eight 16 x 16 "
        "bit products (four 8 x 8 each)",
    )

    def lanes(self, tile: Shape) -> int:
        return lanes_of(tile)

    def encode_tiles(self, tiles):
        if native.library():
            return [native.encode(tile, lanes_of(tile.shape), self.zero_point) for tile in tiles]
        return self._in_lockstep(
            [tile.shape for tile in tiles],
            lambda chosen, shape: _Coder(shape, len(chosen), self.zero_point).encode(
                np.stack([tiles[i] for i in chosen])
            ),
        )

    def decode_tiles(self, payloads, shapes):
        if native.library():
            return [
                native.decode(lane_streams(payload, lanes_of(shape)), shape, self.zero_point)
                for payload, shape in zip(payloads, shapes)
            ]
        return self._in_lockstep(
            shapes,
            lambda chosen, shape: list(
                _Coder(shape, len(chosen), self.zero_point).decode([payloads[i] for i in chosen])
            ),
        )

    @staticmethod
    def state_bytes(channels: int) -> int:
        """Memory an engine needs while it codes a tile of so many channels: 3 bytes per probability, 2 per weight."""
        return (
            3 * ((SIDES * SIDES + channels) * COARSE + PLACES * (len(UNREST) + 1) * FINE)
            + 2 * (INPUTS + 1) * WEIGHT_SETS * COARSE
        )

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
    """Model and walk of ``tiles`` tiles of one shape. Encoding and decoding differ in where a decision's bit comes
    from."""

    def __init__(self, shape, tiles: int, zero_point: int):
        self.rows, self.width, self.channels = shape
        self.lanes, self.tiles, self.scale = lanes_of(shape), tiles, 2 if signed(zero_point) else 1
        per_tile = SHARED + self.channels * COARSE
        self.tile = np.repeat(np.arange(tiles), self.lanes)
        self.first_state = self.tile * per_tile
        self.state = np.full(tiles * per_tile, 32768 << 8, np.int64)  # probability of a one << 8 | observations
        self.weights = np.full((INPUTS + 1, tiles * WEIGHT_SETS * COARSE), FIRST_WEIGHT, np.int64)
        self.weights[INPUTS] = 0
        self.values = np.zeros((tiles, self.rows, self.width, self.channels), np.int64)
        self.known: np.ndarray | None = None
        self.first, self.coarse = decision_tables()
        for name, table in tables(zero_point).items():
            setattr(self, name, table)

    def encode(self, tiles: np.ndarray) -> list[bytes | None]:
        self.known, self.coder = tiles.astype(np.int64), LaneEncoder(self.tiles * self.lanes)
        self._walk()
        streams = self.coder.finish()
        return [self._payload(streams[i : i + self.lanes]) for i in range(0, len(streams), self.lanes)]

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
                    self.values[tile, y, x, channel] = self._magnitude(
                        active, context + self.first_state[active], (tile * WEIGHT_SETS + weight_set) * COARSE, known
                    )

    def _contexts(self, y: int, x: int, tile, channel):
        """int64[3, lanes] first state of each context, int64[lanes] weight set. Missing neighbours repeat the nearest
        known one."""
        values = self.values

        def at(row, column):
            return self.value[values[tile, row, column, channel]]

        left = at(y, x - 1) if x else at(y - 1, x) if y else np.zeros_like(channel)
        up = at(y - 1, x) if y else left
        up_left = at(y - 1, x - 1) if y and x else up
        up_right = at(y - 1, x + 1) if y and x + 1 < self.width else up
        left2 = at(y, x - 2) if x > 1 else left
        up2 = at(y - 2, x) if y > 1 else up
        gradient = np.clip(left + up - up_left, np.minimum(left, up), np.maximum(left, up))
        place = self.place[((2 * gradient + left + up) >> 2) + OFFSET]
        varies = self.scale * (np.abs(left - up_left) + np.abs(up - up_left) + np.abs(up - up_right))
        unrest = sum((varies >= bound).astype(np.int64) for bound in UNREST)
        context = np.stack(
            [
                (self.side[left + OFFSET] * SIDES + self.side[up + OFFSET]) * COARSE,
                SHARED + channel * COARSE,
                SIDES * SIDES * COARSE + (place * (len(UNREST) + 1) + unrest) * FINE,
            ]
        )
        local = self.scale * (
            2 * (np.abs(left) + np.abs(up)) + np.abs(up_left) + np.abs(up_right) + np.abs(left2) + np.abs(up2)
        )
        return context, np.minimum(self.level[local] >> 1, WEIGHT_SETS - 1)

    def _magnitude(self, active, context, weights, known):
        """Codes one value in each active lane."""
        length = np.zeros(active.size, np.int64)
        target = None if known is None else BIT_LENGTH[known]
        going = np.arange(active.size)
        for k in range(8):
            if not going.size:
                break
            bits = self._decide(
                active,
                context,
                weights,
                going,
                np.full(going.size, k),
                None if target is None else (target[going] > k).astype(np.int64),
            )
            going = going[bits == 1]
            length[going] = k + 1
        value = (length > 0).astype(np.int64)
        for depth in range(7):
            going = np.flatnonzero(length >= depth + 2)
            if not going.size:
                break
            size = length[going]
            node = self.first[size, depth] + ((value[going] & (1 << depth) - 1) >> max(depth - KEPT, 0))
            bits = None if known is None else known[going] >> (size - 2 - depth) & 1
            value[going] = value[going] << 1 | self._decide(active, context, weights, going, node, bits)
        return value

    def _decide(self, active, context, weights, going, node, bits):
        """One decision in each of the lanes ``active[going]``: predict, code, learn. Returns the bits."""
        coarse = self.coarse[node]
        states = context[:, going] + np.stack([coarse, coarse, node])
        sets = weights[going] + coarse
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
