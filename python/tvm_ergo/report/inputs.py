"""What becomes of the input frame: how much of it is ever in the memory, from when until when."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_ergo.report.model import InputRow
from tvm_ergo.target.isa import Operand, Receive
from tvm_ergo.target.program import Port, Program


def input_rows(program: Program, time_us: Callable[[int], float]) -> list[InputRow]:
    """One row an input port but those of states, which stay. time_us : the time at which an instruction starts, by
    index (half open ends included)."""
    kept = {state["input"] for state in program.meta.get("states", ())}
    return [_row(program, number, port, time_us) for number, port in enumerate(program.inputs) if port.name not in kept]


def _row(program: Program, number: int, port: Port, time_us: Callable[[int], float]) -> InputRow:
    taken = _taken(program, number) if port.streamed else [(0, port.operand)]
    held = (
        held_bytes(program, frame_buffers(program, *taken[0]))
        if taken
        else np.zeros(len(program.instructions), np.int64)
    )
    alive = np.flatnonzero(held)
    first, last = (int(alive[0]), int(alive[-1]) + 1) if len(alive) else (0, 0)
    return InputRow(
        name=port.name,
        size_bytes=port.operand.size_bytes,
        streamed=port.streamed,
        held_bytes=int(held.max(initial=0)),
        start_us=time_us(first),
        end_us=time_us(last),
    )


def streamed_buffers(program: Program) -> set[str]:
    """Names of the buffers that rows of streamed inputs are received into."""
    first = [_taken(program, number)[:1] for number, port in enumerate(program.inputs) if port.streamed]
    return {name for taken in first for at in taken for name in frame_buffers(program, *at)}


def _taken(program: Program, number: int) -> list[tuple[int, Operand]]:
    """Instructions that receive from a port, by index, with what they write."""
    return [
        (i, ins.out) for i, ins in enumerate(program.instructions) if isinstance(ins, Receive) and ins.port == number
    ]


def frame_buffers(program: Program, index: int, operand: Operand) -> set[str]:
    """Names of the buffers that hold an operand at one instruction."""
    low, high = operand.extent
    return {
        b.name for b in program.buffers if b.first <= index < b.last and b.addr < high and low < b.addr + b.size_bytes
    }


def held_bytes(program: Program, names: set[str]) -> np.ndarray:
    """int64[instructions]: bytes over time of the buffers of these names."""
    count = len(program.instructions)
    steps = np.zeros(count + 1, np.int64)
    for b in program.buffers:
        if b.name in names:
            steps[min(b.first, count)] += b.size_bytes
            steps[min(b.last, count)] -= b.size_bytes
    return steps.cumsum()[:count]
