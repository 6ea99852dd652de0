"""Field types of instructions. Each knows its range, bytes, text and documentation; instructions only list them."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa.operand import MAX_RANK, DType, Operand, contiguous_strides


class Reader:
    """Takes values off a byte string; running out of bytes is a ProgramError naming the offset."""

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None):
        self.data, self.offset, self.end = data, offset, len(data) if end is None else end

    def take(self, size: int) -> bytes:
        if size < 0 or self.offset + size > self.end:
            raise ProgramError(
                "the bytes end too early",
                where=f"offset {self.offset}",
                required=f"{size} more bytes",
                available=f"{self.end - self.offset}",
            )
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def unpack(self, fmt: str) -> tuple:
        """Little-endian values of a struct format."""
        return struct.unpack("<" + fmt, self.take(struct.calcsize("<" + fmt)))


T = TypeVar("T")


class Field(Generic[T]):
    """One field of an instruction: ``normalize`` (range check), ``pack``/``unpack`` (bytes), ``format``/``parse``
    (text). T : what an instruction holds there."""

    doc: str

    if TYPE_CHECKING:
        # `instruction` takes the fields off the class; checkers are told what an instance holds
        def __get__(self, instance: Any, owner: Any) -> T: ...

    def normalize(self, value):
        raise NotImplementedError

    def pack(self, value) -> bytes:
        raise NotImplementedError

    def unpack(self, reader: Reader):
        raise NotImplementedError

    def format(self, value) -> str:
        raise NotImplementedError

    def parse(self, text: str):
        raise NotImplementedError

    def describe(self) -> tuple[str, str]:
        """(encoding, range) for the reference page."""
        raise NotImplementedError


INT_FORMATS = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i"}


@dataclass(frozen=True)
class Int(Field[int]):
    """An integer of a fixed width, ``low <= value <= high``."""

    kind: str
    low: int
    high: int
    doc: str = ""

    def normalize(self, value):
        if isinstance(value, float) and not value.is_integer():
            raise ProgramError(f"{value} is not an integer")
        number = int(value)
        if not self.low <= number <= self.high:
            raise ProgramError(f"value {number} is out of range", required=f"{self.low}..{self.high}")
        return number

    def pack(self, value):
        return struct.pack("<" + INT_FORMATS[self.kind], value)

    def unpack(self, reader):
        return reader.unpack(INT_FORMATS[self.kind])[0]

    def format(self, value):
        return str(value)

    def parse(self, text):
        return parse_int(text)

    def describe(self):
        return self.kind, f"{self.low}..{self.high}"


def U8(doc, low=0, high=255):
    return Int("u8", low, high, doc)


def I8(doc, low=-128, high=127):
    return Int("i8", low, high, doc)


def U16(doc, low=0, high=2**16 - 1):
    return Int("u16", low, high, doc)


def U32(doc, low=0, high=2**32 - 1):
    return Int("u32", low, high, doc)


def I32(doc, low=-(2**31), high=2**31 - 1):
    return Int("i32", low, high, doc)


@dataclass(frozen=True)
class Flag(Field[bool]):
    """A boolean, one byte 0 or 1."""

    doc: str

    def normalize(self, value):
        if value not in (0, 1):
            raise ProgramError(f"value {value!r} is not a flag", required="0 or 1")
        return bool(value)

    def pack(self, value):
        return bytes([value])

    def unpack(self, reader):
        return reader.unpack("B")[0]

    def format(self, value):
        return str(int(value))

    def parse(self, text):
        return parse_int(text)

    def describe(self):
        return "u8", "0, 1"


@dataclass(frozen=True)
class Choice(Field[Any]):
    """A member of an IntEnum, one byte."""

    enum: type[IntEnum]
    doc: str

    def normalize(self, value):
        try:
            return self.enum(value)
        except ValueError:
            raise ProgramError(f"unknown {self.enum.__name__} {value!r}", available=self.describe()[1]) from None

    def pack(self, value):
        return bytes([value])

    def unpack(self, reader):
        return reader.unpack("B")[0]

    def format(self, value):
        return value.name

    def parse(self, text):
        if text not in self.enum.__members__:
            raise ProgramError(f"unknown {self.enum.__name__} {text!r}", available=self.describe()[1])
        return self.enum[text]

    def describe(self):
        return "u8", ", ".join(f"{m.name}={m.value}" for m in self.enum)


@dataclass(frozen=True)
class Ints(Field[tuple[int, ...]]):
    """A tuple of integers: of a fixed ``count``, or (``count`` None) up to ``most``, preceded by a length byte."""

    item: Int
    count: int | None
    doc: str
    most: int = 255

    def normalize(self, value):
        value = tuple(value)
        if self.count is not None and len(value) != self.count or len(value) > self.most:
            raise ProgramError(
                f"{len(value)} values {value}",
                required=f"exactly {self.count}" if self.count is not None else f"at most {self.most}",
            )
        return tuple(self.item.normalize(v) for v in value)

    def pack(self, value):
        length = b"" if self.count is not None else bytes([len(value)])
        return length + b"".join(map(self.item.pack, value))

    def unpack(self, reader):
        count = self.count if self.count is not None else reader.unpack("B")[0]
        return tuple(self.item.unpack(reader) for _ in range(count))

    def format(self, value):
        return ",".join(map(str, value)) or "-"

    def parse(self, text):
        return () if text == "-" else tuple(parse_int(part) for part in text.split(","))

    def describe(self):
        kind, limits = self.item.describe()
        return (
            (f"{kind} x {self.count}", limits)
            if self.count is not None
            else (f"u8 count, {kind} each", f"up to {self.most}; {limits}")
        )


@dataclass(frozen=True)
class Tensor(Field[Operand]):
    """An operand. ``dims`` names its axes (``"N H W C"``; equal letters of one instruction are equal lengths; a number
    is that length; ``"*"`` any shape); ``dtypes`` are the element types allowed; ``out`` marks what the instruction
    writes."""

    dims: str
    dtypes: tuple[DType, ...]
    doc: str
    out: bool = False

    def normalize(self, value):
        if not isinstance(value, Operand):
            raise ProgramError(f"{value!r} is not an Operand")
        return value

    def pack(self, value):
        head = struct.pack("<BBBBI", value.dtype, value.codec, value.rank, 0, value.addr)
        return head + struct.pack(f"<{value.rank}I", *value.shape) + struct.pack(f"<{value.rank}i", *value.strides)

    def unpack(self, reader):
        dtype, codec, rank, zero, addr = reader.unpack("BBBBI")
        if zero or not 1 <= rank <= MAX_RANK:
            raise ProgramError(
                f"operand header has rank {rank}, reserved byte {zero}", required=f"rank 1..{MAX_RANK}, reserved 0"
            )
        return Operand(addr, dtype, reader.unpack(f"{rank}I"), reader.unpack(f"{rank}i"), codec)

    def format(self, value):
        return format_operand(value)

    def parse(self, text):
        return parse_operand(text)

    def describe(self):
        shape = "any shape, rank 1..6" if self.dims == "*" else f"[{', '.join(self.dims.split())}]"
        return "operand", f"{'/'.join(d.name.lower() for d in self.dtypes)} {shape}"


@dataclass(frozen=True)
class Tensors(Field[tuple[Operand, ...]]):
    """A list of operands of any type and shape, preceded by a length byte."""

    doc: str
    out: bool = False
    most: int = 16
    dtypes = tuple(DType)
    dims = "*"

    def normalize(self, value):
        value = tuple(value)
        if len(value) > self.most or not all(isinstance(v, Operand) for v in value):
            raise ProgramError(f"{value!r} is not a list of operands", required=f"at most {self.most}")
        return value

    def pack(self, value):
        return bytes([len(value)]) + b"".join(map(_ANY.pack, value))

    def unpack(self, reader):
        return tuple(_ANY.unpack(reader) for _ in range(reader.unpack("B")[0]))

    def format(self, value):
        return "|".join(map(format_operand, value)) or "-"

    def parse(self, text):
        return () if text == "-" else tuple(map(parse_operand, text.split("|")))

    def describe(self):
        return "u8 count, operand each", f"up to {self.most}, any type and shape"


_ANY = Tensor("*", tuple(DType), "")
_OPERAND = re.compile(
    r"(?P<dtype>[a-z]\w*)@(?P<addr>\w+)\[(?P<shape>[\d,]+)\](\{(?P<strides>[-\d,]+)\})?(/(?P<codec>\w+))?"
)


def format_operand(value: Operand) -> str:
    """``i8@0x100[1,8,8,16]``; strides in braces unless dense; ``/CODEC`` unless RAW."""
    text = f"{value.dtype.name.lower()}@{value.addr:#x}[{','.join(map(str, value.shape))}]"
    if value.strides != contiguous_strides(value.shape, value.dtype.itemsize):
        text += f"{{{','.join(map(str, value.strides))}}}"
    return text if value.codec == Codec.RAW else f"{text}/{value.codec.name}"


def parse_operand(text: str) -> Operand:
    """Inverse of ``format_operand``. Errors: ProgramError."""
    match = _OPERAND.fullmatch(text)
    if not match:
        raise ProgramError(
            f"cannot read operand {text!r}", required="dtype@address[shape]{strides}/codec, e.g. i8@0x100[1,8,8,16]"
        )
    dtype, codec = match["dtype"].upper(), match["codec"] or "RAW"
    if dtype not in DType.__members__ or codec not in Codec.__members__:
        raise ProgramError(
            f"unknown element type or codec in operand {text!r}",
            available=", ".join([d.name.lower() for d in DType] + [c.name for c in Codec]),
        )
    shape = tuple(map(parse_int, match["shape"].split(",")))
    strides = (
        tuple(map(parse_int, match["strides"].split(",")))
        if match["strides"]
        else contiguous_strides(shape, DType[dtype].itemsize)
    )
    return Operand(parse_int(match["addr"]), DType[dtype], shape, strides, Codec[codec])


def parse_int(text: str) -> int:
    """A decimal or 0x integer. Errors: ProgramError."""
    try:
        if len(text) > 40:  # no field is wider than 64 bits; Python cannot even print integers of thousands of digits
            raise ValueError
        return int(text, 0)
    except ValueError:
        raise ProgramError(f"{text[:40]!r} is not an integer of at most 64 bits") from None
