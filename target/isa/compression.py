"""Instructions that compress and expand tensors: the data mover's path holds the coders (`target/codecs`).

They read and write whole slots (`target/codecs/slots`): a tensor's size never depends on its data, so rows are
addressed and nothing overflows. What a run lost is told to the memory (``Memory.tell``), not raised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.codecs.slots import HEADER_BYTES, MAX_SLOT_BYTES, SLOT_CODECS, SlotLayout
from tvm_ergo.target.errors import MachineError, ProgramError
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, ceil_div
from tvm_ergo.target.isa.fields import I8, U32, Choice, Tensor
from tvm_ergo.target.isa.operand import DType, Operand

MAX_VALUES = 2**26
"""Values that the slots of one instruction hold, whether they are wanted or not."""


class _Coding(Instruction):
    """What both share; they name their plain operand ``plain`` and their slots ``slots``."""

    if TYPE_CHECKING:  # what the classes below declare
        plain: Operand
        slots: Operand
        codec: Codec
        tile_rows: int
        zero_point: int

    @property
    def layout(self) -> SlotLayout:
        return SlotLayout(self.codec, self.tile_rows, self.slots.shape[1], self.zero_point)

    def check_slots(self, rows: int) -> None:
        """The slots are those of a tensor of ``rows`` rows."""
        slots, values = self.slots, rows * math.prod(self.plain.shape[1:])
        # a tile may be higher than the rows wanted of it: without a limit a few bytes ask for gigabytes
        self.require(values <= MAX_VALUES, "too many values in the slots", f"at most {MAX_VALUES}", values)
        self.require(
            self.codec in SLOT_CODECS, "no codec of slots", ", ".join(c.name for c in SLOT_CODECS), self.codec.name
        )
        self.require(
            HEADER_BYTES <= slots.shape[1] <= MAX_SLOT_BYTES,
            "bad slot size",
            f"{HEADER_BYTES}..{MAX_SLOT_BYTES} bytes",
            slots.shape[1],
        )
        self.require(slots.strides[1] == 1, "a slot's bytes are not contiguous", 1, slots.strides[1])
        self.require(
            slots.shape[0] == ceil_div(rows, self.tile_rows),
            "wrong number of slots",
            ceil_div(rows, self.tile_rows),
            slots.shape[0],
        )

    def coding_cost(self, chip, rows: int, reads: int, writes: int) -> Cost:
        """Tiles one after the other, each on the lanes its codec has; slots count whole, and reading and writing
        overlap the coders."""
        _, width, channels = self.plain.shape
        coder, tiles = (
            self.layout.coder,
            [self.tile_rows] * (rows // self.tile_rows) + [rows % self.tile_rows] * (rows % self.tile_rows > 0),
        )
        coding = sum(
            math.ceil(r * width * channels * coder.COST.cycles / coder.lanes((r, width, channels))) for r in tiles
        )
        cycles = chip.dma.issue_cycles + max(coding, ceil_div(max(reads, writes), chip.dma.bytes_per_cycle))
        values = rows * width * channels
        events = {event: math.ceil(count * values) for event, count in coder.COST.events.items()}
        return Cost(
            cycles, {**events, Event.SRAM_READ_BYTE: reads, Event.SRAM_WRITE_BYTE: writes, Event.INSTRUCTION: 1}
        )


@instruction(0x22, Engine.DMA)
class Encode(_Coding):
    """``out`` = the slots of ``x``: tiles of tile_rows rows (the last may be shorter), each with as few low bits
    dropped as its slot demands; the rest of a slot is zero. The run counts tiles by dropped bits."""

    x = Tensor("H W C", (DType.I8,), "rows to compress")
    out = Tensor("T S", (DType.U8,), "slots of S bytes, one a tile", out=True)
    codec = Choice(Codec, "of the payloads")
    tile_rows = U32("rows a tile", low=1)
    zero_point = I8("the value coded most cheaply and always exactly")

    @property
    def plain(self):
        return self.x

    @property
    def slots(self):
        return self.out

    def check_rules(self, dims):
        self.check_slots(dims["H"])

    def execute(self, memory) -> None:
        slots = self.layout.encode(memory.view(self.x))
        memory.view(self.out)[...] = slots
        memory.tell(self, self.layout.dropped(slots))

    def cost(self, chip) -> Cost:
        """Values pass the codec's lanes tile by tile, or the data mover's port, whichever is longer; slots are written
        whole."""
        return self.coding_cost(chip, self.x.shape[0], self.x.size_bytes, self.out.size_bytes)


@instruction(0x23, Engine.DMA)
class Decode(_Coding):
    """``out`` = rows of the tensor in the slots ``x``: of its first tile's rows the first ``skip`` are left out, behind
    ``out``'s rows any."""

    x = Tensor("T S", (DType.U8,), "slots of S bytes, one a tile")
    out = Tensor("H W C", (DType.I8,), "the rows wanted", out=True)
    codec = Choice(Codec, "of the payloads")
    tile_rows = U32("rows a tile", low=1)
    last_rows = U32("rows of the last tile in x", low=1)
    skip = U32("rows of the first tile that are not wanted")
    zero_point = I8("as encoded")

    @property
    def plain(self):
        return self.out

    @property
    def slots(self):
        return self.x

    @property
    def rows(self) -> int:
        """Of all tiles in x."""
        return (self.x.shape[0] - 1) * self.tile_rows + self.last_rows

    def check_rules(self, dims):
        self.require(
            self.last_rows <= self.tile_rows,
            "the last tile is higher than a tile",
            f"1..{self.tile_rows}",
            self.last_rows,
        )
        self.check_slots(self.rows)
        self.require(self.skip + dims["H"] <= self.rows, "the slots hold fewer rows", self.skip + dims["H"], self.rows)
        # bounds the machine's work by the operands, which lie in the memory
        self.require(
            self.skip < self.tile_rows and self.rows - self.skip - dims["H"] < self.tile_rows,
            "a tile of which no row is wanted",
            f"fewer than {self.tile_rows} rows left out at either end",
            f"{self.skip}, {self.rows - self.skip - dims['H']}",
        )

    def execute(self, memory) -> None:
        out = memory.view(self.out)
        try:
            rows = self.layout.decode(memory.view(self.x), (self.rows, *out.shape[1:]))
        except ProgramError as error:
            raise MachineError(
                error.what, where=str(self.x), remedy="the slots were not written by ENCODE with these parameters"
            ) from None
        out[...] = rows[self.skip : self.skip + out.shape[0]]

    def cost(self, chip) -> Cost:
        """As ENCODE: all values of the tiles in x pass the codec's lanes; of its slots all bytes are read."""
        return self.coding_cost(chip, self.rows, self.x.size_bytes, self.out.size_bytes)
