"""Packing and unpacking fields of varying width, most significant bit first, vectorized."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.codecs.base import broken


def pack(values: np.ndarray, widths: np.ndarray) -> bytes:
    """Fields ``values[i]`` of ``widths[i]`` bits (0..32) one after the other, padded with zeros to a byte."""
    values, widths = np.asarray(values, np.int64).ravel(), np.asarray(widths, np.int64).ravel()
    owner = np.repeat(np.arange(values.size), widths)
    place = np.arange(owner.size) - (np.cumsum(widths) - widths)[owner]
    return np.packbits(((values[owner] >> (widths[owner] - 1 - place)) & 1).astype(np.uint8)).tobytes()


def unpack(data: bytes, widths: np.ndarray) -> np.ndarray:
    """int64 fields of the given widths. Errors: ProgramError when ``data`` is not exactly as long as they need."""
    widths = np.asarray(widths, np.int64).ravel()
    if len(data) != packed_bytes(int(widths.sum())):
        raise broken("its length does not fit its field widths")
    owner = np.repeat(np.arange(widths.size), widths)
    place = np.arange(owner.size) - (np.cumsum(widths) - widths)[owner]
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=owner.size).astype(np.int64)
    values = np.zeros(widths.size, np.int64)
    np.add.at(values, owner, bits << (widths[owner] - 1 - place))
    return values


def packed_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-bits // 8)


def bit_length(values: np.ndarray) -> np.ndarray:
    """Bits needed by values 0..255, int64: 0 for 0, 8 for 128 and above."""
    return BIT_LENGTH[values]


BIT_LENGTH = np.array([int(v).bit_length() for v in range(256)], np.int64)


class Sections:
    """Cuts a payload into consecutive parts. Errors: ProgramError when one would lie beyond the end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise broken("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)
