"""Placement of buffers by several orderings of best fit and first fit; the lowest result is kept.

A buffer goes into a gap between the buffers that are already placed and live at the same time as it (the skyline of its
interval). The search stops as soon as a result equals the live-bytes bound, which no placement can beat. It is a heuristic:
it may miss a placement that exists, except with up to EXHAUSTIVE buffers: an optimal placement pushed down as far as it goes
is what first fit makes of the buffers in the order of their offsets, so trying every order finds it. ``solve`` is the only
entry, so an exact search can take its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from tvm_ergo.codegen.memory.problem import Problem, Solution, columns

RANDOM_RESTARTS = 24
EXHAUSTIVE = 5


def orderings(problem: Problem) -> Iterator[np.ndarray]:
    """Deterministic orders known to work (size, area, length, time), then perturbations of the best two by a fixed seed."""
    size, lower, upper, _ = columns(problem)
    length = upper - lower
    number = np.arange(len(size))
    keys = [(number, -length, -size), (number, -size * length), (number, -size, -length), (number, lower, -size), (number, -size, lower),
            (number, -upper, -size), (number, -_contention(problem), -size)]
    for key in keys:
        yield np.lexsort(key)
    if len(size) <= EXHAUSTIVE:
        yield from (np.array(order, np.int64) for order in itertools.permutations(range(len(size))))
        return
    rng = np.random.default_rng(0)
    for _ in range(RANDOM_RESTARTS):
        noise = rng.uniform(0.5, 2.0, len(size))
        yield np.argsort(-size * noise, kind="stable")
        yield np.argsort(-size * length * noise, kind="stable")


def _contention(problem: Problem) -> np.ndarray:
    """Most bytes live at any time of each buffer's lifetime: buffers across the peak must be placed first. int64[n]."""
    steps = problem.live_bytes()
    times = np.array([t for t, _ in steps], np.int64)
    totals = np.array([v for _, v in steps], np.int64)
    worst = []
    for b in problem.buffers:
        first, last = np.searchsorted(times, b.lower, "right") - 1, np.searchsorted(times, b.upper, "left")
        worst.append(int(totals[max(first, 0):last].max(initial=0)))
    return np.array(worst, np.int64)


def place(problem: Problem, order: np.ndarray, best_fit: bool, limit: int | None = None) -> np.ndarray | None:
    """Offsets int64[n] from placing buffers in ``order``; None as soon as one would end above ``limit`` bytes."""
    size, lower, upper, alignment = columns(problem)
    offsets = np.zeros(len(size), np.int64)
    placed = np.zeros(len(size), bool)
    for i in order:
        if size[i] == 0 or lower[i] >= upper[i]:
            continue
        rivals = np.flatnonzero(placed & (lower < upper[i]) & (lower[i] < upper))
        rivals = rivals[np.argsort(offsets[rivals], kind="stable")]
        offset = _gap(offsets[rivals].tolist(), (offsets + size)[rivals].tolist(), int(size[i]), int(alignment[i]), best_fit)
        if limit is not None and offset + size[i] > limit:
            return None
        offsets[i], placed[i] = offset, True
    return offsets


def _gap(starts: list[int], ends: list[int], size: int, alignment: int, best_fit: bool) -> int:
    """Lowest aligned offset (or the tightest gap, under ``best_fit``) for ``size`` bytes beside ``[starts, ends)``, sorted by start."""
    top, best, best_waste = 0, None, None
    for start, end in zip(starts, ends, strict=True):
        candidate = -(-top // alignment) * alignment
        if candidate + size <= start:
            if not best_fit:
                return candidate
            waste = start - candidate - size
            if best_waste is None or waste < best_waste:
                best, best_waste = candidate, waste
        top = max(top, end)
    return best if best is not None else -(-top // alignment) * alignment


def solve(problem: Problem, progress: Callable[[int], None] | None = None) -> Solution:
    """The lowest placement found. ``progress`` is told the peak in bytes at each improvement."""
    bound = problem.lower_bound()
    best, best_peak = None, None
    for order in orderings(problem):
        for best_fit in (False, True):
            offsets = place(problem, order, best_fit, None if best_peak is None else best_peak - 1)
            if offsets is None:
                continue
            best = Solution(tuple(offsets.tolist()))
            best_peak = best.peak(problem)
            if progress:
                progress(best_peak)
            if best_peak <= bound:
                return best
    return best if best is not None else Solution(())
