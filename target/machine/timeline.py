"""When each instruction runs: engines side by side, each in program order, ordered only by waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm_ergo.target.chip import Chip
from tvm_ergo.target.errors import MachineError
from tvm_ergo.target.isa import Engine, Halt
from tvm_ergo.target.isa.cost import Cost
from tvm_ergo.target.program import Program


@dataclass(frozen=True)
class Timeline:
    """Per instruction: start and end cycle (half open) and its cost."""

    starts_cycles: tuple[int, ...]
    ends_cycles: tuple[int, ...]
    costs: tuple[Cost, ...]

    @property
    def cycles(self) -> int:
        """Cycles from the start of the program to its last completion."""
        return max(self.ends_cycles, default=0)


def simulate(program: Program, chip: Chip, costs: Sequence[Cost] | None = None) -> Timeline:
    """``start = max(end of the engine's previous instruction, ends of the instructions waited for)``; HALT waits for
    all.

    costs : of each instruction; None: what each expects (`Instruction.cost`).

    Errors: MachineError for a wait on instructions that do not precede the waiting one.
    """
    done: dict[Engine, list[int]] = {engine: [] for engine in Engine}  # completion cycle per engine, in order
    costs = [instruction.cost(chip) for instruction in program.instructions] if costs is None else costs
    starts, ends = [], []
    for index, instruction in enumerate(program.instructions):
        waits = (
            {engine: len(ends) for engine, ends in done.items()} if isinstance(instruction, Halt) else instruction.waits
        )
        start = done[instruction.engine][-1] if done[instruction.engine] else 0
        for engine, count in waits.items():
            if count > len(done[engine]):
                raise MachineError(
                    f"an instruction waits for {count} {Engine(engine).name} instructions",
                    where=f"instruction {index}: {instruction}",
                    available=f"{len(done[engine])} precede it: it would wait for ever",
                )
            if count:
                start = max(start, done[engine][count - 1])
        starts.append(start)
        ends.append(start + costs[index].cycles)
        done[instruction.engine].append(ends[-1])
    return Timeline(tuple(starts), tuple(ends), tuple(costs))
