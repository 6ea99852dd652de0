"""Instructions of the small CPU: library calls, and the end of the program."""

from __future__ import annotations

from enum import IntEnum

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.fields import I32, Choice, Ints, Tensors


class CpuFunction(IntEnum):
    """The CPU's library; each member's meaning is a class of cpu_library."""

    ARGMAX = 0
    GATHER_ROWS = 1


@instruction(0x30, Engine.CPU, "CPU_CALL")
class CpuCall(Instruction):
    """Calls a function of the CPU's library (docs below) on operands and integer parameters."""

    function = Choice(CpuFunction, "which function")
    inputs = Tensors("input operands")
    outputs = Tensors("output operands", out=True)
    params = Ints(I32(""), None, "integer parameters", 32)


@instruction(0x3F, Engine.CPU)
class Halt(Instruction):
    """Ends the program: completes when every instruction before it has completed. The last instruction, and the only one."""
