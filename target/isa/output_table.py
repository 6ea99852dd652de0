"""The output stage's table: an engine looks its int8 results up on their way to memory, so that an activation costs no
pass of its own.

An instruction with ``OUTPUT_TABLE`` has two optional fields. ``table``: none, or one int8[256] for all channels or
int8[C, 256], one a channel: what is written is ``table[(c,) y + 128]`` of the requantized result y. ``table_zp``: the
zero point of what the table gives; only a compressed output needs it. Arm's Ethos-U looks its results up the same way.
"""

from __future__ import annotations

from functools import wraps

from tvm_ergo.target.codecs import Codec
from tvm_ergo.target.events import Event
from tvm_ergo.target.isa.cost import Cost, ceil_div
from tvm_ergo.target.isa.fields import I8, Field, Tensors
from tvm_ergo.target.isa.operand import DType

TABLE_FIELDS: dict[str, Field] = {
    "table": Tensors("table of the output stage: none, or one i8[256] or i8[C,256]", most=1),
    "table_zp": I8("zero point of the table's results; only of a compressed out"),
}
TABLE_DEFAULTS: dict[str, object] = {"table": (), "table_zp": 0}


def check_table(instruction) -> None:
    """Preconditions of the output stage's table. Errors: ProgramError."""
    instruction.require(
        instruction.table or not instruction.table_zp,
        "a zero point of a table that is not there",
        "table_zp 0",
        instruction.table_zp,
    )
    for table in instruction.table:
        channels = instruction.out.shape[-1]
        instruction.require(
            instruction.out.dtype == DType.I8 and table.dtype == DType.I8,
            "only int8 results go through a table",
            "out and table int8",
            f"{instruction.out.dtype.name}, {table.dtype.name}",
        )
        instruction.require(
            table.codec == Codec.RAW and table.shape in ((256,), (channels, 256)),
            "the table has the wrong form",
            f"[256] or [{channels}, 256], not coded",
            table,
        )


def looked_up(execute):
    """``execute``, then the results through the table where there is one: in place, before a coder shrinks them."""

    @wraps(execute)
    def total(self, memory) -> None:
        execute(self, memory)
        for table in self.table:
            from tvm_ergo.target.machine import kernels

            out = memory.view(self.out)
            kernels.table(out, memory.view(table), out=out)

    return total


def with_table(cost):
    """The cost with its look-ups: they work beside the arithmetic, as many a cycle as the engine has table ports; the
    table is read once, with the operands."""

    @wraps(cost)
    def total(self, chip) -> Cost:
        plain = cost(self, chip)
        if not self.table:
            return plain
        (table,), engine, n = self.table, getattr(chip, self.engine.name.lower()), self.out.elements
        events = dict(plain.events)
        events[Event.SRAM_READ_BYTE] = events.get(Event.SRAM_READ_BYTE, 0) + table.size_bytes
        for event, count in ((Event.LUT_READ, n), (Event.LOCAL_WRITE_BYTE, table.size_bytes)):
            events[event] = events.get(event, 0) + count
        reading = ceil_div(events[Event.SRAM_READ_BYTE], engine.read_bytes_per_cycle)
        looking = ceil_div(n, max(1, getattr(engine, "output_table_lanes", 0) or getattr(engine, "table_lanes", 0)))
        return Cost(max(plain.cycles, engine.issue_cycles + max(reading, looking)), events)

    return total
