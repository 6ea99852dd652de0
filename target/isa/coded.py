"""Operands that stand compressed in memory: an engine expands the rows it reads into its own buffer and shrinks those
it writes.

Such an operand is int8[1, H, W, C] with a codec: each row is a tile in a slot of its own (`target/codecs/slots`), slot
i at ``addr + i * S``. Its strides are ``(0, S, 0, 0)``: only rows are addressed. The zero point coded is the one the
instruction names for it (``Instruction.CODED``), so an operand needs no more than its descriptor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import HEADER_BYTES, MAX_SLOT_BYTES, SLOT_CODECS, SlotLayout
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa.cost import Cost
from tvm_ergo.target.isa.operand import DType, Operand


def coded(addr: int, shape: tuple[int, int, int, int], codec: Codec, slot_bytes: int) -> Operand:
    """The compressed operand int8[1, H, W, C] whose rows lie in slots from ``addr`` on."""
    return Operand(addr, DType.I8, shape, (0, slot_bytes, 0, 0), codec)


@dataclass(frozen=True, eq=False)
class CodedOperand:
    """One compressed operand of an instruction. stored : its slots, uint8[H, S]. out : the instruction writes it."""

    operand: Operand
    stored: Operand
    layout: SlotLayout
    out: bool

    def expand(self, slots: np.ndarray) -> np.ndarray:
        """uint8[H, S] to int8[1, H, W, C]. Errors: MachineError for slots that no encoder wrote."""
        height, width, channels = self.operand.shape[1:]
        try:
            return self.layout.decode(slots, (height, width, channels))[None]
        except ProgramError as error:
            raise MachineError(
                error.what,
                where=str(self.operand),
                remedy="the slots were not written with this codec, shape and zero point",
            ) from None

    def shrink(self, plain: np.ndarray) -> np.ndarray:
        """int8[1, H, W, C] to uint8[H, S]."""
        return self.layout.encode(plain[0])

    @property
    def cycles(self) -> int:
        """Of the coders, row after row."""
        _, height, width, channels = self.operand.shape
        coder = self.layout.coder
        return height * math.ceil(width * channels * coder.COST.cycles / coder.lanes((1, width, channels)))


def coded_operands(instruction) -> list[CodedOperand]:
    """The compressed operands of a checked instruction."""
    found = []
    for name, zero_point in instruction.CODED.items():
        operand = getattr(instruction, name)
        if operand.codec != Codec.RAW:
            if name == "out" and instruction.OUTPUT_TABLE and instruction.table:
                zero_point = "table_zp"
            found.append(
                CodedOperand(
                    operand,
                    operand.stored,
                    SlotLayout(operand.codec, 1, operand.strides[1], getattr(instruction, zero_point)),
                    instruction.FIELDS[name].out,
                )
            )
    return found


def check_coded(instruction, name: str, operand: Operand) -> None:
    """Preconditions of a compressed operand. Errors: ProgramError."""
    instruction.require(
        name in instruction.CODED,
        f"{name} cannot be compressed",
        " or ".join(instruction.CODED) or "no operand of this instruction",
        operand.codec.name,
    )
    instruction.require(
        operand.codec in SLOT_CODECS,
        f"{name} has no codec of slots",
        ", ".join(c.name for c in SLOT_CODECS),
        operand.codec.name,
    )
    slot_bytes = operand.strides[1] if operand.rank == 4 else 0
    instruction.require(
        operand.dtype == DType.I8
        and operand.rank == 4
        and operand.shape[0] == 1
        and operand.strides == (0, slot_bytes, 0, 0)
        and HEADER_BYTES <= slot_bytes <= MAX_SLOT_BYTES,
        f"{name} is not rows in slots",
        f"i8[1,H,W,C] with strides 0,S,0,0 and S in {HEADER_BYTES}..{MAX_SLOT_BYTES}",
        operand,
    )


def with_coding(plain: Cost, instruction, chip) -> Cost:
    """The cost of an instruction as if nothing were compressed, with its coders: they work beside the arithmetic, one
    operand after the other; the memory moves slots instead of elements. What the engine reads again (``read_again``) is
    expanded again."""
    operands = coded_operands(instruction)
    if not operands:
        return plain
    events, cycles = dict(plain.events), 0
    for c in operands:
        times = 1 if c.out else instruction.read_again(chip)
        cycles += times * c.cycles
        port = Event.SRAM_WRITE_BYTE if c.out else Event.SRAM_READ_BYTE
        events[port] = max(0, events[port] + times * (c.stored.size_bytes - c.operand.elements))
        for event, count in c.layout.cost.events.items():
            events[event] = events.get(event, 0) + math.ceil(times * count * c.operand.elements)
    return Cost(max(plain.cycles, cycles), events)
