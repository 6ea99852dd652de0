"""A Program: what the chip loads and runs, as bytes, as text, and as a value.

Bytes, little-endian: magic ``ERGO``, version u16, flags u16 (0), SHA-256 (32 bytes, over magic, version, flags, length
and payload), payload length u64, payload. The text form (``program_text``) round-trips to the same Program."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum

from tvm_ergo.target.errors import ProgramError
from tvm_ergo.target.isa import DType, Halt, Instruction, Operand, Receive, decode
from tvm_ergo.target.isa.fields import Reader, Tensor
from tvm_ergo.target.limits import parsed_json

MAGIC = b"ERGO"
VERSION = 2
HEAD = struct.Struct("<4sHH32sQ")
_OPERAND = Tensor("*", tuple(DType), "")


class BufferKind(IntEnum):
    """What a buffer of the memory map holds."""

    INPUT = 0
    OUTPUT = 1
    CONSTANT = 2
    ACTIVATION = 3
    SCRATCH = 4
    STATE = 5


@dataclass(frozen=True)
class Port:
    """A named input or output of the whole program.

    streamed : an input that RECEIVE instructions take piece by piece; its operand says type and shape (dense, address
    0), not a place."""

    name: str
    operand: Operand
    streamed: bool = False


@dataclass(frozen=True)
class Node:
    """Where instructions come from: the compiler's node name, its op, and the layer of the source model."""

    name: str
    op: str
    layer: str


@dataclass(frozen=True)
class Buffer:
    """One entry of the memory map: bytes ``[addr, addr + size_bytes)`` live in instructions ``[first, last)``."""

    name: str
    addr: int
    size_bytes: int
    first: int
    last: int
    kind: BufferKind

    def __post_init__(self):
        kind = self.kind
        if isinstance(kind, str) and kind.upper() in BufferKind.__members__:
            kind = BufferKind[kind.upper()]
        if kind not in tuple(BufferKind):
            raise ProgramError(
                f"unknown buffer kind {self.kind!r}",
                where=f"buffer {self.name!r}",
                available=", ".join(k.name.lower() for k in BufferKind),
            )
        object.__setattr__(self, "kind", BufferKind(kind))
        for value in (self.addr, self.size_bytes, self.first, self.last):
            if not 0 <= value < 2**64:
                raise ProgramError(
                    f"buffer field {value} is not an unsigned 64-bit number", where=f"buffer {self.name!r}"
                )


@dataclass
class Program:
    """Instructions and initial memory contents for one chip.

    data : ``(addr, bytes)`` sections written before the first run (weights, biases, tables). inputs, outputs : ports.
    nodes : what ``Instruction.node`` indexes. buffers : lifetimes for reports. memory_bytes : the unified memory it was
    planned for. meta : JSON values for people and tools (never needed to run).
    """

    chip_name: str
    instructions: list[Instruction]
    data: list[tuple[int, bytes]]
    inputs: list[Port]
    outputs: list[Port]
    memory_bytes: int
    nodes: list[Node] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        self.data = [(int(addr), bytes(content)) for addr, content in self.data]
        for value in (self.memory_bytes, *(addr for addr, _ in self.data)):
            if not 0 <= value < 2**64:
                raise ProgramError(f"memory size or data address {value} is not an unsigned 64-bit number")
        try:
            self.meta = json.loads(json.dumps(self.meta, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ProgramError(
                f"the program's meta cannot be stored: {error}", required="JSON values, finite numbers"
            ) from None
        if not isinstance(self.meta, dict):
            raise ProgramError("the program's meta is not an object")

    # ---- bytes -----------------------------------------------------------------------------------------------------
    def to_bytes(self) -> bytes:
        """The whole program. ``from_bytes`` gives an equal Program back."""
        payload = _encode(self)
        digest = hashlib.sha256(MAGIC + struct.pack("<HHQ", VERSION, 0, len(payload)) + payload).digest()
        return HEAD.pack(MAGIC, VERSION, 0, digest, len(payload)) + payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Program:
        """Errors: ProgramError saying what is wrong: magic, version, truncation, trailing bytes, checksum, a field."""
        data = bytes(data)
        if data[:4] != MAGIC[: len(data)] or not data:
            raise ProgramError("this is not an Ergo program", required=f"magic {MAGIC!r}", available=repr(data[:4]))
        if len(data) < HEAD.size:
            raise ProgramError(
                "the program is truncated inside its header", required=f"{HEAD.size} bytes", available=f"{len(data)}"
            )
        _, version, flags, digest, length = HEAD.unpack_from(data)
        if version != VERSION:
            raise ProgramError(
                f"the program has version {version}", required=f"version {VERSION}", remedy="compile the network again"
            )
        payload = memoryview(data)[HEAD.size :]
        if len(payload) < length:
            raise ProgramError(
                "the program is truncated", required=f"{length} bytes behind the header", available=f"{len(payload)}"
            )
        if len(payload) > length:
            raise ProgramError(
                "the program has trailing bytes",
                required=f"{length} bytes behind the header",
                available=f"{len(payload)}",
            )
        if hashlib.sha256(MAGIC + struct.pack("<HHQ", version, flags, length) + payload).digest() != digest:
            raise ProgramError(
                "the program's checksum does not match: its bytes were changed", remedy="copy or compile it again"
            )
        return _decode(cls, bytes(payload))

    # ---- text ------------------------------------------------------------------------------------------------------
    def to_text(self) -> str:
        """The whole program as assembler text; ``from_text`` gives an equal Program back."""
        from tvm_ergo.target.program_text import program_to_text

        return program_to_text(self)

    @classmethod
    def from_text(cls, text: str) -> Program:
        """Errors: ProgramError naming the line."""
        from tvm_ergo.target.program_text import program_from_text

        return program_from_text(text)

    # ---- sense -----------------------------------------------------------------------------------------------------
    def validate(self) -> None:
        """Everything that can be known without running: preconditions, bounds, waits, HALT. Errors: ProgramError."""
        self._validate_layout()
        issued: Counter = Counter()
        for index, instruction in enumerate(self.instructions):
            where = f"instruction {index}: {instruction.to_text()}"
            for operand in (
                instruction.reads() + instruction.writes()
            ):  # bounds first: they limit the work of the checks
                self._inside(operand.extent, where)
            instruction.check()
            if isinstance(instruction, Receive):
                self._receives(instruction, where)
            for engine, count in instruction.waits.items():
                if count > issued[engine]:
                    raise ProgramError(
                        f"waits for {count} {engine.name} instructions",
                        where=where,
                        available=f"{issued[engine]} precede it: it would wait for ever",
                    )
            if instruction.node >= max(1, len(self.nodes)):
                raise ProgramError(
                    f"node {instruction.node} is not in the node table",
                    where=where,
                    available=f"{len(self.nodes)} nodes",
                )
            if isinstance(instruction, Halt) != (index == len(self.instructions) - 1):
                raise ProgramError("HALT must be the last instruction and the only HALT", where=where)
            issued[instruction.engine] += 1
        if not self.instructions:
            raise ProgramError("the program has no instructions", required="at least HALT")

    def _receives(self, instruction: Receive, where: str) -> None:
        """The port exists, is streamed, and has what is received from it."""
        port = self.inputs[instruction.port] if instruction.port < len(self.inputs) else None
        if port is None or not port.streamed:
            raise ProgramError(
                f"input port {instruction.port} is not streamed",
                where=where,
                available=", ".join(p.name for p in self.inputs if p.streamed) or "none",
            )
        if instruction.source.extent[1] > port.operand.size_bytes or instruction.out.dtype != port.operand.dtype:
            raise ProgramError(
                f"what is received is not in port {port.name!r}",
                where=where,
                required=str(instruction.source),
                available=str(port.operand),
            )

    def _validate_layout(self) -> None:
        if not 1 <= self.memory_bytes <= 2**32:
            raise ProgramError(f"a memory of {self.memory_bytes} bytes", required="1..2**32")
        end, last = 0, ""
        for addr, content in sorted(self.data, key=lambda section: section[0]):
            where = f"data section at {addr:#x}, {len(content)} bytes"
            self._inside((addr, addr + len(content)), where)
            if addr < end:
                raise ProgramError("two data sections overlap", where=f"{where}; {last}")
            end, last = addr + len(content), where
        for port in self.inputs + self.outputs:
            if not port.streamed:
                self._inside(port.operand.extent, f"port {port.name!r}")
            elif port in self.outputs or port.operand.addr or not port.operand.is_contiguous:
                raise ProgramError(
                    "a streamed port is an input, dense, at address 0",
                    where=f"port {port.name!r}",
                    available=str(port.operand),
                )
        for buffer in self.buffers:
            self._inside((buffer.addr, buffer.addr + buffer.size_bytes), f"buffer {buffer.name!r}")
            if buffer.first > buffer.last or buffer.last > len(self.instructions):
                raise ProgramError(
                    f"lifetime [{buffer.first}, {buffer.last})",
                    where=f"buffer {buffer.name!r}",
                    required=f"ordered, within the {len(self.instructions)} instructions",
                )
        for ports in (self.inputs, self.outputs):
            if len({port.name for port in ports}) != len(ports):
                raise ProgramError("two ports have the same name", available=", ".join(port.name for port in ports))

    def _inside(self, span: tuple[int, int], where: str) -> None:
        if span[0] < 0 or span[1] > self.memory_bytes:
            raise ProgramError(
                "bytes outside the unified memory",
                where=where,
                required=f"[{span[0]:#x}, {span[1]:#x})",
                available=f"[0, {self.memory_bytes:#x})",
            )


def _text(value: str) -> bytes:
    try:
        encoded = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProgramError(f"the text {value!r} is not Unicode: {error}") from None
    return struct.pack("<I", len(encoded)) + encoded


def _encode(program: Program) -> bytes:
    """The payload: chip, memory, meta, then each list preceded by its u32 length."""
    parts = [_text(program.chip_name), struct.pack("<Q", program.memory_bytes), _text(json.dumps(program.meta))]

    def section(items, one):
        parts.append(struct.pack("<I", len(items)))
        parts.extend(map(one, items))

    section(program.nodes, lambda n: _text(n.name) + _text(n.op) + _text(n.layer))
    section(
        program.buffers, lambda b: _text(b.name) + struct.pack("<QQQQB", b.addr, b.size_bytes, b.first, b.last, b.kind)
    )
    for ports in (program.inputs, program.outputs):
        section(ports, lambda p: _text(p.name) + _OPERAND.pack(p.operand) + struct.pack("<B", p.streamed))
    section(program.data, lambda d: struct.pack("<QQ", d[0], len(d[1])) + d[1])
    section(program.instructions, lambda i: i.encode())
    return b"".join(parts)


def _decode(cls, payload: bytes) -> Program:
    reader = Reader(payload)

    def text() -> str:
        try:
            return reader.take(reader.unpack("I")[0]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProgramError(f"a text of the program is not UTF-8: {error}") from None

    def section(one) -> list:
        return [one() for _ in range(reader.unpack("I")[0])]

    def flag() -> bool:
        (value,) = reader.unpack("B")
        if value > 1:
            raise ProgramError(f"a port is marked {value}", required="0, or 1 for a streamed one")
        return bool(value)

    def one_data() -> tuple[int, bytes]:
        addr, size = reader.unpack("QQ")
        return addr, reader.take(size)

    def one_instruction() -> Instruction:
        instruction, reader.offset = decode(payload, reader.offset)
        return instruction

    chip_name, (memory_bytes,), meta = text(), reader.unpack("Q"), text()
    try:
        meta = parsed_json(meta)
    except ValueError as error:
        raise ProgramError(f"the program's meta is not JSON: {error}") from None
    nodes = section(lambda: Node(text(), text(), text()))
    buffers = section(lambda: Buffer(text(), *reader.unpack("QQQQB")))
    inputs, outputs = (section(lambda: Port(text(), _OPERAND.unpack(reader), flag())) for _ in range(2))
    data, instructions = section(one_data), section(one_instruction)
    if reader.offset != reader.end:
        raise ProgramError(
            "bytes behind the last instruction",
            where=f"payload offset {reader.offset}",
            available=f"{reader.end - reader.offset} bytes",
        )
    return cls(
        chip_name=chip_name,
        memory_bytes=memory_bytes,
        meta=meta,
        nodes=nodes,
        buffers=buffers,
        inputs=inputs,
        outputs=outputs,
        data=data,
        instructions=instructions,
    )
