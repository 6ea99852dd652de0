"""What every weight codec is: a matrix of codes into a table of values in, one self-describing stream out.

`WeightCodes` holds codes uint8[rows, columns] (rows: output channels, in memory order) and the table of their values.
The stream, little-endian,

    u8  codec (`Codec`)
    u8  version << 4 | form of the table (`TableForm`)
    varint rows, columns, inner
    table
    u8  default code, then what the codec's own tables need
    u8  lanes - 1, varint payload bytes of each lane but the last, the payloads

counts everything: nothing but the stream is needed to get the weights back. Lanes are contiguous groups of rows; each
is decoded by itself, so that as many decoders can work side by side. A *folded* code is 0 for the default (the most
frequent code: zero in a pruned tensor) and counts the others from 1 in the order of their values: that is what the
codecs see.

A decoder never trusts a stream: the matrix must have the size the reader asks for, or, if it asks for none, at most
``MAX_SYMBOLS`` weights and no more than the codec can make out of so many bytes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import ClassVar

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.base import SymbolCost
from tvm_ergo.target.errors import InputError, ProgramError

VERSION = 1
MAX_LANES = 16
MAX_SYMBOLS = 1 << 27
MAX_EXTENT = 1 << 32  # of rows, columns, inner


class TableForm(IntEnum):
    """How the table of values stands in a stream."""

    I8_LIST = 0  # u8 entries - 1, the values
    I8_BITMAP = 1  # one bit for each of -128..127 that is in the table
    I8_RANGE = 2  # first and last of consecutive values
    I16_LIST = 3
    F32_LIST = 4


_LISTS = {TableForm.I8_LIST: np.dtype("<i1"), TableForm.I16_LIST: np.dtype("<i2"), TableForm.F32_LIST: np.dtype("<f4")}


@dataclass(frozen=True, eq=False)
class WeightCodes:
    """codes : uint8[rows, columns]. table : int8, int16 or float32[1..256], the value of each code, ascending. inner :
    columns that belong together (the positions of a kernel plane, or the channels of a tap): where the context coder
    looks for neighbours. Errors: InputError."""

    codes: np.ndarray
    table: np.ndarray
    inner: int = 1

    def __post_init__(self):
        table, codes = self.table, self.codes
        if table.ndim != 1 or not 1 <= table.size <= 256 or table.dtype.newbyteorder("<") not in _LISTS.values():
            raise InputError(
                "a table of weights",
                required="int8, int16 or float32[1..256]",
                available=f"{table.dtype}{list(table.shape)}",
            )
        if not np.isfinite(table).all() or (np.diff(table.astype(np.float64)) <= 0).any():
            raise InputError("a table of weights is not finite, ascending and without repetition")
        if codes.ndim != 2 or not codes.size or codes.dtype != np.uint8 or int(codes.max()) >= table.size:
            raise InputError(
                "codes of weights",
                required=f"uint8[rows, columns] below {table.size}, not empty",
                available=f"{codes.dtype}{list(codes.shape)}",
            )
        if not 1 <= self.inner < MAX_EXTENT:
            raise InputError(f"inner = {self.inner}", required="at least 1")

    @classmethod
    def of(cls, weights: np.ndarray, inner: int = 1) -> WeightCodes:
        """The codes of a dense tensor, its first axis the rows. Errors: InputError with more than 256 distinct
        values."""
        if weights.ndim < 1 or not weights.size:
            raise InputError("weights without elements", available=f"{weights.dtype}{list(weights.shape)}")
        matrix = np.ascontiguousarray(weights).reshape(weights.shape[0], -1)
        if weights.dtype == np.int8:
            present = np.bincount(matrix.view(np.uint8).ravel() ^ 128, minlength=256) > 0
            return cls(
                (np.cumsum(present) - 1).astype(np.uint8)[matrix.view(np.uint8) ^ 128],
                (np.flatnonzero(present) - 128).astype(np.int8),
                inner,
            )
        table, codes = np.unique(matrix, return_inverse=True)
        if table.size > 256:
            raise InputError(
                f"{table.size} distinct weights have no codes",
                required="at most 256",
                remedy="share values (cluster) first",
            )
        return cls(codes.reshape(matrix.shape).astype(np.uint8), table, inner)

    @classmethod
    def with_codebook(cls, codes: np.ndarray, codebook: np.ndarray, inner: int = 1) -> WeightCodes:
        """Codes into a codebook of any order: sorted and renumbered; values that no code uses and repetitions fall
        away."""
        if int(codes.max(initial=0)) >= codebook.size:
            raise InputError(
                "a code beyond the codebook", required=f"below {codebook.size}", available=str(int(codes.max()))
            )
        used = np.unique(codes)
        table, rank = np.unique(codebook[used], return_inverse=True)
        renumber = np.zeros(codebook.size, np.uint8)
        renumber[used] = rank
        return cls(np.ascontiguousarray(renumber[codes].reshape(codes.shape[0], -1)), table, inner)

    def values(self) -> np.ndarray:
        """The weights, [rows, columns] of the table's dtype."""
        return self.table[self.codes]

    @cached_property
    def counts(self) -> np.ndarray:
        """int64[table.size]: how often each code occurs."""
        return np.bincount(self.codes.ravel(), minlength=self.table.size)

    @cached_property
    def default(self) -> int:
        """The most frequent code."""
        return int(np.argmax(self.counts))

    @cached_property
    def folded(self) -> np.ndarray:
        """uint8[rows, columns]: 0 for the default, the others from 1 in their order."""
        code = np.arange(self.table.size)
        return np.where(code == self.default, 0, code + (code < self.default)).astype(np.uint8)[self.codes]

    @property
    def entropy_bits(self) -> float:
        """Bits of all codes at their order-0 entropy: no codec without contexts goes below."""
        used = self.counts[self.counts > 0]
        return float((used * np.log2(self.codes.size / used)).sum())


def unfolded(folded: np.ndarray, default: int) -> np.ndarray:
    """The inverse of `WeightCodes.folded`."""
    code = np.arange(256)
    return np.where(code == 0, default, code - (code <= default)).astype(np.uint8)[folded]


@dataclass(frozen=True)
class Coded:
    """One lane's payload and the cycles its decoder is busy."""

    payload: bytes
    steps: int


@dataclass(frozen=True)
class Frame:
    """What a codec knows of the matrix: entries of the table, the folded code that ``values`` start from, where
    neighbours are."""

    entries: int
    default: int
    inner: int


class WeightCodec(ABC):
    """Stateless; one instance per codec. COST : events and cycles of one *step*; a step is what one decoder lane does
    in a cycle, and how many steps a stream takes is known when it is encoded (``CodedWeights.steps``)."""

    codec: ClassVar[Codec]
    COST: ClassVar[SymbolCost]

    @abstractmethod
    def encode(self, folded: np.ndarray, frame: Frame, lanes: list[slice]) -> tuple[bytes, list[Coded]]:
        """Tables, and the payload of each lane's rows of folded uint8[rows, columns]."""

    @abstractmethod
    def decode(self, reader: Reader, frame: Frame, shape: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
        """The inverse: tables and lanes off the reader. Folded uint8 of that shape, and the steps of each lane. Errors:
        ProgramError."""

    @abstractmethod
    def most_symbols(self, size_bytes: int) -> int:
        """Most weights that so many bytes can stand for."""

    @abstractmethod
    def state_bytes(self) -> int:
        """Memory a decoder lane needs: its tables at their largest."""


@dataclass(frozen=True)
class CodedWeights:
    """A stream and what decoding it takes. steps : cycles of the busiest lane. shape : of the matrix. dense_bytes :
    uncoded."""

    data: bytes
    codec: Codec
    shape: tuple[int, int]
    lanes: int
    steps: int
    total_steps: int
    dense_bytes: int

    @property
    def symbols_per_cycle(self) -> float:
        """Weights decoded per cycle, all lanes together."""
        return math.prod(self.shape) / max(1, self.steps)

    @property
    def bits_per_weight(self) -> float:
        """Everything counted."""
        return 8 * len(self.data) / math.prod(self.shape)


def lane_slices(rows: int, lanes: int) -> list[slice]:
    """The rows of each lane, as even as possible."""
    return [slice(i * rows // lanes, (i + 1) * rows // lanes) for i in range(lanes)]


def encode(weights: WeightCodes, codec: Codec, lanes: int = 1) -> CodedWeights:
    """The stream of ``weights`` in at most ``lanes`` lanes (no more than rows). Errors: InputError."""
    from tvm_ergo.target.codecs.weights_registry import weight_codec

    if not 1 <= lanes <= MAX_LANES:
        raise InputError(f"{lanes} lanes of a weight decoder", required=f"1 to {MAX_LANES}")
    rows, columns = weights.codes.shape
    lanes = min(lanes, rows)
    frame = Frame(weights.table.size, weights.default, weights.inner)
    tables, coded = weight_codec(codec).encode(weights.folded, frame, lane_slices(rows, lanes))
    form, table = _table_bytes(weights.table)
    head = (
        bytes([codec, VERSION << 4 | form])
        + varint(rows)
        + varint(columns)
        + varint(weights.inner)
        + table
        + bytes([weights.default])
    )
    lengths = bytes([lanes - 1]) + b"".join(varint(len(lane.payload)) for lane in coded[:-1])
    data = head + tables + lengths + b"".join(lane.payload for lane in coded)
    return CodedWeights(
        data,
        codec,
        (rows, columns),
        lanes,
        max(lane.steps for lane in coded),
        sum(lane.steps for lane in coded),
        weights.codes.size * weights.table.itemsize,
    )


def decode(
    data: bytes, shape: tuple[int, int] | None = None, max_symbols: int = MAX_SYMBOLS
) -> tuple[WeightCodes, CodedWeights]:
    """The weights of a stream, and what decoding took. shape : the matrix that is expected. Errors: ProgramError for
    anything no encoder wrote."""
    from tvm_ergo.target.codecs.weights_registry import WEIGHT_CODECS

    reader = Reader(data)
    number, version, form = reader.byte(), *divmod(reader.byte(), 16)
    if number not in WEIGHT_CODECS or version != VERSION or form not in TableForm._value2member_map_:
        raise broken("its header names no codec, version or table", f"codec {number}, version {version}, table {form}")
    codec, (rows, columns, inner) = WEIGHT_CODECS[Codec(number)], (reader.varint() for _ in range(3))
    limit = min(max_symbols, codec.most_symbols(len(data))) if shape is None else math.prod(shape)
    if min(rows, columns, inner) < 1 or rows * columns > limit or shape is not None and (rows, columns) != tuple(shape):
        raise broken(
            "its matrix has the wrong size",
            f"{rows} x {columns}",
            "at most " + str(limit) + " weights" if shape is None else f"{shape[0]} x {shape[1]}",
        )
    table = _read_table(reader, TableForm(form))
    default = reader.byte()
    if default >= table.size:
        raise broken("its default is not in its table")
    folded, steps = codec.decode(reader, Frame(table.size, default, inner), (rows, columns))
    if reader.rest():
        raise broken("bytes behind its end")
    codes = unfolded(folded, default)
    if int(codes.max()) >= table.size:
        raise broken("a code beyond its table")
    return WeightCodes(codes, table, inner), CodedWeights(
        bytes(data), codec.codec, (rows, columns), len(steps), max(steps), sum(steps), codes.size * table.itemsize
    )


def _table_bytes(table: np.ndarray) -> tuple[TableForm, bytes]:
    listed = bytes([table.size - 1]) + table.astype(table.dtype.newbyteorder("<")).tobytes()
    if table.dtype != np.int8:
        return (TableForm.I16_LIST if table.dtype.kind == "i" else TableForm.F32_LIST), listed
    if int(table[-1]) - int(table[0]) == table.size - 1:
        return TableForm.I8_RANGE, table[[0, -1]].tobytes()
    if table.size < 32:
        return TableForm.I8_LIST, listed
    return TableForm.I8_BITMAP, np.packbits(np.isin(np.arange(-128, 128), table)).tobytes()


def _read_table(reader: Reader, form: TableForm) -> np.ndarray:
    if form == TableForm.I8_RANGE:
        first, last = np.frombuffer(reader.take(2), np.int8).tolist()
        table = np.arange(first, last + 1).astype(np.int8)
    elif form == TableForm.I8_BITMAP:
        table = (np.flatnonzero(np.unpackbits(np.frombuffer(reader.take(32), np.uint8))) - 128).astype(np.int8)
    else:
        dtype, count = _LISTS[form], reader.byte() + 1
        table = np.frombuffer(reader.take(count * dtype.itemsize), dtype)
    if not table.size or not np.isfinite(table).all() or (np.diff(table.astype(np.float64)) <= 0).any():
        raise broken("its table is empty, not finite or not ascending")
    return table


class Reader:
    """Takes parts off a stream. Errors: ProgramError where one would lie beyond the end."""

    def __init__(self, data: bytes):
        self.data, self.at = bytes(data), 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise broken("it ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        """Seven bits a byte, the lowest first; at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise broken("a number that is too long")

    def lanes(self, rows: int) -> list[tuple[slice, bytes]]:
        """Rows and payload of each lane: all that is left."""
        count = self.byte() + 1
        if count > min(rows, MAX_LANES):
            raise broken("more lanes than rows or decoders", str(count), f"at most {min(rows, MAX_LANES)}")
        sizes = [self.varint() for _ in range(count - 1)]
        payloads = [self.take(size) for size in sizes] + [self.rest()]
        return list(zip(lane_slices(rows, count), payloads))

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first. Errors: InputError above 32 bits."""
    if not 0 <= value < MAX_EXTENT:
        raise InputError(f"{value} does not fit a stream of weights", required="an unsigned 32-bit number")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def broken(what: str, available: str | None = None, required: str | None = None) -> ProgramError:
    """The error of a stream that no encoder wrote."""
    return ProgramError(
        f"a stream of coded weights is broken: {what}",
        available=available,
        required=required,
        remedy="check that the file is complete and was written by this version",
    )
