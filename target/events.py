"""What an instruction counts and the chip file prices."""

from __future__ import annotations

from enum import Enum


class Event(Enum):
    """Countable happenings with an energy each (``Chip.energy``). The value is the key in chip files."""

    MAC_8X8 = "mac_8x8"  # one 8 x 8 bit multiplication of the tensor engine's array (the addition is ACC_ADD_32)
    MUL_8X8 = "mul_8x8"  # one 8 x 8 bit multiplication anywhere else: coders, elementwise products
    XNOR_POPCOUNT = "xnor_popcount"  # one product of two signs and its share of the popcount that takes it in
    ACC_ADD_32 = "acc_add_32"  # one 32-bit addition into an accumulator
    REQUANT = "requant"  # 32 x 24 bit multiply, rounding shift, zero point, clip of one value
    RESCALE_9X22 = "rescale_9x22"  # 9 x 22 bit multiply of one input of an elementwise instruction
    DIVIDE = "divide"  # one rounding division of the vector engine
    ALU_8 = "alu_8"  # one 8-bit add, compare or select
    LUT_READ = "lut_read"  # one look-up in a table held next to the lanes
    LOCAL_READ_BYTE = "local_read_byte"  # one byte out of an engine's local buffer
    LOCAL_WRITE_BYTE = "local_write_byte"
    SRAM_READ_BYTE = "sram_read_byte"  # one byte out of the unified memory
    SRAM_WRITE_BYTE = "sram_write_byte"
    INSTRUCTION = "instruction"  # fetch, decode and issue of one macro-instruction
    CPU_CYCLE = "cpu_cycle"  # one cycle of the small CPU
