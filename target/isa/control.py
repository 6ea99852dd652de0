"""Instructions of the small CPU: library calls, and the end of the program."""

from __future__ import annotations

from tvm_ergo.target.isa.base import Engine, Instruction, instruction
from tvm_ergo.target.isa.cost import Cost, Event, ceil_div
from tvm_ergo.target.isa.cpu_library import LIBRARY, CpuFunction
from tvm_ergo.target.isa.fields import I32, Choice, Ints, Tensors


@instruction(0x30, Engine.CPU, "CPU_CALL")
class CpuCall(Instruction):
    """Calls a function of the CPU's library on operands and integer parameters."""

    function = Choice(CpuFunction, "which function")
    inputs = Tensors("input operands")
    outputs = Tensors("output operands", out=True)
    params = Ints(I32(""), None, "integer parameters", 32)

    def check_rules(self, dims):
        LIBRARY[self.function].check(self)

    def execute(self, memory) -> None:
        LIBRARY[self.function].run(
            [memory.view(o) for o in self.inputs], [memory.view(o) for o in self.outputs], self.params
        )

    def cost(self, chip) -> Cost:
        """The library's cycle count or the memory port, whichever is longer; operands pass the port once."""
        read, written = (sum(o.size_bytes for o in operands) for operands in (self.inputs, self.outputs))
        cycles = chip.cpu.issue_cycles + max(
            LIBRARY[self.function].cycles(self.inputs, self.outputs, self.params),
            ceil_div(read + written, chip.cpu.bytes_per_cycle),
        )
        return Cost(
            cycles,
            {Event.CPU_CYCLE: cycles, Event.SRAM_READ_BYTE: read, Event.SRAM_WRITE_BYTE: written, Event.INSTRUCTION: 1},
        )


@instruction(0x3F, Engine.CPU)
class Halt(Instruction):
    """Ends the program: completes when every instruction before it has completed. The last instruction, and the only
    one."""

    def execute(self, memory) -> None:
        pass

    def cost(self, chip) -> Cost:
        """One cycle: the host is told."""
        return Cost(1, {Event.CPU_CYCLE: 1, Event.INSTRUCTION: 1})
