"""Waits: the fewest counts that order every pair of engines' accesses to the same bytes of which one writes.

An engine takes its instructions in order, each after the one before has completed. What an instruction knows to have
completed when it starts is a count per engine (a vector clock): what its engine's previous instruction knew, that
instruction itself, and what the instructions it waits for knew. A conflict that is already known costs no wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tvm_ergo.codegen.strided import operands_overlap
from tvm_ergo.target.isa import Engine, Halt, Instruction, Operand


class _Log:
    """The accesses of one engine so far, in order, with their extents in arrays for a quick first look."""

    def __init__(self):
        self.count = 0  # instructions issued
        self.clocks: list[np.ndarray] = []  # what is known to have completed once instruction i has
        self.accesses: dict[bool, tuple[list[int], list[int], list[int], list[Operand]]] = {
            w: ([], [], [], []) for w in (False, True)
        }

    def add(self, instruction: Instruction, constant_bytes: int) -> None:
        for write, operands in ((False, instruction.reads()), (True, instruction.writes())):
            lows, highs, numbers, kept = self.accesses[write]
            for operand in operands:
                if operand.extent[1] > constant_bytes:
                    lows.append(operand.extent[0])
                    highs.append(operand.extent[1])
                    numbers.append(self.count)
                    kept.append(operand)
        self.count += 1

    def latest_conflict(self, operand: Operand, write: bool, known: int) -> int:
        """Number (from 1) of the last instruction after the first ``known`` whose access of that kind touches
        ``operand``; 0 if none."""
        lows, highs, numbers, operands = self.accesses[write]
        low, high = operand.extent
        for i in range(len(numbers) - 1, -1, -1):
            if numbers[i] < known:
                return 0
            if lows[i] < high and low < highs[i] and operands_overlap(operands[i], operand):
                return numbers[i] + 1
        return 0


def schedule(instructions: Sequence[Instruction], constant_bytes: int = 0) -> list[Instruction]:
    """The same instructions with their ``waits``. Bytes below ``constant_bytes`` are never written and order
    nothing."""
    logs = {engine: _Log() for engine in Engine}
    known = {engine: np.zeros(len(Engine), np.int64) for engine in Engine}
    result = []
    for instruction in instructions:
        engine = instruction.engine
        clock = known[engine].copy()
        clock[engine] = logs[engine].count
        if isinstance(instruction, Halt):  # completes after everything by definition
            result.append(replace(instruction, waits={}))
            continue
        needed = _conflicts(instruction, logs, clock, constant_bytes)
        waits = _not_implied(needed, logs)
        for other, count in waits.items():
            clock = np.maximum(clock, logs[other].clocks[count - 1])
        result.append(instruction.waiting(waits))
        known[engine] = clock
        logs[engine].add(instruction, constant_bytes)
        done = clock.copy()
        done[engine] = logs[engine].count
        logs[engine].clocks.append(done)
    return result


def _conflicts(
    instruction: Instruction, logs: dict[Engine, _Log], clock: np.ndarray, constant_bytes: int
) -> dict[Engine, int]:
    """For each other engine, how many of its instructions must have completed, where the clock does not say so yet."""
    needed: dict[Engine, int] = {}
    accesses = [(operand, False) for operand in instruction.reads()] + [
        (operand, True) for operand in instruction.writes()
    ]
    for other, log in logs.items():
        if other == instruction.engine or log.count <= clock[other]:
            continue
        latest = 0
        for operand, write in accesses:
            if operand.extent[1] <= constant_bytes:
                continue
            for earlier_write in (True, False) if write else (True,):
                latest = max(latest, log.latest_conflict(operand, earlier_write, max(int(clock[other]), latest)))
        if latest:
            needed[other] = latest
    return needed


def _not_implied(needed: dict[Engine, int], logs: dict[Engine, _Log]) -> dict[Engine, int]:
    """Without the waits that another wait's instruction knew to be over."""
    kept = dict(needed)
    for engine, count in needed.items():
        if any(other != engine and logs[other].clocks[n - 1][engine] >= count for other, n in kept.items()):
            del kept[engine]
    return kept
