"""The sections of a stored sparse matrix (`eie`): zero-padded arrays, pointers of one processing element, lines of
entries."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.errors import ProgramError

LINE_BITS = 64
BASE_BITS = 20  # of a pointer word's begin
MOST_LENGTH_BITS = LINE_BITS - BASE_BITS


def broken(what: str) -> ProgramError:
    """The error of bytes that no encoder wrote."""
    return ProgramError(f"a sparse matrix is broken: {what}", remedy="check shape and address of the operand")


class Sections:
    """Cuts the bytes into consecutive parts. Errors: ProgramError when one would lie beyond the end."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise broken("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.data[self.at :]


def padded(count: int) -> int:
    """Bytes of a section that holds so many."""
    return -(-count // 8) * 8


def columns_per_word(length_bits: int) -> int:
    """Columns whose lengths one pointer word holds."""
    return MOST_LENGTH_BITS // length_bits


def words(columns: int, length_bits: int) -> int:
    """Pointer words of one processing element."""
    return -(-columns // columns_per_word(length_bits))


def section(array: np.ndarray) -> bytes:
    """An array's bytes and zeros up to a multiple of 8."""
    data = array.tobytes()
    return data + bytes(padded(len(data)) - len(data))


def take(sections: Sections, dtype: np.dtype, count: int) -> np.ndarray:
    """``count`` items of the next section. Errors: ProgramError where it is not there or its padding is not zero."""
    data = sections.take(padded(dtype.itemsize * count))
    if any(data[dtype.itemsize * count :]):
        raise broken("its padding is not zero")
    return np.frombuffer(data, dtype, count)


def write_banks(counts: np.ndarray, pointer_bytes: int) -> bytes:
    """Pointers of columns with so many entries each: those of even columns, then those of odd ones."""
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(f"<u{pointer_bytes}")
    return section(np.concatenate([pointers[::2], pointers[1::2]]))


def read_banks(sections: Sections, columns: int, pointer_bytes: int, total: int) -> np.ndarray:
    """int64[columns], the inverse. Errors: ProgramError where the pointers do not ascend from 0 to ``total``."""
    banks = take(sections, np.dtype(f"<u{pointer_bytes}"), columns + 1).astype(np.int64)
    pointers, even = np.empty(columns + 1, np.int64), (columns + 2) // 2
    pointers[::2], pointers[1::2] = banks[:even], banks[even:]
    counts = np.diff(pointers)
    if pointers[0] or counts.min() < 0 or pointers[-1] != total:
        raise broken("its pointers do not ascend to its number of entries")
    return counts


def write_words(counts: np.ndarray, length_bits: int) -> bytes:
    """Words of a begin and the lengths of the columns from there on, each of ``length_bits``."""
    lengths = np.zeros((words(counts.size, length_bits), columns_per_word(length_bits)), np.uint64)
    lengths.ravel()[: counts.size] = counts
    total = lengths.sum(1)
    return ((np.cumsum(total) - total) | (lengths << _length_places(length_bits)).sum(1)).astype("<u8").tobytes()


def read_words(sections: Sections, columns: int, length_bits: int, total: int) -> np.ndarray:
    """int64[columns], the inverse. Errors: ProgramError where begins, lengths and ``total`` disagree."""
    data = sections.take(8 * words(columns, length_bits))
    lengths = (np.frombuffer(data, "<u8")[:, None] >> _length_places(length_bits)) & np.uint64((1 << length_bits) - 1)
    counts = lengths.astype(np.int64).ravel()[:columns]
    if (
        total >= 1 << BASE_BITS
        or counts.max() > total
        or counts.sum() != total
        or write_words(counts, length_bits) != data
    ):
        raise broken("the begins and lengths of its columns disagree")
    return counts


def write_lines(codes: np.ndarray, runs: np.ndarray, code_bits: int, entry_bits: int) -> bytes:
    """Lines of 64 bits, entries from the low bits on, the run above the code."""
    per_line = LINE_BITS // entry_bits
    lines = np.zeros((-(-codes.size // per_line), per_line), np.uint64)
    lines.ravel()[: codes.size] = codes | runs << code_bits
    return (lines << _entry_places(entry_bits)).sum(1, dtype=np.uint64).astype("<u8").tobytes()


def read_lines(sections: Sections, code_bits: int, entry_bits: int, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(codes, runs) int64[total], the inverse. Errors: ProgramError where bits behind the last entry are set."""
    data = sections.take(8 * -(-total // (LINE_BITS // entry_bits)))
    fields = (np.frombuffer(data, "<u8")[:, None] >> _entry_places(entry_bits)) & np.uint64((1 << entry_bits) - 1)
    entries = fields.astype(np.int64).ravel()[:total]
    codes, runs = entries & ((1 << code_bits) - 1), entries >> code_bits
    if write_lines(codes, runs, code_bits, entry_bits) != data:
        raise broken("bits behind its entries are not zero")
    return codes, runs


def _length_places(length_bits: int) -> np.ndarray:
    return np.uint64(BASE_BITS) + np.arange(columns_per_word(length_bits), dtype=np.uint64) * np.uint64(length_bits)


def _entry_places(entry_bits: int) -> np.ndarray:
    return np.arange(LINE_BITS // entry_bits, dtype=np.uint64) * np.uint64(entry_bits)
