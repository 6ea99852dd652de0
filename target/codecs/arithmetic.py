"""Binary arithmetic coding in many lanes at once: each lane has its own interval and its own byte stream.

Carry-less coder with a 32-bit interval [low, high] (as in the public-domain lpaq family, here over NumPy lanes): the
interval is divided in proportion to a 16-bit probability, equal leading bytes are shifted out. One byte at most is
spent on flushing, trailing zero bytes are not stored: a decoder reads zeros beyond the end of a stream."""

from __future__ import annotations

import numpy as np

TOP = 24
WORD = 0xFFFFFFFF
LONGEST_STREAM = (1 << 16) - 1  # bytes of a lane: its length is a u16


class LaneEncoder:
    """``code(lanes, p1, bits)`` codes one bit in each of the lanes; ``finish()`` gives every lane's bytes."""

    def __init__(self, lanes: int):
        self.low, self.high = np.zeros(lanes, np.int64), np.full(lanes, WORD, np.int64)
        self.lanes: list[np.ndarray] = []
        self.bytes: list[np.ndarray] = []

    def code(self, lanes: np.ndarray, p1: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """lanes: distinct indices; p1: probability of a one, 1..65535; bits: 0 or 1. Returns bits."""
        low, high = self.low[lanes], self.high[lanes]
        low, high = divide(low, high, p1, bits)
        while (equal := (low ^ high) >> TOP == 0).any():
            self.lanes.append(lanes[equal])
            self.bytes.append((high[equal] >> TOP).astype(np.uint8))
            low, high = shifted(low, high, equal)
        self.low[lanes], self.high[lanes] = low, high
        return bits

    def finish(self) -> list[bytes]:
        """Flushes and returns one stream per lane."""
        count = self.low.size
        owner = np.concatenate([*self.lanes, np.arange(count)]).astype(np.int64)
        last = np.where(self.low == 0, 0, (self.low >> TOP) + 1).astype(np.uint8)
        content = np.concatenate([*self.bytes, last])[np.argsort(owner, kind="stable")].tobytes()
        ends = np.cumsum(np.bincount(owner, minlength=count)).tolist()
        return [content[begin:end].rstrip(b"\0") for begin, end in zip([0, *ends], ends)]


class LaneDecoder:
    """The mirror image: ``code(lanes, p1)`` returns the bits. Reads zeros beyond a stream's end, so it never fails."""

    def __init__(self, streams: list[bytes]):
        sizes = np.array([len(s) for s in streams], np.int64)
        self.ends = np.cumsum(sizes)
        self.at = self.ends - sizes
        self.data = np.frombuffer(b"".join(streams) + b"\0", np.uint8).astype(np.int64)
        lanes = np.arange(len(streams))
        self.low, self.high = np.zeros(lanes.size, np.int64), np.full(lanes.size, WORD, np.int64)
        self.word = np.zeros(lanes.size, np.int64)
        for _ in range(4):
            self.word = self.word << 8 | self._next(lanes)

    def _next(self, lanes: np.ndarray) -> np.ndarray:
        at, ends = self.at[lanes], self.ends[lanes]
        self.at[lanes] = at + 1
        return np.where(at < ends, self.data[np.minimum(at, self.data.size - 1)], 0)

    def code(self, lanes: np.ndarray, p1: np.ndarray, bits: None = None) -> np.ndarray:
        low, high, word = self.low[lanes], self.high[lanes], self.word[lanes]
        bits = (word <= low + ((high - low) * p1 >> 16)).astype(np.int64)
        low, high = divide(low, high, p1, bits)
        while (equal := (low ^ high) >> TOP == 0).any():
            word[equal] = word[equal] << 8 & WORD | self._next(lanes[equal])
            low, high = shifted(low, high, equal)
        self.low[lanes], self.high[lanes], self.word[lanes] = low, high, word
        return bits


def divide(low, high, p1, bits):
    """The part of [low, high] that stands for ``bits``; never empty, for p1 in 1..65535 and low < high."""
    middle = low + ((high - low) * p1 >> 16)
    return np.where(bits, low, middle + 1), np.where(bits, middle, high)


def shifted(low, high, equal):
    """Where ``equal``, both bounds shifted left by the byte that they share."""
    return np.where(equal, low << 8 & WORD, low), np.where(equal, high << 8 & WORD | 0xFF, high)
