"""The base of all instructions: encoding, text, size and range checks and documentation derive from the class body.

An instruction is a class with Field attributes::

    @instruction(0x20, Engine.VECTOR)
    class Relu(Instruction):
        '''One sentence: the meaning.'''
        x = Tensor("*", (DType.I8,), "input")
        out = Tensor("*", (DType.I8,), "output", out=True)

Bytes, little-endian: opcode u8, wait mask u8 (bit e: engine e), length u16 (of the whole instruction), node u32, one
u32 count per engine in the mask in ascending order, then the fields in order. Optional fields stand last and are left
out, all of them, in bytes and text where each has its default."""

from __future__ import annotations

import struct
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from enum import IntEnum
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, dataclass_transform

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa.coded import check_coded, with_coding
from tvm_ergo.target.isa.cost import Cost
from tvm_ergo.target.isa.fields import Field, Reader, Tensor, Tensors, parse_int
from tvm_ergo.target.isa.operand import Operand, overlap
from tvm_ergo.target.isa.output_table import TABLE_DEFAULTS, TABLE_FIELDS, check_table, looked_up, with_table
from tvm_ergo.target.isa.weights import check_weights

HEADER = struct.Struct("<BBHI")


class Engine(IntEnum):
    """What runs side by side; each takes its instructions in program order."""

    TENSOR = 0
    VECTOR = 1
    DMA = 2
    CPU = 3
    SPARSE = 4
    BINARY = 5


OPCODES: dict[int, type[Instruction]] = {}
MNEMONICS: dict[str, type[Instruction]] = {}


class Memory(Protocol):
    """What ``Instruction.execute`` needs of the emulator."""

    def view(self, operand: Operand) -> np.ndarray:
        """A view of the unified memory with the operand's dtype, shape and strides; writable for outputs."""

    def prepared(self, instruction: Instruction, operands: list[Operand], factory):
        """``factory()``, or its earlier result while the bytes of ``operands`` are known not to have changed."""

    def tell(self, instruction: Instruction, dropped: np.ndarray) -> None:
        """An encoder wrote tiles; ``dropped``: int64[tiles], low bits that each lost."""


class Instruction:
    """One macro-instruction. Frozen; all arguments by keyword.

    waits : {Engine: n}: this instruction starts only after n instructions of that engine (counted from the start of the
    program) have completed. node : index into the Program's node table. Errors: ProgramError from the constructor for
    values that cannot be encoded, from ``check`` for broken preconditions."""

    OPCODE: ClassVar[int]
    MNEMONIC: ClassVar[str]
    FIELDS: ClassVar[dict[str, Field]]
    engine: ClassVar[Engine]
    IN_PLACE: ClassVar[tuple[str, ...]] = ()  # inputs whose place the output may take exactly
    DEPENDS_ON_DATA: ClassVar[bool] = False  # what it takes; then ``spent`` says it
    CODED: ClassVar[dict[str, str]] = {}  # operands that may stand compressed, and the field with each one's zero point
    WEIGHTS: ClassVar[tuple[str, ...]] = ()  # operands that may be a stream of coded weights
    OUTPUT_TABLE: ClassVar[bool] = False  # results may go through a table on their way out (`isa.output_table`)
    OPTIONAL: ClassVar[dict[str, object]] = {}  # fields with a default

    waits: dict[Engine, int]
    node: int

    if TYPE_CHECKING:
        lo: int
        hi: int

        def __init__(self, *, waits: dict[Engine, int] = ..., node: int = 0, **fields: Any): ...

    def __post_init__(self):
        for name, spec in self.FIELDS.items():
            object.__setattr__(self, name, _named(name, spec.normalize, getattr(self, name), self.MNEMONIC))
        object.__setattr__(self, "waits", self._checked(self.waits))

    def waiting(self, waits: dict[Engine, int]) -> Instruction:
        """The same with other waits (see the class); its other fields are not looked at again. Errors: ProgramError."""
        found = copy(self)
        object.__setattr__(found, "waits", self._checked(waits))
        return found

    def _checked(self, waits: dict[Engine, int]) -> dict[Engine, int]:
        found = {Engine(e): int(waits[e]) for e in sorted(waits) if waits[e]}
        for value in (self.node, *found.values()):
            if not 0 <= value < 2**32:
                raise ProgramError(f"wait count or node {value} is not an unsigned 32-bit number", where=self.MNEMONIC)
        return found

    # ---- what it touches -------------------------------------------------------------------------------------------
    def operands(self, out: bool) -> list[Operand]:
        """The operands written (``out``) or read, in field order."""
        found: list[Operand] = []
        for name, spec in self.FIELDS.items():
            if isinstance(spec, (Tensor, Tensors)) and spec.out == out:
                value = getattr(self, name)
                found.extend(value if isinstance(spec, Tensors) else (value,))
        return found

    def reads(self) -> list[Operand]:
        return self.operands(out=False)

    def writes(self) -> list[Operand]:
        return self.operands(out=True)

    # ---- preconditions ---------------------------------------------------------------------------------------------
    def check_clip(self) -> None:
        """Precondition of every requantizing instruction."""
        self.require(self.lo <= self.hi, "the clip bounds are exchanged", "lo <= hi", f"lo={self.lo}, hi={self.hi}")

    def require(self, condition: bool, what: str, required: object = None, available: object = None) -> None:
        """Raise ProgramError naming this instruction unless ``condition`` holds."""
        if not condition:
            raise ProgramError(
                what,
                where=self.to_text(),
                required=None if required is None else str(required),
                available=None if available is None else str(available),
            )

    def check(self) -> None:
        """Preconditions: element types, axes, alignment, no self-overlapping output, then the instruction's own rules.

        Errors: ProgramError.
        """
        dims: dict[str, int] = {}
        for name, spec in self.FIELDS.items():
            if isinstance(spec, (Tensor, Tensors)):
                value = getattr(self, name)
                for operand in value if isinstance(spec, Tensors) else (value,):
                    self._check_operand(name, spec, operand, dims)
        self.check_rules(dims)
        if self.OUTPUT_TABLE:
            check_table(self)
        replaceable = [getattr(self, name) for name in self.IN_PLACE]
        for written in self.writes():
            for read in self.reads():
                if not (any(read is r for r in replaceable) and _same_place(read, written)):
                    self.require(
                        not overlap(read, written),
                        "an output overlaps an input",
                        "disjoint bytes"
                        + (f", or exactly the place of {' or '.join(self.IN_PLACE)}" if self.IN_PLACE else ""),
                    )

    def _check_operand(self, name: str, spec, operand: Operand, dims: dict[str, int]) -> None:
        self.require(
            operand.dtype in spec.dtypes,
            f"{name} has the wrong element type",
            "/".join(d.name for d in spec.dtypes),
            operand.dtype.name,
        )
        size = operand.dtype.itemsize
        self.require(
            operand.addr % size == 0 and all(s % size == 0 for s in operand.strides),
            f"{name} is not aligned",
            f"address and strides divisible by {size}",
        )
        if operand.codec != Codec.RAW:
            (check_weights if operand.codec.of_weights else check_coded)(self, name, operand)
        self.require(not spec.out or operand.is_injective, f"{name} is written but overlaps itself")
        if spec.dims == "*":
            return
        letters = spec.dims.split()
        self.require(len(letters) == operand.rank, f"{name} has the wrong rank", spec.dims, operand.shape)
        for letter, length in zip(letters, operand.shape):
            expected = int(letter) if letter.isdigit() else dims.setdefault(letter, length)
            self.require(length == expected, f"{name}'s axis {letter} has the wrong length", expected, operand.shape)

    def check_rules(self, dims: dict[str, int]) -> None:
        """The instruction's own preconditions; ``dims`` are the lengths of the named axes."""

    # ---- meaning and cost ------------------------------------------------------------------------------------------
    def execute(self, memory: Memory) -> None:
        """Do it: read the operands' views, write the outputs' views."""
        raise NotImplementedError(self.MNEMONIC)

    def cost(self, chip) -> Cost:
        """Cycles the engine is busy and events, on ``chip`` (target.chip.Chip); what is expected, where it depends on
        data."""
        raise NotImplementedError(self.MNEMONIC)

    def spent(self, memory: Memory, chip) -> Callable[[], Cost]:
        """Of an instruction that DEPENDS_ON_DATA, right after it was executed: a function that gives what this run of
        it took.

        Errors: MachineError where ``chip`` cannot execute what lies in the memory.
        """
        raise NotImplementedError(self.MNEMONIC)

    def read_again(self, chip) -> int:
        """How often the engine reads an input."""
        return 1

    def values(self, *names: str) -> dict:
        """The named fields as keyword arguments for a kernel."""
        return {name: getattr(self, name) for name in names}

    @property
    def written_fields(self) -> dict[str, Field]:
        """The fields that stand in bytes and text: without the optional ones where all have their defaults."""
        if any(getattr(self, name) != default for name, default in self.OPTIONAL.items()):
            return self.FIELDS
        return {name: spec for name, spec in self.FIELDS.items() if name not in self.OPTIONAL}

    # ---- bytes -----------------------------------------------------------------------------------------------------
    def encode(self) -> bytes:
        """The instruction's bytes. Errors: ProgramError when longer than 65535 bytes."""
        mask = sum(1 << engine for engine in self.waits)
        body = b"".join(struct.pack("<I", n) for n in self.waits.values())
        body += b"".join(spec.pack(getattr(self, name)) for name, spec in self.written_fields.items())
        length = HEADER.size + len(body)
        if length > 0xFFFF:
            raise ProgramError(f"instruction of {length} bytes", where=self.MNEMONIC, available="65535 bytes")
        return HEADER.pack(self.OPCODE, mask, length, self.node) + body

    # ---- text ------------------------------------------------------------------------------------------------------
    def to_text(self) -> str:
        """One line of assembler."""
        parts = [self.MNEMONIC] + [
            f"{name}={spec.format(getattr(self, name))}" for name, spec in self.written_fields.items()
        ]
        if self.waits:
            parts.append("waits=" + ",".join(f"{engine.name}:{n}" for engine, n in self.waits.items()))
        return " ".join(parts + ([f"node={self.node}"] if self.node else []))

    __str__ = to_text


@dataclass_transform(kw_only_default=True, frozen_default=True)
def instruction(opcode: int, engine: Engine, mnemonic: str | None = None):
    """Class decorator: collects the Field attributes, makes the class a frozen keyword-only dataclass and registers
    it."""

    def register(cls: Any) -> Any:
        fields = {name: value for name, value in list(cls.__dict__.items()) if isinstance(value, Field)}
        for name in fields:
            delattr(cls, name)
        if cls.OUTPUT_TABLE:
            fields |= TABLE_FIELDS
            cls.OPTIONAL = TABLE_DEFAULTS
            cls.execute, cls.cost = looked_up(cls.execute), with_table(cls.cost)
            for name, default in TABLE_DEFAULTS.items():
                setattr(cls, name, default)
        cls.__annotations__ = {**{name: object for name in fields}, "waits": dict, "node": int}
        cls.waits = dataclass_field(default_factory=dict)
        cls.node = 0
        cls = dataclass(frozen=True, kw_only=True, repr=False, eq=True)(cls)
        cls.__hash__ = lambda self: hash(self.encode())
        cls.__repr__ = lambda self: f"<{self.to_text()}>"
        if cls.CODED:
            cls.cost = _with_coding(cls.cost)
        cls.OPCODE, cls.MNEMONIC, cls.FIELDS, cls.engine = opcode, mnemonic or cls.__name__.upper(), fields, engine
        if opcode in OPCODES or cls.MNEMONIC in MNEMONICS:
            raise ValueError(f"opcode {opcode:#x} or mnemonic {cls.MNEMONIC} is taken")
        OPCODES[opcode] = MNEMONICS[cls.MNEMONIC] = cls
        return cls

    return register


def _with_coding(cost):
    @wraps(cost)
    def total(self, chip) -> Cost:
        return with_coding(cost(self, chip), self, chip)

    return total


def decode(data: bytes, offset: int = 0) -> tuple[Instruction, int]:
    """The instruction at ``offset`` and the offset behind it. Errors: ProgramError (unknown opcode, bad length,
    range)."""
    where = f"instruction at byte {offset}"
    opcode, mask, length, node = HEADER.unpack(Reader(data, offset).take(HEADER.size))
    if opcode not in OPCODES:
        raise ProgramError(f"unknown opcode {opcode:#04x}", where=where)
    cls = OPCODES[opcode]
    if length < HEADER.size or offset + length > len(data) or mask >> len(Engine):
        raise ProgramError(
            f"{cls.MNEMONIC} with length {length}, wait mask {mask:#x}",
            where=where,
            required=f"{HEADER.size}..{len(data) - offset} bytes, engines 0..{len(Engine) - 1}",
        )
    reader = Reader(data, offset + HEADER.size, offset + length)
    waits = {engine: reader.unpack("I")[0] for engine in Engine if mask >> engine & 1}
    if 0 in waits.values():
        raise ProgramError(
            "a wait for 0 instructions", where=where, required="engines without a wait stay out of the mask"
        )
    values = {
        name: _named(name, spec.unpack, reader, cls.MNEMONIC)
        for name, spec in cls.FIELDS.items()
        if name not in cls.OPTIONAL
    }
    values |= _optional_values(cls, reader)
    if reader.offset != reader.end or (cls.OPTIONAL and all(values.get(n, ...) == d for n, d in cls.OPTIONAL.items())):
        raise ProgramError(
            f"{cls.MNEMONIC} has the wrong length",
            where=where,
            required=f"{reader.offset - offset} bytes",
            available=f"{length}",
        )
    return cls(**values, waits=waits, node=node), offset + length


def _optional_values(cls: type[Instruction], reader: Reader) -> dict:
    """The optional fields, where they stand in the bytes; nothing where they are left out or cut off."""
    start = reader.offset
    if not cls.OPTIONAL or start == reader.end:
        return {}
    try:
        return {name: _named(name, cls.FIELDS[name].unpack, reader, cls.MNEMONIC) for name in cls.OPTIONAL}
    except ProgramError:
        reader.offset = start
        return {}


def parse(line: str) -> Instruction:
    """Inverse of ``Instruction.to_text``. Errors: ProgramError naming the field."""
    mnemonic, *words = line.split()
    if mnemonic not in MNEMONICS:
        raise ProgramError(f"unknown instruction {mnemonic!r}", available=", ".join(MNEMONICS))
    cls, values = MNEMONICS[mnemonic], {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name in values or name not in (*cls.FIELDS, "waits", "node"):
            raise ProgramError(
                f"cannot read {word!r}", where=line, required="each field once: " + ", ".join(cls.FIELDS)
            )
        reader = _parse_waits if name == "waits" else parse_int if name == "node" else cls.FIELDS[name].parse
        values[name] = _named(name, reader, text, mnemonic)
    missing = [name for name in cls.FIELDS if name not in values and name not in cls.OPTIONAL]
    if missing:
        raise ProgramError(f"{mnemonic} lacks {', '.join(missing)}", where=line)
    return cls(**values)


def _parse_waits(text: str) -> dict[Engine, int]:
    waits = {}
    for part in text.split(","):
        name, _, count = part.partition(":")
        if name not in Engine.__members__:
            raise ProgramError(f"unknown engine {name!r}", available=", ".join(Engine.__members__))
        waits[Engine[name]] = parse_int(count)
    return waits


def _named(name: str, function, value, mnemonic: str):
    """Call a field's function; its errors say which field of which instruction."""
    try:
        return function(value)
    except ProgramError as error:
        error.where = f"{mnemonic}.{name}" + (f", {error.where}" if error.where else "")
        raise


def _same_place(a: Operand, b: Operand) -> bool:
    """Same bytes visited in the same order, so reading element i before writing element i is safe."""
    return (a.addr, a.shape, a.strides, a.dtype.itemsize, a.codec) == (
        b.addr,
        b.shape,
        b.strides,
        b.dtype.itemsize,
        b.codec,
    )
