"""Sparse weight matrices of few values, column by column, dealt to processing elements: EIE's format (Han et al., ISCA
2016) and ours.

Row positions are dealt round: position p is slot ``p // pes`` of processing element (PE) ``p % pes``; row r stands at
position ``place[r]`` (r itself where nothing is given). A PE keeps, column after column, an *entry* for each nonzero of
its rows: a code into a table of values and the number of zero slots before it in that column. Zeros beyond what the run
field holds take padding entries: code 0, whose value is 0, with the longest run. Entries fill 64-bit lines from the low
bits on; a column starts behind the last one, anywhere in a line. Where a column starts is said by

* `Pointers.BANKS`, as EIE does: one pointer a column and one more, even columns in one bank and odd ones in another, so
  that a column's begin and end are read at once;
* `Pointers.WORDS`: 64-bit words of a 20-bit begin and as many column lengths as fit. One read serves neighbouring
  columns, and fewer bits are stored.

Bytes, little-endian, each section padded with zeros to 8 bytes: header (pes u16, code_bits, run_bits, length_bits u8
(0: BANKS), pointer bytes u8, flags u8 (1: values of 16 bits, 2: rows are placed), 0 u8, rows u32, columns u32); values
int8 or int16 [2**code_bits], the first 0; places u16[rows] where flagged; entries of each PE u32[pes]; pointers PE
after PE; lines PE after PE."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum

import numpy as np

from tvm_ergo.target.codecs import eie_sections as parts
from tvm_ergo.target.codecs.eie_sections import BASE_BITS, LINE_BITS, Sections, broken, padded, section, take
from tvm_ergo.target.errors import InputError

HEADER = struct.Struct("<HBBBBBBII")
WIDE_VALUES, PLACED = 1, 2
MOST_PES, MOST_CODE_BITS, MOST_ENTRY_BITS, MOST_ROWS = 4096, 8, 16, 1 << 16


class Pointers(Enum):
    """How the beginnings of columns are stored."""

    BANKS = "banks"
    WORDS = "words"


@dataclass(frozen=True)
class EieFormat:
    """pes : processing elements. code_bits, run_bits : of an entry. Errors: InputError for sizes that cannot be
    stored."""

    pes: int = 64
    code_bits: int = 4
    run_bits: int = 4
    pointers: Pointers = Pointers.BANKS

    def __post_init__(self):
        if not (
            1 <= self.pes <= MOST_PES
            and 1 <= self.code_bits <= MOST_CODE_BITS
            and 0 <= self.run_bits
            and self.entry_bits <= MOST_ENTRY_BITS
        ):
            raise InputError(
                f"no such format: {self.pes} processing elements, {self.code_bits} + {self.run_bits} bits an entry",
                required=f"1..{MOST_PES} elements, codes of 1..{MOST_CODE_BITS} bits, entries of at most "
                f"{MOST_ENTRY_BITS}",
            )

    @property
    def entry_bits(self) -> int:
        return self.code_bits + self.run_bits

    @property
    def entries_per_line(self) -> int:
        return LINE_BITS // self.entry_bits

    @property
    def longest_run(self) -> int:
        """Zeros an entry can stand behind."""
        return (1 << self.run_bits) - 1

    def slots(self, rows: int) -> int:
        """Rows of the PE that has most."""
        return -(-rows // self.pes)


@dataclass(frozen=True, eq=False)
class EieMatrix:
    """An encoded matrix taken apart.

    shape : (rows, columns). values : int8 or int16 [2**code_bits]. place : int64[rows]. counts : int64[columns, pes],
    entries of each column on each PE. codes,
    runs : of all entries, PE after PE, column after column. length_bits : of a length in a pointer word. data : the
    bytes."""

    format: EieFormat
    shape: tuple[int, int]
    values: np.ndarray
    place: np.ndarray
    counts: np.ndarray
    codes: np.ndarray
    runs: np.ndarray
    length_bits: int
    data: bytes

    @property
    def entries(self) -> int:
        """Of all PEs, padding included."""
        return int(self.codes.size)

    @property
    def columns_per_word(self) -> int:
        """Columns whose lengths one pointer word holds."""
        return parts.columns_per_word(self.length_bits)

    def dense(self) -> np.ndarray:
        """The matrix, int8 or int16 [rows, columns]."""
        pes, (rows, columns) = self.format.pes, self.shape
        stored = np.zeros((self.format.slots(rows) * pes, columns), self.values.dtype)
        pe, column, slot = entry_places(self.counts, self.runs)
        stored[slot * pes + pe, column] = self.values[self.codes]
        return stored[self.place]


def entry_places(counts: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PE, column and slot of each entry, from entries per column and PE int64[columns, pes] and the zeros before
    each."""
    columns, pes = counts.shape
    lengths = counts.T.ravel()
    owner = np.repeat(np.arange(lengths.size), lengths)
    ends = np.cumsum(runs + 1)
    before = np.concatenate([[0], ends])[np.cumsum(lengths) - lengths]
    return owner // columns, owner % columns, ends - before[owner] - 1


def gaps(
    matrix: np.ndarray, pes: int, place: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """PE, column, slot of each nonzero in stored order, and the zero slots between it and the one before it in its
    column.

    place : position of each row. Errors: InputError for a matrix or places that cannot be stored.
    """
    rows, columns = _checked(matrix)
    place = np.arange(rows) if place is None else np.asarray(place, np.int64)
    positions = -(-rows // pes) * pes
    if place.shape != (rows,) or place.min() < 0 or place.max() >= positions or np.unique(place).size != rows:
        raise InputError("rows are placed wrongly", required=f"{rows} different positions below {positions}")
    stored = np.zeros((positions, columns), bool)
    stored[place] = matrix != 0
    pe, column, slot = np.nonzero(stored.reshape(-1, pes, columns).transpose(1, 2, 0))
    zeros = slot.copy()
    zeros[1:] -= np.where((pe[1:] == pe[:-1]) & (column[1:] == column[:-1]), slot[:-1] + 1, 0)
    return pe, column, slot, zeros


def encode(matrix: np.ndarray, form: EieFormat = EieFormat(), place: np.ndarray | None = None) -> EieMatrix:
    """int8 or int16 [rows, columns] of at most ``2**code_bits - 1`` different nonzero values, stored.

    place : position of each row, different numbers below ``slots(rows) * pes``. Errors: InputError for other values,
    types or places."""
    pe, column, slot, zeros = gaps(matrix, form.pes, place)
    (rows, columns), values = matrix.shape, _table(matrix, form.code_bits)
    place = np.arange(rows) if place is None else np.asarray(place, np.int64)
    row_at = np.zeros(form.slots(rows) * form.pes, np.int64)
    row_at[place] = np.arange(rows)
    padding = zeros >> form.run_bits
    last = np.cumsum(padding + 1) - 1
    codes, runs = (
        np.zeros(pe.size + padding.sum(), np.int64),
        np.full(pe.size + padding.sum(), form.longest_run, np.int64),
    )
    codes[last] = 1 + np.searchsorted(values[1:], matrix[row_at[slot * form.pes + pe], column])
    runs[last] = zeros & form.longest_run
    counts = (
        np.bincount(column * form.pes + pe, padding + 1, columns * form.pes).astype(np.int64).reshape(columns, form.pes)
    )
    whole = (form, (rows, columns), values, place, counts, codes, runs, max(1, int(counts.max()).bit_length()))
    return EieMatrix(*whole, _write(EieMatrix(*whole, b"")))


def worst_case_bytes(shape: tuple[int, int], form: EieFormat, value_bytes: int = 1) -> int:
    """Upper bound of the stored bytes of every matrix of this shape: no column takes more entries than its PE has
    slots."""
    rows, columns = shape
    lines = -(-columns * form.slots(rows) // form.entries_per_line)
    words = (
        8 * parts.words(columns, form.slots(rows).bit_length())
        if form.pointers is Pointers.WORDS
        else padded(4 * (columns + 1))
    )
    return (
        HEADER.size
        + padded(value_bytes << form.code_bits)
        + padded(2 * rows)
        + padded(4 * form.pes)
        + form.pes * (words + 8 * lines)
    )


def decode(data: bytes, shape: tuple[int, int]) -> EieMatrix:
    """The inverse of `encode`, of a matrix of ``shape``. Errors: ProgramError for bytes that no encoder wrote."""
    data = bytes(data)
    sections = Sections(data)
    form, length_bits, pointer_bytes, flags = _read_header(sections, shape)
    rows, columns = shape
    values = take(sections, np.dtype("<i2" if flags & WIDE_VALUES else "i1"), 1 << form.code_bits)
    place = take(sections, np.dtype("<u2"), rows).astype(np.int64) if flags & PLACED else np.arange(rows)
    entries = take(sections, np.dtype("<u4"), form.pes).astype(np.int64).tolist()
    if values[0] or place.max() >= form.slots(rows) * form.pes or np.unique(place).size != rows:
        raise broken("its values or places are not ones that an encoder writes")
    if form.pointers is Pointers.WORDS:
        counts = [parts.read_words(sections, columns, length_bits, total) for total in entries]
    else:
        counts = [parts.read_banks(sections, columns, pointer_bytes, total) for total in entries]
    lines = [parts.read_lines(sections, form.code_bits, form.entry_bits, total) for total in entries]
    if sections.rest():
        raise broken("it does not end with its last line")
    codes, runs = (np.concatenate(fields) for fields in zip(*lines))
    matrix = EieMatrix(
        form, (rows, columns), values, place, np.stack(counts, 1), codes, runs, max(1, length_bits), data
    )
    _check_entries(matrix)
    return matrix


def bits_needed(different_values: int) -> int:
    """Code bits for so many different nonzero values."""
    return max(1, different_values.bit_length())


def _checked(matrix: np.ndarray) -> tuple[int, int]:
    if (
        matrix.ndim != 2
        or min(matrix.shape) < 1
        or matrix.shape[0] > MOST_ROWS
        or matrix.dtype not in (np.int8, np.int16)
    ):
        raise InputError(
            "not a matrix of this format",
            required=f"int8 or int16 [1..{MOST_ROWS}, columns]",
            available=f"{matrix.dtype}{list(matrix.shape)}",
        )
    return matrix.shape


def _table(matrix: np.ndarray, code_bits: int) -> np.ndarray:
    """0, the matrix's nonzero values in order, and values that nothing uses."""
    found = np.unique(matrix)
    found = found[found != 0]
    if found.size >= 1 << code_bits:
        raise InputError(
            f"{found.size} different nonzero weights",
            available=f"{(1 << code_bits) - 1} with codes of {code_bits} bits",
            remedy="cluster the weights to fewer values",
        )
    return np.concatenate([[0], found, np.full((1 << code_bits) - 1 - found.size, np.iinfo(matrix.dtype).max)]).astype(
        matrix.dtype
    )


def _write(m: EieMatrix) -> bytes:
    form, (rows, columns), entries = m.format, m.shape, m.counts.sum(0)
    words, placed = form.pointers is Pointers.WORDS, not np.array_equal(m.place, np.arange(m.shape[0]))
    pointer_bytes = 8 if words else 2 if entries.max() < 1 << 16 else 4
    if words and entries.max() >= 1 << BASE_BITS:
        raise InputError(
            f"{entries.max()} entries on one processing element",
            available=f"{(1 << BASE_BITS) - 1}",
            remedy="more elements, or fewer rows at a time",
        )
    flags = (WIDE_VALUES if m.values.dtype == np.int16 else 0) | (PLACED if placed else 0)
    sections = [
        HEADER.pack(
            form.pes,
            form.code_bits,
            form.run_bits,
            m.length_bits if words else 0,
            pointer_bytes,
            flags,
            0,
            rows,
            columns,
        ),
        section(m.values),
    ]
    sections += [section(m.place.astype("<u2"))] * placed + [section(entries.astype("<u4"))]
    sections += [
        parts.write_words(c, m.length_bits) if words else parts.write_banks(c, pointer_bytes) for c in m.counts.T
    ]
    ends = np.cumsum(entries)
    sections += [
        parts.write_lines(m.codes[end - n : end], m.runs[end - n : end], form.code_bits, form.entry_bits)
        for n, end in zip(entries, ends)
    ]
    return b"".join(sections)


def _read_header(sections: Sections, shape: tuple[int, int]) -> tuple[EieFormat, int, int, int]:
    """Format, bits of a length, bytes of a pointer, flags."""
    pes, code_bits, run_bits, length_bits, pointer_bytes, flags, zero, *found = HEADER.unpack(
        sections.take(HEADER.size)
    )
    if (
        tuple(found) != tuple(shape)
        or zero
        or flags & ~(WIDE_VALUES | PLACED)
        or not 1 <= shape[0] <= MOST_ROWS
        or shape[1] < 1
    ):
        raise broken(f"its header is not one of a matrix of shape {tuple(shape)}")
    try:
        form = EieFormat(pes, code_bits, run_bits, Pointers.WORDS if length_bits else Pointers.BANKS)
    except InputError as error:
        raise broken(error.what) from None
    if pointer_bytes not in ((8,) if length_bits else (2, 4)) or length_bits > parts.MOST_LENGTH_BITS:
        raise broken("its pointers have no such width")
    return form, length_bits, pointer_bytes, flags


def _check_entries(m: EieMatrix) -> None:
    """Every entry stands on a row, padding is as an encoder writes it."""
    pe, column, slot = entry_places(m.counts, m.runs)
    is_row = np.zeros(m.format.slots(m.shape[0]) * m.format.pes, bool)
    is_row[m.place] = True
    position = slot * m.format.pes + pe
    if position.size and (position.max() >= is_row.size or not is_row[position[m.codes > 0]].all()):
        raise broken("an entry stands on no row")
    padding = np.flatnonzero(m.codes == 0)
    at_end = padding + 1 >= m.codes.size
    follows = np.where(at_end, padding, padding + 1)
    if (
        (m.runs[padding] != m.format.longest_run).any()
        or at_end.any()
        or (pe[follows] != pe[padding]).any()
        or (column[follows] != column[padding]).any()
    ):
        raise broken("its padding is not one that an encoder writes")
