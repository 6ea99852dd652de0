"""Context-adaptive binary arithmetic code of weights: every decision predicted by neighbours, predictions mixed,
everything learned on the way.

A folded code is a flag (is it other than the default?), then its rank among the others, most significant bit first.
Both are decisions with a probability of their own; what the table excludes is not coded. The flag is predicted by four
adaptive probabilities, chosen by
  1. whether the last two weights of the row, the two above, and the one a plane (``inner``) before are others,
  2. the plane (``column // inner``): the channel of an OIHW kernel or the column of a matrix,
  3. how many of the last eight in the row, in the column and at this position of the planes are others,
  4. the position in the plane and the weight above;
a bit of the rank by three: of its node of the tree; and this with the *level* (side of the default and distance from
it) of the weight before, or of the one above. They are mixed in the logistic domain by weights that learn on line (the
paq/lpaq family: Mahoney, 2005; contexts and integer arithmetic are ours). A probability learns at 1 / observations down
to 1 / 1024, so it starts fast. Nothing is known at the beginning: there are no tables.

All arithmetic is on integers, so that decoders agree to the bit; the memory of the decoder is bounded: positions count
modulo 4096 columns and 512 places in a plane, whatever the matrix. This file is the definition, weights.cc the same
sooner. Payload: the bytes of the arithmetic coder."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec, context_tables, weights_native
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.codecs.weights import Coded, Frame, Reader, WeightCodec
from tvm_ergo.target.events import Event

WINDOW, PLACES = 4096, 512
PATTERNS, COUNTS, LEVELS, NODES = 32, 729, 7, 256
FLAG_INPUTS, VALUE_INPUTS = 4, 3
FLAG_SETS, DEPTHS, SURE = 3, 8, (4, 16, 64)
FIRST_FLAG_WEIGHT, FIRST_VALUE_WEIGHT = 19661, 24030  # 0.30 and 0.37 in units of 2**-16
LEARNING = 20  # weight step, 0.005 in the mixer's units
LIMIT = 1023  # observations after which a probability adapts at a constant rate
LOWEST, HIGHEST = 64, (1 << 22) - 64  # of a probability in units of 2**-22
DOMAIN = context_tables.DOMAIN
_FIRST = [PATTERNS, PATTERNS + WINDOW, PATTERNS + WINDOW + COUNTS, PATTERNS + WINDOW + COUNTS + 2 * PLACES]
STATES = _FIRST[-1] + NODES * (1 + 2 * LEVELS)
_ONES = [bin(byte).count("1") for byte in range(256)]


class CabacCodec(WeightCodec):
    """A step is one decision: one for a default, up to nine for another weight."""

    codec: ClassVar[Codec] = Codec.CABAC
    COST: ClassVar[SymbolCost] = SymbolCost(
        1.0,
        {
            Event.LOCAL_READ_BYTE: 4 * 4 + 4 * 2,
            Event.LOCAL_WRITE_BYTE: 4 * 4 + 4 * 2,
            Event.LUT_READ: 5,
            Event.MUL_8X8: 4 * 2 * 4,
            Event.ALU_8: 16,
        },
        "assumption: one decision per lane and cycle, pipelined; per decision four 4-byte states and four 2-byte "
        "weights read and written, four stretch and one "
        "squash look-up, eight 16 x 16 bit products (four 8 x 8 each)",
    )

    def encode(self, folded, frame, lanes):
        return b"", [Coded(*encode_matrix(folded[lane], frame)) for lane in lanes]

    def decode(self, reader: Reader, frame: Frame, shape):
        lanes = [
            decode_matrix(payload, frame, (lane.stop - lane.start, shape[1]))
            for lane, payload in reader.lanes(shape[0])
        ]
        return np.concatenate([folded for folded, _ in lanes]), [decisions for _, decisions in lanes]

    def most_symbols(self, size_bytes: int) -> int:
        """No decision takes less than 0.00048 bits: its probability is 65514 / 65536 at most."""
        return (8 * size_bytes + 64) * 2100

    def state_bytes(self) -> int:
        """Probabilities of 4 bytes, mixing weights of 2, the histories of columns and places."""
        return (
            4 * STATES + 2 * (FLAG_SETS * FLAG_INPUTS + DEPTHS * (len(SURE) + 1) * VALUE_INPUTS) + 2 * WINDOW + PLACES
        )


@cache
def tables(entries: int, default: int) -> list[np.ndarray]:
    """int32: stretch[4096] of a probability's upper 12 bits, squash[4095] to 16 bits, rate[LIMIT + 1], level[256] of
    folded codes."""
    shared = context_tables.tables(0)
    rank = np.arange(255)
    distance = np.abs(2 * (rank - default) + 1)  # from the default, doubled
    level = np.concatenate([[0], 1 + 2 * np.minimum(2, 2 * distance // entries) + (rank >= default)])
    rate = 2 * 65536 // (2 * np.arange(LIMIT + 1) + 3)
    return [np.ascontiguousarray(table, np.int32) for table in (shared["stretch"], shared["squash"], rate, level)]


def encode_matrix(folded: np.ndarray, frame: Frame) -> tuple[bytes, int]:
    """Payload and decisions of folded uint8[rows, columns]."""
    if weights_native.library():
        return weights_native.cabac_encode(folded, frame.inner, frame.entries - 1, tables(frame.entries, frame.default))
    coder = _Encoder()
    matrix = _Matrix(folded.shape, frame, coder, folded)
    matrix.walk()
    return coder.finish(), matrix.decisions


def decode_matrix(payload: bytes, frame: Frame, shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """Folded uint8 of that shape and the decisions. Any payload gives some codes of the table."""
    if weights_native.library():
        return weights_native.cabac_decode(
            payload, shape, frame.inner, frame.entries - 1, tables(frame.entries, frame.default)
        )
    matrix = _Matrix(shape, frame, _Decoder(payload), None)
    matrix.walk()
    return matrix.folded, matrix.decisions


class _Matrix:
    """Model and walk. Encoding and decoding differ in where a decision's bit comes from."""

    def __init__(self, shape, frame: Frame, coder, known: np.ndarray | None):
        self.shape, self.inner, self.values, self.coder = shape, frame.inner, frame.entries - 1, coder
        self.folded, self.known = np.zeros(shape, np.uint8), known
        self.bits = (self.values - 1).bit_length() if self.values > 1 else 0
        self.stretch, self.squash, self.rate, self.level = (
            table.tolist() for table in tables(frame.entries, frame.default)
        )
        self.states = [1 << 31] * STATES  # probability of a one << 10 | observations
        self.flag_weights = [[FIRST_FLAG_WEIGHT] * FLAG_INPUTS for _ in range(FLAG_SETS)]
        self.value_weights = [
            [[FIRST_VALUE_WEIGHT] * VALUE_INPUTS for _ in range(len(SURE) + 1)] for _ in range(DEPTHS)
        ]
        self.columns, self.up = (
            [0] * WINDOW,
            [0] * WINDOW,
        )  # bit k: whether the weight k + 1 rows above was another; level of the weight above
        self.decisions = 0

    def walk(self) -> None:
        for row in range(self.shape[0]):
            self._row(row)

    def _row(self, row: int) -> None:
        left, left_level, planes = 0, 0, [0] * PLACES
        weights = self.flag_weights[(row >= 2) + (row >= 16)]
        for column in range(self.shape[1]):
            channel, tap = divmod(column, self.inner)
            at, tap_at = column % WINDOW, tap % PLACES
            above, plane = self.columns[at], planes[tap_at]
            inputs = [
                left & 3 | (above & 3) << 2 | (plane & 1) << 4,
                _FIRST[0] + channel % WINDOW,
                _FIRST[1] + (_ONES[left] * 9 + _ONES[above]) * 9 + _ONES[plane],
                _FIRST[2] + 2 * tap_at + (above & 1),
            ]
            code = None if self.known is None else int(self.known[row, column])
            other = self._decide(inputs, weights, None if code is None else int(code > 0))
            value = 1 + self._value(left_level, self.up[at], None if code is None else code - 1) if other else 0
            self.folded[row, column] = value
            left, left_level = (left << 1 | other) & 255, self.level[value]
            self.columns[at], planes[tap_at], self.up[at] = (
                (above << 1 | other) & 255,
                (plane << 1 | other) & 255,
                left_level,
            )

    def _value(self, left_level: int, up_level: int, known: int | None) -> int:
        node, value, first = 1, 0, _FIRST[3]
        for depth in range(self.bits):
            k, bit = self.bits - 1 - depth, 0
            if (value << 1 | 1) << k < self.values:
                inputs = [
                    first + node,
                    first + NODES * (1 + left_level) + node,
                    first + NODES * (1 + LEVELS + up_level) + node,
                ]
                seen = self.states[inputs[0]] & 1023
                bit = self._decide(
                    inputs,
                    self.value_weights[depth][sum(seen >= bound for bound in SURE)],
                    None if known is None else known >> k & 1,
                )
            node, value = node << 1 | bit, value << 1 | bit
        return value

    def _decide(self, inputs: list[int], weights: list[int], bit: int | None) -> int:
        """One decision: predict, code, learn. Returns the bit."""
        self.decisions += 1
        x = [self.stretch[self.states[i] >> 20] for i in inputs]
        mixed = min(max(sum(w * s for w, s in zip(weights, x)) >> 16, -DOMAIN), DOMAIN)
        p1 = self.squash[mixed + DOMAIN]
        bit = self.coder.code(p1, bit)
        error = ((bit << 16) - p1) * LEARNING
        for n, i in enumerate(inputs):
            weights[n] += (x[n] * error + (1 << 19)) >> 20
            p, seen = self.states[i] >> 10, self.states[i] & 1023
            p += ((bit << 22) - p) * self.rate[seen] >> 16
            self.states[i] = min(max(p, LOWEST), HIGHEST) << 10 | min(seen + 1, LIMIT)
        return bit


class _Interval:
    """The carry-less 32-bit interval of `arithmetic`, for one lane."""

    def __init__(self):
        self.low, self.high = 0, 0xFFFFFFFF

    def middle(self, p1: int) -> int:
        return self.low + ((self.high - self.low) * p1 >> 16)

    def take(self, p1: int, bit: int) -> None:
        """Narrows the interval; `settled` bytes are then shifted out."""
        middle = self.middle(p1)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while (self.low ^ self.high) >> 24 == 0:
            self.settled()
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, self.high << 8 & 0xFFFFFFFF | 0xFF


class _Encoder(_Interval):
    def __init__(self):
        super().__init__()
        self.out = bytearray()

    def settled(self) -> None:
        self.out.append(self.high >> 24)

    def code(self, p1: int, bit: int) -> int:
        self.take(p1, bit)
        return bit

    def finish(self) -> bytes:
        return bytes(self.out) + (bytes([(self.low >> 24) + 1]) if self.low else b"")


class _Decoder(_Interval):
    """Reads zeros beyond the end, so it never fails."""

    def __init__(self, data: bytes):
        super().__init__()
        self.data, self.at, self.word = data, 4, int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def settled(self) -> None:
        byte = self.data[self.at] if self.at < len(self.data) else 0
        self.word, self.at = self.word << 8 & 0xFFFFFFFF | byte, self.at + 1

    def code(self, p1: int, bit: None) -> int:
        bit = int(self.word <= self.middle(p1))
        self.take(p1, bit)
        return bit
