"""What becomes of the input frame: how much of it is ever in the memory, from when until when."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_ergo.report.model import InputRow
from tvm_ergo.target.isa import Operand, Receive
from tvm_ergo.target.program import Port, Program


def input_rows(program: Program, time_us: Callable[[int], float]) -> list[InputRow]:
    """One row an input port. time_us : the time at which an instruction starts, by index (half open ends included)."""
    return [_row(program, number, port, time_us) for number, port in enumerate(program.inputs)]


def _row(program: Program, number: int, port: Port, time_us: Callable[[int], float]) -> InputRow:
    if port.streamed:
        taken = [(i, ins.out) for i, ins in enumerate(program.instructions) if isinstance(ins, Receive) and ins.port == number]
    else:
        taken = [(0, port.operand)]
    held = held_bytes(program, *taken[0]) if taken else np.zeros(len(program.instructions), np.int64)
    alive = np.flatnonzero(held)
    first, last = (int(alive[0]), int(alive[-1]) + 1) if len(alive) else (0, 0)
    return InputRow(name=port.name, size_bytes=port.operand.size_bytes, streamed=port.streamed, held_bytes=int(held.max(initial=0)),
                    start_us=time_us(first), end_us=time_us(last))


def held_bytes(program: Program, index: int, operand: Operand) -> np.ndarray:
    """int64[instructions]: bytes over time of the buffers that hold an operand at one instruction."""
    low, high = operand.extent
    names = {b.name for b in program.buffers if b.first <= index < b.last and b.addr < high and low < b.addr + b.size_bytes}
    count = len(program.instructions)
    steps = np.zeros(count + 1, np.int64)
    for b in program.buffers:
        if b.name in names:
            steps[min(b.first, count)] += b.size_bytes
            steps[min(b.last, count)] -= b.size_bytes
    return steps.cumsum()[:count]
