"""The exact search (skyline.cc): places buffers within a given capacity, proves that none exists, or runs out of
work."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tvm_ergo.codegen.memory.problem import Problem, Solution, columns

LIBRARY = Path(__file__).parent / "libskyline.so"
MOST_BUFFERS = 2000
"""The search keeps the open buffers of every level: quadratic in memory (48 MB at this size)."""


@dataclass(frozen=True)
class Answer:
    """solution : a placement within the capacity, or None. impossible : proven that there is none. work : elementary
    steps taken."""

    solution: Solution | None
    impossible: bool
    work: int


@cache
def library() -> ctypes.CDLL | None:
    """The compiled search; None where it was not built (then the heuristics stand alone)."""
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
    loaded.tvm_ergo_place.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        *[ctypes.c_void_p] * 5,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    loaded.tvm_ergo_place.restype = ctypes.c_int
    return loaded


def available(problem: Problem) -> bool:
    """Whether the search can be asked about this problem."""
    return 0 < len(problem.buffers) <= MOST_BUFFERS and library() is not None


def place_within(problem: Problem, capacity_bytes: int, work_limit: int) -> Answer:
    """Offsets within ``capacity_bytes``. ``work_limit`` is in elementary steps, of which a core does about 1e8 a
    second.

    The same problem, capacity and limit always give the same answer. Requires :func:`available`.
    """
    size, lower, upper, alignment = columns(problem)
    real = np.flatnonzero((size > 0) & (lower < upper))  # the others are put at 0
    times = np.unique(np.concatenate([lower[real], upper[real]]))
    first, last = (np.searchsorted(times, t[real]).astype(np.int32) for t in (lower, upper))
    arrays = [
        np.ascontiguousarray(a)
        for a in (size[real], alignment[real], first, last, (upper - lower)[real].astype(np.float64))
    ]
    work, offsets = ctypes.c_int64(work_limit), np.zeros(len(real), np.int64)
    found = library().tvm_ergo_place(
        len(real),
        max(len(times) - 1, 1),
        *(a.ctypes.data for a in arrays),
        capacity_bytes,
        ctypes.byref(work),
        offsets.ctypes.data,
    )
    if found != 1:
        return Answer(None, found == -1, work.value)
    everywhere = np.zeros(len(size), np.int64)
    everywhere[real] = offsets
    return Answer(Solution(tuple(everywhere.tolist())), False, work.value)
