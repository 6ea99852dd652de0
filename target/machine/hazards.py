"""Strict mode's proof that a Program has a defined meaning: no read of unwritten bytes, no unordered conflicting
accesses.

Operands are constants of the Program, so both properties do not depend on data: they are checked once, in program
order, on shadow arrays that remember for each byte its last writer and, per engine, its last reader. Two accesses are
ordered if they belong to the same engine (engines work in program order), or if the earlier is covered by the later's
vector clock: per engine, how many instructions are known to have completed, joined over the engine's previous
instruction and everything the ``waits`` name, transitively. Remembering only the last access is enough: earlier ones
were ordered before it, or an error was raised."""

from __future__ import annotations

import numpy as np

from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Engine, Halt, Operand, Receive
from tvm_ergo.target.program import Program

# Shadow values: the last to touch a byte is nobody; the program's data or an input port; or instruction (value -
# FIRST). Nobody is 0, so that shadows of memory that is never touched cost nothing.
NEVER, INITIAL, FIRST = 0, 1, 2
ENGINES = len(Engine)


def vector_clocks(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """``(clocks int64[n, engines], positions int64[n])``: instruction i starts after ``clocks[i, e]`` instructions of
    engine e; it is the ``positions[i]``-th (from 1) of its own. Errors: MachineError for a wait on instructions that do
    not precede it."""
    count = len(program.instructions)
    clocks, positions = np.zeros((count, ENGINES), np.int64), np.zeros(count, np.int64)
    issued: list[list[int]] = [[] for _ in Engine]
    for index, instruction in enumerate(program.instructions):
        clock, own = clocks[index], issued[instruction.engine]
        waits = (
            {engine: len(issued[engine]) for engine in Engine}
            if isinstance(instruction, Halt)
            else dict(instruction.waits)
        )
        waits[instruction.engine] = max(waits.get(instruction.engine, 0), len(own))
        for engine, needed in waits.items():
            if needed > len(issued[engine]):
                raise MachineError(
                    f"an instruction waits for {needed} {Engine(engine).name} instructions",
                    where=describe(program, index),
                    available=f"{len(issued[engine])} precede it: it would wait for ever",
                )
            if needed:
                np.maximum(clock, clocks[issued[engine][needed - 1]], out=clock)
                clock[engine] = max(clock[engine], needed)
        own.append(index)
        positions[index] = len(own)
    return clocks, positions


def describe(program: Program, index: int) -> str:
    """``instruction 7 (node conv1): CONV x=...`` for messages."""
    instruction = program.instructions[index]
    node = program.nodes[instruction.node].name if instruction.node < len(program.nodes) else f"#{instruction.node}"
    return f"instruction {index} (node {node}): {instruction.to_text()}"


class HazardCheck:
    """Walks a Program once. ``run()`` raises MachineError at the first undefined access."""

    def __init__(self, program: Program):
        self.program = program
        self.clocks, self.positions = vector_clocks(program)
        self.engines = np.array([i.engine for i in program.instructions], np.int64)
        dtype = np.int16 if len(program.instructions) < 32000 else np.int32
        self.writer = np.zeros(program.memory_bytes, dtype)
        self.streams: dict[int, np.ndarray] = {}  # bytes received, by port
        self.received: dict[int, int] = {}  # offset of the last RECEIVE, by port
        self.readers = {
            engine: np.zeros(program.memory_bytes, dtype) for engine in sorted({i.engine for i in program.instructions})
        }

    def run(self) -> None:
        """Errors: MachineError naming the instruction, its node, the other instruction and the first byte concerned."""
        for addr, content in self.program.data:
            self.writer[addr : addr + len(content)] = INITIAL
        for port in self.program.inputs:
            if not port.streamed:
                self._shadow(self.writer, port.operand)[...] = INITIAL
        for index, instruction in enumerate(self.program.instructions):
            if isinstance(instruction, Receive):
                self._receive(index, instruction)
            for operand in instruction.reads():
                self._read(index, operand)
            for operand in instruction.writes():
                self._write(index, operand)
        for port in self.program.outputs:
            self._written(port.operand, f"output {port.name!r}")

    def _shadow(self, shadow: np.ndarray, operand: Operand) -> np.ndarray:
        """The operand's bytes in a shadow array, [..., itemsize]; broadcast axes once. Errors: MachineError out of
        bounds."""
        low, high = operand.extent
        if low < 0 or high > shadow.size:
            raise MachineError(
                "an operand lies outside the unified memory",
                where=str(operand),
                required=f"bytes [{low:#x}, {high:#x})",
                available=f"[0, {shadow.size:#x})",
            )
        if operand.is_contiguous:
            return shadow[low:high]
        shape = tuple(d if s else 1 for d, s in zip(operand.shape, operand.strides))
        strides = tuple(s * shadow.itemsize for s in (*operand.strides, 1))
        return np.ndarray(
            (*shape, operand.dtype.itemsize), shadow.dtype, shadow, operand.addr * shadow.itemsize, strides
        )

    def _receive(self, index: int, instruction: Receive) -> None:
        """Every byte of a stream is received at most once, in order."""
        taken = self.streams.setdefault(
            instruction.port, np.zeros(self.program.inputs[instruction.port].operand.size_bytes, np.uint8)
        )
        mine = self._shadow(taken, instruction.source)
        late = bool(mine.any()) or instruction.offset < self.received.get(instruction.port, 0)
        if late:
            raise MachineError(
                "a streamed input is received a second time, or out of order",
                where=describe(self.program, index),
                required=f"bytes behind {self.received.get(instruction.port, 0)}, none of them received before",
            )
        mine[...], self.received[instruction.port] = 1, instruction.offset

    def _read(self, index: int, operand: Operand) -> None:
        self._written(operand, index)
        self._ordered(index, "reads", self._shadow(self.writer, operand), "writes", operand)
        self._shadow(self.readers[self.program.instructions[index].engine], operand)[...] = index + FIRST

    def _write(self, index: int, operand: Operand) -> None:
        engine = self.program.instructions[index].engine
        mine = self._shadow(self.writer, operand)
        self._ordered(index, "writes", mine, "writes", operand)
        for reader, shadow in self.readers.items():
            if reader != engine:
                self._ordered(index, "writes", self._shadow(shadow, operand), "reads", operand)
        mine[...] = index + FIRST

    def _written(self, operand: Operand, who: int | str) -> None:
        shadow = self._shadow(self.writer, operand)
        if shadow.min() == NEVER:
            where = who if isinstance(who, str) else describe(self.program, who)
            raise MachineError(
                "bytes are read that nobody wrote",
                where=f"{where}, first at {self._first_byte(shadow == NEVER, operand):#x}",
                remedy="the program is wrong: an instruction, a data section or an input is missing",
            )

    def _ordered(self, index: int, verb: str, shadow: np.ndarray, other_verb: str, operand: Operand) -> None:
        low, high = int(shadow.min()), int(shadow.max())
        if high < FIRST or low == high and self._before(low - FIRST, index):
            return
        present = np.zeros(high + 1, bool)
        present[shadow.reshape(-1)] = True
        for other in np.flatnonzero(present[FIRST:]).tolist():
            if not self._before(other, index):
                raise MachineError(
                    "two accesses to the same byte are not ordered, and one of them writes",
                    where=f"{describe(self.program, index)} {verb} byte "
                    f"{self._first_byte(shadow == other + FIRST, operand):#x}, which "
                    f"{describe(self.program, other)} {other_verb}",
                    required=f"a wait for {int(self.positions[other])} {Engine(int(self.engines[other])).name} "
                    f"instructions",
                    available=f"{int(self.clocks[index, self.engines[other]])} known to have completed",
                )

    def _before(self, other: int, index: int) -> bool:
        """Whether instruction ``other`` has completed when ``index`` starts (an instruction is not before itself)."""
        return bool(self.positions[other] <= self.clocks[index, self.engines[other]])

    def _first_byte(self, bad: np.ndarray, operand: Operand) -> int:
        if operand.is_contiguous:
            return operand.extent[0] + int(bad.argmax())
        at = np.argwhere(bad)
        return operand.addr + int((at * np.array([*operand.strides, 1])).sum(axis=1).min())
