"""Canonical prefix codes of bounded length: their lengths, their codes, their tables in a stream, and reading them.

Lengths are optimal under the bound (package-merge: Larmore and Hirschberg, 1990). Codes of one length count up in the
order of the symbols, shorter ones first, so that the lengths alone define the code. A table of lengths is written as
nibbles, or, where that is shorter, coded by a prefix code of its own with lengths up to 7 (as DEFLATE does, RFC 1951).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ergo.target.codecs import bits, weights_native
from tvm_ergo.target.codecs.weights import Reader, broken

LONGEST = 12
"""Bits of the longest code: a decoder's look-up table has ``2**12`` entries."""
_LONGEST_OF_LENGTHS = 7


def bounded_lengths(counts: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """int64, the code length of every symbol: least total bits with none above ``longest``; 0 for symbols that do not
    occur.

    A single symbol gets one bit. counts : at most ``2**longest`` symbols may occur.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.int64)
    if used.size == 1:
        lengths[used] = 1
    if used.size < 2:
        return lengths
    leaves = sorted((int(counts[s]), (int(s),)) for s in used)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(longest):
        merged = sorted(leaves + packages, key=lambda package: package[0])
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(merged[::2], merged[1::2])]
    for _, symbols in packages[: used.size - 1]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


@dataclass(frozen=True, eq=False)
class PrefixCode:
    """lengths : int64[symbols], 0 where a symbol has no code."""

    lengths: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, longest: int = LONGEST) -> PrefixCode:
        """The best code for symbols that occur so often; of no symbols at all: a code of the first."""
        return cls(bounded_lengths(counts if counts.any() else np.eye(1, len(counts), dtype=np.int64)[0], longest))

    @cached_property
    def longest(self) -> int:
        return int(self.lengths.max())

    @cached_property
    def order(self) -> np.ndarray:
        """Symbols with a code, in the order of their codes."""
        used = np.flatnonzero(self.lengths)
        return used[np.argsort(self.lengths[used], kind="stable")]

    @cached_property
    def codes(self) -> np.ndarray:
        """int64[symbols]."""
        codes, code, before = np.zeros(len(self.lengths), np.int64), 0, 0
        for symbol in self.order.tolist():
            length = int(self.lengths[symbol])
            code = (code + 1 if before else 0) << (length - before)
            codes[symbol], before = code, length
        return codes

    @cached_property
    def lookup(self) -> np.ndarray:
        """int32[2**longest]: by the next bits, symbol << 4 | length."""
        entries = (self.order << 4 | self.lengths[self.order]).astype(np.int32)
        spread = 1 << (self.longest - self.lengths[self.order])
        return np.resize(np.repeat(entries, spread), 1 << self.longest)

    def check(self) -> None:
        """Errors: ProgramError unless every sequence of bits can be read (Kraft's sum is 1) or there is one symbol of
        one bit."""
        used = self.lengths[self.lengths > 0]
        if not (used.size == 1 and used[0] == 1) and (
            not used.size or (1 << (self.longest - used)).sum() != 1 << self.longest
        ):
            raise broken("the lengths of its prefix code are no code")

    def bits_of(self, counts: np.ndarray) -> int:
        return int((self.lengths * counts).sum())

    # ---- in a stream -----------------------------------------------------------------------------------------------
    def table(self) -> bytes:
        """u8 form, then nibbles or coded lengths. How many there are the stream says elsewhere."""
        plain = bits.pack(self.lengths, np.full(len(self.lengths), 4))
        inner = PrefixCode.of(np.bincount(self.lengths, minlength=16), _LONGEST_OF_LENGTHS)
        coded = bits.pack(
            np.concatenate([inner.lengths, inner.codes[self.lengths]]),
            np.concatenate([np.full(16, 3), inner.lengths[self.lengths]]),
        )
        return b"\0" + plain if len(plain) <= len(coded) else b"\1" + coded

    @classmethod
    def read(cls, reader: Reader, symbols: int, longest: int = LONGEST) -> PrefixCode:
        """The code whose table comes next. Errors: ProgramError for lengths that are no code or too long."""
        form = reader.byte()
        if form > 1:
            raise broken("an unknown table of a prefix code")
        if form == 0:
            code = cls(bits.unpack(reader.take(-(-symbols // 2)), np.full(symbols, 4)))
        else:
            inner = cls(bits.unpack(reader.take(6), np.full(16, 3)))
            inner.check()
            source = BitReader(reader.data[reader.at :])
            code = cls(np.array([source.symbol(inner) for _ in range(symbols)], np.int64))
            reader.take(-(-source.at // 8))
        code.check()
        if code.longest > longest:
            raise broken(
                "a prefix code that is too long for the decoder", f"{code.longest} bits", f"at most {longest} bits"
            )
        return code


class BitReader:
    """Symbols off a stream, one at a time, most significant bit first: the definition of what weights.cc does."""

    def __init__(self, data: bytes):
        self.data, self.at, self.end = data + bytes(4), 0, 8 * len(data)

    def symbol(self, code: PrefixCode) -> int:
        """Errors: ProgramError where the bits end."""
        window = int.from_bytes(self.data[self.at >> 3 : (self.at >> 3) + 4].ljust(4, b"\0"), "big")
        entry = int(code.lookup[(window << (self.at & 7) & 0xFFFFFFFF) >> (32 - code.longest)])
        self.at += entry & 15
        if self.at > self.end:
            raise broken("it ends within a symbol")
        return entry >> 4


def pack(values: np.ndarray, widths: np.ndarray) -> bytes:
    """As `bits.pack`, compiled where that was built."""
    return weights_native.pack(values, widths) if weights_native.library() else bits.pack(values, widths)


def check_end(read: int, payload: bytes) -> None:
    """Errors: ProgramError where a payload is not exactly as long as its symbols."""
    if read < 0 or -(-read // 8) != len(payload):
        raise broken("its bits do not end with its last symbol")
