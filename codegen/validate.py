"""The judge of a memory plan: it knows a Problem and a Solution and nothing of how the one became the other.

Quadratic on purpose: every pair of buffers is compared, no cleverness that could share a mistake with a solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from tvm_ergo.codegen.memory.problem import Problem, Solution, columns


class Reason(Enum):
    """Why a Solution is not one."""

    WRONG_COUNT = "the solution has another number of offsets than the problem has buffers"
    BAD_LIFETIME = "a buffer's lifetime ends before it begins"
    BAD_SIZE = "a buffer has a negative size"
    NEGATIVE_OFFSET = "an offset is negative"
    MISALIGNED = "an offset is not divisible by the buffer's alignment"
    ABOVE_LIMIT = "a buffer ends above the memory"
    OVERLAP = "two buffers that live at the same time share bytes"


@dataclass(frozen=True)
class Violation:
    """The first rule broken, and by which buffers (their ids)."""

    reason: Reason
    buffers: tuple[int | str, ...] = ()

    def __str__(self) -> str:
        return self.reason.value + (f": {', '.join(map(str, self.buffers))}" if self.buffers else "")


def validate(problem: Problem, solution: Solution, limit_bytes: int | None = None) -> Violation | None:
    """None when every buffer lies inside ``[0, limit_bytes)`` and no two live ones share a byte; else the Violation.
    O(n^2)."""
    if len(solution.offsets) != len(problem.buffers):
        return Violation(Reason.WRONG_COUNT)
    size, lower, upper, alignment = columns(problem)
    offset = np.array(solution.offsets, np.int64)
    end = offset + size
    for reason, broken in (
        (Reason.BAD_SIZE, size < 0),
        (Reason.BAD_LIFETIME, upper < lower),
        (Reason.NEGATIVE_OFFSET, offset < 0),
        (Reason.MISALIGNED, offset % alignment != 0),
        (Reason.ABOVE_LIMIT, end > limit_bytes if limit_bytes is not None else np.zeros(len(size), bool)),
    ):
        if broken.any():
            return Violation(reason, (problem.buffers[int(np.argmax(broken))].id,))
    for i in range(len(size)):
        others = slice(i + 1, None)
        clash = (
            (lower[i] < upper[others])
            & (lower[others] < upper[i])
            & (offset[i] < end[others])
            & (offset[others] < end[i])
            & (size[i] > 0)
            & (size[others] > 0)
            & (lower[i] < upper[i])
            & (lower[others] < upper[others])
        )
        if clash.any():
            return Violation(Reason.OVERLAP, (problem.buffers[i].id, problem.buffers[i + 1 + int(np.argmax(clash))].id))
    return None
